"""S24, S26: all that strangers reach, with every bundled plugin on: one socket, these routes, and not a word on what answers."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from openclaw_kernel import __version__
from openclaw_kernel.testing import RunningGateway, run_gateway
from tests.emulators.telegram_control import TelegramEmulator
from tests.kernel.protocol.test_garbage import CLIENTS, FIELDS, FRAMES, GARBAGE, with_values
from tests.kernel.protocol.transcript import REMOTE, Gate, connect_params, request
from tests.support.gateway import RunningGateway as GatewayProcess
from tests.support.gateway import StartGateway

OPEN_TO_ALL = """
GET /health, GET /healthz, GET /ready, GET /readyz, GET /startup, GET /startupz,
GET /, GET /attachments.js, GET /chat.js, GET /composer.js, GET /gateway.js, GET /icon.svg, GET /index.html, GET /markdown.js,
GET /outbox.js, GET /sessions.js, GET /signin.js, GET /state.js, GET /style.css, GET /view.js,
GET /control-ui, GET /control-ui/{name:.*}, HEAD /control-ui, HEAD /control-ui/{name:.*}
"""
CLOSED = "POST /auth/exchange, GET /auth/session, POST /telegram-webhook, POST /hook/second"
GOLDEN = {route.strip(): is_open for text, is_open in ((OPEN_TO_ALL, True), (CLOSED, False)) for route in text.split(",")}
"""Every route, and whether a stranger is answered. Who adds one says here which it is."""

TOKENS = ("7001:TEST", "7002:TEST")
TELLING = re.compile(rf"openclaw|kernel|python|aiohttp|\b{re.escape(__version__)}\b", re.IGNORECASE)
FOREIGN = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
DEADLINE = 10.0


def everything(emulator: TelegramEmulator, ui: Path) -> dict[str, Any]:
    """The config in which every bundled plugin runs that has a listener, a route or a page."""
    ui.mkdir(exist_ok=True)
    (ui / "index.html").write_text("<!doctype html><title>A page of the user's</title>", encoding="utf-8")
    bot = {"botToken": emulator.token, "apiRoot": emulator.api_root}
    hooks = {"webhookUrl": "https://gateway.example/telegram-webhook", "webhookSecret": "a-secret-of-the-account"}
    second = {"botToken": TOKENS[1], "webhookUrl": "https://gateway.example/hook/second", "webhookPath": "/hook/second", "enabled": True}
    return {
        "models": {"providers": {"echo": {}}},
        "channels": {"telegram": {**bot, **hooks, "accounts": {"second": second}}},
        "plugins": {"entries": {"control-ui": {"config": {"root": str(ui)}}}},
    }


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningGateway]:
    """A gateway in this process with all of it."""
    async with TelegramEmulator(tokens=TOKENS) as emulator:
        config = everything(emulator, tmp_path_factory.mktemp("site") / "ui")
        async with run_gateway(tmp_path_factory.mktemp("home"), config) as running:
            yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http(gateway: RunningGateway) -> AsyncIterator[aiohttp.ClientSession]:
    """A stranger."""
    async with aiohttp.ClientSession(gateway.url, cookie_jar=aiohttp.DummyCookieJar()) as session:
        yield session


def asked(route: str) -> tuple[str, str]:
    """A request for a route."""
    method, path = route.split(" ", 1)
    return method, path.replace("{name:.*}", "index.html").replace("{name}", "index.html")


def said(status: int, headers: Any, body: bytes) -> str:
    """An answer as a scanner sees it."""
    return f"{status}\n" + "\n".join(f"{name}: {value}" for name, value in headers.items()) + f"\n{body.decode('utf-8', 'replace')}"


@pytest.mark.asyncio(loop_scope="module")
async def test_the_routes_are_these_and_strangers_are_refused_at_all_that_are_not_open(
    gateway: RunningGateway, http: aiohttp.ClientSession
) -> None:
    found = {f"{owned.method} {owned.path}" for _, owned in gateway.app.host.registry.routes}
    probes = {route for route in GOLDEN if route.split("/")[1].rstrip("z") in {"health", "ready", "startup"}}
    assert found | probes == set(GOLDEN)
    for route, is_open in GOLDEN.items():
        method, path = asked(route)
        headers = {"Origin": gateway.url} if method == "POST" else {}
        async with http.request(method, path, json={"code": "x"} if method == "POST" else None, headers=headers) as answer:
            assert answer.status in ({200} if is_open else {401, 403}), route
            assert answer.headers["X-Frame-Options"] == "DENY", route


@pytest.mark.asyncio(loop_scope="module")
async def test_another_sites_page_changes_nothing(gateway: RunningGateway, http: aiohttp.ClientSession) -> None:
    """S24: a cross-site POST is answered 403, also where there is no such route."""
    paths = [asked(route)[1] for route in GOLDEN] + ["/no-such-path"]
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        for path in paths:
            for origin in ("https://evil.example", "null", "http://localhost.evil", f"{gateway.url}0"):
                async with http.request(method, path, data=b"{}", headers={"Origin": origin}) as answer:
                    assert answer.status == 403, (method, path, origin)
    right = {"Authorization": f"Bearer {gateway.token}", "X-Telegram-Bot-Api-Secret-Token": "a-secret-of-the-account"}
    async with http.post("/telegram-webhook", json={"update_id": 1}, headers=FOREIGN | right) as answer:
        assert answer.status == 403
    async with http.post("/telegram-webhook", json={"update_id": 1}, headers=right) as answer:
        assert answer.status == 200


@pytest.mark.asyncio(loop_scope="module")
async def test_no_answer_to_a_stranger_names_product_or_version(gateway: RunningGateway, http: aiohttp.ClientSession) -> None:
    """S26: routes, errors and refusals, as bytes."""
    users_own = {"/control-ui", "/control-ui/index.html"}
    paths = [*sorted({asked(route)[1] for route in GOLDEN} - users_own), "/no-such-path", "/%00", "/" + "x" * 5_000]
    bodies: dict[str, dict[str, Any]] = {
        "plain": {},
        "json": {"json": {"code": "x" * 300}},
        "code": {"json": {"code": "x"}, "headers": {"Origin": gateway.url}},
        "garbage": {"data": b"\xff\x00", "headers": {"Content-Type": "application/json", "Origin": gateway.url}},
        "bearer": {"headers": {"Authorization": "Bearer wrong", "X-Forwarded-For": "203.0.113.9"}},
        "foreign": {"headers": FOREIGN},
        "large": {"data": b"x" * 10_000},
        "upgrade": {"headers": {"Upgrade": "websocket", "Connection": "Upgrade", **FOREIGN}},
        "half an upgrade": {"headers": {"Upgrade": "websocket", "Connection": "Upgrade"}},
    }
    for path in paths:
        for method in ("GET", "HEAD", "POST", "OPTIONS", "DELETE", "BREW"):
            for name, options in bodies.items():
                if name == "bearer" and path.startswith(("/ready", "/startup")) and method != "GET":
                    continue
                async with http.request(method, path, **options) as answer:
                    text = said(answer.status, answer.headers, await answer.read())
                    assert not TELLING.search(text), (method, path, name, TELLING.search(text))


@pytest.mark.parametrize(
    "raw",
    ["\r\n\r\n", "GET\r\n\r\n", "BREW / HTTP/9.9\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\nX: " + "x" * 20_000, "\x16\x03\x01\x02"],
    ids=["nothing", "a word", "no version", "long header", "tls"],
)
@pytest.mark.asyncio(loop_scope="module")
async def test_what_is_no_http_learns_nothing_either(raw: str, gateway: RunningGateway) -> None:
    host, port = gateway.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(raw.encode("latin-1"))
        writer.write_eof()
        async with asyncio.timeout(DEADLINE):
            answer = await reader.read(65_536)
    finally:
        writer.close()
    assert not TELLING.search(answer.split(b"<!doctype")[0].decode("latin-1"))


def test_no_refusal_of_a_handshake_names_product_or_version() -> None:
    """S26: the challenge, and every frame and close for garbage in any field, from clients that proved nothing."""
    texts: list[str | bytes] = list(FRAMES)
    for client in CLIENTS:
        for field in FIELDS:
            for value in GARBAGE:
                params = with_values(connect_params(*client, auth={}), {field: value})
                texts.append(request("connect", params))
    texts += [request("connect", connect_params(minProtocol=low, maxProtocol=high)) for low, high in ((1, 1), (9, 9), (3, 3))]
    texts += [request(method) for method in ("health", "status", "config.get", "no.such")]
    for mode in ("token", "password"):
        for text in texts:
            handshake = Gate(mode=mode).handshake(REMOTE)
            for action in (*handshake.open(), *handshake.receive(text)):
                assert not TELLING.search(str(action)), (text, action)


def listening(process: GatewayProcess) -> set[tuple[str, int]]:
    """The sockets on which a process of the gateway, or one of its children, waits: TCP and UDP, by address and port."""
    pids = {process.process.pid}
    for task in Path(f"/proc/{process.process.pid}/task").iterdir():
        pids |= {int(pid) for pid in (task / "children").read_text().split()}
    inodes = {link.readlink().name for pid in pids for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()}
    found = set()
    for table, states in (("tcp", {"0A"}), ("tcp6", {"0A"}), ("udp", {"07"}), ("udp6", {"07"})):
        for line in Path(f"/proc/{process.process.pid}/net/{table}").read_text().splitlines()[1:]:
            cells = line.split()
            if cells[3] in states and f"socket:[{cells[9]}]" in inodes:
                address, _, port = cells[1].partition(":")
                text = socket.inet_ntoa(bytes.fromhex(address)[::-1]) if len(address) == 8 else address
                found.add((f"{table} {text}", int(port, 16)))
    return found


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="the sockets of a process are read from /proc")
async def test_a_gateway_listens_on_one_socket(start_gateway: StartGateway, tmp_path: Path) -> None:
    """S24, S27: with every bundled plugin on."""
    async with TelegramEmulator(tokens=TOKENS) as emulator:
        gateway = await start_gateway(everything(emulator, tmp_path / "ui"))
        port = int(gateway.url.rpartition(":")[2])
        assert listening(gateway) == {("tcp 127.0.0.1", port)}
        unix = Path(f"/proc/{gateway.process.pid}/net/unix").read_text()
        assert str(gateway.home) not in unix
        await gateway.stop()
