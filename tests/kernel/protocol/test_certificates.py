"""Client certificates: read from the wire's bytes, matched letter by letter, and never more than the configuration says."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from pydantic import ValidationError

from openclaw_config.fingerprints import read_fingerprint
from openclaw_config.models import GatewayAuth, GatewayTls, TlsClient
from openclaw_kernel.protocol.auth import Refused, Verified, Verifier
from openclaw_kernel.protocol.certificates import ShownCertificate, granted_to_certificate, read_certificate
from openclaw_kernel.protocol.limiter import FailureLimiter
from tests.support.certificates import CLIENT, Issued

NOW_MS = 1_700_000_000_000
PRINT = "ab" * 32
SHOWN = ShownCertificate(
    fingerprint=PRINT,
    subject="CN=laptop,O=Test",
    names=frozenset({"DNS:laptop.test", "EMAIL:alice@example.org"}),
    expires_ms=NOW_MS + 1,
)


def entry(**values: Any) -> TlsClient:
    """An entry of `gateway.tls.clients`."""
    return TlsClient.model_validate(values)


def test_a_certificate_is_read_as_the_configuration_writes_it() -> None:
    more = [
        x509.RFC822Name("alice@example.org"),
        x509.UniformResourceIdentifier("spiffe://example.org/laptop"),
        x509.IPAddress(ipaddress.ip_address("2001:db8::7")),
        x509.RegisteredID(x509.ObjectIdentifier("1.2.3.4")),
    ]
    issued = Issued.make("laptop.test", use=CLIENT, more_names=more)
    shown = read_certificate(issued.certificate.public_bytes(Encoding.DER))
    assert shown is not None
    assert shown.fingerprint == read_fingerprint(issued.fingerprint)
    assert shown.subject == "O=Test,CN=laptop.test"
    assert shown.names == {
        "DNS:laptop.test",
        "DNS:localhost",
        "IP:127.0.0.1",
        "IP:2001:db8::7",
        "EMAIL:alice@example.org",
        "URI:spiffe://example.org/laptop",
    }
    assert shown.expires_ms == int(issued.certificate.not_valid_after_utc.timestamp() * 1000)


def test_what_is_no_certificate_and_one_without_names_are_taken_for_what_they_are() -> None:
    assert read_certificate(b"") is None
    assert read_certificate(b"\x30\x03\x02\x01\x01") is None
    nameless = read_certificate(Issued.make("ca", authority=True).certificate.public_bytes(Encoding.DER))
    assert nameless is not None
    assert nameless.names == frozenset()


def _with_extensions(**extensions: bytes) -> bytes:
    """A certificate with these extensions, by the last number of their identifiers."""
    issued = Issued.make("laptop.test", use=CLIENT)
    now = issued.certificate.not_valid_before_utc
    name = issued.certificate.subject
    builder = x509.CertificateBuilder(name, name, issued.key.public_key(), 1, now, issued.certificate.not_valid_after_utc)
    for number, value in extensions.items():
        builder = builder.add_extension(x509.UnrecognizedExtension(x509.ObjectIdentifier(f"2.5.29.{number[1:]}"), value), critical=False)
    return builder.sign(issued.key, hashes.SHA256()).public_bytes(Encoding.DER)


@pytest.mark.parametrize(
    "der",
    [
        _with_extensions(_17=bytes.fromhex("3004a3023000")),
        _with_extensions(_17=bytes.fromhex("3004a5023000")),
        _with_extensions(_100=b"1", _101=b"2").replace(bytes.fromhex("551d64"), bytes.fromhex("551d65")),
    ],
    ids=["an address of X.400", "a party of EDI", "an extension twice"],
)
def test_a_certificate_with_what_nobody_reads_says_nothing(der: bytes) -> None:
    assert read_certificate(der) is None


@pytest.mark.parametrize(
    "fitting",
    [{"fingerprint": PRINT}, {"subject": "CN=laptop,O=Test"}, {"san": "DNS:laptop.test"}, {"san": "EMAIL:alice@example.org"}],
)
def test_an_entry_that_fits_gives_its_role_and_scopes(fitting: dict[str, str]) -> None:
    grant = granted_to_certificate([entry(**fitting, scopes=["operator.read"])], SHOWN)
    assert grant is not None
    assert grant.roles == {"operator"}
    assert grant.scopes == {"operator.read"}


@pytest.mark.parametrize(
    "other",
    [
        {"fingerprint": "ac" * 32},
        {"subject": "CN=laptop"},
        {"subject": "O=Test"},
        {"subject": "cn=laptop,o=test"},
        {"subject": "O=Test,CN=laptop"},
        {"subject": "CN=laptop,O=Test "},
        {"san": "DNS:Laptop.test"},
        {"san": "DNS:test"},
        {"san": "DNS:*.test"},
        {"san": "URI:laptop.test"},
        {"san": "EMAIL:alice@example.org.evil"},
        {"subject": "DNS:laptop.test"},
        {"san": "DNS:CN=laptop,O=Test"},
    ],
)
def test_nothing_but_equality_fits(other: dict[str, str]) -> None:
    """S18."""
    assert granted_to_certificate([entry(**other, scopes=["operator.admin"])], SHOWN) is None


def test_entries_that_fit_add_up_by_role() -> None:
    entries = [
        entry(fingerprint=PRINT, scopes=["operator.read"]),
        entry(san="DNS:laptop.test", scopes=["operator.talk"]),
        entry(subject="CN=laptop,O=Test", role="node"),
        entry(fingerprint="00" * 32, scopes=["operator.admin"]),
    ]
    grant = granted_to_certificate(entries, SHOWN)
    assert grant is not None
    assert grant.roles == {"operator", "node"}
    assert grant.scopes == {"operator.read", "operator.talk"}


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"caPath": "ca.pem", "clients": [{"scopes": ["operator.read"]}]}, "name it by one of fingerprint, subject and san"),
        ({"caPath": "ca.pem", "clients": [{"subject": "CN=a", "san": "DNS:a"}]}, "name it by one of fingerprint, subject and san"),
        ({"caPath": "ca.pem", "clients": [{"subject": ""}]}, "at least 1 character"),
        ({"caPath": "ca.pem", "clients": [{"san": "laptop.test"}]}, "match pattern"),
        ({"caPath": "ca.pem", "clients": [{"fingerprint": "abc"}]}, "64 hexadecimal digits of SHA-256"),
        ({"caPath": "ca.pem", "clients": [{"subject": "CN=a", "scopes": ["operator.root"]}]}, "operator.admin"),
        ({"caPath": "ca.pem", "clients": [{"subject": "CN=a", "role": "node", "scopes": ["operator.read"]}]}, "a node has no scopes"),
        ({"clients": [{"subject": "CN=a"}]}, "clients need caPath"),
        ({"certPath": "cert.pem"}, "certPath and keyPath go together"),
        ({"keyPath": "key.pem"}, "certPath and keyPath go together"),
    ],
)
def test_a_section_that_would_grant_by_accident_is_refused(section: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        GatewayTls.model_validate({"enabled": True, **section})


def test_the_verifier_mints_what_the_entry_says_and_for_as_long_as_the_certificate_lasts() -> None:
    limiter = FailureLimiter()
    clients = [entry(fingerprint=PRINT, scopes=["operator.read", "operator.write"])]
    verifier = Verifier(GatewayAuth(), limiter, certificates=clients)
    verified = verifier.verify_certificate(SHOWN, NOW_MS)
    assert isinstance(verified, Verified)
    assert (verified.method, verified.principal) == ("certificate", f"cert:{PRINT}")
    assert verified.ceiling == ("operator.read", "operator.write")
    assert verified.roles == frozenset({"operator"})
    assert verified.expires_ms == SHOWN.expires_ms
    assert verifier.verify_certificate(SHOWN, NOW_MS + 1) == Refused("certificate_expired")
    assert Verifier(GatewayAuth(), limiter).verify_certificate(SHOWN, NOW_MS) == Refused("certificate_unknown")
