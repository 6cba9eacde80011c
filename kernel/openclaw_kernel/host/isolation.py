"""Where the host leaves a plugin to a process of its own, and what that process may do to the plugin's state in turn."""

from __future__ import annotations

from typing import Protocol

from openclaw_kernel.api.plugin import PluginContext
from openclaw_kernel.host.discovery import Found
from openclaw_kernel.host.sections import Share


class ChildFailed(Exception):
    """A child cannot be started, or answered something else than it should; the message says what, with the cure."""


class GivenUp(ChildFailed):
    """It ended too often to be started again by itself."""


class Hold(Protocol):
    """The plugin's units, providers and channels as the host drives them."""

    def lose(self, reason: str, *, final: bool) -> None:
        """Say that all that runs of them does not any more; `final`: nothing will bring it back by itself."""

    async def regain(self) -> None:
        """Start those again that were lost."""


class LateHold:
    """A hold on a plugin that is only known as a whole once it is loaded."""

    def __init__(self) -> None:
        self.hold: Hold | None = None

    def bind(self, hold: Hold) -> None:
        """Take the plugin."""
        self.hold = hold

    def lose(self, reason: str, *, final: bool) -> None:
        """Pass it on; before there is a plugin nothing of it runs that could be lost."""
        if self.hold is not None:
            self.hold.lose(reason, final=final)

    async def regain(self) -> None:
        """Pass it on."""
        if self.hold is not None:
            await self.hold.regain()


class Isolation(Protocol):
    """Makes what stands in the host for a plugin whose code runs elsewhere."""

    async def build(self, found: Found, context: PluginContext, share: Share, hold: Hold) -> object:
        """Start the process and return a plugin: an object with hook implementations, which register its proxies.

        Raises:
            ChildFailed: it cannot be started.
            ConfigRejected: the process does not take its settings.
        """
        ...

    def discard(self, plugin_id: str) -> None:
        """End the process of a plugin that failed while it was loaded."""
