"""Completion scripts: valid for their shell, and true to the parser."""

from __future__ import annotations

import asyncio
import shlex
from pathlib import Path

import pytest

from openclaw_kernel.cli.main import build_parser
from openclaw_kernel.cli.shells import SCRIPTS, describe
from tests.kernel.cli.command import COMMAND, DEADLINE_SECONDS, run_command
from tests.support.gateway import RunningGateway


async def bash(script: str, *arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        "bash", "--norc", *arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(script.encode()), DEADLINE_SECONDS)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def completed(line: str, *, before: str = "") -> list[str]:
    """What bash offers at the end of the line."""
    script = SCRIPTS["bash"](describe(*build_parser()))
    words = line.split(" ")
    assignment = f"COMP_WORDS=({' '.join(map(shlex.quote, words))}); COMP_CWORD={len(words) - 1}"
    status, out, err = await bash(f'{before}\n{script}\n{assignment}\n_openclaw_kernel\nprintf "%s\\n" "${{COMPREPLY[@]}}"\n')
    assert (status, err) == (0, "")
    return out.split()


async def test_the_bash_script_parses(tmp_path: Path) -> None:
    script = await run_command("completion", "bash", home=tmp_path)
    assert script.status == 0
    assert await bash(script.out, "-n") == (0, "", "")


async def test_bash_completes_commands_options_and_choices() -> None:
    assert await completed("openclaw-kernel st") == ["status"]
    assert {"run", "chat", "plugins", "--help"} <= set(await completed("openclaw-kernel "))
    assert await completed("openclaw-kernel plugins l") == ["list"]
    assert await completed("openclaw-kernel --json config v") == ["validate"]
    assert await completed("openclaw-kernel chat --ses") == ["--session"]
    assert {"bash", "zsh", "fish"} <= set(await completed("openclaw-kernel completion "))
    assert await completed("openclaw-kernel chat --session x") == []


async def test_bash_completes_folders_after_home(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    assert await completed(f"openclaw-kernel --home {tmp_path}/st") == [f"{tmp_path}/state"]


async def test_bash_completes_the_methods_of_the_running_gateway(gateway: RunningGateway) -> None:
    command = f'openclaw-kernel() {{ OPENCLAW_KERNEL_HOME={shlex.quote(str(gateway.home))} {shlex.join(COMMAND)} "$@"; }}'
    assert await completed("openclaw-kernel call chat.h", before=command) == ["chat.history"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
async def test_every_command_and_option_is_in_the_script(shell: str, tmp_path: Path) -> None:
    script = (await run_command("completion", shell, home=tmp_path)).out
    for place in describe(*build_parser()):
        for word, _ in place.words:
            assert word in script
        for option in place.options:
            for spelling in option.spellings:
                assert (spelling if shell != "fish" else spelling.lstrip("-")) in script
