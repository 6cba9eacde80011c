"""A restart leaves no hole: nobody is refused or cut off, nobody else gets the folder, and where it cannot be, nothing changes."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import socket
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from openclaw_kernel.lock import AlreadyRunning, StateLock, read_owner
from tests.kernel.cli.command import run_command
from tests.plugins.conversation.harness import until
from tests.support.gateway import START_SECONDS, RunningGateway, StartGateway, base_config, free_port, merge
from tests.support.ws_client import RequestFailed, WsClient, is_chat

ROUNDS = 5
REQUEST = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
# Put into the gateway's process when Python starts.
NO_EXEC = """
import os, sys
real, calls = os.execve, []
def execve(path, arguments, environment):
    calls.append(path)
    if len(calls) == 1:
        raise FileNotFoundError(2, "No such file or directory")
    real(path, arguments, environment)
os.execve = execve
"""
BROKEN_INSTALLATION = """
import sys
if "--check" in sys.argv:
    sys.modules["openclaw_kernel.protocol.server"] = None
"""


HUNG_UP = """
import os, signal, sys
if "--check" not in sys.argv and "OPENCLAW_KERNEL_HANDOVER" in os.environ:
    for number in (signal.SIGHUP, signal.SIGUSR1):
        os.kill(os.getpid(), number)
"""


def site(folder: Path, code: str) -> dict[str, str]:
    (folder / "sitecustomize.py").write_text(code)
    return {"PYTHONPATH": str(folder)}


def port_of(gateway: RunningGateway) -> int:
    return int(gateway.url.rpartition(":")[2])


def readies(gateway: RunningGateway) -> int:
    return sum(line.record.get("event") == "ready" for line in gateway.lines)


def boot_id(client: WsClient) -> str:
    return str(client.hello["server"]["bootId"])


async def restarted(gateway: RunningGateway, restart: Callable[[], Any]) -> None:
    before = readies(gateway)
    restart()
    # It is two starts: the trial of the next one comes first.
    await until(lambda: readies(gateway) > before, "the next start", seconds=2 * START_SECONDS)


async def ask(client: WsClient) -> None:
    await client.request("gateway.restart.request", {})
    assert (await client.closed()).code == 1012


@asynccontextmanager
async def callers(port: int, count: int) -> AsyncIterator[Counter[str]]:
    """Clients that connect as fast as they can; what became of each connection is counted."""
    outcomes: Counter[str] = Counter()
    ended = asyncio.Event()

    async def call() -> None:
        while not ended.is_set():
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(REQUEST)
                answer = await reader.read()
                writer.close()
                outcomes[answer.partition(b"\r\n")[0].decode()] += 1
            except OSError as error:
                outcomes[repr(error)] += 1
            await asyncio.sleep(0.002)

    tasks = [asyncio.create_task(call()) for _ in range(count)]
    try:
        yield outcomes
    finally:
        ended.set()
        await asyncio.gather(*tasks)


async def test_nobody_is_refused_or_cut_off_while_it_restarts_under_load(gateway: RunningGateway) -> None:
    port, runs, boots = port_of(gateway), [], set()
    async with callers(port, 3) as outcomes:
        for number in range(ROUNDS):
            async with gateway.connect() as client:
                boots.add(boot_id(client))
                for kind, text in (("slow", "!slow 5\n" + "word " * 20), ("next", f"message {number}")):
                    run = f"{kind}-{number}"
                    await client.request("chat.send", {"sessionKey": f"s{number}", "message": text, "idempotencyKey": run})
                    runs.append(run)
                await ask(client)
            # At once, as one that lost its connection does: it waits in the queue of the port, and is let in at the first attempt.
            async with gateway.connect() as client:
                assert boot_id(client) not in boots
    assert set(outcomes) == {"HTTP/1.1 200 OK"}
    assert outcomes.total() > ROUNDS
    async with gateway.connect() as client:
        for run in runs:
            assert (await client.request("agent.wait", {"runId": run, "timeoutMs": 20_000}))["status"] == "ok", run
        for number in range(ROUNDS):
            history = await client.request("chat.history", {"sessionKey": f"s{number}"})
            asked = [message for message in history["messages"] if message["role"] == "user"]
            assert len(asked) == 2


async def test_the_folder_is_locked_all_the_while(gateway: RunningGateway) -> None:
    refused, taken, ended = [0], [0], threading.Event()

    def compete() -> None:
        while not ended.is_set():
            lock = StateLock(gateway.home)
            try:
                lock.acquire()
            except AlreadyRunning:
                refused[0] += 1
            else:
                taken[0] += 1
                lock.release()

    rival = threading.Thread(target=compete)
    rival.start()
    try:
        for _ in range(2):
            async with gateway.connect() as client:
                await ask(client)
            async with gateway.connect():
                pass
    finally:
        ended.set()
        await asyncio.to_thread(rival.join)
    assert taken == [0]
    assert refused[0] > 0


async def test_the_address_stays_readable_while_it_restarts(gateway: RunningGateway) -> None:
    seen: set[str] = set()
    ended = threading.Event()

    def read() -> None:
        while not ended.is_set():
            seen.add(str(json.loads((gateway.home / "gateway.lock").read_text()).get("url")))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        async with gateway.connect() as client:
            await ask(client)
        async with gateway.connect():
            pass
    finally:
        ended.set()
        await asyncio.to_thread(reader.join)
    assert seen == {gateway.url}


async def refusal(client: WsClient) -> RequestFailed | None:
    """Why an ordinary request is refused, None where it is not."""
    try:
        await client.request("agent.identity.get", {})
    except RequestFailed as refused:
        return refused
    return None


async def test_while_it_drains_it_answers_as_the_wire_says(start_gateway: StartGateway) -> None:
    draining = {"plugins": {"entries": {"conversation": {"config": {"drainSeconds": 2}}}}}
    gateway = await start_gateway(draining)
    async with gateway.connect() as client:
        await client.request("chat.send", {"sessionKey": "main", "message": "!slow 40\n" + "word " * 150, "idempotencyKey": "k1"})
        await client.expect_event(is_chat("delta", run="k1"))
        await client.request("gateway.restart.request", {})
        refused = await until(lambda: refusal(client), "the drain")
        assert refused is not None
        assert refused.details["reason"] == "gateway-restarting"
        with pytest.raises(RequestFailed) as late:
            async with gateway.connect():
                pass
        assert (late.value.code, late.value.error["retryAfterMs"]) == ("UNAVAILABLE", 1000)
        _, writer = await asyncio.open_connection("127.0.0.1", port_of(gateway))
        writer.close()
        assert (await client.closed(deadline=20)).code == 1012
    async with gateway.connect() as client:
        assert (await client.request("agent.wait", {"runId": "k1", "timeoutMs": 20_000}))["status"] == "ok"


async def test_an_installation_that_is_broken_is_found_before_anything_stops(start_gateway: StartGateway, tmp_path: Path) -> None:
    gateway = await start_gateway(env=site(tmp_path, BROKEN_INSTALLATION))
    async with gateway.connect() as client:
        with pytest.raises(RequestFailed, match=r"could not start again: .*openclaw_kernel\.protocol\.server") as refused:
            await client.request("gateway.restart.request", {})
        assert refused.value.code == "INVALID_REQUEST"
        before = boot_id(client)
        gateway.expect_log("could not start again")
        gateway.process.send_signal(signal.SIGUSR1)
        await gateway.wait_line("wanted for: SIGUSR1")
        assert (await client.request("health"))["ok"] is True
    async with gateway.connect() as client:
        assert boot_id(client) == before
    shown = await run_command("status", "--json", home=gateway.home, env={"OPENCLAW_GATEWAY_TOKEN": gateway.token})
    assert "wanted for: SIGUSR1" in shown.out
    assert readies(gateway) == 1


async def test_a_program_that_is_gone_by_then_leaves_this_one_serving(start_gateway: StartGateway, tmp_path: Path) -> None:
    """An upgrade took the interpreter away after the check: what is in memory goes on, with the same port and lock."""
    gateway = await start_gateway(env=site(tmp_path, NO_EXEC))
    gateway.expect_log("cannot be run again")
    port = port_of(gateway)
    async with callers(port, 1) as outcomes:
        async with gateway.connect() as client:
            await ask(client)
        await gateway.wait_line("cannot be run again .* this process goes on")
        await until(lambda: readies(gateway) == 2, "that it goes on")
        async with gateway.connect() as client:
            assert (await client.request("health"))["ok"] is True
            # The program is there again.
            await ask(client)
        async with gateway.connect():
            pass
    assert set(outcomes) == {"HTTP/1.1 200 OK"}
    assert port_of(gateway) == port


async def test_a_file_that_breaks_after_the_trial_leaves_what_worked_serving(start_gateway: StartGateway) -> None:
    gateway = await start_gateway({"plugins": {"entries": {"conversation": {"config": {"drainSeconds": 2}}}}})
    gateway.expect_log("prot")
    async with gateway.connect() as client:
        await client.request("chat.send", {"sessionKey": "main", "message": "!slow 40\n" + "word " * 150, "idempotencyKey": "k1"})
        await client.expect_event(is_chat("delta", run="k1"))
        await client.request("gateway.restart.request", {})
        assert await until(lambda: refusal(client), "the drain")
        gateway.config_path.write_text("gateway:\n  prot: 1\n")
        assert (await client.closed(deadline=20)).code == 1012
    async with gateway.connect() as client:
        assert (await client.request("health"))["ok"] is True
    await until(lambda: readies(gateway) == 2, "that it says so")
    assert any("is not served" in problem and "prot" in problem for problem in gateway.ready["problems"])


async def test_sigusr1_restarts_it(gateway: RunningGateway) -> None:
    async with gateway.connect() as client:
        before = boot_id(client)
        await restarted(gateway, lambda: gateway.process.send_signal(signal.SIGUSR1))
        assert (await client.closed()).code == 1012
    async with gateway.connect() as client:
        assert boot_id(client) != before


async def test_a_reload_or_a_restart_that_is_asked_for_amid_a_restart_does_not_end_it(start_gateway: StartGateway, tmp_path: Path) -> None:
    """The next process has no handlers yet; a script that saves, restarts and reloads would have killed it."""
    gateway = await start_gateway(env=site(tmp_path, HUNG_UP))
    for _ in range(2):
        await restarted(gateway, lambda: gateway.process.send_signal(signal.SIGUSR1))
    gateway.process.send_signal(signal.SIGHUP)
    await gateway.wait_line("reloaded: nothing changed")


@asynccontextmanager
async def printing_into(home: Path, redirected: str, **options: Any) -> AsyncIterator[asyncio.subprocess.Process]:
    """A gateway that the shell started with its standard output redirected."""
    home.mkdir(mode=0o700)
    (home / "openclaw.yaml").touch(0o600)
    (home / "openclaw.yaml").write_text(json.dumps(base_config()))
    command = [sys.executable, "-m", "openclaw_kernel", "run", "--home", str(home), "--json"]
    shell = ["sh", "-c", f'exec "$@" {redirected}', "sh", *command]
    process = await asyncio.create_subprocess_exec(*shell, stderr=asyncio.subprocess.PIPE, **options)
    try:
        yield process
        process.send_signal(signal.SIGTERM)
        await process.communicate()
        assert process.returncode == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


def is_ready(home: Path) -> bool:
    address = str(read_owner(home).get("url", "")).removeprefix("http://")
    if not address:
        return False
    connection = HTTPConnection(address, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == HTTPStatus.OK
    finally:
        connection.close()


async def logged(process: asyncio.subprocess.Process, words: str) -> None:
    """Read the log on to these words."""
    assert process.stderr is not None
    async with asyncio.timeout(30):
        while words.encode() not in (line := await process.stderr.readline()):
            assert line, f"the log ended before {words!r}"


@pytest.mark.not_recorded("nobody is connected")
async def test_it_restarts_also_where_nobody_reads_any_more_what_it_prints(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    async with printing_into(tmp_path / "home", "", stdout=writing) as process:
        os.close(writing)
        with os.fdopen(reading, "rb") as ready:
            await asyncio.to_thread(ready.readline)
        process.send_signal(signal.SIGUSR1)
        await logged(process, "nobody reads what the command prints")
        process.send_signal(signal.SIGUSR1)
        await logged(process, "restarted;")


@pytest.mark.not_recorded("nobody is connected")
async def test_it_restarts_also_with_its_standard_output_closed(tmp_path: Path) -> None:
    async with printing_into(tmp_path / "home", ">&-") as process:
        home = tmp_path / "home"
        await until(lambda: is_ready(home), "the first start")
        began = read_owner(home)["startedAtMs"]
        process.send_signal(signal.SIGUSR1)
        await logged(process, "restarted;")
        await until(lambda: read_owner(home)["startedAtMs"] > began and is_ready(home), "the next start")
        # What would be printed is written to no socket and to no database.
        assert str(Path(f"/proc/{process.pid}/fd/1").readlink()) == os.devnull


async def test_a_port_that_changed_is_served_after_the_restart_and_the_old_one_is_free(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    old, new = port_of(gateway), free_port()
    gateway.write_config(merge(gateway.config, {"gateway": {"port": new}}))
    await restarted(gateway, lambda: gateway.process.send_signal(signal.SIGUSR1))
    assert port_of(gateway) == new
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", old))


async def test_a_bind_that_changed_is_served_after_the_restart_at_the_same_port(start_gateway: StartGateway) -> None:
    gateway = await start_gateway({"gateway": {"port": free_port()}})
    at = ("127.0.0.1", port_of(gateway))
    wanted = {"bind": "lan", "tls": {"enabled": True}, "auth": {"token": secrets.token_urlsafe(32)}}
    gateway.write_config(merge(gateway.config, {"gateway": wanted}))
    await restarted(gateway, lambda: gateway.process.send_signal(signal.SIGUSR1))
    assert gateway.ready["problems"] == []
    with socket.socket() as probe, pytest.raises(OSError, match="in use"):
        # Of all addresses, and not of this one alone.
        probe.bind(("127.0.0.2", at[1]))
    socket.create_connection(at, timeout=5).close()


async def test_a_new_bind_that_cannot_be_had_leaves_the_old_one_served(start_gateway: StartGateway) -> None:
    gateway = await start_gateway({"gateway": {"port": free_port()}})
    at = ("127.0.0.1", port_of(gateway))
    wanted = {"bind": "lan", "tls": {"enabled": True}, "auth": {"token": secrets.token_urlsafe(32)}}
    gateway.write_config(merge(gateway.config, {"gateway": wanted}))
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.2", at[1]))
        other.listen()
        await restarted(gateway, lambda: gateway.process.send_signal(signal.SIGUSR1))
    assert any("127.0.0.1" in problem and "served as before" in problem for problem in gateway.ready["problems"])
    socket.create_connection(at, timeout=5).close()


async def test_a_new_port_that_cannot_be_had_leaves_the_old_one_served(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    old = port_of(gateway)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        new = taken.getsockname()[1]
        gateway.write_config(merge(gateway.config, {"gateway": {"port": new}}))
        await restarted(gateway, lambda: gateway.process.send_signal(signal.SIGUSR1))
    assert port_of(gateway) == old
    assert any(
        f"gateway.port: cannot listen on {new}" in problem and "served as before" in problem for problem in gateway.ready["problems"]
    )


async def test_the_program_that_follows_passes_on_nothing_to_its_own_children(gateway: RunningGateway) -> None:
    async with gateway.connect() as client:
        await ask(client)
    async with gateway.connect():
        pass
    # What exec was given stays visible there.
    environment = dict(entry.partition(b"=")[::2] for entry in Path(f"/proc/{gateway.process.pid}/environ").read_bytes().split(b"\0"))
    said = json.loads(environment[b"OPENCLAW_KERNEL_HANDOVER"])
    handed_over = [said["lock"], *(held["fd"] for held in said["sockets"])]
    assert len(handed_over) > 1
    for descriptor in handed_over:
        assert _closes_on_exec(Path(f"/proc/{gateway.process.pid}/fdinfo/{descriptor}"))


async def test_what_a_library_leaves_open_does_not_outlive_a_restart(start_gateway: StartGateway) -> None:
    """The watcher of the config holds one of the few inotify instances that a user of the machine may have."""
    gateway = await start_gateway({"gateway": {"reload": {"debounceMs": 50}}})
    for number in range(3):
        async with gateway.connect() as client:
            gateway.write_config(merge(gateway.config, {"session": {"queueLimit": 7 + number}}))
            # It is watched by now, so its instance is there.
            await client.expect_event("config.changed", deadline=30)
            assert _opened(gateway).count("anon_inode:inotify") == 1
            await ask(client)


def _opened(gateway: RunningGateway) -> list[str]:
    found = []
    for descriptor in Path(f"/proc/{gateway.process.pid}/fd").iterdir():
        # What is closed meanwhile is none that stays.
        with suppress(FileNotFoundError):
            found.append(str(descriptor.readlink()))
    return found


def _closes_on_exec(described: Path) -> bool:
    try:
        text = described.read_text()
    except FileNotFoundError:
        return True
    (flags,) = (line.split()[1] for line in text.splitlines() if line.startswith("flags:"))
    return bool(int(flags, 8) & os.O_CLOEXEC)


@pytest.mark.not_recorded("what --check starts sends nothing")
async def test_check_says_what_a_start_would_and_touches_no_running_gateway(gateway: RunningGateway) -> None:
    environment = {"OPENCLAW_GATEWAY_TOKEN": gateway.token}
    fine = await run_command("run", "--check", home=gateway.home, env=environment)
    assert (fine.status, fine.err) == (0, "")
    assert "can be started" in fine.out
    gateway.config_path.write_text("gateway: {auth: {mode: password}}\n")
    wrong = await run_command("run", "--check", home=gateway.home, env=environment)
    assert wrong.status == 78
    assert "gateway.auth.password: not set" in wrong.err
    gateway.write_config(gateway.config)
    async with gateway.connect() as client:
        assert (await client.request("health"))["ok"] is True
