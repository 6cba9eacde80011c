"""What a plugin does wrong while it runs is shown for a while after the last time, and no longer."""

from __future__ import annotations

import asyncio
from importlib.metadata import EntryPoint

from openclaw_kernel.api import PluginState, PluginStatus
from openclaw_kernel.host.discovery import Found
from openclaw_kernel.host.faults import Faults
from openclaw_kernel.host.guard import PluginFault
from openclaw_kernel.host.lag import LagMeter
from openclaw_kernel.host.state import Standing
from openclaw_kernel.host.timing import Timing

SHOWN_SECONDS = 0.2
FOUND = Found(
    id="desk",
    kind="plugin",
    distribution="acme-desk",
    version="1.0",
    bundled=False,
    entry_point=EntryPoint("desk", "acme_desk.plugin:ThePlugin", "openclaw.plugins"),
    manifest=None,
    state="discovered",
)
FAULT = PluginFault("desk", "hook", "raised ValueError: x", "update it")


async def test_a_fault_that_is_repeated_is_over_a_while_after_the_last_time() -> None:
    loop = asyncio.get_running_loop()
    over, told_last = asyncio.Event(), 0.0

    def changed(status: PluginStatus) -> None:
        if status.state is PluginState.STARTED and told_last:
            over.set()

    def tell_again() -> None:
        nonlocal told_last
        told_last = loop.time()
        faults.report(FAULT)

    standing = Standing(FOUND, changed, lambda: 0)
    standing.become(PluginState.STARTED)
    faults = Faults({"desk": standing}.get, Timing(fault_shown=SHOWN_SECONDS), LagMeter(0.1, loop.time, lambda: 0))
    faults.report(FAULT)
    assert (standing.state, standing.reason) == (PluginState.DEGRADED, "hook raised ValueError: x; update it")
    loop.call_later(SHOWN_SECONDS / 2, tell_again)

    async with asyncio.timeout(30):
        await over.wait()

    assert loop.time() - told_last >= SHOWN_SECONDS


async def test_a_fault_of_a_plugin_that_is_gone_is_told_to_nobody() -> None:
    nobody: dict[str, Standing] = {}
    Faults(nobody.get, Timing(), LagMeter(0.1, asyncio.get_running_loop().time, lambda: 0)).report(FAULT)
