"""The methods `agent`, `agent.wait` and `send`."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar

from openclaw_kernel.api import (
    AgentTimeout,
    Attachment,
    AttachmentKind,
    Call,
    Encoded,
    GatewayError,
    Idempotency,
    InvalidRequest,
    KeptAnswer,
    RequestKey,
    Scope,
    Target,
    Unavailable,
    rpc,
)
from openclaw_plugins.conversation import ledger, runs
from openclaw_plugins.conversation.engine import Conversation
from openclaw_plugins.conversation.ledger import WEBCHAT, parts_of
from openclaw_plugins.conversation.methods_chat import append_assistant, tool_events_owner
from openclaw_plugins.conversation.outbox_rows import Delivered, Draft, KnownRequest, Outgoing, find_request, insert
from openclaw_plugins.conversation.requests import (
    MOST_BYTES,
    attachments_of,
    decode_base64,
    target_of,
    thinking_level,
)
from openclaw_plugins.conversation.runs import EndedRun, Run, RunOptions
from openclaw_plugins.conversation.sessions import find as find_session
from openclaw_plugins.conversation.sessions import last_place
from openclaw_plugins.conversation.submissions import Request, client_message, key_of, message_id_of
from openclaw_plugins.conversation.wire import (
    AgentParams,
    AgentResult,
    AgentWaitParams,
    AgentWaitResult,
    SendParams,
    SendResult,
)

ValueT = TypeVar("ValueT")

SEND_SECONDS: Final = 25.0
_STATUSES: Final = {"ok": "ok", "timeout": "timeout"}


def agent_scopes(params: AgentParams) -> Iterable[Scope]:
    """Ask for the admin scope where the message resets the session."""
    words = params.message.split(maxsplit=1)
    return (Scope.ADMIN,) if words and words[0].lower() in ("/new", "/reset") else ()


class AgentMethods:
    """Turns for programs, and messages sent by programs."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation

    @rpc(
        "agent",
        scope=Scope.WRITE,
        params=AgentParams,
        result=AgentResult,
        idempotency=Idempotency.HANDLED,
        requires=agent_scopes,
    )
    async def agent(self, call: Call, params: AgentParams) -> dict[str, Any] | Encoded:
        """Run a turn; answers twice on one id: `accepted` once the message is stored, then how the turn ended."""
        world = self._conversation.world
        request = await self._request(call, params)
        submission = await self._conversation.submissions.submit(request)
        if submission.status == "in_flight":
            return submission.reply
        if submission.answer is not None:
            return submission.answer.replay()
        run = submission.run
        if run is None:
            ended = await world.store.read(lambda connection: runs.find_ended_of(connection, submission.inbound_id))
            if ended is None or ended.ended_ms is None:
                raise Unavailable(f"run {request.run_id[:80]} left no result; send the message with a new key")
            return await self._kept(request.key, lambda: _finished(ended))
        call.respond_early(
            {
                "runId": request.run_id,
                "sessionKey": request.session_key,
                "agentId": request.agent_id,
                "status": "accepted",
                "acceptedAt": world.now_ms(),
            }
        )
        await run.done.wait()
        if run.outcome is not None and run.outcome.status == "interrupted":
            # The next start may take the turn up again; how it ends then is the answer to keep.
            return _finished(_ended(run))
        return await self._kept(request.key, lambda: _finished(_ended(run)))

    @rpc("agent.wait", scope=Scope.WRITE, params=AgentWaitParams, result=AgentWaitResult, repeatable="it only waits")
    async def wait(self, call: Call, params: AgentWaitParams) -> dict[str, Any]:
        """Wait for a run to end, also one that ended before or has not been sent yet.

        Where several clients have a run of this id, the caller's own is meant.
        """
        world = self._conversation.world
        run_id = params.run_id
        own = message_id_of(call.client, run_id)
        ended = await self._ended_before(run_id, own)
        if ended is not None:
            return _waited(ended)
        run = await world.board.wait(run_id, params.timeout_ms / 1000, own)
        if run is not None:
            return _waited(_ended(run))
        # It may have come and gone while the ledger was asked.
        ended = await self._ended_before(run_id, own)
        if ended is not None:
            return _waited(ended)
        active = world.board.find(run_id, own)
        answer: dict[str, Any] = {"runId": run_id, "status": "timeout"}
        if active is not None and active.started_ms is None:
            answer["status"] = "pending"
        elif active is not None:
            answer["startedAt"] = active.started_ms
        return answer

    async def _ended_before(self, run_id: str, message_id: str) -> EndedRun | None:
        """Return a run that has ended: that of the client's own message, else of anybody's where none of this id is active."""
        world = self._conversation.world
        active = world.board.find(run_id, message_id)
        if active is not None and active.request is not None and active.request[0] == message_id:
            return None

        def read(connection: sqlite3.Connection) -> EndedRun | None:
            known = ledger.find(connection, ledger.WEBCHAT, ledger.DEFAULT_ACCOUNT, message_id)
            own = None if known is None or known.run_id != run_id else runs.find_ended_of(connection, known.id)
            if own is not None and own.ended_ms is not None:
                return own
            return None if active is not None else runs.find_ended(connection, run_id)

        ended = await world.store.read(read)
        return None if ended is None or ended.ended_ms is None else ended

    @rpc("send", scope=Scope.WRITE, params=SendParams, result=SendResult, idempotency=Idempotency.HANDLED)
    async def send(self, call: Call, params: SendParams) -> SendResult | Encoded:
        """Send a message to a channel and return once the platform has it."""
        world = self._conversation.world
        key = key_of(call)
        draft = self._draft(params)
        mirror = world.keys.canonical(params.session_key, params.agent_id) if params.session_key else None
        item = await world.complete("send a message", self._enqueue(key, draft))
        if isinstance(item, KeptAnswer):
            return item.replay()
        if isinstance(item, KnownRequest):
            delivered = await self._join(item)
        else:
            delivered = await _within(item)
            if mirror and delivered.state == "sent" and draft.text:
                await append_assistant(self._conversation, mirror, draft.text)
        return await self._kept(key, lambda: _sent(params.idempotency_key, draft.target, delivered))

    async def _kept(self, key: RequestKey, answer: Callable[[], ValueT]) -> ValueT:
        """Answer, or raise, what is the end of a request; it is kept before it is told."""
        try:
            value = answer()
        except GatewayError as error:
            await self._conversation.world.keep_answer(key, error)
            raise
        await self._conversation.world.keep_answer(key, value)
        return value

    # --- agent --------------------------------------------------------------------------------------------------------

    async def _request(self, call: Call, params: AgentParams) -> Request:
        world = self._conversation.world
        key = await self._session_of(params)
        agent_id = world.agent_of(key, params.agent_id).id
        attachments = attachments_of(params.attachments)
        model = self._conversation.known_model(_model_ref(params)) if params.model else None
        return Request(
            key=key_of(call),
            run_id=params.idempotency_key,
            message_id=message_id_of(call.client, params.idempotency_key),
            answered_at_once=False,
            session_key=key,
            agent_id=agent_id,
            message=client_message(call.client, params.idempotency_key, params.message, attachments, world.now_ms()),
            parts=parts_of(attachments),
            options=RunOptions(
                model=model,
                thinking=thinking_level(params.thinking),
                timeout_seconds=float(params.timeout) if params.timeout else None,
                extra_system_prompt=params.extra_system_prompt,
                channel=params.channel or WEBCHAT,
                deliver_to=await self._deliver_to(params, key),
            ),
            owner=tool_events_owner(call),
        )

    async def _session_of(self, params: AgentParams) -> str:
        world = self._conversation.world
        if params.session_key:
            return world.keys.canonical(params.session_key, params.agent_id)
        if params.session_id:
            session_id = params.session_id
            found = await world.store.read(
                lambda connection: connection.execute(
                    "SELECT key FROM conversation_sessions WHERE session_id = ?", (session_id,)
                ).fetchone()
            )
            if found is None:
                raise InvalidRequest(f"sessionId: there is no session {session_id[:80]!r}; name it by sessionKey")
            return str(found[0])
        return world.keys.canonical("main", params.agent_id)

    async def _deliver_to(self, params: AgentParams, key: str) -> Target | None:
        if not params.deliver:
            return None
        channel = (params.reply_channel or params.channel or "").strip().lower()
        to = params.reply_to or params.to
        if channel and to:
            return target_of(
                channel=channel,
                to=to,
                account_id=params.reply_account_id or params.account_id,
                thread_id=params.thread_id,
                peer_kind="group" if params.group_id else None,
            )
        world = self._conversation.world
        row = world.sessions.cached(key) or await world.store.read(lambda connection: find_session(connection, key))
        return last_place(row)

    # --- send ---------------------------------------------------------------------------------------------------------

    async def _enqueue(self, key: RequestKey, draft: Draft) -> Outgoing | KnownRequest | KeptAnswer:
        """Write key and message in one and send it; a repeat leads to what it wrote, or to its answer."""
        world = self._conversation.world
        requests, now = world.requests, world.now_ms()

        def write(connection: sqlite3.Connection) -> Outgoing | KnownRequest | KeptAnswer:
            claim = requests.claim(connection, key)
            if claim.answer is not None:
                return claim.answer
            known = find_request(connection, claim.record, before=f"{key.principal}:{key.key}")
            if known is None and claim.state == "in_flight":
                raise Unavailable(
                    f"what became of the message with idempotencyKey {key.key[:80]!r} is no longer known; use a new key to send again",
                    details={"method": key.method, "reason": "idempotency-unknown"},
                )
            if known is None:
                item = insert(connection, draft, now)
                requests.note(connection, key, item.outbox_id)
                return item
            if claim.state == "new" and known.request_hash != key.digest:
                raise InvalidRequest(
                    f"idempotencyKey {key.key[:80]!r} was used for another message; use a new key",
                    details={"reason": "chat-request-conflict"},
                )
            requests.note(connection, key, known.outbox_id)
            return known

        item = await world.store.write(write)
        if isinstance(item, Outgoing):
            world.outbox.dispatch(item)
        return item

    def _draft(self, params: SendParams) -> Draft:
        if params.media_url or params.media_urls:
            raise InvalidRequest("mediaUrl: files are not fetched; send the file itself as base64 in buffer")
        attachments = self._buffer(params)
        text = params.message or ""
        if not text.strip() and not attachments:
            raise InvalidRequest("message: is empty; send a text or a file in buffer")
        target = target_of(channel=self._channel(params), to=params.to, account_id=params.account_id, thread_id=params.thread_id)
        return Draft(
            target=target,
            text=text,
            attachments=attachments,
            run_id=params.idempotency_key,
            reply_to_id=params.reply_to_id or None,
            silent=bool(params.silent),
        )

    def _channel(self, params: SendParams) -> str:
        known = [channel for channel in self._conversation.world.channels.ids() if channel != WEBCHAT]
        channel = (params.channel or "").strip().lower()
        if not channel:
            prefix = params.to.partition(":")[0].lower()
            channel = prefix if prefix in known else known[0] if len(known) == 1 else ""
        if not channel:
            raise InvalidRequest(f"channel: is missing; name one of {', '.join(known) or 'no channel is configured'}")
        if channel not in known and channel != WEBCHAT:
            raise InvalidRequest(f"channel: there is no channel {channel!r}; use one of {', '.join(known)}")
        return channel

    def _buffer(self, params: SendParams) -> tuple[Attachment, ...]:
        if not params.buffer:
            return ()
        mime = params.content_type or "application/octet-stream"
        family = mime.partition("/")[0]
        kinds: dict[str, AttachmentKind] = {"image": "image", "audio": "audio", "video": "video"}
        kind: AttachmentKind = "file" if params.force_document else kinds.get(family, "file")
        content = decode_base64("buffer", params.buffer)
        if len(content) > MOST_BYTES:
            raise InvalidRequest(f"buffer: the file has {len(content)} bytes; send at most {MOST_BYTES}")
        return (Attachment(kind=kind, mime_type=mime, file_name=params.filename or "file", content=content),)

    async def _join(self, known: KnownRequest) -> Delivered:
        world = self._conversation.world
        item = world.outbox.active(known.outbox_id)
        if item is not None:
            return await _within(item)
        if known.state in ("prepared", "sending"):
            # It came to its end after the row was read.
            outbox_id = known.outbox_id
            again = await world.store.read(lambda connection: find_request(connection, outbox_id, before=""))
            known = known if again is None else again
        if known.state in ("prepared", "sending"):
            raise _queued(known.outbox_id)
        state: Any = known.state
        return Delivered(known.outbox_id, state, known.receipt, known.error)


async def _within(item: Outgoing) -> Delivered:
    try:
        async with asyncio.timeout(SEND_SECONDS):
            if item.ended is not None:
                return await asyncio.shield(item.ended)
    except TimeoutError:
        pass
    raise _queued(item.outbox_id)


def _queued(outbox_id: str) -> Unavailable:
    return Unavailable(
        f"the message {outbox_id} is stored and goes out as soon as the channel takes it",
        details={"code": "OUTBOUND_DELIVERY_QUEUED"},
    )


def _sent(run_id: str, target: Target, delivered: Delivered) -> SendResult:
    if delivered.state != "sent":
        raise Unavailable(f"not sent to {target.channel}: {delivered.error or delivered.state}", details={"state": delivered.state})
    message_id = delivered.message_ids[0] if delivered.message_ids else delivered.outbox_id
    return {"runId": run_id, "messageId": message_id, "channel": target.channel, "chatId": target.peer_id}


def _model_ref(params: AgentParams) -> str:
    model = params.model or ""
    return f"{params.provider}/{model}" if params.provider and "/" not in model else model


def _ended(run: Run) -> EndedRun:
    outcome = run.outcome
    if outcome is None:
        raise Unavailable(f"run {run.run_id[:80]} ended without a result")
    return EndedRun(
        run.run_id,
        run.session_key,
        outcome.status,
        run.started_ms,
        run.ended_ms,
        outcome.text,
        outcome.error,
        outcome.stop_reason,
    )


def _finished(ended: EndedRun) -> dict[str, Any]:
    """Return the second answer of `agent`; raise where the turn did not end well."""
    # The clock may have been set back meanwhile.
    took = max(0, (ended.ended_ms or 0) - (ended.started_ms or ended.ended_ms or 0))
    if ended.state == "ok":
        payloads = [{"text": ended.text, "mediaUrl": None}] if ended.text else []
        return {
            "runId": ended.run_id,
            "status": "ok",
            "summary": "completed",
            "result": {"payloads": payloads, "meta": {"durationMs": took, "stopReason": ended.stop_reason}},
        }
    summary = ended.error or ("stopped" if ended.state == "aborted" else ended.state)
    final = {"runId": ended.run_id, "status": _STATUSES.get(ended.state, "error"), "summary": summary}
    if ended.state == "timeout":
        raise AgentTimeout(summary, payload=final)
    raise Unavailable(summary, payload=final)


def _waited(ended: EndedRun) -> dict[str, Any]:
    answer: dict[str, Any] = {"runId": ended.run_id, "status": _STATUSES.get(ended.state, "error")}
    optional = {
        "startedAt": ended.started_ms,
        "endedAt": ended.ended_ms,
        "error": ended.error or ("stopped" if ended.state == "aborted" else None),
        "stopReason": ended.stop_reason,
    }
    answer.update({key: value for key, value in optional.items() if value is not None})
    return answer
