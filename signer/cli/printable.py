"""Text from a document, a certificate, a peer or a database, for a terminal: it may hold anything, escape sequences, too."""


def printable(text: str) -> str:
    """Nothing in it moves the cursor, begins a new line or turns one round (control and format characters)."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
