"""With the real program against the emulated API."""

from __future__ import annotations

import asyncio
import os
import stat
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from openclaw_kernel.api import (
    AssistantMessage,
    Image,
    Provider,
    ProviderErrorKind,
    Text,
    TextDelta,
    ThinkingDelta,
    ToolStep,
    UserMessage,
)
from openclaw_kernel.api.keeper import children
from openclaw_providers.claude_cli.plugin import ClaudeCliPlugin
from tests.emulators.model_control import API_KEY, EmulatorProcess
from tests.providers.support import Context, ask, fail, load, request, said
from tests.support.requirements import find_claude

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.requires("claude")]

MODEL = "claude-haiku-4-5"
#: A picture of one pixel.
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def process() -> AsyncIterator[EmulatorProcess]:
    async with EmulatorProcess("anthropic") as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def server(process: EmulatorProcess) -> EmulatorProcess:
    await process.reset()
    return process


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "workspace"
    folder.mkdir()
    return folder


@pytest.fixture
def context(server: EmulatorProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    monkeypatch.setenv("HOME", str(tmp_path))
    return Context({"claude-cli": entry(server)}, state_dir(tmp_path))


def state_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    folder.mkdir(exist_ok=True)
    return folder


def entry(server: EmulatorProcess, **settings: Any) -> dict[str, Any]:
    return {"command": str(find_claude()), "apiKey": API_KEY, "baseUrl": server.url, **settings}


def claude(context: Context) -> Provider:
    return load(ClaudeCliPlugin, context)["claude-cli"]


def with_settings(server: EmulatorProcess, tmp_path: Path, **settings: Any) -> Provider:
    return claude(Context({"claude-cli": entry(server, **settings)}, state_dir(tmp_path)))


async def bodies(server: EmulatorProcess) -> list[dict[str, Any]]:
    return [item["body"] for item in await server.requests()]


def conversation(body: dict[str, Any]) -> list[tuple[str, str]]:
    """Who said what in a request's messages."""
    return [(item["role"], _said(item["content"])) for item in body["messages"]]


def _said(content: Any) -> str:
    return content if isinstance(content, str) else "".join(block.get("text", "") for block in content)


async def test_an_answer_is_streamed_with_usage_and_cost(server: EmulatorProcess, context: Context, workspace: Path) -> None:
    turn = {"text": "It is Paris", "thinking": "hm", "input_tokens": 1000, "output_tokens": 100, "cached_tokens": 10}
    await server.script([turn])
    asked = request("What is the capital of France?", model=MODEL, system="You are Bob", workspace=workspace)
    answer = await ask(claude(context), asked)
    assert [event.text for event in answer.events if isinstance(event, TextDelta)] == ["It", " is", " Paris"]
    assert ThinkingDelta("hm") in answer.events
    usage = answer.completed.usage
    assert (usage.input_tokens, usage.output_tokens, usage.cache_read_tokens) == (1000, 100, 10)
    assert usage.cost_usd == pytest.approx(0.0015, rel=0.01)
    assert answer.completed.model is None
    (body,) = await bodies(server)
    assert body["system"][-1]["text"] == "You are Bob"
    assert body.get("tools") in (None, [])
    assert list(context.state_dir.glob("system-*")) == []


async def test_a_session_is_resumed_and_each_turn_states_its_own_cost(server: EmulatorProcess, context: Context, workspace: Path) -> None:
    await server.script([{"text": text, "input_tokens": 1000, "output_tokens": 0} for text in ("one", "two", "three")])
    provider = claude(context)
    first = await ask(provider, request("a", model=MODEL, workspace=workspace))
    own = AssistantMessage(content=(Text("one"),), provider="claude-cli")
    second = await ask(provider, request("a", own, "b", model=MODEL, workspace=workspace))
    assert conversation((await bodies(server))[1]) == [("user", "a"), ("assistant", "one"), ("user", "b")]
    assert first.completed.usage.cost_usd == pytest.approx(0.001)
    assert second.completed.usage.cost_usd == pytest.approx(0.001)
    await ask(provider, request("c", model=MODEL, workspace=workspace, session_id="session-2"))
    assert conversation((await bodies(server))[2]) == [("user", "c")]


async def test_what_others_said_meanwhile_is_told_before_the_new_message(
    server: EmulatorProcess, context: Context, workspace: Path
) -> None:
    provider = claude(context)
    await ask(provider, request("a", model=MODEL, workspace=workspace))
    own = AssistantMessage(content=(Text("a"),), provider="claude-cli")
    other = AssistantMessage(content=(Text("from elsewhere"),), provider="openai")
    await ask(provider, request("a", own, "b", other, "c", model=MODEL, workspace=workspace))
    last = conversation((await bodies(server))[1])[-1][1]
    told = "<conversation_so_far>\nUser: b\n\nAssistant: from elsewhere\n</conversation_so_far>\n\nc"
    assert last == told


async def test_a_conversation_that_the_program_lost_is_told_again(server: EmulatorProcess, context: Context, workspace: Path) -> None:
    provider = claude(context)
    await ask(provider, request("a", model=MODEL, workspace=workspace))
    for path in (context.state_dir / "claude-cli").rglob("*.jsonl"):
        path.unlink()
    own = AssistantMessage(content=(Text("a"),), provider="claude-cli")
    await ask(provider, request("a", own, "b", model=MODEL, workspace=workspace))
    assert "User: a\n\nAssistant: a" in conversation((await bodies(server))[1])[0][1]
    await ask(provider, request("a", own, "b", own, "c", model=MODEL, workspace=workspace))
    assert conversation((await bodies(server))[2])[-1] == ("user", "c")


async def test_a_text_that_begins_with_a_slash_is_no_command(server: EmulatorProcess, context: Context, workspace: Path) -> None:
    answer = await ask(claude(context), request("/cost", model=MODEL, workspace=workspace))
    assert answer.text.strip() == "/cost"
    assert len(await server.requests()) == 1


async def test_a_picture_is_sent(server: EmulatorProcess, context: Context, workspace: Path) -> None:
    message = UserMessage(content=(Text("look"), Image("image/png", PIXEL)))
    await ask(claude(context), request(message, model=MODEL, workspace=workspace))
    blocks = (await bodies(server))[0]["messages"][0]["content"]
    assert "image" in [block["type"] for block in blocks]


async def test_its_own_tools_run_where_allowed_and_show_as_steps(
    server: EmulatorProcess, context: Context, workspace: Path, tmp_path: Path
) -> None:
    call = {"name": "Bash", "arguments": {"command": "echo hi", "description": "say hi"}, "id": "toolu_1"}
    await server.script([{"text": "I look", "tool_calls": [call]}, {"text": "done"}])
    provider = with_settings(server, tmp_path, tools=["Bash(echo *)", "Read"])
    answer = await ask(provider, request("x", model=MODEL, workspace=workspace, system="You are Bob"))
    steps = [event for event in answer.events if isinstance(event, ToolStep)]
    assert [(step.id, step.name, step.phase) for step in steps] == [
        ("toolu_1", "Bash", "start"),
        ("toolu_1", "Bash", "result"),
    ]
    assert steps[0].arguments["command"] == "echo hi"
    assert (steps[1].result, steps[1].is_error) == ("hi", False)
    assert answer.text == "I look\n\ndone"
    assert {tool["name"] for tool in (await bodies(server))[0]["tools"]} == {"Bash", "Read"}


async def test_a_tool_that_is_not_allowed_is_a_step_that_failed(
    server: EmulatorProcess, workspace: Path, tmp_path: Path, context: Context
) -> None:
    call = {"name": "Bash", "arguments": {"command": "touch here", "description": "x"}}
    await server.script([{"tool_calls": [call]}, {"text": "done"}])
    provider = with_settings(server, tmp_path, tools=["Bash(echo *)"])
    answer = await ask(provider, request("x", model=MODEL, workspace=workspace))
    assert [event.is_error for event in answer.events if isinstance(event, ToolStep)] == [False, True]
    assert list(workspace.iterdir()) == []


@pytest.mark.parametrize(
    ("turn", "kind"),
    [
        ({"error": {"status": 401}}, ProviderErrorKind.AUTH),
        ({"error": {"status": 429}}, ProviderErrorKind.RATE_LIMIT),
        ({"error": {"status": 500}}, ProviderErrorKind.UNAVAILABLE),
        ({"error": {"status": 502}}, ProviderErrorKind.UNAVAILABLE),
        ({"error": {"status": 529}}, ProviderErrorKind.OVERLOADED),
        (
            {"error": {"status": 400, "message": "prompt is too long: 250000 tokens > 200000 maximum"}},
            ProviderErrorKind.CONTEXT_LENGTH,
        ),
        ({"text": "one two", "drop_after_chunks": 1}, ProviderErrorKind.NETWORK),
        ({"text": "one two", "error": {"status": 529, "after_chunks": 1}}, ProviderErrorKind.OVERLOADED),
    ],
)
async def test_each_failure_has_its_kind_and_is_not_tried_again(
    server: EmulatorProcess, context: Context, workspace: Path, turn: dict[str, Any], kind: ProviderErrorKind
) -> None:
    await server.script([turn])
    error, _ = await fail(claude(context), request("x", model=MODEL, workspace=workspace))
    assert error.kind is kind, error.message
    assert (error.provider, error.model) == ("claude-cli", MODEL)
    assert len(await server.requests()) == 1
    assert context.storage.values == {}


async def test_an_unknown_model_is_not_found(server: EmulatorProcess, context: Context, workspace: Path) -> None:
    error, _ = await fail(claude(context), request("x", model="claude-none", workspace=workspace))
    assert error.kind is ProviderErrorKind.NOT_FOUND


async def test_without_a_login_the_cure_is_told(
    server: EmulatorProcess, tmp_path: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ANTHROPIC_API_KEY", "not-for-the-program")
    settings = {"command": str(find_claude()), "baseUrl": server.url}
    provider = claude(Context({"claude-cli": settings}, state_dir(tmp_path)))
    error, _ = await fail(provider, request("x", model=MODEL, workspace=workspace))
    assert error.kind is ProviderErrorKind.AUTH
    assert "log in, or set models.providers.claude-cli.apiKey" in error.message
    assert await server.requests() == []


async def test_a_program_that_falls_silent_is_ended(server: EmulatorProcess, tmp_path: Path, workspace: Path, context: Context) -> None:
    await server.script([{"text": "one two", "hang_after_chunks": 1}])
    provider = with_settings(server, tmp_path, silenceSeconds=2)
    error, text = await fail(provider, request("x", model=MODEL, workspace=workspace))
    assert (error.kind, text) == (ProviderErrorKind.TIMEOUT, "one")
    assert "models.providers.claude-cli.silenceSeconds" in error.message
    await server.requests(count=1, outcome="disconnected")


async def test_an_abort_ends_the_program_and_its_tools_within_a_second(
    server: EmulatorProcess, tmp_path: Path, workspace: Path, context: Context
) -> None:
    call = {"name": "Bash", "arguments": {"command": "sleep 97", "description": "x"}}
    await server.script([{"tool_calls": [call]}])
    provider = with_settings(server, tmp_path, tools=["Bash"])
    async with aclosing(provider.stream(request("x", model=MODEL, workspace=workspace))) as stream:  # type: ignore[type-var]
        assert isinstance(await anext(stream), ToolStep)
        waiting = asyncio.ensure_future(anext(stream))
        started = await until_running("sleep")
        began = time.monotonic()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert time.monotonic() - began < 1
    assert [pid for pid in started if is_alive(pid)] == []


async def test_a_program_that_ignores_the_first_signal_is_killed_with_its_children(tmp_path: Path, workspace: Path) -> None:
    program = tmp_path / "stubborn"
    line = '{"type":"stream_event","event":{"type":"content_block_delta","delta":{"type":"text_delta","text":"a"}}}'
    program.write_text(f"#!/bin/bash\ntrap '' TERM\necho '{line}'\nsetsid sleep 97 &\nsleep 97\nsleep 97\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    provider = claude(Context({"claude-cli": {"command": str(program)}}, state_dir(tmp_path)))
    stream = provider.stream(request("x", model=MODEL, workspace=workspace))
    assert await anext(stream) == TextDelta("a")
    waiting = asyncio.ensure_future(anext(stream))
    started = await until_running("sleep", count=2)
    began = time.monotonic()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert time.monotonic() - began < 1
    assert [pid for pid in started if is_alive(pid)] == []


async def test_stopping_the_provider_ends_a_running_turn(server: EmulatorProcess, context: Context, workspace: Path) -> None:
    await server.script([{"text": "one two", "hang_after_chunks": 1}])
    provider = claude(context)
    stream = provider.stream(request("x", model=MODEL, workspace=workspace))
    assert await anext(stream) == TextDelta("one")
    await provider.stop()
    await server.requests(count=1, outcome="disconnected")
    error, _ = await fail_rest(stream)
    assert error.kind is ProviderErrorKind.UNAVAILABLE
    await provider.stop()


async def test_a_program_that_is_not_there_names_the_place_and_the_cure(tmp_path: Path, workspace: Path) -> None:
    provider = claude(Context({"claude-cli": {"command": "no-such-claude"}}, state_dir(tmp_path)))
    assert "models.providers.claude-cli.command: there is no program no-such-claude" in (provider.problem() or "")
    error, _ = await fail(provider, request("x", model=MODEL, workspace=workspace))
    assert error.kind is ProviderErrorKind.UNAVAILABLE
    here = claude(Context({"claude-cli": {"command": "true"}}, state_dir(tmp_path)))
    error, _ = await fail(here, request("x", model=MODEL, workspace=workspace / "missing"))
    assert "missing" in error.message
    error, _ = await fail(here, request("x", model=MODEL, workspace=workspace))
    assert "ended with code 0 before it answered" in error.message


async def test_the_gateways_secrets_are_not_in_the_programs_environment(
    tmp_path: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENCLAW_GATEWAY_TOKEN", "secret")
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    monkeypatch.setenv("WANTED", "shown")
    program = tmp_path / "teller"
    program.write_text("#!/bin/sh\nenv > told\necho sorry >&2\nexit 3\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    settings = {"command": str(program), "environment": ["WANTED"], "apiKey": "key-of-its-own"}
    provider = claude(Context({"claude-cli": settings}, state_dir(tmp_path)))
    error, _ = await fail(provider, request(said("x"), model=MODEL, workspace=workspace))
    assert "ended with code 3 before it answered: sorry" in error.message
    told = dict(line.split("=", 1) for line in (workspace / "told").read_text().splitlines())
    assert told["WANTED"] == "shown"
    assert told["ANTHROPIC_API_KEY"] == "key-of-its-own"
    assert "secret" not in told.values()


async def fail_rest(stream: Any) -> tuple[Any, str]:
    class Rest:
        def stream(self, _asked: Any) -> Any:
            return stream

    rest: Any = Rest()
    return await fail(rest, request("x", model=MODEL))


async def until_running(name: str, *, count: int = 1) -> list[int]:
    """Wait until so many processes of a name run under this one; return the whole tree."""
    async with asyncio.timeout(10):
        while True:
            tree = below(os.getpid())
            if sum(name_of(pid) == name for pid in tree) >= count:
                return [pid for pid in tree if name_of(pid) not in ("python", "python3")]
            await asyncio.sleep(0.02)


def below(pid: int) -> list[int]:
    return [found for child in children(pid) for found in (child, *below(child))]


def name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
