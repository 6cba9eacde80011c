"""One gateway per state folder, whatever happens to files in it or to processes."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from openclaw_kernel.files.mounts import far_type
from openclaw_kernel.lock import FILE_NAME, AlreadyRunning, CannotLock, StateLock, doubts, is_running, read_owner, unusable
from tests.support.frames import recorded
from tests.support.requirements import REQUIREMENTS
from tests.support.source_tree import read_project

HOLD = """
import sys, time
from pathlib import Path
from openclaw_kernel.lock import StateLock
lock = StateLock(Path(sys.argv[1]))
lock.acquire()
lock.describe({"pid": 1, "url": "http://127.0.0.1:1"})
print("held", flush=True)
time.sleep(60)
"""


def holder(home: Path) -> subprocess.Popen[str]:
    """A process that holds the lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(home)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def end(process: subprocess.Popen[str]) -> None:
    """Kill it as a crash would."""
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_a_second_one_is_told_who_was_first(tmp_path: Path) -> None:
    first = StateLock(tmp_path)
    first.acquire()
    first.describe({"pid": 42, "url": "http://127.0.0.1:18789"})
    with pytest.raises(AlreadyRunning, match=r"at http://127\.0\.0\.1:18789 \(pid 42\); stop it, or use another --home") as refused:
        StateLock(tmp_path).acquire()
    assert refused.value.owner == {"pid": 42, "url": "http://127.0.0.1:18789"}
    first.release()
    second = StateLock(tmp_path)
    second.acquire()
    second.release()
    second.release()


def test_a_crash_frees_the_lock_and_what_the_file_says_does_not_matter(tmp_path: Path) -> None:
    process = holder(tmp_path)
    try:
        with pytest.raises(AlreadyRunning):
            StateLock(tmp_path).acquire()
    finally:
        end(process)
    # Another live process has the number by now.
    (tmp_path / FILE_NAME).write_text(f'{{"pid": {os.getppid()}}}')
    lock = StateLock(tmp_path)
    lock.acquire()
    assert read_owner(tmp_path) == {"pid": os.getpid()}
    lock.release()


@pytest.mark.parametrize("change", ["delete", "replace", "truncate"])
def test_no_change_of_the_file_lets_a_second_one_in(tmp_path: Path, change: str) -> None:
    process = holder(tmp_path)
    file = tmp_path / FILE_NAME
    try:
        if change == "truncate":
            file.write_text("")
        else:
            file.unlink()
            if change == "replace":
                file.write_text("{}")
        with pytest.raises(AlreadyRunning, match="an address it has not written yet"):
            StateLock(tmp_path).acquire()
    finally:
        end(process)


def test_children_do_not_keep_the_lock(tmp_path: Path) -> None:
    lock = StateLock(tmp_path)
    lock.acquire()
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], close_fds=False, text=True, stdout=subprocess.PIPE)
    read_end, write_end = os.pipe()
    forked = os.fork()
    if forked == 0:
        os.close(write_end)
        os.read(read_end, 1)
        os._exit(0)
    os.close(read_end)
    try:
        lock.release()
        again = StateLock(tmp_path)
        again.acquire()
        again.release()
    finally:
        os.close(write_end)
        os.waitpid(forked, 0)
        end(child)


def test_a_folder_that_is_not_there_or_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(CannotLock, match=r"none: the state folder cannot be used \(no such file or directory\); make it writable"):
        StateLock(tmp_path / "none").acquire()
    (tmp_path / FILE_NAME).mkdir()
    with pytest.raises(CannotLock, match="cannot be used"):
        StateLock(tmp_path).acquire()
    (tmp_path / FILE_NAME).rmdir()
    # What failed holds nothing.
    lock = StateLock(tmp_path)
    lock.acquire()
    lock.release()


def test_the_description_follows_no_link(tmp_path: Path) -> None:
    home, other = tmp_path / "home", tmp_path / "other"
    home.mkdir()
    other.write_text("precious")
    (home / FILE_NAME).symlink_to(other)
    lock = StateLock(home)
    lock.acquire()
    lock.release()
    assert other.read_text() == "precious"
    assert (home / FILE_NAME).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("content", ["", "[]", "nonsense", '{"pid":', "\udcff"])
def test_an_owner_that_cannot_be_read_is_nobody(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE_NAME).write_bytes(content.encode("utf-8", "surrogateescape"))
    assert read_owner(tmp_path) == {}


def test_describing_without_the_lock_is_a_fault_of_the_caller(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="the lock is not held"):
        StateLock(tmp_path).describe({})


def mounted(folder: Path, kind: str) -> Path:
    """A table of mounts in which a folder is on a file system of this kind."""
    table = folder.parent / "mountinfo"
    table.write_text(f"22 1 0:1 / / rw - ext4 /dev/sda1 rw\n23 22 0:2 / {folder} rw - {kind} server:/export rw\n")
    return table


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EBADF, errno.EOPNOTSUPP])
def test_a_file_system_that_keeps_no_locks_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    home = tmp_path / "home"
    home.mkdir()
    failure = OSError(code, os.strerror(code))
    assert unusable(home, failure) == (
        f"{home}: its file system keeps no locks, so two gateways could run on it at once; put the state folder on a disk of this machine "
        "by --home"
    )
    monkeypatch.setattr(far_type, "__defaults__", (mounted(home, "nfs4"),))
    assert "the network file system it is on (nfs4) keeps no locks" in unusable(home, failure)


def test_a_network_file_system_that_keeps_locks_is_doubted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    home.mkdir()
    assert doubts(home) == []
    monkeypatch.setattr(far_type, "__defaults__", (mounted(home, "cifs"),))
    (doubt,) = doubts(home)
    assert doubt.startswith(f"{home} is on a network file system (cifs), where another machine's gateway may not see the lock")
    assert doubt.endswith("; move the state folder to a disk of this machine")
    assert "it is on a network file system (cifs)" in unusable(home, PermissionError(errno.EACCES, "Permission denied"))


READ_ONLY = """
set -e
mount -t tmpfs tmpfs "$1"
printf '{"gateway": {"port": 0, "auth": {"mode": "none"}}}' > "$1/openclaw.yaml"
chmod 700 "$1"
mount -o remount,ro "$1"
shift
exec "$@"
"""


@pytest.mark.requires("mount-namespace")
def test_a_file_system_that_is_read_only_is_told_apart(tmp_path: Path) -> None:
    command = [*recorded(sys.executable), "run", "--home", str(tmp_path)]
    unshared: list[str | Path] = [REQUIREMENTS["mount-namespace"](), "--mount", "sh", "-c", READ_ONLY, "sh", tmp_path, *command]
    refused = subprocess.run(unshared, capture_output=True, text=True, check=False)
    assert refused.returncode == 78
    assert "the state folder is on a file system that is mounted read-only" in refused.stderr
    assert "mount it for writing, or use --home" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_who_else_locks_locks_a_folder_of_its_own() -> None:
    """The state folder's own lock is the gateway's: one that a command took in passing would keep a gateway from starting."""
    source = read_project()
    callers = {module.name for module in source if "fcntl.flock(" in module.source}
    assert callers == {
        "openclaw_kernel.lock",
        # secrets/oauth, and fixes.
        "openclaw_kernel.oauth.tokens",
        "openclaw_kernel.checks.fixes",
    }


def test_a_process_that_is_gone_or_has_no_address_is_not_said_to_run() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    url = {"url": "http://127.0.0.1:1"}
    assert is_running(url | {"pid": os.getpid()})
    assert not is_running(url | {"pid": gone.pid})
    assert not is_running({"pid": os.getpid()})
    assert not is_running(url)
    assert not is_running(url | {"pid": 2**70})


@pytest.mark.parametrize("began", [10**30, -(10**30)])
def test_a_time_that_is_none_is_left_out_of_who_runs(tmp_path: Path, began: int) -> None:
    assert "(pid 42)" in str(AlreadyRunning(tmp_path / FILE_NAME, {"pid": 42, "startedAtMs": began}))
