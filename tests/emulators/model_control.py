"""The client side of the model emulators: start one, script it, read what it was asked."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import aiohttp

from tests.emulators.model_common import API_KEY

__all__ = ["API_KEY", "EmulatorProcess"]

_ROOT = Path(__file__).resolve().parents[2]
_START_SECONDS = 20.0
_STOP_SECONDS = 5.0


class EmulatorProcess:
    """A model emulator in a process of its own, as an async context manager.

    >>> async with EmulatorProcess("openai") as server:
    ...     await server.script([{"text": "hello"}])
    """

    def __init__(self, vendor: Literal["openai", "anthropic"], *, module: str | None = None) -> None:
        """Take the vendor; `module` is run in place of its emulator, of which it is a kind."""
        self.vendor = vendor
        self._module = module or f"tests.emulators.{vendor}"
        self.port = 0
        self._process: asyncio.subprocess.Process | None = None
        self._client: aiohttp.ClientSession | None = None

    @property
    def url(self) -> str:
        """`http://127.0.0.1:PORT`, without a path: what ANTHROPIC_BASE_URL wants."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def openai_url(self) -> str:
        """The URL with `/v1`, as the OpenAI SDK wants it."""
        return f"{self.url}/v1"

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            self._module,
            "--port",
            "0",
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
        """End the process at once, as a server that dies in the middle of an answer."""
        if self._process is None or self._process.returncode is not None:
            return
        self._process.kill()
        await asyncio.wait_for(self._process.wait(), _STOP_SECONDS)

    async def script(self, turns: list[dict[str, Any]]) -> None:
        """Replace the script; see `model_common.Turn` for the keys of a turn."""
        await self._call("POST", "/_control/script", turns)

    async def configure(self, **settings: Any) -> None:
        """Change `api_keys`, `context_tokens` or `models`."""
        await self._call("POST", "/_control/settings", settings)

    async def reset(self) -> None:
        """Forget script, requests and changed settings."""
        await self._call("POST", "/_control/reset", {})

    async def requests(self, *, count: int = 0, outcome: str | None = None) -> list[dict[str, Any]]:
        """All requests so far, once at least `count` of them came (and ended in `outcome`, where given).

        Each has `method`, `path`, `headers` (lower case), `body`, `at` and `outcome`: `answered`, `refused`,
        `dropped`, `disconnected` (the client went first) or `open`.
        """
        query = f"?count={count}" + (f"&outcome={outcome}" if outcome else "")
        answer = await self._call("GET", f"/_control/requests{query}")
        requests: list[dict[str, Any]] = answer["requests"]
        return requests

    async def turns_left(self) -> int:
        """How many scripted turns nobody has taken yet."""
        return int((await self._call("GET", "/_control/requests"))["left"])

    async def _call(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        assert self._client is not None, "enter the context manager first"
        async with self._client.request(method, path, json=body) as response:
            answer: dict[str, Any] = await response.json()
            if response.status != 200:
                raise AssertionError(answer["error"])
            return answer
