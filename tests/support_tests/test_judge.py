"""The judge of recorded frames finds each kind of fault, and nothing where there is none."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.judge import Judge, needed_scope

pytestmark = pytest.mark.requires("contract")

HELLO: dict[str, Any] = {
    "type": "hello-ok",
    "protocol": 4,
    "server": {"version": "1", "connId": "c"},
    "features": {"methods": [], "events": []},
    "snapshot": {"presence": [], "health": {}, "stateVersion": {"presence": 1, "health": 1}, "uptimeMs": 1},
    "auth": {"role": "operator", "scopes": ["operator.read"]},
    "policy": {"maxPayload": 1, "maxBufferedBytes": 1, "tickIntervalMs": 1},
}
CHALLENGE = {"type": "event", "event": "connect.challenge", "payload": {"nonce": "n", "ts": 1}}


class Story:
    """A connection as it could have been recorded; what the judge says of it is in `problems`."""

    def __init__(self) -> None:
        self.judge = Judge()
        self.problems: list[str] = []
        self.seq = 0
        self.unjudged: tuple[str, ...] = ()

    def record(self, kind: str, text: str = "") -> Story:
        data = text.encode()
        self.problems += self.judge.feed(b"%b 1 %d\n%b\n" % (kind.encode(), len(data), data), unjudged=self.unjudged)
        return self

    def gets(self, frame: Any) -> Story:
        """The client is sent a frame."""
        return self.record("O", json.dumps(frame))

    def asks(self, method: str, request_id: str = "1") -> Story:
        """The client sends a request."""
        return self.record("I", json.dumps({"type": "req", "id": request_id, "method": method}))

    def answer(self, payload: Any, request_id: str = "1") -> Story:
        """The client is sent a result."""
        return self.gets({"type": "res", "id": request_id, "ok": True, "payload": payload})

    def event(self, name: str, payload: Any, **more: Any) -> Story:
        """The client is sent a broadcast with the next number."""
        self.seq += 1
        return self.gets({"type": "event", "event": name, "payload": payload, "seq": self.seq} | more)

    def chat(self, state: str, run: str = "r", **more: Any) -> Story:
        """The client is sent a chat event; `text` and what it grew by."""
        payload = {"runId": run, "sessionKey": "s", "seq": self.seq, "state": state, **more}
        return self.event("chat", payload)

    def delta(self, grown: str, text: str, **more: Any) -> Story:
        """The client is sent a delta."""
        return self.chat("delta", deltaText=grown, message={"role": "assistant", "content": [{"type": "text", "text": text}]}, **more)

    def hello(self, **auth: Any) -> Story:
        """The handshake of an operator who may read."""
        return self.record("N").gets(CHALLENGE).asks("connect").answer({**HELLO, "auth": {**HELLO["auth"], **auth}})


def test_a_whole_conversation_is_without_fault() -> None:
    story = Story().hello()
    story.event("tick", {"ts": 1}).record("D")
    story.seq += 1
    story.event("tick", {"ts": 2})
    story.asks("agent").answer({"runId": "r", "status": "accepted", "acceptedAt": 1})
    story.delta("one ", "one ").delta("two", "one two").delta("", "three", replace=True).chat("final")
    story.answer({"runId": "r", "status": "ok", "summary": "completed"}).record("F", "1")
    story.record("I", "no json").record("I", '{"id":7}').gets(failure("invalid"))
    story.event("shutdown", {"reason": "restart"}).record("C", "1012 service restart")
    assert story.problems == []
    assert story.judge.frames == 12


def failure(request_id: str = "1", **more: Any) -> dict[str, Any]:
    return {"type": "res", "id": request_id, "ok": False, "error": {"code": "UNAVAILABLE", "message": "no"}} | more


FAULTS: list[tuple[str, Callable[[Story], object]]] = [
    ("is not JSON", lambda story: story.record("O", "{")),
    ("neither a response nor an event", lambda story: story.gets({"type": "req"})),
    ("not a ResponseFrame", lambda story: story.asks("status").gets(failure(more=1))),
    ("not a ResponseFrame", lambda story: story.asks("status").gets(failure(error={"code": "UNAVAILABLE"}))),
    ("an error exactly where it is not ok", lambda story: story.asks("status").gets({"type": "res", "id": "1", "ok": False})),
    ("where no request waits", lambda story: story.answer({})),
    ("where no request waits", lambda story: story.asks("status").answer({}).answer({})),
    ("where no request waits", lambda story: story.asks("agent").answer(agent("accepted")).answer(agent("ok")).answer(agent("ok"))),
    ("finished and never answered", lambda story: story.asks("status").record("F", "1")),
    ("the second is missing", lambda story: story.asks("agent").answer(agent("accepted")).record("F", "1")),
    ("the result of sessions.list: .* 'ts' is a required", lambda story: story.asks("sessions.list").answer({})),
    ("defines no result for the method 'made.up'", lambda story: story.asks("made.up").answer({})),
    ("not a EventFrame", lambda story: story.event("tick", {"ts": 1}, more=1)),
    ("the event tick: .* 'ts' is a required", lambda story: story.event("tick", {})),
    ("knows no event 'cron'", lambda story: story.event("cron", {})),
    ("has seq 3 where 1 is due", lambda story: story.event("tick", {"ts": 1}, seq=3)),
    ("has seq 1 where 2 is due", lambda story: story.event("tick", {"ts": 1}).event("tick", {"ts": 1}, seq=1)),
    ("first frame, the only one", lambda story: story.gets(CHALLENGE)),
    ("after its end final", lambda story: story.chat("final").chat("aborted")),
    ("after its end error", lambda story: story.chat("error").delta("a", "a")),
    ("does not grow", lambda story: story.delta("one", "one").delta("two", "two")),
    ("not what its text grew by", lambda story: story.delta("one", "one").delta("onetwo", "onetwo")),
    ("not what its text grew by", lambda story: begin(story).delta("two", "one two")),
    ("not what its text grew by", lambda story: story.delta("two", "one")),
    ("chat event of run r has seq 0 after 9", lambda story: [chat_seq(story, 9), chat_seq(story, 0)]),
    ("agent event of run r has seq 4 after 4", lambda story: [agent_event(story, 4), agent_event(story, 4)]),
    ("no gateway closes with 4242", lambda story: story.record("C", "4242 because")),
    ("a close with 1012 has another reason", lambda story: story.record("C", "1012 bye")),
    ("a close with 1000 has another reason", lambda story: story.record("C", "1000 handshake timeout")),
]


def agent(status: str) -> dict[str, Any]:
    return {"runId": "r", "status": status, "acceptedAt": 1, "summary": "s"}


def chat_seq(story: Story, seq: int) -> Story:
    return story.event("chat", {"runId": "r", "sessionKey": "s", "seq": seq, "state": "delta", "deltaText": ""})


def agent_event(story: Story, seq: int) -> Story:
    return story.event("agent", {"runId": "r", "seq": seq, "stream": "lifecycle", "ts": 1, "data": {}})


def begin(story: Story) -> Story:
    return story.event("agent", {"runId": "r", "seq": 1, "stream": "lifecycle", "ts": 1, "data": {"phase": "start", "startedAt": 1}})


def test_who_comes_in_the_middle_of_a_run_is_told_what_there_is() -> None:
    story = Story().hello()
    agent_event(story, 7).delta("two ", "one two ").delta("three", "one two three")
    assert story.problems == []


def test_who_missed_the_first_delta_is_told_what_there_is() -> None:
    story = begin(Story().hello()).record("D")
    story.seq += 1
    story.delta("two", "one two")
    assert story.problems == []


@pytest.mark.parametrize(("named", "tell"), FAULTS)
def test_each_fault_is_named(named: str, tell: Callable[[Story], object]) -> None:
    story = Story().hello()
    assert story.problems == []
    tell(story)
    assert len(story.problems) == 1, story.problems
    assert re.search(named, story.problems[0], re.DOTALL), story.problems


@pytest.mark.parametrize(
    ("named", "tell"),
    [
        ("the event tick before hello", lambda story: story.event("tick", {"ts": 1})),
        ("the only one of its kind", lambda story: story.gets(CHALLENGE)),
        ("an answer to status before hello", lambda story: story.asks("status").answer({})),
        ("not a HelloOk", lambda story: story.asks("connect").answer({**HELLO, "protocol": "4"})),
        ("a second answer before hello", lambda story: story.asks("connect").gets(failure()).asks("connect", "2").gets(failure("2"))),
    ],
)
def test_each_fault_before_hello_is_named(named: str, tell: Callable[[Story], object]) -> None:
    story = Story().record("N").gets(CHALLENGE)
    tell(story)
    assert len(story.problems) == 1, story.problems
    assert named in story.problems[0]


@pytest.mark.parametrize(
    ("event", "auth", "heard"),
    [
        ("chat", {"scopes": []}, False),
        ("chat", {"scopes": ["operator.write"]}, True),
        ("chat", {"scopes": ["operator.admin"], "role": "node"}, False),
        ("exec.approval.requested", {"scopes": ["operator.write"]}, False),
        ("exec.approval.requested", {"scopes": ["operator.approvals"]}, True),
        ("session.approval", {"scopes": ["operator.read"]}, False),
        ("tick", {"scopes": [], "role": "node"}, True),
        ("unheard.of", {"scopes": ["operator.admin"]}, False),
    ],
)
def test_an_event_reaches_only_who_may_hear_it(event: str, auth: dict[str, Any], *, heard: bool) -> None:
    story = Story().hello(**auth)
    story.unjudged = (event,)
    story.event(event, {})
    assert [problem for problem in story.problems if "it needs" in problem] == ([] if heard else story.problems)
    assert bool(story.problems) is not heard


def test_what_nobody_listed_reaches_nobody() -> None:
    assert needed_scope("unheard.of") == "nobody"
    assert needed_scope("plugin.mine.changed") == "write"


def test_a_payload_may_be_left_out_by_name_but_not_its_envelope() -> None:
    story = Story().hello()
    story.unjudged = ("status", "tick")
    story.asks("status").answer([]).event("tick", {})
    assert story.problems == []
    story.asks("status").gets({"type": "res", "id": "1", "ok": True, "payload": {}, "odd": 1})
    assert "ResponseFrame" in story.problems[0]


def test_a_process_that_begins_anew_counts_from_one_again() -> None:
    story = Story().hello().event("tick", {"ts": 1})
    story.seq = 0
    story.hello().event("tick", {"ts": 1})
    assert story.problems == []


def test_a_record_that_is_cut_off_waits_for_its_rest() -> None:
    whole = b'O 1 12\n{"type":"no"\nC 1 3\n999\n'
    for cut in range(len(whole)):
        judge = Judge()
        problems = [*judge.feed(whole[:cut]), *judge.feed(whole[cut:])]
        assert len(problems) == 2, cut
