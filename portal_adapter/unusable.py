"""What the portal stands on is not there: a database, an address. For the commands, whose exit code says so."""


class Unusable(Exception):
    """The message says what, and what to do."""
