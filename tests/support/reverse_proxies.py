"""The real nginx and the real Caddy in front of a gateway, with the configuration that docs/reverse-proxy.md shows.

async with running_nginx(folder, gateway_port) as proxy:
    async with proxy.session() as http, http.ws_connect(proxy.url + "/") as socket: ...
"""

from __future__ import annotations

import asyncio
import datetime as dt
import re
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.support.gateway import free_port
from tests.support.requirements import TESTS, find_program

NAME = "chat.example.org"
PAGE = TESTS.parent / "docs" / "reverse-proxy.md"
START_SECONDS = 20.0


@dataclass(frozen=True)
class ReverseProxy:
    """One that runs. `url` has its public name, at which only `session` finds it."""

    port: int
    certificate: Path

    @property
    def url(self) -> str:
        """Where people find it."""
        return f"https://{NAME}:{self.port}"

    def session(self, source: str = "127.0.0.1") -> aiohttp.ClientSession:
        """A client of it with this address of its own."""
        trusted = ssl.create_default_context(cafile=self.certificate)
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusted, resolver=_Here(), local_addr=(source, 0)))


class _Here(AbstractResolver):
    """Finds every name on this machine."""

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[ResolveResult]:
        """Answer with 127.0.0.1."""
        return [ResolveResult(hostname=host, host="127.0.0.1", port=port, family=2, proto=0, flags=0)]

    async def close(self) -> None:
        """Nothing to close."""


@asynccontextmanager
async def running_nginx(
    folder: Path, upstream: int, *, path: str = "/", tls: bool = True, users: Mapping[str, str] | None = None
) -> AsyncIterator[ReverseProxy]:
    """The documented nginx in front of a port of this machine; `path` is what it publishes. Without TLS it stands behind another.

    With `users` and their passwords it is the one at which people sign in.
    """
    certificate, key = make_certificate(folder)
    port = free_port()
    site = _documented("nginx")
    site = site.replace("listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;").replace("127.0.0.1:18789", f"127.0.0.1:{upstream}")
    site = site.replace("location / {", f"location {path} {{")
    site = re.sub(r"ssl_certificate .*;", f"ssl_certificate {certificate};", site)
    site = re.sub(r"ssl_certificate_key .*;", f"ssl_certificate_key {key};", site)
    if users is not None:
        passwords = folder / "htpasswd"
        passwords.write_text("".join(f"{name}:{{PLAIN}}{password}\n" for name, password in users.items()), encoding="utf-8")
        site = site.replace(
            f"location {path} {{", f"location {path} {{\n" + _documented("nginx", 1).replace("/etc/nginx/agents.htpasswd", str(passwords))
        )
    if not tls:
        site = re.sub(r"ssl_.*;", "", site.replace(" ssl;", ";"))
    temporary = "".join(f"{kind}_temp_path {folder};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    text = f"daemon off;\nmaster_process off;\npid {folder}/nginx.pid;\nevents {{}}\nhttp {{\naccess_log off;\n{temporary}{site}}}\n"
    file = folder / "nginx.conf"
    file.write_text(text, encoding="utf-8")
    program = find_program("nginx", cure="install the Debian package nginx")
    async with _process([str(program), "-p", str(folder), "-e", "stderr", "-c", str(file)], port, folder):
        yield ReverseProxy(port, certificate)


@asynccontextmanager
async def running_caddy(
    folder: Path, upstream: int, *, path: str = "/", tls: bool = True, users: Mapping[str, str] | None = None
) -> AsyncIterator[ReverseProxy]:
    """The documented Caddy in front of a port of this machine; `path` is what it publishes, `users` are as with nginx."""
    assert tls, "Caddy stands in front"
    program = find_program("caddy", cure="install the Debian package caddy")
    certificate, key = make_certificate(folder)
    port = free_port()
    site = _documented("caddyfile", 0 if users is None else 1).replace("127.0.0.1:18789", f"127.0.0.1:{upstream}")
    site = site.replace(f"{NAME} {{", f"https://{NAME}:{port} {{\nbind 127.0.0.1\ntls {certificate} {key}", 1)
    site = site.replace("reverse_proxy ", f"reverse_proxy {path}* " if path != "/" else "reverse_proxy ")
    if users is not None:
        known = [f"{name} {await _hashed(program, password)}" for name, password in users.items()]
        site = site.replace("alice {$ALICE_HASH}", "\n".join(known))
    file = folder / "Caddyfile"
    file.write_text("{\nadmin off\nauto_https disable_redirects\n}\n" + site, encoding="utf-8")
    async with _process([str(program), "run", "--config", str(file), "--adapter", "caddyfile"], port, folder):
        yield ReverseProxy(port, certificate)


async def _hashed(caddy: Path, password: str) -> str:
    command = [str(caddy), "hash-password", "--plaintext", password]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL)
    output, _ = await process.communicate()
    return output.decode().strip()


def make_certificate(folder: Path, name: str = NAME) -> tuple[Path, Path]:
    """A certificate that is its own authority, and its key, as two files."""
    folder.mkdir(parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    public, private = folder / "certificate.pem", folder / "key.pem"
    public.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return public, private


def _documented(language: str, number: int = 0) -> str:
    found = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(found) == 2, f"{PAGE.name} shows {len(found)} of {language}"
    return str(found[number])


@asynccontextmanager
async def _process(command: list[str], port: int, folder: Path) -> AsyncIterator[None]:
    log = folder / "proxy.log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=folder,
            env={"HOME": str(folder), "PATH": "/usr/sbin:/usr/bin:/bin"},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        await _until_it_listens(process, port, log)
        yield
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(5):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


async def _until_it_listens(process: asyncio.subprocess.Process, port: int, log: Path) -> None:
    async with asyncio.timeout(START_SECONDS):
        while True:
            assert process.returncode is None, log.read_text(encoding="utf-8")
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionError:
                await asyncio.sleep(0.02)
                continue
            writer.close()
            await writer.wait_closed()
            return
