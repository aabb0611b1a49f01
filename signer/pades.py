"""
PAdES B-B (ETSI EN 319 142-1): `prepare` a PDF with a gap for its CMS (signer/cms.py), which signer/gap.py fills.

`prepare` parses and therefore runs in an assembly process (see assembly.py). pyHanko keeps the PDF.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import BinaryIO

from asn1crypto import x509
from pyhanko.pdf_utils import generic
from pyhanko.pdf_utils.incremental_writer import IncrementalPdfFileWriter
from pyhanko.pdf_utils.misc import PdfError
from pyhanko.pdf_utils.reader import PdfFileReader
from pyhanko.sign.fields import SigSeedSubFilter, enumerate_sig_fields
from pyhanko.sign.general import SigningError
from pyhanko.sign.signers import ExternalSigner, PdfSignatureMetadata, PdfSigner
from pyhanko_certvalidator.registry import SimpleCertificateStore

from signer.examine import open_pdf
from signer.gap import Prepared
from signer.trust import PdfProblem, silence, word_for

OBJECTS_MAX = 8_388_607  # ISO 32000-1, annex C: readers count no further, and a signed file must stay readable


@dataclass(frozen=True, slots=True)
class Wishes:
    """
    What goes into the signature dictionary; empty texts are left out. `time` becomes /M, `file_id` (32 bytes) what is
    new in /ID: with the same wishes, the same document becomes the same bytes.
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
        _identify(writer, reader, wishes.file_id)
        session = PdfSigner(metadata, signer).init_signing_session(writer)
        session.system_time = wishes.time
        to_sign = session.prepare_tbs_document(validation_info=None, bytes_reserved=2 * wishes.cms_bytes_max)
        digest, _ = to_sign.digest_tbs_document(in_place=True)
    return Prepared(digest.document_digest, digest.reserved_region_start, digest.reserved_region_end)


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
