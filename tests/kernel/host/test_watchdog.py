"""The watchdog names who blocks the loop; off the main thread it does no more than that."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
import time
import types

import pytest

from openclaw_kernel.host.guard import PluginBlockedLoop
from openclaw_kernel.host.watchdog import Block, LoopWatchdog

SOURCE = """
import time

def block(seconds):
    time.sleep(seconds)

def call(function):
    return function()

def repeat(function):
    while True:
        function()
"""


def plugin_module(name: str) -> types.ModuleType:
    module = types.ModuleType(name)
    exec(SOURCE, module.__dict__)  # noqa: S102 - code that lies in a plugin's package
    return module


BELLS = plugin_module("acme_bells.runtime")


class Watched:
    """A watchdog and what it told of."""

    def __init__(self, *, interrupt_after: float) -> None:
        self.blocks: list[Block] = []
        self.told = asyncio.Event()
        self.watchdog = LoopWatchdog({"acme_bells": "bells"}, self.note, noticed_after=0.05, interrupt_after=interrupt_after)

    def note(self, block: Block) -> None:
        self.blocks.append(block)
        self.told.set()


async def test_a_block_is_told_with_its_plugin_place_and_time() -> None:
    watched = Watched(interrupt_after=60)
    watched.watchdog.start()
    BELLS.block(0.3)
    await asyncio.wait_for(watched.told.wait(), 5)
    watched.watchdog.stop()
    (block,) = watched.blocks
    assert block.plugin_id == "bells"
    assert block.seconds >= 0.2
    assert block.place.startswith("<string>:")


async def test_a_block_by_the_kernel_is_told_of_nobody_and_not_broken_off() -> None:
    watched = Watched(interrupt_after=0.1)
    watched.watchdog.start()
    time.sleep(0.4)  # noqa: ASYNC251 - what it is about
    await asyncio.wait_for(watched.told.wait(), 5)
    watched.watchdog.stop()
    assert [block.plugin_id for block in watched.blocks] == [None]


async def test_the_innermost_plugin_on_the_stack_is_broken_off() -> None:
    watched = Watched(interrupt_after=0.1)
    watched.watchdog.start()
    other = plugin_module("acme_other.runtime")
    with pytest.raises(PluginBlockedLoop) as raised:
        other.call(lambda: BELLS.block(30))
    assert raised.value.plugin_id == "bells"
    watched.watchdog.stop()


async def test_a_loop_that_only_waits_is_not_blocked() -> None:
    watched = Watched(interrupt_after=0.1)
    watched.watchdog.start()
    await asyncio.sleep(0.4)
    watched.watchdog.stop()
    assert watched.watchdog.blocks == 0


async def test_stopping_gives_the_signal_back() -> None:
    before = signal.getsignal(signal.SIGURG)
    watched = Watched(interrupt_after=0.1)
    watched.watchdog.start()
    assert signal.getsignal(signal.SIGURG) != before
    watched.watchdog.stop()
    assert signal.getsignal(signal.SIGURG) == before


def test_off_the_main_thread_a_block_is_named_and_left_alone() -> None:
    found: list[Block] = []

    async def body() -> None:
        watched = Watched(interrupt_after=0.1)
        watched.watchdog.start()
        BELLS.block(0.5)
        await asyncio.wait_for(watched.told.wait(), 5)
        watched.watchdog.stop()
        found.extend(watched.blocks)

    thread = threading.Thread(target=lambda: asyncio.run(body()))
    thread.start()
    thread.join()
    assert [block.plugin_id for block in found] == ["bells"]
    assert found[0].seconds >= 0.4


async def test_a_signal_of_another_hurts_nobody() -> None:
    watched = Watched(interrupt_after=60)
    watched.watchdog.start()
    BELLS.call(lambda: signal.raise_signal(signal.SIGURG))
    watched.watchdog.stop()
    assert "acme_bells" not in sys.modules


async def test_of_many_quick_callbacks_none_is_broken_off() -> None:
    watched = Watched(interrupt_after=0.3)
    watched.watchdog.start()
    ended: list[int] = []

    def callback(number: int) -> None:
        BELLS.block(0.02)
        ended.append(number)

    loop = asyncio.get_running_loop()
    for number in range(50):
        loop.call_soon(callback, number)
    await asyncio.wait_for(watched.told.wait(), 5)
    watched.watchdog.stop()
    assert ended == list(range(50))
    assert watched.blocks[0].seconds >= 0.8


async def test_the_kernel_is_spared_for_a_while_when_it_works_for_a_plugin() -> None:
    kernel = plugin_module("openclaw_kernel.something")
    watched = Watched(interrupt_after=0.5)
    watched.watchdog.start()
    BELLS.call(lambda: kernel.block(0.8))
    await asyncio.wait_for(watched.told.wait(), 5)
    assert watched.blocks[0].plugin_id == "bells"
    with pytest.raises(PluginBlockedLoop):
        BELLS.call(lambda: kernel.block(30))
    watched.watchdog.stop()


async def test_a_plugin_that_calls_the_kernel_without_end_is_broken_off() -> None:
    kernel = plugin_module("openclaw_kernel.something")
    watched = Watched(interrupt_after=0.1)
    watched.watchdog.start()
    with pytest.raises(PluginBlockedLoop):
        BELLS.repeat(lambda: kernel.block(0.001))
    watched.watchdog.stop()
