"""The Bot API over python-telegram-bot: clients, what their errors mean, bounded downloads. Imported on first use."""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import dataclass
from typing import Any, Final

import httpx
from telegram import Bot
from telegram.error import (
    BadRequest,
    ChatMigrated,
    Conflict,
    Forbidden,
    InvalidToken,
    NetworkError,
    TelegramError,
    TimedOut,
)
from telegram.request import BaseRequest, HTTPXRequest, RequestData
from typing_extensions import override

from openclaw_channels.telegram.settings import AccountSettings

TOO_MANY_REQUESTS = 429
SHORTEST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 86_400.0
BAD_ANSWER: Final = (AttributeError, KeyError, TypeError, ValueError)
"""What the library raises on an answer it does not understand."""
CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 20.0
DOWNLOAD_SECONDS = 60.0
DOWNLOAD_CHUNK_BYTES = 64 * 1024

# Reading the certificates takes longer than a request; this module is imported on a thread.
TLS: Final = httpx.create_ssl_context()

# Their lines hold the address of every request, and with it the bot's token.
for _name in ("httpx", "httpcore"):
    logging.getLogger(_name).setLevel(logging.WARNING)


class Flooded(TelegramError):
    """Telegram wants silence for `seconds`."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"Telegram wants a pause of {seconds:g} s")
        self.seconds = seconds


class FileTooLarge(Exception):
    """A file is larger than the limit; nothing of it is kept."""


class Request(HTTPXRequest):
    """The library's request with 429 as `Flooded`: its own `RetryAfter` warns at each use of a coming change."""

    @override
    async def do_request(
        self,
        url: str,
        method: str,
        request_data: RequestData | None = None,
        read_timeout: Any = BaseRequest.DEFAULT_NONE,
        write_timeout: Any = BaseRequest.DEFAULT_NONE,
        connect_timeout: Any = BaseRequest.DEFAULT_NONE,
        pool_timeout: Any = BaseRequest.DEFAULT_NONE,
    ) -> tuple[int, bytes]:
        status, body = await super().do_request(
            url,
            method,
            request_data,
            read_timeout=read_timeout,
            write_timeout=write_timeout,
            connect_timeout=connect_timeout,
            pool_timeout=pool_timeout,
        )
        if status == TOO_MANY_REQUESTS:
            raise Flooded(retry_after_of(body))
        return status, body


def retry_after_of(body: bytes) -> float:
    """Return the seconds of silence that a 429 asks for, a day at most; 1 where it does not tell."""
    try:
        seconds = float(json.loads(body)["parameters"]["retry_after"])
    except (ValueError, KeyError, TypeError):
        return SHORTEST_PAUSE_SECONDS
    return min(seconds, LONGEST_PAUSE_SECONDS) if seconds > 0 else SHORTEST_PAUSE_SECONDS


@dataclass(frozen=True, slots=True)
class Client:
    """A bot with the connections it owns."""

    bot: Bot
    requests: tuple[Request, ...]
    files: httpx.AsyncClient

    async def close(self) -> None:
        """Close every connection, without waiting for the peer."""
        for request in self.requests:
            await request.shutdown()
        await self.files.aclose()


def open_client(settings: AccountSettings, *, connections: int) -> Client:
    """Make a client with up to `connections` at once; nothing is connected yet."""
    if settings.bot_token is None:
        raise ValueError("a client needs a bot token")
    root = settings.api_root.rstrip("/")

    def request(size: int) -> Request:
        return Request(
            connection_pool_size=size,
            connect_timeout=CONNECT_SECONDS,
            read_timeout=ANSWER_SECONDS,
            write_timeout=ANSWER_SECONDS,
            pool_timeout=ANSWER_SECONDS,
            proxy=settings.proxy,
            httpx_kwargs={"verify": TLS},
        )

    requests = (request(1), request(connections))
    bot = Bot(
        settings.bot_token.unwrap(),
        base_url=f"{root}/bot",
        base_file_url=f"{root}/file/bot",
        get_updates_request=requests[0],
        request=requests[1],
    )
    timeout = httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS)
    return Client(bot, requests, httpx.AsyncClient(proxy=settings.proxy, timeout=timeout, verify=TLS))


async def download(client: Client, file_id: str, *, limit: int) -> bytes:
    """Load a file of at most `limit` bytes; raise `FileTooLarge` before more is read, TelegramError for the rest."""
    async with asyncio.timeout(DOWNLOAD_SECONDS):
        try:
            file = await client.bot.get_file(file_id)
        except BadRequest as error:
            if "too big" in error.message.lower():
                raise FileTooLarge from error
            raise
        if (file.file_size or 0) > limit:
            raise FileTooLarge
        content = bytearray()
        try:
            async with client.files.stream("GET", str(file.file_path)) as response:
                if not response.is_success:
                    raise NetworkError(f"the file server answered {response.status_code}")
                async for chunk in response.aiter_bytes(DOWNLOAD_CHUNK_BYTES):
                    content += chunk
                    if len(content) > limit:
                        raise FileTooLarge
        except httpx.HTTPError as error:
            raise NetworkError(f"{type(error).__name__} while a file was loaded") from error
        return bytes(content)


def describe(error: BaseException, settings: AccountSettings) -> str:
    """Return an error in one line, without the token whatever the error holds."""
    late = isinstance(error, TimeoutError | TimedOut)
    text = "no answer in time" if late else " ".join(str(error).split()) or type(error).__name__
    token = settings.bot_token.unwrap() if settings.bot_token else ""
    return text.replace(token, "<token>") if token else text


def was_not_sent(error: BaseException) -> bool:
    """Whether an error proves that Telegram did not carry the call out."""
    if isinstance(error, Flooded | BadRequest | Forbidden | InvalidToken | Conflict | ChatMigrated):
        return True
    if isinstance(error, NetworkError):
        cause = error.__cause__
        # Without a cause Telegram itself refused, with a status of 500 or above.
        return cause is None or isinstance(cause, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout | httpx.ProxyError)
    return False
