"""An emulator of the Telegram Bot API: the HTTP that a bot sees, and `/_control` for tests to be the people.

Run it as `python -m tests.emulators.telegram --port 0 --token 1001:TEST`. The control API is wrapped in Python by
`tests.emulators.telegram_control.TelegramEmulator`.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from tests.emulators import common
from tests.emulators.telegram_control_api import add_control_routes
from tests.emulators.telegram_methods import METHODS, SENDS
from tests.emulators.telegram_state import ApiError, Bot, Fault, Json
from tests.emulators.telegram_webhook import WebhookSender

BOTS: web.AppKey[dict[str, Bot]] = web.AppKey("bots")
WEBHOOKS: web.AppKey[WebhookSender] = web.AppKey("webhooks")
TOKEN = re.compile(r"\d+:[A-Za-z0-9_-]+")


def make_bot(token: str, username: str, changed: asyncio.Condition) -> Bot:
    user = {
        "id": int(token.split(":", 1)[0]),
        "is_bot": True,
        "first_name": username,
        "username": username,
        "can_join_groups": True,
        "can_read_all_group_messages": False,
        "supports_inline_queries": False,
        "has_main_web_app": False,
    }
    return Bot(token=token, user=user, changed=changed)


async def read_parameters(request: web.Request) -> tuple[Json, dict[str, tuple[str, bytes, str]]]:
    """Parameters (JSON values decoded) and uploaded files (name, content, type) of a call, however it was sent."""
    raw: Json = dict(request.query)
    files: dict[str, tuple[str, bytes, str]] = {}
    if request.content_type == "application/json":
        body = await request.json()
        return {**raw, **body}, files
    if request.method == "POST":
        form = await request.post()
        for name, value in form.items():
            if isinstance(value, web.FileField):
                files[name] = (value.filename, value.file.read(), value.content_type)
            else:
                raw[name] = value
    return {name: decoded(name, value) for name, value in raw.items()}, files


TEXT_PARAMETERS = frozenset({"text", "caption", "url", "secret_token", "parse_mode", "callback_query_id", "photo", "document", "file_id"})


def decoded(name: str, value: Any) -> Any:
    if name in TEXT_PARAMETERS or not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def answer(bot: Bot, result: Any) -> web.Response:
    bot.answers["200"] += 1
    return web.json_response({"ok": True, "result": result})


def refusal(bot: Bot | None, error: ApiError) -> web.Response:
    if bot is not None:
        bot.answers[str(error.status)] += 1
    return web.json_response(error.body(), status=error.status)


def find_bot(request: web.Request) -> Bot:
    token = request.match_info["token"]
    if not TOKEN.fullmatch(token):
        raise ApiError(404, "Not Found")
    bot = request.app[BOTS].get(token)
    if bot is None:
        raise ApiError(401, "Unauthorized")
    return bot


def drop(request: web.Request) -> web.Response:
    """Close the connection without an answer."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


async def apply_fault(request: web.Request, fault: Fault) -> web.Response:
    if fault.mode == "hang":
        await asyncio.Event().wait()
    if fault.mode == "drop":
        return drop(request)
    if fault.mode == "garbage":
        return web.Response(text="<html><body>502 Bad Gateway</body></html>", status=fault.status)
    if fault.mode == "odd":
        return web.json_response({"ok": True, "result": {"odd": True}})
    raise ApiError(fault.status, fault.description, retry_after=fault.retry_after)


async def handle_method(request: web.Request) -> web.StreamResponse:
    bot: Bot | None = None
    record: Json = {}
    try:
        bot = find_bot(request)
        parameters, files = await read_parameters(request)
        method = request.match_info["method"].lower()
        record = {"method": method, "parameters": parameters, "files": sorted(files), "at": time.monotonic()}
        response = await call_method(request, bot, record, files)
    except ApiError as error:
        record["status"] = error.status
        response = refusal(bot, error)
    except asyncio.CancelledError:
        record["status"] = "client gone"
        raise
    finally:
        if bot is not None:
            await bot.notify()
    return response


async def call_method(request: web.Request, bot: Bot, record: Json, files: dict[str, tuple[str, bytes, str]]) -> web.Response:
    method, parameters = record["method"], record["parameters"]
    name, handler = METHODS.get(method, (method, None))
    record["method"] = name
    bot.attempted[name] += 1
    bot.calls.append(record)
    await bot.notify()
    if name == "getUpdates":
        return await get_updates(request, bot, record)
    chat_id = parameters.get("chat_id")
    fault = bot.take_fault(name, chat_id if isinstance(chat_id, int) else None)
    if fault is not None and not fault.after_accept:
        record["status"] = fault.mode
        return await apply_fault(request, fault)
    if handler is None:
        raise ApiError(404, "Not Found")
    if name in SENDS and isinstance(chat_id, int):
        bot.check_flood(bot.chat(chat_id))
    result = handler(bot, parameters, files)
    bot.accepted[name] += 1
    record["status"] = 200
    record["result"] = result
    if name in ("setWebhook", "deleteWebhook"):
        await request.app[WEBHOOKS].changed(bot)
    if fault is not None:
        record["fault"] = fault.mode
        await bot.notify()
        return await apply_fault(request, fault)
    return answer(bot, result)


async def get_updates(request: web.Request, bot: Bot, record: Json) -> web.Response:
    bot.poll_number += 1
    number = bot.poll_number
    bot.polls_running += 1
    bot.polls_most_at_once = max(bot.polls_most_at_once, bot.polls_running)
    try:
        fault = bot.take_fault("getUpdates", None)
        if fault is not None and not fault.after_accept:
            record["status"] = fault.mode
            return await apply_fault(request, fault)
        updates = await long_poll(bot, record["parameters"], number)
        bot.accepted["getUpdates"] += 1
        record["status"] = 200
        record["result"] = [update["update_id"] for update in updates]
        if fault is not None:
            return await apply_fault(request, fault)
        return answer(bot, updates)
    finally:
        bot.polls_running -= 1


async def long_poll(bot: Bot, parameters: Json, number: int) -> list[Json]:
    """Updates from `offset` on, as soon as there are some; 409 when another poll comes in the meantime."""
    if bot.webhook is not None:
        text = "Conflict: can't use getUpdates method while webhook is active"
        raise ApiError(409, f"{text}; use deleteWebhook to delete the webhook first")
    offset = int(parameters.get("offset") or 0)
    limit = min(max(int(parameters.get("limit") or 100), 1), 100)
    if isinstance(parameters.get("allowed_updates"), list):
        bot.allowed_updates = parameters["allowed_updates"]
    if offset:
        bot.confirm_below(offset)
    deadline = time.monotonic() + min(float(parameters.get("timeout") or 0), 50.0)
    await bot.notify()
    async with bot.changed:
        while True:
            if bot.poll_number != number:
                bot.polls_terminated += 1
                text = "Conflict: terminated by other getUpdates request; make sure that only one bot instance is running"
                raise ApiError(409, text)
            if bot.webhook is not None:
                raise ApiError(409, "Conflict: terminated by setWebhook request")
            updates = bot.next_updates(offset, limit)
            left = deadline - time.monotonic()
            if updates or left <= 0:
                return updates
            try:
                await asyncio.wait_for(bot.changed.wait(), left)
            except TimeoutError:
                continue


async def handle_file(request: web.Request) -> web.StreamResponse:
    bot: Bot | None = None
    try:
        bot = find_bot(request)
        bot.attempted["file"] += 1
        fault = bot.take_fault("file", None)
        if fault is not None:
            return await apply_fault(request, fault)
        for stored in bot.files.values():
            if stored.path == request.match_info["path"]:
                bot.accepted["file"] += 1
                return web.Response(body=stored.content, content_type="application/octet-stream")
        raise ApiError(404, "Not Found")
    except ApiError as error:
        return refusal(bot, error)


async def handle_unknown(request: web.Request) -> web.Response:
    return refusal(None, ApiError(404, "Not Found"))


def make_application(tokens: list[str]) -> web.Application:
    """The emulator with one bot per token."""
    application = web.Application(client_max_size=60 * 1024 * 1024)

    async def keep_state(app: web.Application) -> Any:
        changed = asyncio.Condition()
        for number, token in enumerate(tokens):
            app[BOTS][token] = make_bot(token, f"emulated_{number or ''}bot".replace("__", "_"), changed)
        yield
        await app[WEBHOOKS].close()

    application[BOTS] = {}
    application[WEBHOOKS] = WebhookSender()
    application.cleanup_ctx.append(keep_state)
    add_control_routes(application, application[BOTS], make_bot)
    route: Callable[[str, str, Callable[[web.Request], Awaitable[web.StreamResponse]]], Any]
    route = application.router.add_route
    route("*", "/bot{token}/{method}", handle_method)
    route("GET", "/file/bot{token}/{path:.*}", handle_file)
    route("*", "/{rest:.*}", handle_unknown)
    return application


def main() -> None:
    parser = common.argument_parser(__doc__ or "")
    parser.add_argument("--token", action="append", default=[])
    arguments = parser.parse_args()
    common.run(make_application(arguments.token or ["1001:TEST"]), arguments)


if __name__ == "__main__":
    main()
