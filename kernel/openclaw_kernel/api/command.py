"""Chat commands: text that the gateway answers itself, on every channel, out of band."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from openclaw_kernel.api.messages import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandCall:
    """One use of a command. `arguments` is the text after its name, trimmed."""

    session_key: str
    agent_id: str
    arguments: str
    target: Target | None
    sender_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """`/name`; `aliases` are whole-message words without a slash (`stop`). The answer is Markdown; empty means none."""

    name: str
    description: str
    run: Callable[[CommandCall], Awaitable[str]]
    accepts_arguments: bool = False
    aliases: tuple[str, ...] = ()
