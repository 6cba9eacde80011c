"""`JwksEmulator`: starts the issuer of tokens as a process and speaks its control API."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

REPOSITORY = Path(__file__).resolve().parents[2]
START_SECONDS = 20.0


class JwksEmulator:
    """Async context manager around one process. `url` is the issuer, as in the claim `iss`."""

    def __init__(self) -> None:
        self.port = 0
        self._process: asyncio.subprocess.Process | None = None
        self._http: aiohttp.ClientSession | None = None

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.emulators.jwks", "--port", "0", "--until-stdin-closes",
            cwd=REPOSITORY, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), START_SECONDS)
        self.port = int(json.loads(line)["port"])
        self._http = aiohttp.ClientSession()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._http is not None:
            await self._http.close()
        await self.stop()

    async def stop(self) -> None:
        """End the process: the issuer cannot be reached any more."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        assert process.stdin is not None
        process.stdin.close()
        await asyncio.wait_for(process.wait(), START_SECONDS)

    async def token(self, *, algorithm: str = "ES256", headers: dict[str, Any] | None = None, **claims: Any) -> str:
        """A token of the newest key; a claim that is None is left out."""
        wanted = {"claims": claims, "algorithm": algorithm, "headers": headers or {}}
        return str((await self._post("token", wanted))["token"])

    async def rotate(self, *, keep: bool = False) -> None:
        """Make new keys; `keep` publishes the old ones too."""
        await self._post("rotate", {"keep": keep})

    async def misbehave(self, mode: str) -> None:
        """Take one of the faults, or `ok`."""
        await self._post("mode", {"mode": mode})

    async def requests(self) -> int:
        """How often the keys were asked for."""
        assert self._http is not None
        async with self._http.get(f"{self.url}/control/requests") as response:
            return int((await response.json())["requests"])

    async def _post(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        assert self._http is not None
        async with self._http.post(f"{self.url}/control/{name}", json=body) as response:
            response.raise_for_status()
            answer: dict[str, Any] = await response.json()
            return answer
