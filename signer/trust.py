"""Is this signer's signature right, and does a path lead from its certificate to a root?

The verdicts are kept apart on purpose. `valid` is arithmetic: these bytes, this key. `trusted` is a path from
the certificate to a configured root, as of `now`, from the certificates in the file alone: nothing is fetched
and **revocation is not checked**. `covers` and `changes_after` tell which bytes were signed and what became
of the file afterwards, which is for the reader of the file to find out (examine.py). Only a signature that
passes all of them deserves to be shown as good.
"""

import asyncio
import contextlib
import hashlib
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar

from asn1crypto import cms, core
from asn1crypto.x509 import Certificate
from cryptography.x509 import load_der_x509_certificate
from pyhanko.pdf_utils.misc import PdfDecodeLimitError
from pyhanko.sign.general import check_ess_certid, match_issuer_serial
from pyhanko.sign.validation import generic_cms
from pyhanko.sign.validation.errors import SignatureValidationError
from pyhanko_certvalidator import CertificateValidator, ValidationContext
from pyhanko_certvalidator import errors as path_errors
from pyhanko_certvalidator import policy_decl as policy

T = TypeVar("T")
Digester = Callable[[str], bytes]  # the lower-case name of a hash to the digest of what was signed

CERTIFICATES_MAX = 64  # paths are searched among them, and their names may repeat
RSA_BITS_MIN = 2048
SCHEMES = {"rsassa_pkcs1v15": "RSA_PKCS1_V15", "rsassa_pss": "RSA_PSS", "ecdsa": "ECDSA", "ed25519": "ED25519"}
HASHES = {"sha256": "SHA256", "sha384": "SHA384", "sha512": "SHA512"}
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

    @property
    def bytes_most(self) -> int:
        """What it takes in an answer: certificates and texts are as long as its file wants them, the rest is not."""
        certificates = sum(len(one) + 8 for one in (self.certificate, *self.chain))
        return certificates + len(f"{self.subject}{self.time}{self.algorithm}".encode()) + 256


class Anchors(NamedTuple):
    roots: list[Certificate]
    now: datetime


def judge(data: cms.SignedData, signer: cms.SignerInfo, digester: Digester | None, anchors: Anchors) -> SignatureReport:
    """What one SignerInfo proves by itself; `digester` hashes the content that stands outside the CMS."""
    certificate, others = _signer_certificate(data, signer)
    der = bytes(certificate.dump())
    reason = attempt(word_for, _check, data, signer, certificate, digester)
    trust_reason, chain = attempt(lambda error: (_path_word(error), []), _path, certificate, others, anchors)
    bound = attempt(lambda _: None, generic_cms.get_signing_cert_attr, signer["signed_attrs"])
    return SignatureReport(
        valid=not reason,
        reason=reason,
        certificate=der,
        subject=attempt(lambda _: "", _subject, der),
        trusted=not trust_reason,
        trust_reason=trust_reason,
        chain=chain,
        time=attempt(lambda _: "", _claimed_time, data, signer),
        algorithm=attempt(lambda _: "", lambda: "/".join(filter(None, _algorithm(signer)))),
        profile="CMS" if bound is None else "CAdES",
    )


def _signer_certificate(data: cms.SignedData, signer: cms.SignerInfo) -> tuple[Certificate, list[Certificate]]:
    """The certificate which the SignerInfo names (RFC 5652, 5.3), and the other ones."""
    certificates = [item.chosen.untag() for item in data["certificates"] if item.name == "certificate"]
    at_most(CERTIFICATES_MAX, certificates)
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
    scheme = attempt(lambda _: algorithm["algorithm"].native, lambda: algorithm.signature_algo)
    named = "" if scheme == "ed25519" else HASHES.get(digest, digest.upper())
    return SCHEMES.get(scheme, scheme.upper()), named


def _check(data: cms.SignedData, signer: cms.SignerInfo, certificate: Certificate, digester: Digester | None) -> str:
    """Refused unless the key of `certificate` signed this content: RFC 5652, 5.4 to 5.6."""
    digest, algorithm = signer["digest_algorithm"]["algorithm"].native, signer["signature_algorithm"]
    # Bare rsaEncryption names no hash (RFC 3370, 3.2). All others do, and it must be the one of messageDigest
    # (RFC 5754, 3; for Ed25519 that is SHA-512: RFC 8419, 3.1).
    implied = attempt(lambda _: digest, lambda: algorithm.hash_algo)
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
        return iso(encapsulated["content"].parsed["gen_time"].native)
    return iso(generic_cms.extract_self_reported_ts(signer))


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


def attempt(failed: Callable[[Exception], T], action: Callable[..., T], *args: object) -> T:
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


def at_most(limit: int, things: list[Any]) -> None:
    if len(things) > limit:
        raise PdfProblem("too-many", f"{len(things)} where at most {limit} are looked at")


def _subject(der: bytes) -> str:
    return load_der_x509_certificate(der).subject.rfc4514_string()


def iso(moment: datetime | None) -> str:
    """Empty for none, and for one without a time zone, which names no moment."""
    if moment is None or moment.tzinfo is None:
        return ""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
