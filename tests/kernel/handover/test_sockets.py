"""Listening sockets from the service manager and from the process before: what is served, what is refused, and where it counts."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from openclaw_kernel.handover import belongings
from openclaw_kernel.handover.belongings import VARIABLE, Belongings, receive
from openclaw_kernel.handover.sockets import BadSocket, HeldSocket, Opener, from_manager, listening_socket
from tests.support.frames import recorded
from tests.support.gateway import INHERITED, base_config, free_port, merge
from tests.support.ws_client import connect

SECONDS = 30
# A service manager's part of the protocol: the sockets from descriptor 3 on, their number, and for whom they are.
MANAGER = """
import os, socket, sys
kinds, names, command = sys.argv[1].split(","), sys.argv[2], sys.argv[3:]
made = []
for kind in kinds:
    if kind == "udp":
        made.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        made[-1].bind(("127.0.0.1", 0))
    elif kind == "unix":
        made.append(socket.socket(socket.AF_UNIX))
        made[-1].bind(os.environ["UNIX_PATH"])
        made[-1].listen()
    elif kind == "connected":
        made.append(socket.socketpair()[0])
    elif kind == "bound":
        made.append(socket.socket())
        made[-1].bind(("127.0.0.1", 0))
    elif kind == "file":
        made.append(open("/dev/null"))
    else:
        host, _, port = kind.rpartition(":")
        made.append(socket.create_server((host, int(port)), family=socket.AF_INET6 if ":" in host else socket.AF_INET))
high = [os.dup(one.fileno()) for one in made]
high = [os.dup2(one, 100 + number) for number, one in enumerate(high)]
for number, one in enumerate(high):
    os.dup2(one, 3 + number, inheritable=True)
os.execve(command[0], command, {**os.environ, "LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(made)), "LISTEN_FDNAMES": names})
"""


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


@asynccontextmanager
async def activated(home: Path, kinds: str, config: dict[str, Any] | None = None) -> AsyncIterator[tuple[asyncio.subprocess.Process, Any]]:
    """A gateway that got these sockets; what it said first, None where it ended."""
    home.mkdir(mode=0o700, exist_ok=True)
    path = home / "openclaw.yaml"
    path.write_text(json.dumps(merge(base_config(), config or {})))
    path.chmod(0o600)
    command = [sys.executable, "-c", MANAGER, kinds, "web:admin", *recorded(sys.executable), "run", "--home", str(home), "--json"]
    environment = {name: os.environ[name] for name in INHERITED if name in os.environ} | {"UNIX_PATH": str(home / "socket")}
    process = await asyncio.create_subprocess_exec(
        *command, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(SECONDS):
            line = await process.stdout.readline()
        yield process, json.loads(line) if line else None
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        async with asyncio.timeout(SECONDS):
            await process.communicate()


async def answers(url: str) -> bool:
    async with aiohttp.ClientSession() as session, session.get(f"{url}/healthz") as response:
        return response.status == 200


@pytest.mark.requires("ipv6")
async def test_the_managers_sockets_are_served_all_of_them_and_the_difference_is_named(tmp_path: Path) -> None:
    one, two, configured = free_port(), free_port(), free_port()
    config = {"gateway": {"port": configured}}
    async with activated(tmp_path / "home", f"127.0.0.1:{one},::1:{two}", config) as (_, ready):
        assert ready["url"] == f"http://127.0.0.1:{one}"
        assert await answers(f"http://127.0.0.1:{one}")
        assert await answers(f"http://[::1]:{two}")
        said = [problem for problem in ready["problems"] if "gateway.port" in problem]
        assert [f"{configured} with gateway.bind loopback is not what is served" in problem for problem in said] == [True, True]
        assert [f"opened 127.0.0.1:{one}" in said[0], f"opened [::1]:{two}" in said[1]] == [True, True]
        with pytest.raises(aiohttp.ClientConnectorError):
            await answers(f"http://127.0.0.1:{configured}")


async def test_what_agrees_with_the_config_is_no_problem_and_stays_through_restarts(tmp_path: Path) -> None:
    port = free_port()
    async with activated(tmp_path / "home", f"127.0.0.1:{port}", {"gateway": {"port": port}}) as (process, ready):
        assert ready["problems"] == []
        url = f"ws://127.0.0.1:{port}/"
        for _ in range(2):
            async with connect(url, token="test-token-0123456789abcdef") as client:
                await client.request("gateway.restart.request", {})
                assert (await client.closed()).code == 1012
        assert await answers(f"http://127.0.0.1:{port}")
        assert process.returncode is None


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ("udp", "found a socket that carries no streams"),
        ("unix", "found a UNIX socket, and the gateway serves TCP"),
        ("connected", "found a UNIX socket"),
        ("bound", "found a socket that does not listen"),
        ("file", "found no socket"),
    ],
)
async def test_what_is_no_listening_tcp_socket_is_refused_with_the_cure(tmp_path: Path, kind: str, found: str) -> None:
    async with activated(tmp_path / "home", f"127.0.0.1:{free_port()},{kind}") as (process, ready):
        assert ready is None
        assert await process.wait() == 78
        assert process.stderr is not None
        said = (await process.stderr.read()).decode()
    assert f"LISTEN_FDS: descriptor 4: {found}" in said
    assert "ListenStream=" in said


async def test_a_socket_beyond_loopback_opens_no_door_that_the_config_keeps_shut(tmp_path: Path) -> None:
    open_to_all = {"gateway": {"auth": {"mode": "none", "token": None}}}
    async with activated(tmp_path / "home", f"0.0.0.0:{free_port()}", open_to_all) as (process, ready):
        assert ready is None
        assert await process.wait() == 78
        assert process.stderr is not None
        said = (await process.stderr.read()).decode()
    assert "gateway.auth.mode: none, while the socket that was passed listens at 0.0.0.0:" in said


@pytest.mark.requires("systemd-socket-activate")
async def test_systemds_own_program_hands_its_socket_over(tmp_path: Path) -> None:
    home, port = tmp_path / "home", free_port()
    home.mkdir(mode=0o700)
    (home / "openclaw.yaml").write_text(json.dumps(merge(base_config(), {"gateway": {"port": port}})))
    (home / "openclaw.yaml").chmod(0o600)
    gateway = [*recorded(sys.executable), "run", "--home", str(home), "--json"]
    command = ["systemd-socket-activate", f"--listen=127.0.0.1:{port}", *gateway]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
    try:
        assert process.stderr is not None
        async with asyncio.timeout(SECONDS):
            while b"Listening on" not in await process.stderr.readline():
                pass
            # The first connection starts the gateway, and is answered by it.
            assert await answers(f"http://127.0.0.1:{port}")
            assert process.stdout is not None
            ready = json.loads(await process.stdout.readline())
        assert ready["problems"] == []
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        async with asyncio.timeout(SECONDS):
            await process.communicate()


def test_sockets_that_are_for_another_process_are_left_alone() -> None:
    environment = {"LISTEN_PID": str(os.getppid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "web", "KEPT": "1"}
    assert from_manager(environment) == []
    assert environment == {"KEPT": "1"}
    assert from_manager({}) == []


@pytest.mark.parametrize("count", ["-1", "many", "1.5", "²", "99999999999"])
def test_a_count_that_is_none_is_refused(count: str) -> None:
    with pytest.raises(BadSocket, match=f"LISTEN_FDS: found '{count}'"):
        from_manager({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": count})


def test_what_one_process_leaves_the_next_receives(listener: socket.socket, tmp_path: Path) -> None:
    lock = os.open(tmp_path, os.O_RDONLY)
    held = HeldSocket(socket=listener.dup(), opener=Opener.CONFIG, bind="loopback", port=0)
    left = Belongings(lock=lock, sockets=[held], paused_at=12.5)
    environment = left.to_environment()
    assert [os.get_inheritable(lock), held.socket.get_inheritable()] == [True, True]
    received = receive(environment)
    (again,) = received.sockets
    assert environment == {}
    assert (received.lock, received.paused_at) == (lock, 12.5)
    assert (again.socket.fileno(), again.opener, again.bind, again.port) == (held.socket.fileno(), Opener.CONFIG, "loopback", 0)
    assert [os.get_inheritable(lock), again.socket.get_inheritable()] == [False, False]
    held.socket.detach()
    received.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(lock)


def test_what_was_to_be_passed_on_and_was_not_is_kept_from_children(listener: socket.socket) -> None:
    left = Belongings(lock=None, sockets=[HeldSocket(socket=listener, opener=Opener.CONFIG)])
    left.to_environment()
    left.keep_from_children()
    assert not listener.get_inheritable()


@pytest.mark.parametrize(
    "said",
    [
        "{",
        "[]",
        "{}",
        '{"pid": 1, "lock": null, "pausedAt": 0, "sockets": []}',
        '{"pid": PID, "lock": null, "pausedAt": 0, "sockets": [{"fd": 1}]}',
        '{"pid": PID, "lock": null, "pausedAt": 0, "sockets": [{"fd": 9999, "opener": "config", "name": "", "bind": "", "port": 0}]}',
        '{"pid": PID, "lock": null, "pausedAt": 0, "sockets": 3}',
    ],
)
def test_what_cannot_be_used_of_it_is_done_without(said: str) -> None:
    environment = {VARIABLE: said.replace("PID", str(os.getpid()))}
    received = receive(environment)
    assert (received.lock, list(received.sockets), received.paused_at) == (None, [], None)
    assert environment == {}


def test_a_lock_that_is_no_descriptor_is_taken_anew() -> None:
    said = {"pid": os.getpid(), "lock": 9999, "pausedAt": 1.0, "sockets": []}
    assert receive({VARIABLE: json.dumps(said)}).lock is None


@pytest.mark.requires("ipv6")
@pytest.mark.parametrize(("host", "reached"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::1", "[::1]"), ("::", "[::1]")])
def test_an_address_is_shown_as_a_program_of_this_machine_reaches_it(host: str, reached: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as made:
        held = HeldSocket(socket=made, opener=Opener.MANAGER)
        assert held.reached_at == f"{reached}:{made.getsockname()[1]}"


@pytest.mark.requires("ipv6")
def test_a_socket_for_both_families_is_reached_by_the_older() -> None:
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as made:
        assert HeldSocket(socket=made, opener=Opener.MANAGER).reached_at.startswith("127.0.0.1:")


def test_a_descriptor_that_is_refused_stays_its_owners(listener: socket.socket) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        with pytest.raises(BadSocket, match="here: found a socket that carries no streams"):
            listening_socket(datagrams.fileno(), "here")
        assert datagrams.fileno() >= 0
        os.fstat(datagrams.fileno())
    again = listening_socket(os.dup(listener.fileno()), "here")
    again.close()


@pytest.mark.parametrize("folder", ["/dev/fd", "/no/such/folder"])
def test_no_other_descriptor_outlives_an_exec_also_where_they_are_not_listed(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(belongings, "_DESCRIPTORS", folder)
    with Path(os.devnull).open() as left:
        os.set_inheritable(left.fileno(), True)  # noqa: FBT003 - the standard library's signature
        belongings.close_others_on_exec()
        assert not os.get_inheritable(left.fileno())
