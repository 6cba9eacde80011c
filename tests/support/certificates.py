"""Certificates made on the spot: authorities, what they sign, and the files of a pair."""

from __future__ import annotations

import hashlib
import ipaddress
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
SERVER, CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH


@dataclass(frozen=True)
class Issued:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: Key

    @classmethod
    def make(
        cls,
        name: str = "gateway.test",
        *,
        signer: Issued | None = None,
        authority: bool = False,
        days: tuple[float, float] = (-1, 90),
        use: x509.ObjectIdentifier = SERVER,
        more_names: Sequence[x509.GeneralName] = (),
        key: Key | None = None,
    ) -> Self:
        """Signed by `signer`, or by itself; valid from and to so many days from now."""
        own = key or ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name), x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Test")])
        now = datetime.now(UTC)
        names = [x509.DNSName(name), x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1")), *more_names]
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject if signer is None else signer.certificate.subject)
            .public_key(own.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + timedelta(days=days[0]))
            .not_valid_after(now + timedelta(days=days[1]))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        )
        if not authority:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
            builder = builder.add_extension(x509.ExtendedKeyUsage([use]), critical=False)
        return cls(builder.sign(own if signer is None else signer.key, hashes.SHA256()), own)

    @property
    def fingerprint(self) -> str:
        """SHA-256, in pairs with colons."""
        digits = hashlib.sha256(self.certificate.public_bytes(Encoding.DER)).hexdigest().upper()
        return ":".join(digits[index : index + 2] for index in range(0, len(digits), 2))

    @property
    def certificate_pem(self) -> bytes:
        """The certificate, as a file holds it."""
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The key, as a file holds it."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def locked_key_pem(self, passphrase: bytes) -> bytes:
        """The key behind a passphrase."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(passphrase))

    def write(self, folder: Path, *, certificate: str = "cert.pem", key: str = "key.pem") -> None:
        """Put both where a gateway reads them; each is there whole or not at all."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace(folder / certificate, self.certificate_pem)
        replace(folder / key, self.key_pem)

    def context(self, folder: Path, trusting: Issued | None = None) -> ssl.SSLContext:
        """What a client that shows this certificate connects with."""
        self.write(folder, certificate="client-cert.pem", key="client-key.pem")
        context = trust(trusting)
        context.load_cert_chain(folder / "client-cert.pem", folder / "client-key.pem")
        return context


def replace(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Write a file as a whole."""
    temporary = path.with_name(f"{path.name}.new")
    temporary.write_bytes(content)
    temporary.chmod(mode)
    temporary.replace(path)


def trust(issued: Issued | None) -> ssl.SSLContext:
    """A client's context that believes this one certificate, or what it signed; without one, whatever it meets."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if issued is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        context.load_verify_locations(cadata=issued.certificate_pem.decode())
    return context
