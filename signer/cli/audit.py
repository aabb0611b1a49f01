"""
paraph audit: whether a ledger is whole, and what stands in it; the other subcommands have files of their own.

`verify` and `show` need files only: they run where the daemon is not, best at an auditor's.
"""

import argparse
import heapq
import json
import os
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from signer.chain import ChainError, Kind, Row, read
from signer.cli import archive, export, keys, trace
from signer.cli.console import for_tables
from signer.cli.exits import CONFIG, FAILED, GAP, OK, UNPROVEN, USAGE
from signer.cli.printable import printable

if TYPE_CHECKING:
    from signer.note import Note
    from signer.verdict import ChainState, Report

HELP = "check a ledger's files offline, read them, make a ledger's keys"
EXAMPLE = "paraph audit verify ledger-1 ledger-2 --key checkpoint.pub --anchor checkpoints"

Arguments = Callable[[argparse.ArgumentParser], None]
Run = Callable[[argparse.Namespace], int]


def arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, (text, give, _) in SUBCOMMANDS.items():
        give(actions.add_parser(name, help=text, description=text))


def run(options: argparse.Namespace) -> int:
    return SUBCOMMANDS[options.action][2](options)


class _Unreadable(Exception):
    """A key or an anchor cannot be read; the message says why and what to do."""


def _lines(path: Path) -> Iterator[str]:
    """Exactly those of the file: no line end is translated, and bytes that are no UTF-8 stay what they are."""
    with path.open(encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        yield from file


# ---- verify


def _verify_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", metavar="FILE", nargs="+", type=Path, help="the ledger's files, in any order")
    parser.add_argument("--key", required=True, type=Path, metavar="PEM", help="the public key of the checkpoints")
    parser.add_argument(
        "--anchor",
        required=True,
        action="append",
        type=Path,
        metavar="FILE",
        help="checkpoints as an anchor has kept them, or a log with such lines; again for each further file",
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def _verify(options: argparse.Namespace) -> int:
    # Late imports: the client's installation has none of what these need.
    from signer.audit import examine
    from signer.verdict import Verdict

    try:
        spki = _public_key(options.key)
        anchors, logged = _anchors(options.anchor)
    except _Unreadable as error:
        print(f"paraph audit: {error}", file=sys.stderr)
        return CONFIG
    if said := _other_key(options.key, spki, anchors):
        print(f"paraph audit: {said}", file=sys.stderr)
    # In the order of their numbers: what one anchor has missed another may have.
    notes = heapq.merge(*anchors, key=lambda note: note.checkpoint.number)
    try:
        with Console(stderr=True).status("reading the ledger"):
            report = examine((_lines(path) for path in options.files), notes, spki, logged=logged)
    except OSError as error:
        print(f"paraph audit: {error.filename}: {error.strerror}", file=sys.stderr)
        return USAGE
    if options.json:
        print(json.dumps(_report(report, options.files), indent=2, default=_plain_value))
    else:
        # Without colours for numbers and paths: here a colour says something.
        _print_report(for_tables(highlight=False), report, options)
    codes = {Verdict.WHOLE: OK, Verdict.GAP: GAP, Verdict.UNPROVEN: UNPROVEN, Verdict.TAMPERED: FAILED}
    return codes[report.verdict]


def _public_key(path: Path) -> bytes:
    """The DER SubjectPublicKeyInfo of a PEM file."""
    from pool.public import KeyRefused, spki_of_pem

    try:
        return spki_of_pem(path.read_bytes())
    except OSError as error:
        raise _Unreadable(f"the key {path}: {error.strerror}") from None
    except KeyRefused as error:
        raise _Unreadable(f"the key {path} is none that signs checkpoints: {error}") from None
    except ValueError:
        raise _Unreadable(f"the key {path} is no public key in PEM; give the checkpoint.pub of the daemon") from None


def _other_key(path: Path, spki: bytes, anchors: "list[list[Note]]") -> str:
    """What a person should look at first, where the anchors' checkpoints are all of one key, and it is another one."""
    from signer.note import key_id

    notes = [note for anchor in anchors for note in anchor]
    keys = {note.key for note in notes}
    if len(keys) != 1 or key_id(spki) in keys:
        return ""
    return (
        f"the key {path} is {key_id(spki)}, and of {_count(len(notes), 'checkpoint')} all are signed by {keys.pop()}: this "
        "is not that ledger's key, or the anchor is another ledger's. If you are sure of both, somebody has made these "
        "checkpoints anew"
    )


def _anchors(paths: Iterable[Path]) -> "tuple[list[list[Note]], list[Note]]":
    """The checkpoints of each file that is only appended to, in its order, and those of all logs."""
    files: list[list[Note]] = []
    logged: list[Note] = []
    for path in paths:
        notes, is_log = _notes(path)
        if is_log:
            logged += notes
        else:
            files.append(notes)
    return files, logged


def _notes(path: Path) -> "tuple[list[Note], bool]":
    """The checkpoints of a file, and whether it is a log: one has each on a line, and other lines between them."""
    from signer.note import MAGIC, NoteError, note_of, parse

    try:
        text = path.read_bytes().decode()
        is_log = bool(text) and not text.startswith(f"{MAGIC}\n")
        if is_log:
            lines = [line for line in text.split("\n") if f"{MAGIC}\\n" in line]
            text = "".join(map(note_of, lines))
            if not lines:
                raise NoteError(f"it has no checkpoint: those begin with {MAGIC}")
        return list(parse(text)), is_log
    except OSError as error:
        raise _Unreadable(f"the anchor {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise _Unreadable(f"the anchor {path} is no text; give the file that the daemon's anchor has written") from None
    except NoteError as error:
        raise _Unreadable(f"the anchor {path} cannot be read: {error}; fetch it anew from where it is kept") from None


def _report(report: "Report", files: list[Path]) -> dict[str, Any]:
    found = asdict(report)
    for finding in found["findings"]:
        segment = finding.pop("segment")
        finding["file"] = None if segment is None else str(files[segment])
    totals = {"epochs": report.epochs, "unanchored": report.unanchored}
    return {"verdict": report.verdict, "files": [str(path) for path in files], **found, **totals}


def _plain_value(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else _time(value)


def _time(moment: datetime) -> str:
    from signer.clock import rfc3339

    return rfc3339(moment)


def _print_report(console: Console, report: "Report", options: argparse.Namespace) -> None:
    _print_verdict(console, report)
    _print_findings(console, report, options.files)
    _print_unproven(console, report)
    for gap in report.gaps:
        console.print(
            f"[yellow]lost[/]  rows {gap.first} to {gap.last} of epoch {gap.epoch} of chain {_printable(gap.instance)}, "
            f"says row {gap.declared_by} {gap.declared_at[0]}/{gap.declared_at[1]} ({_printable(gap.time)}): "
            f"{_printable(gap.reason)}"
        )
        if not gap.is_anchored:
            console.print(
                "      [yellow]No checkpoint covers this row: whoever can write the files may have added it.[/]"
            )
    for each in report.unknown:
        console.print(
            f"[yellow]lost[/]  what was signed from {_printable(each.since)} to {_printable(each.until)} is not known, says "
            f"row {each.place[0]}/{each.place[1]} of chain {_printable(each.instance)}: {_printable(each.reason)}"
        )
    if report.chains:
        console.print(_chains(report))
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in report.rows.items() if count)
    total = sum(report.rows.values())
    console.print(f"checked  {_count(total, 'row')} in {_count(len(options.files), 'file')}: {kinds or 'nothing'}")
    if report.first_time:
        console.print(f"         from {_printable(report.first_time)} to {_printable(report.last_time)}")
    more = f", and {report.absent:,} more that only the ledger tells of" if report.absent else ""
    console.print(
        f"beside   {_count(report.checkpoints, 'checkpoint')} signed by the key {escape(str(options.key))}{more}"
    )
    if report.others:
        console.print(f"not ours {_count(report.others, 'checkpoint')} in a log, by other keys and of other chains")
    _print_limits(console, report)


def _print_verdict(console: Console, report: "Report") -> None:
    from signer.verdict import Verdict

    found = len(report.findings) + report.more
    said = {
        Verdict.WHOLE: "[bold green]WHOLE[/]",
        Verdict.GAP: "[bold yellow]WHOLE[/], but for rows that were declared as lost when a backup was restored",
        Verdict.UNPROVEN: "[bold yellow]UNPROVEN[/]: nothing is wrong with what was given, but it may not be all",
        Verdict.TAMPERED: f"[bold red]NOT WHOLE[/]: {_count(found, 'finding')}",
    }
    console.print(said[report.verdict])


def _print_findings(console: Console, report: "Report", files: list[Path]) -> None:
    if not report.findings:
        return
    table = Table("what", "where", "row or checkpoint", "why", box=None, pad_edge=False)
    for finding in report.findings:
        where = "" if finding.segment is None else f"{files[finding.segment]}:{finding.line}"
        table.add_row(f"[red]{finding.kind}[/]", escape(where), escape(finding.place), _printable(finding.sentence))
    console.print(table)
    if report.more:
        console.print(f"and {_count(report.more, 'finding')} more, which are not listed")
    if len(files) > 1 and any("segment " in finding.sentence for finding in report.findings):
        console.print(f"segments: {', '.join(f'{n} {escape(str(path))}' for n, path in enumerate(files, 1))}")


def _print_unproven(console: Console, report: "Report") -> None:
    for chain in report.chains:
        if chain.from_middle:
            first = f"{chain.first[0]}/{chain.first[1]}"
            console.print(
                f"[yellow]missing[/]  what is before row {first} of chain {chain.instance}: give the archived segments, too. "
                "If there are none, rows were deleted."
            )
        if chain.anchored is None:
            console.print(
                f"[yellow]missing[/]  a checkpoint of chain {chain.instance}: give an anchor that has one. Without, anybody who "
                "can write the files may have made up every row."
            )
    for instance, number in report.not_given:
        console.print(
            f"[yellow]missing[/]  chain {instance}, another daemon's, which checkpoint {number} names: give its files, too. If "
            "there are none, it was deleted."
        )


def _chains(report: "Report") -> Table:
    table = Table("chain", box=None, pad_edge=False)
    for column in ("rows", "epochs", "first", "last", "anchored", "not yet"):
        table.add_column(column, justify="right")
    table.add_column("checkpoint")
    table.add_column("begins")
    for chain in report.chains:
        table.add_row(
            chain.instance,
            f"{chain.rows:,}",
            f"{chain.epochs:,}",
            f"{chain.first[0]}/{chain.first[1]}",
            f"{chain.last[0]}/{chain.last[1]}",
            "-" if chain.anchored is None else f"{chain.anchored.epoch}/{chain.anchored.sequence}",
            f"[yellow]{chain.unanchored:,}[/]" if chain.unanchored else "0",
            "-" if chain.anchored_time is None else f"{chain.anchored_by} of {_time(chain.anchored_time)}",
            _beginning(chain),
        )
    return table


def _beginning(chain: "ChainState") -> str:
    if not chain.from_middle:
        return "with its first row"
    if chain.attached_by is not None:
        return f"in the middle, where checkpoint {chain.attached_by} ends"
    return "in the middle" if chain.anchored else "[yellow]in the middle, and nothing says that this is right[/]"


def _print_limits(console: Console, report: "Report") -> None:
    if report.unanchored:
        count = _count(report.unanchored, "row")
        console.print(
            f"[yellow]{count} newer than the newest checkpoint[/]: these are not anchored yet. Whoever can write the "
            "files may have cut off others behind them, or put them in the place of others."
        )
    elif report.chains:
        console.print("Every row is anchored. Whether there were more after the newest checkpoint, nobody can say.")


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


# ---- show


_COLOURS: dict[str, str] = {
    Kind.EPOCH: "bold",
    Kind.INTENT: "cyan",
    Kind.OUTCOME: "green",
    Kind.RELEASED: "green",
    Kind.NOT_DELIVERED: "yellow",
    Kind.POSSIBLE: "bold red",
    Kind.MISMATCH: "red",
    Kind.AUTHORISED: "magenta",
    Kind.REFUSED: "red",
    Kind.REGISTER: "magenta",
    Kind.BATCH: "cyan",
    Kind.CHECKPOINT: "blue",
    Kind.GAP: "bold red",
}


def _show_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", type=Path, help="one of the ledger's files")
    parser.add_argument("--request", type=_request, metavar="UUID", help="only what is about this request")
    parser.add_argument("--json", action="store_true", help="print each row as JSON, one a line")


def _request(text: str) -> str:
    """A request's UUID as rows have it; argparse tells of the ValueError."""
    return str(uuid.UUID(text))


def _show(options: argparse.Namespace) -> int:
    broken = shown = 0
    try:
        for row, request, fields in _with_requests(read(_lines(options.file))):
            if options.request and not _is_about(options.request, request, fields):
                continue
            is_whole = _is_whole(row)
            broken += not is_whole
            shown += 1
            if options.json:
                print(json.dumps(_row(row, fields, is_whole=is_whole)))
            else:
                _print_row(row, request, fields, is_whole=is_whole)
    except BrokenPipeError:  # `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        print(f"paraph audit: {options.file}: {error.strerror}", file=sys.stderr)
        return USAGE
    except ChainError as error:
        print(f"paraph audit: {options.file}: {error}; `paraph audit verify` says what is wrong", file=sys.stderr)
        return FAILED
    if broken:
        print(
            f"paraph audit: {_count(broken, 'row')} not whole; `paraph audit verify` says what is wrong",
            file=sys.stderr,
        )
    if options.request and not shown:
        said = "nothing in it is about this request; another of the ledger's files may have it"
        print(f"paraph audit: {options.file}: {said}", file=sys.stderr)
        return FAILED
    return FAILED if broken else OK


def _with_requests(rows: Iterable[Row]) -> Iterator[tuple[Row, str, dict[str, Any]]]:
    """Each with the request that it is about: an OUTCOME has that of its INTENT, if the file has this."""
    intents: dict[Any, str] = {}
    epoch = 0
    for row in rows:
        if row.epoch != epoch:
            epoch, intents = row.epoch, {}
        fields = _fields(row)
        request = fields.get("request")
        if row.kind == Kind.INTENT and isinstance(request, str):
            intents[row.sequence] = request
        elif row.kind == Kind.OUTCOME:
            intent = fields.get("intent")
            known = intents if isinstance(intent, int) else {}
            request = known.get(intent) if fields.get("closed") is False else known.pop(intent, None)
        if request is None:
            request = next(iter(_named(fields)), "")
        yield row, request if isinstance(request, str) else "", fields


def _fields(row: Row) -> dict[str, Any]:
    try:
        found = row.fields
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _is_about(wanted: str, request: str, fields: dict[str, Any]) -> bool:
    """A document of a request is named UUID/INDEX."""
    return any(name.partition("/")[0] == wanted for name in (request, *_named(fields)))


def _named(fields: dict[str, Any]) -> list[str]:
    """The requests of a row that has several."""
    found = fields.get("requests")
    return [name for name in found if isinstance(name, str)] if isinstance(found, list) else []


def _is_whole(row: Row) -> bool:
    try:
        return row.is_whole()
    except UnicodeEncodeError:
        return False


def _row(row: Row, fields: dict[str, Any], *, is_whole: bool) -> dict[str, Any]:
    place = {"instance": row.instance, "epoch": row.epoch, "sequence": row.sequence}
    return {**place, "kind": row.kind, "hash": row.hash.hex(), "whole": is_whole, "fields": fields}


def _print_row(row: Row, request: str, fields: dict[str, Any], *, is_whole: bool) -> None:
    caller, credential = (_text(fields.get(name)) for name in ("caller", "credential"))
    who = f"{caller} ({credential})" if credential else caller
    place = f"{row.epoch}/{row.sequence}"
    start = f"{_text(fields.get('time')) or '-':20} {place:>9} "
    rest = f" {who:26} {_text(request):38} {_what(row, fields)}".rstrip()
    mark = "" if is_whole else " NOT WHOLE"
    if not sys.stdout.isatty():  # a file of a million rows goes through a pipe as fast as it is read
        print(f"{start}{row.kind:29}{rest}{mark}")
        return
    line = Text.assemble(start, (f"{row.kind:29}", _COLOURS[row.kind]), rest, (mark, "bold red"))
    Console().print(line, soft_wrap=True)


def _what(row: Row, fields: dict[str, Any]) -> str:
    """What happened, and to how many."""
    names = ("version", "token", "number", "epoch", "from", "to", "reason", "count")
    text = {name: _text(fields.get(name)) for name in names}
    items = _how_many(fields.get("items"))
    if row.kind == Kind.EPOCH:
        restored = fields.get("restored")
        if isinstance(restored, dict):
            return f"an older state was put back: what came after {_text(restored.get('kept'))} is not in it"
        return f"the daemon started, version {text['version']}"
    if row.kind == Kind.INTENT:
        return f"{items} to token {text['token']}"
    if row.kind == Kind.OUTCOME:
        counts = {"signed": fields.get("signed")} | {
            word: len(fields[word]) for word in ("failed", "indeterminate") if isinstance(fields.get(word), list)
        }
        said = ", ".join(f"{count} {word}" for word, count in counts.items() if isinstance(count, int))
        return said if fields.get("closed") is not False else f"{said}, more to come"
    if row.kind in {Kind.RELEASED, Kind.NOT_DELIVERED}:
        said = "the answer was taken" if row.kind == Kind.RELEASED else "nobody was there to take the answer"
        others = len(_named(fields)) - 1
        return f"{said}, and so with {others:,} more" if others > 0 else said
    if row.kind == Kind.POSSIBLE:
        return f"{items} may have been signed; nothing was released"
    if row.kind == Kind.MISMATCH:
        return "the request id came again with another body, or from another caller"
    if row.kind == Kind.AUTHORISED:
        until = _text(fields.get("expires"))
        return (
            f"{_text(fields.get('subject'))} has allowed {_text(fields.get('for'))} {text['count']} items until {until}"
        )
    if row.kind == Kind.REFUSED:
        return f"{_text(fields.get('subject'))}: {text['reason']}"
    if row.kind == Kind.REGISTER:
        which = next(
            (f"{_text(fields[name])}: " for name in ("subject", "credential", "token") if fields.get(name)), ""
        )
        who = _text(fields.get("who"))
        return f"{which}{_text(fields.get('what'))}{f', by {who}' if who else ''}"
    if row.kind == Kind.BATCH:
        return f"{text['count']} documents for {_text(fields.get('subject'))} were {_text(fields.get('what'))}"
    if row.kind == Kind.CHECKPOINT:
        return f"checkpoint {text['number']}{_signed_by(fields)}"
    return f"rows {text['from']} to {text['to']} of epoch {text['epoch']} are lost: {text['reason']}"


def _signed_by(fields: dict[str, Any]) -> str:
    """The key, and where it is; rows of earlier versions do not say."""
    token = fields.get("token")
    if not isinstance(token, str):
        return ""
    return f", signed by key {_text(fields.get('key'))} {f'on token {_text(token)}' if token else 'in a file'}"


def _how_many(items: Any) -> str:
    """Items as ranges of places, or as places."""
    if not isinstance(items, list):
        return "? items"
    try:
        return _count(sum(each[1] - each[0] if isinstance(each, list) else 1 for each in items), "item")
    except (TypeError, IndexError):
        return "? items"


def _text(value: Any) -> str:
    """Of a row's field."""
    return "" if value is None else printable(str(value))


def _printable(text: str) -> str:
    return escape(_text(text))


# name -> what it does, its arguments, how it is run
SUBCOMMANDS: dict[str, tuple[str, Arguments, Run]] = {
    "verify": ("whether a ledger is whole: its files beside checkpoints and a public key", _verify_arguments, _verify),
    "show": ("what stands in a ledger's file, one line a row", _show_arguments, _show),
    "keys": (keys.HELP, keys.arguments, keys.run),
    "export": (export.HELP, export.arguments, export.run),
    "archive": (archive.HELP, archive.arguments, archive.run),
    "trace": (trace.HELP, trace.arguments, trace.run),
}
