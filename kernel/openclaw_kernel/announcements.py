"""What the gateway tells its clients of itself by its own accord: who is present, how it is, and that time passes."""

from __future__ import annotations

import asyncio
from typing import Final

from openclaw_kernel.bus import EventBus
from openclaw_kernel.gateway import GatewayFacts
from openclaw_kernel.presence import PresenceBook
from openclaw_kernel.protocol.frames import EventFrame, dumps

DELAY_SECONDS: Final = 0.1
"""Many come and go together after a restart; they are told of each other once."""


class Announcements:
    """The events presence, health, plugins.changed and tick; `close` when nobody is there to be told any more."""

    def __init__(self, bus: EventBus, facts: GatewayFacts, presence: PresenceBook) -> None:
        self._bus = bus
        self._facts = facts
        self._presence = presence
        self._presence_timer: asyncio.TimerHandle | None = None
        self._health_timer: asyncio.TimerHandle | None = None
        self._plugins_timer: asyncio.TimerHandle | None = None

    def presence_soon(self) -> None:
        """Tell who is present, with all that changes in the same moment."""
        if self._presence_timer is None:
            self._presence_timer = asyncio.get_running_loop().call_later(DELAY_SECONDS, self._tell_presence)

    def health_soon(self) -> None:
        """Tell how the gateway is, with all that changes in the same moment."""
        if self._health_timer is None:
            self._health_timer = asyncio.get_running_loop().call_later(DELAY_SECONDS, self.health)

    def plugins_soon(self) -> None:
        """Tell that plugins changed, once for all that do in the same moment."""
        if self._plugins_timer is None:
            self._plugins_timer = asyncio.get_running_loop().call_later(DELAY_SECONDS, self._tell_plugins)

    def health(self) -> None:
        """Look how the gateway is, and tell."""
        self._health_timer = None
        health = self._facts.refresh_health()
        self._facts.health_version += 1
        self._bus.publish(EventFrame("health", dumps(health), state_version=dumps(self._facts.state_version())))

    def tick(self, now_ms: int) -> None:
        """Tell that the connection lives."""
        self._bus.publish(EventFrame("tick", b'{"ts":%d}' % now_ms))

    def close(self) -> None:
        """Tell nothing more."""
        for timer in (self._presence_timer, self._health_timer, self._plugins_timer):
            if timer is not None:
                timer.cancel()

    def _tell_plugins(self) -> None:
        self._plugins_timer = None
        states = {plugin.id: plugin.state.value for plugin in self._facts.plugins()}
        self._bus.publish(EventFrame("plugins.changed", dumps({"plugins": states})))

    def _tell_presence(self) -> None:
        self._presence_timer = None
        payload = b'{"presence":%b}' % self._presence.json()
        self._bus.publish(EventFrame("presence", payload, state_version=dumps(self._facts.state_version())))
