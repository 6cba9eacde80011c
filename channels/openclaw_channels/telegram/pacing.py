"""The times of the channel, and the chats Telegram wants silence in."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final

CHATS_REMEMBERED: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Pacing:
    """All waits, in seconds."""

    call: float = 20.0
    """Longest any one call may take, the request for updates apart."""
    send_budget: float = 20.0
    """After this a long message leaves its further parts to the next attempt: the gateway waits a minute for a send."""
    short_silence: float = 5.0
    """A silence between two parts that is waited out at once."""
    poll_margin: float = 15.0
    """How much longer than its own timeout a request for updates may take before it is given up."""
    first_outcome: float = 3.0
    """How long the start waits to learn whether the bots can be reached."""
    retry_first: float = 1.0
    retry_longest: float = 60.0
    conflict_first: float = 5.0
    """After a 409: somebody else reads this bot's updates."""
    conflict_longest: float = 300.0
    peek: float = 1.0
    """While the files of a message load for longer than this, it is looked whether somebody says stop."""
    album: float = 0.7
    """How long to wait for the rest of an album."""
    webhook_check: float = 60.0
    typing: float = 4.5
    """Telegram shows the typing indicator for five seconds."""
    draft_first: float = 1.0
    """How long a short beginning waits for more before it is shown."""
    draft_direct: float = 1.1
    draft_group: float = 3.2
    """Between two edits; Telegram lets a bot write 20 messages a minute in a group."""
    draft_longest: float = 15.0
    draft_settle: float = 5.0
    """How long the answer waits for the last edit of its draft."""


@dataclass(slots=True)
class Quiet:
    """Until when a chat is to be left alone, after a 429, and until when the bot is to be silent altogether.

    Telegram does not say which of its limits was met: two chats that want silence at once mean that the bot writes too much.
    """

    _until: dict[int, float] = field(default_factory=dict)
    _bot_until: float = 0.0

    def ask(self, chat: int, seconds: float) -> None:
        """Remember that Telegram wants `seconds` of silence in a chat."""
        now = asyncio.get_running_loop().time()
        if len(self._until) >= CHATS_REMEMBERED:
            self._until = {known: until for known, until in self._until.items() if until > now}
        self._until[chat] = max(self._until.get(chat, 0.0), now + seconds)
        if any(until > now for other, until in self._until.items() if other != chat):
            self._bot_until = max(self._bot_until, now + seconds)

    @property
    def whole_bot(self) -> bool:
        """Tell whether nothing is to be written in any chat."""
        return self._bot_until > asyncio.get_running_loop().time()

    def left(self, chat: int) -> float:
        """Return how many seconds of silence are left."""
        now = asyncio.get_running_loop().time()
        until = self._until.get(chat, 0.0)
        if until <= now:
            self._until.pop(chat, None)
        return max(0.0, until - now, self._bot_until - now)


def doubled(pause: float, longest: float) -> float:
    """Return the next pause of a back-off."""
    return min(pause * 2, longest)
