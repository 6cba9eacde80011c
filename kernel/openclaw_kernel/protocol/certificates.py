"""The certificate that a client showed, and what the configuration gives it (`gateway.tls.clients`). No I/O.

That an authority of `gateway.tls.caPath` signed it, and that the client has its key, was checked by TLS before anything here is asked.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from openclaw_config.models import TlsClient

if TYPE_CHECKING:
    from cryptography import x509

UNKNOWN: Final = "certificate_unknown"
EXPIRED: Final = "certificate_expired"
WRONG_ROLE: Final = "role_not_granted"


@dataclass(frozen=True, slots=True)
class ShownCertificate:
    """What a certificate says of whom it was made for."""

    fingerprint: str
    subject: str
    names: frozenset[str]
    """Its alternative names as `gateway.tls.clients` writes them, e.g. `DNS:laptop.example.org`."""
    expires_ms: int


@dataclass(frozen=True, slots=True)
class CertificateGrant:
    """What a certificate may be, and do."""

    roles: frozenset[str]
    scopes: frozenset[str]


def read_certificate(der: bytes) -> ShownCertificate | None:
    """Read a certificate as it came over the wire; None where it says nothing that could be compared."""
    # Imported here: few gateways ask for certificates.
    from cryptography import x509

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            certificate = x509.load_der_x509_certificate(der)
            return ShownCertificate(
                fingerprint=hashlib.sha256(der).hexdigest(),
                subject=certificate.subject.rfc4514_string(),
                names=_names(certificate),
                expires_ms=int(certificate.not_valid_after_utc.timestamp() * 1000),
            )
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        return None


def granted_to_certificate(entries: Iterable[TlsClient], shown: ShownCertificate) -> CertificateGrant | None:
    """The sum of all entries that fit, letter by letter; None where none does."""
    fitting = [entry for entry in entries if _fits(entry, shown)]
    if not fitting:
        return None
    return CertificateGrant(
        roles=frozenset(entry.role for entry in fitting),
        scopes=frozenset(scope for entry in fitting for scope in entry.scopes),
    )


def _fits(entry: TlsClient, shown: ShownCertificate) -> bool:
    if entry.fingerprint is not None:
        return entry.fingerprint == shown.fingerprint
    if entry.subject is not None:
        return entry.subject == shown.subject
    return entry.san in shown.names


def _names(certificate: x509.Certificate) -> frozenset[str]:
    from cryptography import x509

    kinds: dict[type[x509.GeneralName], str] = {
        x509.DNSName: "DNS",
        x509.RFC822Name: "EMAIL",
        x509.UniformResourceIdentifier: "URI",
        x509.IPAddress: "IP",
    }
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return frozenset()
    return frozenset(f"{kinds[type(name)]}:{name.value}" for name in names if type(name) in kinds)
