"""Facts about the running gateway: the service `Gateway`, health, and the hello snapshot."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from orjson import Fragment

from openclaw_config.composed import Section, compose, hints_of
from openclaw_config.load import FILE_NAME, Loaded
from openclaw_kernel import __version__
from openclaw_kernel.api.conversations import Sessions, SessionsSummary
from openclaw_kernel.api.methods import Method
from openclaw_kernel.api.services import Channels, LoopBlock, LoopLag, PluginState, PluginStatus, Providers, TlsState
from openclaw_kernel.api.turns import AgentInfo, AgentRuntime
from openclaw_kernel.logs import log_path, tail
from openclaw_kernel.presence import PresenceBook
from openclaw_kernel.protocol.connection import Connection
from openclaw_kernel.protocol.events import EventRegistry
from openclaw_kernel.protocol.frames import dumps
from openclaw_kernel.protocol.handshake import Phase
from openclaw_kernel.protocol.limits import PROTOCOL_VERSION, Limits
from openclaw_kernel.protocol.registry import MethodRegistry

AnswerT = TypeVar("AnswerT")

CAPABILITIES: Final = ("published-model-catalog",)
"""What clients may count on beyond methods and events: `models.list` answers from what is known, at once and with all details."""
_NO_SESSIONS: Final = SessionsSummary(path="", count=0, recent=())


class Ask(Protocol):
    """Puts a question to a plugin's service; answers `otherwise` where nobody provides it, or where it fails."""

    def __call__(self, kind: type[Any], what: str, question: Callable[[Any], AnswerT], otherwise: AnswerT) -> AnswerT: ...


def _nobody(kind: type[Any], what: str, question: Callable[[Any], AnswerT], otherwise: AnswerT) -> AnswerT:  # noqa: ARG001 - as Ask has it
    return otherwise


class Encryption(Protocol):
    """What keeps the certificate that is served."""

    @property
    def state(self) -> TlsState: ...
    def problems(self) -> Sequence[str]:
        """Return what somebody should mend, a line each."""
        ...


class Served(Protocol):
    """What is served, and how the start came to that."""

    def problems(self) -> Sequence[str]: ...
    def shown(self) -> Mapping[str, Any]:
        """Return what `status` and `health` show of it."""
        ...


class Host(Protocol):
    """The plugin host as far as facts need it."""

    def statuses(self) -> Sequence[PluginStatus]: ...
    def problems(self) -> Sequence[str]: ...
    @property
    def lag(self) -> Meter: ...
    def sections(self) -> Sequence[Section]:
        """Return what each installed plugin's section may hold."""
        ...


class Meter(Protocol):
    """The event loop's delays."""

    def figures(self) -> LoopLag: ...
    def blocks(self, since_ms: int, until_ms: int) -> Sequence[LoopBlock]: ...


class GatewayFacts:
    """Implements the service `Gateway`; `phase` is set by the app."""

    version = __version__

    def __init__(self, *, loaded: Loaded, home: Path, presence: PresenceBook, limits: Limits, now_ms: Callable[[], int]) -> None:
        self._loaded = loaded
        self._home = home
        self._presence = presence
        self._limits = limits
        self._now_ms = now_ms
        self._started = time.monotonic()
        self._health: dict[str, Any] = {}
        self._schema: tuple[tuple[Section, ...], dict[str, Any]] | None = None
        self._host: Host | None = None
        self._registry: MethodRegistry | None = None
        self.events = EventRegistry()
        self._ask: Ask = _nobody
        self.boot_id = str(uuid.uuid4())
        self.started_at_ms = now_ms()
        self.health_version = 1
        self.phase = Phase.STARTING
        self.url = ""
        self.encryption: Encryption | None = None
        self.further_problems: list[Callable[[], Sequence[str]]] = []
        """What else has to say what somebody should mend."""
        self.serving: Served | None = None
        self.presence_changed: Callable[[], None] = lambda: None

    def bind(self, *, host: Host, registry: MethodRegistry, events: EventRegistry, ask: Ask) -> None:
        """Join the facts to the loaded plugins."""
        self._host = host
        self._registry = registry
        self.events = events
        self._ask = ask

    def adopt(self, loaded: Loaded) -> None:
        """Speak of this configuration from now on."""
        self._loaded = loaded

    def placed(self, text: str) -> str:
        """See `Loaded.placed`."""
        return self._loaded.placed(text)

    @property
    def ready(self) -> bool:
        """Whether connections are accepted."""
        return self.phase is Phase.SERVING

    def reasons(self) -> list[str]:
        """Why it is not ready, or what is degraded, a line each."""
        lines = [] if self.ready else [f"gateway is {self.phase.value}"]
        if self.serving is not None:
            lines += self.serving.problems()
        if self._host is None:
            return lines
        agents: list[str] = self._ask(AgentRuntime, "problems of the agents", lambda runtime: list(runtime.problems()), [])
        encryption = () if self.encryption is None else self.encryption.problems()
        further = [line for problems in self.further_problems for line in problems()]
        return [*lines, *encryption, *further, *self._host.problems(), *agents]

    @property
    def tls(self) -> TlsState | None:
        """The certificate that is served, None without TLS."""
        return None if self.encryption is None else self.encryption.state

    def plugins(self) -> Sequence[PluginStatus]:
        """The state of every installed plugin."""
        return () if self._host is None else self._host.statuses()

    def methods(self) -> Sequence[Method]:
        """Every registered method."""
        return () if self._registry is None else self._registry.all()

    def presence(self) -> Sequence[Mapping[str, Any]]:
        """Who is here."""
        return self._presence.entries()

    def presence_json(self) -> bytes:
        """Who is here, as JSON."""
        return self._presence.json()

    def record_presence(self, entry: Mapping[str, Any]) -> None:
        """Take a beacon and tell the clients."""
        self._presence.beacon(entry)
        self.presence_changed()

    def health(self, *, fresh: bool = False) -> Mapping[str, Any]:
        """The health snapshot, at most a minute old, or of now."""
        return self.refresh_health() if fresh or not self._health else self._health

    def refresh_health(self) -> dict[str, Any]:
        """Look anew."""
        begun = time.monotonic()
        none: dict[str, Any] = {"channels": {}, "channelOrder": [], "channelLabels": {}}
        channels = self._ask(Channels, "channels for health", _channels, none)
        agents: Sequence[AgentInfo] = self._ask(AgentRuntime, "agents for health", lambda runtime: list(runtime.agents()), [])
        plugins = self.plugins()
        self._health = {
            "ok": True,
            "ts": self._now_ms(),
            "durationMs": int((time.monotonic() - begun) * 1000),
            "plugins": {
                "loaded": [plugin.id for plugin in plugins if plugin.state in {PluginState.STARTED, PluginState.DEGRADED}],
                "errors": [
                    {"id": plugin.id, "origin": plugin.distribution, "activated": False, "error": plugin.reason or ""}
                    for plugin in plugins
                    if plugin.state is PluginState.FAILED
                ]
                + [_of_config(problem) for problem in (() if self.serving is None else self.serving.problems())],
            },
            **channels,
            "eventLoop": _event_loop(self.loop_lag()),
            "heartbeatSeconds": 0,
            "defaultAgentId": self._default_agent(),
            "agents": [_agent(info, self._sessions(info.id)) for info in agents],
            "sessions": self._sessions(None),
        }
        return self._health

    def loop_lag(self) -> LoopLag:
        """How late the event loop runs what is due."""
        return _NO_LAG if self._host is None else self._host.lag.figures()

    def loop_blocks(self, since_ms: int, until_ms: int) -> Sequence[LoopBlock]:
        """When it did not run in this time, and who kept it."""
        return () if self._host is None else self._host.lag.blocks(since_ms, until_ms)

    def served(self) -> Mapping[str, Any]:
        """The config in force."""
        if self.serving is None:
            return {"generation": None, "hash": self._loaded.hash, "serving": "newest", "safeMode": False}
        return self.serving.shown()

    def state_version(self) -> dict[str, int]:
        """The counters that ride on presence and health events."""
        return {"presence": self._presence.version, "health": self.health_version}

    def hello(self, connection: Connection) -> bytes:
        """The hello-ok payload for a connection."""
        is_admin = "operator.admin" in connection.effective_scopes
        config = self._loaded.config
        default_agent = self._default_agent()
        main_key = config.session.main_key
        snapshot: dict[str, Any] = {
            "presence": Fragment(self._presence.json()),
            "health": self.health(),
            "stateVersion": self.state_version(),
            "uptimeMs": int((time.monotonic() - self._started) * 1000),
            "appliedConfigHash": self._loaded.hash,
            "sessionDefaults": {
                "defaultAgentId": default_agent,
                "mainKey": main_key,
                "mainSessionKey": f"agent:{default_agent}:{main_key}",
                "scope": "per-sender",
                "modelConfigured": self._ask(Providers, "models for hello", lambda providers: bool(providers.models()), otherwise=False),
            },
        }
        if is_admin:
            snapshot |= {"configPath": str(self._loaded.path), "stateDir": str(self._home), "authMode": config.gateway.auth.mode}
        limits = self._limits
        hello = {
            "type": "hello-ok",
            "protocol": PROTOCOL_VERSION,
            "server": {"version": self.version, "connId": connection.connection_id, "bootId": self.boot_id},
            "features": {
                "methods": () if self._registry is None else self._registry.advertised,
                "events": self.events.advertised,
                "capabilities": CAPABILITIES,
            },
            "snapshot": snapshot,
            "auth": {"role": connection.role, "scopes": sorted(connection.scopes), **_device_token(connection)},
            "policy": {
                "maxPayload": limits.max_payload,
                "maxBufferedBytes": limits.max_buffered,
                "tickIntervalMs": limits.tick_interval_ms,
                "attachments": {"maxBytes": limits.attachment_bytes, "maxImageBytes": limits.attachment_image_bytes},
            },
        }
        return dumps(hello)

    def _default_agent(self) -> str:
        return self._ask(AgentRuntime, "default agent", lambda runtime: str(runtime.default_agent_id()), "main")

    def _sessions(self, agent_id: str | None) -> dict[str, Any]:
        summary = self._ask(Sessions, "sessions for health", lambda sessions: sessions.summary(agent_id), _NO_SESSIONS)
        return {"path": summary.path, "count": summary.count, "recent": list(summary.recent)}

    def config_snapshot(self) -> Mapping[str, Any]:
        """The redacted `config.get` result."""
        loaded = self._loaded
        source, merged = loaded.redacted_source(), loaded.redacted()
        return {
            "path": str(loaded.path),
            "exists": True,
            "raw": loaded.redacted_text(),
            "parsed": source,
            "valid": True,
            "config": source,
            "resolved": merged,
            "sourceConfig": source,
            "runtimeConfig": merged,
            "hash": loaded.hash,
            "configRevisionHash": loaded.hash,
            "appliedConfigHash": loaded.hash,
            "issues": [],
            "warnings": [],
            "legacyIssues": [],
        }

    def config_schema(self) -> Mapping[str, Any]:
        """The config with every plugin's section as one strict JSON Schema."""
        sections = () if self._host is None else tuple(self._host.sections())
        if self._schema is None or self._schema[0] != sections:
            self._schema = sections, compose(sections)
        schema = self._schema[1]
        return {
            "schema": schema,
            "uiHints": hints_of(schema),
            "version": self.version,
            "generatedAt": datetime.now(UTC).isoformat(timespec="seconds"),
        }

    def tail_log(self, *, cursor: int | None, limit: int, max_bytes: int) -> Mapping[str, Any]:
        """The newest lines of the log file."""
        return tail(log_path(self._home), cursor=cursor, limit=limit, max_bytes=max_bytes)

    def describe_owner(self) -> dict[str, Any]:
        """What the lock file says of this process."""
        owner = {"pid": os.getpid(), "url": self.url, "version": self.version, "startedAtMs": self.started_at_ms}
        return owner if self.tls is None else {**owner, "tlsFingerprint": self.tls.fingerprint}


def _device_token(connection: Connection) -> dict[str, Any]:
    grant = connection.grant
    if grant is None:
        return {}
    further = [
        {"deviceToken": one.token, "role": one.role, "scopes": list(one.scopes), "issuedAtMs": one.issued_at_ms} for one in grant.further
    ]
    return {"deviceToken": grant.token, "issuedAtMs": grant.issued_at_ms, **({"deviceTokens": further} if further else {})}


_NO_LAG = LoopLag(
    window_seconds=0.0, interval_ms=0.0, samples=0, p50_ms=0.0, p99_ms=0.0, max_ms=0.0, loop_share=0.0, process_share=0.0, blocks=()
)
LATE_MS: Final = 500.0
"""Delays of the event loop from which the health calls it degraded: those of one tick in a hundred."""
BUSY_SHARE: Final = 0.95


def _event_loop(lag: LoopLag) -> dict[str, Any]:
    reasons = {"event_loop_delay": lag.p99_ms >= LATE_MS, "event_loop_utilization": lag.loop_share >= BUSY_SHARE}
    return {
        "degraded": any(reasons.values()),
        "reasons": [reason for reason, holds in reasons.items() if holds],
        "intervalMs": round(lag.interval_ms),
        "delayP99Ms": round(lag.p99_ms, 1),
        "delayMaxMs": round(lag.max_ms, 1),
        "utilization": round(lag.loop_share, 3),
        "cpuCoreRatio": round(lag.process_share, 3),
    }


def _channels(channels: Channels) -> dict[str, Any]:
    ids = list(channels.ids())
    return {
        "channels": {name: {"accounts": [_account(item) for item in channels.status(name)]} for name in ids},
        "channelOrder": ids,
        "channelLabels": {name: channels.label(name) for name in ids},
    }


def _agent(info: AgentInfo, sessions: dict[str, Any]) -> dict[str, Any]:
    heartbeat = {"enabled": False, "every": "off", "everyMs": None, "prompt": "", "target": "none", "ackMaxChars": 0}
    return {"agentId": info.id, "name": info.name, "isDefault": info.is_default, "heartbeat": heartbeat, "sessions": sessions}


def _of_config(problem: str) -> dict[str, Any]:
    # The protocol's health has no other place for what is wrong with a gateway.
    return {"id": FILE_NAME, "origin": "config", "activated": False, "error": problem}


def _account(status: Any) -> dict[str, Any]:
    row = {
        "accountId": status.account_id,
        "enabled": status.enabled,
        "configured": status.configured,
        "running": status.running,
        "connected": status.connected,
        "lastError": status.last_error,
        "lastInboundAt": status.last_inbound_at,
        "lastOutboundAt": status.last_outbound_at,
    }
    return {key: value for key, value in row.items() if value is not None}
