"""A terminal's screen: what a person sees of what a program writes, by the few codes that ours uses; any other is an error."""

import re

# Written text, or one code: of a colour, a movement, an erasure, a mode.
_PIECE = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|([\r\n])|([^\x1b\r\n]+)")


class Screen:
    def __init__(self, columns: int, rows: int) -> None:
        self.columns, self.rows = columns, rows
        self.is_other = False  # the terminal's other screen
        self.has_cursor = True
        self.pictures = 0  # begun with the mode that shows nothing before its end
        self.colours: set[str] = set()
        self.picture = ""  # the last one that was written whole
        self.before = ""  # what stood on the other screen when it was left
        self._lines = [" " * columns for _ in range(rows)]
        self._row = self._column = 0
        self._rest = ""

    def feed(self, text: str) -> None:
        text, self._rest = self._rest + text, ""
        place = 0
        while place < len(text):
            piece = _PIECE.match(text, place)
            if piece is None or (piece.end() == len(text) and "\x1b" in text[place:] and piece[2] is None):
                self._rest = text[place:]  # the rest of a code is still to come
                assert len(self._rest) < 20, f"a code that no screen of ours knows: {self._rest!r}"
                return
            self._take(piece)
            place = piece.end()

    def _take(self, piece: re.Match[str]) -> None:
        if piece[4] is not None:
            self._write(piece[4])
        elif piece[3] == "\r":
            self._column = 0
        elif piece[3] == "\n":
            self._row = min(self._row + 1, self.rows - 1)
        else:
            self._code(piece[1], piece[2])

    def _write(self, text: str) -> None:
        assert all(letter.isprintable() for letter in text), f"moves the cursor: {text!r}"
        assert self._column + len(text) <= self.columns, f"wider than the screen: {text!r}"
        line = self._lines[self._row]
        self._lines[self._row] = line[: self._column] + text + line[self._column + len(text) :]
        self._column += len(text)

    def _code(self, numbers: str, letter: str) -> None:
        blank = " " * self.columns
        if letter == "m":
            self.colours |= {number for number in numbers.split(";") if re.fullmatch("[349][0-7]", number)}
        elif (numbers, letter) == ("", "H"):
            self._row = self._column = 0
        elif (numbers, letter) == ("", "K"):
            self._lines[self._row] = self._lines[self._row][: self._column] + blank[self._column :]
        elif (numbers, letter) == ("", "J"):
            self._lines[self._row] = self._lines[self._row][: self._column] + blank[self._column :]
            self._lines[self._row + 1 :] = [blank] * (self.rows - self._row - 1)
        elif numbers == "?1049":
            self.is_other, self.before = letter == "h", self.text
        elif numbers == "?25":
            self.has_cursor = letter == "h"
        elif numbers == "?2026":
            self.pictures += letter == "h"
            self.picture = self.text if letter == "l" else self.picture
        else:
            raise AssertionError(f"no screen of ours knows ESC[{numbers}{letter}")

    @property
    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self._lines).rstrip("\n")
