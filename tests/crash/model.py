"""A model that does what the person's message says, however often it is asked: `python -m tests.crash.model --port 0`.

A message is `t0010042 do look append; words 12; pace 40; fail 500`: a token, the tools to call one after the other, how many
words the answer has and the milliseconds before each, and how the first request fails (a status, or `drop` for a stream that
breaks off). The answer begins with `answer to TOKEN` and ends with `end of TOKEN`, so that a whole one can be told from a
part. What it says depends on the request alone: the next tool is the one behind the results that are there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from tests.emulators.model_common import ErrorTurn, Recorded, Settings, ToolCallTurn, Turn, main
from tests.emulators.openai import MODELS, OpenAIEmulator

ORDER = re.compile(r"\b(t\d{7})(?: do ([a-z ]+))?(?:; words (\d+))?(?:; pace (\d+))?(?:; hold (\d+))?(?:; fail (\w+))?")


@dataclass(frozen=True, slots=True)
class Order:
    """What a message asks for. `hold` is how many milliseconds each tool takes."""

    token: str
    tools: tuple[str, ...] = ()
    words: int = 3
    pace: int = 0
    hold: int = 0
    fail: str = ""

    @property
    def answer(self) -> str:
        """What the model answers."""
        words = " ".join(f"word{number}" for number in range(self.words))
        return f"answer to {self.token} {words} end of {self.token}"

    def text(self) -> str:
        """The message."""
        parts = [self.token + (f" do {' '.join(self.tools)}" if self.tools else "")]
        parts += [f"words {self.words}", f"pace {self.pace}", f"hold {self.hold}"]
        return "; ".join([*parts, f"fail {self.fail}"] if self.fail else parts)


def read_order(text: str) -> Order | None:
    """The order in a message, None where there is none."""
    found = ORDER.search(text)
    if found is None:
        return None
    token, tools, words, pace, hold, fail = found.groups()
    return Order(token, tuple((tools or "").split()), int(words or 3), int(pace or 0), int(hold or 0), fail or "")


def text_of(message: dict[str, Any]) -> str:
    """The text of a message of a request."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content or [])


def place_of(body: dict[str, Any]) -> tuple[Order | None, int]:
    """The order that a request is about, and how many tool results there are for it."""
    results = 0
    for message in reversed(body.get("messages") or []):
        if message.get("role") == "tool":
            results += 1
        elif message.get("role") == "user":
            return read_order(text_of(message)), results
    return None, results


class ObedientModel(OpenAIEmulator):
    """Answers each request by its last message; keeps of a request what it was about."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._failed: set[str] = set()

    async def complete(self, request: web.Request) -> web.StreamResponse:
        """As any model, but a gateway that is killed meanwhile is no error here."""
        try:
            return await super().complete(request)
        except ConnectionResetError:
            return web.Response()

    async def record(self, request: web.Request, body: Any) -> Recorded:
        order, results = place_of(body) if isinstance(body, dict) else (None, 0)
        recorded = await super().record(request, None)
        refused = self.refuse(request, body)
        recorded.headers = {}
        recorded.body = {
            "token": order.token if order is not None else None,
            "results": results,
            "refused": None if refused is None else refused.body,
        }
        return recorded

    def _next_turn(self, body: dict[str, Any]) -> Turn:
        order, results = place_of(body)
        if order is None:
            return super()._next_turn(body)
        if order.fail and order.token not in self._failed:
            self._failed.add(order.token)
            if order.fail == "drop":
                return Turn(text=order.answer, drop_after_chunks=3)
            return Turn(error=ErrorTurn(status=int(order.fail), retry_after=0.1))
        if results < len(order.tools):
            arguments = {"token": order.token, "step": results, "seconds": order.hold / 1000}
            return Turn(tool_calls=[ToolCallTurn(name=order.tools[results], arguments=arguments)], delay_ms=order.pace)
        return Turn(text=order.answer, delay_ms=order.pace)


if __name__ == "__main__":
    main(ObedientModel, Settings(context_tokens=128_000, models=MODELS))
