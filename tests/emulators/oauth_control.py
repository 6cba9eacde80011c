"""The client side of the authorization server: start one, script it, read what it was asked."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

from tests.emulators.oauth import CLIENT_ID

_ROOT = Path(__file__).resolve().parents[2]
_START_SECONDS = 20.0


class AuthorizationProcess:
    """An authorization server in a process of its own, as an async context manager."""

    def __init__(self) -> None:
        self.port = 0
        self._process: asyncio.subprocess.Process | None = None
        self._client: aiohttp.ClientSession | None = None

    @property
    def url(self) -> str:
        """`http://127.0.0.1:PORT`."""
        return f"http://127.0.0.1:{self.port}"

    def section(self, **more: Any) -> dict[str, Any]:
        """The section `oauth` of a provider that logs in here."""
        return {"clientId": CLIENT_ID, "deviceAuthorizationUrl": f"{self.url}/device", "tokenUrl": f"{self.url}/token", **more}

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.emulators.oauth", "--until-stdin-closes"),
            cwd=_ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), _START_SECONDS)
        self.port = int(json.loads(line)["port"])
        self._client = aiohttp.ClientSession(self.url)
        return self

    async def __aexit__(self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None) -> None:
        if self._client is not None:
            await self._client.close()
        await self.kill()

    async def kill(self) -> None:
        """End the process at once."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await asyncio.wait_for(self._process.wait(), 5)

    async def configure(self, **settings: Any) -> None:
        """Change settings; see `oauth.Settings`."""
        await self._call("POST", "/_control/settings", settings)

    async def script(self, *answers: str) -> None:
        """Say what it answers next; `device:` in front is for the beginning of a login."""
        await self._call("POST", "/_control/script", list(answers))

    async def approve(self) -> None:
        """Confirm every code, as a person does in a browser."""
        await self._call("POST", "/_control/approve", {})

    async def release(self) -> None:
        """Let it answer what `wait` holds back."""
        await self._call("POST", "/_control/release", {})

    async def revoke(self, *, refresh: bool = False) -> None:
        """Take no access token any more; with `refresh` no refresh token either."""
        await self._call("POST", "/_control/revoke", {"refresh": refresh})

    async def requests(self, *, count: int = 0) -> list[dict[str, Any]]:
        """All requests, once there are at least `count`: `path`, `url`, `form`, `at`."""
        found: list[dict[str, Any]] = (await self._call("GET", f"/_control/requests?count={count}"))["requests"]
        return found

    async def access_tokens(self) -> list[str]:
        """The access tokens that are good now."""
        found: list[str] = (await self._call("GET", "/_control/requests"))["accessTokens"]
        return found

    async def _call(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        assert self._client is not None, "enter the context manager first"
        async with self._client.request(method, path, json=body) as response:
            assert response.status == 200, await response.text()
            answer: dict[str, Any] = await response.json()
            return answer
