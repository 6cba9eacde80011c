"""References to a keyring and to programs: real backends, real programs, and everything that may go wrong with them."""

from __future__ import annotations

import json
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyrings.alt.file import PlaintextKeyring

from openclaw_config import keyrings
from openclaw_config.keyrings import delete_keyring, write_keyring
from openclaw_config.load import ConfigError, Loaded, load


def loaded(folder: Path, reference: str, variables: Mapping[str, str] | None = None, **of_exec: Any) -> Loaded:
    """The config of a file whose token, on line 4, is this reference."""
    path = folder / "openclaw.yaml"
    section: dict[str, Any] = {"gateway": {"auth": {"token": reference}}}
    path.write_text(json.dumps({**section, "secrets": {"exec": of_exec}} if of_exec else section, indent=1))
    return load(path, environment=variables or {})


def value(folder: Path, reference: str, variables: Mapping[str, str] | None = None, **of_exec: Any) -> str:
    """What a reference leads to."""
    token = loaded(folder, reference, variables, **of_exec).config.gateway.auth.token
    assert token is not None
    return token.unwrap()


def problem(folder: Path, reference: str, variables: Mapping[str, str] | None = None, **of_exec: Any) -> str:
    """The one line that says why a reference leads nowhere."""
    with pytest.raises(ConfigError) as refused:
        loaded(folder, reference, variables, **of_exec)
    (issue,) = refused.value.issues
    assert str(issue).startswith("openclaw.yaml:4:4: gateway.auth.token: ")
    assert "\n" not in str(issue)
    return str(issue)


def program(folder: Path, body: str, name: str = "give") -> Path:
    """A program of the shell."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o700)
    return path


# --- keyring --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[PlaintextKeyring]:
    """A keyring in a file."""
    chosen = PlaintextKeyring()
    chosen.file_path = str(tmp_path / "keyring.cfg")
    before = keyring.get_keyring()
    keyring.set_keyring(chosen)
    yield chosen
    keyring.set_keyring(before)


def test_an_entry_of_the_keyring_is_read(backend: PlaintextKeyring, tmp_path: Path) -> None:
    backend.set_password("openclaw-kernel", "gateway", "from-the-keyring")
    backend.set_password("https://host/path", "me", "of-a-service-with-slashes")
    assert value(tmp_path, "${keyring:openclaw-kernel/gateway}") == "from-the-keyring"
    assert value(tmp_path, "${keyring:https://host/path/me}") == "of-a-service-with-slashes"
    assert "from-the-keyring" in loaded(tmp_path, "${keyring:openclaw-kernel/gateway}").secrets


def test_what_is_written_can_be_read_and_removed(backend: PlaintextKeyring, tmp_path: Path) -> None:
    write_keyring("openclaw-kernel", "github", "value-of-github")
    assert value(tmp_path, "${keyring:openclaw-kernel/github}") == "value-of-github"
    delete_keyring("openclaw-kernel", "github")
    delete_keyring("openclaw-kernel", "github")
    assert backend.get_password("openclaw-kernel", "github") is None


@pytest.mark.parametrize(
    ("target", "found"),
    [
        ("openclaw-kernel/absent", "the keyring has no entry 'absent' of the service 'openclaw-kernel'; add it, e.g. with: keyring set"),
        ("noslash", "the keyring entry 'noslash' is no SERVICE/NAME; write ${keyring:SERVICE/NAME}"),
        ("/name", "is no SERVICE/NAME"),
        ("service/", "is no SERVICE/NAME"),
    ],
)
def test_an_entry_that_is_not_there_is_named(backend: PlaintextKeyring, tmp_path: Path, target: str, found: str) -> None:
    assert found in problem(tmp_path, f"${{keyring:{target}}}")


class Broken(KeyringBackend):
    """A keyring that does as it is told."""

    priority = 0.0

    def __init__(self, act: Callable[[], str | None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._act = act

    def get_password(self, service: str, username: str) -> str | None:
        return self._act()

    def set_password(self, service: str, username: str, password: str) -> None:
        self._act()

    def delete_password(self, service: str, username: str) -> None:
        self._act()


def refuse(error: Exception) -> Callable[[], str | None]:
    """A function that raises."""

    def act() -> str | None:
        raise error

    return act


@pytest.mark.parametrize(
    ("act", "found"),
    [
        (refuse(keyring.errors.KeyringLocked("with hunter22")), "the keyring failed (KeyringLocked); unlock it"),
        (refuse(keyring.errors.NoKeyringError()), "there is no keyring on this machine that can be used; use ${file:PATH}"),
        (refuse(RuntimeError("no D-Bus")), "the keyring failed (RuntimeError)"),
    ],
)
@pytest.mark.usefixtures("backend")
def test_a_keyring_that_fails_is_named(tmp_path: Path, act: Callable[[], str | None], found: str) -> None:
    keyring.set_keyring(Broken(act))
    told = problem(tmp_path, "${keyring:a/b}")
    assert found in told
    assert "hunter22" not in told


@pytest.mark.usefixtures("backend")
def test_a_keyring_that_waits_for_a_person_has_a_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    answered = threading.Event()
    keyring.set_keyring(Broken(lambda: str(answered.wait(30))))
    monkeypatch.setattr(keyrings, "KEYRING_SECONDS", 0.05)
    assert "the keyring did not answer within 0.05 s; unlock it, or use ${file:PATH}" in problem(tmp_path, "${keyring:a/b}")
    answered.set()


def test_a_missing_library_is_named_with_the_line_that_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "keyring"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "keyring", None)
    told = problem(tmp_path, "${keyring:a/b}")
    assert "needs a library that is not installed; install it with: pip install 'openclaw-kernel[keyring]'" in told


# --- programs -------------------------------------------------------------------------------------------------------------


def test_what_a_program_writes_is_the_secret(tmp_path: Path) -> None:
    give = program(tmp_path, 'printf "  %s\\n" "$1-$2"')
    assert value(tmp_path, f"${{exec:{give} 'of two words' x}}") == "of two words-x"
    assert "of two words-x" in loaded(tmp_path, f"${{exec:{give} 'of two words' x}}").secrets


def test_no_shell_takes_part(tmp_path: Path) -> None:
    assert value(tmp_path, "${exec:/bin/echo $HOME `id` $(id) ~ * ; touch made | cat}") == "$HOME `id` $(id) ~ * ; touch made | cat"
    assert not (tmp_path / "made").exists()


def test_a_program_sees_an_empty_environment_but_for_what_is_named(tmp_path: Path) -> None:
    variables = {"HOME": "/somewhere", "LD_PRELOAD": "/evil.so", "PATH": "/evil", "TOKEN": "x"}
    env = "${exec:/usr/bin/env}"
    assert value(tmp_path, env, variables, environment=["HOME", "ABSENT"]) == "HOME=/somewhere"
    assert "wrote nothing" in problem(tmp_path, env, variables)


def test_a_program_runs_in_the_state_folder_and_reads_nothing(tmp_path: Path) -> None:
    assert value(tmp_path, f"${{exec:{program(tmp_path, 'pwd; cat')}}}") == str(tmp_path)


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("echo hunter22; echo hunter22 >&2; exit 3", "ended with exit status 3; run it by hand in the state folder"),
        ("echo hunter22; kill -TERM $$", "was ended by signal 15"),
        ("exit 0", "wrote nothing"),
        ("printf 'hunter22\\377'", "is not UTF-8 text"),
        ("printf 'hunter22\\000x'", "wrote a NUL character"),
        ("yes hunter22", "wrote more than 65536 bytes"),
    ],
)
def test_a_program_that_fails_is_named_without_what_it_wrote(tmp_path: Path, body: str, found: str) -> None:
    told = problem(tmp_path, f"${{exec:{program(tmp_path, body)}}}")
    assert found in told
    assert "hunter22" not in told


def test_a_program_that_hangs_ends_with_all_it_started(tmp_path: Path) -> None:
    give = program(tmp_path, "sleep 600 & echo $! > child; wait")
    begun = time.monotonic()
    told = problem(tmp_path, f"${{exec:{give}}}", timeoutSeconds=0.5)
    assert "did not end within 0.5 s; let it ask nobody, or raise secrets.exec.timeoutSeconds" in told
    assert time.monotonic() - begun < 5
    child = int((tmp_path / "child").read_text())
    deadline = time.monotonic() + 5
    while Path(f"/proc/{child}").exists() and "Z" not in Path(f"/proc/{child}/stat").read_text():
        assert time.monotonic() < deadline, "what it started still runs"


def test_what_a_program_leaves_running_ends(tmp_path: Path) -> None:
    give = program(tmp_path, "sleep 600 >/dev/null & echo $! > child; echo value")
    assert value(tmp_path, f"${{exec:{give}}}") == "value"
    child = int((tmp_path / "child").read_text())
    deadline = time.monotonic() + 5
    while Path(f"/proc/{child}").exists() and "Z" not in Path(f"/proc/{child}/stat").read_text():
        assert time.monotonic() < deadline, "what it started still runs"


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("pass show x", "the program 'pass' is no absolute path; write where it lies, as `command -v pass` prints it"),
        ("./pass", "is no absolute path"),
        ("/bin/echo 'x", "cannot be split into arguments (no closing quotation)"),
        (" ", "names no program"),
        ("/nonexistent/pass", "cannot be found (no such file or directory)"),
        ("/etc", "/etc is no program"),
        ("/dev/null", "/dev/null is no program"),
        ("/etc/passwd", "/etc/passwd cannot be run (permission denied)"),
    ],
)
def test_a_command_that_cannot_be_run_is_named(tmp_path: Path, line: str, found: str) -> None:
    assert found in problem(tmp_path, f"${{exec:{line}}}")


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777])
def test_a_program_that_others_can_write_is_refused(tmp_path: Path, mode: int) -> None:
    give = program(tmp_path, "echo value")
    give.chmod(mode)
    assert f"the program {give} can be written by others; chmod go-w {give}" in problem(tmp_path, f"${{exec:{give}}}")


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o1777])
def test_a_program_in_a_folder_that_others_can_write_is_refused(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    give = program(folder, "echo value")
    link = tmp_path / "link"
    link.symlink_to(give)
    folder.chmod(mode)
    for name in (give, link):
        told = problem(tmp_path, f"${{exec:{name}}}")
        assert f"{folder}, above the program {name}, can be written by others; chmod go-w {folder}" in told


def test_a_folder_further_up_counts_unless_nobody_can_replace_what_is_in_it(tmp_path: Path) -> None:
    above = tmp_path / "above"
    (above / "bin").mkdir(parents=True)
    give = program(above / "bin", "echo value")
    above.chmod(0o1777)
    assert value(tmp_path, f"${{exec:{give}}}") == "value"
    above.chmod(0o777)
    assert f"{above}, above the program {give}, can be written by others" in problem(tmp_path, f"${{exec:{give}}}")


def test_a_program_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    give = program(tmp_path, "echo value")
    owner = give.stat().st_uid
    if owner == 0:
        os.chown(give, 1234, -1)
        owner = 1234
    else:
        monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    assert f"belongs to another user (uid {owner}); name a program of your own or of root's" in problem(tmp_path, f"${{exec:{give}}}")


def test_every_link_on_the_way_counts(tmp_path: Path) -> None:
    closed, opened = tmp_path / "closed", tmp_path / "opened"
    closed.mkdir()
    opened.mkdir()
    give = program(closed, "echo value")
    (opened / "second").symlink_to(give)
    (closed / "first").symlink_to("../opened/second")
    assert value(tmp_path, f"${{exec:{closed}/first}}") == "value"
    opened.chmod(0o777)
    told = problem(tmp_path, f"${{exec:{closed}/first}}")
    assert f"opened, above the program {closed}/first, can be written by others" in told


def test_a_link_is_followed_and_the_program_keeps_its_name(tmp_path: Path) -> None:
    (tmp_path / "called").symlink_to(program(tmp_path, 'basename "$0"'))
    assert stat.S_ISLNK((tmp_path / "called").lstat().st_mode)
    # A script is given the path that was run, a program the name it was called by.
    assert value(tmp_path, f"${{exec:{tmp_path}/called}}") == "give"


def test_settings_of_programs_that_are_wrong_are_told_and_give_nothing_away(tmp_path: Path) -> None:
    path = tmp_path / "openclaw.yaml"
    path.write_text('gateway: {auth: {token: "${exec:/usr/bin/env}"}}\nsecrets: {exec: {environment: HOME}}\n')
    with pytest.raises(ConfigError, match=r"token: /usr/bin/env wrote nothing"):
        load(path, environment={"HOME": "/x"})
    path.write_text('gateway: {auth: {token: "${exec:/bin/echo x}"}}\nsecrets: {exec: {environment: ["A B"], timeoutSeconds: -1}}\n')
    with pytest.raises(ConfigError) as refused:
        load(path, environment={})
    assert [issue.key for issue in refused.value.issues] == ["secrets.exec.environment.0", "secrets.exec.timeoutSeconds"]
