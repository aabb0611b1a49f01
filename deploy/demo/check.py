"""
Verifies the demo's documents with programs that are not ours, and prints the answers as JSON.

    python deploy/demo/check.py PKI-DIRECTORY NSS-DIRECTORY < jobs.json

A job is {"file": ..., "content": what a CMS signs, for a PDF null, "ed25519": whether it is signed so}.

    pdfsig         the PDF as readers see it: every signature valid, and the last one by a trusted certificate
    openssl        its CMS, cut out by /ByteRange, with its CAdES attribute (`openssl cms -verify -cades`)
    cryptography   Ed25519 only, which neither of them knows: a reading of the CMS (RFC 5652, 8419) written here
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from asn1crypto import cms
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

BYTE_RANGE = re.compile(rb"/ByteRange\s*\[\s*(\d+)\s+(\d+)\s+(\d+)\s+(\d+)\s*\]")
PROGRAM_S = 30  # for a file of 6 MB they need less than one
AT_ONCE = os.cpu_count() or 2  # the time goes into the programs


class NotVerified(Exception):
    """The message says which program said what."""


def run(*command: str | Path) -> str:
    """A program's output, in English; raises `NotVerified` when it says no."""
    try:
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, env=os.environ | {"LC_ALL": "C"},
            stdin=subprocess.DEVNULL, timeout=PROGRAM_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise NotVerified(f"{command[0]}: no answer in {PROGRAM_S} s") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise NotVerified(f"{command[0]}: {said[0] if said else f'ended with {done.returncode}'}")
    return done.stdout


def trust_database(pki: Path, directory: Path) -> None:
    """What pdfsig trusts: made anew, so that no older root stays in it."""
    directory.mkdir(parents=True, exist_ok=True)
    for old in directory.iterdir():
        old.unlink()
    run("certutil", "-N", "-d", f"sql:{directory}", "--empty-password")
    for name, trust in (("root", "C,C,C"), ("issuing", ",,")):
        run("certutil", "-A", "-d", f"sql:{directory}", "-n", f"demo {name}", "-t", trust, "-i", pki / f"{name}.pem")


def cut(pdf: bytes) -> tuple[bytes, bytes]:
    """The last signature's CMS and the bytes that it signs: the whole file but for the string that holds it."""
    found = BYTE_RANGE.findall(pdf)
    if not found:
        raise NotVerified("no /ByteRange")
    start, length, resume, rest = (int(number) for number in found[-1])
    if start or resume + rest != len(pdf) or pdf[length : length + 1] + pdf[resume - 1 : resume] != b"<>":
        raise NotVerified("the last /ByteRange does not cover the file")
    # The gap is longer than the CMS; which bytes are padding is told by the CMS's own length (X.690, 8.1.3).
    padded = bytes.fromhex(pdf[length + 1 : resume - 1].decode("ascii"))
    size = padded[1] & 0x7F
    return padded[: 2 + size + int.from_bytes(padded[2 : 2 + size])], pdf[:length] + pdf[resume:]


def by_pdfsig(file: Path, nss: Path) -> None:
    said = run("pdfsig", "-no-ocsp", "-nssdir", f"sql:{nss}", file)
    signatures = said.split("\nSignature #")[1:]
    if not signatures or not all("Signature is Valid." in each for each in signatures):
        raise NotVerified("pdfsig: " + "; ".join(re.findall(r"Signature Validation: (.*)", said)))
    # An older signature of somebody else need not be trusted; ours covers the whole file as it is.
    if not any("Certificate is Trusted." in each and "Total document signed" in each for each in signatures):
        raise NotVerified("pdfsig: " + "; ".join(re.findall(r"Certificate Validation: (.*)", said)))


def by_openssl(signature: bytes, content: bytes | None, expected: bytes, pki: Path) -> None:
    """`content` is None when it is inside the CMS; what comes out must be `expected`."""
    with tempfile.TemporaryDirectory() as directory:
        files = {name: Path(directory) / name for name in ("cms", "content", "out")}
        files["cms"].write_bytes(signature)
        command: list[str | Path] = ["openssl", "cms", "-verify", "-cades", "-binary", "-inform", "DER"]
        command += ["-in", files["cms"], "-CAfile", pki / "root.pem", "-out", files["out"]]
        if content is not None:
            files["content"].write_bytes(content)
            command += ["-content", files["content"]]
        run(*command)
        if files["out"].read_bytes() != expected:
            raise NotVerified("openssl: the CMS holds something else")


def by_cryptography(signature: bytes, content: bytes, pki: Path) -> None:
    """Digest, signature and chain, step by step (RFC 5652, 5.4 and 5.6; RFC 8419, 3)."""
    signed = cms.ContentInfo.load(signature, strict=True)["content"]
    (info,) = signed["signer_infos"]
    attributes = {each["type"].native: each["values"] for each in info["signed_attrs"]}
    if attributes["message_digest"][0].native != hashlib.sha512(content).digest():
        raise NotVerified("cryptography: the digest is not the document's")
    serial = info["sid"].chosen["serial_number"].native
    held = [x509.load_der_x509_certificate(each.chosen.dump()) for each in signed["certificates"]]
    (signer,) = [each for each in held if each.serial_number == serial]
    issuing, root = (x509.load_pem_x509_certificate((pki / f"{name}.pem").read_bytes()) for name in ("issuing", "root"))
    key = signer.public_key()
    try:
        if not isinstance(key, Ed25519PublicKey):
            raise NotVerified("cryptography: the signer's key is not Ed25519")
        key.verify(info["signature"].native, info["signed_attrs"].untag().dump())
        signer.verify_directly_issued_by(issuing)
        issuing.verify_directly_issued_by(root)
    except InvalidSignature:
        raise NotVerified("cryptography: the signature or its chain is not valid") from None


def verified_by(job: dict[str, Any], pki: Path, nss: Path) -> list[str]:
    """Who verified the document; raises `NotVerified` when one of them did not."""
    file, content = Path(job["file"]), job["content"]
    if content is None:
        signature, signed = cut(file.read_bytes())
    else:
        signature, signed = file.read_bytes(), Path(content).read_bytes()
    if job["ed25519"]:
        by_cryptography(signature, signed, pki)
        return ["cryptography"]
    by_openssl(signature, None if file.suffix == ".p7m" else signed, signed, pki)
    if content is not None:
        return ["openssl"]
    by_pdfsig(file, nss)
    return ["pdfsig", "openssl"]


def results(jobs: list[dict[str, Any]], pki: Path, nss: Path) -> Iterator[dict[str, Any]]:
    """In the order of the jobs."""

    def one(job: dict[str, Any]) -> dict[str, Any]:
        try:
            return {"file": job["file"], "by": verified_by(job, pki, nss), "problem": ""}
        except NotVerified as error:
            return {"file": job["file"], "by": [], "problem": str(error)}

    with ThreadPoolExecutor(AT_ONCE) as threads:
        yield from threads.map(one, jobs)


def main(pki: Path, nss: Path) -> None:
    jobs = json.load(sys.stdin)
    trust_database(pki, nss)
    done = []
    for number, result in enumerate(results(jobs, pki, nss), 1):
        print(f"{number}/{len(jobs)} {Path(result['file']).name}", file=sys.stderr, flush=True)
        done.append(result)
    json.dump(done, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python deploy/demo/check.py PKI-DIRECTORY NSS-DIRECTORY < jobs.json")
    try:
        main(*(Path(argument) for argument in sys.argv[1:]))
    except (NotVerified, FileNotFoundError) as error:
        sys.exit(f"{error}")
