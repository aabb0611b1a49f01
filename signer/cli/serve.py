"""paraph serve: run the daemon, or look whether it could."""

import argparse
import errno
import gc
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from signer import randomness
from signer.cli.exits import CONFIG, OK, TEMPORARY
from signer.cli.printable import printable

if TYPE_CHECKING:
    from signer.config import Config, ConfigError
    from signer.credential import Credential

# Where people's codes come in, memory that is given back is overwritten by the C library at once, which is asked to keep none
# of it for each thread, where it would not be, and Python to take all of its own from there. Else codes stay readable, for
# root, until something else comes to lie there. Both read this when a process starts, so that the daemon starts itself
# again. It costs the front processor time, which a daemon without people has better use for.
FORGETFUL = {"glibc.malloc.perturb": "1", "glibc.malloc.tcache_count": "0"}

HELP = "run the daemon"
EXAMPLE = "paraph serve --config /etc/paraph/paraph.toml"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, default=Path("/etc/paraph/paraph.toml"), help="(default: %(default)s)")
    parser.add_argument("--check", action="store_true", help="only read the configuration and what it names")
    parser.add_argument("--json", action="store_true", help="with --check: print the result as JSON")
    parser.add_argument("--log-level", default="INFO", choices=["DEBUG", "INFO", "WARNING", "ERROR"])


def run(options: argparse.Namespace) -> int:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until the daemon can reload: by default it would end the process
    try:
        randomness.check()  # before the imports: some of them want random bytes already, and would wait for ever
    except randomness.NoRandomness as error:
        print(f"paraph serve: {error}; start again when it does", file=sys.stderr)
        return TEMPORARY
    # Late imports: the client's installation has none of them.
    from signer import anchor
    from signer import config as configs
    from signer.config import ConfigError, NoCredentials
    from signer.listener import TlsFiles
    from signer.people import mail_server
    from signer.policy import Policy
    from signer.revocation import issuers

    logging.basicConfig(
        level=options.log_level,
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        datefmt="%Y-%m-%dT%H:%M:%S%z",
    )
    errors: list[ConfigError] = []
    try:
        config = configs.load(options.config)
    except ConfigError as error:
        if not options.check:
            return _mistakes(options, [error])
        try:
            config = configs.good_sections(options.config)
        except ConfigError:  # it cannot be read at all
            return _mistakes(options, [error])
        errors.append(error)
    listeners = [listener for listener in config.listener if listener.address is not None]
    reads: list[Callable[[], object]] = [partial(Policy.of, config), partial(issuers, config.trust)]
    reads += [partial(TlsFiles.read, listener) for listener in listeners]
    has_ledger = "ledger" in config.model_fields_set  # not where it has mistakes of its own
    if has_ledger:
        reads += [partial(_checkpoint_key, config, look=options.check and not errors), config.ledger.data_key]
    if config.people is not None:
        reads += [config.people.seed_key, partial(mail_server, config.people)]
        if config.people.mail is not None and config.people.mail.has_login:
            reads.append(config.people.mail.login)
    if options.check:  # at a start, an anchor that is away is no reason not to sign
        reads += [token.check_pin for token in config.token]
        reads += [partial(anchor.check, config.ledger)] if has_ledger else []
        reads += [partial(_callers, config), partial(_groups, config)] if not errors else []
    for read in reads:
        try:
            read()
        except NoCredentials as error:
            if not options.check:
                errors.append(error)
                continue
            print(f"paraph serve: not looked at, it is the service's alone: {error}", file=sys.stderr)
        except ConfigError as error:
            errors.append(error)
    if errors:
        return _mistakes(options, errors)
    if options.check:
        print(
            json.dumps({"config": str(options.config), "mistakes": []}) if options.json else f"{options.config}: good"
        )
        return OK
    return _serve(options, config)


def _forgetful(environment: Mapping[str, str]) -> dict[str, str]:
    """What a start is to have besides, with what somebody has tuned for himself; nothing where Python's part is there."""
    if environment.get("PYTHONMALLOC") == "malloc":
        return {}
    tunables = environment.get("GLIBC_TUNABLES", "")
    missing = [f"{name}={value}" for name, value in FORGETFUL.items() if name not in tunables]
    return {"PYTHONMALLOC": "malloc", "GLIBC_TUNABLES": ":".join([*filter(None, [tunables]), *missing])}


def _serve(options: argparse.Namespace, config: "Config") -> int:
    from pool import dump

    if config.people is not None and (wanted := _forgetful(os.environ)):
        words = ["-Ps" if word == "-I" else word for word in sys.orig_argv[1:]]  # -I, but for the environment
        os.execve(sys.executable, [sys.executable, *words], os.environ | wanted)  # noqa: S606 -- ourselves
    dump.forbid()
    # What imports make stays. To search it for cycles while it grows is a tenth of the start; later, calls would wait.
    gc.disable()
    import uvloop

    from signer.config import ConfigError
    from signer.database import StoreError
    from signer.entry import Failed
    from signer.exclusive import AlreadyRunning
    from signer.listener import AddressInUse
    from signer.recovery import Broken
    from signer.server import Daemon

    gc.freeze()
    gc.enable()
    try:
        uvloop.run(Daemon(options.config, config).run())
    except ConfigError as error:
        return _mistakes(options, [error])
    except (AlreadyRunning, AddressInUse) as error:
        print(f"paraph serve: {error}", file=sys.stderr)
        return TEMPORARY
    except (StoreError, Broken) as error:
        print(printable(f"paraph serve: {error}"), file=sys.stderr)
        return TEMPORARY if isinstance(error, StoreError) and error.is_temporary else CONFIG
    except Failed as error:  # as a daemon that runs: it heals when the database can be written again
        print(printable(f"paraph serve: the ledger cannot be written now: {error}"), file=sys.stderr)
        return TEMPORARY
    except OSError as error:
        is_full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        said = (
            f"there is no room for {error.filename or config.server.state}; make some: {error.strerror}"
            if is_full
            else error
        )
        print(f"paraph serve: {said}", file=sys.stderr)
        return TEMPORARY if is_full or error.errno == errno.EADDRINUSE else CONFIG
    return OK


def _checkpoint_key(config: "Config", *, look: bool) -> None:
    """
    Whether it can be read, or what is known of one on a token; with `look` also whether a credential has the same, as
    a start finds out by itself. Raises `ConfigError`.
    """
    from signer import checkpoint_key

    spki = checkpoint_key.spki_of(config.ledger)
    if not look or config.ledger.checkpoint_token is None:  # what is in a file is nobody's to name
        return
    credentials = _looked_at(config, "whether a credential has the checkpoints' key")
    if credentials is not None:
        checkpoint_key.check_apart(spki, credentials.values())


def _looked_at(config: "Config", why: str) -> "Mapping[str, Credential] | None":
    """The credentials that there are; None, which is told, where the database cannot be looked at."""
    from signer import credential as rows
    from signer.database import StoreError, where

    try:
        return rows.look(where(config))
    except StoreError as error:
        print(printable(f"paraph serve: not looked at, {why}: {error}"), file=sys.stderr)
        return None


def _callers(config: "Config") -> None:
    """Whether there are the credentials that they may use. Raises `ConfigError`."""
    from signer.config import ConfigError

    if not any(caller.credentials for caller in config.caller):
        return
    credentials = _looked_at(config, "whether callers' credentials are there")
    if credentials is None:
        return
    there = credentials.keys() | {group.name for group in config.group}
    mistakes = [
        f"{caller.name}: there is no credential {name!r}; `paraph credential add {name}` first, or take it out"
        for caller in config.caller
        for name in sorted(caller.credentials - there)
    ]
    if mistakes:
        raise ConfigError(Path("caller"), mistakes)


def _groups(config: "Config") -> None:
    """Whether the credentials that there are make its groups; a start finds out by itself. Raises `ConfigError`."""
    from signer import group

    if not config.group:
        return
    credentials = _looked_at(config, "whether a group's members are there")
    if credentials is not None:
        group.check(config.group, credentials)


def _mistakes(options: argparse.Namespace, errors: "Sequence[ConfigError]") -> int:
    lines = [f"{error.path}: {mistake}" for error in errors for mistake in error.mistakes]
    if options.json:
        print(json.dumps({"config": str(options.config), "mistakes": lines}))
    else:
        print("\n".join(lines), file=sys.stderr)
    return CONFIG
