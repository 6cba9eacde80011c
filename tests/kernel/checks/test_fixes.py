"""Fixes: told before, backed up, all or nothing, and taken back byte for byte."""

from __future__ import annotations

import asyncio
import fcntl
import os
from pathlib import Path

import pytest

from openclaw_config.home import prepare_home
from openclaw_kernel.api import Fix, SetKey, SetMode, WriteFile
from openclaw_kernel.checks import fixes as fixes_module
from openclaw_kernel.checks.audit import audit
from openclaw_kernel.checks.changes import CannotFix, Plan, plan
from openclaw_kernel.checks.fixes import FixBook

CHECK = "some.check"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A state folder as the first start makes it, with a debugging log and a secret in openclaw.yaml."""
    folder = tmp_path / "home"
    prepare_home(folder)
    config = folder / "openclaw.yaml"
    config.write_text("# mine\nlogging: {level: debug}  # for a day\nsecrets: {entries: {github: canary-0123456789}}\n")
    return folder


def planned(home: Path, *changes: SetMode | WriteFile | SetKey) -> Plan:
    return plan(Fix(summary="mend it", changes=changes), home=home, config_path=home / "openclaw.yaml")


def everything(home: Path) -> dict[str, tuple[int, bytes]]:
    """Every file but those of fixes, with its mode and content."""
    return {
        str(path.relative_to(home)): (path.stat().st_mode, path.read_bytes() if path.is_file() else b"")
        for path in sorted(home.rglob("*"))
        if "fixes" not in path.parts
    }


def changes(home: Path) -> tuple[SetMode | WriteFile | SetKey, ...]:
    return (
        SetMode(path=home / "gateway.token", mode=0o400),
        WriteFile(path=home / "secrets" / "github", text="canary-0123456789\n", told="the secret that stood in openclaw.yaml"),
        SetKey(key=("secrets", "entries", "github"), value="${file:secrets/github}", secret=True),
        SetKey(key=("logging", "level"), value="info"),
    )


def test_what_would_change_is_told_without_the_secret_and_changes_nothing(home: Path) -> None:
    before = everything(home)
    told = planned(home, *changes(home)).told
    assert told == [
        f"{home}/gateway.token: mode 0600 -> 0400",
        f"{home}/secrets/github: the secret that stood in openclaw.yaml",
        f"{home}/openclaw.yaml:3: - secrets.entries.github: (the secret that stands there)",
        f'{home}/openclaw.yaml:3: + secrets.entries.github: "${{file:secrets/github}}"',
        f'{home}/openclaw.yaml:2: - logging.level: "debug"',
        f'{home}/openclaw.yaml:2: + logging.level: "info"',
    ]
    assert everything(home) == before


def test_another_secret_on_the_same_line_is_not_told(home: Path) -> None:
    text = 'channels: {telegram: {botToken: "1:canary-\\x37", webhookSecret: canary-88, allowFrom: [1, "*"]}}  # was canary-99\n'
    (home / "openclaw.yaml").write_text(text)
    told = planned(
        home,
        SetKey(key=("channels", "telegram", "botToken"), value="${file:secrets/bot}", secret=True),
        SetKey(key=("channels", "telegram", "allowFrom"), value=[1]),
    ).told
    assert len(told) == 4
    assert "canary" not in "\n".join(told)


def test_a_fix_is_made_and_taken_back_to_the_byte(home: Path) -> None:
    (home / "openclaw.yaml").chmod(0o640)
    before = everything(home)
    book = FixBook(home)
    fix_id = book.make(planned(home, *changes(home)), CHECK)
    assert (home / "secrets" / "github").read_text() == "canary-0123456789\n"
    assert (home / "openclaw.yaml").read_text().count("# for a day") == 1
    assert (home / "openclaw.yaml").stat().st_mode & 0o777 == 0o640
    assert (home / "gateway.token").stat().st_mode & 0o777 == 0o400
    assert all(path.stat().st_mode & 0o077 == 0 for path in (home / "fixes").rglob("*"))
    assert "canary" not in (home / "fixes" / fix_id / "fix.json").read_text()
    book.undo(fix_id)
    after = everything(home)
    # The folder may stay; what was in it is gone.
    assert after.pop("secrets", None) is not None
    assert after == before
    with pytest.raises(CannotFix, match="was taken back already"):
        book.undo(fix_id)


def test_one_step_that_fails_undoes_those_before(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = planned(home, *changes(home))
    before = everything(home)
    # The configuration is changed by somebody else between the plan and the fix.
    real = fixes_module._carry_out

    def meddle(kept: dict[str, object], *, forward: bool, content: bytes | None) -> None:
        if forward and str(kept["path"]).endswith("openclaw.yaml"):
            (home / "openclaw.yaml").write_text("logging: {level: error}\n")
        real(kept, forward=forward, content=content)

    monkeypatch.setattr(fixes_module, "_carry_out", meddle)
    with pytest.raises(CannotFix, match=r"openclaw\.yaml: was changed meanwhile; nothing was changed"):
        FixBook(home).make(made, CHECK)
    after = everything(home)
    assert after["gateway.token"] == before["gateway.token"]
    assert "secrets/github" not in after
    assert (home / "openclaw.yaml").read_text() == "logging: {level: error}\n"


def test_a_fix_that_was_cut_off_can_be_taken_back(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = everything(home)
    made = planned(home, *changes(home))

    class Killed(BaseException):
        pass

    real = fixes_module._carry_out

    def die(kept: dict[str, object], *, forward: bool, content: bytes | None) -> None:
        if str(kept["path"]).endswith("openclaw.yaml"):
            raise Killed
        real(kept, forward=forward, content=content)

    monkeypatch.setattr(fixes_module, "_carry_out", die)
    with pytest.raises(Killed):
        FixBook(home).make(made, CHECK)
    monkeypatch.undo()
    (fix_id,) = FixBook(home).ids()
    reason = f"a fix was cut off; take it back with --undo {fix_id}"
    assert asyncio.run(audit(home, None, deep=False, fix=False)).not_fixed == [(CHECK, reason)]
    FixBook(home).undo(fix_id)
    assert asyncio.run(audit(home, None, deep=False, fix=False)).not_fixed == []
    after = everything(home)
    after.pop("secrets", None)
    assert after == before


def test_only_so_many_are_kept_and_none_that_nobody_has_written_down(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fixes_module, "KEPT", 2)
    book, made = FixBook(home), []
    for mode in (0o400, 0o600, 0o400, 0o600):
        made.append(book.make(planned(home, SetMode(path=home / "gateway.token", mode=mode)), CHECK))
        if len(made) != 2:
            book.recorded(made[-1], "done")
    assert book.ids() == sorted(made[1:])


def test_what_was_changed_since_is_not_undone(home: Path) -> None:
    book = FixBook(home)
    fix_id = book.make(planned(home, SetKey(key=("logging", "level"), value="info")), CHECK)
    (home / "openclaw.yaml").write_text("logging: {level: error}\n")
    with pytest.raises(CannotFix, match="was changed after the fix; put it back by hand, from"):
        book.undo(fix_id)
    assert (home / "openclaw.yaml").read_text() == "logging: {level: error}\n"


def test_an_unknown_fix_is_refused_with_those_there_are(home: Path) -> None:
    book = FixBook(home)
    with pytest.raises(CannotFix, match="there is no fix 'x'; there are: none"):
        book.undo("x")
    fix_id = book.make(planned(home, SetKey(key=("logging", "level"), value="info")), CHECK)
    with pytest.raises(CannotFix, match=f"there are: {fix_id}"):
        book.undo("../..")


@pytest.mark.parametrize(
    "text", ["{}", '{"summary": "", "steps": [{}]}', '{"summary": "", "steps": [{"path": "/x", "kind": "mode"}]}', "[", "[]"]
)
def test_a_record_that_is_damaged_is_named_and_nothing_is_undone(home: Path, text: str) -> None:
    book = FixBook(home)
    fix_id = book.make(planned(home, SetKey(key=("logging", "level"), value="info")), CHECK)
    (home / "fixes" / fix_id / "fix.json").write_text(text)
    before = (home / "openclaw.yaml").read_bytes()
    with pytest.raises(CannotFix, match="cannot be read; restore what it changed"):
        book.undo(fix_id)
    assert (home / "openclaw.yaml").read_bytes() == before


def test_a_link_stays_a_link(home: Path, tmp_path: Path) -> None:
    real = tmp_path / "dotfiles.yaml"
    (home / "openclaw.yaml").rename(real)
    (home / "openclaw.yaml").symlink_to(real)
    FixBook(home).make(planned(home, SetKey(key=("logging", "level"), value="info")), CHECK)
    assert (home / "openclaw.yaml").is_symlink()
    assert 'level: "info"' in real.read_text()


@pytest.mark.parametrize("name", ["../elsewhere", "secrets/../../elsewhere"])
def test_nothing_is_written_outside_the_state_folder(home: Path, name: str) -> None:
    with pytest.raises(CannotFix, match="is not below the state folder"):
        planned(home, WriteFile(path=home / name, text="x", told="x"))


def test_no_link_is_followed_where_a_mode_is_set(home: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("x")
    (home / "token").symlink_to(target)
    with pytest.raises(CannotFix, match="is a link"):
        planned(home, SetMode(path=home / "token", mode=0o600))
    target.chmod(0o644)
    made = planned(home, SetMode(path=home / "gateway.token", mode=0o600))
    (home / "gateway.token").unlink()
    (home / "gateway.token").symlink_to(target)
    with pytest.raises(CannotFix, match="nothing was changed"):
        FixBook(home).make(made, CHECK)
    assert target.stat().st_mode & 0o777 == 0o644


def test_two_fixes_are_not_made_at_once(home: Path) -> None:
    book = FixBook(home)
    book.make(planned(home, SetKey(key=("logging", "level"), value="info")), CHECK)
    descriptor = os.open(home / "fixes", os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        with pytest.raises(CannotFix, match="another fix is being made"):
            book.make(planned(home, SetMode(path=home / "gateway.token", mode=0o400)), CHECK)
    finally:
        os.close(descriptor)
    assert (home / "gateway.token").stat().st_mode & 0o777 == 0o600
