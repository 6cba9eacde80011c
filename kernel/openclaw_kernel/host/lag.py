"""How late the event loop runs what is due, and who kept it: figures over the last minute, blocks of the last while."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from openclaw_kernel.api.services import LoopBlock, LoopLag

WINDOW_SECONDS: Final = 60.0
MOST_SAMPLES: Final = 2_000
MOST_BLOCKS: Final = 200


Used = tuple[float, float]
"""Seconds that the calling thread and the whole process have computed."""


def used() -> Used:
    """Return what was used so far."""
    return time.thread_time(), time.process_time()


class LagMeter:
    """Takes a delay every `interval` seconds, on the loop's thread; while one lasts none is taken, and what is missing is made up for."""

    def __init__(self, interval: float, clock: Callable[[], float], now_ms: Callable[[], int], used: Callable[[], Used] = used) -> None:
        self._used = used
        self._usages: deque[tuple[float, Used]] = deque(maxlen=MOST_SAMPLES)
        self._interval = interval
        self._clock = clock
        self._now_ms = now_ms
        self._samples: deque[tuple[float, float]] = deque(maxlen=MOST_SAMPLES)
        self._blocks: deque[LoopBlock] = deque(maxlen=MOST_BLOCKS)

    def add(self, delay: float) -> None:
        """Take a delay in seconds, of which each interval within it would have been a sample of its own."""
        now = self._clock()
        self._usages.append((now, self._used()))
        self._samples.append((now, max(0.0, delay)))
        # A pause of seconds is one late tick, and as many callbacks that were late as would have fallen into it.
        missing = min(int(delay / self._interval), MOST_SAMPLES)
        self._samples.extend((now, delay - number * self._interval) for number in range(1, missing + 1))

    def block(self, plugin_id: str | None, place: str, seconds: float) -> None:
        """Take a block that has ended just now."""
        self._blocks.append(LoopBlock(plugin_id=plugin_id, place=place, seconds=seconds, ended_ms=self._now_ms()))

    def blocks(self, since_ms: int, until_ms: int) -> list[LoopBlock]:
        """Return the blocks of which a part lies in this time, oldest first."""
        return [one for one in self._blocks if one.ended_ms >= since_ms and one.ended_ms - one.seconds * 1000 <= until_ms]

    def figures(self) -> LoopLag:
        """Return the delays of the last minute."""
        oldest = self._clock() - WINDOW_SECONDS
        delays = sorted(delay for at, delay in self._samples if at >= oldest)
        loop_share, process_share = self._shares(oldest)
        now = self._now_ms()
        recent = self.blocks(now - round(WINDOW_SECONDS * 1000), now)
        return LoopLag(
            window_seconds=WINDOW_SECONDS,
            interval_ms=self._interval * 1000,
            samples=len(delays),
            p50_ms=_quantile(delays, 0.5) * 1000,
            p99_ms=_quantile(delays, 0.99) * 1000,
            max_ms=(delays[-1] if delays else 0.0) * 1000,
            loop_share=min(1.0, loop_share),
            process_share=process_share,
            blocks=tuple(recent),
        )

    def _shares(self, oldest: float) -> Used:
        usages = [usage for usage in self._usages if usage[0] >= oldest]
        if len(usages) < 2:  # noqa: PLR2004 - a span has two ends
            return 0.0, 0.0
        (begun, (thread, process)), (ended, (thread_then, process_then)) = usages[0], usages[-1]
        span = max(ended - begun, self._interval)
        return (thread_then - thread) / span, (process_then - process) / span


def _quantile(ordered: list[float], share: float) -> float:
    return ordered[math.ceil(share * len(ordered)) - 1] if ordered else 0.0
