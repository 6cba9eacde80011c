"""A host with the plugin `good` inside it, and plugins in processes of their own beside that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from openclaw_kernel.api import GatewayError, InboundMessage, Ingress, ToolContext, ToolResult
from openclaw_kernel.children.isolation import Children
from openclaw_kernel.children.supervisor import ChildTiming
from tests.kernel.children.support import leave_out_others, strangers_in
from tests.kernel.host.distributions import GOOD, Distributions
from tests.kernel.host.hosting import Hosting, make_hosting

QUICK = ChildTiming(backoff_first=0.05, backoff_ceiling=0.2, deaths=3, window=60.0, end=1.0)
DEADLINE = 20.0


@dataclass
class Door:
    """The ingress: keeps what it accepted, refuses while `refusal` is set."""

    accepted: list[InboundMessage] = field(default_factory=list)
    refusal: GatewayError | None = None
    knocks: int = 0
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def accept(self, message: InboundMessage) -> bool:
        self.knocks += 1
        is_new = message.message_id not in {one.message_id for one in self.accepted}
        if self.refusal is None and is_new:
            self.accepted.append(message)
        async with self._changed:
            self._changed.notify_all()
        if self.refusal is not None:
            raise self.refusal
        return is_new

    async def wait(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE), self._changed:
            await self._changed.wait_for(condition)


@dataclass
class Family:
    """A hosting with children, and the door behind it."""

    hosting: Hosting
    children: Children
    door: Door

    async def tool(self, name: str, **arguments: Any) -> ToolResult:
        """Run a tool as the agent loop does."""
        context = ToolContext(agent_id="main", session_key="s", run_id="r", call_id="c", workspace=Path("/"))
        return await self.hosting.host.tools.run(name, context, arguments)


@pytest.fixture(autouse=True)
def _without_others() -> None:
    leave_out_others()


Start = Callable[..., Awaitable[Family]]


@pytest.fixture
def distributions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Distributions]:
    """A folder on `sys.path` to install into, with `good` in it."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    installed = Distributions(folder)
    installed.add("good", GOOD, kind="channel")
    yield installed
    installed.forget()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The state folder of the host."""
    folder = tmp_path / "home"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture
async def start(home: Path, distributions: Distributions) -> AsyncIterator[Start]:
    """Start a host with these entries of `plugins` and `channels`; it is stopped at the end, and no process may be left."""
    made: list[Family] = []

    async def begin(
        entries: dict[str, Any],
        channels: dict[str, Any] | None = None,
        *,
        timing: ChildTiming = QUICK,
        more_services: dict[type, object] | None = None,
        **plugins: Any,
    ) -> Family:
        children, door = Children(version="0", timing=timing), Door()
        config = {"plugins": {"callTimeoutSeconds": 10, "entries": entries, **plugins}, "channels": {"good": {}, **(channels or {})}}
        services: dict[type, object] = {Ingress: door, **(more_services or {})}
        hosting = make_hosting(home, config, services=services, isolation=children, discovery=strangers_in(home))
        made.append(Family(hosting, children, door))
        await hosting.run()
        return made[-1]

    yield begin
    for family in made:
        await family.hosting.stop(10.0)
        await family.children.close(5.0)
