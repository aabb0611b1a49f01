"""The exit codes of every command (after sysexits.h where it has one); README.md has the same table."""

OK = 0
FAILED = 1  # the thing asked for is not so: a signature is not valid, a document was not signed, a ledger is not whole
USAGE = 2  # the command line; argparse uses it too
GAP = 3  # a ledger is whole, but rows were declared as lost after a restore
UNPROVEN = 4  # nothing is wrong with what was given of a ledger, and it does not prove that this is all
UNAVAILABLE = 69  # the daemon cannot be reached, or no token can sign
TEMPORARY = 75  # somebody else is at it; try again later
DENIED = 77  # the daemon does not know this caller, or does not allow it this
CONFIG = 78  # a configuration file has mistakes, or a key or an anchor cannot be read

MEANINGS = {
    OK: "done",
    FAILED: "not so: a signature is not valid, a document was not signed, or a ledger is not whole",
    USAGE: "the command line is wrong",
    GAP: "the ledger is whole, but a gap was declared after a restore",
    UNPROVEN: "nothing is wrong with what was given of the ledger, but its beginning, another daemon's chain, or every checkpoint was not",
    UNAVAILABLE: "the daemon cannot be reached, or no token can sign",
    TEMPORARY: "busy, or another daemon uses the state; try again",
    DENIED: "the daemon does not know this caller or does not allow it this",
    CONFIG: "a configuration file has mistakes, or a key or an anchor cannot be read",
}
