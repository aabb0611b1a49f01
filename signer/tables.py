"""
Tables in the documents that are written from the code: `python -m signer.tables` puts them there.

proto/README.md has the reasons of `errors.py`, README.md the exit codes of `cli/exits.py`.
"""

import re
from pathlib import Path

from pool import REASONS
from signer.cli.exits import MEANINGS
from signer.errors import TABLE, Refusal

ROOT = Path(__file__).parent.parent


def table() -> str:
    rows = ["| reason | gRPC code | what it means |", "|---|---|---|"]
    for reason in (*TABLE, *REASONS):
        refusal = Refusal(reason)
        rows.append(f"| {reason} | {refusal.code.name} | {refusal.message} |")
    return "\n".join(rows)


def exits() -> str:
    rows = ["| code | what it means |", "|---|---|"]
    return "\n".join([*rows, *(f"| {code} | {meaning} |" for code, meaning in MEANINGS.items())])


def written(text: str, mark: str, content: str) -> str:
    """The text of a document with the content of one marked place as it is now."""
    text, found = re.subn(
        rf"(<!-- {mark} -->\n).*?(<!-- end -->)", lambda m: f"{m[1]}{content}\n{m[2]}", text, flags=re.DOTALL
    )
    if found != 1:
        raise ValueError(f"there is no single place for {mark}")
    return text


PLACES = ((ROOT / "proto" / "README.md", "reasons", table), (ROOT / "README.md", "exits", exits))

if __name__ == "__main__":
    for path, mark, content in PLACES:
        path.write_text(written(path.read_text(), mark, content()))
