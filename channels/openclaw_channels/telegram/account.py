"""One bot: connecting, receiving by polling or webhook, and what its status says."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from typing import Final

from telegram import BotCommand, Update
from telegram.error import BadRequest, Conflict, InvalidToken, TelegramError

from openclaw_channels.telegram.client import BAD_ANSWER, Client, Flooded, describe, open_client
from openclaw_channels.telegram.drafts import Drafts
from openclaw_channels.telegram.intake import Intake, NotAccepted
from openclaw_channels.telegram.outgoing import Outgoing
from openclaw_channels.telegram.pacing import Pacing, Quiet, doubled
from openclaw_channels.telegram.settings import AccountSettings
from openclaw_channels.telegram.wire import COMMAND_NAME, Bot
from openclaw_kernel.api import (
    AccountStatus,
    Commands,
    OutboundMessage,
    PluginContext,
    Progress,
    Receipt,
    Secret,
    SendFailed,
)

UPDATES: Final = ("message",)
CONNECTIONS: Final = 16
SECRET_BYTES: Final = 32
COMMAND_DESCRIPTION_LIMIT: Final = 256


class Account:
    """One bot, from `run` until `close`. `key` is its place in the config."""

    def __init__(
        self,
        *,
        context: PluginContext,
        account_id: str,
        settings: AccountSettings,
        key: str,
        pacing: Pacing,
        on_fault: Callable[[], None],
    ) -> None:
        self.account_id = account_id
        self.settings = settings
        self.key = key
        self.secret = settings.webhook_secret or Secret(secrets.token_urlsafe(SECRET_BYTES))
        self.outcome = asyncio.Event()
        """Set once it is known whether the bot can be reached."""
        self.rejected = False
        """Telegram does not know the token."""
        self.fault: str | None = None
        """What is wrong, in one line with the cure."""
        self._context = context
        self._pacing = pacing
        self._on_fault = on_fault
        self._client = open_client(settings, connections=CONNECTIONS)
        self._poller: Client | None = None
        self._quiet = Quiet()
        self._drafts = Drafts(
            client=self._client,
            settings=settings,
            pacing=pacing,
            quiet=self._quiet,
            storage=context.storage,
            storage_key=f"drafts:{account_id}",
            spawn=context.spawn,
        )
        self._outgoing = Outgoing(
            client=self._client,
            settings=settings,
            pacing=pacing,
            quiet=self._quiet,
            drafts=self._drafts,
            storage=context.storage,
        )
        self._intake: Intake | None = None
        self._bot: Bot | None = None
        self._offset: int | None = None
        self._running = False
        self._connected = False
        self._last_inbound_at: int | None = None
        self._last_outbound_at: int | None = None
        self._webhook_lock = asyncio.Lock()

    # --- life --------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Connect and receive until cancelled, or until Telegram refuses the token."""
        self._running = True
        try:
            await self._connect()
            if self.settings.webhook_url is None:
                await self._poll()
            else:
                await self._keep_webhook(self.settings.webhook_url)
        except InvalidToken:
            self.rejected = True
            self._report(f"{self.key}.botToken: Telegram does not accept the token; copy the bot's current token from @BotFather into it")
        finally:
            self._running = self._connected = False
            self.outcome.set()
            await self._close_poller()

    async def close(self) -> None:
        """Close every connection."""
        await self._drafts.close()
        await self._close_poller()
        await self._client.close()

    def status(self) -> AccountStatus:
        """Return the state, without I/O."""
        return AccountStatus(
            account_id=self.account_id,
            enabled=self.settings.enabled,
            configured=self.settings.bot_token is not None,
            running=self._running,
            connected=self._connected,
            last_error=self.fault,
            last_inbound_at=self._last_inbound_at,
            last_outbound_at=self._last_outbound_at,
            detail=f"@{self._bot.username}" if self._bot else self.settings.name,
        )

    async def _connect(self) -> None:
        pause = self._pacing.retry_first
        while self._bot is None:
            try:
                async with asyncio.timeout(self._pacing.call):
                    user = await self._client.bot.get_me()
                    self._bot = Bot(id=user.id, username=user.username or "")
            except Flooded as error:
                await self._wait_out(error)
            except InvalidToken:
                raise
            except (TelegramError, TimeoutError, *BAD_ANSWER) as error:
                self._lost(error)
                await asyncio.sleep(pause)
                pause = doubled(pause, self._pacing.retry_longest)
        self._intake = Intake(
            context=self._context,
            client=self._client,
            settings=self.settings,
            account_id=self.account_id,
            bot=self._bot,
        )
        self._report(None)
        self._connected = True
        self._context.logger.info("telegram account %s is @%s", self.account_id, self._bot.username)
        self.outcome.set()
        await self._register_commands()

    async def _register_commands(self) -> None:
        """Tell Telegram the commands, for the menu people see; the bot works without."""
        known = self._context.service(Commands).all()
        commands = [
            BotCommand(command.name, command.description[:COMMAND_DESCRIPTION_LIMIT])
            for command in known
            if COMMAND_NAME.fullmatch(command.name)
        ]
        try:
            async with asyncio.timeout(self._pacing.call):
                await self._client.bot.set_my_commands(commands)
        except InvalidToken:
            raise
        except (TelegramError, TimeoutError, *BAD_ANSWER) as error:
            reason = describe(error, self.settings)
            self._context.logger.warning("telegram account %s: the command menu is not set: %s", self.account_id, reason)

    # --- polling -----------------------------------------------------------------------------------------------------

    async def _poll(self) -> None:
        pause, conflict_pause = self._pacing.retry_first, self._pacing.conflict_first
        webhook_removed = False
        while True:
            try:
                if not webhook_removed:
                    await self._remove_webhook()
                    webhook_removed = True
                await self._cycle()
            except Conflict as error:
                self._conflict(error)
                await asyncio.sleep(conflict_pause)
                conflict_pause = doubled(conflict_pause, self._pacing.conflict_longest)
            except Flooded as error:
                await self._wait_out(error)
            except InvalidToken:
                raise
            except NotAccepted as error:
                self._report(f"telegram messages wait at Telegram: the gateway could not store them ({error})")
                await asyncio.sleep(pause)
                pause = doubled(pause, self._pacing.retry_longest)
            except (TelegramError, TimeoutError, *BAD_ANSWER) as error:
                self._lost(error)
                # A connection that failed or hung is never used again.
                await self._close_poller()
                await asyncio.sleep(pause)
                pause = doubled(pause, self._pacing.retry_longest)
            else:
                self._received()
                pause, conflict_pause = self._pacing.retry_first, self._pacing.conflict_first

    async def _remove_webhook(self) -> None:
        async with asyncio.timeout(self._pacing.call):
            await self._client.bot.delete_webhook(drop_pending_updates=False)

    async def _cycle(self) -> None:
        """One receive cycle: ask, accept durably, and only then move the offset that acknowledges."""
        updates = await self._get_updates(self.settings.poll_timeout_seconds)
        if self._accepting.ends_in_album(updates):
            await asyncio.sleep(self._pacing.album)
            updates = await self._get_updates(0) or updates
        if updates:
            await self._accept(updates)
            self._offset = updates[-1].update_id + 1

    async def _accept(self, updates: Sequence[Update]) -> None:
        """Accept updates; while that takes long, listen for a stop behind them."""
        listening = self._context.spawn(f"telegram account {self.account_id}: stops", self._hear_stops(after=updates[-1].update_id))
        try:
            await self._accepting.accept(updates)
        finally:
            listening.cancel()
            await asyncio.wait({listening})

    async def _hear_stops(self, *, after: int) -> None:
        """Look from time to time what has come since, without acknowledging anything."""
        heard: set[str] = set()
        while True:
            await asyncio.sleep(self._pacing.peek)
            try:
                waiting = await self._get_updates(0)
                await self._accepting.accept_stops([update for update in waiting if update.update_id > after], heard)
            except (TelegramError, TimeoutError, NotAccepted, *BAD_ANSWER) as error:
                reason = describe(error, self.settings)
                self._context.logger.debug("telegram account %s: no look ahead: %s", self.account_id, reason)

    async def _get_updates(self, wait_seconds: float) -> Sequence[Update]:
        if self._poller is None:
            self._poller = open_client(self.settings, connections=1)
        async with asyncio.timeout(wait_seconds + self._pacing.poll_margin):
            return await self._poller.bot.get_updates(offset=self._offset, timeout=int(wait_seconds), allowed_updates=UPDATES)

    @property
    def _accepting(self) -> Intake:
        if self._intake is None:
            raise NotAccepted(f"account {self.account_id} is not connected yet")
        return self._intake

    async def _close_poller(self) -> None:
        poller, self._poller = self._poller, None
        if poller is not None:
            await poller.close()

    # --- webhook -----------------------------------------------------------------------------------------------------

    async def take_webhook(self, body: dict[str, object]) -> None:
        """Accept one update that Telegram posted; it is durable once this returns."""
        update = Update.de_json(body, self._client.bot)
        if self._webhook_lock.locked():
            await self._accepting.accept_stops([update], set())
        async with self._webhook_lock:
            await self._accepting.accept([update])
            self._received()

    async def _keep_webhook(self, url: str) -> None:
        """Set the webhook and look at it from time to time: its health is known to Telegram only."""
        pause, conflict_pause = self._pacing.retry_first, self._pacing.conflict_first
        is_set = False
        while True:
            try:
                async with asyncio.timeout(self._pacing.call):
                    if not is_set:
                        await self._set_webhook(url)
                        is_set = True
                    info = await self._client.bot.get_webhook_info()
            except Flooded as error:
                await self._wait_out(error)
                continue
            except InvalidToken:
                raise
            except BadRequest as error:
                reason = describe(error, self.settings)
                self._report(f"{self.key}.webhookUrl: Telegram refuses it ({reason}); correct it, or webhookSecret")
                await asyncio.sleep(conflict_pause)
                conflict_pause = doubled(conflict_pause, self._pacing.conflict_longest)
                continue
            except (TelegramError, TimeoutError, *BAD_ANSWER) as error:
                self._lost(error)
                await asyncio.sleep(pause)
                pause = doubled(pause, self._pacing.retry_longest)
                continue
            pause = self._pacing.retry_first
            if info.url != url:
                self._report(
                    f"{self.key}.webhookUrl: another program has changed the bot's webhook; stop it, or give this gateway a bot of its own"
                )
                await asyncio.sleep(conflict_pause)
                conflict_pause = doubled(conflict_pause, self._pacing.conflict_longest)
                is_set = False
            elif info.pending_update_count and info.last_error_message:
                self._report(
                    f"{self.key}.webhookUrl: Telegram cannot deliver to it ({info.last_error_message}); "
                    "check that the address leads to this gateway"
                )
                await asyncio.sleep(self._pacing.webhook_check)
            else:
                self._received()
                conflict_pause = self._pacing.conflict_first
                await asyncio.sleep(self._pacing.webhook_check)

    async def _set_webhook(self, url: str) -> None:
        await self._client.bot.set_webhook(
            url,
            secret_token=self.secret.unwrap(),
            allowed_updates=UPDATES,
            # In order, as polling would bring them.
            max_connections=1,
            drop_pending_updates=False,
        )

    # --- sending -----------------------------------------------------------------------------------------------------

    async def send(self, message: OutboundMessage) -> Receipt:
        """Send one message; raise `SendFailed`."""
        if self.rejected:
            raise SendFailed(self.fault or f"{self.key}.botToken is not accepted")
        receipt = await self._outgoing.send(message)
        self._last_outbound_at = self._context.now_ms()
        return receipt

    def show_progress(self, progress: Progress) -> None:
        """Show a running turn."""
        if self._connected:
            self._drafts.show(progress, self._context.logger)

    # --- reporting ---------------------------------------------------------------------------------------------------

    def _received(self) -> None:
        self._last_inbound_at = self._context.now_ms()
        self._connected = True
        self._report(None)

    def _lost(self, error: BaseException) -> None:
        self._connected = False
        reason = describe(error, self.settings)
        self._report(
            f"{self.key}: {self.settings.api_root} cannot be reached ({reason}); "
            "check the network, apiRoot and proxy; it is tried again by itself"
        )
        self.outcome.set()

    async def _wait_out(self, flood: Flooded) -> None:
        self._connected = False
        self._report(f"{self.key}: {flood}; until then nothing is received")
        self.outcome.set()
        await asyncio.sleep(flood.seconds)

    def _conflict(self, error: Conflict) -> None:
        self._connected = False
        if "webhook" in error.message.lower():
            found, cure = "another program has set a webhook for this bot", "stop it"
        else:
            found, cure = "another program reads this bot's updates", "stop it"
        self._report(f"{self.key}.botToken: {found}; {cure}, or give this gateway a bot of its own")

    def _report(self, fault: str | None) -> None:
        if fault == self.fault:
            return
        self.fault = fault
        # The host logs it with the plugin's state.
        self._on_fault()
