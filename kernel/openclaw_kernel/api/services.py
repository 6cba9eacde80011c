"""What plugins ask the kernel for, by Protocol type: `context.service(Channels)`."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, Protocol

from openclaw_kernel.api.channel import AccountStatus, ChannelCapabilities
from openclaw_kernel.api.command import Command
from openclaw_kernel.api.messages import InboundMessage, OutboundMessage, Progress, Receipt, Target
from openclaw_kernel.api.methods import Method
from openclaw_kernel.api.policy import Admission, Route
from openclaw_kernel.api.provider import ModelEvent, ModelInfo, ModelRequest
from openclaw_kernel.api.tool import Tool, ToolContext, ToolResult

if TYPE_CHECKING:
    from aiohttp import web


class PluginState(StrEnum):
    """The life of a plugin."""

    DISCOVERED = "discovered"
    DISABLED = "disabled"
    UNAVAILABLE = "unavailable"
    LOADED = "loaded"
    STARTED = "started"
    DEGRADED = "degraded"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginStatus:
    """State of one plugin. `since_ms` is Unix milliseconds; `reason` is one line with the cure."""

    id: str
    kind: Literal["channel", "provider", "plugin"]
    version: str
    distribution: str
    state: PluginState
    reason: str | None
    since_ms: int
    bundled: bool


class Events(Protocol):
    """Events to WebSocket clients; the protocol's table decides which scope an event needs."""

    def broadcast(
        self,
        event: str,
        payload: Mapping[str, Any],
        *,
        topics: Collection[str] | None = None,
        scoped_topic: str | None = None,
        connections: Collection[str] | None = None,
        exclude: Collection[str] = (),
        droppable: bool = False,
        replaces: str | None = None,
    ) -> None:
        """Send to every client whose role and scopes allow the event; encoded once, with each connection's own `seq`.

        `topics`: only to subscribers of any of them. `scoped_topic`: clients with the cap `session-scoped-events` get it only as its
        subscribers, all others always. `connections`: only these, without a `seq`; `exclude`: never these (connection ids). `replaces`:
        this event tells all that those before it with the same key told, so that whoever comes back later is sent the newest of them alone.
        """
        ...


class GapReason(StrEnum):
    """Why events are missing.

    `too-old`: no longer kept. `unknown`: the cursor is not of this log, or of a state that was replaced by an older one. `crash`: the
    process before ended before it had written all. `lost`: the disk did not take them. `paused`: nobody had asked for so long that
    nothing was recorded.
    """

    TOO_OLD = "too-old"
    UNKNOWN = "unknown"
    CRASH = "crash"
    LOST = "lost"
    PAUSED = "paused"


@dataclass(frozen=True, slots=True, kw_only=True)
class EventGap:
    """Why a client did not get all events since its cursor; `oldest_ms` is the time of the oldest that is kept."""

    reason: GapReason
    oldest_ms: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EventSubscription:
    """Where a connection's events begin."""

    cursor: str
    gap: EventGap | None


class EventReplay(Protocol):
    """Events with a cursor, from the log: a client that comes back gets what it missed, in order, or is told of a gap."""

    async def subscribe(self, connection_id: str, *, since: str | None, events: Collection[str] | None) -> EventSubscription:
        """Send what is recorded as `events.item` from the cursor `since` on, or from now; replaces a subscription before.

        `events` narrows it to these. Raise `InvalidRequest` for what is no cursor and for an event that is not recorded.
        """
        ...

    def unsubscribe(self, connection_id: str) -> str | None:
        """Send plain events again; return the cursor that was reached, None where there was no subscription."""
        ...


class Channels(Protocol):
    """The registered channels, each call guarded: deadline, culprit named."""

    def ids(self) -> Sequence[str]: ...
    def label(self, channel: str) -> str: ...
    def capabilities(self, channel: str) -> ChannelCapabilities | None:
        """Return None for a channel that is not running here."""
        ...

    def status(self, channel: str) -> Sequence[AccountStatus]: ...
    async def send(self, message: OutboundMessage) -> Receipt:
        """Raise `SendFailed`, also for an unknown channel (permanent) and a late one (unknown)."""
        ...

    def show_progress(self, progress: Progress) -> None:
        """Pass it on without waiting; a channel that is behind skips to the newest."""
        ...

    async def start(self, channel: str) -> bool:
        """Start a stopped or failed channel; return False where it was running. Raise `InvalidRequest` for an unknown one."""
        ...

    async def stop(self, channel: str) -> bool:
        """Stop a channel until it is started again; return False where it was stopped."""
        ...


class Providers(Protocol):
    """The registered model providers."""

    def ids(self) -> Sequence[str]: ...
    def models(self) -> Sequence[ModelInfo]:
        """Return all known models; the first is the gateway's default choice."""
        ...

    def find(self, ref: str) -> ModelInfo | None:
        """Resolve `provider/model`, or a bare provider id to its first model."""
        ...

    def problem(self, provider: str) -> str | None: ...
    def stream(self, provider: str, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """Call a model; every failure leaves as `ProviderError`."""
        ...


class Tools(Protocol):
    """The registered tools."""

    def all(self) -> Sequence[Tool[Any]]: ...
    def source(self, name: str) -> str:
        """Return the id of the plugin that registered the tool."""
        ...

    async def run(self, name: str, context: ToolContext, arguments: Mapping[str, Any]) -> ToolResult:
        """Validate the arguments, run with the tool's deadline; every failure is an error result for the model."""
        ...


class Commands(Protocol):
    """The registered chat commands."""

    def all(self) -> Sequence[Command]: ...
    def find(self, text: str) -> tuple[Command, str] | None:
        """Return the command a message is, with its arguments; `/name@bot` and aliases included."""
        ...


class Policies(Protocol):
    """The decisions of routing and admission plugins."""

    def route(self, message: InboundMessage) -> Route:
        """Decide agent and session; the same message and config give the same route."""
        ...

    def admit(self, message: InboundMessage, route: Route) -> Admission: ...


@dataclass(frozen=True, slots=True)
class TlsState:
    """The certificate that new connections get: its SHA-256 fingerprint as openssl shows it, and when it ends."""

    fingerprint: str
    expires_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopBlock:
    """The event loop did not run for a while. `plugin_id` is None where it was no plugin's code; `ended_ms` is Unix milliseconds."""

    plugin_id: str | None
    place: str
    seconds: float
    ended_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopLag:
    """How late the event loop was within the last `window_seconds`: quantiles in milliseconds, and its blocks, oldest first.

    `loop_share` is the part of the time in which its thread computed, `process_share` how many processors the whole process used.
    """

    window_seconds: float
    interval_ms: float
    samples: int
    p50_ms: float
    p99_ms: float
    max_ms: float
    loop_share: float
    process_share: float
    blocks: Sequence[LoopBlock]


class Gateway(Protocol):
    """Facts about the running gateway."""

    @property
    def version(self) -> str: ...
    @property
    def boot_id(self) -> str: ...
    @property
    def started_at_ms(self) -> int: ...
    @property
    def ready(self) -> bool: ...
    def reasons(self) -> Sequence[str]:
        """Return why it is not ready, or what is degraded, a line each."""
        ...

    def plugins(self) -> Sequence[PluginStatus]: ...
    @property
    def url(self) -> str:
        """Return `http://host:port/base`, or https, as a browser on this machine reaches it."""
        ...

    @property
    def tls(self) -> TlsState | None:
        """Return the certificate that is served; None where the port speaks no TLS."""
        ...

    def methods(self) -> Sequence[Method]: ...
    def presence(self) -> Sequence[Mapping[str, Any]]: ...
    def presence_json(self) -> bytes:
        """Return the presence list as JSON, encoded once per change."""
        ...

    def record_presence(self, entry: Mapping[str, Any]) -> None:
        """Add or refresh an entry (from `system-event`) and tell the clients."""
        ...

    def served(self) -> Mapping[str, Any]:
        """Return which config is in force: `{generation, hash, serving, safeMode}`; `serving` is `newest` or `last-good`."""
        ...

    def health(self, *, fresh: bool = False) -> Mapping[str, Any]:
        """Return channels, agents and sessions, at most a minute old, or of now."""
        ...

    def loop_lag(self) -> LoopLag:
        """Return how late the event loop runs what is due."""
        ...

    def loop_blocks(self, since_ms: int, until_ms: int) -> Sequence[LoopBlock]:
        """Return when it did not run in this time, and who kept it; of the last 200 blocks of this process."""
        ...

    def config_snapshot(self) -> Mapping[str, Any]:
        """Return the redacted `config.get` result."""
        ...

    def config_schema(self) -> Mapping[str, Any]:
        """Return the JSON Schema of the config with every loaded plugin's section."""
        ...

    def tail_log(self, *, cursor: int | None, limit: int, max_bytes: int) -> Mapping[str, Any]: ...


class Connections(Protocol):
    """The open WebSocket connections, by principal (`device:<id>`)."""

    def are_open(self, principal: str, *, role: str | None = None) -> bool:
        """Tell whether the principal is connected, in this role where one is given."""
        ...

    def grant_surface(self, principal: str, *, caps: Collection[str], commands: Collection[str]) -> None:
        """Let the open connections of a node have what of these they declared."""
        ...

    def invalidate(self, principal: str, reason: str, *, role: str | None = None, answering: str | None = None) -> int:
        """Run no further request of the principal's connections (of this role) and close them with 4001; return how many.

        The connection with the id `answering` is closed a moment later, so that the answer to its request still leaves.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartSentinel:
    """What is told once after a restart, and where."""

    reason: str
    note: str
    session_key: str | None
    """The session that is told, as the client named it."""
    target: Target | None
    """The place that is told beside the session; None means where the session's messages came from."""
    requested_ms: int


class Restarts(Protocol):
    """Restarting the gateway in place."""

    @property
    def pending(self) -> bool:
        """Return whether a restart is under way."""
        ...

    async def check(self) -> None:
        """Raise `InvalidRequest` where the next process could not start: openclaw.yaml has become unusable."""
        ...

    def write(self, connection: sqlite3.Connection, sentinel: RestartSentinel) -> None:
        """Write what is to be told after the next start, inside a write of the caller's own."""
        ...

    def take(self, connection: sqlite3.Connection) -> Sequence[RestartSentinel]:
        """Take what earlier processes left to be told, inside the write that tells it: then it is told once."""
        ...

    def begin(self, reason: str, delay_seconds: float) -> None:
        """Restart after the delay; what is on disk must be there before. One that is under way stays as it is."""
        ...


class PageAccess(Protocol):
    """How a browser page gets in: a one-time code from a link, exchanged once for a session in a cookie."""

    def mint_code(self) -> tuple[str, int]:
        """Return a new code and when it expires (Unix milliseconds)."""
        ...

    async def exchange(self, request: web.Request, code: str) -> str | None:
        """Consume a code; return the value for the cookie, None where the code is unknown, used or expired.

        Raise `InvalidRequest` where the page's Origin is foreign or its address is locked out.
        """
        ...

    def authenticated(self, request: web.Request) -> bool:
        """Tell whether the request carries the cookie of a live session, from the gateway's own origin."""
        ...

    async def admits(self, request: web.Request) -> bool:
        """Tell whether a page may connect without a code: it has a live session, or its request proves who sends it."""
        ...

    @property
    def cookie_name(self) -> str: ...
    @property
    def session_seconds(self) -> int: ...
