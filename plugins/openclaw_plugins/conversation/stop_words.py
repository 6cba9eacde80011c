"""The words that stop a turn."""

from __future__ import annotations

import re
from typing import Final

STOP_WORDS: Final = (
    "stop",
    "esc",
    "abort",
    "wait",
    "exit",
    "interrupt",
    "please stop",
    "stop please",
    "stop now",
    "stop it",
    "stop run",
    "stop agent",
    "stop the agent",
    "stop action",
    "stop everything",
    "do not do that",
)
LONGEST_STOP: Final = 64
_STOP: Final = frozenset(STOP_WORDS)
_EDGES: Final = re.compile(r"^[\s\"'`]+|[\s\"'`.!?,;:…]+$")


def is_stop(text: str) -> bool:
    """Tell whether a whole message asks to stop: a stop word, or `/stop`."""
    if len(text) > LONGEST_STOP:
        return False
    words = " ".join(_EDGES.sub("", text).lower().split())
    name, _, bot = words.partition("@")
    return words in _STOP or (name == "/stop" and " " not in bot)
