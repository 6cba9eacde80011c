"""The decision what becomes of a turn that was cut off, case by case."""

from __future__ import annotations

from dataclasses import replace

import pytest

from openclaw_kernel.api import AssistantMessage, Message, RetryClass, Text, ToolCall, ToolResultMessage, UserMessage
from openclaw_plugins.conversation.calls import Call, CallState
from openclaw_plugins.conversation.recovery import MOST_RESUMES, End, Left, Resume, decide

ASKED = UserMessage(content=(Text("do it"),))
CALLING = AssistantMessage(content=(Text("I look."), ToolCall("c1", "shell", {}), ToolCall("c2", "shell", {})), stop_reason="tool_calls")
RESULT = ToolResultMessage(call_id="c1", name="shell", text="done")
SAID = AssistantMessage(content=(Text("It is done."),), provider="echo", model="echo", stop_reason="stop")


def tool(retry_class: str | None, state: CallState = "running", call_id: str = "c1") -> Call:
    return Call(number=1, kind="tool", name="shell", started_ms=1, retry_class=retry_class, state=state, call_id=call_id)


def model(retry_class: str = "pure", state: CallState = "running") -> Call:
    return Call(number=1, kind="model", name="echo/echo", started_ms=1, retry_class=retry_class, state=state)


def left(*messages: Message, calls: tuple[Call, ...] = (), attempts: int = 1, stopped: bool = False) -> Left:
    return Left(attempts=attempts, stopped=stopped, message=ASKED, messages=messages, calls=calls)


@pytest.mark.parametrize(
    "case",
    [
        left(),
        left(calls=(model(),)),
        left(calls=(model(state="failed"),)),
        left(CALLING),
        left(CALLING, calls=(tool(RetryClass.PURE),)),
        left(CALLING, calls=(tool(RetryClass.IDEMPOTENT),)),
        left(CALLING, RESULT, calls=(tool(RetryClass.SIDE_EFFECTING, "done"),)),
        left(CALLING, RESULT, calls=(tool(RetryClass.SIDE_EFFECTING),)),
        left(CALLING, calls=(tool(RetryClass.SIDE_EFFECTING, "interrupted"), tool(RetryClass.PURE, call_id="c2"))),
        left(CALLING, attempts=MOST_RESUMES),
    ],
    ids=[
        "nothing recorded",
        "asking the model",
        "a model that failed, before another one was asked",
        "calls recorded, none begun",
        "a pure call begun",
        "an idempotent call begun",
        "a call with effects ended, another not begun",
        "a call with effects whose result is recorded",
        "only harmless calls open",
        "the last attempt",
    ],
)
def test_what_may_be_done_again_goes_on_from_what_is_recorded(case: Left) -> None:
    """P4."""
    assert decide(case) == Resume(case.messages)


@pytest.mark.parametrize(
    ("case", "named"),
    [
        (left(CALLING, calls=(tool(RetryClass.SIDE_EFFECTING),)), "the tool shell"),
        (left(CALLING, calls=(tool(None),)), "the tool shell"),
        (left(CALLING, RESULT, calls=(tool(RetryClass.SIDE_EFFECTING, call_id="c2"),)), "the tool shell"),
        (left(calls=(model("side-effecting"),)), "the model echo/echo"),
        (left(CALLING, calls=(tool(RetryClass.SIDE_EFFECTING),), attempts=9), "the tool shell"),
        (Left(attempts=1, calls=(tool(RetryClass.SIDE_EFFECTING),)), "the tool shell"),
    ],
)
def test_what_may_have_had_an_effect_ends_the_turn_and_is_named(case: Left, named: str) -> None:
    """P4: also where nobody knows what the call does."""
    decision = decide(case)
    assert isinstance(decision, End)
    assert decision.outcome.status == "interrupted"
    assert named in (decision.outcome.error or "")
    assert "may or may not have taken effect" in (decision.outcome.error or "")


@pytest.mark.parametrize("case", [left(), left(CALLING, calls=(tool(RetryClass.SIDE_EFFECTING),)), left(SAID), Left(attempts=1)])
def test_a_stop_that_is_written_ends_it_whatever_else_is(case: Left) -> None:
    """P15."""
    decision = decide(replace(case, stopped=True))
    assert isinstance(decision, End)
    assert decision.outcome.status == "aborted"


def test_an_answer_that_is_recorded_is_not_asked_for_again() -> None:
    decision = decide(left(CALLING, RESULT, SAID, attempts=9))
    assert isinstance(decision, End)
    assert (decision.outcome.status, decision.outcome.text) == ("ok", "I look.\n\nIt is done.")
    assert decision.outcome.model == "echo/echo"


def test_half_an_answer_is_asked_for_again() -> None:
    half = replace(SAID, stop_reason="error")
    assert decide(left(CALLING, RESULT, half)) == Resume((CALLING, RESULT))


def test_a_turn_is_not_begun_for_ever() -> None:
    decision = decide(left(attempts=MOST_RESUMES + 1))
    assert isinstance(decision, End)
    assert "stopped 3 times" in (decision.outcome.error or "")


def test_a_turn_whose_beginning_is_not_there_ends() -> None:
    decision = decide(Left(attempts=1))
    assert isinstance(decision, End)
    assert decision.outcome.status == "interrupted"
