"""Writing the config: over what was read, whole or not at all, with secrets restored, and put back where it cannot be applied."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from openclaw_config.describe import schema_of
from openclaw_config.load import load
from openclaw_config.merging import same
from openclaw_config.models import Config
from openclaw_config.patching import patched, tree_of
from openclaw_config.secrets import REDACTED, known_secrets
from openclaw_kernel.api.audit import AuditOrigin
from openclaw_kernel.api.config import Change, ConfigConflict, Edit, NotApplied, ReloadOutcome, UnitResult
from openclaw_kernel.api.errors import Forbidden, InvalidRequest
from openclaw_kernel.configuration.desk import STALE
from openclaw_kernel.configuration.file import REJECTED_KEPT, ConfigFile
from openclaw_kernel.configuration.view import ConfigView
from tests.kernel.writing import CHANGE, Desk, desk_at

BY_AGENT = Change(origin=AuditOrigin(actor="agent:main", surface="tool"), by_agent=True)
FILE = """\
# the gateway of the house, whose first secret was s3cret-of-old
gateway:
  port: 18789   # one port
  auth:
    mode: token
    token: "plain-text-token"
channels:
  irc: {nick: bot, password: 'hunter22'}
logging:
  level: info
"""


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with desk_at(tmp_path, FILE) as desk:
        yield desk


def patch(**values: Any) -> Edit:
    return lambda text: patched("openclaw.yaml", text, values)


async def test_a_write_is_in_the_file_in_force_and_a_generation_when_it_returns(desk: Desk) -> None:
    written = await desk.configuration.write(patch(logging={"level": "debug"}), CHANGE, base_hash=await desk.hash())
    assert desk.text == FILE.replace("level: info", "level: debug")
    assert desk.engine.running.logging.level == "debug"
    assert (written.generation, written.changed_keys, written.noop) == (2, ("logging.level",), False)
    assert written.hash == await desk.hash() == (await desk.configuration.history())[0].hash
    assert [(result.unit, result.outcome) for result in written.results] == [("kernel", ReloadOutcome.HOT)]
    assert [row["actor"] for row in await desk.rows("config.accepted")] == ["gateway", "device:d1"]


async def test_a_write_that_is_broken_off_once_it_is_accepted_stays_in_the_file(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    take, begun, may_end = desk.generations.take, asyncio.Event(), asyncio.Event()

    async def slow(*arguments: Any) -> Any:
        begun.set()
        await may_end.wait()
        return await take(*arguments)

    monkeypatch.setattr(desk.generations, "take", slow)
    writing = asyncio.create_task(desk.configuration.write(patch(logging={"level": "debug"}), CHANGE, base_hash=None))
    await begun.wait()
    closing = asyncio.create_task(desk.configuration.close())
    # The gateway stops: the write is cancelled while its record is being written.
    await asyncio.sleep(0)
    may_end.set()
    await closing
    assert (await asyncio.gather(writing, return_exceptions=True))[0].__class__ is asyncio.CancelledError
    assert desk.engine.accepted.hash == (await desk.configuration.history())[0].hash == await desk.hash()
    assert desk.text == FILE.replace("level: info", "level: debug")


async def test_a_write_that_changes_nothing_leaves_the_file_untouched(desk: Desk) -> None:
    before = desk.path.stat()
    written = await desk.configuration.write(patch(logging={"level": "info"}), CHANGE, base_hash=None)
    assert (written.noop, written.changed_keys, written.generation) == (True, (), 1)
    assert (desk.path.stat().st_ino, desk.path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


async def test_two_writers_that_read_the_same_file_do_not_overwrite_each_other(desk: Desk) -> None:
    read = await desk.hash()
    edits = [patch(gateway={"port": 1}), patch(logging={"level": "debug"})]
    done = await asyncio.gather(*(desk.configuration.write(edit, CHANGE, base_hash=read) for edit in edits), return_exceptions=True)
    conflicts = [one for one in done if isinstance(one, ConfigConflict)]
    assert [conflict.message for conflict in conflicts] == [STALE]
    assert conflicts[0].details is None
    assert [desk.text.count("port: 1 "), desk.text.count("level: debug")] in ([1, 0], [0, 1])


async def test_a_conflict_says_for_each_key_what_it_was_is_and_should_become_without_secrets(desk: Desk) -> None:
    read = await desk.hash()
    desk.path.write_text(FILE.replace("18789", "1").replace("hunter22", "new-password").replace("info", "error"))
    edit = patch(gateway={"port": 2}, session={"mainKey": "m"}, logging={"level": "error"})
    with pytest.raises(ConfigConflict) as conflict:
        await desk.configuration.write(edit, CHANGE, base_hash=read)
    assert conflict.value.diff == [
        {"path": "channels.irc.password", "base": REDACTED, "theirs": REDACTED, "yours": REDACTED, "conflict": False},
        {"path": "gateway.port", "base": 18789, "theirs": 1, "yours": 2, "conflict": True},
        {"path": "logging.level", "base": "info", "theirs": "error", "yours": "error", "conflict": False},
        {"path": "session.mainKey", "base": None, "theirs": None, "yours": "m", "conflict": False},
    ]
    assert conflict.value.payload == {"diff": conflict.value.diff}


async def test_what_is_saved_by_hand_while_we_write_is_not_overwritten(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    by_hand = FILE + "# by hand\n"
    real = os.fsync

    def save_meanwhile(descriptor: int) -> None:
        real(descriptor)
        desk.path.write_text(by_hand)

    monkeypatch.setattr(os, "fsync", save_meanwhile)
    with pytest.raises(ConfigConflict):
        await desk.configuration.write(patch(gateway={"port": 1}), CHANGE, base_hash=await desk.hash())
    assert desk.text == by_hand
    assert [path.name for path in desk.home.iterdir() if path.name.endswith(".new")] == []


async def test_a_link_stays_a_link_and_the_mode_of_its_target_stays(desk: Desk, tmp_path: Path) -> None:
    target = tmp_path / "dotfiles" / "gateway.yaml"
    target.parent.mkdir()
    desk.path.rename(target)
    target.chmod(0o640)
    desk.path.symlink_to(os.path.relpath(target, desk.path.parent))
    await desk.configuration.write(patch(logging={"level": "debug"}), CHANGE, base_hash=None)
    assert desk.path.is_symlink()
    assert "level: debug" in target.read_text()
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert {path.name for path in target.parent.iterdir()} == {"gateway.yaml"}


@pytest.mark.parametrize("error", [NotApplied("irc: no", [UnitResult(unit="irc", outcome=ReloadOutcome.UNIT, error="no")]), OSError("x")])
async def test_the_file_is_put_back_where_a_unit_refuses(desk: Desk, error: Exception) -> None:
    def fail(_config: Config) -> None:
        raise error

    desk.fails = fail
    with pytest.raises(NotApplied):
        await desk.configuration.write(patch(channels={"irc": {"nick": "new"}}), CHANGE, base_hash=None)
    assert desk.text == FILE
    assert desk.engine.running.channels["irc"]["nick"] == "bot"
    assert [row["outcome"] for row in await desk.rows("config.rejected")] == ["refused"]


async def test_an_invalid_candidate_is_refused_with_its_issues_and_leaves_a_row(desk: Desk) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await desk.configuration.write(patch(gateway={"port": "x"}, loging={}), CHANGE, base_hash=None)
    assert refused.value.details is not None
    assert [issue["path"] for issue in refused.value.details["issues"]] == ["gateway.port", "loging"]
    assert "did you mean 'logging'?" in refused.value.details["issues"][1]["message"]
    assert desk.text == FILE
    assert [(row["actor"], row["subject"]) for row in await desk.rows("config.rejected")] == [("device:d1", "openclaw.yaml")]


async def test_a_whole_file_that_was_read_and_sent_back_keeps_its_secrets_in_values_and_comments(desk: Desk) -> None:
    raw = (await desk.configuration.snapshot())["raw"]
    assert "hunter22" not in raw
    assert "plain-text-token" not in raw
    await desk.configuration.write(lambda _text: raw.replace("info", "debug"), CHANGE, base_hash=None)
    assert desk.text == FILE.replace("info", "debug")


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"gateway": {"auth": {"password": REDACTED}}}, "gateway.auth.password"),
        ({"channels": {"irc": {"nick": REDACTED}}}, "channels.irc.nick"),
        ({"logging": {"level": f"a{REDACTED}"}}, "logging.level"),
        ({"bindings": [{"agentId": REDACTED, "match": {"channel": "x"}}]}, "bindings.0.agentId"),
    ],
)
async def test_a_mark_where_nothing_was_hidden_is_refused_by_its_key(desk: Desk, values: dict[str, Any], key: str) -> None:
    with pytest.raises(InvalidRequest, match=f"^{key}: holds {REDACTED}, and no value was hidden there; write the value"):
        await desk.configuration.write(patch(**values), CHANGE, base_hash=None)
    assert desk.text == FILE


async def test_a_mark_stands_for_the_value_of_its_own_place_only(tmp_path: Path) -> None:
    text = "secrets:\n  entries: {one: 'first-secret', two: 'second-secret'}\n"
    async with desk_at(tmp_path, text) as desk:
        swapped = {"secrets": {"entries": {"two": REDACTED, "one": REDACTED}}, "logging": {"level": "debug"}}
        await desk.configuration.write(patch(**swapped), CHANGE, base_hash=None)
        assert tree_of("x", desk.text)["secrets"]["entries"] == {"one": "first-secret", "two": "second-secret"}


async def test_a_file_that_would_lose_more_than_half_is_kept_aside_and_refused_unless_asked(tmp_path: Path) -> None:
    text = FILE + "".join(f"# line {number} of what somebody wrote down here\n" for number in range(20))
    async with desk_at(tmp_path, text) as desk:
        with pytest.raises(InvalidRequest, match=r"lose more than half of the file; what was sent is kept as openclaw\.yaml\.rejected\."):
            await desk.configuration.write(lambda _text: "logging: {level: debug}\n", CHANGE, base_hash=None)
        kept = [path for path in tmp_path.iterdir() if ".rejected." in path.name]
        assert [(path.read_text(), stat.S_IMODE(path.stat().st_mode)) for path in kept] == [("logging: {level: debug}\n", 0o600)]
        assert desk.text == text
        await desk.configuration.write(lambda _text: "logging: {level: debug}\n", CHANGE, base_hash=None, shrink=True)
        assert desk.text == "logging: {level: debug}\n"


async def test_a_broken_file_is_shown_with_its_faults_and_can_be_written_over(desk: Desk) -> None:
    desk.path.write_text("gateway: {port: x}\n")
    shown = await desk.configuration.snapshot()
    assert (shown["valid"], shown["raw"], shown["config"], shown["parsed"]) == (False, None, {}, {})
    assert shown["issues"][0]["path"] == "gateway.port"
    assert shown["issues"][0]["line"] == 1
    assert shown["appliedConfigHash"] != shown["hash"]
    await desk.configuration.write(lambda _text: FILE.replace("info", "debug"), CHANGE, base_hash=shown["hash"])
    assert (await desk.configuration.snapshot())["valid"] is True


async def test_a_write_that_its_client_gave_up_is_done_whole(desk: Desk) -> None:
    reached, go = asyncio.Event(), asyncio.Event()
    real = desk.prepare

    async def slow(config: Config, plan: Any) -> Any:
        reached.set()
        await go.wait()
        return await real(config, plan)

    desk.prepare = slow  # type: ignore[method-assign]
    call = asyncio.ensure_future(desk.configuration.write(patch(channels={"irc": {"nick": "new"}}), CHANGE, base_hash=None))
    await reached.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    go.set()
    async with desk.engine.turn():
        assert desk.engine.running.channels["irc"]["nick"] == "new"
    assert "nick: new" in desk.text


async def test_an_earlier_generation_comes_back_as_a_new_one(desk: Desk) -> None:
    await desk.configuration.write(patch(logging={"level": "debug"}), CHANGE, base_hash=None)
    written = await desk.configuration.rollback(1, CHANGE)
    assert desk.text == FILE
    assert written.generation == 3


async def test_a_plan_says_what_a_write_would_do_and_does_nothing(desk: Desk) -> None:
    plan = await desk.configuration.plan_edit(patch(channels={"irc": {"nick": "new"}}))
    assert [(unit.unit, unit.outcome) for unit in plan.units] == [("irc", ReloadOutcome.UNIT)]
    plan = await desk.configuration.plan(FILE.replace("18789", "1"))
    assert plan.outcome is ReloadOutcome.PROCESS
    assert desk.text == FILE
    assert same(tree_of("x", desk.text), tree_of("x", desk.engine.accepted.text))


def test_of_what_was_not_written_the_newest_stay(tmp_path: Path) -> None:
    file = ConfigFile(tmp_path / "openclaw.yaml")
    for number in range(REJECTED_KEPT + 5):
        file.keep_rejected(f"# {number}", 1_700_000_000_000 + number)
    kept = sorted(path.read_text() for path in tmp_path.iterdir())
    assert kept == sorted(f"# {number}" for number in range(5, REJECTED_KEPT + 5))


async def test_what_an_agent_may_not_write_becomes_no_secret_of_the_process(desk: Desk) -> None:
    word = "an-ordinary-word-8d1f"
    with pytest.raises(Forbidden):
        await desk.configuration.write(patch(gateway={"auth": {"token": word}}), BY_AGENT, base_hash=await desk.hash())
    assert word not in known_secrets()


async def test_no_change_is_parsed_on_the_loop(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = set[threading.Thread]()

    def parsed(name: str, text: str) -> dict[str, Any]:
        threads.add(threading.current_thread())
        return tree_of(name, text)

    monkeypatch.setattr("openclaw_kernel.configuration.desk.tree_of", parsed)
    await desk.configuration.write(patch(logging={"level": "debug"}), CHANGE, base_hash=await desk.hash())
    desk.path.write_text(FILE)
    await desk.configuration.reload(CHANGE)
    assert threads
    assert threading.current_thread() not in threads


async def test_the_schema_is_made_beside_the_loop_and_by_one_at_a_time(tmp_path: Path) -> None:
    free, seen = threading.Lock(), list[bool]()

    def source() -> dict[str, Any]:
        alone = free.acquire(blocking=False)
        seen.append(alone and threading.current_thread() is not threading.main_thread())
        # The loop turns meanwhile.
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(10)
        free.release()
        return {"schema": schema_of(Config)}

    loop = asyncio.get_running_loop()
    view = ConfigView(tmp_path / "openclaw.yaml", schema_source=source, outcome_of=lambda _path: ReloadOutcome.HOT)
    found = await asyncio.gather(*(view.lookup("gateway.port") for _ in range(3)))
    assert [one["schema"]["maximum"] for one in found] == [65535] * 3
    assert seen == [True] * 3


async def test_a_link_in_a_circle_is_no_missing_file(desk: Desk) -> None:
    desk.path.unlink()
    desk.path.symlink_to(desk.path.name)
    shown = await desk.configuration.snapshot()
    assert (shown["exists"], shown["valid"]) == (True, False)
    with pytest.raises(InvalidRequest, match="cannot be read"):
        await desk.configuration.write(patch(logging={"level": "debug"}), CHANGE, base_hash=None)


@pytest.mark.parametrize("fault", ["", "nonsense: 1\n"])
async def test_to_look_at_a_file_runs_none_of_its_programs(desk: Desk, tmp_path: Path, fault: str) -> None:
    program, ran = tmp_path / "program", tmp_path / "ran"
    program.write_text(f"#!/bin/sh\ntouch {ran}\necho of-the-program\n")
    program.chmod(0o700)
    text = f"channels: {{irc: {{password: '${{exec:{program}}}', nick: heron-on-the-shore}}}}\n{fault}"
    desk.path.write_text(text)

    shown = await desk.configuration.snapshot()

    assert not ran.exists()
    assert shown["valid"] == (not fault)
    if fault:
        assert [issue["path"] for issue in shown["issues"]] == ["nonsense"]
        return
    assert shown["config"]["channels"]["irc"]["nick"] == "heron-on-the-shore"
    # Once it was taken its secrets are known, and hidden wherever else they stand.
    assert "of-the-program" in load(desk.path).secrets
    desk.path.write_text(text.replace("heron-on-the-shore", "of-the-program"))
    assert "of-the-program" not in json.dumps(await desk.configuration.snapshot())
