"""The loop's delays as figures: a pause counts for as long as it lasted, and who kept the loop is named."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from openclaw_kernel.api import PluginState
from openclaw_kernel.host.lag import LagMeter
from tests.kernel.host.distributions import Distributions
from tests.kernel.host.hosting import Hosting


class Clock:
    def __init__(self) -> None:
        self.seconds = 1_000.0

    def __call__(self) -> float:
        return self.seconds

    def now_ms(self) -> int:
        return round(self.seconds * 1000)


def test_the_figures_are_the_quantiles_of_the_last_minute() -> None:
    clock = Clock()
    meter = LagMeter(0.25, clock, clock.now_ms)
    assert (meter.figures().samples, meter.figures().p99_ms, meter.figures().max_ms) == (0, 0.0, 0.0)
    meter.add(5.0)
    clock.seconds += 61
    for number in range(1, 101):
        meter.add(number / 1000)
    lag = meter.figures()
    assert (lag.samples, lag.p50_ms, lag.p99_ms, lag.max_ms) == (100, 50.0, 99.0, 100.0)


def test_a_pause_counts_for_as_many_ticks_as_it_kept_from_coming() -> None:
    clock = Clock()
    meter = LagMeter(0.25, clock, clock.now_ms)
    for _ in range(90):
        meter.add(0.001)
    meter.add(2.0)
    lag = meter.figures()
    # One late tick among ninety would be no figure of the p99; two seconds without any are.
    assert lag.samples == 99
    assert lag.max_ms == 2000.0
    assert lag.p99_ms >= 1750.0
    assert lag.p50_ms == 1.0


def test_the_blocks_of_a_time_are_those_of_which_a_part_lies_in_it() -> None:
    clock = Clock()
    meter = LagMeter(0.25, clock, clock.now_ms)
    meter.block("bells", "x.py:1", 2.0)
    ended = clock.now_ms()
    assert [block.plugin_id for block in meter.blocks(ended - 1500, ended - 1000)] == ["bells"]
    assert [block.plugin_id for block in meter.blocks(ended - 10_000, ended - 2001)] == []
    assert [block.plugin_id for block in meter.blocks(ended + 1, ended + 5)] == []
    assert meter.figures().blocks[0].seconds == 2.0
    clock.seconds += 61
    assert meter.figures().blocks == ()
    assert len(meter.blocks(0, clock.now_ms())) == 1


def test_it_keeps_so_much_and_no_more() -> None:
    clock = Clock()
    meter = LagMeter(0.001, clock, clock.now_ms)
    for _ in range(5_000):
        meter.add(0.5)
        meter.block(None, "x", 1.0)
    assert meter.figures().samples == 2_000
    assert len(meter.figures().blocks) == 200


def test_what_the_loop_and_the_process_compute_is_a_share_of_the_time() -> None:
    clock = Clock()
    spent = iter([(0.0, 0.0), (1.0, 4.0)])
    meter = LagMeter(0.25, clock, clock.now_ms, lambda: next(spent))
    meter.add(0.0)
    assert (meter.figures().loop_share, meter.figures().process_share) == (0.0, 0.0)
    clock.seconds += 2
    meter.add(0.0)
    assert (meter.figures().loop_share, meter.figures().process_share) == (0.5, 2.0)


BLOCKER = """
class Unit:
    async def start(self):
        time.sleep(0.3)

    async def stop(self):
        pass

class ThePlugin:
    settings = None
    def __init__(self, context): ...

    @hookimpl
    def openclaw_register_services(self, registrar):
        registrar.add_unit(Unit())
"""


async def test_a_plugin_that_blocks_the_loop_is_in_the_figures_and_told_what_cures_it(
    good: Distributions, hosting: Callable[..., Hosting]
) -> None:
    good.add("blocker", BLOCKER)
    made = hosting()
    begun = time.time_ns() // 1_000_000
    await made.run()
    await made.wait_until(lambda: "blocked the event loop" in made.reason("blocker"))
    assert made.state("blocker") is PluginState.DEGRADED
    assert "or set plugins.entries.blocker.isolation: process" in made.reason("blocker")
    (block,) = made.host.lag.blocks(begun, begun + 60_000)
    assert block.plugin_id == "blocker"
    assert block.seconds == pytest.approx(0.3, abs=0.2)
    assert made.host.lag.figures().max_ms >= 200
