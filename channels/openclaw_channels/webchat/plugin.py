"""The webchat plugin: a channel whose deliveries are the `chat` events themselves, and the page that shows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from openclaw_channels.webchat.page import PageRoutes
from openclaw_channels.webchat.settings import WebchatSettings
from openclaw_kernel.api import (
    AccountStatus,
    ChannelCapabilities,
    OutboundMessage,
    PluginContext,
    Progress,
    Receipt,
    Registrar,
    SendFailed,
    hookimpl,
)


class WebchatChannel:
    """WebSocket clients as a channel. Answers reach them as `chat` events, so nothing is ever sent through an outbox."""

    id = "webchat"
    label = "Web chat"
    capabilities = ChannelCapabilities(attachments=True)

    def __init__(self) -> None:
        self._running = False

    async def start(self) -> None:
        """Begin; the listener is the kernel's."""
        self._running = True

    async def stop(self) -> None:
        """End."""
        self._running = False

    async def send(self, message: OutboundMessage) -> Receipt:
        """Refuse: a client on the WebSocket has no address that outlives its connection."""
        text = f"webchat has no address {message.target.peer_id!r}; its clients read chat events and chat.history"
        raise SendFailed(text, permanent=True)

    async def show_progress(self, progress: Progress) -> None:
        """Never called: the capability is not declared."""

    def status(self) -> Sequence[AccountStatus]:
        """One account, running with the gateway."""
        return (AccountStatus(account_id="default", running=self._running, connected=self._running),)


class WebchatPlugin:
    """Registers the channel, the page and the method that makes a link."""

    settings: ClassVar[type[WebchatSettings]] = WebchatSettings

    def __init__(self, context: PluginContext) -> None:
        self._context = context
        self._page = PageRoutes(context)

    @hookimpl
    def openclaw_register_channels(self, registrar: Registrar) -> None:
        """Register `webchat`."""
        registrar.add_channel(WebchatChannel())

    @hookimpl
    def openclaw_register_routes(self, registrar: Registrar) -> None:
        """Serve the page, unless it is turned off."""
        if self._context.config.gateway.control_ui.enabled:
            for route in self._page.routes():
                registrar.add_route(route)

    @hookimpl
    def openclaw_register_methods(self, registrar: Registrar) -> None:
        """Register `webchat.link`."""
        registrar.add_methods(self._page)
