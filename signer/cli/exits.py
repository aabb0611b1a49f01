"""The exit codes of every command (after sysexits.h where it has one); README.md has the same table."""

from collections.abc import Iterable

OK = 0
FAILED = 1  # the thing asked for is not so: a signature is not valid, a document was not signed, a ledger is not whole
USAGE = 2  # the command line; argparse uses it too
GAP = 3  # a ledger is whole, but rows were declared as lost after a restore
UNPROVEN = 4  # nothing is wrong with what was given of a ledger, and it does not prove that this is all
UNAVAILABLE = 69  # the daemon cannot be reached, or nothing can be signed before somebody has done something
TEMPORARY = 75  # somebody else is at it, or it passes by itself; try again later
DENIED = 77  # the daemon does not know this caller, or does not allow it this
CONFIG = 78  # a configuration file has mistakes, or a key or an anchor cannot be read

MEANINGS = {
    OK: "done",
    FAILED: "not so: a signature is not valid, a document was not signed, or a ledger is not whole",
    USAGE: "the command line is wrong",
    GAP: "the ledger is whole, but a gap was declared after a restore",
    UNPROVEN: "nothing is wrong with what was given of the ledger, but its beginning, another daemon's chain, or every checkpoint was not",
    UNAVAILABLE: "the daemon cannot be reached, no token can sign, or the ledger is stopped",
    TEMPORARY: "busy, or another daemon uses the state; try again",
    DENIED: "the daemon does not know this caller or does not allow it this",
    CONFIG: "a configuration file has mistakes, or a key or an anchor cannot be read",
}

# What a refusal of the service means to a script: its reason's where that has one here, else its gRPC status'.
OF_REASON = dict.fromkeys(
    (
        *("TOKEN_ABSENT", "TOKEN_CHANGED", "TOKEN_REMOVED", "TOKEN_FAULT", "TOKEN_DRAINED", "TOKEN_QUARANTINED"),
        *("PCSC_DOWN", "PIN_LOCKED", "PIN_UNCLEAR", "LOGIN_REQUIRED", "MODULE_CRASH", "CHECKPOINT_OVERDUE"),
    ),
    UNAVAILABLE,
) | dict.fromkeys(
    (
        *("AUDIT_UNWRITABLE", "STORE_BUSY", "NO_RANDOMNESS", "REVOCATION_UNAVAILABLE", "INTERRUPTED", "DRAINING"),
        *("POOL_CLOSED", "STREAM_OVER", "ASSEMBLY_FAILED", "CODES_FAILED", "CONTACT_UNREACHABLE"),
        *("TOKEN_STARTING", "TOKEN_BUSY"),
    ),
    TEMPORARY,
)
_OF_STATUS = {
    "UNAVAILABLE": UNAVAILABLE,
    "RESOURCE_EXHAUSTED": TEMPORARY,
    "DEADLINE_EXCEEDED": TEMPORARY,
    "UNAUTHENTICATED": DENIED,
    "PERMISSION_DENIED": DENIED,
}


def of(reason: str, code: str, status: str = "") -> int:
    """
    The exit code for a `ServiceError`'s reason, gRPC status and item status. What may have been signed is FAILED: a script
    that tries again would have it signed twice.
    """
    if status == "INDETERMINATE":
        return FAILED
    return OF_REASON.get(reason, _OF_STATUS.get(code, FAILED))


def of_all(codes: Iterable[int]) -> int:
    """Of several files: where they failed in different ways, FAILED."""
    failed = set(codes) - {OK}
    return failed.pop() if len(failed) == 1 else FAILED if failed else OK
