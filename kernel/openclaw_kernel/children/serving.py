"""The gateway's requests, answered by what an isolated Python plugin registered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from openclaw_kernel.api.channel import AccountStatus, Channel, SendFailed
from openclaw_kernel.api.command import CommandCall
from openclaw_kernel.api.errors import ConfigRejected, NotReady, ToolError
from openclaw_kernel.api.messages import Progress, Receipt
from openclaw_kernel.api.plugin import Drains
from openclaw_kernel.api.tool import ToolContext, ToolResult
from openclaw_kernel.children.errors import Code, RpcError
from openclaw_kernel.children.exchange import Exchange
from openclaw_kernel.children.far import FarCommands, FarSecrets
from openclaw_kernel.children.peer import Handler, Params, Peer
from openclaw_kernel.children.wire import ChannelShape, CommandShape, Misshapen, Registered, ToolShape, read, read_target, to_wire
from openclaw_kernel.host.context import HostedContext
from openclaw_kernel.host.contract import expect, expect_all
from openclaw_kernel.host.explain import explain
from openclaw_kernel.host.guard import Guard, PluginFault
from openclaw_kernel.host.registry import Registry

ValueT = TypeVar("ValueT")

STATUS_SECONDS: Final = 0.5


class Serving:
    """One loaded plugin. `answer` raises `RpcError` for whatever goes wrong."""

    def __init__(
        self,
        *,
        peer: Peer,
        registry: Registry,
        guard: Guard,
        context: HostedContext,
        exchange: Exchange,
        commands: FarCommands,
        timeout: float,
    ) -> None:
        self.registry = registry
        self._peer = peer
        self._guard = guard
        self._context = context
        self._exchange = exchange
        self._commands = commands
        self._timeout = timeout
        self._told: dict[str, Sequence[AccountStatus]] = {}
        self._following = context.spawn("statuses", self._follow_statuses())
        self.handlers: Mapping[str, Handler] = {
            "start": self._start,
            "stop": self._stop,
            "drain": self._drain,
            "channel.start": self._start_channel,
            "channel.stop": self._stop_channel,
            "channel.send": self._send,
            "tool.run": self._run_tool,
            "command.run": self._run_command,
        }

    async def answer(self, method: str, params: Params) -> Any:
        """Answer a request."""
        try:
            return await self.handlers[method](params)
        except PluginFault as fault:
            raise _answer_of(fault) from fault
        except Misshapen as error:
            raise RpcError(Code.INVALID_PARAMS, str(error)) from error
        finally:
            self.tell_statuses()

    def progress(self, params: Params) -> None:
        """Show progress, where the channel is there."""
        told = params["progress"]
        progress = read(Progress, told, "progress", target=read_target(told.get("target"), "progress.target"))
        channel = self._channel(progress.target.channel)
        self._context.spawn("progress", self._guarded("progress", lambda: channel.show_progress(progress), 10.0))

    def tell_statuses(self) -> None:
        """Tell the gateway of every channel whose accounts are not as they were told last."""
        for name, owned in self.registry.channels.items():
            try:
                accounts = self._guard.call(self._id, f"status of channel {name}", partial(_accounts_of, owned.item))
            except PluginFault as fault:
                accounts = [AccountStatus(account_id="default", last_error=fault.reason)]
            if accounts != self._told.get(name):
                wire = {"channel": name, "accounts": [to_wire(each) for each in accounts]}
                if self._peer.notify("channel.status", wire):
                    self._told[name] = accounts

    async def close(self) -> None:
        """Cancel what the plugin has running."""
        self._following.cancel()
        await self._context.tasks.close(1.0)
        await self._guard.close(1.0)

    @property
    def _id(self) -> str:
        return self._context.plugin_id

    async def _follow_statuses(self) -> None:
        while True:
            await asyncio.sleep(STATUS_SECONDS)
            self.tell_statuses()

    async def _guarded(self, what: str, function: Callable[[], Awaitable[ValueT]], deadline: float | None) -> ValueT:
        return await self._guard.run(self._id, what, function, deadline)

    def _channel(self, name: object) -> Channel:
        owned = self.registry.channels.get(name) if isinstance(name, str) else None
        if owned is None:
            raise Misshapen(f"channel: there is none {name!r}")
        return owned.item

    async def _start(self, _: Params) -> dict[str, Any]:
        await self._commands.refresh()
        for _owner, unit in self.registry.units:
            await self._guarded(f"start of unit {type(unit).__name__}", unit.start, self._timeout)
        return {}

    async def _stop(self, _: Params) -> dict[str, Any]:
        for _owner, unit in reversed(self.registry.units):
            await self._guarded(f"stop of unit {type(unit).__name__}", unit.stop, self._timeout)
        return {}

    async def _drain(self, _: Params) -> dict[str, Any]:
        for _owner, unit in self.registry.units:
            if isinstance(unit, Drains) and unit.drain_seconds > 0:
                await self._guarded(f"drain of unit {type(unit).__name__}", unit.drain, unit.drain_seconds)
        return {}

    async def _start_channel(self, params: Params) -> dict[str, Any]:
        channel = self._channel(params.get("channel"))
        try:
            await self._guarded(f"start of channel {channel.id}", channel.start, self._timeout)
        except PluginFault:
            await self._guarded(f"stop of channel {channel.id}", channel.stop, self._timeout)
            raise
        return {}

    async def _stop_channel(self, params: Params) -> dict[str, Any]:
        channel = self._channel(params.get("channel"))
        await self._guarded(f"stop of channel {channel.id}", channel.stop, self._timeout)
        return {}

    async def _send(self, params: Params) -> dict[str, Any]:
        message = await self._exchange.unpack_outbound(params.get("message"))
        channel = self._channel(message.target.channel)
        receipt = expect(await self._guarded(f"send on channel {channel.id}", lambda: channel.send(message), None), Receipt)
        return {"messageIds": list(receipt.message_ids)}

    async def _run_tool(self, params: Params) -> dict[str, Any]:
        owned = self.registry.tools.get(str(params.get("name")))
        if owned is None:
            raise Misshapen(f"name: there is no tool {params.get('name')!r}")
        tool, arguments, call = owned.item, params.get("arguments"), params.get("call")
        if not isinstance(arguments, dict) or not isinstance(call, dict):
            raise Misshapen("tool.run: arguments and call are objects")
        secrets = FarSecrets(self._peer, (str(call.get("runId")), str(call.get("callId"))), tuple(map(str, call.get("secrets") or ())))
        context = read(ToolContext, call, "call", workspace=Path(str(call.get("workspace"))), secrets=secrets)
        what = f"tool {tool.name}"
        try:
            given = self._guard.call(self._id, f"arguments of {what}", lambda: tool.params.model_validate(arguments))
        except PluginFault as fault:
            if isinstance(fault.error, ValidationError):
                raise RpcError(Code.TOOL_FAILED, "; ".join(explain(tool.params, "", arguments, fault.error))) from fault
            raise
        result = expect(await self._guarded(what, lambda: tool.run(context, given), tool.timeout_seconds), ToolResult)
        return {"text": result.text, "isError": result.is_error}

    async def _run_command(self, params: Params) -> dict[str, Any]:
        owned = self.registry.commands.get(str(params.get("name")))
        if owned is None:
            raise Misshapen(f"name: there is no command {params.get('name')!r}")
        target = params.get("target")
        call = read(CommandCall, params, "command.run", target=None if target is None else read_target(target, "target"))
        return {"text": await self._guarded(f"command /{owned.item.name}", lambda: owned.item.run(call), None)}


def _accounts_of(channel: Channel) -> list[AccountStatus]:
    return expect_all(channel.status(), AccountStatus)


def registered_by(registry: Registry) -> Registered:
    """Return what the plugin registered, for the gateway."""
    return Registered(
        channels=tuple(
            ChannelShape(id=name, label=registry.labels[name], capabilities=registry.capabilities[name]) for name in registry.channels
        ),
        tools=tuple(
            ToolShape(
                name=tool.name,
                label=tool.label,
                description=tool.description,
                parameters=tool.schema(),
                retry_class=tool.retry_class.value,
                timeout_seconds=tool.timeout_seconds,
                group=tool.group,
                enabled=tool.enabled,
            )
            for tool in (owned.item for owned in registry.tools.values())
        ),
        commands=tuple(
            CommandShape(
                name=command.name,
                description=command.description,
                accepts_arguments=command.accepts_arguments,
                aliases=command.aliases,
            )
            for command in (owned.item for owned in registry.commands.values())
        ),
    )


def rejected(error: ConfigRejected) -> RpcError:
    """Return what the gateway is told of rejected settings."""
    return RpcError(Code.CONFIG_REJECTED, str(error), {"key": error.key, "found": error.found, "cure": error.cure})


def _answer_of(fault: PluginFault) -> RpcError:
    error = fault.error
    if isinstance(error, NotReady):
        return RpcError(Code.NOT_READY, str(error))
    if isinstance(error, ConfigRejected):
        return rejected(error)
    if isinstance(error, ToolError):
        return RpcError(Code.TOOL_FAILED, str(error))
    if isinstance(error, SendFailed):
        data = {"permanent": error.permanent, "unknown": error.unknown, "wholeAccount": error.whole_account}
        return RpcError(Code.SEND_FAILED, str(error), data if error.retry_after is None else {**data, "retryAfter": error.retry_after})
    return RpcError(Code.INTERNAL, fault.reason)
