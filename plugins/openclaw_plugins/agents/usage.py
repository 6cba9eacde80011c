"""The usage report: model steps summed by day. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta, tzinfo
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


def daily_totals(rows: Iterable[Mapping[str, Any]], *, first: date, last: date, zone: tzinfo = UTC) -> tuple[list[Day], Totals]:
    """Return one entry for each day with a call, oldest first, and the sum; rows are those of `Sessions.usage_rows`."""
    days: dict[date, Day] = {}
    totals = _nothing()
    for row in rows:
        day = datetime.fromtimestamp(row["startedMs"] / 1000, zone).date()
        if not first <= day <= last:
            continue
        entry = days.setdefault(day, {"date": day.isoformat(), **_nothing()})
        _add(entry, row)
        _add(totals, row)
    return [days[day] for day in sorted(days)], totals


def window_ms(first: date, last: date, zone: tzinfo) -> tuple[int, int]:
    """Return the Unix milliseconds at which the first day begins and the last one ends."""
    start = datetime(first.year, first.month, first.day, tzinfo=zone)
    after = last + timedelta(days=1)
    end = datetime(after.year, after.month, after.day, tzinfo=zone)
    return int(start.timestamp() * 1000), int(end.timestamp() * 1000)


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
