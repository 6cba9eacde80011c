"""What a child may ask the gateway for: a message taken in, its own values, a secret for a tool call, and to be heard."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from openclaw_kernel.api.channel import AccountStatus
from openclaw_kernel.api.conversations import Ingress
from openclaw_kernel.api.errors import Forbidden, GatewayError
from openclaw_kernel.api.plugin import PluginContext
from openclaw_kernel.api.services import Commands
from openclaw_kernel.api.tool import ToolContext
from openclaw_kernel.children.errors import Code, RpcError
from openclaw_kernel.children.exchange import Exchange
from openclaw_kernel.children.peer import Handler, Notice, Params
from openclaw_kernel.children.shown import without_secrets
from openclaw_kernel.children.stderr import ChildLog
from openclaw_kernel.children.wire import CommandShape, Misshapen, read_accounts, read_text, to_wire

# What a service raises when it is missing, stopping, full or out of disk.
_NOT_NOW: Final = (GatewayError, LookupError, RuntimeError, OSError, sqlite3.Error)
_LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_REASON_CHARACTERS: Final = 1_000


class Bridge:
    """One child's way into the gateway. `channels` are those it registered: it speaks for no other."""

    def __init__(self, context: PluginContext, exchange: Exchange, log: ChildLog) -> None:
        self._context = context
        self._exchange = exchange
        self._log = log
        self.channels: Sequence[str] = ()
        self.accounts: dict[str, Sequence[AccountStatus]] = {}
        self.calls: dict[tuple[str, str], ToolContext] = {}
        """The tool calls under way, by run and id: models number their calls, so two runs may use one id at a time."""

    @property
    def handlers(self) -> Mapping[str, Handler]:
        """The requests."""
        return {
            "channel.accept": self._accept,
            "storage.get": self._get,
            "storage.put": self._put,
            "storage.remove": self._remove,
            "secret.lease": self._lease,
            "commands.list": self._commands,
        }

    @property
    def notices(self) -> Mapping[str, Notice]:
        """The notifications."""
        return {"channel.status": self._status, "degrade": self._degrade, "log": self._write_log}

    async def _accept(self, params: Params) -> dict[str, Any]:
        try:
            message = await self._exchange.unpack_inbound(params.get("message"))
        except Misshapen as error:
            raise RpcError(Code.INVALID_PARAMS, str(error)) from error
        if message.target.channel not in self.channels:
            raise RpcError(Code.FORBIDDEN, f"message.target.channel: {message.target.channel[:64]!r} is no channel that you registered")
        try:
            return {"accepted": await self._context.service(Ingress).accept(message)}
        except _NOT_NOW as error:
            raise _not_now(error) from error

    async def _get(self, params: Params) -> dict[str, Any]:
        key = _text(params, "key")
        try:
            return {"value": await self._context.storage.get(key)}
        except _NOT_NOW as error:
            raise _not_now(error) from error

    async def _put(self, params: Params) -> dict[str, Any]:
        key, value = _text(params, "key"), _text(params, "value")
        try:
            await self._context.storage.put(key, value)
        except ValueError as error:
            raise RpcError(Code.INVALID_PARAMS, str(error)) from error
        except _NOT_NOW as error:
            raise _not_now(error) from error
        return {}

    async def _remove(self, params: Params) -> dict[str, Any]:
        key = _text(params, "key")
        try:
            await self._context.storage.remove(key)
        except _NOT_NOW as error:
            raise _not_now(error) from error
        return {}

    async def _lease(self, params: Params) -> dict[str, Any]:
        call_id, run_id = _text(params, "callId"), None if params.get("runId") is None else _text(params, "runId")
        calls = [call for (run, each), call in self.calls.items() if each == call_id and run_id in {None, run}]
        if not calls:
            raise RpcError(Code.FORBIDDEN, "callId: no tool call of this id is under way here")
        if len(calls) > 1:
            raise RpcError(Code.FORBIDDEN, "callId: tool calls of several runs have this id; give runId as well")
        (call,) = calls
        try:
            secret = await call.secrets.lease(_text(params, "name"), purpose=_text(params, "purpose"))
        except Forbidden as error:
            raise RpcError(Code.FORBIDDEN, str(error)) from error
        except _NOT_NOW as error:
            raise _not_now(error) from error
        return {"value": secret.unwrap()}

    async def _commands(self, _: Params) -> dict[str, Any]:
        try:
            known = self._context.service(Commands).all()
        except LookupError as error:
            raise _not_now(error) from error
        shapes = (
            CommandShape(name=each.name, description=each.description, accepts_arguments=each.accepts_arguments, aliases=each.aliases)
            for each in known
        )
        return {"commands": [to_wire(each) for each in shapes]}

    def _status(self, params: Params) -> None:
        channel = read_text(params, "channel", "channel.status")
        accounts = read_accounts(params.get("accounts"), "accounts")
        if channel in self.channels:
            self.accounts[channel] = [_cleaned(each) for each in accounts]

    def _degrade(self, params: Params) -> None:
        reason = params.get("reason")
        self._context.degrade(None if reason is None else without_secrets(read_text(params, "reason", "degrade"))[:_REASON_CHARACTERS])

    def _write_log(self, params: Params) -> None:
        level = _LEVELS.get(str(params.get("level")), logging.INFO)
        self._log.write(level, read_text(params, "message", "log"))


def _cleaned(account: AccountStatus) -> AccountStatus:
    error, detail = account.last_error, account.detail
    return replace(account, last_error=error and without_secrets(error), detail=detail and without_secrets(detail))


def _text(params: Params, key: str) -> str:
    value = params.get(key)
    if not isinstance(value, str):
        raise RpcError(Code.INVALID_PARAMS, f"{key}: found {type(value).__name__}; give a string")
    return value


def _not_now(error: Exception) -> RpcError:
    return RpcError(Code.UNAVAILABLE, f"{type(error).__name__}: {error}")
