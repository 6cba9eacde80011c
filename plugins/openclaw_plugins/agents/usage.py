"""The usage report: model steps summed by day. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, datetime, timedelta, tzinfo
from typing import Any

from typing_extensions import TypedDict


class Totals(TypedDict):
    input: int
    output: int
    cacheRead: int
    cacheWrite: int
    totalTokens: int
    totalCost: float
    missingCostEntries: int
    """How many calls have no known price; their cost is not in `totalCost`."""


class Day(Totals):
    date: str


class UsageReport:
    """Sums of days, oldest first, and their total; days without a call are left out."""

    def __init__(self) -> None:
        self.daily: list[Day] = []
        self.totals: Totals = _nothing()

    def add(self, day: date, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add the calls of the next day; rows are those of `Sessions.usage_rows`."""
        entry: Day = {"date": day.isoformat(), **_nothing()}
        called = False
        for row in rows:
            called = True
            _add(entry, row)
            _add(self.totals, row)
        if called:
            self.daily.append(entry)


def day_ms(day: date, zone: tzinfo | None) -> tuple[int, int]:
    """Return the Unix milliseconds at which a day begins and ends; None is the zone of this machine."""
    start, end = (datetime(one.year, one.month, one.day, tzinfo=zone).timestamp() for one in (day, day + timedelta(days=1)))
    return int(start * 1000), int(end * 1000)


def _nothing() -> Totals:
    return {
        "input": 0,
        "output": 0,
        "cacheRead": 0,
        "cacheWrite": 0,
        "totalTokens": 0,
        "totalCost": 0.0,
        "missingCostEntries": 0,
    }


def _add(totals: Totals, row: Mapping[str, Any]) -> None:
    tokens = [int(row[name] or 0) for name in ("input", "output", "cacheRead", "cacheWrite")]
    totals["input"] += tokens[0]
    totals["output"] += tokens[1]
    totals["cacheRead"] += tokens[2]
    totals["cacheWrite"] += tokens[3]
    totals["totalTokens"] += sum(tokens)
    if row["costUsd"] is None:
        totals["missingCostEntries"] += 1
    else:
        totals["totalCost"] += row["costUsd"]
