"""Commands run for real, in a workspace, with everything that must not get out of hand."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from openclaw_kernel.api import ToolContext, ToolError, ToolResult
from openclaw_plugins.shell_tool.runtime import Shell, ShellParams
from openclaw_plugins.shell_tool.settings import ShellToolSettings


def shell(gateway: Mapping[str, str] | None = None, **settings: Any) -> Shell:
    return Shell(ShellToolSettings.model_validate(settings), gateway or {}, Path("/state"))


def context(workspace: Path) -> ToolContext:
    return ToolContext(agent_id="main", session_key="agent:main:main", run_id="r", call_id="c", workspace=workspace)


async def run(workspace: Path, *argv: str, tool: Shell | None = None, **params: Any) -> ToolResult:
    return await (tool or shell()).run(context(workspace), ShellParams(argv=list(argv), **params))


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended but was not collected does not."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return False
    return fields[0] != "Z"


async def until(condition: Any, *, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.01)


async def test_a_program_runs_in_the_workspace_and_its_output_comes_back(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("hi\n")
    assert await run(tmp_path, "cat", "note.txt") == ToolResult(text="hi\n")


async def test_shell_characters_stay_what_they_are(tmp_path: Path) -> None:
    text = "$HOME; `id` && touch made | cat * > out"
    assert (await run(tmp_path, "printf", "%s", text)).text == text
    assert list(tmp_path.iterdir()) == []


async def test_a_shell_line_is_refused_unless_the_owner_allows_it(tmp_path: Path) -> None:
    params = ShellParams(command="echo one && echo two")
    with pytest.raises(ToolError, match="shell lines are off"):
        await shell().run(context(tmp_path), params)
    result = await shell(allowShellLine=True).run(context(tmp_path), params)
    assert result.text == "one\ntwo\n"


@pytest.mark.parametrize(
    "params",
    [{}, {"argv": []}, {"argv": [""]}, {"argv": ["ls"], "command": "ls"}, {"argv": ["ls", "a\0b"]}],
)
async def test_a_call_without_exactly_one_command_is_refused(tmp_path: Path, params: dict[str, Any]) -> None:
    with pytest.raises(ToolError):
        await shell().run(context(tmp_path), ShellParams(**params))


async def test_a_failing_program_reports_its_status_and_both_outputs(tmp_path: Path) -> None:
    result = await run(tmp_path, "sh", "-c", "echo out; echo err >&2; exit 3")
    assert result == ToolResult(text="out\nerr\n[exit status 3]", is_error=True)


async def test_a_program_that_is_not_there_is_an_error_for_the_model(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="there is no program 'no-such-program'"):
        await run(tmp_path, "no-such-program")
    with pytest.raises(ToolError, match="cannot be run"):
        await run(tmp_path, "./missing")


@pytest.mark.parametrize("cwd", ["..", "/", "/etc", "inner/../..", "link"])
async def test_a_folder_outside_the_workspace_is_refused(tmp_path: Path, cwd: str) -> None:
    workspace = tmp_path / "space"
    (workspace / "inner").mkdir(parents=True)
    (workspace / "link").symlink_to(tmp_path)
    with pytest.raises(ToolError, match="outside the workspace"):
        await run(workspace, "pwd", cwd=cwd)
    assert (await run(workspace, "pwd", cwd="inner")).text == f"{workspace / 'inner'}\n"


async def test_a_command_sees_only_the_listed_environment(tmp_path: Path) -> None:
    environment = {"LANG": "C.UTF-8", "SECRET": "x", "PATH": str(tmp_path), "LD_PRELOAD": "evil.so", "EDITOR": "vi"}
    seen = (await run(tmp_path, "env", tool=shell(environment, environment=["LANG", "EDITOR", "ABSENT"]))).text
    *listed, mark = sorted(seen.splitlines(), key=lambda line: line.startswith("OPENCLAW_CHILD="))
    assert sorted(listed) == sorted(["EDITOR=vi", f"HOME={tmp_path}", "LANG=C.UTF-8", "PATH=/usr/local/bin:/usr/bin:/bin"])
    assert mark.startswith("OPENCLAW_CHILD=")


async def test_a_program_planted_in_the_workspace_is_not_found_by_name(tmp_path: Path) -> None:
    planted = tmp_path / "ls"
    planted.write_text("#!/bin/sh\necho planted\n")
    planted.chmod(0o755)
    assert "planted" not in (await run(tmp_path, "ls", tool=shell({"PATH": str(tmp_path)}))).text.split()
    assert (await run(tmp_path, "./ls")).text == "planted\n"


async def test_long_output_keeps_its_beginning_and_its_end(tmp_path: Path) -> None:
    script = "echo first; head -c 5000000 /dev/zero | tr '\\0' x; echo; echo last"
    text = (await run(tmp_path, "sh", "-c", script, tool=shell(outputBytes=1_000))).text
    assert text.startswith("first\nx")
    assert text.endswith("x\nlast\n")
    assert "bytes left out]" in text
    assert len(text) < 1_100


async def test_a_late_command_is_stopped_with_all_it_started(tmp_path: Path) -> None:
    script = "trap '' TERM; (trap '' TERM; sleep 600) & echo $! > child; echo started; sleep 600"
    result = await run(tmp_path, "sh", "-c", script, timeout_seconds=0.3)
    assert result == ToolResult(text="started\n[stopped after 0.3 seconds]", is_error=True)
    child = int((tmp_path / "child").read_text())
    await until(lambda: not alive(child), seconds=1)


async def test_what_a_command_leaves_running_ends_with_it(tmp_path: Path) -> None:
    result = await run(tmp_path, "sh", "-c", "sleep 600 & echo $!")
    assert not result.is_error
    await until(lambda: not alive(int(result.text)), seconds=1)


async def test_cancelling_kills_the_whole_group_within_a_second(tmp_path: Path) -> None:
    script = "trap '' TERM INT; (trap '' TERM INT; sleep 600) & echo $$ $! > pids.new; mv pids.new pids; sleep 600"
    running = asyncio.ensure_future(run(tmp_path, "sh", "-c", script))
    await until((tmp_path / "pids").exists, seconds=5)
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert all(map(alive, pids))
    assert os.getpgid(pids[1]) == pids[0] != os.getpgid(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(running, 1)
    await until(lambda: not any(map(alive, pids)), seconds=1)


async def test_a_call_cannot_ask_for_more_time_than_the_owner_gives(tmp_path: Path) -> None:
    result = await run(tmp_path, "sleep", "600", tool=shell(timeoutSeconds=1), timeout_seconds=500)
    assert result.text == "[stopped after 1 seconds]"


async def test_a_command_reads_nothing_from_the_gateway(tmp_path: Path) -> None:
    assert (await run(tmp_path, "cat")).text == "[no output]"


@pytest.mark.parametrize(
    ("argument", "cwd", "reason"),
    [
        ("\ud800", ".", "an argument holds half of a character"),
        ("\0", ".", "an argument holds a NUL"),
        ("x", "\ud800", "cwd holds half of a character"),
        ("x", "a" * 5_000, "cannot be used: File name too long"),
        ("x", "/".join(["a" * 200] * 30), "cannot be used: File name too long"),
        ("x", "loop", "cannot be used: its links lead in a circle"),
    ],
)
async def test_what_the_system_cannot_be_given_is_an_error_for_the_model(argument: str, cwd: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(ToolError, match=reason) as refused:
        await run(tmp_path, "echo", argument, cwd=cwd)
    assert len(str(refused.value)) < 200


async def test_output_of_any_bytes_comes_back_as_text(tmp_path: Path) -> None:
    assert (await run(tmp_path, "printf", r"a\0b\377c")).text == "a\0b\ufffdc"
