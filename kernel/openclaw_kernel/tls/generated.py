"""A certificate that nobody has signed, for those who pin it: made once, kept below the state folder."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from openclaw_config.secret_files import store_private
from openclaw_kernel.tls.faults import TlsFault, words_of
from openclaw_kernel.tls.files import TlsFiles

DAYS: Final = 3650


def make_missing(files: TlsFiles) -> bool:
    """Make the pair where neither file is there, and tell whether it did; raise `TlsFault` where one is, or the disk refuses."""
    missing = [file for file in (files.certificate, files.private_key) if not file.path.exists()]
    if not missing:
        return False
    if len(missing) == 1:
        (other,) = {files.certificate, files.private_key} - set(missing)
        cure = f"put it back, or remove {other.path} as well to have both made anew"
        raise TlsFault(missing[0].key, f"not set, and {missing[0].path} is not there", cure)
    certificate, key = _make()
    try:
        # The key first: a certificate without its key could not be told from one whose key was lost.
        store_private(files.private_key.path, key)
        store_private(files.certificate.path, certificate)
    except OSError as error:
        found = f"not set, and {files.certificate.path} cannot be written ({words_of(error)})"
        cure = "make the state folder writable, or name a certificate of your own"
        raise TlsFault(files.certificate.key, found, cure) from error
    return True


def _make() -> tuple[str, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    # Every stranger sees it: it names neither the product nor this machine.
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=DAYS))
        .add_extension(x509.SubjectAlternativeName(_names()), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return certificate.public_bytes(Encoding.PEM).decode(), private.decode()


def _names() -> list[x509.GeneralName]:
    addresses = [ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1")]
    return [x509.DNSName("localhost"), *(x509.IPAddress(address) for address in addresses)]
