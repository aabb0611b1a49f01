"""paraph audit export: the chain of a daemon as a file, for whoever judges it elsewhere."""

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from signer.cli import configured
from signer.cli.exits import CONFIG, FAILED, OK, USAGE
from signer.cli.printable import printable

HELP = "write a daemon's ledger to a file, also while it runs, and where it refuses to start"
_MODE = 0o640


def arguments(parser: argparse.ArgumentParser) -> None:
    configured.arguments(parser)
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="a new file (default: standard output)")


def run(options: argparse.Namespace) -> int:
    # Late imports: the client's installation has none of what these need.
    config = configured.loaded(options.config)
    if config is None:
        return CONFIG
    from signer.database import StoreError
    from signer.evidence import opened, segment

    count = -1  # the header is no row
    try:
        with opened(config) as evidence, _output(options.output) as file:
            for line in segment(evidence):
                file.write(line)
                count += 1
            if count < 0:
                raise StoreError(
                    f"{evidence.instance or options.config}: the ledger has no rows, there is nothing to write"
                )
            file.flush()
    except FileExistsError as error:
        print(f"paraph audit: {error.filename}: {error.strerror}", file=sys.stderr)
        return USAGE
    except BrokenPipeError:  # whoever reads has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except (StoreError, OSError) as error:
        print(printable(f"paraph audit: {error}"), file=sys.stderr)
        return FAILED
    if options.output is not None:
        print(f"{options.output}: {count:,} rows; `paraph audit verify` says what they are worth", file=sys.stderr)
    return OK


@contextlib.contextmanager
def _output(path: Path | None) -> Iterator[TextIO]:
    """Text as it stands in the database: no line end is translated, and bytes that are no UTF-8 go out as they came."""
    if path is None:
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape", newline="\n")  # type: ignore[union-attr]
        yield sys.stdout
        return
    from signer.appearing import appearing

    with (
        appearing(path, _MODE) as draft,
        draft.open("w", encoding="utf-8", errors="surrogateescape", newline="\n") as file,
    ):
        yield file
