"""Each check gives a line for what it is there to see, and none for a block in which all went well."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from openclaw_plugins.conversation.outbox_rows import IN_DOUBT
from tests.crash import checks
from tests.crash.evidence import Evidence
from tests.crash.load import Asked, Said
from tests.crash.model import Order

CHAT = 1001
ORDER = Order("t0001001", ("append",), words=2)
STOPPED = Order("t0001002", words=30)


def message(row_id: int, said: Said, state: str, **columns: Any) -> dict[str, Any]:
    row = {
        "id": row_id, "channel": "telegram", "message_id": f"7:{said.chat}:{said.message_id}", "state": state, "reason": None,
        "attempts": 1, "session_key": "agent:main:direct:1001", "run_id": None, "body": {"text": said.text}, "updated_ms": 1,
    }  # fmt: skip
    return {**row, **columns}


def delivery(row_id: int, inbound_id: int | None, text: str, **columns: Any) -> dict[str, Any]:
    row = {
        "id": row_id, "outbox_id": f"o{row_id}", "channel": "telegram", "peer_id": str(CHAT), "text": text, "run_id": None,
        "inbound_id": inbound_id, "state": "sent", "attempts": 1, "created_ms": 5_000, "error": None,
    }  # fmt: skip
    return {**row, **columns}


def entry(row_id: int, role: str, content: Any, **body: Any) -> dict[str, Any]:
    return {"id": row_id, "session_id": "s", "seq": row_id, "role": role, "run_id": "r1", "body": {"content": content, **body}}


def text(words: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": words}]


def ask(token: str, results: int, at: float) -> dict[str, Any]:
    return {"token": token, "results": results, "refused": None, "at": at, "outcome": "answered"}


def evidence() -> Evidence:
    """A question with a tool, answered; another that was stopped; a notice of a client."""
    said = [
        Said("order", CHAT, ORDER.text(), ORDER, update_id=1, message_id=11),
        Said("order", CHAT, STOPPED.text(), STOPPED, update_id=2, message_id=12),
        Said("stop", CHAT, "/stop", update_id=3, message_id=13),
    ]
    notice = "notice t0001003 end of t0001003"
    found = Evidence(
        bot=7,
        said=said,
        asked=[Asked("send", "key-t0001003", "t0001003", {"message": notice}, answers=[{"messageId": "1"}])],
        confirmed_below=4,
        visible={CHAT: [{"text": ORDER.answer}, {"text": "Stopped."}, {"text": notice}]},
        asks=[ask("t0001001", 0, 1.0), ask("t0001001", 1, 2.0), ask("t0001002", 0, 3.0)],
        effects=[{"tool": "append", "token": "t0001001", "step": 0, "at": 1.5, "pid": 1}],
        errors=[],
        inbound=[
            message(1, said[0], "answered", run_id="r1"),
            message(2, said[1], "suppressed", reason="aborted", run_id="r2"),
            message(3, said[2], "answered", reason="command /stop"),
        ],
        outbox=[delivery(1, 1, ORDER.answer, run_id="r1"), delivery(2, 3, "Stopped."), delivery(3, None, notice)],
        runs=[
            {"id": 1, "run_id": "r1", "session_key": "k", "inbound_id": 1, "state": "ok", "ended_ms": 3, "resumes": 0, "error": None},
            {"id": 2, "run_id": "r2", "session_key": "k", "inbound_id": 2, "state": "aborted", "ended_ms": 5, "resumes": 0, "error": None},
        ],
        messages=[
            entry(1, "user", text(ORDER.text())),
            entry(2, "assistant", [{"type": "toolCall", "id": "c1", "name": "append", "arguments": {}}]),
            entry(3, "toolResult", text("append of t0001001 is done"), toolCallId="c1"),
            entry(4, "assistant", text(ORDER.answer)),
            entry(5, "user", text(STOPPED.text())),
        ],
    )
    for identity, row in found.identities().items():
        replies = [row] if "outbox_id" in row else found.replies_to(row)
        told = {"state": row["state"], "reason": row.get("reason"), "fromClient": False, "route": {"reason": "default"}}
        found.why[identity] = {
            "message": {**told, "admission": {"verdict": "allow"}, "endedMs": 9},
            "deliveries": [{"deliveryId": reply["outbox_id"], "state": reply["state"]} for reply in replies],
        }
    return found


def test_nothing_is_said_of_a_block_in_which_all_went_well() -> None:
    assert checks.everything(evidence()) == []
    assert checks.unchanged(evidence(), evidence()) == []


def lose(found: Evidence) -> None:
    del found.inbound[0]


def leave_open(found: Evidence) -> None:
    found.inbound[0]["state"] = "running"


def lose_reason(found: Evidence) -> None:
    found.inbound[1]["reason"] = None


def run_twice(found: Evidence) -> None:
    found.runs.append({**found.runs[0], "id": 3, "run_id": "r3"})


def write_twice(found: Evidence) -> None:
    found.messages.append(entry(6, "user", text(ORDER.text())))


def ask_twice(found: Evidence) -> None:
    found.asks.append(ask("t0001001", 1, 2.5))


def do_twice(found: Evidence) -> None:
    found.effects.append(found.effects[0])


def show_twice(found: Evidence) -> None:
    found.visible[CHAT].append({"text": ORDER.answer})


def show_nothing(found: Evidence) -> None:
    del found.visible[CHAT][0]


def doubt_silently(found: Evidence) -> None:
    found.outbox[0]["state"] = "unknown_after_send"


def answer_nobody(found: Evidence) -> None:
    found.outbox[0]["inbound_id"] = None


def suppress(found: Evidence) -> None:
    found.inbound[0] |= {"state": "suppressed", "reason": "aborted"}
    found.said = [found.said[1], found.said[2], found.said[0]]


def give_up(found: Evidence) -> None:
    found.inbound[0] |= {"state": "dead_lettered", "reason": "I was interrupted"}


def turn_around(found: Evidence) -> None:
    found.visible[CHAT].insert(0, {"text": STOPPED.answer})
    found.outbox.append(delivery(4, 2, STOPPED.answer))


def unpair(found: Evidence) -> None:
    del found.messages[2]


def refuse(found: Evidence) -> None:
    found.asks[0]["refused"] = {"error": {"message": "messages"}}


def go_on(found: Evidence) -> None:
    found.asks.append(ask("t0001002", 1, 7.0))


def explain_wrongly(found: Evidence) -> None:
    found.why["r1"]["message"]["state"] = "superseded"


def log(found: Evidence) -> None:
    found.errors.append('{"level": "error", "message": "it broke", "error": "Traceback\\nValueError: no"}')


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (lose, "the ledger has it 0 times"),
        (leave_open, "has not ended: running"),
        (lose_reason, "suppressed without a reason"),
        (run_twice, "has 2 runs"),
        (write_twice, "the question t0001001 stands in the transcript 2 times"),
        (ask_twice, "the model was asked 2 times for t0001001 with 1 results"),
        (do_twice, "the side-effecting call 0 of t0001001 ran 2 times"),
        (show_twice, "the answer to t0001001 is seen 2 times"),
        (show_nothing, "is seen 0 times in 1001: sent 1"),
        (doubt_silently, "1 answers to 1001 are in doubt, of 0 the person is told"),
        (answer_nobody, "with 0 replies"),
        (suppress, "nobody in its chat said stop"),
        (give_up, "was begun 1 times and given up: I was interrupted"),
        (turn_around, "the answers came in the order ['t0001002', 't0001001']"),
        (unpair, "no result of ['c1']"),
        (refuse, "the model refused a request for t0001001"),
        (go_on, "the model was asked for t0001002 2000 ms after its stop was acknowledged"),
        (explain_wrongly, "why r1: it is answered"),
        (log, "the log has 1 times: it broke ValueError: no"),
    ],
)
def test_what_went_wrong_is_said(spoil: Callable[[Evidence], None], line: str) -> None:
    found = evidence()
    spoil(found)
    assert any(line in said for said in checks.everything(found)), checks.everything(found)


def test_a_person_in_doubt_who_is_told_is_no_violation() -> None:
    found = evidence()
    found.outbox[0]["state"] = "unknown_after_send"
    found.why["o1"]["deliveries"][0]["state"] = "unknown_after_send"
    notice = delivery(4, 1, IN_DOUBT)
    found.outbox.append(notice)
    found.visible[CHAT].append({"text": IN_DOUBT})
    told = [{"deliveryId": row["outbox_id"], "state": row["state"]} for row in found.replies_to(found.inbound[0])]
    for identity in ("7:1001:11", "r1", "o4"):
        found.why[identity] = {**found.why["r1"], "deliveries": told}
    assert checks.everything(found) == []


@pytest.mark.parametrize(("attempts", "seen", "faults"), [(2, 2, 0), (2, 1, 0), (1, 2, 1), (2, 3, 1)])
def test_the_word_about_doubt_may_be_seen_as_often_as_it_was_said(attempts: int, seen: int, faults: int) -> None:
    found = evidence()
    found.outbox.append(delivery(4, 1, IN_DOUBT, attempts=attempts))
    found.visible[CHAT] += [{"text": IN_DOUBT}] * seen
    assert len([line for line in checks.one_copy(found) if line.startswith("P5")]) == faults


def test_a_turn_that_was_begun_again_after_a_stop_in_order_may_ask_again() -> None:
    found = evidence()
    found.runs[0]["resumes"] = 1
    ask_twice(found)
    assert checks.everything(found) == []


def test_what_another_start_changes_is_said() -> None:
    after = evidence()
    after.visible[CHAT].append({"text": "again"})
    after.inbound[0]["state"] = "dead_lettered"
    after.asks.append(ask("t0001001", 1, 9.0))
    lines = checks.unchanged(evidence(), after)
    assert len(lines) == 3
