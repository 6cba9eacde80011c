"""The assembled gateway in this process: its clock's events, its end, and what a start that fails leaves behind."""

from __future__ import annotations

import asyncio
import json
import socket
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import WSMsgType

from openclaw_config.load import load
from openclaw_kernel.app import GatewayApp
from openclaw_kernel.cannot_start import CannotStart
from openclaw_kernel.lock import AlreadyRunning, read_owner
from openclaw_kernel.protocol.limits import Limits
from tests.support import contract

TOKEN = "test-token-0123456789"
STRONG = "v8mQ2xk0T5sWJ3nY7bRd"
PUBLIC: dict[str, Any] = {"bind": "lan", "trustedProxies": ["192.0.2.7"]}
DEADLINE = 10.0


def app_in(home: Path, limits: Limits | None = None, **gateway: Any) -> GatewayApp:
    """A gateway with the echo model on a free port."""
    home.mkdir(exist_ok=True)
    section = {"port": 0, "auth": {"mode": "token", "token": TOKEN}} | gateway
    (home / "openclaw.yaml").write_text(json.dumps({"gateway": section, "models": {"providers": {"echo": {}}}}))
    return GatewayApp(loaded=load(home / "openclaw.yaml"), home=home, limits=limits)


@asynccontextmanager
async def client_of(app: GatewayApp, *scopes: str) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """A connected command line."""
    params = {
        "minProtocol": 4,
        "maxProtocol": 4,
        "client": {"id": "cli", "version": "1", "platform": "linux", "mode": "cli"},
        "scopes": list(scopes),
        "auth": {"token": TOKEN},
    }
    async with aiohttp.ClientSession() as http, http.ws_connect(app.facts.url.replace("http", "ws", 1)) as ws:
        await ws.receive(DEADLINE)
        await ws.send_json({"type": "req", "id": "c", "method": "connect", "params": params})
        assert (await ws.receive_json(timeout=DEADLINE))["ok"] is True
        yield ws


async def event(ws: aiohttp.ClientWebSocketResponse, name: str) -> dict[str, Any]:
    """The next event of that name, checked against the contract."""
    async with asyncio.timeout(DEADLINE):
        while True:
            frame: dict[str, Any] = await ws.receive_json()
            if frame.get("event") == name:
                contract.validate_event(frame)
                return frame


async def test_ticks_and_health_come_by_the_clock(tmp_path: Path) -> None:
    app = app_in(tmp_path, Limits(tick_interval_ms=1, health_seconds=0.001))
    await app.start()
    try:
        async with client_of(app) as ws:
            first, second = await event(ws, "tick"), await event(ws, "tick")
            assert second["payload"]["ts"] >= first["payload"]["ts"]
            assert second["seq"] > first["seq"]
            health = await event(ws, "health")
            assert health["stateVersion"]["health"] >= 2
    finally:
        await app.stop()


async def test_clients_learn_of_each_other(tmp_path: Path) -> None:
    app = app_in(tmp_path)
    await app.start()
    try:
        async with client_of(app, "operator.read", "operator.admin") as ws, client_of(app) as stranger:
            beacon = {"text": "node kitchen", "host": "kitchen", "instanceId": "k1"}
            await ws.send_json({"type": "req", "id": "1", "method": "system-event", "params": beacon})
            frame = await event(ws, "presence")
            hosts = [entry["host"] for entry in frame["payload"]["presence"]]
            assert "kitchen" in hosts
            assert frame["stateVersion"]["presence"] == app._presence.version
            await stranger.send_json({"type": "req", "id": "2", "method": "system-presence"})
            assert (await stranger.receive_json(timeout=DEADLINE))["error"]["code"] == "FORBIDDEN"
    finally:
        await app.stop()


async def test_stopping_says_so_before_it_closes_and_leaves_nothing(tmp_path: Path) -> None:
    before = {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}
    app = app_in(tmp_path)
    await app.start()
    port = int(app.facts.url.rpartition(":")[2])
    async with client_of(app) as ws:
        stopping = asyncio.ensure_future(app.stop("service restart"))
        assert (await event(ws, "shutdown"))["payload"]["reason"] == "service restart"
        message = await ws.receive(DEADLINE)
        while message.type is WSMsgType.TEXT:
            message = await ws.receive(DEADLINE)
        assert ws.close_code == 1012
        await stopping
    left = {task for task in asyncio.all_tasks() if task is not asyncio.current_task()} - before
    assert left == set()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0
    again = app_in(tmp_path)
    await again.start()
    await again.stop()


async def test_a_second_gateway_on_the_folder_is_told_who_owns_it(tmp_path: Path) -> None:
    first, second = app_in(tmp_path), app_in(tmp_path)
    await first.start()
    try:
        with pytest.raises(AlreadyRunning, match=first.facts.url):
            await second.start()
        assert read_owner(tmp_path)["url"] == first.facts.url
        async with client_of(first) as ws:
            await ws.send_json({"type": "req", "id": "1", "method": "health"})
            assert (await ws.receive_json(timeout=DEADLINE))["ok"] is True
    finally:
        await first.stop()


async def test_a_start_that_fails_gives_everything_back(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        app = app_in(tmp_path, port=taken.getsockname()[1])
        with pytest.raises(CannotStart, match=r"openclaw.yaml:1:\d+: gateway.port: \d+ is in use by another program; .*") as refused:
            await app.start()
        assert refused.value.status == 75
    again = app_in(tmp_path)
    await again.start()
    await again.stop()


@pytest.mark.parametrize(
    ("section", "line"),
    [
        ({"mode": "remote"}, "gateway.mode: remote"),
        ({"bind": "lan", "auth": {"mode": "none"}}, "gateway.auth.mode: none, while gateway.bind is lan"),
        ({"auth": {"mode": "token"}}, "gateway.auth.token: not set"),
        ({"auth": {"mode": "password"}}, "gateway.auth.password: not set"),
        ({"auth": {"mode": "trusted-proxy"}}, "gateway.trustedProxies: empty, while gateway.auth.mode is trusted-proxy"),
        ({"auth": {"mode": "trusted-proxy"}, "trustedProxies": ["192.0.2.7"]}, "gateway.auth.trustedProxy.userHeader: not set"),
        (
            {"auth": {"mode": "trusted-proxy", "trustedProxy": {"userHeader": "X-User"}}, "trustedProxies": ["127.0.0.1", "::1"]},
            "gateway.auth.trustedProxy.allowLoopback: false, while all gateway.trustedProxies are on this machine; set it to true",
        ),
        ({"bind": "lan", "auth": {"mode": "token", "token": STRONG}}, "gateway.bind: lan, with nothing that encrypts; set gateway.tls"),
        (PUBLIC | {"auth": {"mode": "token", "token": "short"}}, "gateway.auth.token: only 5 characters long, while gateway.bind is lan"),
        (PUBLIC | {"auth": {"mode": "token", "token": "ab" * 20}}, "gateway.auth.token: made of only 2 different characters"),
        (
            PUBLIC | {"auth": {"mode": "password", "password": "My-Secret-Password-123!"}},
            "gateway.auth.password: made of words that everybody tries first",
        ),
    ],
)
async def test_a_config_that_would_open_the_door_does_not_start(tmp_path: Path, section: dict[str, Any], line: str) -> None:
    with pytest.raises(CannotStart) as refused:
        await app_in(tmp_path, **section).start()
    assert refused.value.status == 78
    assert line in str(refused.value)
    assert str(refused.value).startswith("openclaw.yaml:1:")


@pytest.mark.parametrize(
    "auth",
    [
        {"mode": "token", "token": STRONG},
        {"mode": "password", "password": "correct horse battery staple"},
        {"mode": "trusted-proxy", "trustedProxy": {"userHeader": "X-User"}},
    ],
)
async def test_beyond_loopback_it_starts_with_what_is_strong_behind_a_proxy_that_encrypts(tmp_path: Path, auth: dict[str, Any]) -> None:
    """S26."""
    app = app_in(tmp_path, **PUBLIC, auth=auth)
    await app.start()
    await app.stop()


async def test_a_user_header_of_any_name_marks_what_a_proxy_of_this_machine_forwards(tmp_path: Path) -> None:
    """S17: whom such a proxy names is no program of this machine, which would keep all its scopes."""
    auth = {"mode": "trusted-proxy", "trustedProxy": {"userHeader": "X-Acme-User", "allowLoopback": True}}
    app = app_in(tmp_path, trustedProxies=["127.0.0.1"], auth=auth)
    await app.start()
    try:
        params = {
            "minProtocol": 4,
            "maxProtocol": 4,
            "client": {"id": "gateway-client", "version": "1", "platform": "linux", "mode": "backend"},
            "scopes": ["operator.admin"],
        }
        headers = {"X-Acme-User": "alice", "X-OpenClaw-Scopes": ""}
        async with aiohttp.ClientSession() as http, http.ws_connect(app.facts.url.replace("http", "ws", 1), headers=headers) as ws:
            await ws.receive(DEADLINE)
            await ws.send_json({"type": "req", "id": "c", "method": "connect", "params": params})
            answer = await ws.receive_json(timeout=DEADLINE)
        assert answer["error"]["details"]["code"] == "DEVICE_IDENTITY_REQUIRED"
    finally:
        await app.stop()


async def test_forwarding_headers_of_a_peer_that_is_no_trusted_proxy_are_audited_together(tmp_path: Path) -> None:
    app = app_in(tmp_path)
    await app.start()
    try:
        async with aiohttp.ClientSession() as http:
            for number in range(5):
                headers = {"X-Forwarded-For": f"203.0.113.{number}", "X-Forwarded-User": "owner"}
                assert (await http.get(f"{app.facts.url}/healthz", headers=headers)).status == 200
    finally:
        await app.stop()
    with sqlite3.connect(tmp_path / "state.sqlite3") as connection:
        rows = [
            json.loads(text) for (text,) in connection.execute("SELECT details FROM kernel_audit WHERE action = 'proxy.headers-ignored'")
        ]
    connection.close()
    assert rows[0]["headers"] == ["x-forwarded-for", "x-forwarded-user"]
    assert len(rows) <= 2


async def test_a_start_that_cannot_be_written_down_is_written_down_later(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever has to look after a database that takes no write needs a gateway that answers."""
    first = app_in(tmp_path)
    await first.start()
    await first.stop()
    app = app_in(tmp_path)
    with closing(sqlite3.connect(tmp_path / "state.sqlite3", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        starting = asyncio.create_task(app.start())
        async with asyncio.timeout(30):
            while "the start is not in the audit log yet" not in caplog.text:  # noqa: ASYNC110 - the log has no event
                await asyncio.sleep(0.05)
        other.execute("ROLLBACK")
    await starting
    await app.stop()
    with closing(sqlite3.connect(tmp_path / "state.sqlite3")) as connection:
        query = "SELECT after_digest, details FROM kernel_audit WHERE action = 'config.loaded' ORDER BY sequence"
        (before, _), (after, details) = connection.execute(query)
    assert (after, json.loads(details)) == (before, {"late": True})


async def test_a_link_opens_the_page_of_this_gateway(tmp_path: Path) -> None:
    app = app_in(tmp_path)
    await app.start()
    try:
        url, _, code = app.link().partition("/#code=")
        assert url == app.facts.url
        async with aiohttp.ClientSession() as http:
            answer = await http.post(f"{url}/auth/exchange", json={"code": code}, headers={"Origin": url})
            assert answer.status == 200
            assert "HttpOnly" in answer.headers["Set-Cookie"]
            assert "SameSite=Strict" in answer.headers["Set-Cookie"]
            answer = await http.post(f"{url}/auth/exchange", json={"code": code}, headers={"Origin": url})
            assert answer.status == 401
    finally:
        await app.stop()


async def test_a_page_session_outlives_a_restart(tmp_path: Path) -> None:
    app = app_in(tmp_path)
    await app.start()
    url, _, code = app.link().partition("/#code=")
    async with aiohttp.ClientSession() as http:
        answer = await http.post(f"{url}/auth/exchange", json={"code": code}, headers={"Origin": url})
        cookie = answer.cookies["openclaw_session"].value
    await app.stop()
    again = app_in(tmp_path)
    await again.start()
    try:
        async with aiohttp.ClientSession(cookies={"openclaw_session": cookie}, cookie_jar=aiohttp.CookieJar(unsafe=True)) as http:
            assert (await http.get(f"{again.facts.url}/auth/session")).status == 200
            assert cookie not in "".join(path.read_text("latin-1") for path in tmp_path.iterdir() if path.is_file())
    finally:
        await again.stop()


@pytest.mark.parametrize("mode", ["token", "trusted-proxy"])
async def test_a_page_session_ends_with_the_secret_it_was_opened_by(mode: str, tmp_path: Path) -> None:
    def with_token(token: str) -> GatewayApp:
        auth = {"mode": mode, "token": token, "trustedProxy": {"userHeader": "X-Acme-User"}}
        return app_in(tmp_path, auth=auth, trustedProxies=["192.0.2.7"])

    app = with_token(TOKEN)
    await app.start()
    url, _, code = app.link().partition("/#code=")
    async with aiohttp.ClientSession() as http:
        answer = await http.post(f"{url}/auth/exchange", json={"code": code}, headers={"Origin": url})
        cookie = answer.cookies["openclaw_session"].value
    await app.stop()
    again = with_token(STRONG)
    await again.start()
    try:
        async with aiohttp.ClientSession(cookies={"openclaw_session": cookie}, cookie_jar=aiohttp.CookieJar(unsafe=True)) as http:
            assert (await http.get(f"{again.facts.url}/auth/session")).status == 401
    finally:
        await again.stop()
