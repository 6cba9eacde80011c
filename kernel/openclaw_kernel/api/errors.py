"""The error tree: what a caller on the wire is told, and how a plugin answers by exception.

`GatewayError` and its children become a response's `error`; each carries the protocol's code. `NotReady`,
`ConfigRejected` and `ProviderError` are how plugins speak to the host.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, ClassVar


class GatewayError(Exception):
    """An error with a wire code. `details` is a JSON object; `retry_after_ms` implies `retryable`.

    `payload` is sent beside the error, for the methods that define one for failures (`agent`).
    """

    code: ClassVar[str] = "UNAVAILABLE"

    def __init__(
        self,
        message: str,
        *,
        details: dict[str, Any] | None = None,
        retryable: bool = False,
        retry_after_ms: int | None = None,
        payload: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.payload = payload
        self.message = message
        self.details = details
        self.retryable = retryable or retry_after_ms is not None
        self.retry_after_ms = retry_after_ms

    def to_wire(self) -> dict[str, Any]:
        """Return the response's `error` object."""
        wire: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.details is not None:
            wire["details"] = self.details
        if self.retryable:
            wire["retryable"] = True
        if self.retry_after_ms is not None:
            wire["retryAfterMs"] = self.retry_after_ms
        return wire


class InvalidRequest(GatewayError):
    """The caller sent something that cannot be carried out as it is."""

    code = "INVALID_REQUEST"


class Forbidden(GatewayError):
    """The caller lacks a scope."""

    code = "FORBIDDEN"


class NotPaired(GatewayError):
    """The caller must prove or pair a device first."""

    code = "NOT_PAIRED"


class Unavailable(GatewayError):
    """The gateway, a plugin or a peer cannot do it now."""

    code = "UNAVAILABLE"


class AgentTimeout(GatewayError):
    """A turn did not end in its time."""

    code = "AGENT_TIMEOUT"


class NotReady(Exception):
    """Raised by `start`: try again later with back-off; the message says what is missing."""


class ConfigRejected(Exception):
    """Raised by a plugin's constructor or `start`: the settings cannot work and retrying will not help.

    `key` is the full path (`channels.telegram.botToken`), `found` says what was found, `cure` what to do.
    """

    def __init__(self, key: str, found: str, cure: str) -> None:
        super().__init__(f"{key}: {found}; {cure}")
        self.key = key
        self.found = found
        self.cure = cure


class ProviderErrorKind(StrEnum):
    """Why a model call failed. The runtime above decides what follows from it."""

    AUTH = "auth"
    RATE_LIMIT = "rate_limit"
    OVERLOADED = "overloaded"
    CONTEXT_LENGTH = "context_length"
    BAD_REQUEST = "bad_request"
    NOT_FOUND = "not_found"
    REFUSAL = "refusal"
    TIMEOUT = "timeout"
    NETWORK = "network"
    UNAVAILABLE = "unavailable"


class ProviderError(Exception):
    """A model call failed. `retry_after` is in seconds, where the provider told it."""

    def __init__(
        self,
        kind: ProviderErrorKind,
        message: str,
        *,
        provider: str,
        model: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.provider = provider
        self.model = model
        self.retry_after = retry_after


class ToolError(Exception):
    """A tool could not do it; the message goes to the model as the call's result."""
