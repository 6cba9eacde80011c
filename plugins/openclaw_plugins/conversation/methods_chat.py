"""The methods `chat.*`."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import orjson

from openclaw_kernel.api import (
    Call,
    Claim,
    Encoded,
    Idempotency,
    InvalidRequest,
    RequestKey,
    Scope,
    Target,
    Unavailable,
    rpc,
)
from openclaw_plugins.conversation.chat_events import session_topic
from openclaw_plugins.conversation.engine import Conversation
from openclaw_plugins.conversation.history import HistoryPage, read_page
from openclaw_plugins.conversation.ledger import parts_of
from openclaw_plugins.conversation.notes import show_note, write_note
from openclaw_plugins.conversation.requests import attachments_of, target_of, thinking_level
from openclaw_plugins.conversation.runs import RunOptions
from openclaw_plugins.conversation.sessions import SessionRow, last_place
from openclaw_plugins.conversation.stop_words import is_stop
from openclaw_plugins.conversation.submissions import Request, client_message, key_of, message_id_of
from openclaw_plugins.conversation.transcript import Entry
from openclaw_plugins.conversation.wire import (
    ChatAbortParams,
    ChatAbortResult,
    ChatHistoryParams,
    ChatHistoryResult,
    ChatInjectParams,
    ChatInjectResult,
    ChatSendParams,
    ChatSendResult,
)

TOOL_EVENTS: Final = "tool-events"
CLAIM_SECONDS: Final = 0.4


class ChatMethods:
    """`chat.send`, `chat.history`, `chat.abort` and `chat.inject`."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation

    @rpc(
        "chat.send",
        scope=Scope.WRITE,
        params=ChatSendParams,
        result=ChatSendResult,
        idempotency=Idempotency.HANDLED,
    )
    async def send(self, call: Call, params: ChatSendParams) -> dict[str, Any] | Encoded:
        """Send a message to an agent; the answer comes as `chat` events under `runId`, the idempotency key.

        A stop word stops the session's turn instead and is answered at once.
        """
        world = self._conversation.world
        key = world.keys.canonical(params.session_key, params.agent_id)
        agent_id = world.agent_of(key, params.agent_id).id
        commands = not params.suppress_command_interpretation
        if commands and not params.attachments and is_stop(params.message):
            return await self._stop(key_of(call), key)
        if not params.message.strip() and not params.attachments:
            raise InvalidRequest("message: is empty; send a text or an attachment")
        if params.session_id is not None:
            await self._require_session(key, params.session_id)
        attachments = attachments_of(params.attachments)
        target = await self._deliver_to(params, key)
        request = Request(
            key=key_of(call),
            run_id=params.idempotency_key,
            message_id=message_id_of(call.client, params.idempotency_key),
            session_key=key,
            agent_id=agent_id,
            message=client_message(call.client, params.idempotency_key, params.message, attachments, world.now_ms()),
            parts=parts_of(attachments),
            options=RunOptions(
                thinking=thinking_level(params.thinking),
                timeout_seconds=params.timeout_ms / 1000 if params.timeout_ms else None,
                channel=params.originating_channel or "webchat",
                deliver_to=target,
                reply_to_id=params.reply_to_id,
            ),
            owner=tool_events_owner(call),
            commands=commands,
            interrupt=params.queue_mode == "interrupt",
            collect=params.queue_mode == "collect",
        )
        submission = await self._conversation.submissions.submit(request)
        return submission.reply if submission.answer is None else submission.answer.replay()

    async def _stop(self, request: RequestKey, key: str) -> dict[str, Any] | Encoded:
        """Stop a session's turn, once: a repeat must not stop the turn that came after it."""
        world = self._conversation.world
        claim: Claim | None = None
        # A store that fails or hangs keeps nobody from stopping.
        try:
            async with asyncio.timeout(CLAIM_SECONDS):
                claim = await world.complete(
                    "claim a stop", world.store.write(lambda connection: world.requests.claim(connection, request))
                )
        except Unavailable as error:
            world.context.logger.warning("a stop is carried out, though its key cannot be kept: %s", error.message)
        except TimeoutError:
            world.context.logger.warning("a stop is carried out, though its key is not written yet")
        if claim is not None and claim.answer is not None:
            return claim.answer.replay()
        stopped = await self._conversation.abort(key)
        answer = {"ok": True, "aborted": bool(stopped), "runIds": stopped}
        if claim is not None:
            await world.keep_answer(request, answer)
        return answer

    @rpc("chat.history", scope=Scope.READ, params=ChatHistoryParams, result=ChatHistoryResult)
    async def history(self, call: Call, params: ChatHistoryParams) -> Encoded:
        """Return the newest page of a transcript, oldest message first, or with `cursor` what came since."""
        world = self._conversation.world
        key = world.keys.canonical(params.session_key, params.agent_id)
        row = await world.sessions.get(key)
        page = HistoryPage(params=params, session_id=params.session_id or (row.session_id if row is not None else ""))
        found = await world.store.read(lambda connection: read_page(connection, key, page))
        kind = found.get("kind")
        if kind != "reset":
            around = self._around(key, row, page.session_id)
            if kind == "delta":
                around = {name: around[name] for name in ("sessionInfo", "inFlightRun") if name in around}
            found |= around
        return Encoded(orjson.dumps(found))

    @rpc(
        "chat.abort",
        scope=Scope.WRITE,
        params=ChatAbortParams,
        result=ChatAbortResult,
        repeatable="what is stopped stays stopped",
        while_draining=True,
    )
    async def abort(self, call: Call, params: ChatAbortParams) -> ChatAbortResult:
        """Stop a session's turn and drop what waits, or only the run that is named."""
        world = self._conversation.world
        key = world.keys.canonical(params.session_key, params.agent_id)
        own = None if params.run_id is None else message_id_of(call.client, params.run_id)
        if params.run_id is not None and world.board.find(params.run_id, own, key) is None and world.board.find(params.run_id):
            raise InvalidRequest(f"runId: {params.run_id[:80]} does not belong to the session {key}")
        stopped = await self._conversation.abort(key, params.run_id, message_id=own)
        return {"ok": True, "aborted": bool(stopped), "runIds": stopped}

    @rpc(
        "chat.inject",
        scope=Scope.ADMIN,
        params=ChatInjectParams,
        result=ChatInjectResult,
        advertised=False,
        idempotency=Idempotency.JOIN,
    )
    async def inject(self, call: Call, params: ChatInjectParams) -> ChatInjectResult:
        """Append a message to a transcript as the agent's, without a turn."""
        key = self._conversation.world.keys.canonical(params.session_key, params.agent_id)
        await self._conversation.require_place(key)
        text = f"[{params.label}]\n\n{params.message}" if params.label else params.message
        entry = await append_assistant(self._conversation, key, text)
        world = self._conversation.world
        wire = entry.to_wire()
        payload = {
            "runId": f"inject-{entry.id}",
            "sessionKey": key,
            "agentId": world.keys.agent(key),
            "seq": 0,
            "state": "final",
            "message": wire,
        }
        world.events.broadcast("chat", payload, scoped_topic=session_topic(key))
        return {"ok": True, "messageId": entry.id}

    async def _require_session(self, key: str, session_id: str) -> None:
        row = await self._conversation.world.sessions.get(key)
        if row is not None and row.session_id != session_id:
            raise InvalidRequest(
                f"sessionId: {session_id[:80]} is not the current one of {key}; read the history again",
                details={"reason": "session-changed"},
            )

    async def _deliver_to(self, params: ChatSendParams, key: str) -> Target | None:
        if not params.deliver:
            return None
        if params.originating_channel and params.originating_to:
            return target_of(
                channel=params.originating_channel.strip().lower(),
                to=params.originating_to,
                account_id=params.originating_account_id,
                thread_id=params.originating_thread_id,
            )
        return last_place(await self._conversation.world.sessions.get(key))

    def _around(self, key: str, row: SessionRow | None, session_id: str) -> dict[str, Any]:
        """Return what a page tells beside its messages."""
        world = self._conversation.world
        agent = world.find_agent(world.keys.agent(key))
        model = agent.model if agent is not None else None
        provider, _, name = (model or "").partition("/")
        around: dict[str, Any] = {
            "defaults": {
                "modelProvider": provider or None,
                "model": name or None,
                "contextTokens": agent.context_tokens if agent is not None else None,
            },
            "sessionInfo": world.wire_row(row) if row is not None else {"key": key},
        }
        thinking = (row.thinking_level if row is not None else None) or (agent.thinking if agent is not None else None)
        if thinking:
            around["thinkingLevel"] = thinking
        for run in world.board.of_session(key):
            if run.begun and run.session_id == session_id and run.stream is not None:
                around["inFlightRun"] = {
                    "runId": run.run_id,
                    "text": run.stream.text_so_far,
                    "seq": run.stream.seq,
                    "startedAt": run.started_ms,
                }
        return around


def tool_events_owner(call: Call) -> str | None:
    """Return the connection that gets a run's tool events."""
    return call.client.connection_id if TOOL_EVENTS in call.client.caps else None


async def append_assistant(conversation: Conversation, key: str, text: str) -> Entry:
    """Append a text to a transcript as the agent's and tell the subscribers."""
    return await conversation.world.complete("inject a message", _append_assistant(conversation, key, text))


async def _append_assistant(conversation: Conversation, key: str, text: str) -> Entry:
    world = conversation.world
    agent_id, now = world.keys.agent(key), world.now_ms()
    note = await world.store.write(lambda connection: write_note(connection, key, agent_id, text, now))
    show_note(world, note, "inject")
    return note.entry
