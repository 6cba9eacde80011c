"""`--deep`: a real gateway gives a stranger nothing; a server that does everything wrong is found out in every point."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import threading
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from openclaw_config.home import prepare_home
from openclaw_kernel.api import Check, CheckContext, Severity
from openclaw_kernel.checks.probing import MOST_REQUESTS, GatewayProbe
from openclaw_kernel.checks.scene import survey
from openclaw_plugins.security.catalogue import CHECKS
from tests.plugins.security.scenes import bundled, found_by
from tests.support.gateway import RunningGateway

DEEP = [check for check in CHECKS if check.deep]
OF_TLS = {"deep.tls.old"}


def ids(check: Check) -> str:
    return check.id


async def everything_wrong(request: web.Request) -> web.StreamResponse:
    """Answer everybody everything."""
    if request.headers.get("Upgrade"):
        socket_ = web.WebSocketResponse()
        await socket_.prepare(request)
        async for message in socket_:
            frame = message.json()
            await socket_.send_json({"type": "res", "id": frame["id"], "ok": True, "payload": {}})
        return socket_
    return web.Response(text="openclaw here", headers={"Access-Control-Allow-Origin": "*", "Server": "Python aiohttp"})


@pytest_asyncio.fixture
async def wrong() -> AsyncIterator[str]:
    """The address of such a server."""
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", everything_wrong)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


def context_of(home: Path, probe: GatewayProbe) -> CheckContext:
    prepare_home(home)
    return replace(survey(home, bundled(), running=None).context, probe=probe)


@pytest.mark.parametrize("check", [check for check in DEEP if check.id not in OF_TLS | {"deep.sockets"}], ids=ids)
async def test_what_is_wrong_is_found_from_outside(check: Check, wrong: str, tmp_path: Path) -> None:
    context = context_of(tmp_path / "home", GatewayProbe(1, wrong))
    found = await asyncio.to_thread(found_by, check.id, context)
    assert found
    assert not any(each.failed for each in found), found
    order = list(Severity)
    assert max(order.index(each.finding.severity) for each in found) == order.index(check.worst)


async def test_a_real_gateway_gives_a_stranger_nothing(gateway: RunningGateway) -> None:
    probe = GatewayProbe(gateway.ready["pid"], gateway.url)
    context = replace(survey(gateway.home, bundled(), running=None).context, probe=probe)
    for check in DEEP:
        assert await asyncio.to_thread(found_by, check.id, context) == [], check.id
    addresses = probe.listening()
    assert addresses == [("127.0.0.1", int(gateway.url.rpartition(":")[2]))]


async def test_a_socket_beside_the_gateways_own_is_found(tmp_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as own, closing(socket.create_server(("0.0.0.0", 0))) as other:
        probe = GatewayProbe(os.getpid(), f"http://127.0.0.1:{own.getsockname()[1]}")
        found = await asyncio.to_thread(found_by, "deep.sockets", context_of(tmp_path / "home", probe))
        told = {each.finding.where: each.finding.severity for each in found}
        assert told[f"0.0.0.0:{other.getsockname()[1]}"] is Severity.CRITICAL
        assert f"127.0.0.1:{own.getsockname()[1]}" not in told


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate that nobody has signed, and its key."""
    key = rsa.generate_private_key(65_537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gateway")])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
    made = made.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    (folder / "cert.pem").write_bytes(made.sign(key, SHA256()).public_bytes(Encoding.PEM))
    (folder / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return folder / "cert.pem", folder / "key.pem"


@contextmanager
def tls_server(folder: Path, version: ssl.TLSVersion) -> Iterator[int]:
    """A server that speaks exactly one version of TLS; gives its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.load_cert_chain(*certificate(folder))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = version
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            try:
                context.wrap_socket(connection, server_side=True).close()
            except OSError:
                connection.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


@pytest.mark.parametrize(("version", "count"), [(ssl.TLSVersion.TLSv1_1, 1), (ssl.TLSVersion.TLSv1_2, 0), (ssl.TLSVersion.TLSv1_3, 0)])
async def test_old_tls_is_found(version: ssl.TLSVersion, count: int, tmp_path: Path) -> None:
    with tls_server(tmp_path, version) as port:
        context = context_of(tmp_path / "home", GatewayProbe(1, f"https://127.0.0.1:{port}"))
        found = await asyncio.to_thread(found_by, "deep.tls.old", context)
    assert (len(found), any(each.failed for each in found)) == (count, False)


async def test_it_asks_its_own_address_a_bounded_number_of_times(wrong: str) -> None:
    probe = GatewayProbe(1, wrong)

    def ask_for_ever() -> None:
        for _ in range(MOST_REQUESTS + 1):
            probe.get("/")

    with pytest.raises(OSError, match="which is the most"):
        await asyncio.to_thread(ask_for_ever)


async def test_nobody_there_is_a_check_that_could_not_look(tmp_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as gone:
        port = gone.getsockname()[1]
    context = context_of(tmp_path / "home", GatewayProbe(1, f"http://127.0.0.1:{port}"))
    (found,) = await asyncio.to_thread(found_by, "deep.routes.open", context)
    assert found.failed
