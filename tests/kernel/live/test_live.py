"""A gateway in this process follows its file, refuses what is wrong with it, and drops nobody."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from openclaw_config.load import load
from openclaw_kernel.api.audit import AuditFilter, AuditOrigin
from openclaw_kernel.api.config import Applied, Change, NotApplied
from openclaw_kernel.api.errors import InvalidRequest, Unavailable
from openclaw_kernel.app import GatewayApp
from openclaw_kernel.live.config import LiveConfig
from openclaw_kernel.logs import set_level
from tests.support import contract

TOKEN = "test-token-0123456789"
DEADLINE = 20.0
CHANGE = Change(origin=AuditOrigin(actor="test", surface="cli"), reason="a test")


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    both = dict(base)
    for key, value in over.items():
        old = both.get(key)
        both[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return both


class Live:
    """A gateway that serves, its file, and who is connected."""

    def __init__(self, home: Path, app: GatewayApp, base: dict[str, Any]) -> None:
        self.home = home
        self.app = app
        self.base = base

    @property
    def live(self) -> LiveConfig:
        assert self.app.live is not None
        return self.app.live

    def save(self, **content: Any) -> None:
        """Save the file as it was at the start, with this over it."""
        (self.home / "openclaw.yaml").write_text(json.dumps(merged(self.base, content), indent=1))

    async def take(self, **content: Any) -> Applied:
        """Save, and have it taken at once, before the watcher does."""
        async with self.live.engine.turn() as turn:
            self.save(**content)
            return await self.live._take_files(turn, CHANGE)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for what a saved edit brings about."""
        async with asyncio.timeout(DEADLINE):
            while not condition():  # noqa: ASYNC110 - what is waited for has no event
                await asyncio.sleep(0.01)

    async def rows(self, action: str) -> list[Any]:
        page = await self.app._audit.page(AuditFilter(action=action), behind=None, limit=50, oldest_first=True)
        return list(page.rows)

    @contextlib.asynccontextmanager
    async def client(self, token: str = TOKEN) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        params = {
            "minProtocol": 4,
            "maxProtocol": 4,
            "client": {"id": "cli", "version": "1", "platform": "linux", "mode": "cli"},
            "scopes": ["operator.admin"],
            "auth": {"token": token},
        }
        async with aiohttp.ClientSession() as http, http.ws_connect(self.app.facts.url.replace("http", "ws", 1)) as ws:
            await ws.receive(DEADLINE)
            await ws.send_json({"type": "req", "id": "c", "method": "connect", "params": params})
            assert (await ws.receive_json(timeout=DEADLINE))["ok"] is True
            yield ws


async def event(ws: aiohttp.ClientWebSocketResponse, name: str) -> dict[str, Any]:
    async with asyncio.timeout(DEADLINE):
        while True:
            frame: dict[str, Any] = await ws.receive_json()
            if frame.get("event") == name:
                contract.validate_event(frame)
                return frame


@contextlib.asynccontextmanager
async def serving(home: Path, **content: Any) -> AsyncIterator[Live]:
    base = merged(
        {
            "gateway": {"port": 0, "auth": {"mode": "token", "token": TOKEN}, "reload": {"debounceMs": 20}},
            "models": {"providers": {"echo": {}}},
        },
        content,
    )
    (home / "openclaw.yaml").write_text(json.dumps(base))
    app = GatewayApp(loaded=load(home / "openclaw.yaml"), home=home)
    await app.start()
    try:
        yield Live(home, app, base)
    finally:
        await app.stop()
        set_level("info")


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[Live]:
    async with serving(tmp_path) as running:
        yield running


async def test_a_saved_edit_is_in_force_without_anybody_asking(live: Live) -> None:
    async with live.client() as ws:
        live.save(logging={"level": "debug"})
        told = (await event(ws, "config.changed"))["payload"]
        assert logging.getLogger("openclaw").level == logging.DEBUG
        assert told["hash"] == live.app.facts.config_snapshot()["hash"] == live.live.engine.accepted.hash
        assert live.app.host.current().config.logging.level == "debug"
    row = (await live.rows("config.accepted"))[-1]
    assert (row["actor"], row["surface"]) == ("owner", "file")


async def test_an_edit_that_is_wrong_is_told_once_and_what_was_before_still_runs(live: Live, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    async with live.client() as ws:
        live.save(logging={"level": "loud"})
        await live.until(lambda: bool(live.live.problems()))
        await event(ws, "health")
        (problem,) = [line for line in live.app.facts.reasons() if "logging.level" in line]
        assert "openclaw.yaml" in problem
        assert problem.endswith("not taken, what was before still runs")
        live.save(logging={"level": "loud"})
        await asyncio.sleep(0.2)
        live.save(logging={"level": "warning"})
        await live.until(lambda: not live.live.problems())
    assert live.app.host.current().config.logging.level == "warning"
    (row,) = await live.rows("config.rejected")
    assert (row["outcome"], row["details"]["keys"]) == ("refused", ["logging.level"])
    assert len([record for record in caplog.records if "is not taken" in record.getMessage()]) == 1


async def test_a_wrong_section_of_a_plugin_is_refused_and_touches_nobody(live: Live) -> None:
    with pytest.raises(NotApplied, match=r"plugins\.entries\.web-tools\.config\.maxBytes"):
        await live.take(plugins={"entries": {"web-tools": {"config": {"maxBytes": -1}}}}, logging={"level": "debug"})
    assert logging.getLogger("openclaw").level != logging.DEBUG
    assert live.app.host.current().config == live.live.engine.accepted.config
    assert (await live.take()).plan.changed == ()
    assert live.live.problems() == []


async def test_another_token_ends_who_came_in_with_the_one_before_and_nobody_else_comes_in_with_it(live: Live) -> None:
    async with live.client() as ws:
        await live.take(gateway={"auth": {"token": "another-token-0123456789"}})
        async with asyncio.timeout(DEADLINE):
            while (await ws.receive()).type is aiohttp.WSMsgType.TEXT:
                pass
        assert ws.close_code == 4001
    async with live.client("another-token-0123456789") as ws:
        assert not ws.closed


async def test_who_came_in_with_a_token_that_was_not_accepted_in_the_end_does_not_stay(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    reached, may_fail = asyncio.Event(), asyncio.Event()

    async def take(*_arguments: Any) -> Any:
        reached.set()
        await may_fail.wait()
        raise Unavailable("the disk is full")

    monkeypatch.setattr(live.app.generations, "take", take)
    async with live.client() as old, asyncio.TaskGroup() as group:
        taking = group.create_task(refused(live.take(gateway={"auth": {"token": "another-token-0123456789"}})))
        await reached.wait()
        async with live.client("another-token-0123456789") as new:
            may_fail.set()
            await taking
            async with asyncio.timeout(DEADLINE):
                while (await new.receive()).type is aiohttp.WSMsgType.TEXT:
                    pass
            assert new.close_code == 4001
        await old.send_json({"type": "req", "id": "1", "method": "health"})
        async with asyncio.timeout(DEADLINE):
            while (frame := await old.receive_json()).get("id") != "1":
                pass
        assert frame["ok"] is True


async def refused(taking: Coroutine[Any, Any, Applied]) -> None:
    with pytest.raises(NotApplied):
        await taking


async def test_who_did_not_come_in_by_what_changed_stays(live: Live) -> None:
    async with live.client() as ws:
        await live.take(gateway={"controlUi": {"allowedOrigins": ["https://chat.example.org"]}, "trustedProxies": ["192.0.2.7"]})
        await ws.send_json({"type": "req", "id": "1", "method": "health"})
        async with asyncio.timeout(DEADLINE):
            while (frame := await ws.receive_json()).get("id") != "1":
                pass
        assert frame["ok"] is True
    origin = {"Origin": "https://chat.example.org"}
    async with aiohttp.ClientSession() as http, http.ws_connect(live.app.facts.url.replace("http", "ws", 1), headers=origin) as ws:
        assert (await ws.receive_json(timeout=DEADLINE))["event"] == "connect.challenge"


async def test_a_provider_that_comes_answers_and_one_that_goes_does_not(live: Live) -> None:
    await live.take(models={"providers": {"parrot": {"api": "echo"}}})
    assert {model.provider for model in live.app.host.providers.models()} == {"echo", "parrot"}
    applied = await live.take()
    assert {model.provider for model in live.app.host.providers.models()} == {"echo"}
    assert [(unit.unit, unit.outcome.value) for unit in applied.results] == [("echo", "unit")]


async def test_what_needs_a_restart_restarts_once_and_says_why(live: Live) -> None:
    applied = await live.take(gateway={"controlUi": {"basePath": "/a"}})
    assert applied.restart
    await live.take(gateway={"controlUi": {"basePath": "/b"}})
    await asyncio.wait_for(live.app.restarts.wanted.wait(), DEADLINE)
    assert live.app.restarts.reason == "gateway.controlUi.basePath changed"
    assert live.app.host.current().config.gateway.control_ui.base_path == ""


async def test_no_restart_where_the_next_process_could_not_start(live: Live) -> None:
    await live.take(gateway={"controlUi": {"basePath": "/a"}})
    (live.home / "openclaw.yaml").write_text("gateway: {port: none}")
    with pytest.raises(InvalidRequest):
        await live.live.reload(CHANGE)
    await live.until(lambda: any("not restarted" in problem for problem in live.app.restarts.problems()))
    assert not live.app.restarts.pending
    assert not live.app.restarts.wanted.is_set()
    live.save(gateway={"controlUi": {"basePath": "/a"}})
    await live.live.reload(CHANGE)
    await asyncio.wait_for(live.app.restarts.wanted.wait(), DEADLINE)


@pytest.mark.parametrize("mode", ["hybrid", "hot"])
async def test_a_plugin_that_only_a_start_can_begin_comes_with_a_restart(tmp_path: Path, mode: str) -> None:
    off = {"entries": {"pairing": {"enabled": False}}}
    async with serving(tmp_path, plugins=off, gateway={"reload": {"mode": mode}}) as live:
        applied = await live.take(plugins={"entries": {"pairing": {"enabled": True}}}, logging={"level": "debug"})
        (unit,) = [unit for unit in applied.plan.units if unit.unit == "pairing"]
        assert (unit.outcome.value, unit.waits, applied.restart) == ("process", mode == "hot", mode == "hybrid")
        assert "asked for at a start only" in unit.reason
        assert "pairing" not in live.app.host.current().hosted
        assert (logging.getLogger("openclaw").level == logging.DEBUG) is (mode == "hot")


async def test_a_restart_that_was_refused_is_not_complained_of_once_nobody_wants_it(live: Live) -> None:
    await live.take(gateway={"controlUi": {"basePath": "/a"}})
    (live.home / "openclaw.yaml").write_text("gateway: {port: none}")
    await live.until(lambda: any(line.startswith("not restarted") for line in live.app.facts.reasons()))
    await live.take()
    assert not any(line.startswith("not restarted") for line in live.app.facts.reasons())


async def test_in_mode_hot_it_waits_visibly_until_it_is_taken_back(live: Live) -> None:
    hot = {"reload": {"mode": "hot"}}
    applied = await live.take(gateway={**hot, "controlUi": {"basePath": "/a"}}, logging={"level": "debug"})
    assert (applied.restart, logging.getLogger("openclaw").level) == (False, logging.DEBUG)
    assert any(line.startswith("gateway.controlUi.basePath: changed, and waits for a restart") for line in live.app.facts.reasons())
    assert live.app.host.current().config.gateway.control_ui.base_path == ""
    await live.take(gateway=hot)
    assert live.live.problems() == []
    assert not live.app.restarts.pending


async def test_whatever_ends_the_watch_it_goes_on_and_the_edit_is_taken(
    live: Live, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real, calls = live.live._take_files, 0

    async def take_files(*arguments: Any, **options: Any) -> Applied:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise RuntimeError("can't start new thread")
        return await real(*arguments, **options)

    monkeypatch.setattr(live.live, "_take_files", take_files)
    live.save(logging={"level": "debug"})
    await live.until(lambda: live.live.engine.running.logging.level == "debug")
    assert "task config/watch failed" in caplog.text


async def test_in_mode_off_nobody_watches_and_who_asks_is_heard(live: Live) -> None:
    await live.take(gateway={"reload": {"mode": "off"}})
    await live.until(lambda: live.live._watching is not None and live.live._watching.done())
    live.save(gateway={"reload": {"mode": "off"}}, logging={"level": "debug"})
    await asyncio.sleep(0.3)
    assert logging.getLogger("openclaw").level != logging.DEBUG
    await live.live.reload(CHANGE)
    assert logging.getLogger("openclaw").level == logging.DEBUG
    await live.take(gateway={"reload": {"mode": "hybrid"}})
    live.save(logging={"level": "error"})
    await live.until(lambda: logging.getLogger("openclaw").level == logging.ERROR)


async def test_who_switches_it_off_and_on_again_at_once_is_watched(live: Live) -> None:
    await live.until(lambda: live.live._watch is not None and live.live._watch.ready.is_set())
    await live.take(gateway={"reload": {"mode": "off"}})
    await live.take(gateway={"reload": {"mode": "hybrid"}})
    await asyncio.sleep(0.2)
    live.save(logging={"level": "error"})
    await live.until(lambda: logging.getLogger("openclaw").level == logging.ERROR)


async def test_what_a_plugin_refuses_is_not_tried_again_at_every_look(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    await live.until(lambda: live.live._watch is not None and live.live._watch.ready.is_set())
    tries = 0
    stage = live.app.host._stager.stage

    async def counted(*arguments: Any) -> Any:
        nonlocal tries
        tries += 1
        return await stage(*arguments)

    monkeypatch.setattr(live.app.host._stager, "stage", counted)
    monkeypatch.setattr(live.live._watch, "_look", 0.01)
    wrong = {"entries": {"web-tools": {"config": {"maxBytes": -1}}}}
    live.save(plugins=wrong)
    await live.until(lambda: bool(live.live.problems()))
    await asyncio.sleep(0.5)
    assert tries == 1
    # An edit of it is tried at once.
    live.save(plugins=wrong, logging={"level": "debug"})
    await live.until(lambda: tries == 2)
    live.save()
    await live.until(lambda: not live.live.problems())


async def test_what_a_plugin_refused_is_tried_again_after_a_while(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    await live.until(lambda: live.live._watch is not None and live.live._watch.ready.is_set())
    monkeypatch.setattr("openclaw_kernel.live.config._FIRST_PATIENCE", 0.05)
    monkeypatch.setattr(live.live._watch, "_look", 0.01)
    fill_up = live.app.generations.take
    full = True

    async def take(*arguments: Any) -> Any:
        if full:
            raise Unavailable("the disk is full")
        return await fill_up(*arguments)

    monkeypatch.setattr(live.app.generations, "take", take)
    live.save(logging={"level": "debug"})
    await live.until(lambda: bool(live.live.problems()))
    full = False
    await live.until(lambda: not live.live.problems())
    assert logging.getLogger("openclaw").level == logging.DEBUG


async def test_in_mode_off_a_fault_that_was_told_is_mended_by_whoever_writes(live: Live) -> None:
    await live.take(gateway={"reload": {"mode": "off"}})
    await live.until(lambda: live.live._watching is not None and live.live._watching.done())
    live.save(gateway={"reload": {"mode": "off"}}, logging={"level": "loud"})
    with pytest.raises(InvalidRequest):
        await live.live.reload(CHANGE)
    assert live.live.problems()
    live.save(gateway={"reload": {"mode": "off"}}, logging={"level": "debug"})
    await live.live.engine.take(load(live.home / "openclaw.yaml"), CHANGE)
    assert live.live.problems() == []


async def test_a_secret_s_file_that_changed_is_a_change(tmp_path: Path) -> None:
    (tmp_path / "gateway.token").write_text(TOKEN)
    async with serving(tmp_path, gateway={"auth": {"token": "${file:gateway.token}"}}) as live:
        (tmp_path / "gateway.token").write_text("another-token-0123456789")
        await live.until(lambda: live.live.engine.accepted.config.gateway.auth.token.unwrap() != TOKEN)  # type: ignore[union-attr]
        async with live.client("another-token-0123456789") as ws:
            assert not ws.closed


async def test_settings_of_what_cannot_be_replaced_are_read_when_they_are_needed(live: Live) -> None:
    applied = await live.take(plugins={"entries": {"conversation": {"config": {"ledgerDays": 7}}, "agents": {"config": {"fileChars": 5}}}})
    assert [(unit.unit, unit.outcome.value) for unit in applied.plan.units] == [("agents", "none"), ("conversation", "hot")]
    contexts = {name: hosted.context for name, hosted in live.app.host.current().hosted.items()}
    assert contexts["conversation"].snapshot.section.ledger_days == 7  # type: ignore[union-attr]
    assert contexts["agents"].snapshot.section.file_chars == 5  # type: ignore[union-attr]


async def test_an_included_file_that_is_wrong_is_watched_until_it_is_mended(live: Live) -> None:
    part = live.home / "part.yaml"
    part.write_text("{level: loud}")
    live.save(logging={"$include": "part.yaml"})
    await live.until(lambda: bool(live.live.problems()))
    part.write_text("{level: warning}")
    await live.until(lambda: live.live.engine.running.logging.level == "warning")
    assert live.live.problems() == []


async def test_an_edit_made_while_it_started_is_taken(tmp_path: Path) -> None:
    base = {"gateway": {"port": 0, "auth": {"token": TOKEN}, "reload": {"debounceMs": 20}}}
    (tmp_path / "openclaw.yaml").write_text(json.dumps(base))
    app = GatewayApp(loaded=load(tmp_path / "openclaw.yaml"), home=tmp_path)
    (tmp_path / "openclaw.yaml").write_text(json.dumps({**base, "session": {"mainKey": "other"}}))
    await app.start()
    try:
        async with asyncio.timeout(DEADLINE):
            while app.live is None or app.live.engine.accepted.config.session.main_key != "other":  # noqa: ASYNC110 - what is waited for has no event
                await asyncio.sleep(0.01)
    finally:
        await app.stop()
