"""Posts pending updates to a bot's webhook, one at a time and in order, again and again until it answers 2xx."""

from __future__ import annotations

import asyncio
import time

import aiohttp

from tests.emulators.telegram_state import Bot, Webhook

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 2.0


class WebhookSender:
    """Owner of one sending task per bot that has a webhook."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def changed(self, bot: Bot) -> None:
        """Start, restart or stop sending after setWebhook or deleteWebhook."""
        task = self._tasks.pop(bot.token, None)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if bot.webhook is not None:
            self._tasks[bot.token] = asyncio.create_task(self._send(bot, bot.webhook), name=f"webhook {bot.token}")

    async def close(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _send(self, bot: Bot, webhook: Webhook) -> None:
        headers = {"X-Telegram-Bot-Api-Secret-Token": webhook.secret_token} if webhook.secret_token else {}
        pause = FIRST_PAUSE_SECONDS
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
            while True:
                async with bot.changed:
                    updates = bot.next_updates(0, 1)
                    while not updates:
                        await bot.changed.wait()
                        updates = bot.next_updates(0, 1)
                update = updates[0]
                error = await self._post(session, webhook.url, update, headers)
                if error is None:
                    bot.webhook_deliveries += 1
                    bot.pending.pop(update["update_id"], None)
                    pause = FIRST_PAUSE_SECONDS
                    await bot.notify()
                    continue
                if update["update_id"] not in bot.pending:
                    bot.again.appendleft(update)
                webhook.last_error_date, webhook.last_error_message = int(time.time()), error
                await bot.notify()
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    async def _post(self, session: aiohttp.ClientSession, url: str, update: dict[str, object], headers: dict[str, str]) -> str | None:
        try:
            async with session.post(url, json=update, headers=headers) as response:
                if 200 <= response.status < 300:
                    return None
                return f"Wrong response from the webhook: {response.status} {response.reason}"
        except (aiohttp.ClientError, TimeoutError) as error:
            return f"Connection failed: {error}"
