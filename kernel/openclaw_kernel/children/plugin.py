"""The plugin that stands in the host for a child, and the proxies that it registers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from pydantic import BaseModel, ConfigDict

from openclaw_kernel.api.channel import AccountStatus, SendFailed
from openclaw_kernel.api.command import Command, CommandCall
from openclaw_kernel.api.errors import ToolError
from openclaw_kernel.api.messages import OutboundMessage, Progress, Receipt
from openclaw_kernel.api.plugin import Registrar, hookimpl
from openclaw_kernel.api.tool import RetryClass, Tool, ToolContext, ToolResult
from openclaw_kernel.children.bridge import Bridge
from openclaw_kernel.children.errors import Code, NotAsked, PeerClosed, RpcError
from openclaw_kernel.children.exchange import Exchange
from openclaw_kernel.children.supervisor import Supervisor, ask_to_start
from openclaw_kernel.children.wire import ChannelShape, CommandShape, Misshapen, Registered, ToolShape, read_text, to_wire

STOP_SECONDS: Final = 3.0
_NOTHING_WAS_SENT: Final = {Code.BUSY, Code.METHOD_NOT_FOUND}


class Child:
    """The process itself: a unit, so that it begins before the plugin's channels and ends after them."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    async def start(self) -> None:
        """Let the child begin."""
        await self._supervisor.begin()

    async def stop(self) -> None:
        """End its process."""
        await self._supervisor.end()

    def revive(self) -> None:
        """Let it be started, whatever came before."""
        self._supervisor.revive()

    @property
    def drain_seconds(self) -> float:
        """How long what is under way in the child may take, once the gateway stops."""
        return 10.0

    async def drain(self) -> None:
        """Let the child finish what is under way; one that knows no `drain` has nothing."""
        try:
            await self._supervisor.peer.request("drain")
        except (RpcError, PeerClosed):
            return


class ChildChannel:
    """A channel of a child."""

    def __init__(self, shape: ChannelShape, supervisor: Supervisor, bridge: Bridge, *, exchange: Exchange, call_seconds: float) -> None:
        self.id = shape.id
        self.label = shape.label
        self.capabilities = shape.capabilities
        self._supervisor = supervisor
        self._bridge = bridge
        self._exchange = exchange
        self._call_seconds = call_seconds

    async def start(self) -> None:
        """Start it in the child, and before that the child where it is down."""
        await self._supervisor.begin()
        await ask_to_start(self._supervisor.peer, "channel.start", {"channel": self.id}, self._call_seconds)

    def revive(self) -> None:
        """Let its process be started, whatever came before."""
        self._supervisor.revive()

    async def stop(self) -> None:
        """Stop it in the child; in one that is down it has stopped, and one that does not is killed."""
        try:
            await self._supervisor.peer.request("channel.stop", {"channel": self.id}, timeout=STOP_SECONDS, urgent=True)
        except PeerClosed:
            return
        except (TimeoutError, asyncio.CancelledError):
            self._supervisor.kill(f"did not stop channel {self.id} in time and was killed")
            raise

    async def send(self, message: OutboundMessage) -> Receipt:
        """Send it in the child; what was under way when the child ended may have arrived."""
        try:
            peer = self._supervisor.peer
        except PeerClosed as error:
            raise SendFailed(f"channel {self.id!r} is not running: {error}") from error
        try:
            wire = await self._exchange.pack(message)
        except OSError as error:
            raise SendFailed(f"its files cannot be handed to the child: {error.strerror or error}") from error
        try:
            answer = await peer.request("channel.send", {"message": wire})
        except NotAsked as error:
            raise SendFailed(str(error)) from error
        except PeerClosed as error:
            raise SendFailed(str(error), unknown=True) from error
        except RpcError as error:
            raise _send_failed(error) from error
        finally:
            self._exchange.remove(wire)
        ids = answer.get("messageIds") if isinstance(answer, dict) else None
        if not isinstance(ids, list) or not all(isinstance(each, str) for each in ids):
            raise SendFailed("channel.send: messageIds is no list of strings; it may have been sent", unknown=True)
        return Receipt(message_ids=tuple(ids))

    async def show_progress(self, progress: Progress) -> None:
        """Pass it on; one that is behind misses it."""
        try:
            self._supervisor.peer.notify("channel.progress", {"progress": to_wire(progress)})
        except PeerClosed:
            return

    def status(self) -> Sequence[AccountStatus]:
        """Return what the child said last."""
        return self._bridge.accounts.get(self.id, ())


class Arguments(BaseModel):
    """Arguments of a child's tool; the child validates them."""

    model_config = ConfigDict(extra="allow")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildTool(Tool[Arguments]):
    """A tool whose schema the child gave."""

    parameters: Mapping[str, Any] = field(default_factory=dict)

    def schema(self) -> dict[str, Any]:
        """Return the JSON Schema of the parameters."""
        return dict(self.parameters)


class ChildPlugin:
    """Registers what the child registered."""

    settings: ClassVar[type[BaseModel] | None] = None

    def __init__(self, registered: Registered, supervisor: Supervisor, bridge: Bridge, *, exchange: Exchange, call_seconds: float) -> None:
        self._registered = registered
        self._supervisor = supervisor
        self._bridge = bridge
        self._exchange = exchange
        self._call_seconds = call_seconds

    @hookimpl
    def openclaw_register_services(self, registrar: Registrar) -> None:
        """Register the process as a unit."""
        registrar.add_unit(Child(self._supervisor))

    @hookimpl
    def openclaw_register_channels(self, registrar: Registrar) -> None:
        """Register its channels."""
        for shape in self._registered.channels:
            registrar.add_channel(
                ChildChannel(shape, self._supervisor, self._bridge, exchange=self._exchange, call_seconds=self._call_seconds)
            )

    @hookimpl
    def openclaw_register_tools(self, registrar: Registrar) -> None:
        """Register its tools."""
        for shape in self._registered.tools:
            registrar.add_tool(self._tool(shape))

    @hookimpl
    def openclaw_register_commands(self, registrar: Registrar) -> None:
        """Register its commands."""
        for shape in self._registered.commands:
            registrar.add_command(self._command(shape))

    def _tool(self, shape: ToolShape) -> ChildTool:
        async def run(context: ToolContext, params: Arguments) -> ToolResult:
            call = to_wire(context, leave_out=("secrets", "workspace"))
            call |= {"workspace": str(context.workspace), "secrets": list(context.secrets.names())}
            key = context.run_id, context.call_id
            self._bridge.calls[key] = context
            try:
                asked = {"name": shape.name, "arguments": params.model_extra or {}, "call": call}
                answer = await self._supervisor.peer.request("tool.run", asked)
                is_error = isinstance(answer, dict) and answer.get("isError") is True
                return ToolResult(text=read_text(answer, "text", "tool.run"), is_error=is_error)
            except (RpcError, PeerClosed, Misshapen) as error:
                raise ToolError(str(error)) from error
            finally:
                self._bridge.calls.pop(key, None)

        return ChildTool(
            name=shape.name,
            label=shape.label,
            description=shape.description,
            params=Arguments,
            run=run,
            retry_class=RetryClass(shape.retry_class),
            timeout_seconds=float(shape.timeout_seconds),
            group=shape.group,
            enabled=shape.enabled,
            parameters=shape.parameters,
        )

    def _command(self, shape: CommandShape) -> Command:
        async def run(call: CommandCall) -> str:
            answer = await self._supervisor.peer.request("command.run", {"name": shape.name, **to_wire(call)})
            return read_text(answer, "text", "command.run")

        return Command(
            name=shape.name,
            description=shape.description,
            run=run,
            accepts_arguments=shape.accepts_arguments,
            aliases=shape.aliases,
        )


def _send_failed(error: RpcError) -> SendFailed:
    data = error.data
    if error.code == Code.SEND_FAILED:
        pause = data.get("retryAfter")
        return SendFailed(
            error.message,
            permanent=data.get("permanent") is True,
            unknown=data.get("unknown") is True,
            retry_after=float(pause) if isinstance(pause, int | float) else None,
            whole_account=data.get("wholeAccount") is True,
        )
    if error.code == Code.INVALID_PARAMS:
        return SendFailed(error.message, permanent=True)
    return SendFailed(error.message, unknown=error.code not in _NOTHING_WAS_SENT)
