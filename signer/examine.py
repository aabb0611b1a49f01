"""Reading a signed PDF or CMS: what each signature in it proves, and what was added later.

The input is hostile until shown otherwise: run this in a process with limits on memory and time.
`MemoryError` is therefore the one `Exception` by which a file can leave `examine`.
"""

import functools
import hashlib
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any, BinaryIO

from asn1crypto import cms, pem
from asn1crypto.x509 import Certificate
from cryptography.x509 import load_der_x509_certificate
from pyhanko.pdf_utils import generic
from pyhanko.pdf_utils.decode_limits import DecodeLimits, DocumentDecodeBudget, StreamDecodeLimits
from pyhanko.pdf_utils.reader import PdfFileReader
from pyhanko.pdf_utils.xref import XRefSectionType
from pyhanko.sign.diff_analysis import ModificationLevel
from pyhanko.sign.fields import enumerate_sig_fields
from pyhanko.sign.validation.pdf_embedded import EmbeddedPdfSignature
from pyhanko.sign.validation.status import SignatureCoverageLevel

from signer.limits import ANSWER_BYTES_MAX
from signer.trust import Anchors, PdfProblem, Refused, SignatureReport, at_most, attempt, iso, judge, silence, word_for

MIB = 1024 * 1024
EDGE_BYTES = 1024  # readers look this far for %PDF- and for %%EOF: ISO 32000-1, H.3
CMS_BYTES_MAX = 64 * MIB  # asn1crypto wants all of it at once, and copies an enveloped content
REPORTS_BYTES_MAX = ANSWER_BYTES_MAX - 1024  # of all signatures: each has its certificate, which all of them may share
SIGNATURES_MAX = 64  # each is compared with all later revisions: 60 take 3 s, 100 would take 15
# The reader keeps what it decodes: these are sizes in memory, and leave half of 512 MiB to everything else.
DECODE_LIMITS = DecodeLimits(
    per_stream=StreamDecodeLimits(max_output_size=64 * MIB),
    document_budget=DocumentDecodeBudget(base_allowance=192 * MIB, max_ratio=0),
)
SUB_FILTERS = {  # to the content type the CMS must declare, and the profile: ISO 32000-2, 12.8.3
    "/adbe.pkcs7.detached": ("data", "CMS"),
    "/ETSI.CAdES.detached": ("data", "PAdES"),
    "/ETSI.RFC3161": ("tst_info", "PAdES"),
}


class _Room:
    """For the reports of one file."""

    def __init__(self) -> None:
        self._left = REPORTS_BYTES_MAX

    def take(self, report: SignatureReport) -> SignatureReport:
        """Raises PdfProblem where an answer has no room for it."""
        self._left -= report.bytes_most
        if self._left < 0:
            raise PdfProblem("report-too-large", f"its certificates have more than {REPORTS_BYTES_MAX} bytes in all")
        return report


@dataclass(frozen=True, slots=True)
class Report:
    kind: str  # "PDF", "CMS", or empty when it is neither
    readable: bool
    problem: str
    pages: int
    input_sha256: bytes
    signatures: list[SignatureReport] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def examine(stream: BinaryIO, roots: Sequence[bytes], now: datetime, content: BinaryIO | None = None) -> Report:
    """Say what the PDF or CMS in `stream` proves; `content` is what a detached CMS is about.

    Raises ValueError for a root which is no certificate or a `now` without a time zone: mistakes of the
    caller. No file makes it raise anything but MemoryError.
    """
    if now.tzinfo is None:
        raise ValueError("now needs a time zone: use datetime.now(UTC)")
    for root in roots:
        load_der_x509_certificate(root)  # asn1crypto would notice much later
    anchors = Anchors([Certificate.load(root) for root in roots], now)
    kind = _kind_of_file(stream)
    empty = Report(kind, readable=False, problem="", pages=0, input_sha256=_file_digest(stream, "sha256"))

    def read() -> Report:
        if kind == "CMS":
            return replace(empty, readable=True, signatures=_examine_cms(stream, content, anchors))
        reader = open_pdf(stream)
        return replace(empty, readable=True, pages=page_count(reader), signatures=_examine_pdf(reader, anchors))

    with silence():
        return attempt(lambda error: replace(empty, problem=word_for(error)), read)


def open_pdf(stream: BinaryIO) -> PdfFileReader:
    """Open a PDF that is fit to be signed or examined, or raise PdfProblem.

    Lenient about syntax: Word writes hybrid cross-references, in which the strict reader validates nothing,
    and scanners miscount theirs. No signature rests on that: the signed bytes are hashed as they are, and
    `changes_after` wants the strict reader to accept the tables before it says anything good.
    """

    def fail(error: Exception) -> PdfFileReader:
        raise PdfProblem(word_for(error), str(error)[:200]) from error

    if _kind_of_file(stream) != "PDF":
        raise PdfProblem("not-pdf-or-cms")
    stream.seek(max(0, _size(stream) - EDGE_BYTES))
    if b"%%EOF" not in stream.read(EDGE_BYTES):
        raise PdfProblem("truncated", "no %%EOF at the end")
    reader = attempt(fail, PdfFileReader, stream, False, DECODE_LIMITS)
    if "/Encrypt" in reader.trailer:
        raise PdfProblem("encrypted")
    attempt(fail, page_count, reader)
    return reader


def page_count(reader: PdfFileReader) -> int:
    """As the root of the page tree states it; PdfProblem when it states nothing sensible."""
    count = reader.root["/Pages"]["/Count"]
    if not isinstance(count, int) or not 0 <= count < 2**31:
        raise PdfProblem("damaged", "the page tree has no sensible /Count")
    return int(count)


def _examine_pdf(reader: PdfFileReader, anchors: Anchors) -> list[SignatureReport]:
    """One report for each filled signature field, in the order of signing."""
    entries = list(enumerate_sig_fields(reader, filled_status=True))
    at_most(SIGNATURES_MAX, entries)
    strict = attempt(lambda _: None, PdfFileReader, reader.stream, True, DECODE_LIMITS)

    def lost(error: Exception) -> tuple[int, int, SignatureReport]:
        return reader.total_revisions, 0, _lost(error)

    room, found = _Room(), []
    for entry in entries:
        revision, end, report = attempt(lost, _examine_field, reader, entry, anchors, strict is not None)
        found.append((revision, end, room.take(report)))
    return [report for _, _, report in sorted(found, key=lambda item: item[:2])]


def _examine_field(
    reader: PdfFileReader, entry: tuple[str, Any, Any], anchors: Anchors, orderly: bool
) -> tuple[int, int, SignatureReport]:
    """The revision of this signature, the offset where its ByteRange ends, and its report."""
    name, value, form_field = entry
    sub_filter = str(value.get_object().get("/SubFilter"))
    if sub_filter not in SUB_FILTERS:
        raise Refused("sub-filter", sub_filter)
    content_type, profile = SUB_FILTERS[sub_filter]
    signature = EmbeddedPdfSignature(reader, form_field, name)
    end = _byte_range_end(signature)
    # A ByteRange that is not sane is not even hashed: it may ask for the file a million times.
    digester = signature.compute_digest if end else None
    report = judge(signature.signed_data, signature.signer_info, digester, anchors)
    reason = report.reason if end else "byte-range"
    if signature.signed_data["encap_content_info"]["content_type"].native != content_type:
        reason = reason or "content-type"
    covers, changes = _coverage(signature, end, orderly)
    report = replace(
        report,
        valid=not reason,
        reason=reason,
        time=report.time or attempt(lambda _: "", _pdf_time, signature.sig_object),
        covers=covers,
        revision_sha256=_previous_revision(reader, signature.signed_revision) if end else b"",
        changes_after=changes,
        profile=profile,
    )
    return signature.signed_revision, end, report


def _byte_range_end(signature: EmbeddedPdfSignature) -> int:
    """Offset of the first byte after the signed ones; 0 unless they are all but /Contents up to there.

    ISO 32000-2, 12.8.1. The gap must be, byte for byte, the hexadecimal string that was read as /Contents:
    whatever else fits into it was signed by nobody.
    """
    ranges, cms_bytes, stream = signature.byte_range, signature.pkcs7_content, signature.reader.stream
    numbers = list(ranges) if isinstance(ranges, generic.ArrayObject) else []
    if len(numbers) != 4 or any(not isinstance(number, int) or number < 0 for number in numbers):
        return 0
    start, length, resume, rest = numbers
    gap_bytes = 2 * len(cms_bytes) + 2
    if start != 0 or resume - length != gap_bytes or resume + rest > _size(stream):
        return 0
    stream.seek(length)
    gap = stream.read(gap_bytes)
    whole = gap[:1] + gap[-1:] == b"<>" and gap[1:-1].lower() == cms_bytes.hex().encode()
    return int(resume + rest) if whole else 0


def _coverage(signature: EmbeddedPdfSignature, end: int, orderly: bool) -> tuple[str, str]:
    """`covers` and `changes_after` of a signature whose ByteRange ends at `end`."""
    reader, revision = signature.reader, signature.signed_revision
    if not end:
        return "PARTIAL", "UNKNOWN"
    if end == _size(reader.stream):
        return "WHOLE_FILE", "NONE"
    # To pyHanko a file is entirely covered when the lengths add up. Here they do not, or not honestly.
    if signature.evaluate_signature_coverage() is not SignatureCoverageLevel.ENTIRE_REVISION:
        return "PARTIAL", "NOT_PERMITTED"
    changes = attempt(lambda _: "UNKNOWN", _changes_after, signature, end)
    # Two readers may find two documents behind an update with a hybrid table, or tables only one accepts.
    later = range(revision + 1, reader.total_revisions)
    tables = {reader.xrefs.get_xref_container_info(number).xref_section_type for number in later}
    if changes == "PERMITTED" and (not orderly or XRefSectionType.HYBRID_MAIN in tables):
        changes = "UNKNOWN"
    return "REVISION", changes


def _changes_after(signature: EmbeddedPdfSignature, end: int) -> str:
    """Compare with the later revisions, in which only signatures, a DSS and filled fields are permitted."""
    reader = signature.reader
    if signature.signed_revision + 1 == reader.total_revisions:
        # Bytes that no cross-reference mentions: line ends are harmless, anything else is not.
        reader.stream.seek(end)
        rest = iter(lambda: reader.stream.read(MIB), b"")
        return "NOT_PERMITTED" if any(chunk.strip() for chunk in rest) else "PERMITTED"
    signature.compute_integrity_info()
    level = getattr(signature.diff_result, "modification_level", ModificationLevel.OTHER)
    allowed = signature.summarise_integrity_info()["docmdp_ok"] and level <= ModificationLevel.FORM_FILLING
    return "PERMITTED" if allowed else "NOT_PERMITTED"


def _previous_revision(reader: PdfFileReader, revision: int) -> bytes:
    """SHA-256 of the file as it was before `revision` was appended, empty when that was the first one.

    An update begins with the first thing its cross-reference mentions behind all earlier tables. The %%EOF
    of the old file does not tell: it may lack its line end, or be followed by several.
    """
    xrefs = reader.xrefs
    tables = [xrefs.get_xref_container_info(number) for number in range(revision + 1)]
    before = max((table.end_location for table in tables[:-1]), default=0)
    offsets = [xrefs.get_historical_ref(ref, revision) for ref in xrefs.explicit_refs_in_revision(revision)]
    offsets.append(tables[-1].start_location)
    # A linearized file counts as two revisions, of which the older one has its table at the end.
    appended = [offset for offset in offsets if isinstance(offset, int) and offset >= before > 0]
    return _file_digest(reader.stream, "sha256", min(appended)) if appended else b""


def _pdf_time(signature: generic.DictionaryObject) -> str:
    return iso(generic.parse_pdf_date(signature["/M"], strict=False))


def _examine_cms(stream: BinaryIO, content: BinaryIO | None, anchors: Anchors) -> list[SignatureReport]:
    stream.seek(0)
    raw = stream.read(CMS_BYTES_MAX + 1)
    if len(raw) > CMS_BYTES_MAX:
        raise PdfProblem("too-large", f"a CMS of more than {CMS_BYTES_MAX} bytes")
    message = cms.ContentInfo.load(pem.unarmor(raw)[2] if pem.detect(raw) else raw)
    if message["content_type"].native != "signed_data":
        raise PdfProblem("not-signed", str(message["content_type"].native))
    data, signers = message["content"], list(message["content"]["signer_infos"])
    at_most(SIGNATURES_MAX, signers)
    digester = functools.cache(functools.partial(_file_digest, content)) if content else None
    room = _Room()
    judged = [room.take(attempt(_lost, judge, data, signer, digester, anchors)) for signer in signers]
    # A CMS signs all of its content, and nothing can be added to that afterwards.
    return [replace(report, covers="WHOLE_FILE", changes_after="NONE") for report in judged]


def _lost(error: Exception) -> SignatureReport:
    return SignatureReport(valid=False, reason=word_for(error), trust_reason=word_for(error))


def _kind_of_file(stream: BinaryIO) -> str:
    """Its own first bytes come first: a CMS may envelop a PDF, whose header is then near as well."""
    stream.seek(0)
    head = stream.read(EDGE_BYTES)
    if head[:1] == b"\x30" or re.match(rb"\s*-----BEGIN (CMS|PKCS7|PKCS #7)", head):
        return "CMS"
    return "PDF" if b"%PDF-" in head else ""


def _size(stream: BinaryIO) -> int:
    return stream.seek(0, 2)


def _file_digest(stream: BinaryIO, name: str, length: int | None = None) -> bytes:
    """Hash the first `length` bytes, or all of them, never holding more than one chunk."""
    digest, left = hashlib.new(name), _size(stream) if length is None else length
    stream.seek(0)
    while left > 0 and (chunk := stream.read(min(left, MIB))):
        digest.update(chunk)
        left -= len(chunk)
    return digest.digest()
