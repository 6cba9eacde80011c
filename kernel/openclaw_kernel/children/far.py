"""What an isolated Python plugin finds in place of the gateway's services: the same Protocols, answered over the pipe."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NoReturn, TypeVar

from openclaw_config.secrets import Secret
from openclaw_kernel.api.command import Command, CommandCall
from openclaw_kernel.api.errors import Forbidden, InvalidRequest, Unavailable
from openclaw_kernel.api.messages import InboundMessage
from openclaw_kernel.children.errors import Code, PeerClosed, RpcError
from openclaw_kernel.children.exchange import Exchange
from openclaw_kernel.children.peer import Peer
from openclaw_kernel.children.wire import read_commands, read_text

ValueT = TypeVar("ValueT")

_NO_TABLES: Final = "a plugin with isolation: process has no tables of its own; use context.storage, or run it with isolation: inproc"


class FarIngress:
    """Implements `Ingress`."""

    def __init__(self, peer: Peer, exchange: Exchange) -> None:
        self._peer = peer
        self._exchange = exchange

    async def accept(self, message: InboundMessage) -> bool:
        """Return once the message is on the gateway's disk; raise `GatewayError` where it is not."""
        try:
            wire = await self._exchange.pack(message)
        except OSError as error:
            raise Unavailable(f"its files cannot be handed to the gateway: {error.strerror or error}", retryable=True) from error
        try:
            answer = await ask(self._peer, "channel.accept", {"message": wire})
        finally:
            self._exchange.remove(wire)
        return isinstance(answer, dict) and answer.get("accepted") is True


class FarKeyValue:
    """Implements `KeyValue`."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    async def get(self, key: str) -> str | None:
        """Return the value, None where there is none."""
        answer = await ask(self._peer, "storage.get", {"key": key})
        value = answer.get("value") if isinstance(answer, dict) else None
        return value if isinstance(value, str) else None

    async def put(self, key: str, value: str) -> None:
        """Keep the value; raise `ValueError` for one that is too long."""
        try:
            await ask(self._peer, "storage.put", {"key": key, "value": value})
        except InvalidRequest as error:
            raise ValueError(error.message) from error

    async def remove(self, key: str) -> None:
        """Forget the value."""
        await ask(self._peer, "storage.remove", {"key": key})


class FarStore:
    """Implements `Store` by refusing: the database has one writer, and that is the gateway."""

    async def write(self, work: Callable[[sqlite3.Connection], ValueT]) -> ValueT:
        """Raise `Unavailable`."""
        raise Unavailable(_NO_TABLES)

    async def read(self, work: Callable[[sqlite3.Connection], ValueT]) -> ValueT:
        """Raise `Unavailable`."""
        raise Unavailable(_NO_TABLES)


class FarCommands:
    """Implements `Commands` with what the gateway told when the plugin was started; the gateway alone runs them."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._known: tuple[Command, ...] = ()

    async def refresh(self) -> None:
        """Ask the gateway; where it cannot tell, what was known stays."""
        try:
            answer = await self._peer.request("commands.list")
        except (RpcError, PeerClosed):
            return
        shapes = read_commands(answer.get("commands") if isinstance(answer, dict) else None)
        self._known = tuple(
            Command(
                name=shape.name,
                description=shape.description,
                run=_not_here,
                accepts_arguments=shape.accepts_arguments,
                aliases=shape.aliases,
            )
            for shape in shapes
        )

    def all(self) -> Sequence[Command]:
        """Return the commands."""
        return self._known

    def find(self, text: str) -> tuple[Command, str] | None:
        """Return the command a message is, with its arguments."""
        message = text.strip()
        if not message.startswith("/"):
            return next(((command, "") for command in self._known if message.lower() in command.aliases), None)
        word, *rest = message[1:].split(maxsplit=1)[:2] or [""]
        name = word.partition("@")[0].lower()
        arguments = rest[0].strip() if rest else ""
        return next(((command, arguments) for command in self._known if command.name == name), None)


class FarSecrets:
    """Implements `AgentSecrets` for one tool call."""

    def __init__(self, peer: Peer, call: tuple[str, str], names: Sequence[str]) -> None:
        """Take the ids of the run and of the call."""
        self._peer = peer
        self._run_id, self._call_id = call
        self._names = names

    def names(self) -> Sequence[str]:
        """Return the names in the agent's scope."""
        return self._names

    async def lease(self, name: str, *, purpose: str) -> Secret:
        """Return a secret; raise `Forbidden`."""
        asked = {"runId": self._run_id, "callId": self._call_id, "name": name, "purpose": purpose}
        answer = await ask(self._peer, "secret.lease", asked)
        return Secret(read_text(answer, "value", "secret.lease"))


async def ask(peer: Peer, method: str, params: Mapping[str, Any]) -> Any:
    """Ask the gateway; raise `InvalidRequest`, `Forbidden` or `Unavailable` by what it answers."""
    try:
        return await peer.request(method, params)
    except PeerClosed as error:
        raise Unavailable(str(error), retryable=True) from error
    except RpcError as error:
        if error.code == Code.FORBIDDEN:
            raise Forbidden(error.message) from error
        if error.code == Code.INVALID_PARAMS:
            raise InvalidRequest(error.message) from error
        raise Unavailable(error.message, retryable=True) from error


async def _not_here(_: CommandCall) -> NoReturn:
    raise Unavailable("commands are run by the gateway, not by a channel; hand the message to Ingress")
