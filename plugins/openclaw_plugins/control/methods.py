"""The control methods; everything they tell comes from the kernel's services."""

from __future__ import annotations

from typing import Any

from openclaw_kernel.api import (
    Access,
    AgentInfo,
    AgentRuntime,
    AuditAction,
    AuditEntry,
    AuditLog,
    Call,
    Channels,
    Commands,
    Encoded,
    Gateway,
    GatewayError,
    InvalidRequest,
    LoopLag,
    PluginContext,
    Scope,
    Sessions,
    origin_of,
    rpc,
)
from openclaw_plugins.control import wire
from openclaw_plugins.control.summary import background_summary, cli_projection, session_summary

DEFAULT_ACCOUNT = "default"


class SystemMethods:
    """Health, status, presence and the log."""

    def __init__(self, context: PluginContext) -> None:
        self._context = context

    @property
    def _gateway(self) -> Gateway:
        return self._context.service(Gateway)

    def _agent(self, agent_id: str) -> AgentInfo | None:
        try:
            return self._context.service(AgentRuntime).agent(agent_id)
        except LookupError:
            return None

    @rpc("health", scope=Access.ANYONE, params=wire.HealthParams, result=dict[str, Any])
    def health(self, _call: Call, params: wire.HealthParams) -> dict[str, Any]:
        """Tell the state of channels, agents and sessions, at most a minute old."""
        return dict(self._gateway.health(fresh=params.probe))

    @rpc("status", scope=Scope.READ, params=wire.StatusParams, result=wire.StatusResult)
    async def status(self, _call: Call, params: wire.StatusParams) -> dict[str, Any]:
        """Summarise the gateway for people: version, plugins with their states, channels, agents, sessions, what is under way."""
        gateway, health = self._gateway, self._gateway.health(fresh=True)
        agent = self._agent(health["defaultAgentId"])
        model, context_tokens = (None, None) if agent is None else (agent.model, agent.context_tokens)
        projection = {"cliProjection": cli_projection(health)} if params.include_cli_projection else {}
        tls = {} if gateway.tls is None else {"tls": {"fingerprint": gateway.tls.fingerprint, "expiresAtMs": gateway.tls.expires_ms}}
        return {
            **background_summary(health),
            **projection,
            **tls,
            "version": gateway.version,
            "runtimeVersion": gateway.version,
            "bootId": gateway.boot_id,
            "uptimeMs": self._context.now_ms() - gateway.started_at_ms,
            "url": gateway.url,
            "ready": gateway.ready,
            "reasons": list(gateway.reasons()),
            "config": dict(gateway.served()),
            "plugins": [
                {
                    "id": plugin.id,
                    "kind": plugin.kind,
                    "version": plugin.version,
                    "distribution": plugin.distribution,
                    "state": plugin.state.value,
                    "reason": plugin.reason,
                    "sinceMs": plugin.since_ms,
                }
                for plugin in gateway.plugins()
            ],
            "channels": health["channels"],
            "eventLoop": {**health["eventLoop"], **_loop_details(gateway.loop_lag())},
            "agents": health["agents"],
            "sessions": session_summary(health, model, context_tokens),
            "connections": max(0, len(gateway.presence()) - 1),
            **await self._queue(),
        }

    async def _queue(self) -> dict[str, Any]:
        try:
            counts = await self._context.service(Sessions).queue()
        except (LookupError, GatewayError):
            # Nobody keeps conversations, or the store is out of order: that is a problem of its own, and the rest is told all the more.
            return {}
        return {"queue": {"running": counts.running, "waiting": counts.waiting, "deliveries": counts.deliveries}}

    @rpc("system-presence", scope=Scope.READ, result=list[dict[str, Any]])
    def presence(self, _call: Call) -> Encoded:
        """List who is here: the gateway, its clients, and beacons of the last five minutes."""
        return Encoded(self._gateway.presence_json())

    @rpc(
        "system-event",
        scope=Scope.ADMIN,
        params=wire.SystemEventParams,
        result=wire.Ok,
        repeatable="a beacon replaces the one before",
    )
    def system_event(self, _call: Call, params: wire.SystemEventParams) -> dict[str, Any]:
        """Record a beacon for the presence list; it expires after five minutes."""
        self._gateway.record_presence(params.model_dump(by_alias=True, exclude_none=True))
        return {"ok": True}

    @rpc("logs.tail", scope=Scope.READ, params=wire.LogsTailParams, result=wire.LogsTailResult)
    def tail(self, _call: Call, params: wire.LogsTailParams) -> dict[str, Any]:
        """Return the newest lines of the log, or those after a cursor."""
        return dict(self._gateway.tail_log(cursor=params.cursor, limit=params.limit, max_bytes=params.max_bytes))


class ChannelMethods:
    """Channels and chat commands."""

    def __init__(self, context: PluginContext) -> None:
        self._context = context

    @property
    def _channels(self) -> Channels:
        return self._context.service(Channels)

    @rpc("channels.status", scope=Scope.READ, params=wire.ChannelsStatusParams, result=wire.ChannelsStatusResult)
    def status(self, _call: Call, params: wire.ChannelsStatusParams) -> dict[str, Any]:
        """Tell the state of every account of every channel."""
        channels = self._channels
        ids = list(channels.ids())
        if params.channel is not None:
            if params.channel not in ids:
                raise unknown_channel(params.channel, ids)
            ids = [params.channel]
        accounts = {name: [_account(item) for item in channels.status(name)] for name in ids}
        return {
            "ts": self._context.now_ms(),
            "channelOrder": ids,
            "channelLabels": {name: channels.label(name) for name in ids},
            "channels": {name: _channel(rows) for name, rows in accounts.items()},
            "channelAccounts": accounts,
            "channelDefaultAccountId": {name: _default_account(rows) for name, rows in accounts.items()},
        }

    @rpc(
        "channels.start",
        scope=Scope.ADMIN,
        params=wire.ChannelParams,
        result=wire.ChannelStarted,
        repeatable="a channel that runs stays as it is",
    )
    async def start(self, call: Call, params: wire.ChannelParams) -> dict[str, Any]:
        """Start a channel that was stopped or failed."""
        started = await self._channels.start(params.channel)
        if started:
            self._note(AuditAction.CHANNEL_STARTED, call, params.channel)
        outcome = "started" if started else "already-running"
        return {"channel": params.channel, "accountId": params.account_id or DEFAULT_ACCOUNT, "started": started, "outcome": outcome}

    @rpc(
        "channels.stop",
        scope=Scope.ADMIN,
        params=wire.ChannelParams,
        result=wire.ChannelStopped,
        repeatable="a channel that is stopped stays stopped",
    )
    async def stop(self, call: Call, params: wire.ChannelParams) -> dict[str, Any]:
        """Stop a channel until it is started again."""
        stopped = await self._channels.stop(params.channel)
        if stopped:
            self._note(AuditAction.CHANNEL_STOPPED, call, params.channel)
        return {"channel": params.channel, "accountId": params.account_id or DEFAULT_ACCOUNT, "stopped": stopped}

    @rpc(
        "channels.restart",
        scope=Scope.ADMIN,
        params=wire.ChannelParams,
        result=wire.ChannelRestarted,
        repeatable="a channel that was restarted is restarted once more",
    )
    async def restart(self, call: Call, params: wire.ChannelParams) -> dict[str, Any]:
        """Stop a channel, where it runs, and start it; what waits to be sent meanwhile is sent then. channels.status tells how it went."""
        if await self._channels.stop(params.channel):
            self._note(AuditAction.CHANNEL_STOPPED, call, params.channel)
        if await self._channels.start(params.channel):
            self._note(AuditAction.CHANNEL_STARTED, call, params.channel)
        running = self._channels.capabilities(params.channel) is not None
        return {"channel": params.channel, "accountId": params.account_id or DEFAULT_ACCOUNT, "restarted": running}

    def _note(self, action: AuditAction, call: Call, channel: str) -> None:
        entry = AuditEntry(action=action, origin=origin_of(call), subject=f"channel:{channel}")
        self._context.service(AuditLog).note(entry)

    @rpc("commands.list", scope=Scope.READ, params=wire.CommandsListParams, result=wire.CommandsListResult)
    def commands(self, _call: Call, _params: wire.CommandsListParams) -> dict[str, Any]:
        """List the chat commands that work on every channel."""
        rows = [
            {
                "name": command.name,
                "description": command.description,
                "source": "native",
                "scope": "both",
                "acceptsArgs": command.accepts_arguments,
                "textAliases": [f"/{command.name}", *command.aliases][:20],
            }
            for command in self._context.service(Commands).all()
        ]
        return {"commands": rows}


def _loop_details(lag: LoopLag) -> dict[str, Any]:
    kept: dict[str, float] = {}
    for block in lag.blocks:
        if block.plugin_id is not None:
            kept[block.plugin_id] = kept.get(block.plugin_id, 0.0) + block.seconds
    blocked = [{"plugin": name, "ms": round(seconds * 1000)} for name, seconds in sorted(kept.items())]
    return {"windowMs": round(lag.window_seconds * 1000), "samples": lag.samples, "delayP50Ms": round(lag.p50_ms, 1), "blockedBy": blocked}


def unknown_channel(channel: str, known: list[str]) -> InvalidRequest:
    """The error for a channel that does not run here."""
    return InvalidRequest(f"unknown channel {channel!r}; known: {', '.join(known) or 'none'}")


def _account(status: Any) -> dict[str, Any]:
    row = {
        "accountId": status.account_id,
        "enabled": status.enabled,
        "configured": status.configured,
        "linked": status.configured,
        "running": status.running,
        "connected": status.connected,
        "lastError": status.last_error,
        "lastInboundAt": status.last_inbound_at,
        "lastOutboundAt": status.last_outbound_at,
        "detail": status.detail,
    }
    return {key: value for key, value in row.items() if value is not None}


def _channel(accounts: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "configured": any(account["configured"] for account in accounts),
        "running": any(account["running"] for account in accounts),
        "connected": any(account["connected"] for account in accounts),
    }


def _default_account(accounts: list[dict[str, Any]]) -> str:
    names = [str(account["accountId"]) for account in accounts]
    return DEFAULT_ACCOUNT if DEFAULT_ACCOUNT in names or not names else names[0]
