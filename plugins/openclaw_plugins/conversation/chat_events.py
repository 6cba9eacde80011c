"""What clients and the origin channel see of a run while it goes on, and of its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

from openclaw_kernel.api import Channels, Events, EventSpec, Progress, Scope
from openclaw_plugins.conversation.ledger import WEBCHAT
from openclaw_plugins.conversation.runs import Outcome, Run
from openclaw_plugins.conversation.sessions import SessionRow

PACE_SECONDS: Final = 0.075
SEQ_STEP: Final = 1_000_000
"""More than the events that one attempt of a run can have."""
SESSIONS_TOPIC: Final = "sessions"
DELETED: Final = "delete"

EVENTS: Final = (
    EventSpec(
        name="agent",
        scope=Scope.READ,
        doc="A step of a run: `stream` is `lifecycle` (`data.phase` is `start`, `end` or `error`), `assistant`, `thinking` or `tool`.",
    ),
    EventSpec(
        name="chat",
        scope=Scope.READ,
        doc="The answer of a run grows (`state: delta`, its text is cumulative) and ends once: `final`, `aborted` or `error`.",
    ),
    EventSpec(
        name="session.message",
        scope=Scope.READ,
        doc="A message was added to a transcript. For subscribers of all sessions or of this one.",
    ),
    EventSpec(
        name="session.tool",
        scope=Scope.READ,
        doc="A tool began or ended in a run. For subscribers of all sessions or of this one.",
    ),
    EventSpec(
        name="sessions.changed",
        scope=Scope.READ,
        doc="A session was created, changed, reset or deleted, or its run began or ended. For subscribers of all sessions.",
    ),
)


def session_topic(session_key: str) -> str:
    """Return the topic of a session's subscribers."""
    return f"session:{session_key}"


class RunStream:
    """The `RunView` of a run, as events: paced while it streams, one terminal state, one counter for `agent` and `chat` events."""

    def __init__(self, run: Run, events: Events, channels: Channels, started_ms: int) -> None:
        self._run = run
        self._events = events
        self._channels = channels
        self._loop = asyncio.get_running_loop()
        self._now_ms = started_ms
        self._started_at = self._loop.time()
        # The numbers of a run never go back, also for who reads on over a crash.
        self._seq = (run.attempt - 1) * SEQ_STEP
        self._text = run.resumed.text if run.resumed is not None else ""
        self._unsent = ""
        self._recorded = len(self._text)
        self._replaces = run.resumed is not None
        """True until who follows a run that goes on was told what there is of it: what came before a crash may be less or more."""
        self._thinking = ""
        self._unsent_thinking = ""
        self._part = 0
        """Counts what a reader sees between two pieces of text: across it, no piece stands for another."""
        self._next_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        target = run.options.deliver_to
        self._target = target if target is not None and target.channel != WEBCHAT else None

    @property
    def text_so_far(self) -> str:
        """All the text that was streamed."""
        return self._text

    @property
    def unrecorded(self) -> str:
        """The streamed text that no recorded message has."""
        return self._text[self._recorded :].strip("\n")

    @property
    def seq(self) -> int:
        return self._seq

    def started(self) -> None:
        """Tell that the turn begins."""
        self._agent("lifecycle", {"phase": "start", "startedAt": self._now_ms})
        self._progress("started")

    def text(self, delta: str) -> None:
        """Show more of the answer: at once where nothing was shown for 75 ms, else when these have passed."""
        if self._closed or not delta:
            return
        self._text += delta
        self._unsent += delta
        self._schedule()

    def thinking(self, delta: str) -> None:
        """Show more of the model's reasoning."""
        if self._closed or not delta:
            return
        self._thinking += delta
        self._unsent_thinking += delta
        self._schedule()

    def tool(
        self,
        phase: Literal["start", "result"],
        *,
        call_id: str,
        name: str,
        arguments: Mapping[str, Any],
        result: str,
        is_error: bool,
    ) -> None:
        """Show a tool call: to the run's owner as `agent` event, to the session's subscribers as `session.tool`."""
        if self._closed:
            return
        self.flush()
        self._part += 1
        data: dict[str, Any] = {"phase": phase, "name": name, "toolCallId": call_id}
        if phase == "start":
            data["args"] = dict(arguments)
            self._progress("tool", name)
        else:
            data |= {"result": result, "isError": is_error}
        payload = self._agent_payload("tool", data)
        owner = self._run.owner
        if owner is not None:
            self._events.broadcast("agent", payload, connections=(owner,))
        self._events.broadcast(
            "session.tool",
            payload,
            topics=(SESSIONS_TOPIC, session_topic(self._run.session_key)),
            exclude=() if owner is None else (owner,),
        )

    def message_recorded(self) -> None:
        """Take note that what was streamed so far is in the transcript."""
        self._recorded = len(self._text)
        if self._unsent_thinking:
            self.flush()
        self._thinking = ""
        self._part += 1

    def flush(self) -> None:
        """Send what waits for its time."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._unsent_thinking:
            self._agent("thinking", {"text": self._thinking, "delta": self._unsent_thinking}, replaces=self._piece("thinking"))
            self._unsent_thinking = ""
        if self._unsent:
            delta, self._unsent = self._unsent, ""
            self._agent("assistant", {"text": self._text, "delta": delta}, replaces=self._piece("assistant"))
            payload = self._chat_payload("delta")
            payload |= {"deltaText": delta, "message": self._message(self._text)}
            if self._replaces:
                payload |= {"deltaText": self._text, "replace": True}
                self._replaces = False
            self._broadcast("chat", payload, replaces=self._piece("chat"))
            self._progress("text", self._text)
        self._next_at = self._loop.time() + PACE_SECONDS

    def close(self) -> None:
        """Take nothing more; what was streamed so far is shown."""
        if not self._closed:
            self.flush()
            self._closed = True

    def ended(self, outcome: Outcome, message: Mapping[str, Any] | None) -> None:
        """Tell the end: a lifecycle event and the one terminal `chat` event."""
        self.close()
        ended = {"startedAt": self._now_ms, "endedAt": self._clock()}
        if outcome.status in ("ok", "aborted"):
            aborted = {"aborted": True} if outcome.status == "aborted" else {}
            self._agent("lifecycle", {"phase": "end", **ended, **aborted})
        else:
            self._agent("lifecycle", {"phase": "error", "error": outcome.error or "", **ended})
        self._broadcast("chat", terminal_payload(self._run, self._seq, outcome, message))

    def progress_ended(self) -> None:
        """Tell the origin channel that nothing more comes."""
        self._progress("ended")

    def _schedule(self) -> None:
        if self._timer is not None:
            return
        wait = self._next_at - self._loop.time()
        if wait <= 0:
            self.flush()
        else:
            self._timer = self._loop.call_later(wait, self._due)

    def _due(self) -> None:
        self._timer = None
        if not self._closed:
            self.flush()

    def _clock(self) -> int:
        return self._now_ms + round((self._loop.time() - self._started_at) * 1000)

    def _message(self, text: str) -> dict[str, Any]:
        return {"role": "assistant", "content": [{"type": "text", "text": text}], "timestamp": self._clock()}

    def _piece(self, stream: str) -> str:
        """Return the key under which a piece of text stands for those before it, each of which it begins with."""
        return f"{self._run.run_id}:{self._part}:{stream}"

    def _agent(self, stream: str, data: dict[str, Any], *, replaces: str | None = None) -> None:
        self._broadcast("agent", self._agent_payload(stream, data), replaces=replaces)

    def _agent_payload(self, stream: str, data: dict[str, Any]) -> dict[str, Any]:
        self._seq += 1
        return {
            "runId": self._run.run_id,
            "seq": self._seq,
            "stream": stream,
            "ts": self._clock(),
            "data": data,
            "sessionKey": self._run.session_key,
            "agentId": self._run.agent_id,
        }

    def _chat_payload(self, state: str) -> dict[str, Any]:
        return chat_payload(self._run, self._seq, state)

    def _broadcast(self, event: str, payload: dict[str, Any], *, replaces: str | None = None) -> None:
        self._events.broadcast(event, payload, scoped_topic=session_topic(self._run.session_key), replaces=replaces)

    def _progress(self, phase: Literal["started", "text", "tool", "ended"], text: str = "") -> None:
        if self._target is not None:
            self._channels.show_progress(Progress(target=self._target, run_id=self._run.run_id, phase=phase, text=text))


def chat_payload(run: Run, seq: int, state: str) -> dict[str, Any]:
    """Return what every `chat` event of a run begins with."""
    return {"runId": run.run_id, "sessionKey": run.session_key, "agentId": run.agent_id, "seq": seq, "state": state}


def terminal_payload(run: Run, seq: int, outcome: Outcome, message: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the one `chat` event that ends a run."""
    states = {"ok": "final", "aborted": "aborted"}
    payload = chat_payload(run, seq, states.get(outcome.status, "error"))
    if message is not None:
        payload["message"] = message
    if outcome.stop_reason:
        payload["stopReason"] = outcome.stop_reason
    if payload["state"] == "error":
        payload["errorMessage"] = outcome.error or "the turn failed"
        payload["errorKind"] = outcome.error_kind or "unknown"
    return payload


class SessionEvents:
    """`session.message`, and `sessions.changed` gathered for 100 ms, or 500 ms at most."""

    QUIET_SECONDS: Final = 0.1
    LONGEST_SECONDS: Final = 0.5
    MOST_KEYS: Final = 500

    def __init__(self, events: Events, describe: Callable[[SessionRow], dict[str, Any]], now_ms: Callable[[], int]) -> None:
        self._events = events
        self._describe = describe
        self._now_ms = now_ms
        self._pending: dict[str, tuple[SessionRow, str]] = {}
        self._first_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def message(self, run_id: str | None, session_key: str, agent_id: str, wire: Mapping[str, Any]) -> None:
        """Tell the session's subscribers of a message that is on disk."""
        place = wire["__openclaw"]
        payload = {
            "sessionKey": session_key,
            "agentId": agent_id,
            "message": wire,
            "messageId": place["id"],
            "messageSeq": place["seq"],
        }
        if run_id is not None:
            payload["runId"] = run_id
        self._events.broadcast("session.message", payload, topics=(SESSIONS_TOPIC, session_topic(session_key)))

    def changed(self, row: SessionRow, reason: str) -> None:
        """Tell the subscribers of the list that a session changed; the newest state of each is sent."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        if not self._pending:
            self._first_at = now
        self._pending[row.key] = (row, reason)
        if self._timer is not None:
            self._timer.cancel()
        if len(self._pending) >= self.MOST_KEYS:
            self.flush()
            return
        due = min(now + self.QUIET_SECONDS, self._first_at + self.LONGEST_SECONDS)
        self._timer = loop.call_at(due, self.flush)

    def flush(self) -> None:
        """Send what was gathered."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        pending, self._pending = self._pending, {}
        for row, reason in pending.values():
            payload = {"sessionKey": row.key, "agentId": row.agent_id, "reason": reason, "ts": self._now_ms()}
            if reason != DELETED:
                payload["session"] = self._describe(row)
            self._events.broadcast("sessions.changed", payload, topics=(SESSIONS_TOPIC,))
