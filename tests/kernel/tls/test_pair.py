"""What is served and what is not, from real files; each fault names its key, what was found, and the cure."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from openclaw_config.fingerprints import read_fingerprint
from openclaw_config.models import GatewayTls
from openclaw_kernel.files.states import folders_of
from openclaw_kernel.tls.faults import TlsFault
from openclaw_kernel.tls.files import LARGEST_BYTES, TlsFiles
from openclaw_kernel.tls.generated import DAYS, make_missing
from openclaw_kernel.tls.pair import load
from tests.support.certificates import Issued, replace

NAMED = GatewayTls.model_validate({"enabled": True, "certPath": "cert.pem", "keyPath": "key.pem"})
WITH_CLIENTS = GatewayTls.model_validate({"enabled": True, "certPath": "cert.pem", "keyPath": "key.pem", "caPath": "ca.pem"})


def files(home: Path, settings: GatewayTls = NAMED) -> TlsFiles:
    """The files that these settings name in a state folder."""
    return TlsFiles.of(settings, home)


def test_a_whole_pair_is_served_with_today_s_protocols_alone(tmp_path: Path) -> None:
    issued = Issued.make()
    issued.write(tmp_path)
    pair = load(files(tmp_path))
    assert pair.fingerprint == read_fingerprint(issued.fingerprint)
    assert pair.expires_ms == int(issued.certificate.not_valid_after_utc.timestamp() * 1000)
    assert pair.context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert pair.context.verify_mode is ssl.CERT_NONE
    assert {cipher["protocol"] for cipher in pair.context.get_ciphers()} == {"TLSv1.2", "TLSv1.3"}
    assert all(cipher["aead"] for cipher in pair.context.get_ciphers())


def test_the_chain_behind_the_certificate_is_served_with_it(tmp_path: Path) -> None:
    authority = Issued.make("authority", authority=True)
    issued = Issued.make(signer=authority)
    issued.write(tmp_path)
    replace(tmp_path / "cert.pem", issued.certificate_pem + authority.certificate_pem)
    assert load(files(tmp_path)).fingerprint == read_fingerprint(issued.fingerprint)


def test_authorities_make_the_server_ask_for_client_certificates(tmp_path: Path) -> None:
    Issued.make().write(tmp_path)
    authority = Issued.make("authority", authority=True)
    replace(tmp_path / "ca.pem", authority.certificate_pem)
    pair = load(files(tmp_path, WITH_CLIENTS))
    assert pair.context.verify_mode is ssl.CERT_OPTIONAL
    assert len(pair.context.get_ca_certs()) == 1
    assert pair.authorities is not None


def _cut_certificate(folder: Path) -> None:
    content = (folder / "cert.pem").read_bytes()
    replace(folder / "cert.pem", content[: len(content) // 2])


def _cut_chain(folder: Path) -> None:
    content = (folder / "cert.pem").read_bytes()
    replace(folder / "cert.pem", content + content[: len(content) // 2])


def _cut_key(folder: Path) -> None:
    content = (folder / "key.pem").read_bytes()
    replace(folder / "key.pem", content[: len(content) // 2])


def _weak(folder: Path) -> None:
    Issued.make(key=rsa.generate_private_key(65537, 1024)).write(folder)  # noqa: S505 - which is the point


def _public_key_only(folder: Path) -> None:
    public = Issued.make().key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    replace(folder / "key.pem", public)


def _pipe(folder: Path) -> None:
    (folder / "cert.pem").unlink()
    os.mkfifo(folder / "cert.pem", 0o600)


def _folder(folder: Path) -> None:
    (folder / "key.pem").unlink()
    (folder / "key.pem").mkdir(0o700)


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no certificate": (lambda folder: (folder / "cert.pem").unlink(), "certPath: .*cert.pem, where nothing is; put the certificate there"),
    "no key": (lambda folder: (folder / "key.pem").unlink(), "keyPath: .*key.pem, where nothing is; put the private key there"),
    "half a certificate": (_cut_certificate, "certPath: .*cert.pem, which holds no whole certificate; put the certificate there as PEM"),
    "half a chain": (_cut_chain, "certPath: .*cert.pem, which holds no whole certificate"),
    "half a key": (_cut_key, "keyPath: .*key.pem, which holds no whole private key; put the certificate's private key there"),
    "an empty certificate": (lambda folder: replace(folder / "cert.pem", b""), "certPath: .*holds no whole certificate"),
    "an empty key": (lambda folder: replace(folder / "key.pem", b""), "keyPath: .*holds no whole private key"),
    "a public key": (_public_key_only, "keyPath: .*holds no whole private key"),
    "another's key": (
        lambda folder: replace(folder / "key.pem", Issued.make().key_pem),
        "keyPath: .*key.pem, which is the key of another certificate; put the key of the certificate in .*cert.pem there",
    ),
    "an expired certificate": (
        lambda folder: Issued.make(days=(-20, -1)).write(folder),
        r"certPath: .*cert.pem, which expired at \d{4}-\d\d-\d\d \d\d:\d\d UTC; renew it",
    ),
    "a certificate of tomorrow": (
        lambda folder: Issued.make(days=(1, 20)).write(folder),
        "certPath: .*cert.pem, which is valid from .* UTC on; wait, or set this machine's clock",
    ),
    "a locked key": (
        lambda folder: replace(folder / "key.pem", Issued.make().locked_key_pem(b"x" * 8)),
        "keyPath: .*key.pem, which is locked with a passphrase; take the passphrase away: openssl pkey -in .*key.pem",
    ),
    "a key that all can read": (
        lambda folder: (folder / "key.pem").chmod(0o644),
        r"keyPath: .*key.pem, which others can read or write \(mode 0644\); chmod 600 .*key.pem",
    ),
    "a key that all can write": (lambda folder: (folder / "key.pem").chmod(0o602), r"keyPath: .*\(mode 0602\)"),
    "a weak key": (_weak, r"certPath: .*cert.pem, which OpenSSL does not serve \(ee key too small\); have one made with a key of RSA 2048"),
    "a pipe": (_pipe, "certPath: .*cert.pem, which is no PEM file"),
    "a folder": (_folder, "keyPath: .*key.pem, which is no PEM file"),
    "a film": (lambda folder: replace(folder / "cert.pem", b"x" * (LARGEST_BYTES + 1)), "certPath: .*which is no PEM file"),
}


@pytest.mark.parametrize(("spoil", "said"), FAULTS.values(), ids=FAULTS)
def test_a_pair_that_cannot_be_served_is_named_with_its_cure(tmp_path: Path, spoil: Callable[[Path], object], said: str) -> None:
    Issued.make().write(tmp_path)
    load(files(tmp_path))
    spoil(tmp_path)
    with pytest.raises(TlsFault, match=f"^gateway.tls.{said}"):
        load(files(tmp_path))


@pytest.mark.parametrize("content", [b"", b"no certificate\n", Issued.make("ca", authority=True).certificate_pem[:-40]])
def test_authorities_that_are_none_are_named(tmp_path: Path, content: bytes) -> None:
    Issued.make().write(tmp_path)
    replace(tmp_path / "ca.pem", content)
    with pytest.raises(TlsFault, match=r"^gateway.tls.caPath: .*ca.pem, which holds no whole certificate; put the certificates of the"):
        load(files(tmp_path, WITH_CLIENTS))


def test_what_people_write_between_the_authorities_is_no_fault_of_theirs(tmp_path: Path) -> None:
    Issued.make().write(tmp_path)
    authorities = [Issued.make(name, authority=True) for name in ("one", "two")]
    replace(tmp_path / "ca.pem", b"".join("# F\u0151tan\u00fas\u00edtv\u00e1ny\n".encode() + one.certificate_pem for one in authorities))
    assert len(load(files(tmp_path, WITH_CLIENTS)).context.get_ca_certs()) == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to others")
@pytest.mark.parametrize(("owner", "mode", "serves"), [(0, 0o640, True), (0, 0o644, False), (1, 0o640, True), (1, 0o666, False)])
def test_a_key_of_another_owner_may_reach_us_through_a_group(tmp_path: Path, owner: int, mode: int, serves: bool) -> None:
    Issued.make().write(tmp_path)
    (tmp_path / "key.pem").chmod(mode)
    os.chown(tmp_path / "key.pem", owner, -1)
    if serves:
        load(files(tmp_path))
    else:
        with pytest.raises(TlsFault, match="others can read"):
            load(files(tmp_path))


def test_without_files_of_one_s_own_a_pair_is_made_once(tmp_path: Path) -> None:
    own = files(tmp_path, GatewayTls(enabled=True))
    assert make_missing(own)
    first = load(own)
    assert not make_missing(own)
    assert load(own).fingerprint == first.fingerprint
    assert first.expires_ms > (datetime.now(UTC) + timedelta(days=DAYS - 1)).timestamp() * 1000
    assert (tmp_path / "tls" / "gateway-key.pem").stat().st_mode & 0o777 == 0o600


def test_a_certificate_of_ours_tells_strangers_neither_product_nor_machine(tmp_path: Path) -> None:
    """S26."""
    own = files(tmp_path, GatewayTls(enabled=True))
    make_missing(own)
    made = x509.load_pem_x509_certificate(own.certificate.path.read_bytes())
    assert made.subject == made.issuer
    assert made.subject.rfc4514_string() == "CN=localhost"
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name.value) for name in names] == ["localhost", "127.0.0.1", "::1"]


def test_a_pair_of_ours_that_lost_its_half_is_not_quietly_made_anew(tmp_path: Path) -> None:
    own = files(tmp_path, GatewayTls(enabled=True))
    make_missing(own)
    own.private_key.path.unlink()
    with pytest.raises(TlsFault, match=r"^gateway.tls.keyPath: not set, and .*gateway-key.pem is not there; put it back, or remove .*cert"):
        make_missing(own)


def test_where_none_is_to_be_made_one_has_to_be_named(tmp_path: Path) -> None:
    settings = GatewayTls.model_validate({"enabled": True, "autoGenerate": False})
    with pytest.raises(TlsFault, match=r"^gateway.tls.certPath: not set, while gateway.tls.autoGenerate is false; name your certificate"):
        files(tmp_path, settings)


def test_the_folders_of_every_link_on_the_way_are_watched(tmp_path: Path) -> None:
    home = tmp_path.resolve()
    real, live, state = home / "archive", home / "live", home / "state"
    for folder in (real / "2026", live, state):
        folder.mkdir(parents=True)
    (real / "2026" / "cert1.pem").write_bytes(b"")
    (live / "now").symlink_to("../archive/2026")
    (live / "cert.pem").symlink_to("now/cert1.pem")
    (state / "cert.pem").symlink_to(live / "cert.pem")
    assert folders_of(state / "cert.pem") == {state, live, real / "2026"}
    (state / "loop.pem").symlink_to("loop.pem")
    assert folders_of(state / "loop.pem") == {state}
    assert folders_of(state / "missing.pem") == {state}
    assert folders_of(state / "missing" / "cert.pem") == frozenset()
