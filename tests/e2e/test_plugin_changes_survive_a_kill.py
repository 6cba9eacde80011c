"""A gateway that is killed amid a change of its plugins, and pip with it, has at its next start what was before, or what was to be."""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.gateway import RunningGateway, base_config, free_port
from tests.support.kill_points import KillPoints
from tests.support.wheels import make_wheel, venv_beside
from tests.support.ws_client import ConnectionEnded, RequestFailed

KILLS = int(os.environ.get("OPENCLAW_TEST_KILLS", "3"))
"""How many steps of each change a gateway is killed at, evenly spread; 1000 is every step."""
pytestmark = [pytest.mark.timeout(300 + 60 * KILLS), pytest.mark.payloads_not_judged("the plugin is this test's own", "steady.answer")]

PLUGIN = """
from openclaw_kernel.api import Scope, hookimpl, rpc
from acme_steady.words import WORD

class Methods:
    @rpc("steady.answer", scope=Scope.READ, result=str)
    async def answer(self, call):
        '''Say the version.'''
        return WORD

class SteadyPlugin:
    settings = None

    def __init__(self, context):
        pass

    @hookimpl
    def openclaw_register_methods(self, registrar):
        registrar.add_methods(Methods())
"""
MANIFEST = b'api = 1\nid = "steady"\nsummary = "a plugin of a test"\n'


def steady(folder: Path, version: str, more: dict[str, bytes]) -> Path:
    """A wheel of the plugin `steady`."""
    files = {
        "acme_steady/__init__.py": b"",
        "acme_steady/plugin.py": PLUGIN.encode(),
        "acme_steady/plugin.toml": MANIFEST,
        "acme_steady/words.py": f'WORD = "{version}"\n'.encode(),
        **more,
    }
    return make_wheel(
        folder, "acme-steady", version, files=files, entry_points={"openclaw.plugins": {"steady": "acme_steady.plugin:SteadyPlugin"}}
    )


@dataclass
class Place:
    """A gateway in an environment of its own, and the wheels that go into it."""

    gateway: RunningGateway
    points: KillPoints
    site: Path
    old: Path
    new: Path

    def pip(self, *arguments: str) -> None:
        """Run the environment's pip, without the gateway."""
        command = [self.gateway.executable, "-m", "pip", *arguments, "--disable-pip-version-check", "--quiet"]
        subprocess.run(command, check=True, capture_output=True, timeout=60)

    def tree(self) -> dict[str, str]:
        """All that is installed, file by file."""
        found = [path for path in self.site.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
        return {str(path.relative_to(self.site)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}

    def problems(self) -> str:
        """What `plugins list` says without a gateway."""
        command = [self.gateway.executable, "-m", "openclaw_kernel", "plugins", "list", "--home", str(self.gateway.home)]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stderr

    async def answer(self) -> str | None:
        """The version that runs."""
        async with self.gateway.connect() as client:
            try:
                return str(await client.request("steady.answer"))
            except RequestFailed:
                return None

    async def change(self, method: str, params: dict[str, Any]) -> None:
        """Ask for a change, and see it done or the gateway killed."""
        try:
            async with self.gateway.connect() as client:
                await client.request(method, params, deadline=60)
        except (ConnectionEnded, OSError):
            assert await self.gateway.wait_ended() == -9


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    """One that is not running yet."""
    python = await asyncio.to_thread(venv_beside, tmp_path / "venv")
    (site,) = (tmp_path / "venv").glob("lib/python3*/site-packages")
    home = tmp_path / "home"
    gateway = RunningGateway(home, base_config(free_port()), arguments=(), env={})
    gateway.executable = str(python)
    gateway.write_config(gateway.config)
    points = KillPoints(tmp_path / "points").laid_into(site, [site, home / "replaced-plugins"])
    old = steady(tmp_path, "1.0", {"acme_steady/gone.py": b"OLD = 1\n", "acme_steady/old/__init__.py": b""})
    new = steady(tmp_path, "2.0", {"acme_steady/new/__init__.py": b"", "acme_more/__init__.py": b"NEW = 1\n"})
    yield Place(gateway, points, site, old, new)
    await gateway.sweep()


@pytest.mark.parametrize("operation", ["install", "upgrade", "remove"])
async def test_killed_at_any_step_all_is_as_before_or_as_it_was_to_be(place: Place, operation: str) -> None:
    params = {
        "install": {"requirement": str(place.new)},
        "upgrade": {"pluginId": "steady", "requirement": str(place.new)},
        "remove": {"pluginId": "steady"},
    }[operation]
    method = f"plugins.package.{operation}"
    versions = {"install": (None, "2.0"), "upgrade": ("1.0", "2.0"), "remove": ("1.0", None)}[operation]

    async def as_before() -> None:
        await asyncio.to_thread(place.pip, "uninstall", "--yes", "acme-steady")
        if operation != "install":
            await asyncio.to_thread(place.pip, "install", "--no-index", "--no-deps", str(place.old))

    await as_before()
    before = place.tree()
    await place.gateway.start()
    place.points.arm(0)
    await place.change(method, params)
    count = place.points.disarm()
    after = place.tree()
    assert before != after
    await place.gateway.stop()

    undone = 0
    for step in sorted({1 + number * (count - 1) // max(1, min(KILLS, count) - 1) for number in range(min(KILLS, count))}):
        if place.tree() != before:
            await as_before()
        await place.gateway.start()
        place.points.arm(step, place.gateway.process.pid)
        await place.change(method, params)
        where = f"step {step} of {count}: {place.points.steps()[-1]}"
        assert not place.gateway.is_running, where
        place.points.disarm()

        await place.gateway.start()

        found = place.tree()
        assert found in (before, after), f"{where}: {set(found.items()) ^ set(before.items())}"
        assert await place.answer() == versions[found == after], where
        assert list((place.gateway.home / "replaced-plugins").iterdir()) == [], where
        undone += found == before
        await place.gateway.stop()
    assert undone


async def test_a_start_that_is_killed_while_it_takes_back_is_followed_by_one_that_does(place: Place) -> None:
    await asyncio.to_thread(place.pip, "install", "--no-index", "--no-deps", str(place.old))
    before = place.tree()
    await place.gateway.start()
    place.points.arm(0)
    await place.change("plugins.package.upgrade", {"pluginId": "steady", "requirement": str(place.new)})
    steps = place.points.steps()
    place.points.disarm()
    await place.change("plugins.package.upgrade", {"pluginId": "steady", "requirement": str(place.old)})
    # As the new version begins to be written, the one before is away.
    amid = next(number for number, step in enumerate(steps, 1) if "acme_more/__init__.py" in step)
    place.points.arm(amid, place.gateway.process.pid)
    await place.change("plugins.package.upgrade", {"pluginId": "steady", "requirement": str(place.new)})
    place.points.disarm()
    assert place.tree() != before

    told = await asyncio.to_thread(place.problems)
    assert "the upgrade of acme-steady 1.0 was cut off; the next start of the gateway puts 1.0 back" in told

    place.points.arm(5)
    await place.gateway.spawn()
    assert await place.gateway.wait_ended() == -9
    place.points.disarm()

    await place.gateway.start()
    assert place.tree() == before
    assert await place.answer() == "1.0"
    assert "cut off" not in await asyncio.to_thread(place.problems)
    await place.gateway.stop()
