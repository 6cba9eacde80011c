"""The webhook: proved by its own secret, acknowledged after acceptance, watched over."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp import web

from openclaw_channels.telegram.plugin import TelegramPlugin
from openclaw_channels.telegram.runtime import Runtime
from openclaw_kernel.api import HttpRoute
from tests.channels.telegram.standing import DISK_FULL, StandingContext, running
from tests.emulators.telegram_control import TelegramEmulator

CHAT = 42
SECRET = "a-secret-of-the-account"


@asynccontextmanager
async def listening(context: StandingContext, path: str = "/telegram-webhook") -> AsyncIterator[tuple[Runtime, str]]:
    """The channel with its webhook on a listener of its own; gives the runtime and the webhook's address."""
    holder: list[Runtime] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        return await holder[0].handle_webhook("default", request)

    application = web.Application()
    application.router.add_post(path, handle)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    address = f"http://127.0.0.1:{runner.addresses[0][1]}{path}"
    context.section = {**context.section, "webhookUrl": address, "webhookSecret": SECRET}
    try:
        # The listener is up before the channel starts, as in the gateway.
        async with prepared(context, holder) as runtime:
            yield runtime, address
    finally:
        await runner.cleanup()


@asynccontextmanager
async def prepared(context: StandingContext, holder: list[Runtime]) -> AsyncIterator[Runtime]:
    async with running(context) as runtime:
        holder.append(runtime)
        yield runtime


async def post(url: str, body: object, secret: str | None) -> int:
    headers = {"X-Telegram-Bot-Api-Secret-Token": secret} if secret is not None else {}
    async with aiohttp.ClientSession() as session, session.post(url, json=body, headers=headers) as response:
        return response.status


def update(number: int, text: str) -> dict[str, Any]:
    person = {"id": 7, "is_bot": False, "first_name": "Ada"}
    chat = {"id": CHAT, "type": "private", "first_name": "Ada"}
    return {"update_id": number, "message": {"message_id": number, "date": 1, "chat": chat, "from": person, "text": text}}


async def test_updates_come_by_webhook_and_status_says_so(emulator: TelegramEmulator, context: StandingContext) -> None:
    async with listening(context) as (runtime, address):
        await emulator.wait(accepted="setWebhook")
        for number in range(3):
            await emulator.user_message(f"hello {number}", chat_id=CHAT)
        await emulator.wait(webhook_deliveries=3)
        (status,) = runtime.status()
    assert context.door.texts == ["hello 0", "hello 1", "hello 2"]
    stats = await emulator.stats()
    assert stats["webhook_url"] == address
    assert stats["polls"] == 0
    assert status.connected
    assert status.last_inbound_at is not None


async def test_an_update_that_could_not_be_stored_is_delivered_again(emulator: TelegramEmulator, context: StandingContext) -> None:
    context.door.refusal = DISK_FULL
    async with listening(context):
        await emulator.user_message("do not lose me", chat_id=CHAT)
        await context.door.wait(knocks=2)
        assert (await emulator.stats())["pending_updates"] == 1
        context.door.refusal = None
        await emulator.wait(webhook_deliveries=1)
    assert context.door.texts == ["do not lose me"]


async def test_without_the_secret_of_the_account_nothing_gets_in(emulator: TelegramEmulator, context: StandingContext) -> None:
    async with listening(context) as (_, address):
        await emulator.wait(accepted="setWebhook")
        assert await post(address, update(1, "forged"), None) == 401
        assert await post(address, update(1, "forged"), "") == 401
        assert await post(address, update(1, "forged"), SECRET + "x") == 401
        assert await post(address, [1, 2], SECRET) == 400
        assert await post(address, update(2, "true"), SECRET) == 200
        assert await post(address, update(2, "true"), SECRET) == 200
        assert await post(address, {"update_id": 3, "message": {"no": "message"}}, SECRET) == 200
        assert await post(address, update(4, "next"), SECRET) == 200
    assert context.door.texts == ["true", "next"]


async def test_a_webhook_telegram_cannot_reach_is_reported(emulator: TelegramEmulator, context: StandingContext) -> None:
    context.section = {**context.section, "webhookUrl": "http://127.0.0.1:9/nowhere"}
    async with running(context):
        await emulator.wait(accepted="setWebhook")
        await emulator.user_message("lost?", chat_id=CHAT)
        await context.wait_for_reason("channels.telegram.webhookUrl: Telegram cannot deliver to it (Connection failed")


async def test_a_webhook_taken_by_another_program_is_reported_and_taken_back(emulator: TelegramEmulator, context: StandingContext) -> None:
    async with listening(context) as (_, address):
        await emulator.wait(accepted="setWebhook")
        async with aiohttp.ClientSession() as session:
            other = f"{emulator.base_url}{emulator.token}/setWebhook"
            async with session.post(other, json={"url": "https://example.org/other"}) as response:
                assert response.status == 200
        await context.wait_for_reason("another program has changed the bot's webhook")
        await emulator.wait(accepted="setWebhook", times=3)
        await context.wait_for_reason(None)
        assert (await emulator.stats())["webhook_url"] == address


async def test_polling_after_a_webhook_removes_it_and_keeps_what_waited(emulator: TelegramEmulator, context: StandingContext) -> None:
    async with aiohttp.ClientSession() as session:
        other = f"{emulator.base_url}{emulator.token}/setWebhook"
        async with session.post(other, json={"url": "http://127.0.0.1:9/old"}) as response:
            assert response.status == 200
    await emulator.user_message("waited", chat_id=CHAT)
    async with running(context):
        await context.door.wait(count=1)
    assert context.door.texts == ["waited"]


class Routes:
    def __init__(self) -> None:
        self.routes: list[HttpRoute] = []

    def add_route(self, route: HttpRoute) -> None:
        self.routes.append(route)


def routes_of(section: dict[str, Any]) -> list[tuple[str, str]]:
    registrar = Routes()
    TelegramPlugin(StandingContext(section)).openclaw_register_routes(registrar)  # type: ignore[arg-type]
    return [(route.method, route.path) for route in registrar.routes]


async def test_each_account_with_a_webhook_has_a_path_of_its_own() -> None:
    url = "https://example.org/hook"
    assert routes_of({"botToken": "1:a"}) == []
    section = {
        "botToken": "1:a",
        "webhookUrl": url,
        "accounts": {"work": {"botToken": "2:b", "webhookUrl": url}, "play": {"botToken": "3:c"}},
    }
    assert routes_of(section) == [("POST", "/telegram-webhook"), ("POST", "/telegram-webhook/work")]
