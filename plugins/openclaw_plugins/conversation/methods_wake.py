"""The method `wake`: a program tells an agent what happened, and the agent begins a turn about it."""

from __future__ import annotations

import hashlib
import uuid
from typing import Final, Literal, NotRequired

from pydantic import ConfigDict
from typing_extensions import TypedDict

from openclaw_kernel.api import Call, InvalidRequest, Params, RequestKey, Scope, rpc
from openclaw_plugins.conversation.engine import Conversation
from openclaw_plugins.conversation.runs import RunOptions
from openclaw_plugins.conversation.submissions import Request, client_message, message_id_of
from openclaw_plugins.conversation.wire import NonEmpty

MAIN: Final = "main"
LONGEST_CHARACTERS: Final = 16_384


class WakeParams(Params):
    """What happened and whom it concerns; further keys are passed over, as the protocol has it."""

    model_config = ConfigDict(extra="ignore")

    mode: Literal["now", "next-heartbeat"]
    text: NonEmpty
    session_key: NonEmpty | None = None
    agent_id: NonEmpty | None = None


class WakeResult(TypedDict):
    ok: bool
    reason: NotRequired[str]


class WakeMethods:
    """`wake`."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation

    @rpc("wake", scope=Scope.WRITE, params=WakeParams, result=WakeResult, repeatable="each call tells of an event of its own")
    async def wake(self, call: Call, params: WakeParams) -> WakeResult:
        """Begin a turn about an event in a session, the agent's main one unless another is named; answers once that is on disk."""
        if params.mode != "now":
            raise InvalidRequest("mode: next-heartbeat, and this gateway has no heartbeats; use now")
        text = params.text.strip()
        if not 1 <= len(text) <= LONGEST_CHARACTERS:
            raise InvalidRequest(f"text: has {len(text)} characters; write 1 to {LONGEST_CHARACTERS}")
        world = self._conversation.world
        key = world.keys.canonical(params.session_key or MAIN, params.agent_id)
        agent_id = world.agent_of(key, params.agent_id).id
        run_id = str(uuid.uuid4())
        message = client_message(call.client, run_id, f"System event: {text}", (), world.now_ms())
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        request = Request(
            key=RequestKey(principal=call.client.principal, method="wake", key=run_id, digest=digest),
            run_id=run_id,
            message_id=message_id_of(call.client, run_id),
            session_key=key,
            agent_id=agent_id,
            message=message,
            parts=(),
            options=RunOptions(channel="webchat"),
            owner=None,
            # What happened is no order, whatever it begins with.
            commands=False,
        )
        await self._conversation.submissions.submit(request)
        return {"ok": True}
