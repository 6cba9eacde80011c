"""config set, unset, patch and apply where no gateway runs: into the file, minimal, valid, under the lock."""

from __future__ import annotations

from pathlib import Path

import pytest

from openclaw_kernel.lock import StateLock
from tests.kernel.cli.command import run_command

CONFIG = """\
# mine
gateway:
  port: 1234   # chosen
  auth: {mode: token, token: 'very-secret-token'}
agents:
  defaults:
    tools: {allow: [web], deny: []}
bindings:
  - agentId: main   # first
    match: {channel: webchat}
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "openclaw.yaml").write_text(CONFIG, encoding="utf-8")
    return tmp_path


def text_of(home: Path) -> str:
    return (home / "openclaw.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "before", "after"),
    [
        (("set", "gateway.port", "80"), "port: 1234   # chosen", "port: 80   # chosen"),
        (("set", "gateway.bind", "lan"), "-token'}\n", "-token'}\n  bind: lan\n"),
        (("set", "gateway.auth.password", "80", "--text"), "-token'}", '-token\', password: "80"}'),
        (("set", "agents.defaults.tools", '{"deny": ["shell"]}'), "{allow: [web], deny: []}", "{deny: [shell]}"),
        (("set", "agents.defaults.tools.allow.0", "fetch"), "[web]", "[fetch]"),
        (("set", "agents.defaults.tools.allow.1", "fetch"), "[web]", "[web, fetch]"),
        (("set", "bindings.0.match.channel", "telegram"), "channel: webchat", "channel: telegram"),
        (("unset", "agents.defaults.tools.deny"), "{allow: [web], deny: []}", "{allow: [web]}"),
        (("unset", "gateway.port"), "  port: 1234   # chosen\n", ""),
    ],
)
async def test_only_what_was_asked_for_changes_in_the_file(home: Path, arguments: tuple[str, ...], before: str, after: str) -> None:
    assert CONFIG.count(before) == 1
    dry = await run_command("config", *arguments, "--dry-run", home=home)
    assert (dry.status, text_of(home)) == (0, CONFIG)
    done = await run_command("config", *arguments, home=home)
    assert (done.status, done.err) == (0, "")
    assert "the next start takes it" in done.out
    assert text_of(home) == CONFIG.replace(before, after)
    assert "very-secret" not in dry.out + done.out


async def test_a_patch_and_a_whole_file_come_from_a_file_or_stdin(home: Path) -> None:
    patch = home / "patch.json5"
    patch.write_text("{gateway: {port: 80, auth: {token: '__OPENCLAW_REDACTED__'}}, bindings: [],} // both\n")
    refused = await run_command("config", "patch", str(patch), home=home)
    assert refused.status == 1
    assert "bindings: would lose 1 of its 1 entries" in refused.err
    done = await run_command("config", "patch", str(patch), "--replace", "bindings", "--json", home=home)
    assert done.json() == {"changedPaths": ["bindings", "gateway.port"], "written": True}
    assert "port: 80   # chosen\n  auth: {mode: token, token: 'very-secret-token'}\n" in text_of(home)
    whole = CONFIG.replace("1234", "81").replace("very-secret-token", "__OPENCLAW_REDACTED__")
    done = await run_command("config", "apply", "-", home=home, stdin=whole)
    assert (done.status, text_of(home)) == (0, CONFIG.replace("1234", "81"))
    again = await run_command("config", "apply", "-", home=home, stdin=whole)
    assert again.out == "nothing changes: the file says that already\n"


async def test_a_whole_file_that_is_less_than_half_has_to_be_meant(home: Path) -> None:
    done = await run_command("config", "apply", "-", home=home, stdin="gateway: {port: 1}\n")
    assert (done.status, text_of(home)) == (1, CONFIG)
    assert "give --allow-shrink" in done.err
    done = await run_command("config", "apply", "-", "--allow-shrink", home=home, stdin="gateway: {port: 1}\n")
    assert (done.status, text_of(home)) == (0, "gateway: {port: 1}\n")


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("set", "gatway.port", "1"), 78, "gatway: unknown key 'gatway'; did you mean 'gateway'?"),
        (("set", "gateway.port", "x"), 78, "gateway.port: found 'x'"),
        (("set", "gateway.port", "null"), 2, "openclaw-kernel config unset gateway.port"),
        (("set", "gateway..port", "1"), 1, "'gateway..port': is no dotted key"),
        (("set", "bindings.2.agentId", "x"), 1, "bindings.2: the list has 1 items, counted from 0; give an index up to 0"),
        (("unset", "gateway.nothing"), 1, "gateway.nothing: is not set; see openclaw-kernel config get"),
        (("patch", "/nowhere/patch"), 1, "/nowhere/patch cannot be read"),
        (("set", "channels.telegram.unheard", "1"), 78, "channels.telegram"),
    ],
)
async def test_what_cannot_be_is_refused_by_its_key_and_leaves_the_file(
    home: Path, arguments: tuple[str, ...], status: int, said: str
) -> None:
    outcome = await run_command("config", *arguments, home=home)
    assert (outcome.status, text_of(home)) == (status, CONFIG)
    assert said in outcome.err


async def test_nothing_is_written_while_somebody_else_owns_the_state_folder(home: Path) -> None:
    lock = StateLock(home)
    lock.acquire()
    try:
        outcome = await run_command("config", "set", "gateway.port", "1", home=home)
    finally:
        lock.release()
    assert (outcome.status, text_of(home)) == (75, CONFIG)
    assert "a gateway already runs on" in outcome.err
