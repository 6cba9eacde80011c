"""What model calls take and cost. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from openclaw_kernel.api import ModelInfo, Usage

_MILLION = 1_000_000


def cost_usd(info: ModelInfo, usage: Usage) -> float | None:
    """Return US dollars: what the provider states, else by the model's prices; None where a price needed is unknown."""
    if usage.cost_usd is not None:
        return usage.cost_usd
    priced = (
        (usage.input_tokens, info.input_price),
        (usage.output_tokens, info.output_price),
        (usage.cache_read_tokens, info.cache_read_price),
        (usage.cache_write_tokens, info.cache_write_price),
    )
    total = 0.0
    for tokens, price in priced:
        if tokens and price is None:
            return None
        total += tokens * (price or 0.0)
    return total / _MILLION


def sum_usage(usages: Iterable[Usage]) -> Usage:
    """Add up tokens; the stated costs are not carried over, see `cost_usd`."""
    listed = list(usages)
    return Usage(
        input_tokens=sum(usage.input_tokens for usage in listed),
        output_tokens=sum(usage.output_tokens for usage in listed),
        cache_read_tokens=sum(usage.cache_read_tokens for usage in listed),
        cache_write_tokens=sum(usage.cache_write_tokens for usage in listed),
    )


def sum_costs(costs: Iterable[float | None]) -> float | None:
    """Add up costs; None where one of them is unknown, or there is none."""
    listed = list(costs)
    known = [cost for cost in listed if cost is not None]
    return sum(known) if known and len(known) == len(listed) else None


def usage_json(usage: Usage, cost: float | None) -> dict[str, Any]:
    """Return the usage of one call as the transcript keeps it."""
    wire: dict[str, Any] = {
        "input": usage.input_tokens,
        "output": usage.output_tokens,
        "cacheRead": usage.cache_read_tokens,
        "cacheWrite": usage.cache_write_tokens,
        "totalTokens": usage.input_tokens + usage.output_tokens + usage.cache_read_tokens + usage.cache_write_tokens,
    }
    if cost is not None:
        wire["cost"] = {"total": cost}
    return wire
