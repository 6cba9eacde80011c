"""What the one port shows over HTTP: to strangers nothing but that it lives, to its owner why it does not."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp.test_utils import make_mocked_request

from openclaw_kernel import __version__
from openclaw_kernel.api import AuditEntry
from openclaw_kernel.protocol.limiter import FailureLimiter
from openclaw_kernel.protocol.pages import CODE_MS, PageSessions
from tests.kernel.host.distributions import Distributions
from tests.support.gateway import START_SECONDS, RunningGateway, StartGateway, free_port
from tests.support.ws_client import WsClient, connect

PROBES: dict[str, dict[str, object]] = {
    "/healthz": {"ok": True, "status": "live"},
    "/health": {"ok": True, "status": "live"},
    "/readyz": {"ready": True},
    "/ready": {"ready": True},
    "/startupz": {"ok": True, "status": "started"},
    "/startup": {"ok": True, "status": "started"},
}
WITH_REASONS = ["/readyz", "/ready", "/startupz", "/startup"]
SECURITY = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
MISSPELT: dict[str, Any] = {"models": {"providers": {"opnai": {}}}}
BODY_LIMIT = 1024 * 1024
TELLING = re.compile(rf"openclaw|kernel|python|aiohttp|{re.escape(__version__)}", re.IGNORECASE)


def stranger(gateway: RunningGateway) -> aiohttp.ClientSession:
    """A client that proved nothing, and keeps cookies of an address as a browser does."""
    return aiohttp.ClientSession(gateway.url, cookie_jar=aiohttp.CookieJar(unsafe=True))


@pytest_asyncio.fixture
async def http(gateway: RunningGateway) -> AsyncIterator[aiohttp.ClientSession]:
    """A stranger's client."""
    async with stranger(gateway) as session:
        yield session


def code_of(link: str) -> str:
    """The one-time code in a link."""
    return link.partition("#code=")[2]


def exchange(http: aiohttp.ClientSession, code: object, **headers: str | None) -> aiohttp.client._RequestContextManager:
    """Offer a code as the page does; a header given as None is left out."""
    origin = {"Origin": str(http._base_url).rstrip("/")}
    given = {name: value for name, value in {**origin, **headers}.items() if value is not None}
    return http.post("/auth/exchange", json={"code": code}, headers=given)


@pytest.mark.parametrize("path", PROBES)
async def test_a_probe_tells_strangers_one_thing_and_never_who_answers(path: str, http: aiohttp.ClientSession) -> None:
    async with http.get(path) as answer:
        assert answer.status == 200
        body = await answer.read()
        assert json.loads(body) == PROBES[path]
        assert not TELLING.search(body.decode())
        assert not TELLING.search(str(dict(answer.headers)))
        assert not answer.headers.get("Server")
        assert {name: answer.headers.get(name) for name in SECURITY} == SECURITY
    async with http.get(path) as again:
        assert await again.read() == body
    async with http.head(path) as head:
        assert (head.status, await head.read()) == (200, b"")
        assert head.headers["Content-Length"] == str(len(body))


SLOW_START = """
class ThePlugin:
    settings = None

    def __init__(self, context):
        self.context = context

    @hookimpl
    def openclaw_register_services(self, registrar):
        registrar.add_unit(self)

    async def start(self):
        await asyncio.to_thread((self.context.home / "go").read_text)

    async def stop(self):
        pass
"""


async def test_a_gateway_that_still_starts_says_so(start_gateway: StartGateway, tmp_path: Path) -> None:
    Distributions(tmp_path).add("slow", SLOW_START)
    (home := tmp_path / "state").mkdir(mode=0o700)
    os.mkfifo(home / "go")
    port = free_port()
    gateway = await start_gateway({"gateway": {"port": port}}, home=home, env={"PYTHONPATH": str(tmp_path)}, wait=False)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:
        assert await first_answer(http, "/startupz") == (503, {"ok": False, "status": "starting"})
        assert await first_answer(http, "/readyz") == (503, {"ready": False})
        assert await first_answer(http, "/healthz") == (200, {"ok": True, "status": "live"})
        # Opening the other end of the pipe is what the plugin waits for.
        await asyncio.to_thread((home / "go").write_text, "go")
        await gateway.wait_line('"event": "ready"')
        assert await first_answer(http, "/readyz") == (200, {"ready": True})


async def first_answer(http: aiohttp.ClientSession, path: str) -> tuple[int, object]:
    """Status and body, as soon as somebody listens."""
    async with asyncio.timeout(START_SECONDS):
        while True:
            try:
                async with http.get(path) as answer:
                    return answer.status, await answer.json()
            except aiohttp.ClientConnectorError:
                await asyncio.sleep(0.02)


@pytest.mark.parametrize("path", WITH_REASONS)
async def test_reasons_are_for_those_who_prove_themselves(path: str, start_gateway: StartGateway) -> None:
    gateway = await start_gateway(MISSPELT)
    (problem,) = gateway.ready["problems"]
    async with stranger(gateway) as http:
        async with http.get(path) as answer:
            assert await answer.json() == PROBES[path]
        async with http.get(path, headers={"Authorization": f"Bearer {gateway.token}"}) as answer:
            assert await answer.json() == {**PROBES[path], "reasons": [problem]}
        for wrong in ("Bearer wrong", "Bearer", f"Basic {gateway.token}", gateway.token):
            async with http.get(path, headers={"Authorization": wrong}) as answer:
                assert await answer.json() == PROBES[path]
        async with exchange(http, code_of(gateway.link)) as answer:
            assert answer.status == 200
        async with http.get(path) as answer:
            assert await answer.json() == {**PROBES[path], "reasons": [problem]}


async def test_the_page_and_its_files_are_fenced(http: aiohttp.ClientSession) -> None:
    async with http.get("/") as answer:
        page = await answer.text()
        assert answer.content_type == "text/html"
        assert answer.headers["Content-Security-Policy"] == POLICY
        assert {name: answer.headers.get(name) for name in SECURITY} == SECURITY
        assert not answer.headers.get("Server")
        assert not answer.cookies
    assert not re.search(r"<script(?![^>]*\bsrc=)|\son[a-z]+=|<style|style=|https?://", page)
    files = re.findall(r"(?:src|href)=\"/?\.?/?([^\"#]+)\"", page)
    assert {Path(name).suffix for name in files} >= {".js", ".css"}
    for name in files:
        async with http.get(f"/{name}") as answer:
            assert answer.status == 200, name
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Content-Security-Policy"] == POLICY


async def test_the_page_can_be_turned_off_and_the_rest_stays(start_gateway: StartGateway) -> None:
    gateway = await start_gateway({"gateway": {"controlUi": {"enabled": False}}})
    async with stranger(gateway) as http:
        for path in ("/", "/app.js", "/auth/session"):
            async with http.get(path) as answer:
                assert answer.status == 404
        async with http.get("/healthz") as answer:
            assert answer.status == 200
    async with gateway.connect() as client:
        await client.request("health")


async def test_a_code_becomes_a_cookie_once(gateway: RunningGateway, http: aiohttp.ClientSession) -> None:
    async with http.get("/auth/session") as answer:
        assert (answer.status, await answer.json()) == (401, {"authenticated": False})
    code = code_of(gateway.link)
    async with exchange(http, code) as answer:
        assert (answer.status, await answer.json()) == (200, {"authenticated": True})
        (cookie,) = answer.cookies.values()
    assert cookie["httponly"]
    assert cookie["samesite"] == "Strict"
    assert cookie["path"] == "/"
    assert not cookie["domain"]
    assert int(cookie["max-age"]) == 30 * 24 * 3600
    assert cookie.value not in {code, gateway.token}
    async with http.get("/auth/session") as answer:
        assert (answer.status, await answer.json()) == (200, {"authenticated": True})
    async with stranger(gateway) as other, exchange(other, code) as answer:
        assert answer.status == 401
        assert 'the gateway\'s command "open"' in (await answer.json())["error"]["message"]
        assert not answer.cookies
    assert cookie.value.encode() not in (gateway.home / "state.sqlite3").read_bytes()


async def test_a_cookie_outlives_the_gateway_and_opens_the_socket(gateway: RunningGateway, http: aiohttp.ClientSession) -> None:
    async with exchange(http, code_of(gateway.link)) as answer:
        (cookie,) = answer.cookies.values()
    await gateway.stop()
    await gateway.start()
    headers = {"Cookie": f"{cookie.key}={cookie.value}", "Origin": gateway.url}
    async with connect(gateway.ws_url, headers=headers) as client:
        assert client.hello["auth"]["role"] == "operator"
        await client.request("status")


REFUSED: dict[str, tuple[dict[str, Any], int]] = {
    "another content type": ({"data": b'{"code": "x"}', "headers": {"Content-Type": "text/plain"}}, 415),
    "a form": ({"data": {"code": "x"}}, 415),
    "no json": ({"data": b"code=x", "headers": {"Content-Type": "application/json"}}, 400),
    "no code": ({"json": {}}, 400),
    "a code that is no text": ({"json": {"code": 5}}, 400),
    "a list": ({"json": ["x"]}, 400),
    "a code that is too long": ({"json": {"code": "x" * 257}}, 400),
    "no origin": ({"json": {"code": "x"}}, 403),
    "a foreign origin": ({"json": {"code": "x"}, "headers": {"Origin": "https://evil.example"}}, 403),
    "the origin null": ({"json": {"code": "x"}, "headers": {"Origin": "null"}}, 403),
    "an origin that is none": ({"json": {"code": "x"}, "headers": {"Origin": "http://[::1"}}, 403),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_an_exchange_that_is_not_the_pages_is_refused(case: str, gateway: RunningGateway, http: aiohttp.ClientSession) -> None:
    given, status = REFUSED[case]
    async with http.post("/auth/exchange", **given) as answer:
        assert answer.status == status
        assert (await answer.json())["error"]["message"]
        assert not answer.cookies
    # None of these used up the real code.
    async with exchange(http, code_of(gateway.link)) as answer:
        assert answer.status == 200


async def test_a_foreign_page_cannot_use_the_code_it_has_seen(gateway: RunningGateway, http: aiohttp.ClientSession) -> None:
    other_port = gateway.url.rpartition(":")[0] + ":9"
    for origin in ("https://evil.example", other_port, None):
        async with exchange(http, code_of(gateway.link), Origin=origin) as answer:
            assert answer.status == 403
            assert not answer.cookies


async def test_codes_cannot_be_guessed_for_long(gateway: RunningGateway, http: aiohttp.ClientSession) -> None:
    for guess in range(10):
        async with exchange(http, f"guess-{guess}") as answer:
            assert answer.status == 401
    async with exchange(http, code_of(gateway.link)) as answer:
        assert answer.status == 429
        assert int(answer.headers["Retry-After"]) > 0
        assert (await answer.json())["error"]["type"] == "rate_limited"
    async with gateway.connect() as client:
        await client.request("health")


async def test_a_code_expires() -> None:
    now = 1_000_000

    async def save(_text: str, _entry: AuditEntry) -> None:
        return

    pages = PageSessions(limiter=FailureLimiter(), now_ms=lambda: now, save=save)
    late, expires = pages.mint_code()
    assert expires == now + CODE_MS
    now = expires - 1
    early, _ = pages.mint_code()
    now = expires
    request = make_mocked_request("POST", "/auth/exchange", headers={"Host": "127.0.0.1:1", "Origin": "http://127.0.0.1:1"})
    assert await pages.exchange(request, late) is None
    assert await pages.exchange(request, early) is not None


@pytest.mark.parametrize("path", ["/nothing", "/auth", "/healthz/", "/../openclaw.yaml", "/%2e%2e/openclaw.yaml", "/static/"])
async def test_an_unknown_path_is_404(path: str, gateway: RunningGateway, http: aiohttp.ClientSession) -> None:
    async with http.get(path) as answer:
        assert answer.status == 404
        assert not TELLING.search(await answer.text())
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert not answer.headers.get("Server")


@pytest.mark.parametrize(("method", "path"), [("POST", "/healthz"), ("DELETE", "/"), ("GET", "/auth/exchange"), ("PUT", "/readyz")])
async def test_a_wrong_method_is_405_and_names_the_right_one(method: str, path: str, http: aiohttp.ClientSession) -> None:
    async with http.request(method, path) as answer:
        assert answer.status == 405
        assert answer.headers["Allow"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_a_body_over_the_limit_is_413(http: aiohttp.ClientSession, gateway: RunningGateway) -> None:
    too_much = b'{"code": "' + b"x" * BODY_LIMIT + b'"}'
    async with http.post(
        "/auth/exchange", data=io.BytesIO(too_much), headers={"Content-Type": "application/json", "Origin": gateway.url}
    ) as answer:
        assert answer.status == 413
        assert not TELLING.search(await answer.text())
    async with http.get("/healthz") as answer:
        assert answer.status == 200


@pytest.mark.parametrize("path", ["/", "/healthz", "/gateway", "/any/path/at/all", "/auth/exchange"])
async def test_a_websocket_opens_on_any_path(path: str, gateway: RunningGateway) -> None:
    async with connect(gateway.ws_url.rstrip("/") + path, token=gateway.token) as client:
        await client.request("health")


async def test_a_foreign_page_cannot_open_the_socket(gateway: RunningGateway) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        async with WsClient.open(gateway.ws_url, headers={"Origin": "https://evil.example"}):
            pass
    assert refused.value.status == 403


async def test_nothing_but_the_one_port_is_open(gateway: RunningGateway) -> None:
    port = int(gateway.url.rpartition(":")[2])
    assert listening(gateway.process.pid) == {("127.0.0.1", port)}


def listening(pid: int) -> set[tuple[str, int]]:
    """The TCP and UDP sockets on which a process waits for strangers, from /proc."""
    links = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]
    owned = {link.removeprefix("socket:[").removesuffix("]") for link in links if link.startswith("socket:[")}
    ports: set[tuple[str, int]] = set()
    for table, waiting in {"tcp": "0A", "tcp6": "0A", "udp": "07", "udp6": "07"}.items():
        for line in Path(f"/proc/{pid}/net/{table}").read_text(encoding="ascii").splitlines()[1:]:
            _, local, _, state, *rest = line.split()
            if state == waiting and rest[5] in owned:
                address, _, port = local.partition(":")
                ports.add((readable(address), int(port, 16)))
    return ports


def readable(address: str) -> str:
    """An IPv4 address as people write it; others stay as the kernel writes them."""
    return ".".join(str(part) for part in reversed(bytes.fromhex(address))) if len(address) == 8 else address
