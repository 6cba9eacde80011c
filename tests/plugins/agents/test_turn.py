"""A turn: models in order, tool rounds, limits, cancellation."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from openclaw_kernel.api import (
    AssistantMessage,
    Completed,
    Image,
    Message,
    ModelEvent,
    ModelRequest,
    ProviderErrorKind,
    RetryClass,
    Text,
    TextDelta,
    ThinkingDelta,
    Tool,
    ToolCall,
    ToolContext,
    ToolResult,
    ToolResultMessage,
    ToolStep,
    TurnClosed,
    Usage,
    UserMessage,
)
from openclaw_plugins.agents.history import total_tokens
from openclaw_plugins.agents.tokens import estimate
from tests.plugins.agents.fakes import bench, failure, model, turn, user

DONE = Completed(stop_reason="stop", usage=Usage(input_tokens=10, output_tokens=5))


class Word(BaseModel):
    word: str = ""


def tool(name: str = "look", *, retry_class: RetryClass = RetryClass.PURE, enabled: bool = True, run: Any = None) -> Tool[Word]:
    async def answer(context: ToolContext, params: Word) -> ToolResult:
        return ToolResult(text=f"{name}: {params.word}")

    return Tool(
        name=name,
        label=name,
        description=f"does {name}",
        params=Word,
        run=run or answer,
        retry_class=retry_class,
        timeout_seconds=5,
        enabled=enabled,
    )


def say(text: str) -> list[ModelEvent]:
    return [TextDelta(text), DONE]


def ask_for(*calls: ToolCall, text: str = "") -> list[ModelEvent]:
    said = [TextDelta(text)] if text else []
    return [*said, Completed(stop_reason="tool_calls", tool_calls=calls, usage=Usage(input_tokens=20, output_tokens=2))]


def look(word: str = "x", call_id: str = "c1", name: str = "look") -> ToolCall:
    return ToolCall(call_id, name, {"word": word})


async def test_a_model_answers_and_all_of_it_is_reported(tmp_path: Path) -> None:
    info = model(input_price=1.0, output_price=2.0)
    script: list[ModelEvent] = [ThinkingDelta("hm"), TextDelta("Hel"), TextDelta("lo"), DONE]
    case = bench(tmp_path, models=[info], scripts={"fake/one": [script]})
    result = await case.runtime.run(turn("hi"), case.sink)
    assert (result.status, result.text, result.stop_reason, result.model) == ("ok", "Hello", "stop", "fake/one")
    assert case.sink.deltas == ["Hel", "lo"]
    assert case.sink.thoughts == ["hm"]
    [recorded] = case.sink.messages
    assert isinstance(recorded, AssistantMessage)
    assert (recorded.text, recorded.provider, recorded.model) == ("Hello", "fake", "one")
    [step] = case.sink.steps
    assert (step.kind, step.name, step.usage.input_tokens) == ("model", "fake/one", 10)
    assert step.cost_usd == result.cost_usd == pytest.approx(20 / 1_000_000)
    [request] = case.providers.requests
    assert request.messages[-1] == user("hi")
    assert request.workspace == tmp_path / "workspace" / "main"
    assert case.providers.closed == ["fake/one"]


async def test_the_price_a_provider_states_wins(tmp_path: Path) -> None:
    done = Completed(stop_reason="stop", usage=Usage(input_tokens=10, cost_usd=0.5))
    case = bench(tmp_path, models=[model(input_price=1.0)], scripts={"fake/one": [[done]]})
    assert (await case.runtime.run(turn(), case.sink)).cost_usd == 0.5


async def test_tools_are_called_and_their_results_go_back(tmp_path: Path) -> None:
    scripts = {"fake/one": [ask_for(look("a"), look("b", "c2"), text="Let me look."), say("Found.")]}
    case = bench(tmp_path, scripts=scripts, tools=[tool()])
    result = await case.runtime.run(turn(), case.sink)
    assert result.status == "ok"
    assert result.text == "".join(case.sink.deltas) == "Let me look.\n\nFound."
    assert [message.role for message in case.sink.messages] == ["assistant", "toolResult", "toolResult", "assistant"]
    second = case.providers.requests[1]
    assert [message.role for message in second.messages] == ["user", "assistant", "toolResult", "toolResult"]
    results = [message for message in second.messages if isinstance(message, ToolResultMessage)]
    assert [(message.call_id, message.text) for message in results] == [("c1", "look: a"), ("c2", "look: b")]
    assert [(step.kind, step.retry_class) for step in case.sink.steps] == [
        ("model", "pure"),
        ("tool", "pure"),
        ("tool", "pure"),
        ("model", "pure"),
    ]
    assert result.usage.input_tokens == 30


def meeting_tools(retry_class: RetryClass) -> tuple[Tool[Word], list[int]]:
    """A tool that notes how many of its calls run at once, and waits until two do or a moment has passed."""
    running, most = [0], [0]
    both = asyncio.Event()

    async def run(context: ToolContext, params: Word) -> ToolResult:
        running[0] += 1
        most[0] = max(most[0], running[0])
        if running[0] == 2:
            both.set()
        try:
            async with asyncio.timeout(0.05):
                await both.wait()
        except TimeoutError:
            pass
        running[0] -= 1
        return ToolResult(text="ok")

    return tool(retry_class=retry_class, run=run), most


@pytest.mark.parametrize(("retry_class", "together"), [(RetryClass.PURE, 2), (RetryClass.SIDE_EFFECTING, 1)])
async def test_only_pure_calls_run_side_by_side(tmp_path: Path, retry_class: RetryClass, together: int) -> None:
    meeting, most = meeting_tools(retry_class)
    case = bench(tmp_path, scripts={"fake/one": [ask_for(look("a"), look("b", "c2")), say("ok")]}, tools=[meeting])
    await case.runtime.run(turn(), case.sink)
    assert most == [together]


async def test_rounds_are_capped_and_the_last_call_may_call_nothing(tmp_path: Path) -> None:
    async def endless(request: ModelRequest) -> AsyncIterator[ModelEvent]:
        if request.tool_choice == "auto":
            for event in ask_for(look(str(len(request.messages)))):
                yield event
        else:
            yield TextDelta("that is all")
            yield DONE

    config = {"agents": {"defaults": {"maxToolRounds": 3}}}
    case = bench(tmp_path, scripts={"fake/one": [endless]}, tools=[tool()], config=config)
    result = await case.runtime.run(turn(), case.sink)
    assert (result.status, result.text) == ("ok", "that is all")
    assert [request.tool_choice for request in case.providers.requests] == ["auto", "auto", "auto", "none"]
    # A history that holds calls needs the tools named, also where none may be called.
    assert all(request.tools for request in case.providers.requests)
    assert case.tools.ran == ["look"] * 3


async def test_the_third_identical_call_in_a_row_is_refused(tmp_path: Path) -> None:
    scripts = {"fake/one": [ask_for(look()), ask_for(look()), ask_for(look()), ask_for(look("y")), say("ok")]}
    case = bench(tmp_path, scripts=scripts, tools=[tool()])
    await case.runtime.run(turn(), case.sink)
    assert case.tools.ran == ["look"] * 3
    results = [message for message in case.sink.messages if isinstance(message, ToolResultMessage)]
    assert [message.is_error for message in results] == [False, False, True, False]
    assert "3 times in a row" in results[2].text


@pytest.mark.parametrize(
    ("config", "offered"),
    [
        ({}, ["look"]),
        ({"allow": ["look", "shell"]}, ["look", "shell"]),
        ({"allow": []}, []),
        ({"deny": ["look"]}, []),
        ({"allow": ["look", "shell"], "deny": ["shell"]}, ["look"]),
    ],
)
async def test_an_agent_is_offered_what_it_may_use(tmp_path: Path, config: dict[str, Any], offered: list[str]) -> None:
    case = bench(
        tmp_path,
        scripts={"fake/one": [say("ok")]},
        tools=[tool("shell", enabled=False), tool()],
        config={"agents": {"defaults": {"tools": config}}},
    )
    await case.runtime.run(turn(), case.sink)
    assert [spec.name for spec in case.providers.requests[0].tools] == offered


async def test_a_tool_that_was_not_offered_is_not_run(tmp_path: Path) -> None:
    scripts = {"fake/one": [ask_for(look(name="shell")), say("ok")]}
    case = bench(tmp_path, scripts=scripts, tools=[tool("shell", enabled=False), tool()])
    await case.runtime.run(turn(), case.sink)
    assert case.tools.ran == []
    refused = case.sink.messages[1]
    assert isinstance(refused, ToolResultMessage)
    assert refused.is_error
    assert "available: look" in refused.text


async def test_a_model_without_tools_or_eyes_is_sent_neither(tmp_path: Path) -> None:
    plain = model(tools=False)
    history = (
        user("before"),
        AssistantMessage(content=(Text("I look"), look())),
        ToolResultMessage(call_id="c1", name="look", text="seen"),
    )
    message = UserMessage(content=(Text("see"), Image("image/png", "AAAA", "cat.png")))
    case = bench(tmp_path, models=[plain], scripts={"fake/one": [say("ok")]}, tools=[tool()])
    await case.runtime.run(turn(history=history, message=message), case.sink)
    [request] = case.providers.requests
    assert request.tools == ()
    assert [message.role for message in request.messages] == ["user", "assistant", "user"]
    parts = [
        part
        for message in request.messages
        if not isinstance(message, ToolResultMessage)
        for part in message.content
        if isinstance(part, Text)
    ]
    assert [part.text for part in parts] == [
        "before",
        "I look",
        "see",
        "[a picture that this model cannot see: cat.png]",
    ]


@pytest.mark.parametrize(
    "kind",
    [
        ProviderErrorKind.AUTH,
        ProviderErrorKind.RATE_LIMIT,
        ProviderErrorKind.OVERLOADED,
        ProviderErrorKind.NETWORK,
        ProviderErrorKind.TIMEOUT,
        ProviderErrorKind.UNAVAILABLE,
    ],
)
async def test_the_next_model_answers_where_one_cannot(tmp_path: Path, kind: ProviderErrorKind) -> None:
    config = {"agents": {"defaults": {"model": {"primary": "a/1", "fallbacks": ["b/2"]}}}}
    scripts: dict[str, list[Any]] = {"a/1": [[ThinkingDelta("hm"), failure(kind)]], "b/2": [say("I can")]}
    case = bench(tmp_path, models=[model("a/1"), model("b/2")], scripts=scripts, config=config)
    result = await case.runtime.run(turn(), case.sink)
    assert (result.status, result.text, result.model) == ("ok", "I can", "b/2")
    assert [(step.name, step.error) for step in case.sink.steps] == [("a/1", "it broke"), ("b/2", None)]


@pytest.mark.parametrize("kind", [ProviderErrorKind.BAD_REQUEST, ProviderErrorKind.REFUSAL])
async def test_no_other_model_is_asked_where_it_would_fail_too(tmp_path: Path, kind: ProviderErrorKind) -> None:
    config = {"agents": {"defaults": {"model": {"primary": "a/1", "fallbacks": ["b/2"]}}}}
    case = bench(tmp_path, models=[model("a/1"), model("b/2")], scripts={"a/1": [[failure(kind)]]}, config=config)
    result = await case.runtime.run(turn(), case.sink)
    assert result.status == "error"
    assert len(case.providers.requests) == 1


@pytest.mark.parametrize("shown", [TextDelta("well"), ToolStep("t", "Bash", "start")])
async def test_no_other_model_is_asked_once_something_was_shown(tmp_path: Path, shown: ModelEvent) -> None:
    config = {"agents": {"defaults": {"model": {"primary": "a/1", "fallbacks": ["b/2"]}}}}
    scripts: dict[str, list[Any]] = {"a/1": [[shown, failure(ProviderErrorKind.NETWORK)]], "b/2": [say("no")]}
    case = bench(tmp_path, models=[model("a/1"), model("b/2")], scripts=scripts, config=config)
    result = await case.runtime.run(turn(), case.sink)
    assert result.status == "error"
    assert [request.model for request in case.providers.requests] == ["1"]


async def test_what_was_said_before_a_failure_is_kept(tmp_path: Path) -> None:
    case = bench(tmp_path, scripts={"fake/one": [[TextDelta("half a"), failure(ProviderErrorKind.NETWORK)]]})
    result = await case.runtime.run(turn(), case.sink)
    assert (result.status, result.text) == ("error", "half a")
    [kept] = case.sink.messages
    assert isinstance(kept, AssistantMessage)
    assert (kept.text, kept.stop_reason) == ("half a", "error")


async def test_all_models_failing_names_each_with_the_cure(tmp_path: Path) -> None:
    config = {"agents": {"defaults": {"model": {"primary": "a/1", "fallbacks": ["b/2"]}}}}
    scripts: dict[str, list[Any]] = {
        "a/1": [[failure(ProviderErrorKind.AUTH, "bad key", provider="a")]],
        "b/2": [[failure(ProviderErrorKind.RATE_LIMIT, "slow\ndown", provider="b")]],
    }
    case = bench(tmp_path, models=[model("a/1"), model("b/2")], scripts=scripts, config=config)
    result = await case.runtime.run(turn(), case.sink)
    assert result.error == "a/1: bad key; b/2: slow down; try again later"
    assert result.error_kind == "rate_limit"


async def test_a_silent_model_leaves_time_for_the_next(tmp_path: Path) -> None:
    async def silent(request: ModelRequest) -> AsyncIterator[ModelEvent]:
        await asyncio.Event().wait()
        yield DONE

    config = {"agents": {"defaults": {"model": {"primary": "a/1", "fallbacks": ["b/2"]}}}}
    scripts: dict[str, list[Any]] = {"a/1": [silent], "b/2": [say("here")]}
    case = bench(tmp_path, models=[model("a/1"), model("b/2")], scripts=scripts, config=config)
    result = await case.runtime.run(turn(timeout_seconds=0.5), case.sink)
    assert (result.status, result.text) == ("ok", "here")
    assert case.providers.closed == ["a/1", "b/2"]


async def test_a_conversation_that_is_too_long_is_tried_once_more_with_half(tmp_path: Path) -> None:
    history = tuple(user(f"line {number} " * 30) for number in range(40))
    too_long = [failure(ProviderErrorKind.CONTEXT_LENGTH, "too long")]
    case = bench(tmp_path, scripts={"fake/one": [too_long, say("ok")]})
    assert (await case.runtime.run(turn(history=history), case.sink)).status == "ok"
    first, second = case.providers.requests
    assert total_tokens(second.messages) <= total_tokens(first.messages) // 2
    assert second.messages[-1] == user("hello")

    case = bench(tmp_path, scripts={"fake/one": [too_long]})
    result = await case.runtime.run(turn(history=history), case.sink)
    assert (result.status, result.error_kind) == ("error", "context_length")
    assert result.error is not None
    assert "/new" in result.error
    assert len(case.providers.requests) == 2


async def test_no_model_at_all_names_each_provider_with_its_problem(tmp_path: Path) -> None:
    problems = {"openai": "no key; set apiKey", "local": "no worker; install it"}
    scripts = {"openai/gpt": [[failure(ProviderErrorKind.AUTH, "no key; set apiKey")]]}
    case = bench(tmp_path, models=[model("openai/gpt")], problems=problems, scripts=scripts)
    result = await case.runtime.run(turn(), case.sink)
    assert result.error == "no model is ready: local: no worker; install it; openai: no key; set apiKey"

    case = bench(tmp_path, models=[])
    result = await case.runtime.run(turn(), case.sink)
    assert result.error == "no model is ready: models.providers is empty; add a provider"


async def test_a_provider_in_trouble_is_asked_last_but_asked(tmp_path: Path) -> None:
    config = {"agents": {"defaults": {"model": {"primary": "a/1", "fallbacks": ["b/2"]}}}}
    scripts: dict[str, list[Any]] = {"a/1": [say("recovered")], "b/2": [[failure(ProviderErrorKind.OVERLOADED)]]}
    models = [model("a/1"), model("b/2")]
    case = bench(tmp_path, models=models, scripts=scripts, config=config, problems={"a": "its worker ended"})
    result = await case.runtime.run(turn(), case.sink)
    assert (result.text, result.model) == ("recovered", "a/1")
    assert [step.name for step in case.sink.steps] == ["b/2", "a/1"]


@pytest.mark.parametrize(
    ("config", "requested", "error"),
    [
        (
            {"agents": {"defaults": {"model": "x/y"}}},
            None,
            'no model is ready: there is no model "x/y" (agents.defaults.model); available: fake/one',
        ),
        (
            {"agents": {"entries": {"main": {"model": {"primary": "x/y", "fallbacks": ["x/z"]}}}}},
            None,
            (
                'no model is ready: there is no model "x/y" (agents.entries.main.model); available: fake/one; '
                'there is no model "x/z" (agents.entries.main.model.fallbacks); available: fake/one'
            ),
        ),
        (
            {},
            "x/y",
            'no model is ready: there is no model "x/y" (the model chosen for this session); available: fake/one',
        ),
    ],
)
async def test_a_model_that_is_not_there_is_named_with_its_place(
    tmp_path: Path, config: dict[str, Any], requested: str | None, error: str
) -> None:
    case = bench(tmp_path, config=config)
    assert (await case.runtime.run(turn(model=requested), case.sink)).error == error


async def test_an_agent_that_is_not_there_is_an_error_not_another_agent(tmp_path: Path) -> None:
    case = bench(tmp_path)
    result = await case.runtime.run(turn(agent_id="ghost"), case.sink)
    assert result.error == "there is no agent 'ghost'; add it under agents.entries or use one of main"
    assert case.providers.requests == []


async def test_a_turn_ends_at_its_deadline_with_what_was_said(tmp_path: Path) -> None:
    async def slow(request: ModelRequest) -> AsyncIterator[ModelEvent]:
        yield TextDelta("wait")
        await asyncio.Event().wait()

    case = bench(tmp_path, scripts={"fake/one": [slow]})
    result = await case.runtime.run(turn(timeout_seconds=0.1), case.sink)
    assert (result.status, result.error_kind, result.text) == ("timeout", "timeout", "wait")
    assert case.providers.closed == ["fake/one"]
    [kept] = case.sink.messages
    assert isinstance(kept, AssistantMessage)
    assert kept.stop_reason == "timeout"


async def test_cancelling_closes_the_stream_of_the_model(tmp_path: Path) -> None:
    async def slow(request: ModelRequest) -> AsyncIterator[ModelEvent]:
        yield TextDelta("wait")
        await asyncio.Event().wait()

    case = bench(tmp_path, scripts={"fake/one": [slow]})
    running = asyncio.ensure_future(case.runtime.run(turn(), case.sink))
    await asyncio.wait_for(case.sink.spoke.wait(), 5)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(running, 1)
    assert case.providers.closed == ["fake/one"]


@pytest.mark.parametrize("count", [1, 2])
async def test_cancelling_ends_every_running_tool(tmp_path: Path, count: int) -> None:
    started, ended = asyncio.Event(), []

    async def hang(context: ToolContext, params: Word) -> ToolResult:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(context.call_id)
        return ToolResult(text="never")

    calls = [look(str(number), f"c{number}") for number in range(count)]
    case = bench(tmp_path, scripts={"fake/one": [ask_for(*calls)]}, tools=[tool(run=hang)])
    running = asyncio.ensure_future(case.runtime.run(turn(), case.sink))
    await asyncio.wait_for(started.wait(), 5)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(running, 1)
    assert sorted(ended) == [call.id for call in calls]
    assert [message.role for message in case.sink.messages] == ["assistant"]


async def test_a_refusal_is_an_error_that_says_who_refused(tmp_path: Path) -> None:
    case = bench(tmp_path, scripts={"fake/one": [[Completed(stop_reason="refusal")]]})
    result = await case.runtime.run(turn(), case.sink)
    assert (result.status, result.error_kind) == ("error", "refusal")
    assert result.error is not None
    assert "fake/one" in result.error


async def test_a_stream_that_just_ends_is_a_failure(tmp_path: Path) -> None:
    case = bench(tmp_path, scripts={"fake/one": [[TextDelta("hal")]]})
    result = await case.runtime.run(turn(), case.sink)
    assert (result.status, result.text) == ("error", "hal")


async def test_steps_that_the_provider_ran_itself_are_shown_and_counted(tmp_path: Path) -> None:
    script = [
        ToolStep("t1", "Bash", "start", {"command": "ls"}),
        ToolStep("t1", "Bash", "result", {}, "a b"),
        TextDelta("two files"),
        DONE,
    ]
    case = bench(tmp_path, scripts={"fake/one": [script]})
    result = await case.runtime.run(turn(), case.sink)
    assert result.text == "two files"
    assert case.sink.tool_events == [("start", "Bash", ""), ("result", "Bash", "a b")]
    assert [(step.kind, step.name) for step in case.sink.steps] == [("tool", "Bash"), ("model", "fake/one")]


async def test_call_ids_that_repeat_are_made_unique_before_they_are_kept(tmp_path: Path) -> None:
    scripts = {"fake/one": [ask_for(look("a", "call_0")), ask_for(look("b", "call_0")), say("ok")]}
    case = bench(tmp_path, scripts=scripts, tools=[tool()])
    await case.runtime.run(turn(), case.sink)
    results = [message for message in case.sink.messages if isinstance(message, ToolResultMessage)]
    assert [message.call_id for message in results] == ["call_0", "call_0-2"]


async def test_a_long_tool_result_is_cut_to_what_the_model_can_hold(tmp_path: Path) -> None:
    async def flood(context: ToolContext, params: Word) -> ToolResult:
        return ToolResult(text="0123456789" * 100_000)

    case = bench(
        tmp_path,
        models=[model(context_window=4_000)],
        scripts={"fake/one": [ask_for(look()), say("ok")]},
        tools=[tool(run=flood)],
    )
    result = await case.runtime.run(turn(), case.sink)
    assert result.status == "ok"
    assert total_tokens(case.providers.requests[1].messages) < 4_000


@pytest.mark.parametrize("window", [1_200, 4_000, 32_000])
@pytest.mark.parametrize("output", [None, 1, 100_000])
async def test_a_request_never_fills_more_than_the_window(tmp_path: Path, window: int, output: int | None) -> None:
    picture = Image("image/png", "AAAA", "p.png")
    long = "Some words, 123456 and more. " * 3_000
    history = tuple(
        message
        for number in range(6)
        for message in (
            UserMessage(content=(Text(f"{number} {long}"), picture, picture)),
            AssistantMessage(content=(Text("I look"), look(call_id=f"h{number}"))),
            ToolResultMessage(call_id=f"h{number}", name="look", text=long),
        )
    )
    case = bench(
        tmp_path,
        models=[model(context_window=window, images=True, max_output_tokens=None)],
        scripts={"fake/one": [ask_for(look("x" * 3_000)), say("ok")]},
        tools=[tool(f"look{number}") for number in range(window // 400)] + [tool()],
        config={"agents": {"defaults": {"maxOutputTokens": output}}} if output is not None else None,
    )
    result = await case.runtime.run(turn(long, history=history, extra_system_prompt=long), case.sink)
    assert result.status == "ok"
    for request in case.providers.requests:
        tools = sum(estimate(spec.name) + estimate(spec.description) + estimate(json.dumps(spec.parameters)) for spec in request.tools)
        asked = min(output, window // 2) if output is not None else min(4_096, window // 4)
        assert estimate(request.system) + total_tokens(request.messages) + tools + asked <= window


def effect(**facts: Any) -> Tool[Any]:
    return replace(tool(), retry_class=RetryClass.SIDE_EFFECTING, **facts)


async def test_a_turn_that_was_cut_off_goes_on_from_what_is_recorded(tmp_path: Path) -> None:
    """P4: results are kept, calls without one are made, and the answer is one text."""
    case = bench(tmp_path, scripts={"fake/one": [say("Found.")]}, tools=[tool()])
    asked = AssistantMessage(content=(Text("Let me look."), look("a"), look("b", "c2")), stop_reason="tool_calls")
    kept = ToolResultMessage(call_id="c1", name="look", text="kept")
    result = await case.runtime.run(replace(turn(), resumed=(asked, kept)), case.sink)
    assert (result.status, result.text) == ("ok", "Let me look.\n\nFound.")
    assert case.tools.ran == ["look"]
    assert [begun.call_id for begun in case.sink.begun] == ["c2", None]
    assert [message.role for message in case.sink.messages] == ["toolResult", "assistant"]
    [request] = case.providers.requests
    assert [message.role for message in request.messages] == ["user", "assistant", "toolResult", "toolResult"]
    assert [message.text for message in request.messages if isinstance(message, ToolResultMessage)] == ["kept", "look: b"]


async def test_a_turn_that_was_cut_off_goes_on_with_a_fallback(tmp_path: Path) -> None:
    """P4: the model that is down now may have been down before the crash as well."""
    case = bench(
        tmp_path,
        models=[model("a/1"), model("b/2")],
        scripts={"a/1": [[failure(ProviderErrorKind.OVERLOADED, provider="a")]], "b/2": [say("Found.")]},
        tools=[tool()],
        config={"agents": {"defaults": {"model": {"primary": "a/1", "fallbacks": ["b/2"]}}}},
    )
    asked = AssistantMessage(content=(Text("Let me look."), look("a"), look("b", "c2")), stop_reason="tool_calls")
    kept = ToolResultMessage(call_id="c1", name="look", text="kept")
    result = await case.runtime.run(replace(turn(), resumed=(asked, kept)), case.sink)
    assert (result.status, result.text, result.model) == ("ok", "Let me look.\n\nFound.", "b/2")
    assert case.tools.ran == ["look"]


async def test_a_model_that_has_acted_is_not_asked_again_with_half_of_the_conversation(tmp_path: Path) -> None:
    """P4: a model that calls tools of its own may have had effects, also where it has said nothing."""
    acting = model(retry_class=RetryClass.SIDE_EFFECTING)
    steps = [ToolStep("t1", "pay", "start"), ToolStep("t1", "pay", "result", {}, "paid")]
    case = bench(tmp_path, models=[acting], scripts={"fake/one": [[*steps, failure(ProviderErrorKind.CONTEXT_LENGTH)], say("again")]})
    result = await case.runtime.run(turn(), case.sink)
    assert (result.status, result.error_kind) == ("error", "context_length")
    assert len(case.providers.requests) == 1


async def test_rounds_and_repeats_of_before_a_crash_count(tmp_path: Path) -> None:
    """P13: a loop does not begin anew with each process."""
    case = bench(tmp_path, scripts={"fake/one": [ask_for(look("a", "c9")), say("Enough.")]}, tools=[tool()])
    rounds: list[Message] = []
    for number in (1, 2):
        rounds += [
            AssistantMessage(content=(look("a", f"c{number}"),)),
            ToolResultMessage(call_id=f"c{number}", name="look", text="a"),
        ]
    await case.runtime.run(replace(turn(), resumed=tuple(rounds)), case.sink)
    assert case.tools.ran == []
    assert any(isinstance(message, ToolResultMessage) and "3 times in a row" in message.text for message in case.sink.messages)


async def test_a_closed_turn_begins_no_call(tmp_path: Path) -> None:
    """P15."""
    case = bench(tmp_path, scripts={"fake/one": [say("never")]}, tools=[effect()])
    case.sink.closed = True
    with pytest.raises(TurnClosed):
        await case.runtime.run(turn(), case.sink)
    assert case.providers.requests == []


async def test_the_journal_knows_what_each_call_may_do(tmp_path: Path) -> None:
    acting = model(retry_class=RetryClass.SIDE_EFFECTING)
    case = bench(tmp_path, models=[acting], scripts={"fake/one": [ask_for(look("a")), say("Done.")]}, tools=[effect()])
    await case.runtime.run(turn(), case.sink)
    assert {(begun.kind, begun.retry_class) for begun in case.sink.begun} == {
        ("model", RetryClass.SIDE_EFFECTING),
        ("tool", RetryClass.SIDE_EFFECTING),
    }
    assert [step.retry_class for step in case.sink.steps] == ["side-effecting"] * 3
