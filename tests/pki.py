"""A small PKI for tests: a root, an issuing CA, and certificates over public keys whose private halves are on tokens."""

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = timedelta(days=1)
Names = list[x509.GeneralName]


def usage(*names: str) -> x509.KeyUsage:
    """The keyUsage extension with these bits set."""
    bits = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{bit: bit in names for bit in bits})


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(c.public_bytes(serialization.Encoding.PEM) for c in certificates)


class Authority:
    """A CA with its key in memory."""

    def __init__(self, common: str, issuer: "Authority | None" = None) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = _name(common)
        signer = issuer or self
        now = datetime.now(UTC)
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(self.name)
            .issuer_name(signer.name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - DAY)
            .not_valid_after(now + 3650 * DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(usage("key_cert_sign", "crl_sign"), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.key.public_key()), critical=False)
            .sign(signer.key, hashes.SHA256())
        )

    def issue(
        self,
        common: str,
        public_key: Any,
        *bits: str,
        names: Names | None = None,
        extended: list[x509.ObjectIdentifier] | None = None,
        begins: timedelta = -DAY,
        ends: timedelta = 365 * DAY,
        subject: x509.Name | None = None,
    ) -> x509.Certificate:
        """A certificate; `begins` and `ends` are relative to now, `bits` its keyUsage. `subject`: more than a common name."""
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject or _name(common))
            .issuer_name(self.name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + begins)
            .not_valid_after(now + ends)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(usage(*bits), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        if extended:
            builder = builder.add_extension(x509.ExtendedKeyUsage(extended), critical=False)
        return builder.sign(self.key, hashes.SHA256())


class Pki:
    """Root and issuing CA, with helpers that write what a daemon and its clients need into a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.root = Authority("Test root")
        self.issuing = Authority("Test issuing", self.root)
        self.root_file = self._write("root.pem", pem(self.root.certificate))
        self.ca_file = self._write("ca.pem", pem(self.issuing.certificate, self.root.certificate))

    def _write(self, name: str, content: bytes, mode: int = 0o644) -> Path:
        path = self.directory / name
        path.write_bytes(content)
        path.chmod(mode)
        return path

    def tls(self, name: str, names: Names, issuer: Authority | None = None, **more: Any) -> tuple[Path, Path]:
        """(certificate file, key file) of a TLS end; its SAN is `names`."""
        key = ec.generate_private_key(ec.SECP256R1())
        extended = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
        made = (issuer or self.issuing).issue(
            name, key.public_key(), "digital_signature", names=names, extended=extended, **more
        )
        encoded = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        chain = pem(made, self.issuing.certificate) if issuer is None else pem(made)
        return self._write(f"{name}.pem", chain), self._write(f"{name}.key", encoded, 0o600)

    def server(self) -> tuple[Path, Path]:
        localhost = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        return self.tls("server", localhost)

    def caller(self, name: str, **more: Any) -> tuple[Path, Path]:
        return self.tls(name, [x509.UniformResourceIdentifier(f"urn:test:{name}")], **more)

    def signer(self, common: str, spki: bytes, *bits: str, **more: Any) -> bytes:
        """The chain file of a token's key: PEM, without the root. Default keyUsage: contentCommitment."""
        key = serialization.load_der_public_key(spki)
        made = self.issuing.issue(common, key, *(bits or ("content_commitment",)), **more)
        return pem(made, self.issuing.certificate)
