"""`run` and signals: during the start, and when asked twice."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from openclaw_kernel.lock import StateLock
from tests.support.gateway import GatewayFailed, StartGateway

# The plugin host with one step that hangs, put in its place when Python starts.
SLOW = """
import asyncio, sys
import openclaw_kernel.host.host as host
class Slow(host.PluginHost):
    async def {method}(self, *arguments):
        print("{method} begun", file=sys.stderr, flush=True)
        await asyncio.sleep(60)
host.PluginHost.{method} = Slow.{method}
"""


def slowed(folder: Path, method: str) -> dict[str, str]:
    """An environment in which one step of the plugin host hangs."""
    (folder / "sitecustomize.py").write_text(SLOW.format(method=method))
    return {"PYTHONPATH": str(folder)}


@pytest.mark.parametrize("method", ["load", "start"])
async def test_sigterm_during_the_start_ends_it_and_leaves_nothing(start_gateway: StartGateway, tmp_path: Path, method: str) -> None:
    gateway = await start_gateway(env=slowed(tmp_path, method), wait=False)
    await gateway.wait_line(f"{method} begun")
    gateway.process.send_signal(signal.SIGTERM)
    assert await gateway.wait_ended(deadline=10) == 0
    assert not gateway.ready
    lock = StateLock(gateway.home)
    lock.acquire()
    lock.release()


async def test_a_second_interrupt_ends_a_stop_that_takes_long(start_gateway: StartGateway, tmp_path: Path) -> None:
    gateway = await start_gateway(env=slowed(tmp_path, "stop"))
    gateway.process.send_signal(signal.SIGINT)
    await gateway.wait_line("stop begun")
    gateway.process.send_signal(signal.SIGINT)
    assert await gateway.wait_ended(deadline=10) == -signal.SIGINT


async def test_one_interrupt_is_a_stop_like_any_other(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    gateway.process.send_signal(signal.SIGINT)
    assert await gateway.wait_ended() == 0


async def test_a_second_gateway_in_the_same_instant_names_the_first(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    seconds = [await start_gateway(home=gateway.home, config=gateway.config, wait=False) for _ in range(2)]
    for second in seconds:
        assert await second.wait_ended() == 0
        assert any(line.record.get("event") == "already-running" and gateway.url in line.text for line in second.lines)
    assert gateway.is_running


async def test_a_failed_start_leaves_the_folder_free(start_gateway: StartGateway, tmp_path: Path) -> None:
    with pytest.raises(GatewayFailed, match="ended with 78"):
        await start_gateway({"gateway": {"auth": {"mode": "password", "token": None}}}, home=tmp_path / "home")
    lock = StateLock(tmp_path / "home")
    await asyncio.to_thread(lock.acquire)
    lock.release()
