"""The telegram plugin: what it registers. The Bot API library is imported when the channel starts."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, ClassVar, cast

from aiohttp import web
from pydantic import BaseModel

from openclaw_channels.telegram.settings import TelegramSettings, account_key, webhook_path
from openclaw_kernel.api import (
    AccountStatus,
    ChannelCapabilities,
    ConfigRejected,
    HttpRoute,
    OutboundMessage,
    PluginContext,
    Progress,
    Receipt,
    Registrar,
    SendFailed,
    hookimpl,
)

if TYPE_CHECKING:
    from openclaw_channels.telegram.runtime import Runtime


class TelegramChannel:
    """The channel as the gateway sees it, running or not."""

    id = "telegram"
    label = "Telegram"
    capabilities = ChannelCapabilities(progress=True, attachments=True, groups=True, threads=True)

    def __init__(self, context: PluginContext, settings: TelegramSettings) -> None:
        self._context = context
        self._settings = settings
        self._runtime: Runtime | None = None
        self._last_errors: dict[str, str | None] = {}

    async def start(self) -> None:
        """Start every enabled account."""
        await self.stop()
        for account_id, account in self._settings.effective().items():
            if account.enabled and account.bot_token is None:
                key = f"{account_key(self._settings, account_id)}.botToken"
                raise ConfigRejected(key, "no bot token", "set it to the token that @BotFather gave the bot")
        # The library takes over half a second to import, in which the gateway goes on.
        runtime = await asyncio.to_thread(importlib.import_module, "openclaw_channels.telegram.runtime")
        self._runtime = cast("Runtime", runtime.Runtime(self._context, self._settings))
        await self._runtime.start()

    async def stop(self) -> None:
        """Stop every account."""
        runtime, self._runtime = self._runtime, None
        if runtime is not None:
            await runtime.stop()
            # Why it stopped stays readable until the next start.
            self._last_errors = {status.account_id: status.last_error for status in runtime.status()}

    async def send(self, message: OutboundMessage) -> Receipt:
        """Send one message."""
        if self._runtime is None:
            raise SendFailed("the channel telegram is stopped; start it with channels.start")
        return await self._runtime.send(message)

    async def show_progress(self, progress: Progress) -> None:
        """Show a running turn."""
        if self._runtime is not None:
            self._runtime.show_progress(progress)

    def status(self) -> Sequence[AccountStatus]:
        """Return the state of every account, the stopped ones too."""
        running = {status.account_id: status for status in self._runtime.status()} if self._runtime else {}
        return [
            running.get(account_id)
            or AccountStatus(
                account_id=account_id,
                enabled=account.enabled,
                configured=account.bot_token is not None,
                last_error=self._last_errors.get(account_id),
                detail=account.name,
            )
            for account_id, account in self._settings.effective().items()
        ]

    def webhook_handler(self, account_id: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """Return the handler of an account's webhook."""

        async def handle(request: web.Request) -> web.StreamResponse:
            if self._runtime is None:
                return web.Response(status=503)
            return await self._runtime.handle_webhook(account_id, request)

        return handle


class TelegramPlugin:
    """Registers the channel and the routes of its webhooks."""

    settings: ClassVar[type[BaseModel] | None] = TelegramSettings

    def __init__(self, context: PluginContext) -> None:
        self._settings = context.settings(TelegramSettings)
        self._channel = TelegramChannel(context, self._settings)

    @hookimpl
    def openclaw_register_channels(self, registrar: Registrar) -> None:
        registrar.add_channel(self._channel)

    @hookimpl
    def openclaw_register_routes(self, registrar: Registrar) -> None:
        for account_id, account in self._settings.effective().items():
            if account.enabled and account.webhook_url is not None:
                path = webhook_path(account, account_id)
                registrar.add_route(HttpRoute(method="POST", path=path, handler=self._channel.webhook_handler(account_id)))
