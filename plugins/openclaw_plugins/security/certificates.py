"""The gateway's certificate: its age, its key, and who may read that."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from openclaw_kernel.api import CheckContext, Finding, Severity
from openclaw_plugins.security.gateway import tls_paths
from openclaw_plugins.security.table import Table, open_behind_links, open_to_others

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

TABLE: Final = Table()

_DAY_MS: Final = 86_400_000
_SOON_DAYS: Final = 14
_RSA_BITS: Final = 2048
_CURVE_BITS: Final = 256


@TABLE.add("gateway.tls.expiry", "the certificate runs out", Severity.CRITICAL)
def expiry(context: CheckContext) -> Iterator[Finding]:
    certificate = _certificate(context)
    if certificate is None:
        return
    now = context.machine.now_ms
    ends, begins = (round(each.timestamp() * 1000) for each in (certificate.not_valid_after_utc, certificate.not_valid_before_utc))
    days = (ends - now) // _DAY_MS
    if begins <= now and days > _SOON_DAYS:
        return
    over = ends <= now or begins > now
    yield Finding(
        severity=Severity.CRITICAL if over else Severity.WARN,
        where=str(tls_paths(context)[0]),
        evidence=f"it is not valid {'any more' if ends <= now else 'yet'}" if over else f"it is valid for {days} more days",
        cure="renew it; the gateway takes the new files by itself",
    )


@TABLE.add("gateway.tls.weak", "the certificate's key or signature is weak", Severity.WARN)
def weak(context: CheckContext) -> Iterator[Finding]:
    certificate = _certificate(context)
    if certificate is None:
        return
    fault = _weakness(certificate)
    if fault is not None:
        yield Finding(
            severity=Severity.WARN,
            where=str(tls_paths(context)[0]),
            evidence=f"it {fault}",
            cure=f"make one with a key of {_CURVE_BITS} bits on a curve or {_RSA_BITS} of RSA, signed with SHA-256",
        )


@TABLE.add("gateway.tls.key-open", "the certificate's key is open to others", Severity.CRITICAL, fixes=True)
def key_open(context: CheckContext) -> Iterator[Finding]:
    if context.config.gateway.tls.enabled:
        path, what = tls_paths(context)[1], "the certificate's private key"
        entry = context.look(path)
        yield from open_to_others([] if entry is None else [entry], what, readable=Severity.CRITICAL)
        # Programs that renew certificates keep a link to the newest key.
        yield from open_behind_links(context, [path], what, readable=Severity.CRITICAL)


def _certificate(context: CheckContext) -> Certificate | None:
    if not context.config.gateway.tls.enabled:
        return None
    from cryptography.x509 import load_pem_x509_certificate

    path: Path = tls_paths(context)[0]
    try:
        return load_pem_x509_certificate(path.read_bytes())
    except FileNotFoundError:
        # It is made at the start, or the start says that it is missing.
        return None


def _weakness(certificate: Certificate) -> str | None:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    key, digest = certificate.public_key(), certificate.signature_hash_algorithm
    if isinstance(key, RSAPublicKey) and key.key_size < _RSA_BITS:
        return f"has an RSA key of {key.key_size} bits"
    if isinstance(key, EllipticCurvePublicKey) and key.key_size < _CURVE_BITS:
        return f"has a key of {key.key_size} bits"
    return f"is signed with {digest.name}" if digest is not None and digest.name in {"md5", "sha1"} else None
