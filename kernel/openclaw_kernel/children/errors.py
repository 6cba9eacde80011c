"""What an error of the contract is called: its codes, and the exceptions on either side."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any


class Code(IntEnum):
    """The `code` of an error object; those from -32000 on are the contract's own."""

    PARSE = -32700
    INVALID_REQUEST = -32600
    METHOD_NOT_FOUND = -32601
    INVALID_PARAMS = -32602
    INTERNAL = -32603
    BUSY = -32000
    """As many requests as may be under way are; ask again when one was answered."""
    CANCELLED = -32001
    NOT_READY = -32002
    """Of `start` and `channel.start`: try again later with back-off."""
    CONFIG_REJECTED = -32003
    """The settings cannot work. `data` is `{key, found, cure}`."""
    SEND_FAILED = -32004
    """Of `channel.send`. `data` is `{permanent, unknown, retryAfter, wholeAccount}`."""
    UNAVAILABLE = -32005
    """The gateway cannot take it now, as when its disk is full; ask again with back-off."""
    TOOL_FAILED = -32006
    """Of `tool.run`: the message is for the model."""
    FORBIDDEN = -32007


class RpcError(Exception):
    """An error object, received or about to be sent."""

    def __init__(self, code: int, message: str, data: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data or {}

    def to_wire(self) -> dict[str, Any]:
        """Return the `error` object."""
        wire: dict[str, Any] = {"code": int(self.code), "message": self.message}
        if self.data:
            wire["data"] = dict(self.data)
        return wire


class PeerClosed(Exception):
    """The other side is gone, or was given up; the message says why."""


class NotAsked(PeerClosed):
    """It was gone before anything of the request was written."""


class ContractBroken(Exception):
    """The other side wrote what the contract does not allow; the message says what, and shows its beginning."""


class CutOff(ContractBroken):
    """Its stream ended in the middle of a line."""
