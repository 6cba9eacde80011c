"""S3: every way in shares one verifier and one limiter, whose lockouts outlive the process."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from openclaw_config.load import load
from openclaw_kernel.app import GatewayApp
from openclaw_kernel.protocol.limiter import FAILURES

TOKEN = "v8mQ2xk0T5sWJ3nY7bRd"
DEADLINE = 10.0
HERE, ELSEWHERE = "203.0.113.9", "198.51.100.7"


class Way:
    """One gateway behind a proxy of this machine, and every way in from an address that the proxy names."""

    def __init__(self, app: GatewayApp, http: aiohttp.ClientSession) -> None:
        self.app = app
        self._http = http

    async def bearer(self, token: str, address: str = HERE, path: str = "/readyz", method: str = "GET") -> bool:
        """Whether an HTTP request with this token is trusted."""
        headers = {"Authorization": f"Bearer {token}", "X-Forwarded-For": address}
        async with self._http.request(method, self.app.facts.url + path, headers=headers) as answer:
            return "reasons" in await answer.text()

    async def connect(self, token: str, address: str = HERE) -> str | None:
        """The code with which a WebSocket client is refused, None where it is not."""
        params = {
            "minProtocol": 4,
            "maxProtocol": 4,
            "client": {"id": "cli", "version": "1", "platform": "linux", "mode": "cli"},
            "auth": {"token": token},
        }
        url = self.app.facts.url.replace("http", "ws", 1)
        async with self._http.ws_connect(url, headers={"X-Forwarded-For": address}) as ws:
            await ws.receive(DEADLINE)
            await ws.send_json({"type": "req", "id": "c", "method": "connect", "params": params})
            answer = await ws.receive_json(timeout=DEADLINE)
            return None if answer["ok"] else str(answer["error"]["details"]["code"])

    async def code(self, code: str, address: str = HERE) -> dict[str, Any]:
        """The answer to a one-time code of the page."""
        headers = {"Origin": self.app.facts.url, "X-Forwarded-For": address}
        async with self._http.post(f"{self.app.facts.url}/auth/exchange", json={"code": code}, headers=headers) as answer:
            return {"status": answer.status, **(await answer.json())}

    def fresh_code(self) -> str:
        """A code that is good once."""
        return self.app.link().partition("#code=")[2]


@asynccontextmanager
async def running(home: Path, **gateway: Any) -> AsyncIterator[Way]:
    """The gateway of this state folder."""
    section = {"port": 0, "auth": {"mode": "token", "token": TOKEN}, "trustedProxies": ["127.0.0.1/32"]} | gateway
    (home / "openclaw.yaml").write_text(json.dumps({"gateway": section, "models": {"providers": {"echo": {}}}}))
    app = GatewayApp(loaded=load(home / "openclaw.yaml"), home=home)
    await app.start()
    try:
        async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http:
            yield Way(app, http)
    finally:
        await app.stop()


async def test_a_lockout_over_http_is_one_on_the_websocket_and_the_reverse(tmp_path: Path) -> None:
    async with running(tmp_path) as way:
        for number in range(FAILURES):
            assert not await way.bearer(f"wrong-{number}")
        assert await way.connect(TOKEN) == "AUTH_RATE_LIMITED"
        assert await way.connect(TOKEN, ELSEWHERE) is None
        for number in range(FAILURES):
            assert await way.connect(f"wrong-{number}", ELSEWHERE) == "AUTH_TOKEN_MISMATCH"
        assert not await way.bearer(TOKEN, ELSEWHERE)
        assert await way.bearer(TOKEN, "198.51.100.8")


async def test_one_kinds_wrong_tries_do_not_burn_anothers(tmp_path: Path) -> None:
    async with running(tmp_path) as way:
        for number in range(FAILURES):
            assert (await way.code(f"wrong-{number}"))["status"] == 401
        locked = await way.code(way.fresh_code())
        assert locked["status"] == 429
        assert await way.connect(TOKEN) is None
        assert await way.bearer(TOKEN)
        for number in range(FAILURES):
            await way.connect(f"wrong-{number}", ELSEWHERE)
        assert (await way.code(way.fresh_code(), ELSEWHERE))["status"] == 200


async def test_a_wrong_path_or_method_burns_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as way:
        for number in range(FAILURES + 1):
            await way.bearer(f"wrong-{number}", path="/no-such-path")
            await way.bearer(f"wrong-{number}", path="/healthz")
            await way.bearer(f"wrong-{number}", method="POST")
        assert await way.bearer(TOKEN)


async def test_who_is_locked_out_stays_so_over_a_restart(tmp_path: Path) -> None:
    async with running(tmp_path) as way:
        for number in range(FAILURES):
            await way.connect(f"wrong-{number}")
            await way.code(f"wrong-{number}")
        for number in range(FAILURES - 1):
            await way.connect(f"wrong-{number}", ELSEWHERE)
    async with running(tmp_path) as way:
        assert await way.connect(TOKEN) == "AUTH_RATE_LIMITED"
        assert (await way.code(way.fresh_code()))["status"] == 429
        # Single failures are forgotten.
        assert await way.connect("wrong", ELSEWHERE) == "AUTH_TOKEN_MISMATCH"
        assert await way.connect(TOKEN, ELSEWHERE) is None


async def test_a_flood_of_wrong_tries_from_this_machine_is_held_back_in_bounds(tmp_path: Path) -> None:
    """Each answer is held back for up to five seconds, whoever waits for it."""
    async with running(tmp_path, trustedProxies=[]) as way:
        host, port = way.app.facts.url.removeprefix("http://").split(":")
        bearer = f"GET /readyz HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: Bearer wrong\r\n\r\n"
        writers = [(await asyncio.open_connection(host, int(port)))[1] for _ in range(100)]
        for writer in writers:
            writer.write(bearer.encode())
        async with asyncio.timeout(DEADLINE):
            while not way.app._held.full:
                await way.bearer("wrong", path="/healthz")
        assert way.app._held._held == 64
        for writer in writers:
            writer.close()
        # Nobody is looked at meanwhile, or all that are too many would guess without a pause.
        right = {"Authorization": f"Bearer {TOKEN}"}
        async with aiohttp.ClientSession() as http, http.get(way.app.facts.url + "/readyz", headers=right) as answer:
            assert "reasons" not in await answer.json()


@pytest.mark.parametrize("kept", ["", "[", "5", "[5]", '[["soon", "identity", "x"]]', '[[9e15, [], "x"]]'])
async def test_a_damaged_row_of_lockouts_keeps_nobody_out(kept: str, tmp_path: Path) -> None:
    async with running(tmp_path) as way:
        for number in range(FAILURES):
            await way.connect(f"wrong-{number}")
    database = sqlite3.connect(tmp_path / "state.sqlite3")
    with database:
        assert database.execute("UPDATE kernel_key_value SET value = ? WHERE key = 'lockouts'", (kept,)).rowcount == 1
    database.close()
    async with running(tmp_path) as way:
        assert await way.connect(TOKEN) is None


@pytest.mark.parametrize("field", ["token", "password"])
async def test_a_changed_mode_forgets_nobody(field: str, tmp_path: Path) -> None:
    async with running(tmp_path) as way:
        for number in range(FAILURES):
            await way.connect(f"wrong-{number}")
    async with running(tmp_path, auth={"mode": field, field: TOKEN}) as way:
        assert await way.connect(TOKEN) == "AUTH_RATE_LIMITED"
