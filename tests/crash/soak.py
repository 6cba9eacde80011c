"""Many blocks: points met first, then killed at, one after the other, and a summary of it all."""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from tests.crash.block import Block, Kill, Outcome
from tests.crash.launcher import make_site
from tests.crash.upheaval import Upheaval
from tests.emulators.model_control import EmulatorProcess
from tests.emulators.telegram_control import TelegramEmulator

CYCLES_A_BLOCK = 10
AT_A_POINT = 0.75
GENTLY = 0.2
HITS = (1, 1, 1, 1, 2, 3)
LONGEST_LIFE = 1.2
MOST_FAULTS = 8
"""After so many blocks with violations there is no use in more."""
LONGEST_UPHEAVAL = 5.0
"""A restart takes its trial, its drain and its start."""
PLAIN = "plain"
KINDS: dict[str, Callable[..., Block]] = {PLAIN: Block, "changing": Upheaval, "isolated": partial(Upheaval, isolated=True)}
"""What a block is: people and clients alone; operators besides, who change things; the same with Telegram in a process of its own."""
RECORDING = (Kill(after=1.0), Kill(after=0.3), Kill(after=1.0, gently=True))


@dataclass(slots=True)
class Summary:
    """What came of all blocks."""

    seed: int
    cycles: int = 0
    points: int = 0
    died_at: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    deliveries: Counter[str] = field(default_factory=Counter)
    start_seconds: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    """A text for each block with violations: its number, its folder, how it was killed, what was found."""

    def add(self, block: Block, kills: Sequence[Kill], outcome: Outcome) -> None:
        """Take a block in."""
        self.cycles += outcome.kills
        self.died_at.update(outcome.died_at)
        self.ends.update(outcome.ends)
        self.deliveries.update(outcome.deliveries)
        self.start_seconds += outcome.start_seconds
        if outcome.violations:
            found = "\n".join(f"  - {line}" for line in outcome.violations)
            planned = "\n".join(f"    {number}. {kill}" for number, kill in enumerate(kills, 1))
            where = f"block {block.number} ({type(block).__name__.lower()}), kept in {block.folder}"
            self.faults.append(f"seed {self.seed}, {where}\n{found}\n  killed\n{planned}")

    def __str__(self) -> str:
        starts = sorted(self.start_seconds) or [0.0]
        rows = [
            ("seed", str(self.seed)),
            ("cycles", f"{self.cycles}, of which {self.died_at.total()} died at a point"),
            ("points", f"{self.points} met, {len(self.died_at)} died at"),
            ("accepted", f"{self.ends.total()}: {_counts(self.ends)}"),
            ("deliveries", f"{self.deliveries.total()}: {_counts(self.deliveries)}"),
            ("start to ready", f"median {starts[len(starts) // 2]:.2f} s, longest {starts[-1]:.2f} s"),
            ("violations", str(len(self.faults))),
        ]
        return "\n".join(f"{name:<16}{value}" for name, value in rows)


def _counts(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.most_common())


@dataclass(slots=True)
class Grounds:
    """What all blocks share."""

    folder: Path
    seed: int
    site: str
    telegram: TelegramEmulator
    model: EmulatorProcess

    def points_log(self, kind: str) -> Path:
        """Where every gateway of such blocks writes the points it comes to."""
        return self.folder / f"points-{kind}.log"

    def points(self, kind: str) -> list[str]:
        """The points met so far."""
        return sorted(set(self.points_log(kind).read_text(encoding="utf-8").splitlines()))

    def block(self, number: int, kind: str = PLAIN, **options: Any) -> Block:
        """A block of its own folder and bot."""
        return KINDS[kind](
            self.folder / f"block-{number}",
            number=number,
            seed=self.seed,
            site=self.site,
            telegram_port=self.telegram.port,
            model=self.model,
            points=self.points_log(kind),
            **options,
        )


@asynccontextmanager
async def grounds(folder: Path, seed: int) -> AsyncIterator[Grounds]:
    """Start the emulators."""
    site = make_site(folder / "site")
    async with TelegramEmulator() as telegram, EmulatorProcess("openai", module="tests.crash.model") as model:
        yield Grounds(folder, seed, site, telegram, model)


async def soak(
    folder: Path,
    *,
    seed: int,
    cycles: int,
    workers: int = 2,
    at: str | None = None,
    kinds: Sequence[str] = tuple(KINDS),
    tell: Callable[[str], object] = str,
) -> Summary:
    """Meet the points, then kill so many times; folders of blocks with violations stay.

    `at` is the only point to kill at; `kinds` are those of the blocks, in turn; `tell` is called after each block, with what was found
    in it and how far it is.
    """
    summary = Summary(seed)
    async with grounds(folder, seed) as shared:
        for number, kind in enumerate(kinds):
            tell(await _one(shared, number, kind, RECORDING, summary))
        if summary.faults:
            return summary
        random = Random(seed)  # noqa: S311 - drawn so that it can be drawn again
        points = {kind: iter(_endless(shared, kind, random)) for kind in kinds}
        left = cycles - summary.cycles
        numbers = iter(range(len(kinds), len(kinds) + left + 1))

        async def work() -> None:
            nonlocal left
            while left > 0 and len(summary.faults) < MOST_FAULTS:
                count = min(CYCLES_A_BLOCK, left)
                left -= count
                number = next(numbers)
                kind = kinds[number % len(kinds)]
                kills = [Kill(at, random.choice(HITS)) if at is not None else _kill(random, kind, points[kind]) for _ in range(count)]
                tell(await _one(shared, number, kind, kills, summary))

        await asyncio.gather(*(work() for _ in range(workers)))
        summary.points = sum(len(shared.points(kind)) for kind in kinds)
    return summary


async def _one(shared: Grounds, number: int, kind: str, kills: Sequence[Kill], summary: Summary) -> str:
    block = shared.block(number, kind)
    async with block:
        try:
            outcome = await block.run(kills)
        except Exception as error:  # noqa: BLE001 - a block that cannot go on is a finding, and others go on
            outcome = block.outcome
            outcome.violations.append(f"{type(error).__name__}: {error}")
    summary.add(block, kills, outcome)
    found = ""
    if outcome.violations:
        found = f"{summary.faults[-1]}\n"
    else:
        shutil.rmtree(block.folder)
    return f"{found}{summary.cycles} cycles, {summary.died_at.total()} died at a point, {len(summary.faults)} blocks with violations"


def _kill(random: Random, kind: str, points: Iterator[str]) -> Kill:
    if random.random() < AT_A_POINT:
        return Kill(next(points), random.choice(HITS))
    longest = LONGEST_LIFE if kind == PLAIN else LONGEST_UPHEAVAL
    return Kill(after=random.uniform(0.0, longest), gently=random.random() < GENTLY)


def _endless(shared: Grounds, kind: str, random: Random) -> Iterator[str]:
    """Every point in a drawn order, then again with those that were met meanwhile."""
    while True:
        points = shared.points(kind)
        random.shuffle(points)
        yield from points
