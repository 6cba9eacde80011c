"""The method `message.action`: what the reference's command line sends a message with. Its action `send` is the method `send`."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import Field

from openclaw_kernel.api import Call, Encoded, Idempotency, InvalidRequest, Params, Scope, rpc
from openclaw_plugins.conversation.engine import Conversation
from openclaw_plugins.conversation.methods_agent import AgentMethods
from openclaw_plugins.conversation.wire import NonEmpty, SendParams, SendResult

# What a message can be, by its name there and in `send`.
_MEANT: Final = {
    "message": "message",
    "media": "mediaUrl",
    "replyTo": "replyToId",
    "threadId": "threadId",
    "silent": "silent",
    "forceDocument": "forceDocument",
    "gifPlayback": "gifPlayback",
}
# How the caller was called, and what stands in the request itself as well.
_PASSED_OVER: Final = frozenset({"action", "channel", "target", "to", "accountId", "json", "verbose"})


class MessageActionParams(Params):
    """An action of a channel; `params` are the action's own. What tells of the caller's turn is accepted and not needed."""

    channel: NonEmpty
    action: NonEmpty
    params: dict[str, Any]
    idempotency_key: NonEmpty
    account_id: str | None = None
    session_key: str | None = None
    session_id: str | None = None
    agent_id: str | None = None
    reply: dict[str, Any] | None = None
    requester_account_id: str | None = None
    requester_sender_id: str | None = None
    sender_is_owner: bool | None = None
    inbound_turn_kind: str | None = None
    tool_context: dict[str, Any] | None = None
    conversation_read_origin: Annotated[str | None, Field(pattern="^direct-operator$")] = None


class MessageActionMethods:
    """`message.action`."""

    def __init__(self, conversation: Conversation) -> None:
        self._sender = AgentMethods(conversation)

    @rpc(
        "message.action",
        scope=Scope.WRITE,
        params=MessageActionParams,
        result=SendResult,
        idempotency=Idempotency.HANDLED,
    )
    async def action(self, call: Call, params: MessageActionParams) -> SendResult | Encoded:
        """Carry out the action `send`, and return once the platform has the message; other actions are refused."""
        if params.action != "send":
            raise InvalidRequest(f"action: {params.action[:80]!r} is not known here; use send")
        return await self._sender.send(call, send_params(params))


def send_params(params: MessageActionParams) -> SendParams:
    """What `send` is asked for; raise `InvalidRequest` for what it could not do."""
    wanted = {name: value for name, value in params.params.items() if value not in (None, False, "") and not name.startswith("__")}
    beyond = sorted(wanted.keys() - _MEANT.keys() - _PASSED_OVER)
    if beyond:
        raise InvalidRequest(f"params.{beyond[0][:80]}: cannot be sent by this gateway; leave it out")
    to = str(wanted.get("target") or wanted.get("to") or "").removeprefix(f"{params.channel}:")
    if not to:
        raise InvalidRequest("params.target: is missing; name who gets the message")
    asked = {_MEANT[name]: str(value) if name in {"replyTo", "threadId"} else value for name, value in wanted.items() if name in _MEANT}
    if params.reply is not None and "replyToId" in params.reply:
        asked.setdefault("replyToId", str(params.reply["replyToId"]))
    place = {"to": to, "channel": params.channel, "accountId": wanted.get("accountId") or params.account_id}
    try:
        return SendParams.model_validate({**asked, **place, "sessionKey": params.session_key, "idempotencyKey": params.idempotency_key})
    except ValueError as error:
        raise InvalidRequest("params: message and media have to be texts, silent and its like true or false") from error
