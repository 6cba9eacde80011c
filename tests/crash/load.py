"""What people and clients send in one block of cycles, drawn from a seed."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal

from tests.crash.model import Order

Kind = Literal["order", "command", "stop", "stranger"]
FRIENDS = tuple(range(1001, 1007))
STRANGERS = range(9001, 9100)
COMMANDS = ("/status", "/help")
TOOLS = ("look", "put", "append")
TOOL_WEIGHTS = (1, 1, 3)


@dataclass(slots=True)
class Said:
    """One message of a person. `update_id` and `message_id` are there once the emulator has it."""

    kind: Kind
    chat: int
    text: str
    order: Order | None = None
    update_id: int = 0
    message_id: int = 0


@dataclass(slots=True)
class Asked:
    """One request of a WebSocket client, sent again with the same key until it has an answer, and sometimes after."""

    method: Literal["chat.send", "agent", "send"]
    key: str
    token: str
    params: dict[str, Any]
    answers: list[dict[str, Any]] = field(default_factory=list)
    """Payloads of the answers that were ok."""
    refusals: list[str] = field(default_factory=list)
    """Errors that no repeat will change."""

    @property
    def answered(self) -> bool:
        """Whether a client would ask no more."""
        return bool(self.answers or self.refusals)


@dataclass(frozen=True, slots=True)
class Wave:
    """What is sent in one cycle, in order, and which send to Telegram goes wrong meanwhile."""

    said: Sequence[Said]
    asked: Sequence[Asked]
    repeats: bool
    """Whether Telegram delivers an update once more that it was told we have."""
    trouble: dict[str, Any] | None


class Load:
    """Draws waves; every token is used once."""

    def __init__(self, block: int, random: Random) -> None:
        self._block = block
        self._random = random
        self._numbers = itertools.count(1)
        self._strangers = iter(STRANGERS)

    def wave(self) -> Wave:
        """The next cycle's."""
        random = self._random
        said = list(itertools.chain.from_iterable(self._words() for _ in range(random.randint(3, 5))))
        asked = [self._request() for _ in range(random.randint(1, 2))]
        return Wave(said, asked, repeats=random.random() < 0.2, trouble=self._trouble())

    def _token(self) -> str:
        return f"t{self._block:04}{next(self._numbers):03}"

    def _words(self) -> list[Said]:
        random = self._random
        chat = random.choice(FRIENDS)
        (kind,) = random.choices(("plain", "tools", "slow", "fails", "command", "stopped", "stranger"), (30, 30, 8, 10, 6, 10, 6))
        if kind == "command":
            return [Said("command", chat, random.choice(COMMANDS))]
        if kind == "stranger":
            stranger = next(self._strangers)
            return [Said("stranger", stranger, f"{self._token()} let me in") for _ in range(2)]
        if kind == "stopped":
            tools = tuple(random.choices(TOOLS, k=random.randint(0, 2)))
            order = Order(self._token(), tools, words=30, pace=random.choice((20, 60)), hold=random.choice((0, 300)))
            return [self._order(chat, order), Said("stop", chat, random.choice(("/stop", "stop")))]
        if kind == "slow":
            return [self._order(chat, Order(self._token(), words=20, pace=80))]
        if kind == "fails":
            return [self._order(chat, Order(self._token(), fail=random.choice(("500", "429", "drop", "400"))))]
        return [self._order(chat, self._plain(with_tools=kind == "tools"))]

    def _order(self, chat: int, order: Order) -> Said:
        return Said("order", chat, order.text(), order)

    def _plain(self, *, with_tools: bool) -> Order:
        random = self._random
        tools = tuple(random.choices(TOOLS, TOOL_WEIGHTS, k=random.randint(1, 3))) if with_tools else ()
        return Order(self._token(), tools, words=random.randint(1, 6), pace=random.choice((0, 5, 20)), hold=random.choice((0, 0, 50)))

    def _request(self) -> Asked:
        random = self._random
        method: Literal["chat.send", "agent", "send"] = random.choices(("chat.send", "agent", "send"), (3, 3, 2))[0]
        order = self._plain(with_tools=random.random() < 0.4)
        key = f"key-{order.token}"
        params: dict[str, Any] = {"message": order.text(), "idempotencyKey": key}
        if method == "send":
            notice = f"notice {order.token} end of {order.token}"
            params |= {"to": str(random.choice(FRIENDS)), "channel": "telegram", "message": notice}
        else:
            params["sessionKey"] = f"clients-{random.randint(1, 2)}"
        return Asked(method, key, order.token, params)

    def _trouble(self) -> dict[str, Any] | None:
        random = self._random
        if random.random() > 0.35:
            return None
        return random.choice(
            (
                {"mode": "drop", "after_accept": True},
                {"mode": "drop"},
                {"mode": "status", "status": 429, "retry_after": 1},
                {"mode": "status", "status": 502},
            )
        )
