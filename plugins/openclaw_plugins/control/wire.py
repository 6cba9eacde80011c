"""Params and results of the control methods."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import ConfigDict, Field, StringConstraints
from typing_extensions import TypedDict

from openclaw_kernel.api import Params

ChannelId = Annotated[str, StringConstraints(min_length=1, max_length=128)]
NonEmpty = Annotated[str, StringConstraints(min_length=1)]


class Nothing(Params):
    """No params."""


class SystemEventParams(Params):
    """A beacon: what somebody says of itself for the presence list."""

    text: NonEmpty
    host: str | None = None
    ip: str | None = None
    version: str | None = None
    platform: str | None = None
    device_family: str | None = None
    model_identifier: str | None = None
    time_zone: str | None = None
    mode: str | None = None
    last_input_seconds: Annotated[int, Field(ge=0)] | None = None
    reason: str | None = None
    tags: list[str] | None = None
    device_id: str | None = None
    roles: list[str] | None = None
    scopes: list[str] | None = None
    instance_id: str | None = None


class DeliveryContext(Params):
    """A place outside of the gateway that is told, beside a session."""

    model_config = ConfigDict(extra="ignore")

    channel: ChannelId | None = None
    to: NonEmpty | None = None
    account_id: str | None = None
    thread_id: str | int | None = None


class RestartParams(Params):
    """Open, as the reference has it: what a client asks for beside this is not heeded.

    `session_key` is the session that is told after the start, `delivery_context` a place that is told as well.
    """

    model_config = ConfigDict(extra="allow")

    reason: Annotated[str, StringConstraints(max_length=500)] | None = None
    note: Annotated[str, StringConstraints(max_length=4000)] | None = None
    session_key: Annotated[str, StringConstraints(min_length=1, max_length=512)] | None = None
    delivery_context: DeliveryContext | None = None
    restart_delay_ms: Annotated[int, Field(ge=0, le=3_600_000)] = 0
    idempotency_key: NonEmpty | None = None


class HealthParams(Params):
    """`probe` asks for a fresh look; every answer is at most a minute old anyway."""

    probe: bool = False
    timeout_ms: Annotated[int, Field(ge=0)] | None = None


class StatusParams(Params):
    """`include_cli_projection` adds what a command line elsewhere shows; the rest is accepted for the reference's clients."""

    probe: bool = False
    timeout_ms: Annotated[int, Field(ge=0)] | None = None
    include_channel_summary: bool = True
    include_cli_projection: bool = False


class ChannelsStatusParams(Params):
    """Which channels, and whether to probe."""

    probe: bool = False
    timeout_ms: Annotated[int, Field(ge=0)] | None = None
    channel: ChannelId | None = None


class ChannelParams(Params):
    """A channel by id; accounts of one channel start and stop together."""

    channel: ChannelId
    account_id: str | None = None


class CommandsListParams(Params):
    """Filters of `commands.list`."""

    session_key: NonEmpty | None = None
    agent_id: NonEmpty | None = None
    provider: NonEmpty | None = None
    scope: Literal["text", "native", "both"] | None = None
    include_args: bool = False


class LogsTailParams(Params):
    """`cursor` is a byte offset from an earlier answer."""

    cursor: Annotated[int, Field(ge=0)] | None = None
    limit: Annotated[int, Field(ge=1, le=5000)] = 500
    max_bytes: Annotated[int, Field(ge=1, le=1_000_000)] = 250_000


class Ok(TypedDict):
    ok: Literal[True]


class RestartResult(TypedDict):
    """`restart` is `{pid, bootId, delayMs, reason}`; `sentinel` is what is told after the start."""

    ok: Literal[True]
    status: Literal["scheduled", "coalesced"]
    preflight: dict[str, Any]
    restart: dict[str, Any]
    sentinel: dict[str, Any]


class TlsResult(TypedDict):
    """The certificate that new connections get."""

    fingerprint: str
    expiresAtMs: int


class QueueResult(TypedDict):
    running: int
    waiting: int
    deliveries: int


class ServedConfig(TypedDict):
    """The config in force: its generation, None before it is written down, and how the start came to serve it."""

    generation: int | None
    hash: str
    serving: Literal["newest", "last-good"]
    safeMode: bool


class StatusResult(TypedDict):
    """An open summary."""

    version: str
    bootId: str
    uptimeMs: int
    url: str
    ready: bool
    reasons: list[str]
    config: ServedConfig
    plugins: list[dict[str, Any]]
    channels: dict[str, Any]
    eventLoop: dict[str, Any]
    agents: list[dict[str, Any]]
    sessions: dict[str, Any]
    connections: int
    runtimeVersion: str
    heartbeat: dict[str, Any]
    channelSummary: list[str]
    queuedSystemEvents: list[str]
    degradedSecretOwners: list[dict[str, Any]]
    tasks: dict[str, Any]
    taskAudit: dict[str, Any]
    cliProjection: NotRequired[dict[str, Any]]
    tls: NotRequired[TlsResult]
    queue: NotRequired[QueueResult]


class ChannelsStatusResult(TypedDict):
    ts: int
    channelOrder: list[str]
    channelLabels: dict[str, str]
    channels: dict[str, Any]
    channelAccounts: dict[str, list[dict[str, Any]]]
    channelDefaultAccountId: dict[str, str]


class ChannelStarted(TypedDict):
    channel: str
    accountId: str
    started: bool
    outcome: str


class ChannelStopped(TypedDict):
    channel: str
    accountId: str
    stopped: bool


class ChannelRestarted(TypedDict):
    """`restarted` says whether it runs again."""

    channel: str
    accountId: str
    restarted: bool


class CommandRow(TypedDict):
    name: str
    description: str
    source: Literal["native", "skill", "plugin"]
    scope: Literal["text", "native", "both"]
    acceptsArgs: bool
    textAliases: NotRequired[list[str]]


class CommandsListResult(TypedDict):
    commands: list[CommandRow]


class LogsTailResult(TypedDict):
    file: str
    cursor: int
    size: int
    lines: list[str]
    truncated: NotRequired[bool]
    reset: NotRequired[bool]
    skippedBytes: NotRequired[int]
