"""The published reference client as a process: `driver.mjs` on the pinned Node, spoken to in lines of JSON."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

from tests.support.requirements import find_node
from tests.support.ws_client import RequestFailed

DRIVER = Path(__file__).with_name("driver.mjs")
DEADLINE_SECONDS = 30.0
LONGEST_LINE_BYTES = 32 * 1024 * 1024

Line: TypeAlias = dict[str, Any]


class ReferenceClient:
    """What the client told so far, in order, and requests through it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.lines: list[Line] = []
        self._process = process
        self._ids = itertools.count(1)
        self._changed = asyncio.Condition()
        self._ended = False
        self._reader = asyncio.create_task(self._read())

    async def tell(self, wish: Mapping[str, Any]) -> None:
        """Hand one line to the driver."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(wish).encode() + b"\n")
        await self._process.stdin.drain()

    async def wait(
        self, kind: str, matches: Callable[[Line], bool] = lambda _line: True, *, after: int = 0, deadline: float = DEADLINE_SECONDS
    ) -> Line:
        """The first line of this kind that matches, of those told from position `after` on or those to come."""
        seen = after
        try:
            async with asyncio.timeout(deadline), self._changed:
                while True:
                    for line in self.lines[seen:]:
                        if line["kind"] == kind and matches(line):
                            return line
                    seen = max(seen, len(self.lines))
                    assert not self._ended, f"the reference client ended before a line {kind!r}; it told {self.lines[-5:]}"
                    await self._changed.wait()
        except TimeoutError:
            kinds = [line["frame"]["event"] if line["kind"] == "event" else line["kind"] for line in self.lines[-50:]]
            raise AssertionError(f"no line {kind!r} within {deadline} s; told: {kinds}") from None

    async def request(self, method: str, params: Any = None, *, expect_final: bool = False, deadline: float = DEADLINE_SECONDS) -> Any:
        """Call a method as a program would.

        Raises:
            RequestFailed: the client threw its error; code and details are the client's own.
        """
        name = f"q{next(self._ids)}"
        timeout_ms = int(deadline * 1000)
        wish: Line = {"op": "request", "id": name, "method": method, "expectFinal": expect_final, "timeoutMs": timeout_ms}
        await self.tell(wish if params is None else {**wish, "params": params})
        answer = await self.wait("answer", lambda line: line["id"] == name, deadline=deadline + 5)
        if not answer["ok"]:
            raise RequestFailed(method, answer["error"])
        return answer.get("payload")

    async def event(self, name: str, matches: Callable[[Line], bool] = lambda _payload: True, *, after: int = 0) -> Line:
        """The payload of the first event of this name that matches."""
        found = await self.wait("event", lambda line: line["frame"]["event"] == name and matches(line["frame"]["payload"]), after=after)
        payload: Line = found["frame"]["payload"]
        return payload

    def payloads(self, name: str, *, after: int = 0) -> list[Line]:
        """The payloads of all events of this name so far."""
        return [line["frame"]["payload"] for line in self.lines[after:] if line["kind"] == "event" and line["frame"]["event"] == name]

    def kinds(self) -> set[str]:
        """What kinds of lines the client told."""
        return {str(line["kind"]) for line in self.lines}

    async def close(self) -> None:
        """Let the client disconnect and the process end by itself."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(10):
                assert await self._process.wait() == 0
        finally:
            if self._process.returncode is None:
                self._process.kill()
                await self._process.wait()
            await self._reader

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for raw in self._process.stdout:
            async with self._changed:
                self.lines.append(json.loads(raw))
                self._changed.notify_all()
        async with self._changed:
            self._ended = True
            self._changed.notify_all()


@asynccontextmanager
async def reference_client(url: str, *, token: str | None, **options: Any) -> AsyncIterator[ReferenceClient]:
    """A started client; `options` are further ones of `GatewayClientOptions`.

    It has no device identity, unless `deviceFile` names a file that keeps one, and the tokens it is given.
    """
    process = await asyncio.create_subprocess_exec(
        str(find_node()),
        str(DRIVER),
        cwd=DRIVER.parent,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=LONGEST_LINE_BYTES,
    )
    client = ReferenceClient(process)
    try:
        await client.tell({"url": url, "deviceIdentity": None, **({} if token is None else {"token": token}), **options})
        yield client
    finally:
        await client.close()
