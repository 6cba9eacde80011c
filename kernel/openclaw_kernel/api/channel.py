"""The contract of a chat channel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from openclaw_kernel.api.messages import OutboundMessage, Progress, Receipt


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelCapabilities:
    """What the platform can do; a missing capability degrades, it never raises."""

    progress: bool = False
    """`show_progress` does something (typing, drafts)."""
    attachments: bool = False
    """Outgoing files are carried."""
    groups: bool = False
    threads: bool = False
    idempotent_send: bool = False
    """The platform itself drops a repeated `outbox_id`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountStatus:
    """State of one account. Times are Unix milliseconds; inbound is the last *completed receive cycle*."""

    account_id: str
    enabled: bool = True
    configured: bool = True
    running: bool = False
    connected: bool = False
    last_error: str | None = None
    last_inbound_at: int | None = None
    last_outbound_at: int | None = None
    detail: str | None = None
    """What the account is, for people: `@my_bot`."""


class SendFailed(Exception):
    """A message could not be sent.

    `permanent` means a further attempt cannot help; `unknown` that it may have arrived. `retry_after` is the pause in seconds
    that the platform asks for; such an attempt does not count against the limit. With `whole_account` the pause is for all that
    goes over the account, else for this conversation.
    """

    def __init__(
        self,
        message: str,
        *,
        permanent: bool = False,
        unknown: bool = False,
        retry_after: float | None = None,
        whole_account: bool = False,
    ) -> None:
        super().__init__(message)
        self.permanent = permanent
        self.unknown = unknown
        self.retry_after = retry_after
        self.whole_account = whole_account


@runtime_checkable
class Channel(Protocol):
    """One platform with all its accounts, registered by `openclaw_register_channels`."""

    id: str
    label: str
    capabilities: ChannelCapabilities

    async def start(self) -> None:
        """Begin to receive; return once every account is at work or has reported its own error in `status`.

        Raise `NotReady` to be tried again with back-off, `ConfigRejected` when retrying cannot help. Long-lived loops are
        spawned with `context.spawn` and end in `stop`.
        """

    async def stop(self) -> None:
        """Stop receiving and close every socket; safe to call twice and after a failed start."""

    async def send(self, message: OutboundMessage) -> Receipt:
        """Send one message, split and rendered for the platform; raise `SendFailed`."""

    async def show_progress(self, progress: Progress) -> None:
        """Show a running turn (typing, draft); called only with the `progress` capability; must return quickly."""

    def status(self) -> Sequence[AccountStatus]:
        """Return the state of each account, without I/O."""
