"""Fixes as they are made and taken back: a backup first, all steps or none, and a folder that remembers each.

`fixes/<id>/fix.json` says what was changed and what was there before, beside copies of the files. It is on disk before the first step,
so that a fix that was cut off can be taken back too.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, TypeGuard

from openclaw_config.secret_files import store_private
from openclaw_config.whole_files import sync_folder, write_new
from openclaw_kernel.checks import FIXES_FOLDER
from openclaw_kernel.checks.changes import CannotFix, ModeStep, Plan, as_json, digest_of, read_whole

FILE: Final = "fix.json"
KEPT: Final = 100
"""So many of the newest can be taken back."""
ID: Final = re.compile(r"[0-9]{8}-[0-9]{6}-[a-z0-9-]{1,120}")

_STEP_KEYS: Final[Mapping[Any, set[str]]] = {
    "mode": {"before", "after"},
    "content": {"backup", "beforeMode", "beforeDigest", "afterMode", "afterDigest"},
}


class FixBook:
    """The fixes of one state folder."""

    def __init__(self, home: Path) -> None:
        self._folder = home / FIXES_FOLDER

    def ids(self) -> list[str]:
        """All that were made, oldest first."""
        try:
            return sorted(path.name for path in self._folder.iterdir() if ID.fullmatch(path.name))
        except OSError:
            return []

    def read(self, fix_id: str) -> dict[str, Any]:
        """What is known of one; raise `CannotFix` where there is none."""
        try:
            if ID.fullmatch(fix_id) is None:
                raise FileNotFoundError
            found = json.loads((self._folder / fix_id / FILE).read_text(encoding="utf-8"))
            if not _is_record(found):
                raise ValueError
        except FileNotFoundError:
            made = ", ".join(self.ids()[-10:]) or "none"
            raise CannotFix(f"there is no fix {fix_id[:80]!r}; there are: {made}") from None
        except (OSError, ValueError) as error:
            raise CannotFix(f"fix {fix_id}: {FILE} cannot be read; restore what it changed from {self._folder / fix_id} by hand") from error
        return found

    def make(self, plan: Plan, check_id: str) -> str:
        """Back up, change all or nothing, and return the fix's id; raise `CannotFix`."""
        with self._alone():
            fix_id = self._new_id(check_id)
            folder = self._folder / fix_id
            taken: list[Mapping[str, Any]] = []
            try:
                record = self._back_up(plan, check_id, folder)
                for step, kept in zip(plan.steps, record["steps"], strict=True):
                    _carry_out(kept, forward=True, content=None if isinstance(step, ModeStep) else step.after)
                    taken.append(kept)
                self._write(fix_id, {**record, "state": "done"})
            except (OSError, CannotFix) as error:
                raise self._taken_back(folder, taken, error) from error
            self._forget_old()
            return fix_id

    def undo(self, fix_id: str) -> dict[str, Any]:
        """Put everything back as it was before; return what was undone. Raise `CannotFix` where something was changed since."""
        with self._alone():
            record = self.read(fix_id)
            if record.get("state") == "undone":
                raise CannotFix(f"fix {fix_id} was taken back already")
            for kept in record["steps"]:
                if not _is_known(kept):
                    raise CannotFix(f"{kept['path']}: was changed after the fix; put it back by hand, from {self._folder / fix_id}")
            try:
                _restore(self._folder / fix_id, record["steps"])
                undone = {**record, "state": "undone", "undoneMs": _now_ms()}
                self._write(fix_id, undone)
            except OSError as error:
                raise CannotFix(f"{_reason(error)}; run it again once that is mended") from error
            return undone

    def cut_off(self) -> list[tuple[str, str]]:
        """The fixes that were begun and neither ended nor taken back, each with the id of its check."""
        found = []
        for fix_id in self.ids():
            with suppress(CannotFix):
                record = self.read(fix_id)
                if record.get("state") == "begun":
                    found.append((str(record.get("check")), fix_id))
        return found

    def unrecorded(self) -> list[tuple[str, str, dict[str, Any]]]:
        """What the audit log does not know yet: the fix, whether it was `done` or `undone`, and what is known of it."""
        found = []
        for fix_id in self.ids():
            with suppress(CannotFix):
                record = self.read(fix_id)
                reached = {"done": ("done",), "undone": ("done", "undone")}.get(str(record.get("state")), ())
                found += [(fix_id, state, record) for state in reached if state not in record.get("recorded", ())]
        return found

    def recorded(self, fix_id: str, state: str) -> None:
        """Remember that the audit log has it; raise `OSError`, `CannotFix`."""
        record = self.read(fix_id)
        self._write(fix_id, {**record, "recorded": [*record.get("recorded", ()), state]})

    def _forget_old(self) -> None:
        """Remove what is over, in the audit log, and older than so many others; its backups hold the secrets of its time."""
        unrecorded = {fix_id for fix_id, _, _ in self.unrecorded()}
        for fix_id in self.ids()[:-KEPT]:
            with suppress(CannotFix):
                if fix_id not in unrecorded and self.read(fix_id).get("state") in {"done", "undone"}:
                    shutil.rmtree(self._folder / fix_id, ignore_errors=True)

    def _back_up(self, plan: Plan, check_id: str, folder: Path) -> dict[str, Any]:
        folder.mkdir(mode=0o700)
        steps = []
        for number, step in enumerate(plan.steps):
            backup = None
            if not isinstance(step, ModeStep) and step.before is not None:
                backup = f"{number}.before"
                write_new(folder / backup, step.before)
            steps.append(as_json(step, backup))
        record = {"check": check_id, "summary": plan.fix.summary, "madeMs": _now_ms(), "state": "begun", "recorded": [], "steps": steps}
        self._write(folder.name, record)
        return record

    def _taken_back(self, folder: Path, taken: Sequence[Mapping[str, Any]], error: Exception) -> CannotFix:
        try:
            _restore(folder, taken)
            shutil.rmtree(folder, ignore_errors=True)
        except (OSError, CannotFix) as second:
            return CannotFix(f"{_reason(error)}; then {_reason(second)}: put back what it changed with --undo {folder.name}")
        return CannotFix(f"{_reason(error)}; nothing was changed")

    def _write(self, fix_id: str, record: Mapping[str, Any]) -> None:
        store_private(self._folder / fix_id / FILE, json.dumps(record, indent=1) + "\n")

    def _new_id(self, check_id: str) -> str:
        base = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{check_id.replace('.', '-')[:100]}"
        number, fix_id = 1, base
        while (self._folder / fix_id).exists():
            number += 1
            fix_id = f"{base}-{number}"
        return fix_id

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One at a time in a state folder."""
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            raise CannotFix(_reason(error)) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError:
            raise CannotFix("another fix is being made; run it again once that is done") from None
        finally:
            os.close(descriptor)


def _is_record(found: Any) -> TypeGuard[dict[str, Any]]:
    if not isinstance(found, dict) or not isinstance(found.get("summary"), str) or not isinstance(found.get("steps"), list):
        return False
    steps = found["steps"]
    return all(
        isinstance(step, dict) and isinstance(step.get("path"), str) and _STEP_KEYS.get(step.get("kind"), {""}) <= step.keys()
        for step in steps
    )


def _restore(folder: Path, steps: Sequence[Mapping[str, Any]]) -> None:
    for kept in reversed(steps):
        content = None if kept.get("backup") is None else (folder / kept["backup"]).read_bytes()
        _carry_out(kept, forward=False, content=content)


def _is_known(kept: Mapping[str, Any]) -> bool:
    """Whether what is there is what the fix left, or what was there before it."""
    path = Path(kept["path"])
    try:
        if kept["kind"] == "mode":
            return stat.S_IMODE(path.lstat().st_mode) in {kept["before"], kept["after"]}
        found = read_whole(path)
    except OSError:
        return False
    return digest_of(None if found is None else found[0]) in {kept["beforeDigest"], kept["afterDigest"]}


def _carry_out(kept: Mapping[str, Any], *, forward: bool, content: bytes | None) -> None:
    """Take one step, or take it back. What is there already stays."""
    path = Path(kept["path"])
    source, target = ("before", "after") if forward else ("after", "before")
    if kept["kind"] == "mode":
        _set_mode(path, kept[source], kept[target])
        return
    found = read_whole(path)
    digest = digest_of(None if found is None else found[0])
    if digest == kept[f"{target}Digest"]:
        return
    if digest != kept[f"{source}Digest"]:
        raise CannotFix(f"{path}: was changed meanwhile")
    if content is None:
        path.unlink()
    else:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        _replace(path, content, kept[f"{target}Mode"])


def _set_mode(path: Path, source: int, target: int) -> None:
    # Opened without following a link, so that the mode is that of what was looked at.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    try:
        found = stat.S_IMODE(os.fstat(descriptor).st_mode)
        if found not in {source, target}:
            raise CannotFix(f"{path}: has the mode {found:04o} meanwhile")
        os.fchmod(descriptor, target)
    finally:
        os.close(descriptor)


def _replace(path: Path, content: bytes, mode: int) -> None:
    """The whole content at once; owner and group stay."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        write_new(temporary, content)
        with suppress(FileNotFoundError):
            owner = path.lstat()
            os.chown(temporary, owner.st_uid, owner.st_gid)
        temporary.chmod(mode)
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    sync_folder(path.parent)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror.lower()}" if error.filename else error.strerror.lower()
    return str(error)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
