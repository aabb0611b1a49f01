"""The exit codes of every command (after sysexits.h where it has one); README.md has the same table."""

OK = 0
FAILED = 1  # the thing asked for is not so: a signature is not valid, a document was not signed
USAGE = 2  # the command line; argparse uses it too
UNAVAILABLE = 69  # the daemon cannot be reached, or no token can sign
TEMPORARY = 75  # somebody else is at it; try again later
DENIED = 77  # the daemon does not know this caller, or does not allow it this
CONFIG = 78  # a configuration file has mistakes

MEANINGS = {
    OK: "done",
    FAILED: "not so: a signature is not valid, or a document was not signed",
    USAGE: "the command line is wrong",
    UNAVAILABLE: "the daemon cannot be reached, or no token can sign",
    TEMPORARY: "busy, or another daemon uses the state; try again",
    DENIED: "the daemon does not know this caller or does not allow it this",
    CONFIG: "a configuration file has mistakes",
}
