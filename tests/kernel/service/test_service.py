"""The service under a systemd that really runs: it starts, is watched, comes back, and is let go."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from openclaw_config.home import config_path, prepare_home
from tests.support.gateway import StartGateway
from tests.support.systemd import Outcome, UserSystemd, user_systemd

pytestmark = [pytest.mark.requires("systemd"), pytest.mark.timeout(120)]

QUICK = "[Service]\nRestartSec=100ms\nWatchdogSec=3\n"
SECONDS = 60.0


@pytest.fixture
async def systemd(tmp_path: Path) -> AsyncIterator[UserSystemd]:
    drop_in = tmp_path / ".config" / "systemd" / "user" / "openclaw-kernel.service.d" / "quick.conf"
    drop_in.parent.mkdir(parents=True)
    drop_in.write_text(QUICK)
    async with user_systemd(tmp_path) as manager:
        yield manager


def prepared(systemd: UserSystemd) -> Path:
    home = systemd.home / "state"
    prepare_home(home)
    config_path(home).write_text(
        'gateway: {port: 0, auth: {mode: token, token: "${file:gateway.token}"}}\nmodels: {providers: {echo: {}}}\n'
    )
    return home


async def service(systemd: UserSystemd, home: Path, *words: str) -> Outcome:
    return await systemd.run(sys.executable, "-m", "openclaw_kernel", "--home", str(home), "--json", "service", *words)


async def state(systemd: UserSystemd, home: Path) -> Any:
    return json.loads((await service(systemd, home, "status")).out)


async def active_as_another(systemd: UserSystemd, home: Path, pid: int) -> Any:
    async with asyncio.timeout(SECONDS):
        while True:
            found = await state(systemd, home)
            if found["active"] == "active" and found["pid"] != pid:
                return found


async def test_it_is_ready_when_the_install_ends_and_comes_back_when_it_is_killed(systemd: UserSystemd) -> None:
    home = prepared(systemd)
    installed = await service(systemd, home, "install")
    assert installed.status == 0, installed.err
    first = await state(systemd, home)
    assert (first["active"], first["current"], first["atBoot"]) == ("active", True, True)
    assert json.loads((home / "gateway.lock").read_text())["pid"] == first["pid"]

    os.kill(first["pid"], signal.SIGKILL)
    second = await active_as_another(systemd, home, first["pid"])
    # A loop that no longer turns is as dead as a process that is gone.
    os.kill(second["pid"], signal.SIGSTOP)
    third = await active_as_another(systemd, home, second["pid"])
    assert third["restarts"] == 2

    removed = await service(systemd, home, "uninstall")
    assert (removed.status, json.loads(removed.out)["removed"]) == (0, True)
    assert (await state(systemd, home))["active"] == "inactive"
    assert config_path(home).exists()


async def test_what_is_refused_is_not_started_again(systemd: UserSystemd) -> None:
    home = prepared(systemd)
    config_path(home).write_text("gatway: {}\n")
    refused = await service(systemd, home, "install")
    assert refused.status == 1
    assert "see openclaw-kernel service logs" in refused.err
    found = await state(systemd, home)
    # What is to be started again is `activating`.
    assert (found["active"], found["restarts"]) == ("failed", 0)
    assert "exit-code, exit code 78" in found["detail"]


async def test_a_unit_of_other_content_is_kept_beside_the_new_one(systemd: UserSystemd) -> None:
    home = prepared(systemd)
    file = systemd.home / ".config" / "systemd" / "user" / "openclaw-kernel.service"
    file.write_text("[Service]\nExecStart=/bin/true\n")
    assert (await state(systemd, home))["current"] is False
    installed = await service(systemd, home, "install", "--no-start")
    assert installed.status == 0, installed.err
    assert Path(json.loads(installed.out)["kept"]).read_text() == "[Service]\nExecStart=/bin/true\n"
    assert (await state(systemd, home))["current"] is True


async def test_a_preview_changes_nothing(systemd: UserSystemd) -> None:
    home = prepared(systemd)
    shown = json.loads((await service(systemd, home, "install", "--preview")).out)
    assert "Type=notify" in shown["text"]
    assert shown["commands"][-1] == "systemctl --user restart openclaw-kernel.service"
    assert not Path(shown["file"]).exists()
    assert (await state(systemd, home))["installed"] is False


async def test_beside_a_gateway_that_runs_by_itself_none_is_installed_and_one_that_starts_ends_for_good(
    systemd: UserSystemd, start_gateway: StartGateway
) -> None:
    home = (await start_gateway()).home
    refused = await service(systemd, home, "install")
    assert refused.status == 1
    assert f"a gateway already runs on {home}" in refused.err
    assert (await state(systemd, home))["installed"] is False

    assert (await service(systemd, home, "install", "--no-start")).status == 0
    assert (await systemd.run("systemctl", "--user", "start", "openclaw-kernel.service")).status == 0
    async with asyncio.timeout(SECONDS):
        while (found := await state(systemd, home))["active"] not in {"inactive", "failed"}:
            # What is to be started again is `activating`.
            assert found["restarts"] == 0
    assert (found["active"], found["restarts"]) == ("inactive", 0)
    assert "a gateway already runs on" in found["detail"]


async def test_a_unit_is_current_from_whatever_shell_it_is_looked_at(systemd: UserSystemd) -> None:
    home = prepared(systemd)
    assert (await service(systemd, home, "install", "--no-start")).status == 0
    other = f"PATH=/opt/elsewhere:{os.environ['PATH']}"
    looked = await systemd.run("env", other, sys.executable, "-m", "openclaw_kernel", "--home", str(home), "--json", "service", "status")
    assert json.loads(looked.out)["current"] is True


async def test_without_a_state_folder_nothing_is_installed(systemd: UserSystemd) -> None:
    refused = await service(systemd, systemd.home / "none", "install")
    assert refused.status == 1
    assert "there is no state folder" in refused.err
    assert (await state(systemd, systemd.home / "none"))["installed"] is False
