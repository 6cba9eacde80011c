"""Plugins are installed, upgraded, reloaded and removed in a gateway that runs, by real pip from real wheels."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.gateway import RunningGateway, base_config, free_port, merge
from tests.support.wheels import make_wheel, venv_beside, wheel_of
from tests.support.ws_client import RequestFailed, WsClient

ROOT = Path(__file__).resolve().parents[2]
DEADLINE = 20.0
pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.payloads_not_judged("the plugin is this test's own", "slow.answer", "slow.wait", "slow.begun"),
]

SLOW = """
import asyncio
from pathlib import Path
from openclaw_kernel.api import Scope, hookimpl, rpc
VERSION = "{version}"

class Methods:
    def __init__(self, plugin):
        self.plugin = plugin

    @rpc("slow.answer", scope=Scope.READ, result=str)
    async def answer(self, call):
        '''Say the version.'''
        return VERSION

    @rpc("slow.wait", scope=Scope.READ, result=str)
    async def wait(self, call):
        '''Say the version, once a file is there.'''
        self.plugin.begun.set()
        while not (self.plugin.context.state_dir / "go").exists():
            await asyncio.sleep(0.01)
        return VERSION

    @rpc("slow.begun", scope=Scope.READ, result=str)
    async def begun(self, call):
        '''Answer once somebody waits.'''
        await self.plugin.begun.wait()
        return VERSION

class SlowPlugin:
    settings = None

    def __init__(self, context):
        self.context = context
        self.begun = asyncio.Event()

    @hookimpl
    def openclaw_register_methods(self, registrar):
        registrar.add_methods(Methods(self))
        registrar.add_unit(self)

    async def start(self):
        {start}

    async def stop(self):
        pass
"""
MANIFEST = b'api = 1\nid = "slow"\nsummary = "a plugin of a test"\n'


def slow(folder: Path, version: str, *, start: str = "pass", more: dict[str, bytes] | None = None) -> str:
    """A wheel of the plugin `slow`."""
    source = SLOW.format(version=version, start=start).encode()
    files = {"acme_slow/__init__.py": b"", "acme_slow/plugin.py": source, "acme_slow/plugin.toml": MANIFEST, **(more or {})}
    points = {"openclaw.plugins": {"slow": "acme_slow.plugin:SlowPlugin"}}
    return str(make_wheel(folder, "acme-slow", version, files=files, entry_points=points))


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[RunningGateway]:
    """A gateway in a venv of its own; the channel `lines` is configured and not installed."""
    await asyncio.to_thread(venv_beside, tmp_path / "venv")
    lines = {"port": free_port(), "allowFrom": ["alice"]}
    running = RunningGateway(tmp_path / "home", merge(base_config(free_port()), {"channels": {"lines": lines}}), arguments=(), env={})
    running.executable = str(tmp_path / "venv" / "bin" / "python")
    running.write_config(running.config)
    await running.start()
    yield running
    await running.stop()


@pytest.fixture
async def client(gateway: RunningGateway) -> AsyncIterator[WsClient]:
    """An operator."""
    async with gateway.connect() as connected:
        yield connected


def command(gateway: RunningGateway, *arguments: str) -> dict[str, Any]:
    """Run the command line beside the gateway, and return what it printed."""
    done = subprocess.run(
        [gateway.executable, "-m", "openclaw_kernel", "plugins", *arguments, "--json", "--home", str(gateway.home)],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


async def row(client: WsClient, plugin_id: str) -> dict[str, Any] | None:
    """The plugin as the list shows it."""
    listed = await client.request("plugins.list")
    return next((one for one in listed["plugins"] if one["id"] == plugin_id), None)


async def install(client: WsClient, requirement: str, **more: Any) -> dict[str, Any]:
    """Install, and return the answer."""
    answer: dict[str, Any] = await client.request("plugins.package.install", {"requirement": requirement, **more}, deadline=60)
    return answer


async def upgrade(client: WsClient, requirement: str) -> dict[str, Any]:
    """Upgrade the plugin `slow`, and return the answer."""
    answer: dict[str, Any] = await client.request("plugins.package.upgrade", {"pluginId": "slow", "requirement": requirement}, deadline=60)
    return answer


async def test_a_channel_is_installed_talked_through_and_removed(gateway: RunningGateway, tmp_path: Path) -> None:
    wheel = await asyncio.to_thread(wheel_of, ROOT / "docs" / "examples" / "acme-lines", tmp_path / "wheels")
    told = await asyncio.to_thread(command, gateway, "install", str(wheel))
    assert (told["plugins"], told["version"], told["restart"]) == (["lines"], "1.0", None)

    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.config["channels"]["lines"]["port"])
    writer.write(b"alice\ngood morning\n")
    async with asyncio.timeout(DEADLINE):
        assert b"good morning" in await reader.readline()

    async with gateway.connect() as client:
        closed = asyncio.ensure_future(reader.read())
        removed = await client.request("plugins.package.remove", {"pluginId": "lines"}, deadline=60)
        assert removed["plugins"] == ["lines"]
        # Stopped before the first file was touched: the answer comes after pip's, so it is closed by now.
        assert await asyncio.wait_for(closed, 1) == b""
        assert await row(client, "lines") is None
    writer.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", gateway.config["channels"]["lines"]["port"])


async def test_a_call_that_is_under_way_ends_on_its_version(client: WsClient, gateway: RunningGateway, tmp_path: Path) -> None:
    await install(client, slow(tmp_path, "1.0"))
    state = gateway.home / "plugins" / "slow"
    async with gateway.connect() as other:
        waiting = asyncio.ensure_future(other.request("slow.wait", deadline=DEADLINE))
        await other.request("slow.begun", deadline=DEADLINE)

        told = await upgrade(client, slow(tmp_path, "2.0"))

        assert (told["version"], told["restart"]) == ("2.0", None)
        assert await client.request("slow.answer") == "2.0"
        assert not waiting.done()
        (state / "go").touch()
        assert await waiting == "1.0"


@pytest.mark.parametrize(
    "broken", [{"start": "raise ValueError('it does not start')"}, {"more": {"acme_slow/__init__.py": b"import there_is_no_such_module\n"}}]
)
async def test_a_version_that_does_not_run_puts_the_one_before_back(
    client: WsClient, gateway: RunningGateway, tmp_path: Path, broken: dict[str, Any]
) -> None:
    gateway.expect_log("slow")
    await install(client, slow(tmp_path, "1.0"))

    with pytest.raises(RequestFailed, match=r"it does not start|there_is_no_such_module"):
        await upgrade(client, slow(tmp_path, "2.0", **broken))

    assert await client.request("slow.answer") == "1.0"
    shown = await row(client, "slow")
    assert shown is not None
    assert (shown["version"], shown["state"]) == ("1.0", "enabled")
    # Its files are back as well: the code on disk is imported anew.
    await client.request("plugins.reload", {"pluginId": "slow"})
    assert await client.request("slow.answer") == "1.0"
    assert list((gateway.home / "replaced-plugins").iterdir()) == []


async def test_code_that_changed_on_disk_is_reloaded(client: WsClient, tmp_path: Path) -> None:
    await install(client, slow(tmp_path, "1.0"))
    (plugin,) = (tmp_path / "venv").rglob("acme_slow/plugin.py")
    plugin.write_text(plugin.read_text().replace('"1.0"', '"1.5"'))

    told = await client.request("plugins.reload", {"pluginId": "slow"})

    assert told["plugins"] == ["slow"]
    assert await client.request("slow.answer") == "1.5"
    rows = (await client.request("audit.log.list", {"limit": 50}))["rows"]
    assert {"plugin.installed", "plugin.reloaded"} <= {one["action"] for one in rows}


async def test_what_cannot_be_replaced_says_so(client: WsClient, gateway: RunningGateway, tmp_path: Path) -> None:
    extension = {"acme_slow/_fast.so": b"nobody imports it"}
    await install(client, slow(tmp_path, "1.0", more=extension))

    with pytest.raises(RequestFailed, match=r"restart needed: acme_slow/_fast\.so is a C extension, which cannot be loaded twice"):
        await client.request("plugins.reload", {"pluginId": "slow"})
    told = await upgrade(client, slow(tmp_path, "2.0", more=extension))

    assert told["version"] == "2.0"
    assert "C extension" in told["restart"]
    assert await client.request("slow.answer") == "1.0"
    listed = await client.request("plugins.list")
    assert any("slow" in line for line in listed["diagnostics"])
    with pytest.raises(RequestFailed, match="restart needed: it is part of openclaw-kernel itself"):
        await client.request("plugins.reload", {"pluginId": "control-ui"})
    with pytest.raises(RequestFailed, match="part of openclaw-kernel; disable it"):
        await client.request("plugins.package.remove", {"pluginId": "webchat"})


async def test_nothing_is_left_of_what_cannot_be_used(client: WsClient, gateway: RunningGateway, tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, "acme-nothing", "1.0", files={"acme_nothing.py": b""})
    with pytest.raises(RequestFailed, match="brings no plugin; it was taken off again"):
        await install(client, str(wheel))
    assert not list((tmp_path / "venv").rglob("acme_nothing.py"))

    # What is installed stays as it is, whatever a newcomer asks for.
    wants = make_wheel(tmp_path, "acme-wants", "1.0", files={"acme_wants.py": b""}, requires=["aiohttp<1"])
    with pytest.raises(RequestFailed, match="pip install failed"):
        await install(client, str(wants))
    with pytest.raises(RequestFailed, match="to have pip look for it elsewhere, say --index"):
        await install(client, "acme-slow")
    with pytest.raises(RequestFailed, match="without options"):
        await install(client, "--index-url=http://127.0.0.1:9/")


async def test_what_was_removed_can_be_installed_again_in_another_version(client: WsClient, tmp_path: Path) -> None:
    await install(client, slow(tmp_path, "1.0"))
    await client.request("plugins.package.remove", {"pluginId": "slow"}, deadline=60)
    with pytest.raises(RequestFailed, match=r"unknown method: slow\.answer"):
        await client.request("slow.answer")

    await install(client, slow(tmp_path, "3.0"))

    assert await client.request("slow.answer") == "3.0"
