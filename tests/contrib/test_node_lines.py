"""The example of a channel in plain Node, run by the pinned Node below a real gateway, with people on the other end."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.gateway import RunningGateway, base_config, free_port, merge
from tests.support.requirements import find_node

EXAMPLE = Path(__file__).resolve().parents[2] / "contrib" / "node-lines"
DEADLINE = 30.0
pytestmark = [pytest.mark.requires("node24"), pytest.mark.timeout(180)]


class Person:
    """Somebody connected, who confirms what they get."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.got: dict[str, str] = {}

    def write(self, line: str) -> None:
        self._writer.write(f"{line}\n".encode())

    async def hears(self, wanted: str) -> None:
        """Read on until this line; raise `ConnectionError` where the connection ends before it."""
        async with asyncio.timeout(DEADLINE):
            while True:
                line = (await self._reader.readline()).decode()
                if not line:
                    raise ConnectionError("the channel closed the connection")
                if line.startswith("MSG "):
                    _, identity, text = line.split(" ", 2)
                    self.got[identity] = json.loads(text)
                    self.write(f"GOT {identity}")
                    line = f"MSG {json.loads(text)}\n"
                if line == f"{wanted}\n":
                    return


async def _arrive(port: int, name: str) -> tuple[Person, asyncio.StreamWriter]:
    async with asyncio.timeout(DEADLINE):
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                somebody = Person(reader, writer)
                somebody.write(f"HELLO {name}")
                await somebody.hears(f"WELCOME {name}")
            except OSError:
                # Its process has just been killed, or is being started.
                await asyncio.sleep(0.05)
            else:
                return somebody, writer


@asynccontextmanager
async def person(port: int, name: str) -> AsyncIterator[Person]:
    """Somebody who came in, as soon as the channel listens."""
    somebody, writer = await _arrive(port, name)
    try:
        yield somebody
    finally:
        writer.close()


def install(home: Path) -> None:
    """Put the example where an owner of the machine would."""
    folder = home / "children" / "lines"
    folder.parent.mkdir(mode=0o700, parents=True)
    shutil.copytree(EXAMPLE, folder)
    manifest = folder / "plugin.toml"
    manifest.write_text(manifest.read_text().replace("/usr/bin/node", str(find_node())))
    for path in (folder, *folder.iterdir()):
        path.chmod(path.stat().st_mode & 0o755)


def config(port: object, **more: Any) -> dict[str, Any]:
    return merge(base_config(), {"channels": {"lines": {"port": port, "dmPolicy": "open", "allowFrom": ["*"], **more}}})


@pytest.fixture
async def lines(tmp_path: Path) -> AsyncIterator[tuple[RunningGateway, int]]:
    """A gateway with the channel, and the channel's port."""
    port = free_port()
    gateway = RunningGateway(tmp_path / "home", config(port), arguments=(), env={})
    gateway.write_config(gateway.config)
    install(gateway.home)
    await gateway.start()
    yield gateway, port
    await gateway.stop()


def node_of(gateway: RunningGateway) -> int:
    """The process of the example."""
    from tests.kernel.children.support import processes_below

    (found,) = [pid for pid in processes_below(gateway.process.pid) if Path(f"/proc/{pid}/exe").resolve().name.startswith("node")]
    return found


async def plugin_state(gateway: RunningGateway) -> dict[str, Any]:
    async with gateway.connect() as client:
        status = await client.request("status")
    return next(plugin for plugin in status["plugins"] if plugin["id"] == "lines")


async def test_people_talk_to_the_agent_through_it(lines: tuple[RunningGateway, int]) -> None:
    gateway, port = lines
    async with person(port, "ann") as ann:
        ann.write("SAY 1 good morning")
        await ann.hears("TAKEN 1")
        await ann.hears("MSG good morning")
        ann.write("SAY 1 good morning")
        await ann.hears("TAKEN 1")
        ann.write("SAY 2 ünïcode ✓")
        await ann.hears("MSG ünïcode ✓")
    assert list(ann.got.values()) == ["good morning", "ünïcode ✓"]
    assert (await plugin_state(gateway))["state"] == "started"
    assert (await plugin_state(gateway))["version"] == "1.0.0"


async def test_no_message_is_lost_when_its_process_is_killed_in_the_middle_of_a_conversation(lines: tuple[RunningGateway, int]) -> None:
    gateway, port = lines
    got: dict[str, str] = {}
    for number in range(1, 4):
        async with person(port, "ann") as ann:
            ann.write(f"SAY {number} message {number}")
            if number % 2:
                await ann.hears(f"TAKEN {number}")
            os.kill(node_of(gateway), signal.SIGKILL)
        got |= ann.got
        # What it is not told was taken a person says again, as a platform does.
        async with person(port, "ann") as again:
            again.write(f"SAY {number} message {number}")
            await again.hears(f"TAKEN {number}")
        got |= again.got
    async with person(port, "ann") as ann, gateway.connect() as client:
        ann.write("SAY last the last one")
        await ann.hears("MSG the last one")
        ways = {number: await client.request("messages.why", {"id": f"ann:{number}"}) for number in range(1, 4)}
    got |= ann.got
    texts = list(got.values())
    for number, way in ways.items():
        assert way["message"]["state"] == "answered", way
        states = {delivery["state"] for delivery in way["deliveries"]}
        # In doubt is what the kill left between its writing and its confirmation; the person is told of it.
        assert states <= {"sent", "unknown_after_send"}, way
        assert texts.count(f"message {number}") == 1 if "unknown_after_send" not in states else texts.count(f"message {number}") <= 1
    assert (await plugin_state(gateway))["state"] == "started"


async def test_it_is_stopped_and_started_as_any_channel_is(lines: tuple[RunningGateway, int]) -> None:
    gateway, port = lines
    async with gateway.connect() as client:
        assert (await client.request("channels.stop", {"channel": "lines"}))["stopped"]
        with pytest.raises(OSError, match="Connect call failed"):
            await asyncio.open_connection("127.0.0.1", port)
        assert (await client.request("channels.start", {"channel": "lines"}))["started"]
        async with person(port, "ann") as ann:
            ann.write("SAY 1 hello")
            await ann.hears("MSG hello")
        accounts = (await client.request("channels.status", {}))["channelAccounts"]["lines"]
    assert accounts[0]["running"] is True
    assert accounts[0]["lastInboundAt"] > 0


async def test_who_is_connected_and_says_nothing_does_not_keep_it_from_stopping(lines: tuple[RunningGateway, int]) -> None:
    gateway, port = lines
    async with person(port, "ann"):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        before = node_of(gateway)
        async with gateway.connect() as client:
            assert (await client.request("channels.stop", {"channel": "lines"}))["stopped"]
            assert await reader.read() == b""
            assert (await client.request("channels.start", {"channel": "lines"}))["started"]
        writer.close()
    assert node_of(gateway) == before


async def test_who_takes_another_name_is_reached_by_that_alone(lines: tuple[RunningGateway, int]) -> None:
    gateway, port = lines
    async with person(port, "ann") as person_of_two_names:
        person_of_two_names.write("HELLO bob")
        await person_of_two_names.hears("WELCOME bob")
        person_of_two_names.write("HELLO bob")
        await person_of_two_names.hears("WELCOME bob")
        async with person(port, "ann") as ann:
            ann.write("SAY 1 for ann")
            await ann.hears("MSG for ann")
        person_of_two_names.write("SAY 1 for bob")
        await person_of_two_names.hears("MSG for bob")
    assert (await plugin_state(gateway))["state"] == "started"


async def write_without_end(port: int) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        while True:
            writer.write(b"x" * 65_536)
            await writer.drain()
    finally:
        writer.close()


async def test_a_line_that_does_not_end_is_cut_off_before_it_fills_the_memory(lines: tuple[RunningGateway, int]) -> None:
    gateway, port = lines
    before = node_of(gateway)
    async with person(port, "ann") as ann, asyncio.timeout(DEADLINE):
        with pytest.raises(ConnectionError):
            await write_without_end(port)
        ann.write("SAY 1 still here")
        await ann.hears("MSG still here")
    assert node_of(gateway) == before


async def test_settings_that_it_rejects_are_told_with_their_place(tmp_path: Path) -> None:
    gateway = RunningGateway(tmp_path / "home", config("seven"), arguments=(), env={})
    gateway.write_config(gateway.config)
    install(gateway.home)
    await gateway.start()
    state = await plugin_state(gateway)
    await gateway.stop()
    assert state["state"] == "failed"
    assert 'channels.lines.port: found "seven"; give a port from 1 to 65535' in state["reason"]
    assert "openclaw.yaml" in state["reason"]


async def test_a_saved_edit_of_its_section_replaces_its_process_alone(lines: tuple[RunningGateway, int]) -> None:
    gateway, port = lines
    other = free_port()
    before = node_of(gateway)
    async with gateway.connect() as client, person(port, "ann") as ann:
        gateway.write_config(merge(gateway.config, {"channels": {"lines": {"port": other}}}))
        with pytest.raises(ConnectionError):
            await ann.hears("never")
        async with person(other, "ann") as again:
            again.write("SAY 1 moved")
            await again.hears("MSG moved")
        assert (await client.request("status"))["ready"] is True
    assert node_of(gateway) != before
    with pytest.raises(OSError, match="Connect call failed"):
        await asyncio.open_connection("127.0.0.1", port)
