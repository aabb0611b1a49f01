"""What a procedure still needs before it can be sent (SUB-02, SUB-03, ATT-11). Pure."""

from collections.abc import Collection, Sequence

from portal_adapter.definitions.answers import required_pieces
from portal_adapter.definitions.definition import Definition
from portal_adapter.domain.procedure import Row
from portal_adapter.files.examined import CLEAN
from portal_adapter.refusal import Unmet


def unmet_to_send(
    definition: Definition, row: Row, pieces: Sequence[Row], flagged: Collection[str], language: str, at: str
) -> list[Unmet]:
    """`flagged` are the ids of attachments that were sent back; `at` is the procedure's page."""
    found = []
    if row["entry"] == "open":
        found.append(Unmet("not-confirmed", "The declaration is not confirmed yet.", f"{at}/check"))
    elif row["signature"] != "valid":
        found.append(Unmet("not-signed", "The declaration is not signed yet.", at))
    clean = {piece["slot"] for piece in pieces if piece["scan"] == CLEAN}
    for piece in required_pieces(definition, row["answers"]):
        if piece.type not in clean:
            values = {"piece": piece.label.in_(language)}
            found.append(Unmet("attachment-missing", "Still to be attached: {piece}", f"{at}/attachments", values))
    for one in pieces:
        values = {"name": one["name"]}
        if one["id"] in flagged:
            message = "The administration has sent this back; replace or remove it: {name}"
            found.append(Unmet("attachment-flagged", message, f"{at}/attachments", values))
        if one["scan"] != CLEAN:
            message = "This attachment is being checked for malware; wait, or remove it: {name}"
            found.append(Unmet("attachment-not-scanned", message, f"{at}/attachments", values))
    return found
