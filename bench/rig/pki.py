"""Certificates for one run: a CA, a server, callers, and the tokens' keys under an issuing CA."""

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_BITS = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
    "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
)  # fmt: skip


class Pki:
    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True)
        self._directory = directory
        self._root_key = ec.generate_private_key(ec.SECP256R1())
        self._issuing_key = ec.generate_private_key(ec.SECP256R1())
        self._root = self._issue("Bench root", self._root_key.public_key(), self._root_key, "Bench root", ca=True)
        self._issuing = self._issue(
            "Bench issuing CA", self._issuing_key.public_key(), self._root_key, "Bench root", ca=True
        )
        self.root = self._write("root.pem", _pem(self._root))
        self.issuing = self._write("issuing.pem", _pem(self._issuing))
        self.ca = self._write("ca.pem", _pem(self._issuing, self._root))

    def _issue(
        self, common: str, public: object, key: ec.EllipticCurvePrivateKey, issuer: str, *, ca: bool = False,
        usage: tuple[str, ...] = ("key_cert_sign", "crl_sign"), names: list[x509.GeneralName] | None = None,
    ) -> x509.Certificate:  # fmt: skip
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(common))
            .issuer_name(_name(issuer))
            .public_key(public)  # type: ignore[arg-type]  # whatever kind the token has
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=30))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.KeyUsage(**{bit: bit in usage for bit in _BITS}), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)  # type: ignore[arg-type]
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        )
        if names is not None:
            extended = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
            builder = builder.add_extension(x509.ExtendedKeyUsage(extended), critical=False)
        return builder.sign(key, hashes.SHA256())

    def tls(self, name: str, names: list[x509.GeneralName]) -> tuple[Path, Path]:
        """(certificate file, key file) of one end of a connection."""
        key = ec.generate_private_key(ec.SECP256R1())
        made = self._issue(
            name, key.public_key(), self._issuing_key, "Bench issuing CA", usage=("digital_signature",), names=names
        )
        encoding, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        private = key.private_bytes(encoding, pkcs8, serialization.NoEncryption())
        return self._write(f"{name}.pem", _pem(made, self._issuing)), self._write(f"{name}.key", private)

    def server(self) -> tuple[Path, Path]:
        return self.tls("server", [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])

    def caller(self, name: str) -> tuple[Path, Path]:
        return self.tls(name, [x509.UniformResourceIdentifier(f"urn:bench:{name}")])

    def signer(self, name: str, spki: bytes) -> Path:
        """The chain file of a token's key, without the root."""
        public = serialization.load_der_public_key(spki)
        made = self._issue(name, public, self._issuing_key, "Bench issuing CA", usage=("content_commitment",))
        return self._write(f"{name}.chain.pem", _pem(made, self._issuing))

    def _write(self, name: str, content: bytes) -> Path:
        path = self._directory / name
        path.write_bytes(content)
        path.chmod(0o600 if name.endswith(".key") else 0o644)
        return path


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(c.public_bytes(serialization.Encoding.PEM) for c in certificates)
