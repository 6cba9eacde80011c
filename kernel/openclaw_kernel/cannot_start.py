"""Why a gateway does not start, in words for who started it."""

from __future__ import annotations

from openclaw_config.load import Loaded


class CannotStart(Exception):
    """The gateway cannot start; the message is one line that names the place and the cure. `status` is the exit code."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def faulty(loaded: Loaded, key: str, found: str, cure: str, *, status: int = 78) -> CannotStart:
    """A start that a key of the configuration keeps from happening; names its file and line."""
    return CannotStart(str(loaded.issue(key, found, cure)), status)
