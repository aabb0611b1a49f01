"""
What a procedure still needs before it can be sent, and what is there already (SUB-02, SUB-03, ATT-11, COR-04). Pure.

    unmet_to_send(definition, row, pieces, flagged, language, at)      all of it, each with the way to where it is mended

    next_step(row, found, is_whole=…, is_to_edit=…)                    the one of these that comes next

An indicator is green where nothing of it is unmet, and neither green nor red while that depends on answers to come: the
declaration, the second signature where there is one, each slot, and the attachments as a whole.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from portal_adapter.definitions.answers import has_undecided_pieces
from portal_adapter.definitions.definition import Definition
from portal_adapter.domain.attachment import Slot, arranged
from portal_adapter.domain.procedure import CHECK, Row
from portal_adapter.files.examined import CLEAN, INFECTED
from portal_adapter.language import msgid
from portal_adapter.refusal import Unmet


@dataclass(frozen=True, slots=True)
class Indicator:
    """`label` and `said` are msgids: what it is of, and how it stands; `href` leads to its place."""

    name: str
    label: str
    said: str
    href: str
    unmet: tuple[Unmet, ...] = ()
    is_undecided: bool = False  # nothing is unmet yet, and more may be wanted

    @property
    def is_green(self) -> bool:
        return not self.unmet and not self.is_undecided


def indicators(
    definition: Definition,
    row: Row,
    pieces: Sequence[Row],
    flagged: Collection[str],
    language: str,
    at: str,
) -> list[Indicator]:
    """The declaration's, the second signature's where there is one, and the attachments' sum; `at` is the procedure's page."""
    second = [_second_signature(row, at)] if definition.signatures == 2 else []
    return [_declaration(definition, row, at), *second, _attachments(definition, row, pieces, flagged, language, at)]


def unmet_to_send(
    definition: Definition,
    row: Row,
    pieces: Sequence[Row],
    flagged: Collection[str],
    language: str,
    at: str,
) -> list[Unmet]:
    """`pieces` are all attachments, `flagged` the ids of those that were sent back (`attachment.flagged`)."""
    return [one for each in indicators(definition, row, pieces, flagged, language, at) for one in each.unmet]


def next_step(row: Row, found: Sequence[Indicator], *, is_whole: bool, is_to_edit: bool) -> str:
    """
    What is to be done next with what is not sent, or was sent back: continue or edit, check, sign, transfer, attach, send;
    '' where only waiting is left. `is_whole` says whether the answers can be confirmed, `is_to_edit` whether fields were
    sent back and nothing of the form has changed since.
    """
    if row["second_state"] == "transferred":
        return ""
    red = {one.name for one in found if one.unmet}
    if row["entry"] == "open":
        if is_whole and row["step"] == CHECK and not is_to_edit:
            return "check"
        return "continue" if row["status"] == "in_preparation" else "edit"
    if is_to_edit:
        return "edit"
    if "declaration" in red:
        return "sign"
    if "second-signature" in red:
        return "transfer"
    return "attach" if red else "send"


def of_slot(slot: Slot, flagged: Collection[str], language: str, at: str) -> Indicator:
    """Green only with a piece that is there, is clean, and was not sent back."""
    label, href = slot.piece.label.in_(language), f"{at}/attachments#slot-{slot.type}"
    if slot.filled is None:
        missing = Unmet("attachment-missing", "Still to be attached: {piece}", href, {"piece": label})
        return Indicator(f"slot-{slot.type}", label, msgid("Missing"), href, (missing,))
    unmet = tuple(_of_piece(slot.filled, flagged, at))
    said = _SAID[unmet[0].code] if unmet else msgid("Attached")
    return Indicator(f"slot-{slot.type}", label, said, href, unmet)


def _declaration(definition: Definition, row: Row, at: str) -> Indicator:
    name, label = "declaration", msgid("Declaration")
    if row["signature"] == "first" and definition.signatures == 2:
        return Indicator(name, label, msgid("Signed once"), at)
    if row["signature"] in {"first", "valid"}:
        return Indicator(name, label, msgid("Ready"), at)
    if row["entry"] == "open":
        href = f"{at}/check"
        unmet = Unmet("not-confirmed", "The declaration is not confirmed yet.", href)
        return Indicator(name, label, msgid("Not confirmed yet"), href, (unmet,))
    return Indicator(
        name, label, msgid("Not signed yet"), at, (Unmet("not-signed", "The declaration is not signed yet.", at),)
    )


def _second_signature(row: Row, at: str) -> Indicator:
    name, label = "second-signature", msgid("Second signature")
    if row["signature"] == "valid":
        return Indicator(name, label, msgid("Signed"), at)
    if row["second_state"] == "transferred":
        unmet = Unmet("second-signature-missing", "The other space has not signed yet.", at)
        return Indicator(name, label, msgid("Waiting for the other space"), at, (unmet,))
    unmet = Unmet("second-signature-missing", "The second signature is missing.", at)
    return Indicator(name, label, msgid("Missing"), at, (unmet,))


def is_undecided(definition: Definition, row: Row) -> bool:
    """Whether answers that decide on attachments are still to be given."""
    return row["entry"] == "open" and has_undecided_pieces(definition, row["answers"])


def _attachments(
    definition: Definition, row: Row, pieces: Sequence[Row], flagged: Collection[str], language: str, at: str
) -> Indicator:
    slots, others = arranged(definition, row["answers"], pieces)
    unmet = [one for slot in slots for one in of_slot(slot, flagged, language, at).unmet]
    unmet += [one for piece in others for one in _of_piece(piece, flagged, at)]
    is_open = not unmet and not slots and is_undecided(definition, row)
    if unmet:
        said = msgid("Not complete")
    elif slots:
        said = msgid("Complete")
    else:
        said = msgid("Depends on your answers") if is_open else msgid("None is required")
    return Indicator("attachments", msgid("Attachments"), said, f"{at}/attachments", tuple(unmet), is_open)


_SAID = {
    "attachment-flagged": msgid("Sent back: to be replaced or removed"),
    "attachment-not-scanned": msgid("Being checked for malware"),
    "attachment-infected": msgid("Malware found: not available"),
}


def _of_piece(piece: Row, flagged: Collection[str], at: str) -> list[Unmet]:
    """What was sent back is replaced or removed; nothing is sent that is not clean."""
    href, values = f"{at}/attachments#piece-{piece['id']}", {"name": piece["name"]}
    found = []
    if piece["id"] in flagged:
        message = "The administration has sent this back; replace or remove it: {name}"
        found.append(Unmet("attachment-flagged", message, href, values))
    if piece["scan"] == INFECTED:
        message = "Malware was found in this attachment; remove it: {name}"
        found.append(Unmet("attachment-infected", message, href, values))
    elif piece["scan"] != CLEAN:
        message = "This attachment is being checked for malware; wait, or remove it: {name}"
        found.append(Unmet("attachment-not-scanned", message, href, values))
    return found
