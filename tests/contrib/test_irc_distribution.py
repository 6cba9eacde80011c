"""A stranger's plugin: built, installed by pip beside the kernel, and talking to a real IRC server."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import venv
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.kernel.children.support import the_program
from tests.support.gateway import RunningGateway, base_config, free_port, merge

ROOT = Path(__file__).resolve().parents[2]
DEADLINE = 30.0
pytestmark = [pytest.mark.requires("ngircd"), pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a fresh venv that holds the kernel and the plugin, both from wheels."""
    folder = tmp_path_factory.mktemp("stranger")
    wheels = folder / "wheels"
    pip = ["-m", "pip", "--disable-pip-version-check", "--quiet"]
    sources = [str(ROOT), str(ROOT / "contrib" / "openclaw-irc")]
    subprocess.run([sys.executable, *pip, "wheel", "--no-deps", "--wheel-dir", str(wheels), *sources], check=True, timeout=200)
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"
    subprocess.run([str(python), *pip, "install", *map(str, wheels.glob("*.whl"))], check=True, timeout=250)
    return python


@pytest.fixture
def ircd(tmp_path: Path) -> Iterator[int]:
    """The port of an ngircd that runs for one test."""
    port = free_port()
    config = tmp_path / "ngircd.conf"
    config.write_text(
        f"[Global]\nName = irc.test\nInfo = test\nListen = 127.0.0.1\nPorts = {port}\n"
        "[Options]\nDNS = no\nIdent = no\nPAM = no\nPredefChannelsOnly = no\n[Limits]\nMaxConnectionsIP = 0\n"
    )
    command = [shutil.which("ngircd") or "ngircd", "--nodaemon", "--config", str(config)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    yield port
    process.terminate()
    process.wait(10)


class Person:
    """Somebody on the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def say(self, line: str) -> None:
        """Send one raw line."""
        self._writer.write(f"{line}\r\n".encode())

    async def hears(self, *parts: str) -> str:
        """The next line that has all these parts."""
        async with asyncio.timeout(DEADLINE):
            while True:
                line = (await self._reader.readline()).decode()
                assert line, "the server closed the connection"
                if line.startswith("PING"):
                    self.say(line.replace("PING", "PONG", 1).strip())
                if all(part in line for part in parts):
                    return line


async def _arrive(port: int) -> tuple[Person, asyncio.StreamWriter]:
    async with asyncio.timeout(DEADLINE):
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                # The server was started a moment ago.
                await asyncio.sleep(0.05)
            else:
                return Person(reader, writer), writer


@asynccontextmanager
async def person(port: int, nick: str) -> AsyncIterator[Person]:
    """Somebody who came in."""
    somebody, writer = await _arrive(port)
    somebody.say(f"NICK {nick}")
    somebody.say(f"USER {nick} 0 * :{nick}")
    await somebody.hears(" 001 ")
    try:
        yield somebody
    finally:
        writer.close()


def runner_of(gateway: RunningGateway) -> int:
    """The process in which the plugin runs: below its keeper, which is below the gateway."""
    (keeper,) = map(int, Path(f"/proc/{gateway.process.pid}/task/{gateway.process.pid}/children").read_text().split())
    return the_program(keeper)


@pytest.fixture(params=["inproc", "process"])
def isolation(request: pytest.FixtureRequest) -> str:
    """Where the plugin runs: what it does is the same."""
    return str(request.param)


def irc_config(ircd_port: int, isolation: str = "inproc", **more: object) -> dict[str, object]:
    """A channel in `#room` for people of 127.0.0.1."""
    section = {
        "server": "127.0.0.1",
        "port": ircd_port,
        "tls": False,
        "nick": "claw",
        "rooms": ["#room"],
        "allowFrom": ["ann!~ann@127.0.0.1"],
        "groups": {"#room": {}},
        "messagesPerSecond": 20,
    }
    entries = {"irc": {"isolation": isolation}}
    return merge(base_config(free_port()), {"channels": {"irc": section | more}, "plugins": {"entries": entries}})


def test_the_installed_plugin_is_listed_without_being_imported(stranger: Path, tmp_path: Path) -> None:
    command = [str(stranger), "-X", "importtime", "-m", "openclaw_kernel", "plugins", "list", "--json", "--home", str(tmp_path)]
    listed = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    rows = {row["id"]: row for row in json.loads(listed.stdout)["plugins"]}
    assert rows["irc"]["kind"] == "channel"
    assert rows["irc"]["distribution"] == "openclaw-irc"
    assert rows["irc"]["version"] == "0.1.0"
    assert "openclaw_irc" not in listed.stderr
    assert rows["telegram"]["state"] == "unavailable"
    assert rows["telegram"]["reason"] == 'pip install "openclaw-kernel[telegram]"'


async def test_people_talk_to_the_agent_in_private_and_in_a_room(stranger: Path, ircd: int, tmp_path: Path, isolation: str) -> None:
    gateway = RunningGateway(tmp_path / "home", irc_config(ircd, isolation), arguments=(), env={})
    gateway.executable = str(stranger)
    gateway.write_config(gateway.config)
    async with person(ircd, "ann") as ann, person(ircd, "mallory") as mallory:
        ann.say("JOIN #room")
        await ann.hears("366")
        await gateway.start()
        try:
            await ann.hears("JOIN", "#room", "claw")
            ann.say("PRIVMSG claw :good morning")
            await ann.hears(":claw!", "PRIVMSG ann", "good morning")
            ann.say("PRIVMSG #room :nobody is asked")
            ann.say("PRIVMSG #room :claw: what now?")
            line = await ann.hears(":claw!", "PRIVMSG #room")
            assert "what now?" in line
            mallory.say("PRIVMSG claw :let me in")
            await mallory.hears("PRIVMSG mallory", "mallory!~mallory@127.0.0.1", "allowFrom")
            mallory.say("PRIVMSG claw :let me in again")
            ann.say("PRIVMSG claw :still there?")
            await ann.hears(":claw!", "PRIVMSG ann", "still there?")
            # What mallory would have been told is ordered before this answer of the server itself.
            mallory.say("PING :end")
            assert "PRIVMSG" not in await mallory.hears("")
        finally:
            await gateway.stop()


async def test_a_server_that_is_away_is_reported_and_found_again(stranger: Path, tmp_path: Path, isolation: str) -> None:
    gateway = RunningGateway(tmp_path / "home", irc_config(free_port(), isolation), arguments=(), env={})
    gateway.executable = str(stranger)
    gateway.write_config(gateway.config)
    await gateway.start()
    try:
        async with gateway.connect() as client:
            status = await client.request("channels.status", {"channel": "irc"})
            account = status["channelAccounts"]["irc"][0]
            assert account["connected"] is False
            assert "channels.irc.server" in account["lastError"]
            assert (await client.request("channels.status", {"channel": "webchat"}))["channels"]["webchat"]["running"] is True
    finally:
        await gateway.stop()


async def test_the_channel_is_stopped_and_started_while_people_talk(stranger: Path, ircd: int, tmp_path: Path, isolation: str) -> None:
    gateway = RunningGateway(tmp_path / "home", irc_config(ircd, isolation), arguments=(), env={})
    gateway.executable = str(stranger)
    gateway.write_config(gateway.config)
    async with person(ircd, "ann") as ann:
        ann.say("JOIN #room")
        await ann.hears("366")
        await gateway.start()
        try:
            await ann.hears("JOIN", "#room", "claw")
            ann.say("PRIVMSG claw :first")
            await ann.hears(":claw!", "PRIVMSG ann", "first")
            async with gateway.connect() as client:
                assert (await client.request("channels.stop", {"channel": "irc"}))["stopped"]
                await ann.hears(":claw!", "QUIT")
                waiting = {"channel": "irc", "to": "ann", "message": "while it was stopped", "idempotencyKey": "1"}
                sending = asyncio.create_task(client.request("send", waiting, deadline=DEADLINE))
                assert (await client.request("channels.start", {"channel": "irc"}))["started"]
                await ann.hears("JOIN", "#room", "claw")
                await ann.hears(":claw!", "PRIVMSG ann", "while it was stopped")
                await sending
            ann.say("PRIVMSG claw :second")
            await ann.hears(":claw!", "PRIVMSG ann", "second")
        finally:
            await gateway.stop()


async def test_a_kill_of_its_process_in_the_middle_of_a_conversation_loses_no_message(stranger: Path, ircd: int, tmp_path: Path) -> None:
    gateway = RunningGateway(tmp_path / "home", irc_config(ircd, "process"), arguments=(), env={})
    gateway.executable = str(stranger)
    gateway.write_config(gateway.config)
    async with person(ircd, "ann") as ann:
        ann.say("JOIN #room")
        await ann.hears("366")
        await gateway.start()
        try:
            await ann.hears("JOIN", "#room", "claw")
            for number in range(2):
                ann.say(f"PRIVMSG claw :before {number}")
                await ann.hears(":claw!", "PRIVMSG ann", f"before {number}")
                os.kill(runner_of(gateway), signal.SIGKILL)
                await ann.hears(":claw!", "QUIT")
                async with gateway.connect() as client:
                    # Nothing of it is there to send this: it waits in the outbox.
                    message = {"channel": "irc", "to": "ann", "message": f"while it was dead {number}", "idempotencyKey": str(number)}
                    sending = asyncio.create_task(client.request("send", message, deadline=DEADLINE))
                    await ann.hears("JOIN", "#room", "claw")
                    await ann.hears(":claw!", "PRIVMSG ann", f"while it was dead {number}")
                    await sending
            ann.say("PRIVMSG claw :after")
            await ann.hears(":claw!", "PRIVMSG ann", "after")
            async with gateway.connect() as client:
                status = await client.request("status")
                dead = await client.request("messages.dead.list", {})
            assert next(plugin["state"] for plugin in status["plugins"] if plugin["id"] == "irc") == "started"
            # What was heard may have been killed before it could say so: that is known of it, and it is not sent twice.
            assert {item["state"] for item in dead["items"]} <= {"unknown_after_send"}
            assert {item["text"] for item in dead["items"]} <= {"before 0", "before 1"}
        finally:
            await gateway.stop()
