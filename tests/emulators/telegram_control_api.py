"""The `/_control` routes of the Bot API emulator: what tests do and see."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable
from typing import Any

from aiohttp import web

from tests.emulators.telegram_methods import media_content
from tests.emulators.telegram_state import (
    MEDIA_KINDS,
    Bot,
    Chat,
    Fault,
    Json,
    Message,
    command_entities,
)

MakeBot = Callable[[str, str, asyncio.Condition], Bot]
DESCRIPTIONS = {
    400: "Bad Request: emulated",
    401: "Unauthorized",
    403: "Forbidden: bot was blocked by the user",
    404: "Not Found",
    409: "Conflict: terminated by other getUpdates request; make sure that only one bot instance is running",
    500: "Internal Server Error",
    502: "Bad Gateway",
}


class Control:
    """Request handlers over the shared table of bots; a call without `token` means the first bot."""

    def __init__(self, bots: dict[str, Bot], make_bot: MakeBot) -> None:
        self._bots = bots
        self._make_bot = make_bot

    def _bot(self, token: str | None) -> Bot:
        if token:
            return self._bots[token]
        return next(iter(self._bots.values()))

    async def add_bot(self, request: web.Request) -> web.Response:
        body = await request.json()
        changed = next(iter(self._bots.values())).changed
        bot = self._make_bot(body["token"], body.get("username", f"emulated_{len(self._bots)}_bot"), changed)
        self._bots[bot.token] = bot
        return web.json_response(bot.user)

    async def remove_bot(self, request: web.Request) -> web.Response:
        """Forget a token, as when BotFather revokes it."""
        body = await request.json()
        del self._bots[body["token"]]
        return web.json_response({})

    async def user_message(self, request: web.Request) -> web.Response:
        body = await request.json()
        bot = self._bot(body.get("token"))
        message = receive(bot, body)
        kind = "edited_message" if body.get("edited") else "message"
        update = bot.add_update(kind, message.body)
        await bot.notify()
        return web.json_response({"update_id": update["update_id"], "message_id": message.message_id})

    async def update(self, request: web.Request) -> web.Response:
        """Queue any update, given as `kind` and `body`."""
        body = await request.json()
        bot = self._bot(body.get("token"))
        update = bot.add_update(body["kind"], body["body"])
        await bot.notify()
        return web.json_response({"update_id": update["update_id"]})

    async def chat(self, request: web.Request) -> web.Response:
        body = await request.json()
        chat = chat_for(self._bot(body.get("token")), body)
        return web.json_response(chat.body)

    async def repeat(self, request: web.Request) -> web.Response:
        body = await request.json()
        bot = self._bot(body.get("token"))
        wanted = body.get("update_id") or max(bot.delivered)
        bot.again.append(bot.delivered[int(wanted)])
        await bot.notify()
        return web.json_response({"update_id": wanted})

    async def fault(self, request: web.Request) -> web.Response:
        body = await request.json()
        bot = self._bot(body.get("token"))
        status = int(body.get("status") or (429 if body.get("retry_after") else 500))
        retry_after = body.get("retry_after") if status != 429 else body.get("retry_after") or 1
        description = body.get("description") or DESCRIPTIONS.get(status, "emulated")
        if status == 429 and not body.get("description"):
            description = f"Too Many Requests: retry after {retry_after}"
        fault = Fault(
            method=body["method"],
            mode=body.get("mode", "status"),
            status=status,
            description=description,
            retry_after=retry_after,
            times=int(body.get("times", 1)),
            skip=int(body.get("skip", 0)),
            after_accept=bool(body.get("after_accept")),
            chat_id=body.get("chat_id"),
        )
        bot.faults.append(fault)
        return web.json_response({"faults": len(bot.faults)})

    async def clear_faults(self, request: web.Request) -> web.Response:
        bot = self._bot(request.query.get("token"))
        bot.faults.clear()
        return web.json_response({})

    async def flood(self, request: web.Request) -> web.Response:
        """Allow `limit` sends and edits per chat in `seconds`; 0 switches flood control off."""
        body = await request.json()
        bot = self._bot(body.get("token"))
        bot.flood_limit = int(body["limit"])
        bot.flood_seconds = float(body.get("seconds", 1.0))
        bot.flood_retry_after = int(body.get("retry_after", 1))
        return web.json_response({})

    async def sent(self, request: web.Request) -> web.Response:
        bot = self._bot(request.query.get("token"))
        calls = [record for record in bot.calls if record.get("status") == 200 and record["method"] != "getUpdates"]
        messages = {str(chat.chat_id): [message.described() for message in chat.messages.values()] for chat in bot.chats.values()}
        visible = {str(chat_id): bot.visible(chat_id) for chat_id in bot.chats}
        return web.json_response({"calls": calls, "visible": visible, "messages": messages})

    async def calls(self, request: web.Request) -> web.Response:
        bot = self._bot(request.query.get("token"))
        method = request.query.get("method")
        return web.json_response([record for record in bot.calls if method in (None, record["method"])])

    async def stats(self, request: web.Request) -> web.Response:
        return web.json_response(self._bot(request.query.get("token")).stats())

    async def wait(self, request: web.Request) -> web.Response:
        query = request.query
        bot = self._bot(query.get("token"))
        deadline = time.monotonic() + float(query.get("timeout", 10))
        async with bot.changed:
            while not (satisfied := is_satisfied(bot, query)):
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                try:
                    await asyncio.wait_for(bot.changed.wait(), left)
                except TimeoutError:
                    continue
        chat_id = int(query["chat_id"]) if "chat_id" in query else None
        return web.json_response({"satisfied": satisfied, "messages": bot.visible(chat_id), "stats": bot.stats()})


def is_satisfied(bot: Bot, query: Any) -> bool:
    """Whether every condition named in `query` holds: count, contains, method with calls, confirmed, polls, webhook."""
    chat_id = int(query["chat_id"]) if "chat_id" in query else None
    visible = bot.visible(chat_id)
    if len(visible) < int(query.get("count", 0)):
        return False
    if "contains" in query and not any(query["contains"] in message["text"] for message in visible):
        return False
    if "accepted" in query and bot.accepted[query["accepted"]] < int(query.get("times", 1)):
        return False
    if "attempted" in query and bot.attempted[query["attempted"]] < int(query.get("times", 1)):
        return False
    if "confirmed" in query and bot.confirmed_below <= int(query["confirmed"]):
        return False
    if "polls_running" in query and bot.polls_running != int(query["polls_running"]):
        return False
    return not ("webhook_deliveries" in query and bot.webhook_deliveries < int(query["webhook_deliveries"]))


def chat_for(bot: Bot, body: Json) -> Chat:
    chat_id = int(body["chat_id"])
    if chat_id not in bot.chats:
        kind = body.get("chat_type") or ("private" if chat_id > 0 else "supergroup")
        description: Json = {"id": chat_id, "type": kind}
        if kind == "private":
            description["first_name"] = (body.get("from") or {}).get("first_name", "Person")
        else:
            description["title"] = body.get("chat_title", "Group")
            description["is_forum"] = bool(body.get("forum"))
        bot.chats[chat_id] = Chat(description)
    return bot.chats[chat_id]


def receive(bot: Bot, body: Json) -> Message:
    """Put what a person sent into the chat; an edit changes the message it names."""
    chat = chat_for(bot, body)
    sender = {"id": chat.chat_id, "is_bot": False, "first_name": "Person", **(body.get("from") or {})}
    content: Json = {}
    for kind in MEDIA_KINDS:
        if body.get(kind) is not None:
            content |= received_media(bot, kind, body[kind])
    key, entities_key = ("caption", "caption_entities") if content else ("text", "entities")
    text = body.get("caption") or body.get("text")
    if text:
        content[key] = text
        entities = body.get("entities") or command_entities(text)
        if entities:
            content[entities_key] = entities
    for name in ("media_group_id", "message_thread_id", "forward_origin", "is_topic_message"):
        if body.get(name) is not None:
            content[name] = body[name]
    if body.get("edited"):
        message = chat.messages[int(body["message_id"])]
        message.body |= {**content, "edit_date": int(time.time())}
        return message
    return bot.add_message(chat, from_bot=False, sender=sender, content=content, replies_to=body.get("reply_to_message_id"))


def received_media(bot: Bot, kind: str, given: Any) -> Json:
    """`given` is base64 content, or an object with content, file_name, mime_type and a size to claim."""
    fields: Json = {"content": given} if isinstance(given, str) else given
    suffix = {"photo": "photo.jpg", "voice": "voice.oga", "sticker": "sticker.webp"}.get(kind, f"{kind}.bin")
    stored = bot.store_file(
        content=base64.b64decode(fields.get("content") or ""),
        name=fields.get("file_name", suffix),
        mime_type=fields.get("mime_type", "image/jpeg" if kind == "photo" else "application/octet-stream"),
        size=fields.get("size"),
    )
    return media_content(kind, stored)


def add_control_routes(application: web.Application, bots: dict[str, Bot], make_bot: MakeBot) -> None:
    """Add every `/_control` route to `application`."""
    control = Control(bots, make_bot)
    for name in ("user_message", "update", "chat", "repeat", "fault", "clear_faults", "flood", "add_bot", "remove_bot"):
        application.router.add_post(f"/_control/{name}", getattr(control, name))
    for name in ("sent", "calls", "stats", "wait"):
        application.router.add_get(f"/_control/{name}", getattr(control, name))
