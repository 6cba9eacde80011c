"""Over TLS the address is pinned, and yet the certificate is checked against the name that was asked for."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.plugins.web_tools.server import redirect, response

TODAY = dt.datetime.now(dt.UTC)
DAY = dt.timedelta(days=1)

# The trusted authorities are read once a process, so each fetch has one of its own.
FETCH = """
import asyncio, sys
from openclaw_kernel.api import ToolError
from openclaw_plugins.web_tools.runtime import Fetcher
from openclaw_plugins.web_tools.settings import WebToolsSettings

async def resolve(host, port):
    return ["127.0.0.1"]

async def main():
    fetcher = Fetcher(WebToolsSettings(), resolve=resolve, refuse=lambda address: None)
    try:
        print((await fetcher.fetch(sys.argv[1])).body.decode())
    except ToolError as error:
        print(f"refused: {error}")

asyncio.run(main())
"""


@dataclass
class Authority:
    """Signs certificates."""

    folder: Path
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    name: x509.Name = field(default_factory=lambda: x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "authority of a test")]))

    def save(self) -> Path:
        """Write its own certificate and return where."""
        return self._write("authority", self.name, self.key, x509.BasicConstraints(ca=True, path_length=None))

    def context(self, host: str, *, days: int = 1) -> ssl.SSLContext:
        """Return a server's context with a certificate for one name."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
        chain = self._write(host, name, key, x509.SubjectAlternativeName([x509.DNSName(host)]), days=days)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain)
        return context

    def _write(self, stem: str, name: x509.Name, key: ec.EllipticCurvePrivateKey, extension: x509.ExtensionType, *, days: int = 1) -> Path:
        builder = (
            x509.CertificateBuilder(issuer_name=self.name, subject_name=name, public_key=key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(TODAY - 3 * DAY)
            .not_valid_after(TODAY + days * DAY)
            .add_extension(extension, critical=False)
        )
        plain = serialization.NoEncryption()
        parts = [
            builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM),
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain),
        ]
        path = self.folder / f"{stem}.pem"
        path.write_bytes(b"".join(parts))
        return path


@dataclass
class TlsServer:
    """What it was asked for: the names in the greetings, and the heads of the requests."""

    names: list[str | None] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    port: int = 0


@asynccontextmanager
async def serve_tls(context: ssl.SSLContext, answer: bytes) -> AsyncIterator[TlsServer]:
    server = TlsServer()
    context.sni_callback = lambda _socket, name, _context: server.names.append(name)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(answer)
        await writer.drain()
        writer.close()

    listening = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=context)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()


async def fetch(url: str, authority: Path | None) -> str:
    environment = {**os.environ, **({"SSL_CERT_FILE": str(authority)} if authority else {})}
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", FETCH, url], env=environment, capture_output=True, text=True, timeout=50, check=True
    )
    return done.stdout.strip()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


async def test_the_certificate_is_checked_against_the_name_and_the_name_is_sent(authority: Authority) -> None:
    async with serve_tls(authority.context("shop.example.org"), response("over tls")) as server:
        assert await fetch(f"https://Shop.Example.ORG.:{server.port}/", authority.save()) == "over tls"
    assert server.names == ["shop.example.org"]
    assert f"Host: shop.example.org:{server.port}" in server.heads[0]


WRONG: dict[str, Callable[[Authority], ssl.SSLContext]] = {
    "of another name": lambda authority: authority.context("evil.example.org"),
    "of the pinned address as a name": lambda authority: authority.context("127.0.0.1"),
    "that is over": lambda authority: authority.context("shop.example.org", days=-1),
}


@pytest.mark.parametrize("case", WRONG)
async def test_a_certificate_is_refused_before_anything_is_asked(case: str, authority: Authority) -> None:
    async with serve_tls(WRONG[case](authority), response("secret")) as server:
        said = await fetch(f"https://shop.example.org:{server.port}/", authority.save())
    assert said.startswith("refused: ")
    assert "certificate verify failed" in said
    assert server.heads == []


async def test_an_authority_nobody_trusts_is_refused(authority: Authority) -> None:
    async with serve_tls(authority.context("shop.example.org"), response("secret")) as server:
        assert "certificate verify failed" in await fetch(f"https://shop.example.org:{server.port}/", None)
    assert server.heads == []


async def test_a_redirect_to_another_name_is_held_to_that_ones_certificate(authority: Authority) -> None:
    async with serve_tls(authority.context("shop.example.org"), response("secret")) as other:
        target = redirect(f"https://bank.example.org:{other.port}/")
        async with serve_tls(authority.context("shop.example.org"), target) as server:
            said = await fetch(f"https://shop.example.org:{server.port}/", authority.save())
    assert "certificate verify failed" in said
    assert (other.names, other.heads) == (["bank.example.org"], [])
