"""What a signed file proves: each signature in it, the certificate behind it, and what was added later.

The verdicts are kept apart on purpose. `valid` is arithmetic: these bytes, this key. `trusted` is a path from
the certificate to a configured root, as of `now`, from the certificates in the file alone: nothing is fetched
and **revocation is not checked**. `covers` and `changes_after` tell which bytes were signed and what became
of the file afterwards. Only a signature that passes all of them deserves to be shown as good.

The input is hostile until shown otherwise: run this in a process with limits on memory and time.
`MemoryError` is therefore the one `Exception` by which a file can leave `examine`.
"""

import asyncio
import contextlib
import functools
import hashlib
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, BinaryIO, NamedTuple, TypeVar

from asn1crypto import cms, core, pem
from asn1crypto.x509 import Certificate
from cryptography.x509 import load_der_x509_certificate
from pyhanko.pdf_utils import generic
from pyhanko.pdf_utils.decode_limits import DecodeLimits, DocumentDecodeBudget, StreamDecodeLimits
from pyhanko.pdf_utils.misc import PdfDecodeLimitError
from pyhanko.pdf_utils.reader import PdfFileReader
from pyhanko.pdf_utils.xref import XRefSectionType
from pyhanko.sign.diff_analysis import ModificationLevel
from pyhanko.sign.fields import enumerate_sig_fields
from pyhanko.sign.general import check_ess_certid, match_issuer_serial
from pyhanko.sign.validation import generic_cms
from pyhanko.sign.validation.errors import SignatureValidationError
from pyhanko.sign.validation.pdf_embedded import EmbeddedPdfSignature
from pyhanko.sign.validation.status import SignatureCoverageLevel
from pyhanko_certvalidator import CertificateValidator, ValidationContext
from pyhanko_certvalidator import errors as path_errors
from pyhanko_certvalidator import policy_decl as policy

T = TypeVar("T")
Digester = Callable[[str], bytes]  # the lower-case name of a hash to the digest of what was signed

MIB = 1024 * 1024
EDGE_BYTES = 1024  # readers look this far for %PDF- and for %%EOF: ISO 32000-1, H.3
CMS_BYTES_MAX = 64 * MIB  # asn1crypto wants all of it at once, and copies an enveloped content
SIGNATURES_MAX = 64  # each is compared with all later revisions: 60 take 3 s, 100 would take 15
CERTIFICATES_MAX = 64  # paths are searched among them, and their names may repeat
RSA_BITS_MIN = 2048
# The reader keeps what it decodes: these are sizes in memory, and leave half of 512 MiB to everything else.
DECODE_LIMITS = DecodeLimits(
    per_stream=StreamDecodeLimits(max_output_size=64 * MIB),
    document_budget=DocumentDecodeBudget(base_allowance=192 * MIB, max_ratio=0),
)
SCHEMES = {"rsassa_pkcs1v15": "RSA_PKCS1V15", "rsassa_pss": "RSA_PSS", "ecdsa": "ECDSA", "ed25519": "ED25519"}
HASHES = {"sha256": "SHA256", "sha384": "SHA384", "sha512": "SHA512"}
SUB_FILTERS = {  # to the content type the CMS must declare, and the profile: ISO 32000-2, 12.8.3
    "/adbe.pkcs7.detached": ("data", "CMS"),
    "/ETSI.CAdES.detached": ("data", "PAdES"),
    "/ETSI.RFC3161": ("tst_info", "PAdES"),
}
NO_REVOCATION = policy.CertRevTrustPolicy(
    policy.RevocationCheckingPolicy(*[policy.RevocationCheckingRule.NO_CHECK] * 2)
)


class PdfProblem(Exception):
    """What is wrong with a file: `kind` is one of a few stable words, and `str()` is for a log."""

    def __init__(self, kind: str, detail: str = "") -> None:
        super().__init__(f"{kind}: {detail}" if detail else kind)
        self.kind = kind


class Refused(PdfProblem):
    """What is wrong with one signature, while the file can be read."""


@dataclass(frozen=True, slots=True)
class SignatureReport:
    valid: bool
    reason: str = ""  # why not valid
    certificate: bytes = b""  # DER of the signer
    subject: str = ""  # RFC 4514
    trusted: bool = False
    trust_reason: str = "not-examined"  # why not trusted
    chain: list[bytes] = field(default_factory=list)  # DER, the signer first, the root last
    time: str = ""  # as the signer claims it: ISO 8601, UTC
    algorithm: str = ""
    covers: str = "PARTIAL"
    revision_sha256: bytes = b""  # of the document as it was handed in for this signature
    changes_after: str = "UNKNOWN"
    profile: str = "CMS"


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


class Anchors(NamedTuple):
    roots: list[Certificate]
    now: datetime


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
        return _attempt(lambda error: replace(empty, problem=word_for(error)), read)


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
    reader = _attempt(fail, PdfFileReader, stream, False, DECODE_LIMITS)
    if "/Encrypt" in reader.trailer:
        raise PdfProblem("encrypted")
    _attempt(fail, page_count, reader)
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
    _at_most(SIGNATURES_MAX, entries)
    strict = _attempt(lambda _: None, PdfFileReader, reader.stream, True, DECODE_LIMITS)

    def lost(error: Exception) -> tuple[int, int, SignatureReport]:
        return reader.total_revisions, 0, _lost(error)

    found = [_attempt(lost, _examine_field, reader, entry, anchors, strict is not None) for entry in entries]
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
    report = _judge(signature.signed_data, signature.signer_info, digester, anchors)
    reason = report.reason if end else "byte-range"
    if signature.signed_data["encap_content_info"]["content_type"].native != content_type:
        reason = reason or "content-type"
    covers, changes = _coverage(signature, end, orderly)
    report = replace(
        report,
        valid=not reason,
        reason=reason,
        time=report.time or _attempt(lambda _: "", _pdf_time, signature.sig_object),
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
    changes = _attempt(lambda _: "UNKNOWN", _changes_after, signature, end)
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
    return _iso(generic.parse_pdf_date(signature["/M"], strict=False))


def _examine_cms(stream: BinaryIO, content: BinaryIO | None, anchors: Anchors) -> list[SignatureReport]:
    stream.seek(0)
    raw = stream.read(CMS_BYTES_MAX + 1)
    if len(raw) > CMS_BYTES_MAX:
        raise PdfProblem("too-large", f"a CMS of more than {CMS_BYTES_MAX} bytes")
    message = cms.ContentInfo.load(pem.unarmor(raw)[2] if pem.detect(raw) else raw)
    if message["content_type"].native != "signed_data":
        raise PdfProblem("not-signed", str(message["content_type"].native))
    data, signers = message["content"], list(message["content"]["signer_infos"])
    _at_most(SIGNATURES_MAX, signers)
    digester = functools.cache(functools.partial(_file_digest, content)) if content else None
    judged = [_attempt(_lost, _judge, data, signer, digester, anchors) for signer in signers]
    # A CMS signs all of its content, and nothing can be added to that afterwards.
    return [replace(report, covers="WHOLE_FILE", changes_after="NONE") for report in judged]


def _judge(
    data: cms.SignedData, signer: cms.SignerInfo, digester: Digester | None, anchors: Anchors
) -> SignatureReport:
    """What one SignerInfo proves by itself; `digester` hashes the content that stands outside the CMS."""
    certificate, others = _signer_certificate(data, signer)
    der = bytes(certificate.dump())
    reason = _attempt(word_for, _check, data, signer, certificate, digester)
    trust_reason, chain = _attempt(lambda error: (_path_word(error), []), _path, certificate, others, anchors)
    bound = _attempt(lambda _: None, generic_cms.get_signing_cert_attr, signer["signed_attrs"])
    return SignatureReport(
        valid=not reason,
        reason=reason,
        certificate=der,
        subject=_attempt(lambda _: "", _subject, der),
        trusted=not trust_reason,
        trust_reason=trust_reason,
        chain=chain,
        time=_attempt(lambda _: "", _claimed_time, data, signer),
        algorithm=_attempt(lambda _: "", lambda: "/".join(filter(None, _algorithm(signer)))),
        profile="CMS" if bound is None else "CAdES",
    )


def _signer_certificate(data: cms.SignedData, signer: cms.SignerInfo) -> tuple[Certificate, list[Certificate]]:
    """The certificate which the SignerInfo names (RFC 5652, 5.3), and the other ones."""
    certificates = [item.chosen.untag() for item in data["certificates"] if item.name == "certificate"]
    _at_most(CERTIFICATES_MAX, certificates)
    sid = signer["sid"]
    for certificate in certificates:
        by_name = sid.name == "issuer_and_serial_number" and match_issuer_serial(sid.chosen, certificate)
        by_key = sid.name == "subject_key_identifier" and certificate.key_identifier == sid.chosen.native
        if by_name or by_key:
            return certificate, [other for other in certificates if other is not certificate]
    raise Refused("no-signer-certificate")


def _algorithm(signer: cms.SignerInfo) -> tuple[str, str]:
    """Scheme and hash, under our names if we accept them. EdDSA has its hash built in."""
    algorithm, digest = signer["signature_algorithm"], signer["digest_algorithm"]["algorithm"].native
    scheme = _attempt(lambda _: algorithm["algorithm"].native, lambda: algorithm.signature_algo)
    named = "" if scheme == "ed25519" else HASHES.get(digest, digest.upper())
    return SCHEMES.get(scheme, scheme.upper()), named


def _check(data: cms.SignedData, signer: cms.SignerInfo, certificate: Certificate, digester: Digester | None) -> str:
    """Refused unless the key of `certificate` signed this content: RFC 5652, 5.4 to 5.6."""
    digest, algorithm = signer["digest_algorithm"]["algorithm"].native, signer["signature_algorithm"]
    # Bare rsaEncryption names no hash (RFC 3370, 3.2). All others do, and it must be the one of messageDigest
    # (RFC 5754, 3; for Ed25519 that is SHA-512: RFC 8419, 3.1).
    implied = _attempt(lambda _: digest, lambda: algorithm.hash_algo)
    scheme, _ = _algorithm(signer)
    if scheme not in SCHEMES.values() or digest not in HASHES or implied != digest:
        raise Refused("algorithm", f"{scheme} {implied} {digest}")
    if scheme.startswith("RSA") and certificate.public_key.bit_size < RSA_BITS_MIN:
        raise Refused("algorithm", "a short RSA key")
    attributes, encapsulated = signer["signed_attrs"], data["encap_content_info"]
    # Without them, a signature over the attributes of one message passes for one over another message.
    if isinstance(attributes, core.Void):
        raise Refused("no-signed-attributes")
    bound = generic_cms.get_signing_cert_attr(attributes)
    if bound is not None and not check_ess_certid(certificate, bound["certs"][0]):
        raise Refused("signing-certificate")
    actual = _content_digest(encapsulated, digest, digester)
    try:
        intact, right = generic_cms.validate_sig_integrity(
            signer, certificate, encapsulated["content_type"].native, actual
        )
    except SignatureValidationError as error:
        raise Refused("signed-attributes", str(error)) from error
    if not (intact and right):
        raise Refused("signature" if intact else "message-digest")
    return ""


def _content_digest(encapsulated: cms.ContentInfo, name: str, digester: Digester | None) -> bytes:
    """Digest of the content, which is inside, outside, or both; then the two must be the same."""
    content = encapsulated["content"]
    if isinstance(content, core.Void):
        if digester is None:
            raise Refused("content-missing")
        return digester(name)
    inside = hashlib.new(name, bytes(content)).digest()
    if encapsulated["content_type"].native == "tst_info" and digester is not None:
        imprint = content.parsed["message_imprint"]  # what a time-stamp is about: RFC 3161, 2.4.2
        if digester(imprint["hash_algorithm"]["algorithm"].native) != imprint["hashed_message"].native:
            raise Refused("message-digest")
    elif digester is not None and digester(name) != inside:
        raise Refused("content-mismatch")
    return inside


def _claimed_time(data: cms.SignedData, signer: cms.SignerInfo) -> str:
    encapsulated = data["encap_content_info"]
    if encapsulated["content_type"].native == "tst_info":
        return _iso(encapsulated["content"].parsed["gen_time"].native)
    return _iso(generic_cms.extract_self_reported_ts(signer))


def _path(certificate: Certificate, others: list[Certificate], anchors: Anchors) -> tuple[str, list[bytes]]:
    """Why there is no path to a root, or an empty string and the path; for the rest see `_path_word`."""
    usage = certificate.key_usage_value  # absent, it restricts nothing: RFC 5280, 4.2.1.3
    if usage is not None and not usage.native & {"digital_signature", "non_repudiation"}:
        return "key-usage", []
    context = ValidationContext(
        trust_roots=anchors.roots,
        other_certs=others,
        moment=anchors.now,
        allow_fetching=False,
        revinfo_policy=NO_REVOCATION,
    )
    path = asyncio.run(CertificateValidator(certificate, validation_context=context).async_validate_path())
    chain = list(path.iter_certs(include_root=True))[::-1]
    for link in chain:  # RFC 5280 gives no dates to its anchors; ours are certificates, and those end
        if not link.not_valid_before <= anchors.now <= link.not_valid_after:
            return "expired" if anchors.now > link.not_valid_after else "not-yet-valid", []
    return "", [bytes(link.dump()) for link in chain]


def _path_word(error: Exception) -> str:
    words = (
        (path_errors.ExpiredError, "expired"),
        (path_errors.NotYetValidError, "not-yet-valid"),
        (path_errors.DisallowedAlgorithmError, "weak-algorithm"),
        ((path_errors.PathBuildingError, path_errors.InvalidCertificateError), "no-path"),
    )
    return next((word for kinds, word in words if isinstance(error, kinds)), "path-invalid")


def word_for(error: BaseException | None) -> str:
    """Name what stopped the reading. Libraries wrap their errors, so the causes are asked as well."""
    while error is not None:
        if isinstance(error, PdfProblem):
            return error.kind
        if isinstance(error, RecursionError):
            return "nested-too-deep"
        if isinstance(error, PdfDecodeLimitError):
            return "too-large-when-decompressed"
        if "Insufficient data" in str(error):  # asn1crypto has only ValueError for everything
            return "truncated"
        error = error.__cause__ or error.__context__
    return "damaged"


def _lost(error: Exception) -> SignatureReport:
    return SignatureReport(valid=False, reason=word_for(error), trust_reason=word_for(error))


def _attempt(failed: Callable[[Exception], T], action: Callable[..., T], *args: object) -> T:
    """Call a parser that somebody else wrote: given hostile input they raise anything at all."""
    try:
        return action(*args)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001
        return failed(error)


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Keep quiet what pyHanko narrates about other people's files: all that matters is in the report."""
    loggers = [logging.getLogger(name) for name in ("pyhanko", "pyhanko_certvalidator", "asyncio")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _kind_of_file(stream: BinaryIO) -> str:
    """Its own first bytes come first: a CMS may envelop a PDF, whose header is then near as well."""
    stream.seek(0)
    head = stream.read(EDGE_BYTES)
    if head[:1] == b"\x30" or re.match(rb"\s*-----BEGIN (CMS|PKCS7|PKCS #7)", head):
        return "CMS"
    return "PDF" if b"%PDF-" in head else ""


def _at_most(limit: int, things: list[Any]) -> None:
    if len(things) > limit:
        raise PdfProblem("too-many", f"{len(things)} where at most {limit} are looked at")


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


def _subject(der: bytes) -> str:
    return load_der_x509_certificate(der).subject.rfc4514_string()


def _iso(moment: datetime | None) -> str:
    """Empty for none, and for one without a time zone, which names no moment."""
    if moment is None or moment.tzinfo is None:
        return ""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
