"""Backups: made beside a working gateway, whole or refused, restorable to a gateway that knows all it knew."""

from __future__ import annotations

import errno
import io
import json
import os
import resource
import sqlite3
import stat
import tarfile
import uuid
from pathlib import Path

import pytest

from openclaw_config.home import prepare_home
from openclaw_kernel.backup.checking import problems_of, verify
from openclaw_kernel.backup.contents import MANIFEST, BackupError, members
from openclaw_kernel.backup.creating import create
from openclaw_kernel.backup.restoring import WITHDRAWN, restore
from openclaw_kernel.lock import StateLock
from tests.kernel.cli.command import run_command
from tests.support.gateway import RunningGateway, StartGateway
from tests.support.ws_client import is_chat


async def say(gateway: RunningGateway, text: str) -> None:
    run = str(uuid.uuid4())
    async with gateway.connect() as client:
        await client.request("chat.send", {"sessionKey": "agent:main:main", "message": text, "idempotencyKey": run})
        await client.expect_event(is_chat("final", run=run))


async def texts(gateway: RunningGateway) -> str:
    async with gateway.connect() as client:
        return json.dumps(await client.request("chat.history", {"sessionKey": "agent:main:main"}))


async def test_a_scratch_home_from_a_backup_made_while_it_worked_knows_what_it_knew(start_gateway: StartGateway, tmp_path: Path) -> None:
    gateway = await start_gateway()
    await say(gateway, "remember the heron")
    file = tmp_path / "kept.tar.gz"
    made = await run_command("backup", "create", str(file), home=gateway.home)
    assert (made.status, made.err) == (0, "")
    await say(gateway, "said after the backup")
    assert (await run_command("backup", "verify", str(file), home=gateway.home)).status == 0

    scratch = tmp_path / "scratch"
    restored = await run_command("backup", "restore", str(file), "--json", home=scratch)
    assert restored.status == 0, restored.err
    assert json.loads(restored.out)["problems"] == []
    other = await start_gateway(home=scratch)
    history = await texts(other)
    assert "remember the heron" in history
    assert "said after the backup" not in history


def a_home(folder: Path) -> Path:
    home = folder / "home"
    prepare_home(home)
    (home / "workspace" / "main").mkdir(parents=True)
    (home / "workspace" / "main" / "notes.md").write_text("a note")
    (home / "workspace" / "link").symlink_to(home / "workspace" / "main")
    (home / "logs").mkdir()
    (home / "logs" / "gateway.log").write_text("a line")
    connection = sqlite3.connect(home / "state.sqlite3")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE kept (name TEXT)")
    connection.execute("INSERT INTO kept VALUES ('committed')")
    connection.commit()
    connection.close()
    return home


def test_what_others_write_meanwhile_is_in_it_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    home = a_home(tmp_path)
    writer = sqlite3.connect(home / "state.sqlite3")
    writer.execute("BEGIN")
    writer.execute("INSERT INTO kept VALUES ('not committed')")
    create(home, tmp_path / "b.tar.gz")
    writer.rollback()
    writer.close()
    restore(tmp_path / "b.tar.gz", tmp_path / "other", replace=False)
    connection = sqlite3.connect(tmp_path / "other" / "state.sqlite3")
    assert connection.execute("SELECT name FROM kept").fetchall() == [("committed",)]
    connection.close()


def test_nobody_else_can_read_it_and_the_log_is_left_out(tmp_path: Path) -> None:
    made = create(a_home(tmp_path), tmp_path / "b.tar.gz")
    assert stat.S_IMODE(made.path.stat().st_mode) == 0o600
    assert made.left_out["logs"] == "the log is not state"
    restore(made.path, tmp_path / "other", replace=False)
    assert stat.S_IMODE((tmp_path / "other").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "other" / "gateway.token").stat().st_mode) == 0o600
    assert not (tmp_path / "other" / "logs").exists()
    assert (tmp_path / "other" / "workspace" / "link" / "notes.md").read_text() == "a note"


def test_a_link_that_leads_out_is_named_but_a_config_kept_elsewhere_is_taken(tmp_path: Path) -> None:
    home = a_home(tmp_path)
    (tmp_path / "elsewhere.yaml").write_bytes((home / "openclaw.yaml").read_bytes())
    (home / "openclaw.yaml").unlink()
    (home / "openclaw.yaml").symlink_to(tmp_path / "elsewhere.yaml")
    (home / "workspace" / "out").symlink_to("/etc/passwd")
    made = create(home, tmp_path / "b.tar.gz")
    assert "leads out of the folder" in made.left_out["workspace/out"]
    restore(made.path, tmp_path / "other", replace=False)
    assert (tmp_path / "other" / "openclaw.yaml").read_bytes() == (tmp_path / "elsewhere.yaml").read_bytes()
    assert not (tmp_path / "other" / "openclaw.yaml").is_symlink()


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.9, 0.999])
def test_a_backup_that_was_cut_off_is_refused_and_leaves_nothing(tmp_path: Path, share: float) -> None:
    whole = create(a_home(tmp_path), tmp_path / "b.tar.gz").path.read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(BackupError, match="take another"):
        verify(tmp_path / "cut.tar.gz")
    with pytest.raises(BackupError):
        restore(tmp_path / "cut.tar.gz", tmp_path / "other", replace=False)
    assert not [item.name for item in tmp_path.iterdir() if "other" in item.name]


def rewritten(source: Path, target: Path, *, change: bytes | None = None, name: str = "", add: tarfile.TarInfo | None = None) -> None:
    """The same backup with one member changed, renamed away or added."""
    with tarfile.open(source, "r:gz") as before, tarfile.open(target, "w:gz") as after:
        for entry in before:
            file = before.extractfile(entry) if entry.isfile() else None
            content = file.read() if file else b""
            if add is not None and entry.name == MANIFEST:
                after.addfile(add, io.BytesIO(b""))
            if entry.name == name:
                if change is None:
                    continue
                content = change
                entry.size = len(change)
            after.addfile(entry, io.BytesIO(content) if entry.isfile() else None)


def test_a_member_that_was_changed_removed_or_added_is_named(tmp_path: Path) -> None:
    whole = create(a_home(tmp_path), tmp_path / "b.tar.gz").path
    for number, (name, change) in enumerate([("gateway.token", b"another"), ("workspace/main/notes.md", None)]):
        rewritten(whole, tmp_path / f"{number}.tar.gz", name=name, change=change)
        with pytest.raises(BackupError, match=name):
            verify(tmp_path / f"{number}.tar.gz")
    rewritten(whole, tmp_path / "more.tar.gz", add=tarfile.TarInfo("planted"))
    with pytest.raises(BackupError, match="planted"):
        verify(tmp_path / "more.tar.gz")


def test_no_member_gets_out_of_the_folder(tmp_path: Path) -> None:
    whole = create(a_home(tmp_path), tmp_path / "b.tar.gz").path
    rewritten(whole, tmp_path / "evil.tar.gz", add=tarfile.TarInfo("../escaped"))
    with pytest.raises(BackupError):
        restore(tmp_path / "evil.tar.gz", tmp_path / "other", replace=False)
    assert not (tmp_path / "escaped").exists()


def test_a_database_that_is_not_sound_is_said(tmp_path: Path) -> None:
    home = a_home(tmp_path)
    made = create(home, tmp_path / "b.tar.gz")
    restore(made.path, tmp_path / "other", replace=False)
    database = tmp_path / "other" / "state.sqlite3"
    content = bytearray(database.read_bytes())
    content[4096:4196] = os.urandom(100)
    database.write_bytes(content)
    assert any("state.sqlite3 is not sound" in problem for problem in problems_of(tmp_path / "other"))


def test_a_folder_that_holds_something_is_kept_and_moved_aside_on_demand(tmp_path: Path) -> None:
    home = a_home(tmp_path)
    made = create(home, tmp_path / "b.tar.gz")
    (home / "later.txt").write_text("later")
    with pytest.raises(BackupError, match="--replace"):
        restore(made.path, home, replace=False)
    restored = restore(made.path, home, replace=True)
    assert not (home / "later.txt").exists()
    assert restored.aside is not None
    assert (restored.aside / "later.txt").read_text() == "later"


def test_under_a_running_gateway_nothing_is_restored(tmp_path: Path) -> None:
    home = a_home(tmp_path)
    made = create(home, tmp_path / "b.tar.gz")
    lock = StateLock(home)
    lock.acquire()
    try:
        with pytest.raises(BackupError, match="already runs"):
            restore(made.path, home, replace=True)
    finally:
        lock.release()
    assert (home / "gateway.token").exists()


def test_an_older_backup_gives_no_device_back_that_was_removed_since(tmp_path: Path) -> None:
    home = a_home(tmp_path)
    file = home / WITHDRAWN
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"generation": 3, "forgotten": 0, "devices": {}}))
    made = create(home, tmp_path / "b.tar.gz")
    file.write_text(json.dumps({"generation": 9, "forgotten": 0, "devices": {}}))
    assert restore(made.path, home, replace=True).kept_withdrawals
    assert json.loads(file.read_text())["generation"] == 9
    assert not restore(made.path, tmp_path / "scratch", replace=False).kept_withdrawals


def test_nothing_is_written_over(tmp_path: Path) -> None:
    home = a_home(tmp_path)
    (tmp_path / "b.tar.gz").write_text("mine")
    with pytest.raises(BackupError, match="is there already"):
        create(home, tmp_path / "b.tar.gz")
    assert (tmp_path / "b.tar.gz").read_text() == "mine"
    with pytest.raises(BackupError, match="outside of it"):
        create(home, home / "b.tar.gz")


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP])
def test_where_there_are_no_hard_links_it_is_made_too_and_nothing_is_written_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    home, target = a_home(tmp_path), tmp_path / "b.tar.gz"
    comes: list[str] = []

    def refuse(_source: Path, _target: Path) -> None:
        # Somebody else's file may come in the last moment.
        for text in comes:
            target.write_text(text)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuse)
    made = create(home, target)
    assert verify(target).files == made.files
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    target.unlink()
    comes.append("theirs")
    with pytest.raises(BackupError, match="is there already"):
        create(home, target)
    assert target.read_text() == "theirs"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.tar.gz", "home"]


def test_a_file_of_any_name_comes_back_also_one_that_is_called_like_a_list_of_files(tmp_path: Path) -> None:
    home = a_home(tmp_path)
    names = ["manifest.json", "a\nline", " spaces ", os.fsdecode(b"\xff\xfe")]
    for name in names:
        (home / name).write_text(name.encode(errors="surrogateescape").hex())
    (home / "workspace" / "loop").symlink_to("loop")
    made = create(home, tmp_path / "b.tar.gz")
    assert verify(made.path).files == made.files
    restore(made.path, tmp_path / "other", replace=False)
    for name in names:
        assert (tmp_path / "other" / name).read_text() == name.encode(errors="surrogateescape").hex()
    assert (tmp_path / "other" / "workspace" / "loop").is_symlink()


def test_a_backup_of_what_was_unpacked_by_hand_is_whole(tmp_path: Path) -> None:
    made = create(a_home(tmp_path), tmp_path / "b.tar.gz")
    with tarfile.open(made.path) as archive:
        archive.extractall(tmp_path / "by-hand", filter="data")
    again = create(tmp_path / "by-hand", tmp_path / "again.tar.gz")
    assert "unpacked by hand" in again.left_out[MANIFEST]
    assert verify(again.path).problems == ()


def test_a_folder_that_goes_while_it_is_looked_at_is_named(tmp_path: Path) -> None:
    home = a_home(tmp_path)
    (home / "brief").mkdir()
    left_out: dict[str, str] = {}
    for member in members(home, left_out):
        if member.name == "brief":
            member.path.rmdir()
    assert left_out["brief"] == "gone while the backup was made"


def test_where_there_is_no_place_to_unpack_the_backup_is_not_blamed(tmp_path: Path) -> None:
    made = create(a_home(tmp_path), tmp_path / "b.tar.gz")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(BackupError, match=r"cannot be unpacked there \(file too large\)"):
            restore(made.path, tmp_path / "other", replace=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [item.name for item in tmp_path.iterdir() if "other" in item.name] == []


def test_what_the_link_of_a_state_folder_leads_to_is_swapped_and_the_link_stays(tmp_path: Path) -> None:
    home = a_home(tmp_path)
    made = create(home, tmp_path / "b.tar.gz")
    (tmp_path / "disk").mkdir()
    home.rename(tmp_path / "disk" / "real")
    home.symlink_to(tmp_path / "disk" / "real")
    restored = restore(made.path, home, replace=True)
    assert home.is_symlink()
    assert restored.aside is not None
    assert (restored.aside.parent, restored.aside.is_symlink()) == (tmp_path / "disk", False)
    assert (home / "gateway.token").exists()


def test_a_folder_with_nothing_but_the_lock_of_an_earlier_gateway_is_empty(tmp_path: Path) -> None:
    made = create(a_home(tmp_path), tmp_path / "b.tar.gz")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "gateway.lock").write_text("{}")
    assert restore(made.path, tmp_path / "other", replace=False).aside is None


def test_a_file_that_somebody_laid_down_for_it_gets_nothing_of_it(tmp_path: Path) -> None:
    planted = tmp_path / ".b.tar.gz.partial"
    planted.write_text("")
    create(a_home(tmp_path), tmp_path / "b.tar.gz")
    assert planted.read_text() == ""
    assert sorted(item.name for item in tmp_path.iterdir()) == [".b.tar.gz.partial", "b.tar.gz", "home"]
