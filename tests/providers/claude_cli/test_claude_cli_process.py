"""With programs that misbehave in the place of the real one."""

from __future__ import annotations

import asyncio
import json
import os
import select
import sys
import time
from collections.abc import Coroutine
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from openclaw_kernel.api import AssistantMessage, Provider, ProviderErrorKind, Text, TextDelta
from openclaw_providers.claude_cli.plugin import ClaudeCliPlugin
from tests.providers.support import Context, ask, fail, load, request, said

RESULT = {"type": "result", "subtype": "success", "result": "hi", "usage": {}}
ANSWER = f"import sys, json\nline = sys.stdin.readline()\nprint({json.dumps(json.dumps(RESULT))}, flush=True)\n"


def program(folder: Path, body: str, name: str = "claude") -> Path:
    """Write a program in Python."""
    folder.mkdir(exist_ok=True)
    file = folder / name
    file.write_text(f"#!{sys.executable}\n{body}")
    file.chmod(0o755)
    return file


def context_of(tmp_path: Path, body: str, **settings: Any) -> Context:
    (tmp_path / "workspace").mkdir(exist_ok=True)
    (tmp_path / "state").mkdir(exist_ok=True)
    command = str(program(tmp_path / "bin", body))
    return Context({"claude-cli": {"command": command, **settings}}, tmp_path / "state")


def claude(context: Context) -> Provider:
    return load(ClaudeCliPlugin, context)["claude-cli"]


def asked(tmp_path: Path, *messages: Any, **more: Any) -> Any:
    return request(*(messages or ("hello",)), model="haiku", workspace=tmp_path / "workspace", **more)


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


async def test_a_program_that_never_reads_is_ended(tmp_path: Path) -> None:
    context = context_of(tmp_path, "import time\ntime.sleep(60)\n", silenceSeconds=0.3)
    began = time.monotonic()
    error, _ = await fail(claude(context), asked(tmp_path, "x" * 2_000_000))
    assert error.kind is ProviderErrorKind.TIMEOUT
    assert "silenceSeconds" in error.message
    assert time.monotonic() - began < 3


async def test_what_a_program_left_behind_holding_its_output_does_not_hold_up_the_end(tmp_path: Path) -> None:
    # The child's parent is gone when the program is ended, so that nothing but the open pipe tells of it.
    pid_file = tmp_path / "pid"
    body = f"""
import os, sys, time
told, tell = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        open({str(pid_file)!r}, "w").write(str(os.getpid()))
        os.write(tell, b"x")
        time.sleep(60)
    os._exit(0)
os.wait()
os.read(told, 1)
print('{{"type": "stream_event", "event": {{"type": "content_block_delta", "delta": {{"type": "text_delta", "text": "x"}}}}}}', flush=True)
time.sleep(60)
"""
    context = context_of(tmp_path, body)
    async with aclosing(claude(context).stream(asked(tmp_path))) as stream:  # type: ignore[type-var]
        assert await anext(stream) == TextDelta("x")
        left = os.pidfd_open(int(pid_file.read_text()))
        began = time.monotonic()
    assert time.monotonic() - began < 1
    assert select.select([left], [], [], 2.0)[0] == [left]
    os.close(left)


@pytest.mark.parametrize(
    "line",
    [
        {"type": "stream_event"},
        {"type": "stream_event", "event": {"type": "content_block_delta", "delta": {"type": "text_delta"}}},
        {"type": "assistant", "message": "text"},
        {"type": "assistant", "message": {"content": ["text"]}},
        {"type": "user", "message": {"content": [{"type": "tool_result"}]}},
        {"type": "result", "usage": "none"},
    ],
)
async def test_a_line_of_another_shape_is_a_typed_error_that_names_the_cure(tmp_path: Path, line: dict[str, Any]) -> None:
    context = context_of(tmp_path, f"print({json.dumps(json.dumps(line))}, flush=True)\n")
    error, _ = await fail(claude(context), asked(tmp_path))
    assert error.kind is ProviderErrorKind.UNAVAILABLE
    assert "another version" in error.message


async def test_an_error_is_one_short_line_without_the_key(tmp_path: Path) -> None:
    body = "import sys\nfor n in range(500):\n    print('key sk-precious failed', n, 'y' * 5000, file=sys.stderr)\nsys.exit(3)\n"
    context = context_of(tmp_path, body, apiKey="sk-precious")
    error, _ = await fail(claude(context), asked(tmp_path))
    assert "ended with code 3" in error.message
    assert len(error.message) < 1500
    assert "\n" not in error.message
    assert "sk-precious" not in error.message


async def test_a_reset_session_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    context = context_of(tmp_path, ANSWER)
    provider = claude(context)
    for number in range(20):
        await ask(provider, asked(tmp_path, session_id=f"session-{number}"))
    assert len(context.storage.values) == 1


async def test_only_the_same_session_is_resumed(tmp_path: Path) -> None:
    body = f"import sys\nopen({str(tmp_path / 'calls')!r}, 'a').write(' '.join(sys.argv) + '\\n')\n{ANSWER}"
    provider = claude(context_of(tmp_path, body))
    answered = AssistantMessage(content=(Text("hi"),), provider="claude-cli")
    await ask(provider, asked(tmp_path, said("one", at=1)))
    await ask(provider, asked(tmp_path, said("one", at=1), answered, said("two", at=2)))
    await ask(provider, asked(tmp_path, said("three", at=3), session_id="session-2"))
    await ask(provider, asked(tmp_path, said("four", at=4), session_key="agent:main:other", session_id="session-3"))
    resumed = ["--resume" in call for call in (tmp_path / "calls").read_text().splitlines()]
    assert resumed == [False, True, False, False]


async def test_prompts_that_a_killed_gateway_left_behind_are_removed_at_the_start(tmp_path: Path) -> None:
    body = "import sys, shutil\n"
    body += f"place = sys.argv[sys.argv.index('--system-prompt-file') + 1]\nshutil.copy(place, {str(tmp_path / 'seen')!r})\n"
    context = context_of(tmp_path, f"{body}{ANSWER}")
    provider = claude(context)
    left = tmp_path / "state" / "prompts" / "claude-cli" / "abc.md"
    other = tmp_path / "state" / "prompts" / "claude-cli-2" / "abc.md"
    for file in (left, other):
        file.parent.mkdir(parents=True)
        file.write_text("secret plans")
    await provider.start()
    assert not left.exists()
    assert other.exists()
    await ask(provider, asked(tmp_path, system="be brief"))
    assert (tmp_path / "seen").read_text() == "be brief"
    assert list(left.parent.iterdir()) == []


async def test_a_finished_answer_does_not_wait_for_what_holds_the_output(tmp_path: Path) -> None:
    body = f"{ANSWER}import os, time\nif os.fork() == 0:\n    time.sleep(60)\n"
    began = time.monotonic()
    answer = await ask(claude(context_of(tmp_path, body)), asked(tmp_path))
    assert answer.completed.stop_reason == "stop"
    assert time.monotonic() - began < 2


async def test_a_program_started_while_the_plugin_ends_is_ended_too(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    body = f"import os, time\nopen({str(pid_file)!r}, 'w').write(str(os.getpid()))\ntime.sleep(60)\n"

    class Closed(Context):
        def spawn(self, name: str, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
            coroutine.close()
            raise RuntimeError(f"{name}: the owner of this task is closed")

    made = context_of(tmp_path, body)
    context = Closed({"claude-cli": {"command": str(tmp_path / "bin" / "claude")}}, made.state_dir)
    provider = claude(context)
    with pytest.raises(RuntimeError):
        await ask(provider, asked(tmp_path))
    # It may have been ended before it wrote its id; what counts is that none is left.
    assert not pid_file.exists() or not is_alive(int(pid_file.read_text() or 0))
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    assert not any(str(tmp_path) in Path(f"/proc/{pid}/cmdline").read_text() for pid in children)


async def test_a_program_in_the_workspace_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context_of(tmp_path, ANSWER)
    program(tmp_path / "workspace", "import pathlib\npathlib.Path('run').touch()\n")
    monkeypatch.setenv("PATH", f":.:{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    provider = claude(Context({"claude-cli": {}}, tmp_path / "state"))
    await ask(provider, asked(tmp_path))
    assert not (tmp_path / "workspace" / "run").exists()
