"""Judges recorded frames: each against the contract, and each connection against the rules that a schema cannot say.

A `Judge` is fed with the records of one process (see tests/support/recorder.py) as they come, and gives back what is wrong with
them, each as a line of text. What it needs of the past it keeps for each connection.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import jsonschema_rs
import orjson

from tests.support import contract
from tests.support.contract_supplement import EVENT_DEFINITIONS

Frame: TypeAlias = dict[str, Any]

EVERYTHING = frozenset({"*"})
"""Leave out every payload."""

SHOWN = 400

# Sections 1 and 3 of the protocol's documentation.
UNSCOPED = {"tick", "health", "heartbeat", "shutdown", "gateway.suspension", "update.available"}
READ_EVENTS = {
    *("agent chat presence cron config.changed skills.changed plugins.changed node.presence node.hostStats".split()),
    *("sessions.changed users.prefs.changed mentions.changed ui.command talk.event".split()),
}
READ_PREFIXES = ("chat.", "task", "voicewake.", "session.", "board.", "events.")
OTHER_PREFIXES = {
    "session.approval": "approvals",
    "exec.approval.": "approvals",
    "plugin.approval.": "approvals",
    "openclaw.approval.": "approvals",
    "device.pair.": "pairing",
    "node.pair.": "pairing",
    "question.": "questions",
    "talk.mode": "talk",
    "talk.voice.change": "talk",
    "update.run.changed": "admin",
    "plugins.install.progress": "admin",
    "terminal.": "admin",
    "plugin.": "write",
}
ABOVE = {
    "read": {"read", "write", "admin"},
    "talk": {"talk", "write", "admin"},
    "write": {"write", "admin"},
}

CLOSES = {
    1000: ("",),
    1002: ("protocol mismatch",),
    1008: None,
    1009: None,
    1011: None,
    1012: ("service restart", "node capabilities changed"),
    1013: ("gateway starting", "gateway restart in progress", "identity cannot be checked now"),
    4001: ("gateway auth changed", "client invalidated: "),
}
"""Each code a gateway may close with, and the beginnings of its reasons; None where any reason may stand."""

TERMINAL = {"final", "aborted", "error"}


def needed_scope(event: str) -> str | None:
    """The scope without its prefix that a client needs to be told of an event, None for everybody."""
    if event in UNSCOPED:
        return None
    for prefix, scope in OTHER_PREFIXES.items():
        if event.startswith(prefix):
            return scope
    return "read" if event in READ_EVENTS or event.startswith(READ_PREFIXES) else "nobody"


@functools.cache
def fast_validator(definition: str) -> Any:
    """The validator that sees every frame; what it refuses is explained by `contract.validate`."""
    contract.validator(definition)
    return jsonschema_rs.Draft7Validator({"$ref": f"#/definitions/{definition}", "definitions": contract.definitions()})


def misfit(definition: str, document: object) -> str | None:
    """What is wrong with a document, None where it matches."""
    try:
        if fast_validator(definition).is_valid(document):
            return None
        contract.validate(definition, document)
    except contract.ContractError as error:
        return str(error)
    return f"the document is not a {definition}, by one of two validators: {shorten(document)}"


def shorten(value: object) -> str:
    """A value for a person to read."""
    text = json.dumps(value, default=repr)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}... ({len(text)} characters)"


@dataclass
class Asked:
    """A request that was not answered yet."""

    method: str
    accepted: bool = False


@dataclass
class Run:
    """What a connection was told of one run."""

    text: str = ""
    whole: bool = False
    """Whether it was told the start, and nothing was left out since."""
    ended: str | None = None
    chat_seq: int = -1
    agent_seq: int = -1


@dataclass
class Told:
    """What the judge knows of one connection."""

    number: int
    challenged: bool = False
    hello: Frame | None = None
    refused: bool = False
    seq: int = 0
    asked: dict[str, list[Asked]] = field(default_factory=dict)
    runs: dict[str, Run] = field(default_factory=dict)
    runs_by_key: dict[str, str] = field(default_factory=dict)

    @property
    def scopes(self) -> set[str]:
        """The scopes that hello granted, without their prefix."""
        granted = [] if self.hello is None else self.hello.get("auth", {}).get("scopes", [])
        return {str(scope).removeprefix("operator.") for scope in granted}


class Judge:
    """The rules over all connections of one process."""

    def __init__(self) -> None:
        self.frames = 0
        self._connections: dict[int, Told] = {}
        self._left: bytes = b""

    def feed(self, data: bytes, *, unjudged: Collection[str] = ()) -> Iterator[str]:
        """Judge the next part of a recording; a record that is cut off waits for its rest.

        `unjudged` are methods and events whose payloads are not looked at; `*` is all of them.
        """
        data = self._left + data
        position = 0
        while (end := data.find(b"\n", position)) >= 0:
            kind, connection, length = data[position:end].split(b" ")
            begin, after = end + 1, end + 1 + int(length)
            if len(data) <= after:
                break
            yield from self.take(kind.decode(), int(connection), data[begin:after], unjudged=unjudged)
            position = after + 1
        self._left = data[position:]

    def take(self, kind: str, connection: int, text: bytes, *, unjudged: Collection[str] = ()) -> Iterator[str]:
        """Judge one record."""
        if kind == "N":
            # A process that begins anew counts its connections from one again.
            self._connections[connection] = Told(connection)
        told = self._connections.setdefault(connection, Told(connection))
        if kind == "O":
            self.frames += 1
            for problem in self._out(told, text, unjudged):
                yield f"{problem}\n  frame: {text[:SHOWN].decode('utf-8', 'replace')}"
        elif kind == "I":
            _in(told, text)
        elif kind == "D":
            told.seq += 1
            for run in told.runs.values():
                run.whole = False
        elif kind == "F":
            yield from _finished(told, text.decode("utf-8", "surrogatepass"))
        elif kind == "C":
            yield from _closed(text.decode())

    def _out(self, told: Told, text: bytes, unjudged: Collection[str]) -> Iterator[str]:
        try:
            frame = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            yield f"a frame is not JSON: {error}"
            return
        kind = frame.get("type") if isinstance(frame, dict) else None
        if kind == "res":
            yield from _response(told, frame, unjudged)
        elif kind == "event":
            yield from _event(told, frame, unjudged)
        else:
            yield "a frame is neither a response nor an event"


def _in(told: Told, text: bytes) -> None:
    try:
        frame = json.loads(text)
    except (ValueError, RecursionError):
        return
    known = isinstance(frame, dict) and isinstance(frame.get("id"), str) and frame["id"]
    name = frame["id"] if known else "invalid"
    method = frame.get("method") if isinstance(frame, dict) else None
    told.asked.setdefault(name, []).append(Asked(method if isinstance(method, str) else ""))


def _finished(told: Told, name: str) -> Iterator[str]:
    for asked in told.asked.get(name, ()):
        if not asked.accepted:
            yield f"the request {name!r} for {asked.method} was finished and never answered"
        else:
            yield f"the request {name!r} for {asked.method} was finished after its first answer; the second is missing"


def _closed(text: str) -> Iterator[str]:
    code, _, reason = text.partition(" ")
    if int(code) not in CLOSES:
        yield f"no gateway closes with {code}: {reason!r}"
        return
    reasons = CLOSES[int(code)]
    if reasons is not None and not any(reason == known or (known and reason.startswith(known)) for known in reasons):
        yield f"a close with {code} has another reason: {reason!r} is none of {reasons!r}"


def _response(told: Told, frame: Frame, unjudged: Collection[str]) -> Iterator[str]:
    problem = misfit("ResponseFrame", frame)
    if problem is not None:
        yield problem
        return
    if frame["ok"] == ("error" in frame):
        yield "a response has an error exactly where it is not ok"
    waiting = told.asked.get(frame["id"])
    if not waiting:
        yield f"a response under {frame['id']!r}, where no request waits for one"
        return
    asked = waiting[0]
    accepted = isinstance(frame.get("payload"), dict) and frame["payload"].get("status") == "accepted"
    if frame["ok"] and accepted and not asked.accepted and (asked.method in {"agent", *unjudged} or "*" in unjudged):
        asked.accepted = True
    else:
        waiting.pop(0)
        if not waiting:
            del told.asked[frame["id"]]
    if told.hello is None:
        yield from _answer_to_connect(told, asked, frame, unjudged)
    elif frame["ok"]:
        yield from _result(asked.method, frame.get("payload"), unjudged)


def _answer_to_connect(told: Told, asked: Asked, frame: Frame, unjudged: Collection[str]) -> Iterator[str]:
    if told.refused:
        yield "a second answer before hello"
    if not frame["ok"]:
        told.refused = True
        return
    if asked.method != "connect":
        yield f"an answer to {asked.method} before hello"
        return
    payload = frame.get("payload")
    told.hello = payload if isinstance(payload, dict) else {}
    if "*" not in unjudged and (problem := misfit("HelloOk", payload)) is not None:
        yield problem


def _result(method: str, payload: object, unjudged: Collection[str]) -> Iterator[str]:
    if "*" in unjudged or method in unjudged:
        return
    try:
        definition = contract.result_definition(method)
    except contract.ContractMissingError as error:
        yield str(error)
        return
    problem = misfit(definition, payload)
    if problem is not None:
        yield f"the result of {method}: {problem}"


def _event(told: Told, frame: Frame, unjudged: Collection[str]) -> Iterator[str]:
    problem = misfit("EventFrame", frame)
    if problem is not None:
        yield problem
        return
    event, payload = frame["event"], frame.get("payload")
    if "*" not in unjudged and event not in unjudged:
        yield from _payload(event, payload)
    if event == "connect.challenge":
        if told.challenged or told.hello is not None or "seq" in frame:
            yield "the challenge is the first frame, the only one of its kind and without a seq"
        told.challenged = True
        return
    if told.hello is None:
        yield f"the event {event} before hello"
    if "seq" in frame:
        told.seq += 1
        if frame["seq"] != told.seq:
            yield f"the event {event} has seq {frame['seq']} where {told.seq} is due"
            told.seq = frame["seq"]
    if "*" not in unjudged:
        yield from _heard(told, event)
        yield from _logged(told, event, payload, unjudged)
    if isinstance(payload, dict) and not unjudged:
        yield from _of_a_run(told, event, payload)


def _logged(told: Told, event: str, payload: object, unjudged: Collection[str]) -> Iterator[str]:
    """What is read from the event log is judged as if it had come at once."""
    if event != "events.item" or not isinstance(payload, dict) or payload.get("event") in {None, *unjudged}:
        return
    yield from _payload(payload["event"], payload.get("payload"))
    yield from _heard(told, payload["event"])


def _payload(event: str, payload: object) -> Iterator[str]:
    if event not in EVENT_DEFINITIONS:
        yield f"the contract knows no event {event!r}: add one to contract_supplement.py"
        return
    problem = misfit(EVENT_DEFINITIONS[event], payload)
    if problem is not None:
        yield f"the event {event}: {problem}"


def _heard(told: Told, event: str) -> Iterator[str]:
    scope = needed_scope(event)
    if scope is None or told.hello is None:
        return
    role = told.hello.get("auth", {}).get("role")
    if role != "operator" or told.scopes.isdisjoint(ABOVE.get(scope, {scope, "admin"})) or scope == "nobody":
        yield f"the event {event} to a {role} with the scopes {sorted(told.scopes)}; it needs {scope}"


def _of_a_run(told: Told, event: str, payload: Frame) -> Iterator[str]:
    if event not in {"chat", "agent"} or "runId" not in payload:
        return
    run = told.runs.setdefault(payload["runId"], Run())
    if event == "agent":
        if payload["seq"] <= run.agent_seq:
            yield f"the agent event of run {payload['runId']} has seq {payload['seq']} after {run.agent_seq}"
        run.agent_seq = payload["seq"]
        run.whole |= payload["stream"] == "lifecycle" and payload["data"].get("phase") == "start"
        return
    if payload["seq"] < run.chat_seq:
        yield f"the chat event of run {payload['runId']} has seq {payload['seq']} after {run.chat_seq}"
    run.chat_seq = payload["seq"]
    state = payload["state"]
    if run.ended is not None:
        yield f"the chat state {state} of run {payload['runId']} after its end {run.ended}"
    if state in TERMINAL:
        run.ended = state
    elif state == "delta":
        yield from _delta(run, payload)


def _delta(run: Run, payload: Frame) -> Iterator[str]:
    parts = (payload.get("message") or {}).get("content", [])
    text = "".join(part["text"] for part in parts if part.get("type") == "text")
    if not payload.get("replace"):
        if not text.startswith(run.text):
            yield f"the delta of run {payload['runId']} does not grow: {text[-80:]!r} after {run.text[-80:]!r}"
        elif not _grown_by(run, text, payload["deltaText"]):
            yield f"the deltaText of run {payload['runId']} is not what its text grew by: {payload['deltaText'][-80:]!r}"
    run.text = text


def _grown_by(run: Run, text: str, delta: str) -> bool:
    """Whether a delta is what the text grew by; who came in the middle of a run is told more with the first than it grew by."""
    return run.text + delta == text or (not run.text and not run.whole and text.endswith(delta))
