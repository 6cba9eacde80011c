"""Real processes: a gateway is never down because of its config where somebody starts it anew, and always says so."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from openclaw_kernel.generations import GenerationFiles, LastGood
from tests.kernel.cli.command import on_terminal, run_command
from tests.kernel.host.distributions import Distributions
from tests.support.gateway import TOKEN, RunningGateway, StartGateway, base_config, free_port, merge
from tests.support.ws_client import WsClient

pytestmark = pytest.mark.timeout(240)
"""A test starts a gateway up to six times."""

SUPERVISED = {"INVOCATION_ID": "0123456789abcdef"}
DIES_AT_IMPORT = "import os\n\nos._exit(9)\n"
CONFIG = 78
TEMPORARY = 75

Spoil = Callable[[dict[str, Any]], str]


def spoiled(change: Mapping[str, Any]) -> Spoil:
    return lambda config: json.dumps(merge(config, change))


BROKEN: dict[str, tuple[Spoil, str]] = {
    "an unknown key": (spoiled({"gateway": {"prot": 1}}), "gateway.prot: unknown key"),
    "a value of another type": (spoiled({"logging": {"level": ["loud"]}}), "logging.level"),
    "a required secret gone": (spoiled({"gateway": {"auth": {"token": None}}}), "gateway.auth.token"),
    "a reference that leads nowhere": (spoiled({"gateway": {"auth": {"token": "${env:NOT_THERE}"}}}), "NOT_THERE"),
    "an open door": (spoiled({"gateway": {"bind": "lan", "auth": {"mode": "none", "token": None}}}), "gateway."),
    "a certificate that is not there": (
        spoiled({"gateway": {"tls": {"enabled": True, "certPath": "no.pem", "keyPath": "no.pem"}}}),
        "no.pem",
    ),
    "cut off": (lambda config: json.dumps(config, indent=2)[:60], "not valid YAML"),
    "empty": (lambda _config: "", "gateway.auth.token"),
    "of a later version": (spoiled({"mesh": {"peers": []}, "gateway": {"quic": {"enabled": True}}}), "mesh: unknown key"),
}


async def readyz(gateway: RunningGateway) -> dict[str, Any]:
    async with aiohttp.ClientSession() as http, http.get(f"{gateway.url}/readyz", headers={"Authorization": f"Bearer {TOKEN}"}) as answer:
        assert answer.status == 200
        body: dict[str, Any] = await answer.json()
        return body


async def told(client: WsClient) -> str:
    """What the main session is told, which is soon after the gateway is ready."""
    async with asyncio.timeout(20):
        while True:
            answer = await client.request("chat.history", {"sessionKey": "main"})
            if answer["messages"]:
                return json.dumps(answer["messages"], ensure_ascii=False)


def audit_actions(gateway: RunningGateway) -> list[str]:
    with closing(sqlite3.connect(f"file:{gateway.home}/state.sqlite3?mode=ro", uri=True)) as database:
        return [action for (action,) in database.execute("SELECT action FROM kernel_audit ORDER BY sequence")]


def works(home: Path, config: Mapping[str, Any]) -> None:
    """Leave a state folder as a gateway does that was ready with this config."""
    home.mkdir(mode=0o700)
    path = home / "openclaw.yaml"
    path.write_text(json.dumps(config))
    files = GenerationFiles(home)
    files.mark_good(LastGood(number=1, files=files.keep({path: path.read_bytes()})))


@pytest.mark.parametrize("case", BROKEN)
async def test_whatever_becomes_of_the_file_a_supervised_gateway_is_up_and_says_so(
    case: str, start_gateway: StartGateway, tmp_path: Path
) -> None:
    spoil, words = BROKEN[case]
    works(tmp_path / "home", base_config())
    gateway = await start_gateway(home=tmp_path / "home", env=SUPERVISED, wait=False, text=spoil(base_config()))
    ready = await gateway.wait_line('"event": "ready"')
    assert words in "\n".join(ready.record["problems"])
    gateway.ready = ready.record
    async with gateway.connect() as client:
        status = await client.request("status")
        health = await client.request("health", {"probe": True})
        assert words in await told(client)
    assert status["config"] | {"hash": ""} == {"generation": 1, "hash": "", "serving": "last-good", "safeMode": False}
    assert any(words in reason for reason in status["reasons"])
    assert any(words in error["error"] for error in health["plugins"]["errors"])
    assert any(words in reason for reason in (await readyz(gateway))["reasons"])
    assert gateway.config_path.read_text(encoding="utf-8") == spoil(base_config())
    await gateway.stop()
    assert "config.rejected" in audit_actions(gateway)
    assert sum("serving generation 1, which last worked" in line.text for line in gateway.lines) == 1


@pytest.mark.not_recorded("a start that is refused sends nothing")
async def test_at_a_terminal_and_where_strict_a_broken_file_is_refused_with_all_that_is_wrong(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    await gateway.stop()
    text = '{"gateway": {"prot": 1},\n"logging": {"level": "loud"}}'
    gateway.config_path.write_text(text)
    plain = await run_command("run", home=gateway.home)
    strict = await run_command("run", "--strict", home=gateway.home, env=SUPERVISED)
    for outcome in (plain, strict):
        assert outcome.status == CONFIG
        assert ": gateway.prot: unknown key" in outcome.err
        assert ": logging.level" in outcome.err
        assert "config rollback last-good" in outcome.err
    async with on_terminal("run", home=gateway.home) as terminal:
        await terminal.expect("gateway.prot: unknown key")
        assert await terminal.process.wait() == CONFIG
    assert gateway.config_path.read_text() == text


@pytest.mark.not_recorded("a start that is refused sends nothing")
async def test_where_nothing_ever_worked_a_supervisor_is_told_not_to_try_again(tmp_path: Path) -> None:
    (tmp_path / "openclaw.yaml").write_text("gateway: {prot: 1}\n")
    outcome = await run_command("run", home=tmp_path, env=SUPERVISED)
    assert outcome.status == CONFIG
    assert "no config has worked here before" in outcome.err


@pytest.mark.not_recorded("a start that is refused sends nothing")
async def test_the_decision_needs_no_database(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(arguments=["--last-good"])
    await gateway.stop()
    database = gateway.home / "state.sqlite3"
    database.write_bytes(b"this is no database" * 100)
    damaged = await run_command("run", home=gateway.home, env=SUPERVISED)
    assert damaged.status == CONFIG, "what does not mend itself is no reason to try again and again"
    assert "move the file away or restore it" in damaged.err
    database.unlink()
    gateway.config_path.write_text("gateway: {prot: 1}\n")
    gateway._env |= SUPERVISED
    await gateway.spawn()
    ready = await gateway.wait_line('"event": "ready".*is not served')
    assert "generation 1" in ready.text
    gateway.expect_log("audit")


@pytest.fixture
def site(tmp_path: Path) -> Distributions:
    folder = tmp_path / "site"
    folder.mkdir()
    return Distributions(folder)


async def test_a_plugin_that_kills_the_start_is_left_out_after_two_deaths_and_the_gateway_answers(
    start_gateway: StartGateway, site: Distributions
) -> None:
    site.add("deadly", DIES_AT_IMPORT)
    gateway = await start_gateway(env={**SUPERVISED, "PYTHONPATH": str(site.folder)}, wait=False)
    statuses = [await gateway.wait_ended()]
    await gateway.spawn()
    statuses.append(await gateway.wait_ended())
    assert statuses == [9, 9]
    await gateway.start()
    assert any("safe mode: 2 starts in a row died" in problem for problem in gateway.ready["problems"])
    async with gateway.connect() as client:
        status = await client.request("status")
        assert status["config"]["safeMode"] is True
        states = {plugin["id"]: plugin["state"] for plugin in status["plugins"]}
        assert (states["deadly"], states["control"], states["webchat"]) == ("unavailable", "started", "started")
        assert "safe mode" in await told(client)
    shown = await run_command("status", home=gateway.home)
    assert "in safe mode, without third-party plugins" in shown.out
    assert any("safe mode" in reason for reason in (await readyz(gateway))["reasons"])


async def test_after_the_culprit_is_gone_the_next_start_is_as_ever(start_gateway: StartGateway, site: Distributions) -> None:
    package = site.add("deadly", DIES_AT_IMPORT)
    gateway = await start_gateway(env={"PYTHONPATH": str(site.folder)}, wait=False)
    await gateway.wait_ended()
    await gateway.spawn()
    await gateway.wait_ended()
    (site.folder / package / "plugin.py").write_text("raise ValueError('harmless')\n")
    await gateway.start()
    assert any("safe mode" in problem for problem in gateway.ready["problems"])
    await gateway.stop()
    gateway.expect_log("harmless")
    await gateway.start()
    assert not any("safe mode" in problem for problem in gateway.ready["problems"])


async def test_no_safe_mode_starts_with_everything(start_gateway: StartGateway, site: Distributions) -> None:
    site.add("deadly", DIES_AT_IMPORT)
    gateway = await start_gateway(env={"PYTHONPATH": str(site.folder)}, arguments=["--no-safe-mode"], wait=False)
    assert await gateway.wait_ended() == 9
    for _ in range(2):
        await gateway.spawn()
        assert await gateway.wait_ended() == 9


async def test_a_kill_after_ready_never_leads_to_safe_mode(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env=SUPERVISED)
    for _ in range(5):
        await gateway.kill()
        await gateway.start()
        assert gateway.ready["problems"] == []
    async with gateway.connect() as client:
        assert (await client.request("status"))["config"]["safeMode"] is False


async def test_starts_that_are_refused_or_told_to_stop_have_not_died(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(merge(base_config(), {"gateway": {"port": free_port()}}), env=SUPERVISED)
    second = await start_gateway(gateway.config, env=SUPERVISED, wait=False)
    for _ in range(3):
        assert await second.wait_ended() == TEMPORARY
        await second.spawn()
    second.process.send_signal(signal.SIGTERM)
    await second.wait_ended()
    await gateway.stop()
    second.expect_log("in use")
    await second.start()
    assert second.ready["problems"] == []


async def test_an_invalid_section_of_a_plugin_stops_that_plugin_alone(start_gateway: StartGateway) -> None:
    gateway = await start_gateway({"plugins": {"entries": {"web-tools": {"config": {"maxByte": 1}}}}}, env=SUPERVISED)
    async with gateway.connect() as client:
        status = await client.request("status")
    states = {plugin["id"]: plugin["state"] for plugin in status["plugins"]}
    assert states.pop("web-tools") == "failed"
    assert "failed" not in states.values()
    assert status["config"]["serving"] == "newest"


async def test_a_restart_in_place_serves_what_last_worked_where_the_file_broke_meanwhile(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    async with gateway.connect() as client:
        await client.request("gateway.restart.request", {"idempotencyKey": "r1", "restartDelayMs": 300})
    gateway.config_path.write_text("gateway: {prot: 1}\n")
    ready = await gateway.wait_line('"event": "ready".*is not served')
    assert ready.record["pid"] == gateway.process.pid
