"""`TelegramEmulator`: starts the Bot API emulator as a process and speaks its control API."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

Json = dict[str, Any]
REPOSITORY = Path(__file__).resolve().parents[2]
TOKEN = "1001:TEST"
START_SECONDS = 20.0


class TelegramEmulator:
    """Async context manager around one emulator process with one bot per token (the first is the default).

    `base_url` is what a bot library wants before the token, `base_file_url` likewise for downloads, `api_root` the
    address without either. Every method takes `token` to mean a bot other than the first. With `attach`, the port of
    an emulator that runs already, no process is started and the first bot is made new in that one.
    """

    def __init__(self, *, tokens: tuple[str, ...] = (TOKEN,), port: int = 0, attach: int | None = None) -> None:
        self.token = tokens[0]
        self._tokens = tokens
        self._port = port
        self._attach = attach
        self._process: asyncio.subprocess.Process | None = None
        self._session: aiohttp.ClientSession | None = None
        self.port = attach or 0

    @property
    def api_root(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        return f"{self.api_root}/bot"

    @property
    def base_file_url(self) -> str:
        return f"{self.api_root}/file/bot"

    async def __aenter__(self) -> Self:
        if self._attach is None:
            await self._start()
        self._session = aiohttp.ClientSession()
        if self._attach is not None:
            await self.add_bot(self.token, username="emulated_bot")
        return self

    async def _start(self) -> None:
        arguments = [argument for token in self._tokens for argument in ("--token", token)]
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.emulators.telegram", "--port", str(self._port), "--until-stdin-closes",
            *arguments, cwd=REPOSITORY, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert self._process.stdout is not None
        try:
            line = await asyncio.wait_for(self._process.stdout.readline(), START_SECONDS)
            self.port = int(json.loads(line)["port"])
        except BaseException:
            await self.stop()
            raise

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._session is not None:
            await self._session.close()
        await self.stop()

    async def stop(self) -> None:
        """End the process this one started, as when Telegram cannot be reached any more."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), 5)
        except TimeoutError:
            process.kill()
            await process.wait()

    async def _call(self, verb: str, path: str, **fields: Any) -> Any:
        assert self._session is not None, "the emulator is not running"
        given = {"token": self.token} | {key: value for key, value in fields.items() if value is not None}
        sent: Json = {"json": given} if verb == "POST" else {"params": {k: str(v) for k, v in given.items()}}
        async with self._session.request(verb, f"{self.api_root}/_control/{path}", **sent) as response:
            if response.status != 200:
                raise AssertionError(f"emulator control {path} answered {response.status}: {await response.text()}")
            return await response.json()

    async def user_message(self, text: str | None = None, *, chat_id: int = 42, **fields: Any) -> Json:
        """A person writes. Gives `update_id` and `message_id`.

        Fields: `sender` (the `from` object), `caption`, `photo`/`document`/`voice`/... (bytes, or an object with
        `content` bytes, `file_name`, `mime_type`, `size`), `media_group_id`, `message_thread_id`, `chat_type`,
        `chat_title`, `reply_to_message_id`, `edited` with `message_id`, `token`.
        """
        sender = fields.pop("sender", None)
        for name, value in list(fields.items()):
            if isinstance(value, bytes):
                fields[name] = base64.b64encode(value).decode()
            elif isinstance(value, dict) and isinstance(value.get("content"), bytes):
                fields[name] = {**value, "content": base64.b64encode(value["content"]).decode()}
        message: Json = await self._call("POST", "user_message", text=text, chat_id=chat_id, **{"from": sender}, **fields)
        return message

    async def update(self, kind: str, body: Json, *, token: str | None = None) -> int:
        """Queue any update; gives its id."""
        return int((await self._call("POST", "update", kind=kind, body=body, token=token))["update_id"])

    async def open_chat(self, chat_id: int, *, token: str | None = None, **fields: Any) -> None:
        """Make a chat known to the bot without a message in it."""
        await self._call("POST", "chat", chat_id=chat_id, token=token, **fields)

    async def add_bot(self, token: str, *, username: str | None = None) -> None:
        await self._call("POST", "add_bot", token=token, username=username)

    async def remove_bot(self, token: str) -> None:
        """Revoke a token: calls with it are answered 401 from now on."""
        await self._call("POST", "remove_bot", token=token)

    async def repeat(self, update_id: int | None = None, *, token: str | None = None) -> None:
        """Deliver an update that was delivered before once more, the last one without an id."""
        await self._call("POST", "repeat", update_id=update_id, token=token)

    async def fault(self, method: str, mode: str = "status", **fields: Any) -> None:
        """Let calls of `method` go wrong: `hang`, `drop`, `status`, `garbage` (no JSON) or `odd` (a result of another shape).

        Fields: `status`, `description`, `retry_after`, `times` (-1 is for ever), `skip` (let so many pass first),
        `after_accept` (carry the call out and record it, then go wrong), `chat_id`, `token`.
        """
        await self._call("POST", "fault", method=method, mode=mode, **fields)

    async def clear_faults(self) -> None:
        await self._call("POST", "clear_faults")

    async def flood(self, limit: int, *, seconds: float = 1.0, retry_after: int = 1, token: str | None = None) -> None:
        """Answer 429 to more than `limit` sends and edits per chat in `seconds`; 0 allows everything."""
        await self._call("POST", "flood", limit=limit, seconds=seconds, retry_after=retry_after, token=token)

    async def sent(self, *, token: str | None = None) -> Json:
        """`calls` (accepted, in order), `visible` and `messages` (deleted ones too) by chat id as text."""
        answer: Json = await self._call("GET", "sent", token=token)
        return answer

    async def visible(self, chat_id: int = 42, *, token: str | None = None) -> list[Json]:
        """The bot's messages a person sees in a chat now."""
        messages: list[Json] = (await self.sent(token=token))["visible"].get(str(chat_id), [])
        return messages

    async def calls(self, method: str | None = None, *, token: str | None = None) -> list[Json]:
        """Every call that arrived, accepted or not, with `status` and `at` (seconds)."""
        answer: list[Json] = await self._call("GET", "calls", method=method, token=token)
        return answer

    async def stats(self, *, token: str | None = None) -> Json:
        answer: Json = await self._call("GET", "stats", token=token)
        return answer

    async def wait(self, *, timeout: float = 10.0, **conditions: Any) -> list[Json]:
        """Wait until all conditions hold and give the visible messages; AssertionError after `timeout` seconds.

        Conditions: `count` and `contains` (visible bot messages, in `chat_id` when given), `accepted` or `attempted`
        (a method) with `times`, `confirmed` (an update id), `polls_running`, `webhook_deliveries`.
        """
        answer = await self._call("GET", "wait", timeout=timeout, **conditions)
        if not answer["satisfied"]:
            raise AssertionError(f"not within {timeout} s: {conditions}; seen {answer['messages']}; {answer['stats']}")
        messages: list[Json] = answer["messages"]
        return messages
