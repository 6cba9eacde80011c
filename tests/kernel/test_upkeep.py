"""What a gateway does beside its work: a start removes what an earlier one was killed over."""

from __future__ import annotations

import os
from pathlib import Path

from openclaw_config.whole_files import beside
from openclaw_kernel.upkeep import end_leftovers
from tests.support.gateway import StartGateway


def left(path: Path) -> Path:
    """As a gateway leaves it that was killed between the write and the rename, long ago."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = beside(path)
    path.write_text("gateway: {auth: {token: ")
    os.utime(path, (0, 0))
    return path


async def test_a_start_removes_what_an_earlier_gateway_left_half_written(start_gateway: StartGateway, tmp_path: Path) -> None:
    home = tmp_path / "state"
    names = ("openclaw.yaml", "generations/last-good", "generations/rejected/a.yaml", "secrets/token", "secrets/oauth/openai.json")
    files = [left(home / name) for name in names]
    gateway = await start_gateway(home=home)
    await gateway.wait_line(f"removed {len(files)} files that were left half written")
    assert [path for path in files if path.exists()] == []


async def test_beside_a_file_that_is_linked_only_its_own_is_removed(tmp_path: Path) -> None:
    home, elsewhere = tmp_path / "state", tmp_path / "dotfiles"
    mine, other = left(elsewhere / "gateway.yaml"), left(elsewhere / "editor.yaml")
    home.mkdir()
    (home / "openclaw.yaml").symlink_to(elsewhere / "gateway.yaml")
    await end_leftovers(home)
    assert (mine.exists(), other.exists()) == (False, True)
