"""paraph audit trace: what became of one request, as lines and as a picture."""

import argparse
import json
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from signer.cli import configured
from signer.cli.exits import CONFIG, FAILED, OK, USAGE
from signer.cli.printable import printable

if TYPE_CHECKING:
    from signer.config import Config
    from signer.trace import Event

HELP = "the life of one request: accepted, intended, signed, released, covered by checkpoints"
_MODE = 0o640


def arguments(parser: argparse.ArgumentParser) -> None:
    configured.arguments(parser)
    parser.add_argument("request", metavar="REQUEST_ID", help="its UUID, with /INDEX one document of it")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.svg", help="draw it, to a new file")
    parser.add_argument("--json", action="store_true", help="print a JSON object a line")


def run(options: argparse.Namespace) -> int:
    # Late imports: the client's installation has none of what these need.
    config = configured.loaded(options.config)
    if config is None:
        return CONFIG
    from signer.database import StoreError
    from signer.recovery import Broken

    name, slash, index = options.request.partition("/")
    try:
        id_ = uuid.UUID(name)
    except ValueError:
        print(f"paraph audit: {name} is no UUID; callers get their request id with every answer", file=sys.stderr)
        return USAGE
    request = f"{id_}{slash}{index}"
    try:
        events = _life(config, id_, request)
        if not events:
            print(f"paraph audit: no row of this daemon's ledger names the request {request}. It may have been refused, "
                  "belong to another daemon, or be in archived files (`paraph audit show` reads those)", file=sys.stderr)  # fmt: skip
            return FAILED
        if options.output is not None:
            _draw(options.output, request, events)
    except FileExistsError as error:
        print(f"paraph audit: {error.filename}: {error.strerror}", file=sys.stderr)
        return USAGE
    except (StoreError, Broken, OSError) as error:
        print(printable(f"paraph audit: {error}"), file=sys.stderr)
        return FAILED
    _print(request, events, as_json=options.json)
    return OK


def _life(config: "Config", id_: uuid.UUID, request: str) -> "list[Event]":
    from signer.clock import rfc3339
    from signer.evidence import opened, rows
    from signer.lost import notes_of
    from signer.trace import life

    files = [each.file for each in config.ledger.anchor if each.file is not None]
    with opened(config) as evidence:
        second = evidence.accepted(id_)
        accepted = "" if second is None else rfc3339(second)
        return life(rows(evidence), notes_of(files), request, accepted)


def _draw(path: Path, request: str, events: "list[Event]") -> None:
    from signer.appearing import appearing
    from signer.picture import svg

    with appearing(path, _MODE) as draft:
        draft.write_text(svg(request, events), encoding="utf-8")


def _print(request: str, events: "list[Event]", *, as_json: bool) -> None:
    from signer.trace import CHECKPOINT, uncovered

    for event in events:
        if as_json:
            print(json.dumps(event.value(request)))
            continue
        place = "" if event.place is None else f"{event.place[0]}/{event.place[1]}"
        place = f"to {place}" if event.kind == CHECKPOINT else place
        print(printable(f"{event.time or '-':24} {place:>12}  {event.kind:29} {event.what}"))
    if not as_json and (loose := uncovered(events)):
        print(f"no checkpoint covers {loose:,} of these rows yet")
