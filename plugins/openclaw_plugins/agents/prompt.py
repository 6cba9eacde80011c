"""The system prompt, from parts that change seldom to parts that change often, so that providers can cache its beginning. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from openclaw_plugins.agents.workspace import STARTER_FILES, WorkspaceText

_NOTE: Final = "\n[the rest of {name} is left out: over {limit} characters]"


def system_prompt(
    *,
    name: str | None,
    workspace: WorkspaceText,
    file_chars: int,
    total_chars: int,
    tools: bool,
    channel: str | None,
    now: datetime,
    extra: str | None,
) -> str:
    """Join the parts: who the agent is, its files in a fixed order, the channel, the caller's words, the hour.

    The hour comes last and without minutes, so that a conversation keeps its cached prompt. `TOOLS.md` is left out where
    the model gets no tools.
    """
    parts = [f"You are {name}, a personal assistant." if name else "You are a helpful personal assistant."]
    left = total_chars
    for file_name in STARTER_FILES:
        text = workspace.texts.get(file_name, "")
        if not text or (file_name == "TOOLS.md" and not tools):
            continue
        limit = min(file_chars, left)
        left -= min(len(text), limit)
        parts.append(text if len(text) <= limit else text[:limit] + _NOTE.format(name=file_name, limit=limit))
    if channel:
        parts.append(f"The conversation takes place on {channel}.")
    if extra and extra.strip():
        parts.append(extra.strip())
    parts.append(f"It is {now:%A}, {now.day} {now:%B %Y}, after {now:%H}:00 ({now.tzname() or 'UTC'}).")
    return "\n\n".join(parts)
