"""Socket activation and restarts under a systemd that really runs: it starts the gateway for the first caller and follows its restarts."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import aiohttp
import pytest

from openclaw_config.home import config_path, prepare_home
from tests.support.gateway import TOKEN, free_port
from tests.support.systemd import UserSystemd, user_systemd
from tests.support.ws_client import connect

pytestmark = [pytest.mark.requires("systemd"), pytest.mark.timeout(180)]

SOCKET = "[Socket]\nListenStream=127.0.0.1:{port}\n"
SERVICE = """\
[Service]
Type=notify
NotifyAccess=main
ExecStart={python} -m openclaw_kernel run --home {home}
WatchdogSec=20
Restart=always
"""


def units(systemd: UserSystemd, home: Path, port: int) -> None:
    folder = systemd.home / ".config" / "systemd" / "user"
    folder.mkdir(parents=True)
    (folder / "activated.socket").write_text(SOCKET.format(port=port))
    (folder / "activated.service").write_text(SERVICE.format(python=sys.executable, home=home))


async def shown(systemd: UserSystemd) -> dict[str, str]:
    properties = "MainPID,ActiveState,SubState,NRestarts,StatusText"
    said = await systemd.run("systemctl", "--user", "show", "activated.service", f"--property={properties}")
    return dict(line.split("=", 1) for line in said.out.splitlines())


async def once(systemd: UserSystemd, state: str) -> dict[str, str]:
    async with asyncio.timeout(60):
        while True:
            found = await shown(systemd)
            if (found["ActiveState"], found["SubState"]) == ("active", state):
                return found
            await asyncio.sleep(0.05)


async def healthy(port: int) -> bool:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/healthz") as response:
        return response.status == 200


async def test_the_first_caller_starts_it_and_its_restarts_are_no_restarts_of_the_service(tmp_path: Path) -> None:
    port = free_port()
    home = tmp_path / "state"
    prepare_home(home)
    auth = f"{{mode: token, token: {TOKEN}}}"
    config_path(home).write_text(f"gateway: {{port: {port}, auth: {auth}}}\nmodels: {{providers: {{echo: {{}}}}}}\n")
    async with user_systemd(tmp_path) as systemd:
        units(systemd, home, port)
        assert (await systemd.run("systemctl", "--user", "start", "activated.socket")).status == 0
        assert (await shown(systemd))["ActiveState"] == "inactive"
        assert await healthy(port)
        first = await once(systemd, "running")
        assert first["StatusText"] == f"serving on http://127.0.0.1:{port}"

        for _ in range(2):
            async with connect(f"ws://127.0.0.1:{port}/", token=TOKEN) as client:
                await client.request("gateway.restart.request", {"reason": "to see"})
                assert (await client.closed()).code == 1012
            async with connect(f"ws://127.0.0.1:{port}/", token=TOKEN):
                pass
        assert await once(systemd, "running") == first | {"NRestarts": "0"}

        # Stopped, the socket is systemd's again, and the next caller starts it anew.
        assert (await systemd.run("systemctl", "--user", "stop", "activated.service")).status == 0
        assert (await shown(systemd))["MainPID"] == "0"
        assert await healthy(port)
        assert (await once(systemd, "running"))["MainPID"] not in {"0", first["MainPID"]}
