"""What a service manager hears, on a socket of its kind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from openclaw_kernel.notify import Notifier
from tests.plugins.conversation.harness import until
from tests.support.gateway import StartGateway

SECONDS = 20.0
ONLY_CHILD = 'import os; print([name for name in os.environ if name.startswith(("NOTIFY_", "WATCHDOG_"))])'


class Manager:
    """The receiving end."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        self.socket.settimeout(SECONDS)

    def hear(self) -> dict[str, str]:
        """The next message."""
        return dict(line.split("=", 1) for line in self.socket.recv(4096).decode().split("\n"))

    def heard(self) -> list[str]:
        """What waits now, by the first name of each message."""
        found = []
        self.socket.settimeout(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                found.append(self.socket.recv(4096).decode().partition("=")[0])
        self.socket.settimeout(SECONDS)
        return found


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    address = str(tmp_path / "notify") if request.param == "path" else f"@openclaw-test-{os.getpid()}-{time.monotonic_ns()}"
    made = Manager(address)
    yield made
    made.socket.close()


def test_the_way_of_a_service(manager: Manager) -> None:
    environment = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "4000000", "WATCHDOG_PID": str(os.getpid()), "KEPT": "1"}
    given = dict(environment)
    notifier = Notifier(environment)
    assert environment == {"KEPT": "1"}
    assert environment | notifier.to_environment() == given
    assert notifier.watchdog_seconds == 4.0
    notifier.ready("serving on\nhttp://127.0.0.1:1")
    assert manager.hear() == {"READY": "1", "STATUS": "serving on http://127.0.0.1:1"}
    before = time.monotonic_ns() // 1000
    notifier.restarting("restarts: new config")
    said = manager.hear()
    assert before <= int(said.pop("MONOTONIC_USEC")) <= time.monotonic_ns() // 1000
    assert said == {"RELOADING": "1", "MAINPID": str(os.getpid()), "STATUS": "restarts: new config"}
    notifier.stopping("x" * 5000)
    said = manager.hear()
    assert (said["STOPPING"], len(said["STATUS"])) == ("1", 500)


@pytest.mark.parametrize("address", ["", "relative", "vsock:2:1"])
def test_without_a_manager_nothing_is_told(address: str) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": address} if address else {})
    notifier.ready("serving")
    notifier.stopping("stops")


def test_a_manager_that_is_gone_is_told_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "none")})
    notifier.ready("serving")
    notifier.stopping("stops")
    (record,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert record.getMessage() == "NOTIFY_SOCKET: the service manager cannot be told READY=1 (No such file or directory)"


def test_a_manager_that_does_not_read_holds_up_nobody(manager: Manager) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": manager.address})
    begun = time.monotonic()
    for _ in range(2000):
        notifier.ready("serving")
    assert time.monotonic() - begun < SECONDS
    assert 0 < len(manager.heard()) < 2000


@pytest.mark.parametrize(
    "variables",
    [{"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "soon"}, {"WATCHDOG_USEC": "²"}, {"WATCHDOG_USEC": "9", "WATCHDOG_PID": "1"}, {}],
)
async def test_a_watchdog_that_is_none_or_of_another_process_gets_no_sign_of_life(manager: Manager, variables: dict[str, str]) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": manager.address, **variables})
    assert notifier.watchdog_seconds is None
    await notifier.show_life()
    assert manager.heard() == []


async def test_a_loop_that_is_blocked_gives_no_sign_of_life(manager: Manager) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "20000"})
    signs = asyncio.create_task(notifier.show_life())
    await until(manager.heard, "a sign of life")
    manager.heard()
    time.sleep(0.2)  # noqa: ASYNC251 - blocking the loop is the subject
    assert manager.heard() == []
    await until(manager.heard, "another one")
    signs.cancel()
    await asyncio.wait({signs})


async def test_a_gateway_says_when_it_is_ready_when_it_restarts_and_when_it_stops(start_gateway: StartGateway, manager: Manager) -> None:
    environment = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "600000"}
    gateway = await start_gateway(env=environment)

    async def hear(*names: str) -> dict[str, str]:
        while True:
            said = await asyncio.to_thread(manager.hear)
            if set(said) & set(names):
                return said

    async def next_state() -> dict[str, str]:
        return await hear("READY", "RELOADING", "STOPPING")

    assert await next_state() == {"READY": "1", "STATUS": f"serving on {gateway.url}"}
    assert await hear("WATCHDOG") == {"WATCHDOG": "1"}
    gateway.process.send_signal(signal.SIGUSR1)
    restarting = await next_state()
    assert restarting["RELOADING"] == "1"
    assert restarting["STATUS"] == "restarts: SIGUSR1"
    assert restarting["MAINPID"] == str(gateway.process.pid)
    assert (await next_state())["READY"] == "1"
    assert await hear("WATCHDOG") == {"WATCHDOG": "1"}
    gateway.process.send_signal(signal.SIGTERM)
    assert await next_state() == {"STOPPING": "1", "STATUS": "stops when what is under way has ended"}
    assert await gateway.wait_ended() == 0


def test_programs_that_are_started_later_know_nothing_of_it(monkeypatch: pytest.MonkeyPatch, manager: Manager) -> None:
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.setenv(name, manager.address)
    Notifier(os.environ)
    assert subprocess.run([sys.executable, "-c", ONLY_CHILD], check=True, capture_output=True, text=True).stdout == "[]\n"
