"""paraph serve: run the daemon, or look whether it could."""

import argparse
import json
import logging
import sys
from pathlib import Path

from signer.cli.exits import CONFIG, OK, TEMPORARY

HELP = "run the daemon"
EXAMPLE = "paraph serve --config /etc/paraph/paraph.toml"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, default=Path("/etc/paraph/paraph.toml"), help="(default: %(default)s)")
    parser.add_argument("--check", action="store_true", help="only read the configuration and what it names")
    parser.add_argument("--json", action="store_true", help="with --check: print the result as JSON")
    parser.add_argument("--log-level", default="INFO", choices=["DEBUG", "INFO", "WARNING", "ERROR"])


def run(options: argparse.Namespace) -> int:
    # Late imports: the client's installation has none of them.
    import uvloop

    from signer import config as configs
    from signer.config import ConfigError
    from signer.listener import TlsFiles
    from signer.policy import Policy
    from signer.server import AlreadyRunning, Daemon
    from signer.store import StoreError

    logging.basicConfig(
        level=options.log_level,
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        datefmt="%Y-%m-%dT%H:%M:%S%z",
    )
    try:
        config = configs.load(options.config)
        Policy.of(config)
        for listener in config.listener:
            if listener.address is not None:
                TlsFiles.read(listener)
    except ConfigError as error:
        return _mistakes(options, error.mistakes, error.path)
    if options.check:
        print(
            json.dumps({"config": str(options.config), "mistakes": []}) if options.json else f"{options.config}: good"
        )
        return OK

    async def main() -> None:
        await Daemon(options.config, config).run()

    try:
        uvloop.run(main())
    except ConfigError as error:
        return _mistakes(options, error.mistakes, error.path)
    except AlreadyRunning as error:
        print(f"paraph serve: {error}", file=sys.stderr)
        return TEMPORARY
    except StoreError as error:
        print(f"paraph serve: {error}", file=sys.stderr)
        return CONFIG
    return OK


def _mistakes(options: argparse.Namespace, mistakes: list[str], path: Path) -> int:
    if options.json:
        print(json.dumps({"config": str(options.config), "mistakes": mistakes}))
    else:
        for mistake in mistakes:
            print(f"{path}: {mistake}", file=sys.stderr)
    return CONFIG
