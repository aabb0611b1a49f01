"""What commands beside the daemon share: its configuration, and the mistakes in it."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from signer.config import Config


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, default=Path("/etc/paraph/paraph.toml"), help="(default: %(default)s)")


def more_anchors(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--anchor",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="checkpoints beside the configuration's files: kept by a log server or a webhook, or by the anchors of other "
        "daemons on this database",
    )


def loaded(path: Path) -> "Config | None":
    """None after each mistake was printed: the exit code is CONFIG then."""
    from signer import config as configs  # late: the client's installation does not have what it needs

    try:
        return configs.load(path)
    except configs.ConfigError as error:
        for mistake in error.mistakes:
            print(f"{error.path}: {mistake}", file=sys.stderr)
        return None
