"""
PAdES B-B (ETSI EN 319 142-1): `prepare` a PDF with a gap for its CMS (signer/cms.py), which signer/gap.py fills.

`prepare` parses and therefore runs in an assembly process (see assembly.py). Plain documents take the short way of
signer/increment.py. pyHanko keeps all others, and whatever is refused is refused by pyHanko.
"""

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache, partial
from typing import Any, BinaryIO, NoReturn

from asn1crypto import x509
from pyhanko.pdf_utils import generic
from pyhanko.pdf_utils.incremental_writer import IncrementalPdfFileWriter
from pyhanko.pdf_utils.metadata import xmp_xml
from pyhanko.pdf_utils.metadata.model import VENDOR, DocumentMetadata
from pyhanko.pdf_utils.misc import PdfError
from pyhanko.pdf_utils.reader import PdfFileReader
from pyhanko.sign.fields import SigSeedSubFilter, enumerate_sig_fields
from pyhanko.sign.general import SigningError
from pyhanko.sign.signers import ExternalSigner, PdfSignatureMetadata, PdfSigner
from pyhanko.sign.signers.constants import ISO32002_CURVE_NAMES
from pyhanko_certvalidator.registry import SimpleCertificateStore

from signer.examine import open_pdf
from signer.gap import Prepared
from signer.increment import Change, Unusual, append
from signer.trust import PdfProblem, attempt, silence, word_for

CERTIFICATES_MAX = 64  # remembered: a handful sign at one time
NAMES = {"common_name", "organization_name"}  # of a subject: pyHanko wants one of them
OBJECTS_MAX = 8_388_607  # ISO 32000-1, annex C: readers count no further, and a signed file must stay readable


@dataclass(frozen=True, slots=True)
class Wishes:
    """
    What goes into the signature dictionary; empty texts are left out. `time`, in whole seconds, becomes /M and the date
    of the change, `file_id` (32 bytes) what is new in /ID: with the same wishes, the same document becomes the same bytes.
    """

    certificate: bytes  # DER
    digest: str  # 'sha256'
    cms_bytes_max: int
    time: datetime
    file_id: bytes
    reason: str = ""
    location: str = ""


def prepare(document: BinaryIO, wishes: Wishes) -> Prepared:
    """
    Append the revision that holds the signature to `document`, which is open for reading and writing.

    Raises `PdfProblem`: what cannot be signed without breaking it or another signature is refused.
    """
    with _problems(), contextlib.suppress(Unusual):
        return append(document, _change(wishes))
    with silence(), _problems():
        reader = open_pdf(document)
        if int(reader.trailer["/Size"]) > OBJECTS_MAX:
            raise PdfProblem("too-many-objects")
        certificate = x509.Certificate.load(wishes.certificate)
        metadata = PdfSignatureMetadata(
            field_name=_free_name({name for name, _, _ in enumerate_sig_fields(reader)}),
            md_algorithm=wishes.digest,
            subfilter=SigSeedSubFilter.PADES,
            reason=wishes.reason or None,
            location=wishes.location or None,
        )
        signer = ExternalSigner(certificate, SimpleCertificateStore(), signature_value=None)
        writer = IncrementalPdfFileWriter.from_reader(reader)
        writer._meta = _Dated(last_modified=wishes.time)  # noqa: SLF001 -- as in `_identify`
        _identify(writer, reader, wishes.file_id)
        session = PdfSigner(metadata, signer).init_signing_session(writer)
        session.system_time = wishes.time
        to_sign = session.prepare_tbs_document(validation_info=None, bytes_reserved=2 * wishes.cms_bytes_max)
        digest, _ = to_sign.digest_tbs_document(in_place=True)
    return Prepared(digest.document_digest, digest.reserved_region_start, digest.reserved_region_end)


def _change(wishes: Wishes) -> Change:
    return Change(
        digest=wishes.digest,
        gap_bytes=wishes.cms_bytes_max,
        time=wishes.time,
        file_id=wishes.file_id,
        reason=wishes.reason,
        location=wishes.location,
        iso_32002=_is_of_iso_32002(wishes.certificate),
        now=wishes.time,
        producer=VENDOR,
        packet=partial(_packet, wishes.time),
    )


@lru_cache(CERTIFICATES_MAX)
def _is_of_iso_32002(der: bytes) -> bool:
    """Whether pyHanko declares the extension of ISO/TS 32002 for signatures of this certificate."""

    def ask() -> bool:
        certificate = x509.Certificate.load(der)
        key, names = certificate.public_key, certificate.subject.native
        if key.algorithm not in {"rsa", "ec", "ed25519"} or names.keys().isdisjoint(NAMES):
            raise Unusual("a certificate")
        return key.algorithm == "ed25519" or (key.algorithm == "ec" and key.curve[1] in ISO32002_CURVE_NAMES)

    return attempt(_unusual, ask)


def _packet(now: datetime, old: bytes | None) -> bytes:
    """XMP metadata with the date of a change, made out of the old ones."""
    if old is None:
        return _first_packet(now.isoformat())
    return attempt(_unusual, lambda: _updated(now, xmp_xml.parse_xmp(io.BytesIO(old))))


@lru_cache(1)
def _first_packet(now: str) -> bytes:
    """For all documents of one second; by its text, because equal moments may have different offsets."""
    return _updated(datetime.fromisoformat(now), [])


def _updated(now: datetime, metadata: list[Any]) -> bytes:
    made = io.BytesIO()
    xmp_xml.serialise_xmp(xmp_xml.update_xmp_with_meta(DocumentMetadata(last_modified=now), metadata), made)
    return made.getvalue()


def _unusual(error: Exception) -> NoReturn:
    raise Unusual(str(error)) from error


@dataclass
class _Dated(DocumentMetadata):  # type: ignore[misc]  # pyHanko's types are not read
    """pyHanko dates a change 'now' when it writes it; then a second attempt would make other bytes."""

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, self.__dict__.get(name, value) if value == "now" else value)


def _identify(writer: IncrementalPdfFileWriter, reader: PdfFileReader, identifier: bytes) -> None:
    """
    /ID's second half changes with each revision, its first only if there was none (ISO 32000-1, 14.4).

    pyHanko takes random ones, and has no public place to say otherwise.
    """
    both = writer._document_id  # noqa: SLF001
    both[1] = generic.ByteStringObject(identifier[:16])
    if "/ID" not in reader.trailer:
        both[0] = generic.ByteStringObject(identifier[16:])


def _free_name(taken: set[str]) -> str:
    """The first of Signature1, Signature2, ... that the document does not use."""
    number = 1
    while f"Signature{number}" in taken:
        number += 1
    return f"Signature{number}"


@contextlib.contextmanager
def _problems() -> Iterator[None]:
    """Whatever a parser raises over a file is the file's problem, said in a stable word; memory is the exception."""
    try:
        yield
    except (PdfProblem, MemoryError):
        raise
    except SigningError as error:
        kind = "changes-forbidden" if "forbids" in str(error) else "not-signable"
        raise PdfProblem(kind, str(error)) from error
    except (PdfError, Exception) as error:
        raise PdfProblem(word_for(error), str(error)) from error
