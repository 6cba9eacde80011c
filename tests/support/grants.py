"""Writes docs/reference/grants.md: every method and every event, and who may have it, from what is registered in a running gateway."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from openclaw_kernel.api import EventSpec, Method, Scope, effective_scopes
from openclaw_kernel.protocol.events import EventRegistry
from openclaw_kernel.protocol.registry import MethodRegistry, authorize

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "reference" / "grants.md"

CALLERS: Final = {
    "node": ("node", frozenset[str]()),
    "no scope": ("operator", frozenset[str]()),
    **{scope.value.removeprefix("operator."): ("operator", effective_scopes([scope.value])) for scope in Scope},
}
"""Who is looked at: a node, an operator without scopes, and operators with one scope each. Role and what it amounts to."""

BEGINNING: Final = """# Who may what

<!-- Made by `make docs`; what is changed here is overwritten. -->

What a connection may call and hears, by its role and for operators by scope; `x` is yes. A column with a scope is an operator who has
that one alone; several add up. Before `hello-ok` nothing can be called but `connect`, and nothing is heard but `connect.challenge`.
Some methods ask for more by their params: see [protocol.md](protocol.md).
"""


def page(methods: Iterable[Method], events: EventRegistry) -> str:
    """The whole page."""
    head = f"| {' | '.join(CALLERS)} |"
    rule = "| --- " * (len(CALLERS) + 1) + "|"
    called = [line(method.name, (authorize(method, method.name, *caller) is None for caller in CALLERS.values())) for method in methods]
    heard = [line(spec.name, (hears(spec, *caller) for caller in CALLERS.values())) for spec in events.all()]
    return "\n".join([BEGINNING, f"| method {head}", rule, *called, "", f"| event {head}", rule, *heard, ""])


def hears(spec: EventSpec, role: str, scopes: frozenset[str]) -> bool:
    """Whether a connection is told of an event."""
    return not isinstance(spec.scope, Scope) or (role == "operator" and spec.scope.value in scopes)


def line(name: str, may: Iterable[bool]) -> str:
    """A line of the table."""
    return f"| {name} | {' | '.join('x' if allowed else ' ' for allowed in may)} |"


def read(text: str) -> tuple[dict[str, set[str]], dict[str, set[str]]]:
    """The callers of each method and of each event, as a page says."""
    tables: list[dict[str, set[str]]] = []
    for row in text.splitlines():
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        if cells[0] in {"method", "event"}:
            tables.append({})
        elif row.startswith("| ") and not row.startswith("| ---"):
            tables[-1][cells[0]] = {caller for caller, cell in zip(CALLERS, cells[1:], strict=True) if cell == "x"}
    methods, events = tables
    return methods, events


def registered(registry: MethodRegistry, packages: tuple[str, ...]) -> list[Method]:
    """The methods whose handlers are in these packages."""
    return [method for method in registry.all() if str(getattr(method.handler, "__module__", "")).startswith(packages)]
