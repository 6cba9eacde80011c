"""All accounts of the channel together. Imports python-telegram-bot, so it is imported on first use only."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

from aiohttp import web

from openclaw_channels.telegram.account import Account
from openclaw_channels.telegram.client import BAD_ANSWER
from openclaw_channels.telegram.intake import NotAccepted
from openclaw_channels.telegram.pacing import Pacing
from openclaw_channels.telegram.settings import TelegramSettings, account_key
from openclaw_kernel.api import (
    AccountStatus,
    ConfigRejected,
    OutboundMessage,
    PluginContext,
    Progress,
    Receipt,
    SendFailed,
)

SECRET_HEADER = "X-Telegram-Bot-Api-Secret-Token"  # noqa: S105 - a header's name


class Runtime:
    """The running accounts, from `start` to `stop`."""

    def __init__(self, context: PluginContext, settings: TelegramSettings, pacing: Pacing | None = None) -> None:
        self._context = context
        self._pacing = pacing or Pacing()
        self._accounts = {
            account_id: Account(
                context=context,
                account_id=account_id,
                settings=account,
                key=account_key(settings, account_id),
                pacing=self._pacing,
                on_fault=self._summarise,
            )
            for account_id, account in settings.effective().items()
            if account.enabled and account.bot_token is not None
        }
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start every account; return when each is connected or has said why not, or after a few seconds.

        Raise `ConfigRejected` where Telegram refuses the token of all of them.
        """
        for account in self._accounts.values():
            self._tasks.append(self._context.spawn(f"telegram account {account.account_id}", account.run()))
        try:
            async with asyncio.timeout(self._pacing.first_outcome):
                for account in self._accounts.values():
                    await account.outcome.wait()
        except TimeoutError:
            self._context.logger.info("telegram has not answered yet; the accounts connect in the background")
        refused = [account for account in self._accounts.values() if account.rejected]
        if refused and len(refused) == len(self._accounts):
            raise ConfigRejected(
                f"{refused[0].key}.botToken",
                "Telegram does not accept the token",
                "copy the bot's current token from @BotFather into it",
            )

    async def stop(self) -> None:
        """End every account and close its connections."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        for account in self._accounts.values():
            await account.close()

    async def send(self, message: OutboundMessage) -> Receipt:
        """Send by the account the message names."""
        account = self._accounts.get(message.target.account_id)
        if account is None:
            known = ", ".join(self._accounts)
            raise SendFailed(f"there is no telegram account {message.target.account_id}, only: {known}", permanent=True)
        return await account.send(message)

    def show_progress(self, progress: Progress) -> None:
        """Show a running turn where its account is known."""
        account = self._accounts.get(progress.target.account_id)
        if account is not None:
            account.show_progress(progress)

    def status(self) -> Sequence[AccountStatus]:
        """Return the state of the running accounts."""
        return [account.status() for account in self._accounts.values()]

    async def handle_webhook(self, account_id: str, request: web.Request) -> web.Response:
        """Take an update that Telegram posts: 401 without the account's own secret, 503 where it could not be stored."""
        account = self._accounts.get(account_id)
        if account is None or account.settings.webhook_url is None:
            return web.Response(status=404)
        if not account.secret.matches(request.headers.get(SECRET_HEADER, "")):
            return web.Response(status=401)
        try:
            body = json.loads(await request.read())
            if not isinstance(body, dict):
                return web.Response(status=400)
        except (ValueError, RecursionError):
            return web.Response(status=400)
        try:
            await account.take_webhook(body)
        except NotAccepted as error:
            self._context.logger.warning("a telegram update waits: %s", error)
            return web.Response(status=503)
        except BAD_ANSWER:
            self._context.logger.exception("telegram posted an update that cannot be read; it is skipped")
        return web.Response()

    def _summarise(self) -> None:
        faults = [account.fault for account in self._accounts.values() if account.fault]
        self._context.degrade("; ".join(faults) or None)
