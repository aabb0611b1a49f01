"""A secret code that a person chooses."""

from signer.cli import prompt
from signer.secret import Code, CodeError


def ask() -> str:
    """Typed twice the same, and one that the service takes as far as its form goes."""
    while True:
        code = prompt.hidden("New secret code (8 to 64 characters): ")
        try:
            Code.chosen(code)
        except CodeError as error:
            prompt.tell(f"{str(error).capitalize()}; choose another.")
            continue
        if code == prompt.hidden("Once more: "):
            return code
        prompt.tell("The two are not the same; choose it again.")
