"""
The portal's tables. Times are seconds since the epoch, UTC; ids are UUIDs in hexadecimal; what is secret is a SHA-256.

Changed by migrations alone (migrations/versions); a test compares what they make with this file.
"""

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    text,
)

METADATA = MetaData(
    naming_convention={"uq": "uq_%(table_name)s_%(column_0_N_name)s", "fk": "fk_%(table_name)s_%(column_0_N_name)s"}
)
_ID = 32  # a UUID in hexadecimal


def _account(name: str = "account", **more: object) -> Column[str]:
    return Column(name, String(_ID), ForeignKey("accounts.id"), **more)  # type: ignore[arg-type]


def _space(**more: object) -> Column[str]:
    return Column("space", String(_ID), ForeignKey("spaces.id"), **more)  # type: ignore[arg-type]


# A person. The names are those of her product, and change with it alone.
accounts = Table(
    "accounts",
    METADATA,
    Column("id", String(_ID), primary_key=True),
    Column("family", String, nullable=False),
    Column("given", String, nullable=False),
    Column("email", String, nullable=False),
    Column("language", String(2), nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("names", String, nullable=False, server_default=""),  # as they are compared: domain/renewal.py
)
Index("ix_accounts_names", accounts.c.names)
# Authentication products: a certificate each. `number` is the credential's name for a Signing Server product.
products = Table(
    "products",
    METADATA,
    Column("id", String(_ID), primary_key=True),
    _account(nullable=False),
    Column("kind", String, nullable=False),  # smartcard, stick, server
    Column("number", String, nullable=False),
    Column("fingerprint", String(64), nullable=False, unique=True),
    Column("certificate", LargeBinary, nullable=False),
    Column("added", BigInteger, nullable=False),
)
Index("ix_products_account", products.c.account)
# A login or registration that was begun in one browser, for at most two minutes.
attempts = Table(
    "attempts",
    METADATA,
    Column("nonce", String(64), primary_key=True),  # SHA-256 of it
    Column("visitor", String(64), nullable=False),  # SHA-256 of the browser's cookie
    Column("back", String, nullable=False),  # the page that was wanted
    Column("number", String, nullable=False),  # of the product that was named; empty for a card
    Column("created", BigInteger, nullable=False),
    Column("used", BigInteger),
)
# A certificate that was presented on the cards' origin, on its way to this one.
tickets = Table(
    "tickets",
    METADATA,
    Column("ticket", String(64), primary_key=True),
    Column("nonce", String(64), nullable=False),
    Column("certificate", LargeBinary, nullable=False),
    Column("created", BigInteger, nullable=False),
)
# A product that was presented and belongs to no account yet: what its browser may register.
presented = Table(
    "presented",
    METADATA,
    Column("visitor", String(64), primary_key=True),
    Column("kind", String, nullable=False),
    Column("number", String, nullable=False),
    Column("certificate", LargeBinary, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("back", String, nullable=False),
)
sessions = Table(
    "sessions",
    METADATA,
    Column("token", String(64), primary_key=True),
    _account(nullable=False),
    Column("fingerprint", String(64), nullable=False),  # of the certificate that was used at login (TOK-13)
    Column("created", BigInteger, nullable=False),
    Column("seen", BigInteger, nullable=False),
    Column("ended", BigInteger),
)
Index("ix_sessions_account", sessions.c.account)
acceptances = Table(
    "acceptances",
    METADATA,
    _account(primary_key=True),
    Column("version", String, primary_key=True),
    Column("accepted", BigInteger, nullable=False),
)
spaces = Table(
    "spaces",
    METADATA,
    Column("id", String(_ID), primary_key=True),
    Column("identifier", String(11), nullable=False, unique=True),
    Column("kind", String, nullable=False),  # private, business
    Column("owner", String(_ID), unique=True),  # a private space's: one each
    Column("form", String, nullable=False),  # legal_person, self_employed, association; empty for private
    Column("title", String, nullable=False),
    Column("company", String, nullable=False),
    Column("registration", String, nullable=False),
    Column("email", String, nullable=False),
    # Its registration number as such are compared (domain/space.py), where a business may have one space only; else nothing.
    Column("sole", String, unique=True),
    Column("profiles", String, nullable=False),  # of a private space, separated by spaces
    Column("state", String, nullable=False),  # active, suspended
    Column("certification", String, nullable=False),  # no, asked, yes
    Column("certified", BigInteger),
    Column("certified_by", String, nullable=False, server_default=""),
    Column("certification_asked", BigInteger),
    Column("created", BigInteger, nullable=False),
    Column("version", Integer, nullable=False, server_default=text("1")),
)
members = Table(
    "members",
    METADATA,
    _space(primary_key=True),
    _account(primary_key=True),
    Column("role", String, nullable=False),  # administrator, signatory, editor, viewer; owner of a private space
    Column("since", BigInteger, nullable=False),
    Column("version", Integer, nullable=False, server_default=text("1")),
)
Index("ix_members_account", members.c.account)
invitations = Table(
    "invitations",
    METADATA,
    Column("id", String(_ID), primary_key=True),
    _space(nullable=False),
    Column("token", String(64), nullable=False, unique=True),
    Column("family", String, nullable=False),
    Column("given", String, nullable=False),
    Column("email", String, nullable=False),
    Column("role", String, nullable=False),
    Column("serial", String, nullable=False),  # that the certificate must have; empty for any
    Column("language", String(2), nullable=False),  # of the mail
    Column("state", String, nullable=False),  # sent, accepted, refused, expired, withdrawn
    Column("created", BigInteger, nullable=False),
    Column("expires", BigInteger, nullable=False),
    _account("inviter", nullable=False),
    _account("invitee"),
    Column("version", Integer, nullable=False, server_default=text("1")),
)
Index("ix_invitations_space", invitations.c.space)
# Data that is used again and again (My information).
information = Table(
    "information",
    METADATA,
    _space(primary_key=True),
    Column("item", String, primary_key=True),
    Column("value", String, nullable=False),
    Column("changed", BigInteger, nullable=False),
    _account("changed_by", nullable=False),
    Column("version", Integer, nullable=False, server_default=text("1")),
)
# The document archive of a space. `file` names the bytes (files/blobs.py).
documents = Table(
    "documents",
    METADATA,
    Column("id", String(_ID), primary_key=True),
    _space(nullable=False),
    Column("name", String, nullable=False),
    Column("type", String, nullable=False),
    Column("media_type", String, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("file", String(_ID), nullable=False),
    Column("scan", String, nullable=False),  # pending, clean, infected, error
    Column("scan_note", String, nullable=False),  # 'not scanned', or what the scanner said
    Column("scan_tries", Integer, nullable=False),  # that came to nothing
    Column("scan_next", BigInteger, nullable=False),  # error: when it is tried again; pending: when somebody else may
    Column("version", Integer, nullable=False, server_default=text("1")),
    Column("added", BigInteger, nullable=False),
    _account("added_by", nullable=False),
)
Index("ix_documents_space", documents.c.space)
# Who may be the administrator of a business space, where that must be nominated: by a certificate's serial.
nominations = Table(
    "nominations",
    METADATA,
    Column("serial", String, primary_key=True),
    Column("noted", BigInteger, nullable=False),
    Column("operator", String, nullable=False),
)
# Which data of one institution another one may be shown, and by what law.
sharing_rules = Table(
    "sharing_rules",
    METADATA,
    Column("id", String(_ID), primary_key=True),
    Column("source", String, nullable=False),
    Column("target", String, nullable=False),
    Column("item", String, nullable=False),
    Column("basis", String, nullable=False),
    Column("begins", BigInteger, nullable=False),
    Column("ends", BigInteger),
    Column("operator", String, nullable=False),
)

# ---- procedures


def _procedure(*, erased: bool = False, **more: object) -> Column[str]:
    """`erased`: goes with a procedure that is deleted. What was sent is not, and the database refuses."""
    key = ForeignKey("procedures.id", ondelete="CASCADE" if erased else None)
    return Column("procedure", String(_ID), key, **more)  # type: ignore[arg-type]


def _bytes() -> list[Column[str]]:
    """A file: its name in the blobs (several rows may name one), and what it must be."""
    return [Column("file", String(_ID), nullable=False), Column("sha256", String(64), nullable=False)]


def _version() -> Column[int]:
    return Column("version", Integer, nullable=False, server_default=text("1"))


procedures = Table(
    "procedures",
    METADATA,
    Column("id", String(_ID), primary_key=True),
    _space(nullable=False),
    Column("reference", String, nullable=False, unique=True),
    Column("definition", String, nullable=False),
    Column("definition_version", Integer, nullable=False),
    _account("author", nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("updated", BigInteger, nullable=False),  # when the status last changed (TRK-01)
    Column("status", String, nullable=False),  # in_preparation, ready, sent, accepted, to_be_corrected, closed
    Column("entry", String, nullable=False),  # open, confirmed
    Column("signature", String, nullable=False),  # none, first, valid, void
    Column("step", String, nullable=False),  # of the form, where it was left
    Column("answers", String, nullable=False),  # JSON: field -> text
    Column("origins", String, nullable=False),  # JSON: field -> where its value comes from
    # The PDF that was confirmed; both are empty while none is.
    Column("form_file", String(_ID), nullable=False, server_default=""),
    Column("form_sha256", String(64), nullable=False, server_default=""),
    Column("transmissions", Integer, nullable=False, server_default=text("0")),  # how often it was sent
    _account("sent_by"),
    Column("administration", String, nullable=False, server_default=""),  # that it was sent to; empty before
    Column("second", String(_ID), ForeignKey("spaces.id")),  # that signs, too
    Column("second_state", String, nullable=False, server_default=""),  # transferred, declined, or nothing
    _version(),
)
Index("ix_procedures_space_updated", procedures.c.space, procedures.c.updated)
Index("ix_procedures_second", procedures.c.second)
Index("ix_procedures_administration_updated", procedures.c.administration, procedures.c.updated)
# Every change of a status (TRK-10).
procedure_history = Table(
    "procedure_history",
    METADATA,
    Column("id", Integer, primary_key=True),
    _procedure(erased=True, nullable=False),
    Column("time", BigInteger, nullable=False),
    Column("status", String, nullable=False),
    Column("side", String, nullable=False),  # applicant, second (the other space that signs), administration
    _account(nullable=False),
    Column("comment", String, nullable=False),
)
Index("ix_procedure_history_procedure", procedure_history.c.procedure)
# Signed PDFs: the newest that is not void counts, the others stay as history.
signatures = Table(
    "signatures",
    METADATA,
    Column("id", String(_ID), primary_key=True),
    _procedure(erased=True, nullable=False),
    Column("number", Integer, nullable=False),  # 1; 2 for the second of a double signature
    _account(nullable=False),
    Column("credential", String, nullable=False),
    Column("fingerprint", String(64), nullable=False),
    *_bytes(),
    Column("form_sha256", String(64), nullable=False),  # of the confirmed PDF
    Column("approved", BigInteger, nullable=False),
    Column("time", BigInteger, nullable=False),
    Column("voided", BigInteger),
    Column("space", String(_ID), nullable=False, server_default=""),  # in which it was given
)
Index("ix_signatures_procedure", signatures.c.procedure)
Index("ix_signatures_space", signatures.c.space)
# Attempts to sign: at most one of a procedure is open.
signings = Table(
    "signings",
    METADATA,
    Column("id", String(_ID), primary_key=True),
    _procedure(erased=True, nullable=False),
    Column("open", String(_ID), unique=True),  # the procedure, while the attempt is open
    _account(nullable=False),
    Column("session", String(64), nullable=False),
    _space(nullable=False),
    Column("number", Integer, nullable=False),
    Column("state", String, nullable=False),  # select, approve, save, done, cancelled
    Column("credential", String, nullable=False, server_default=""),
    Column("fingerprint", String(64), nullable=False, server_default=""),
    Column("batch", String, nullable=False, server_default=""),
    Column("form_sha256", String(64), nullable=False, server_default=""),
    Column("approved", BigInteger),
    Column("created", BigInteger, nullable=False),
    Column("seen", BigInteger, nullable=False),
    _version(),
)
Index("ix_signings_procedure", signings.c.procedure)
# Batches at the daemon that no attempt names any more, until it has let go of them: whatever is deleted, they stay.
dropped_batches = Table("dropped_batches", METADATA, Column("batch", String, primary_key=True))
attachments = Table(
    "attachments",
    METADATA,
    Column("id", String(_ID), primary_key=True),
    _procedure(erased=True, nullable=False),
    Column("slot", String, nullable=False),  # the type of the required piece that it is; empty for an optional one
    Column("type", String, nullable=False),
    Column("name", String, nullable=False),
    Column("media_type", String, nullable=False),
    Column("size", BigInteger, nullable=False),
    *_bytes(),
    Column("scan", String, nullable=False),  # these four as of documents
    Column("scan_note", String, nullable=False),
    Column("scan_tries", Integer, nullable=False),
    Column("scan_next", BigInteger, nullable=False),
    Column("added", BigInteger, nullable=False),
    _account("added_by", nullable=False),
    _version(),
)
Index("ix_attachments_procedure", attachments.c.procedure)
# What was sent, as it was sent (SUB-07): nothing of it ever changes.
transmissions = Table(
    "transmissions",
    METADATA,
    _procedure(primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("time", BigInteger, nullable=False),
    _account(nullable=False),
    *_bytes(),
    Column("answers", String, nullable=False),  # JSON
)
transmission_pieces = Table(
    "transmission_pieces",
    METADATA,
    Column("procedure", String(_ID), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("type", String, nullable=False),
    Column("name", String, nullable=False),
    Column("media_type", String, nullable=False),
    Column("size", BigInteger, nullable=False),
    *_bytes(),
    ForeignKeyConstraint(["procedure", "number"], ["transmissions.procedure", "transmissions.number"]),
)
# What is to be given to the administration's back end, written in the transaction of its sending (domain/handover.py).
handovers = Table(
    "handovers",
    METADATA,
    Column("procedure", String(_ID), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("state", String, nullable=False),  # queued, taken, failed
    Column("tries", Integer, nullable=False, server_default=text("0")),
    Column("next", BigInteger, nullable=False),
    Column("claimed", BigInteger, nullable=False, server_default=text("0")),
    Column("error", String, nullable=False, server_default=""),
    Column("settled", BigInteger),
    ForeignKeyConstraint(["procedure", "number"], ["transmissions.procedure", "transmissions.number"]),
)
Index("ix_handovers_state_next", handovers.c.state, handovers.c.next)
# What an administration wants to have corrected in a transmission.
corrections = Table(
    "corrections",
    METADATA,
    Column("id", String(_ID), primary_key=True),
    _procedure(nullable=False),
    Column("number", Integer, nullable=False),
    Column("time", BigInteger, nullable=False),
    _account(nullable=False),
    Column("answered", BigInteger),
)
Index("ix_corrections_procedure", corrections.c.procedure)
correction_items = Table(
    "correction_items",
    METADATA,
    Column("correction", String(_ID), ForeignKey("corrections.id"), primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("kind", String, nullable=False),  # field, attachment, general
    Column("target", String, nullable=False),  # the field, or the attachment's id; empty for general
    Column("name", String, nullable=False, server_default=""),  # of the attachment, which may be gone since
    Column("comment", String, nullable=False),
)
messages = Table(
    "messages",
    METADATA,
    Column("id", String(_ID), primary_key=True),
    _procedure(nullable=False),
    Column("number", Integer, nullable=False, server_default=text("0")),  # of the procedure's, from 1
    Column("time", BigInteger, nullable=False),
    Column("side", String, nullable=False),  # applicant, administration
    _account(nullable=False),
    Column("subject", String, nullable=False),
    Column("body", String, nullable=False),
    Column("read", BigInteger),  # by the other side
    _account("read_by"),
)
Index("ix_messages_procedure_number", messages.c.procedure, messages.c.number, unique=True)
# Who works for which administration.
agents = Table(
    "agents",
    METADATA,
    _account(primary_key=True),
    Column("administration", String, nullable=False),
)

# ---- what goes on beside
# A form that was posted, and where that led: the same form again leads there, too.
posted = Table(
    "posted",
    METADATA,
    Column("form", String(64), primary_key=True),
    Column("owner", String(64), nullable=False),  # session or browser
    Column("location", String, nullable=False),
    Column("time", BigInteger, nullable=False),
)
Index("ix_posted_time", posted.c.time)
# What counts towards a limit of so many in so long.
marks = Table(
    "marks",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("kind", String, nullable=False),
    Column("who", String, nullable=False),
    Column("time", BigInteger, nullable=False),
)
Index("ix_marks_kind_who_time", marks.c.kind, marks.c.who, marks.c.time)
# Only ever added to: the database refuses anything else (migration 1).
audit = Table(
    "audit",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("time", BigInteger, nullable=False),
    Column("account", String, nullable=False),  # empty: nobody, or an operator's command
    Column("space", String, nullable=False),
    Column("event", String, nullable=False),
    Column("outcome", String, nullable=False),  # done, or the refusal's code
    Column("detail", String, nullable=False),  # JSON
    Column("address", String, nullable=False),
)
# Mail: written in the transaction of its cause, sent afterwards (mail/outbox.py).
outbox = Table(
    "outbox",
    METADATA,
    Column("id", String(_ID), primary_key=True),
    Column("created", BigInteger, nullable=False),
    Column("recipient", String, nullable=False),
    Column("language", String(2), nullable=False),
    Column("template", String, nullable=False),
    Column("data", String, nullable=False),  # JSON
    Column("state", String, nullable=False),  # queued, sent, failed
    Column("tries", Integer, nullable=False, server_default=text("0")),
    Column("next", BigInteger, nullable=False),
    Column("claimed", BigInteger, nullable=False, server_default=text("0")),
    Column("error", String, nullable=False, server_default=""),
    Column("settled", BigInteger),
)
Index("ix_outbox_state_next", outbox.c.state, outbox.c.next)
# Who names a file is looked up at every removal (domain/kept.py).
for _column in (
    *(documents.c.file, procedures.c.form_file, signatures.c.file, attachments.c.file),
    *(transmissions.c.file, transmission_pieces.c.file),
):
    Index(f"ix_{_column.table.name}_{_column.name}", _column)
