"""Accounts that a platform wants silence from."""

from __future__ import annotations

from typing import Final

from openclaw_kernel.api import Target

REMEMBERED: Final = 1024


class Pauses:
    """Until when nothing is sent over an account. Times are Unix milliseconds."""

    def __init__(self) -> None:
        self._until: dict[tuple[str, str], int] = {}

    def ask(self, target: Target, until_ms: int, now_ms: int) -> None:
        """Send nothing over the account of a place before a time; a shorter pause does not end a longer one."""
        if len(self._until) >= REMEMBERED:
            self._until = {account: until for account, until in self._until.items() if until > now_ms}
        account = (target.channel, target.account_id)
        self._until[account] = max(until_ms, self._until.get(account, 0))

    def until(self, target: Target) -> int:
        """Return when the account of a place may be used again; a time that is past means now."""
        return self._until.get((target.channel, target.account_id), 0)

    def set_back(self, milliseconds: int) -> None:
        """Keep the pauses as long as they are where the clock was set back."""
        self._until = {account: until - milliseconds for account, until in self._until.items()}
