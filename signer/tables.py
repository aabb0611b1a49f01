"""The table of reasons in proto/README.md, written from `errors.py`: `python -m signer.reasons` puts it there."""

import re
from pathlib import Path

from pool import REASONS
from signer.errors import TABLE, Refusal

README = Path(__file__).parent.parent / "proto" / "README.md"


def table() -> str:
    rows = ["| reason | gRPC code | what it means |", "|---|---|---|"]
    for reason in (*TABLE, *REASONS):
        refusal = Refusal(reason)
        rows.append(f"| {reason} | {refusal.code.name} | {refusal.message} |")
    return "\n".join(rows)


def written(text: str) -> str:
    """README.md's text with the table as it is now."""
    text, found = re.subn(
        r"(<!-- reasons -->\n).*?(<!-- end -->)", lambda m: f"{m[1]}{table()}\n{m[2]}", text, flags=re.DOTALL
    )
    if found != 1:
        raise ValueError("proto/README.md has no single place for the table")
    return text


if __name__ == "__main__":
    README.write_text(written(README.read_text()))
