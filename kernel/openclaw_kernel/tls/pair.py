"""A certificate and its key, judged: whole, fitting, valid now. What is wrong is found here, before a client meets it."""

from __future__ import annotations

import hashlib
import ssl
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from openclaw_kernel.files.states import Seen
from openclaw_kernel.tls.faults import TlsFault, words_of
from openclaw_kernel.tls.files import TlsFile, TlsFiles, read

_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2; those of 1.3 are all good."""
_WHOLE_CERTIFICATE: Final = "put the certificate there as PEM, with its chain behind it"
_WHOLE_KEY: Final = "put the certificate's private key there as PEM"


@dataclass(frozen=True, slots=True)
class Pair:
    """What is served: a context, and what people and the audit log are told of it."""

    context: ssl.SSLContext
    fingerprint: str
    """SHA-256 of the certificate, 64 hexadecimal digits."""
    expires_ms: int
    authorities: str | None
    """SHA-256 of the file with the authorities of clients."""
    seen: Seen


def load(files: TlsFiles, now: datetime | None = None) -> Pair:
    """Read and judge the files as they are now; raise `TlsFault`. It reads from disk: not for the loop."""
    seen = files.seen()
    certificate_pem, key_pem = read(files.certificate), read(files.private_key, private=True)
    authorities_pem = None if files.authorities is None else read(files.authorities)
    leaf = _leaf(files.certificate, certificate_pem)
    if _public(_private_key(files.private_key, key_pem)) != _public(leaf):
        cure = f"put the key of the certificate in {files.certificate.path} there, or the certificate of this key"
        raise TlsFault(files.private_key.key, f"{files.private_key.path}, which is the key of another certificate", cure)
    _check_dates(files.certificate, leaf, datetime.now(UTC) if now is None else now)
    context = _context(files)
    if authorities_pem is not None and files.authorities is not None:
        _believe_clients(context, files.authorities, authorities_pem)
    # OpenSSL reads the files by itself: what it read has to be what was judged.
    if (read(files.certificate), read(files.private_key, private=True)) != (certificate_pem, key_pem):
        raise TlsFault(files.certificate.key, f"{files.certificate.path}, which is being written", "try again when it is whole")
    return Pair(
        context=context,
        fingerprint=hashlib.sha256(leaf.public_bytes(Encoding.DER)).hexdigest(),
        expires_ms=int(leaf.not_valid_after_utc.timestamp() * 1000),
        authorities=None if authorities_pem is None else hashlib.sha256(authorities_pem).hexdigest(),
        seen=seen,
    )


def _leaf(file: TlsFile, pem: bytes) -> x509.Certificate:
    try:
        return _certificates(pem)[0]
    except ValueError as error:
        raise TlsFault(file.key, f"{file.path}, which holds no whole certificate", _WHOLE_CERTIFICATE) from error


def _certificates(pem: bytes) -> list[x509.Certificate]:
    if pem.count(b"-----BEGIN ") != pem.count(b"-----END "):
        raise ValueError("the last block has no end")
    with warnings.catch_warnings():
        # It warns of old oddities in chains, which are no matter of ours.
        warnings.simplefilter("ignore")
        return x509.load_pem_x509_certificates(pem)


def _private_key(file: TlsFile, pem: bytes) -> PrivateKeyTypes:
    try:
        return load_pem_private_key(pem, password=None)
    except TypeError as error:
        cure = f"take the passphrase away: openssl pkey -in {file.path} -out NEW, and let nobody else read NEW"
        raise TlsFault(file.key, f"{file.path}, which is locked with a passphrase", cure) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise TlsFault(file.key, f"{file.path}, which holds no whole private key", _WHOLE_KEY) from error


def _public(owner: x509.Certificate | PrivateKeyTypes) -> bytes | None:
    try:
        return owner.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, UnsupportedAlgorithm):
        return None


def _check_dates(file: TlsFile, leaf: x509.Certificate, now: datetime) -> None:
    if leaf.not_valid_after_utc < now:
        raise TlsFault(file.key, f"{file.path}, which expired at {leaf.not_valid_after_utc:%Y-%m-%d %H:%M} UTC", "renew it")
    if leaf.not_valid_before_utc > now:
        found = f"{file.path}, which is valid from {leaf.not_valid_before_utc:%Y-%m-%d %H:%M} UTC on"
        raise TlsFault(file.key, found, "wait, or set this machine's clock")


def _context(files: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_ciphers(_CIPHERS)
    context.set_alpn_protocols(["http/1.1"])
    try:
        # Without a passphrase of some kind OpenSSL would ask at the terminal.
        context.load_cert_chain(files.certificate.path, files.private_key.path, password="")
    except ssl.SSLError as error:
        reason = (error.reason or "unknown fault").lower().replace("_", " ")
        cure = "have one made with a key of RSA 2048 or more, or of ECDSA P-256, signed with SHA-256"
        raise TlsFault(files.certificate.key, f"{files.certificate.path}, which OpenSSL does not serve ({reason})", cure) from error
    except OSError as error:
        raise TlsFault(files.certificate.key, f"{files.certificate.path}: {words_of(error)}", "try again when it is whole") from error
    return context


def _believe_clients(context: ssl.SSLContext, file: TlsFile, pem: bytes) -> None:
    try:
        # As DER: OpenSSL takes no text beside PEM that is not ASCII, such as an authority's name.
        authorities = b"".join(one.public_bytes(Encoding.DER) for one in _certificates(pem))
        context.load_verify_locations(cadata=authorities)
    except (ValueError, ssl.SSLError) as error:
        cure = "put the certificates of the authorities there as PEM"
        raise TlsFault(file.key, f"{file.path}, which holds no whole certificate", cure) from error
    context.verify_mode = ssl.CERT_OPTIONAL
    # An authority that is itself signed by another is enough; the other need not be believed.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
