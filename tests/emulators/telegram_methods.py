"""The Bot API methods that answer at once: each takes the bot, the parameters and the uploads, and gives `result`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from tests.emulators.telegram_state import (
    MEDIA_KINDS,
    ApiError,
    Bot,
    Chat,
    Json,
    Message,
    StoredFile,
    Webhook,
)
from tests.emulators.telegram_text import (
    Entity,
    EntityError,
    parse_html,
    parse_markdown_v2,
    utf16_length,
)

Uploads = dict[str, tuple[str, bytes, str]]
Handler = Callable[[Bot, Json, Uploads], Any]
TEXT_LIMIT = 4096
CAPTION_LIMIT = 1024
DOWNLOAD_LIMIT_BYTES = 20 * 1024 * 1024
ACTIONS = frozenset(
    {"typing", "upload_photo", "record_video", "upload_video", "record_voice", "upload_voice", "upload_document",
     "choose_sticker", "find_location", "record_video_note", "upload_video_note"}
)  # fmt: skip


def formatted(parameters: Json, *, text_key: str, entities_key: str) -> tuple[str, list[Entity], str | None]:
    """Plain text, entities and parse mode of a text or caption; 400 for markup that does not parse."""
    source = str(parameters.get(text_key) or "")
    mode = parameters.get("parse_mode")
    try:
        if not mode:
            given = parameters.get(entities_key) or []
            return source.strip(), checked_entities(source, given), None
        if str(mode).lower() == "html":
            return (*parse_html(source), "HTML")
        if str(mode).lower() == "markdownv2":
            return (*parse_markdown_v2(source), "MarkdownV2")
    except EntityError as error:
        raise ApiError(400, f"Bad Request: can't parse entities: {error}") from None
    raise ApiError(400, "Bad Request: unsupported parse_mode")


def checked_entities(text: str, entities: list[Entity]) -> list[Entity]:
    length = utf16_length(text)
    for entity in entities:
        start, span = entity.get("offset"), entity.get("length")
        if not isinstance(start, int) or not isinstance(span, int) or start < 0 or start + span > length:
            raise ApiError(400, "Bad Request: entity beginning or end is out of the text")
    return entities


def chat_of(bot: Bot, parameters: Json) -> Chat:
    chat_id = parameters.get("chat_id")
    if chat_id in (None, ""):
        raise ApiError(400, "Bad Request: chat_id is empty")
    if not isinstance(chat_id, int):
        raise ApiError(400, "Bad Request: chat not found")
    return bot.chat(chat_id)


def reply_target(chat: Chat, parameters: Json) -> int | None:
    reply = parameters.get("reply_parameters") or {}
    target = reply.get("message_id") or parameters.get("reply_to_message_id")
    if target is None:
        return None
    message = chat.messages.get(int(target))
    if message is not None and not message.deleted:
        return int(target)
    if reply.get("allow_sending_without_reply") or parameters.get("allow_sending_without_reply"):
        return None
    raise ApiError(400, "Bad Request: message to be replied not found")


def post(bot: Bot, parameters: Json, content: Json, *, mode: str | None, source: str) -> Message:
    chat = chat_of(bot, parameters)
    if parameters.get("message_thread_id"):
        content = {**content, "message_thread_id": parameters["message_thread_id"], "is_topic_message": True}
    if parameters.get("reply_markup"):
        content = {**content, "reply_markup": parameters["reply_markup"]}
    sender = {key: bot.user[key] for key in ("id", "is_bot", "first_name", "username")}
    message = bot.add_message(chat, from_bot=True, sender=sender, content=content, replies_to=reply_target(chat, parameters))
    message.parse_mode, message.source = mode, source
    return message


def checked_text(parameters: Json) -> tuple[str, list[Entity], str | None]:
    text, entities, mode = formatted(parameters, text_key="text", entities_key="entities")
    if not text:
        raise ApiError(400, "Bad Request: message text is empty")
    if utf16_length(text) > TEXT_LIMIT:
        raise ApiError(400, "Bad Request: message is too long")
    return text, entities, mode


def send_message(bot: Bot, parameters: Json, files: Uploads) -> Json:
    chat_of(bot, parameters)
    text, entities, mode = checked_text(parameters)
    content: Json = {"text": text}
    if entities:
        content["entities"] = entities
    return post(bot, parameters, content, mode=mode, source=str(parameters.get("text"))).body


def own_message(bot: Bot, parameters: Json, *, purpose: str) -> Message:
    chat = chat_of(bot, parameters)
    message = chat.messages.get(int(parameters.get("message_id") or 0))
    if message is None or message.deleted:
        raise ApiError(400, f"Bad Request: message to {purpose} not found")
    if purpose == "edit" and not message.from_bot:
        raise ApiError(400, "Bad Request: message can't be edited")
    return message


def edit_message_text(bot: Bot, parameters: Json, files: Uploads) -> Json:
    message = own_message(bot, parameters, purpose="edit")
    if "text" not in message.body:
        raise ApiError(400, "Bad Request: there is no text in the message to edit")
    text, entities, mode = checked_text(parameters)
    markup = parameters.get("reply_markup")
    before = (message.body["text"], message.body.get("entities") or [], message.body.get("reply_markup"))
    if before == (text, entities, markup):
        raise ApiError(
            400,
            "Bad Request: message is not modified: specified new message content and reply markup are exactly the "
            "same as a current content and reply markup of the message",
        )
    message.edits.append({"text": message.body["text"], "at": time.monotonic()})
    for key, value in (("text", text), ("entities", entities), ("reply_markup", markup)):
        if value:
            message.body[key] = value
        else:
            message.body.pop(key, None)
    message.body["edit_date"] = int(time.time())
    message.parse_mode, message.source = mode, str(parameters.get("text"))
    return message.body


def delete_message(bot: Bot, parameters: Json, files: Uploads) -> bool:
    own_message(bot, parameters, purpose="delete").deleted = True
    return True


def send_chat_action(bot: Bot, parameters: Json, files: Uploads) -> bool:
    chat_of(bot, parameters)
    if parameters.get("action") not in ACTIONS:
        raise ApiError(400, "Bad Request: wrong parameter action in request")
    return True


def media_content(kind: str, stored: StoredFile) -> Json:
    description: Json = {
        "file_id": stored.file_id,
        "file_unique_id": f"u{stored.file_id[-6:]}",
        "file_size": stored.size,
    }
    if kind == "photo":
        return {"photo": [{**description, "width": 90, "height": 90}, {**description, "width": 800, "height": 800}]}
    if kind in ("voice", "audio", "video", "animation"):
        description |= {"duration": 1, "mime_type": stored.mime_type}
    if kind in ("video", "animation", "sticker"):
        description |= {"width": 100, "height": 100}
    if kind == "sticker":
        description |= {"type": "regular", "is_animated": False, "is_video": False}
    if kind in ("document", "audio", "video", "animation"):
        description |= {"file_name": stored.name, "mime_type": stored.mime_type}
    return {kind: description}


def uploaded(bot: Bot, given: Any, files: Uploads, *, field_name: str) -> StoredFile:
    """The file a parameter means: an upload in its own field, `attach://name`, or a known file id."""
    attached = str(given or "").removeprefix("attach://")
    upload = files.get(attached) or files.get(field_name)
    if upload is not None:
        name, content, mime_type = upload
        if not content:
            raise ApiError(400, "Bad Request: file must be non-empty")
        return bot.store_file(content=content, name=name, mime_type=mime_type)
    stored = bot.files.get(str(given))
    if stored is None:
        raise ApiError(400, f"Bad Request: there is no {field_name} in the request")
    return stored


def captioned(parameters: Json) -> tuple[Json, str | None]:
    text, entities, mode = formatted(parameters, text_key="caption", entities_key="caption_entities")
    if utf16_length(text) > CAPTION_LIMIT:
        raise ApiError(400, "Bad Request: message caption is too long")
    content: Json = {"caption": text} if text else {}
    if entities:
        content["caption_entities"] = entities
    return content, mode


def send_media(kind: str) -> Handler:
    def send(bot: Bot, parameters: Json, files: Uploads) -> Json:
        chat_of(bot, parameters)
        content, mode = captioned(parameters)
        content |= media_content(kind, uploaded(bot, parameters.get(kind), files, field_name=kind))
        return post(bot, parameters, content, mode=mode, source=str(parameters.get("caption") or "")).body

    return send


def send_media_group(bot: Bot, parameters: Json, files: Uploads) -> list[Json]:
    chat_of(bot, parameters)
    group = parameters.get("media") or []
    if not 2 <= len(group) <= 10:
        raise ApiError(400, "Bad Request: media group must include 2-10 items")
    contents: list[tuple[Json, str | None]] = []
    for item in group:
        content, mode = captioned(item)
        content |= media_content(item["type"], uploaded(bot, item.get("media"), files, field_name=item["type"]))
        contents.append((content, mode))
    group_id = str(int(time.time() * 1000))
    return [post(bot, parameters, {**content, "media_group_id": group_id}, mode=mode, source="").body for content, mode in contents]


def get_file(bot: Bot, parameters: Json, files: Uploads) -> Json:
    stored = bot.files.get(str(parameters.get("file_id")))
    if stored is None:
        raise ApiError(400, "Bad Request: wrong file_id or the file is temporarily unavailable")
    if stored.size > DOWNLOAD_LIMIT_BYTES:
        raise ApiError(400, "Bad Request: file is too big")
    return {
        "file_id": stored.file_id,
        "file_unique_id": f"u{stored.file_id[-6:]}",
        "file_size": stored.size,
        "file_path": stored.path,
    }


def set_webhook(bot: Bot, parameters: Json, files: Uploads) -> bool:
    url = str(parameters.get("url") or "")
    local = url.startswith(("http://127.0.0.1:", "http://localhost:"))
    if url and not local and not url.startswith("https://"):
        raise ApiError(400, "Bad Request: bad webhook: An HTTPS URL must be provided for webhook")
    if parameters.get("drop_pending_updates"):
        bot.pending.clear()
    if isinstance(parameters.get("allowed_updates"), list):
        bot.allowed_updates = parameters["allowed_updates"]
    secret = str(parameters.get("secret_token") or "")
    bot.webhook = Webhook(url, secret, int(parameters.get("max_connections") or 40)) if url else None
    return True


def delete_webhook(bot: Bot, parameters: Json, files: Uploads) -> bool:
    if parameters.get("drop_pending_updates"):
        bot.pending.clear()
    bot.webhook = None
    return True


def get_webhook_info(bot: Bot, parameters: Json, files: Uploads) -> Json:
    webhook = bot.webhook
    info: Json = {
        "url": webhook.url if webhook else "",
        "has_custom_certificate": False,
        "pending_update_count": len(bot.pending),
    }
    if webhook is not None:
        info |= {"max_connections": webhook.max_connections, "ip_address": "127.0.0.1"}
        if webhook.last_error_message:
            info |= {"last_error_date": webhook.last_error_date, "last_error_message": webhook.last_error_message}
    if bot.allowed_updates:
        info["allowed_updates"] = bot.allowed_updates
    return info


def set_my_commands(bot: Bot, parameters: Json, files: Uploads) -> bool:
    commands = parameters.get("commands")
    if not isinstance(commands, list) or len(commands) > 100:
        raise ApiError(400, "Bad Request: can't parse BotCommand: expected an array of at most 100 commands")
    for command in commands:
        name, text = str(command.get("command", "")), str(command.get("description", ""))
        if not (1 <= len(name) <= 32 and name.replace("_", "").isalnum() and name == name.lower() and name.isascii()):
            raise ApiError(400, "Bad Request: BOT_COMMAND_INVALID")
        if not 1 <= len(text) <= 256:
            raise ApiError(400, "Bad Request: BOT_COMMAND_DESCRIPTION_INVALID")
    bot.commands = commands
    return True


def answer_callback_query(bot: Bot, parameters: Json, files: Uploads) -> bool:
    query_id = str(parameters.get("callback_query_id"))
    if query_id not in bot.callback_queries:
        text = "Bad Request: query is too old and response timeout expired or query ID is invalid"
        raise ApiError(400, text)
    bot.callback_queries.discard(query_id)
    return True


def get_chat(bot: Bot, parameters: Json, files: Uploads) -> Json:
    defaults = {"accent_color_id": 0, "max_reaction_count": 11}
    accepted = dict.fromkeys(("unlimited_gifts", "limited_gifts", "unique_gifts", "premium_subscription"), False)
    return {**chat_of(bot, parameters).body, **defaults, "accepted_gift_types": accepted}


def say_true(bot: Bot, parameters: Json, files: Uploads) -> bool:
    return True


def delete_my_commands(bot: Bot, parameters: Json, files: Uploads) -> bool:
    bot.commands = []
    return True


def _table(handlers: dict[str, Handler]) -> dict[str, tuple[str, Handler]]:
    return {name.lower(): (name, handler) for name, handler in handlers.items()}


MEDIA_METHODS = {f"send{kind.capitalize()}": send_media(kind) for kind in MEDIA_KINDS}
METHODS: dict[str, tuple[str, Handler]] = _table(
    {
        "getMe": lambda bot, parameters, files: bot.user,
        "getUpdates": say_true,
        "sendMessage": send_message,
        "editMessageText": edit_message_text,
        "deleteMessage": delete_message,
        "sendChatAction": send_chat_action,
        "sendMediaGroup": send_media_group,
        "getFile": get_file,
        "setWebhook": set_webhook,
        "deleteWebhook": delete_webhook,
        "getWebhookInfo": get_webhook_info,
        "setMyCommands": set_my_commands,
        "getMyCommands": lambda bot, parameters, files: bot.commands,
        "deleteMyCommands": delete_my_commands,
        "answerCallbackQuery": answer_callback_query,
        "getChat": get_chat,
        "close": say_true,
        "logOut": say_true,
        **MEDIA_METHODS,
    }
)
SENDS = frozenset({"sendMessage", "editMessageText", "sendMediaGroup", *MEDIA_METHODS})
