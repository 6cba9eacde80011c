"""What checks see: facts of real processes, files and distributions; and that looking runs and changes nothing."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from openclaw_config.home import prepare_home
from openclaw_config.models import Config
from openclaw_kernel.checks.files import entry_of, files_below
from openclaw_kernel.checks.machine import machine_facts, process_facts
from openclaw_kernel.checks.plugins import installed_plugins
from openclaw_kernel.checks.scene import StateFile, survey
from openclaw_kernel.host.discovery import Discovery, discover
from tests.kernel.host.distributions import Distributions
from tests.support.gateway import RunningGateway

NOBODY = Discovery(plugins=())


def test_the_facts_of_another_process_are_its_own() -> None:
    code = "import os, resource; os.umask(0o027); resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); print(flush=True); input()"
    command = [sys.executable, "-c", code]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, env={"SOME_TOKEN": "canary", "PATH": "/bin"}) as child:
        assert child.stdout is not None
        child.stdout.readline()
        facts = process_facts(child.pid)
        child.communicate(b"\n")
    assert (facts.is_gateway, facts.user_id, facts.umask, facts.core_bytes) == (True, os.geteuid(), 0o027, 0)
    assert {"PATH", "SOME_TOKEN"} <= set(facts.variables)
    assert "canary" not in repr(facts)


def test_the_facts_of_this_process_stay_as_they_are() -> None:
    before = os.umask(0o022)
    try:
        facts = process_facts(None)
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)
    assert (facts.is_gateway, facts.user_id, facts.umask) == (False, os.geteuid(), 0o022)
    assert machine_facts(Path.cwd()).file_system


def test_nothing_that_a_reference_names_is_run(tmp_path: Path) -> None:
    home = tmp_path / "home"
    prepare_home(home)
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\necho secret\n")
    program.chmod(0o755)
    (home / "openclaw.yaml").write_text(
        f"secrets: {{entries: {{a: '${{exec:{program}}}', b: '${{env:NOT_SET_HERE}}', c: '${{keyring:x/y}}'}}}}\n"
    )
    scene = survey(home, NOBODY, running=None)
    assert not (tmp_path / "ran").exists()
    assert [(slot.kind, slot.target, slot.digest) for slot in scene.context.secrets] == [
        ("exec", str(program), None),
        ("env", "NOT_SET_HERE", None),
        ("keyring", "x/y", None),
    ]
    # Each has a secret of its own, so that what needs one can be judged.
    stand_ins = {secret.unwrap() for secret in scene.context.config.secrets.entries.values()}
    assert len(stand_ins) == 3


def test_files_are_seen_and_links_are_not_followed(tmp_path: Path) -> None:
    prepare_home(tmp_path)
    (tmp_path / "link").symlink_to("/etc/passwd")
    (tmp_path / "workspace" / "main" / "deep").mkdir(parents=True)
    (tmp_path / "workspace" / "main" / "deep" / "file").touch()
    seen = files_below(tmp_path)
    assert seen[tmp_path / "link"].kind == "link"
    assert seen[tmp_path / "gateway.token"].mode == 0o600
    assert tmp_path / "workspace" / "main" / "deep" in seen
    assert tmp_path / "workspace" / "main" / "deep" / "file" not in seen
    assert entry_of(tmp_path / "nothing") is None


async def test_the_database_is_only_read(gateway: RunningGateway) -> None:
    state = StateFile(gateway.home)
    assert state.rows("SELECT count(*) FROM kernel_audit")[0][0] >= 1
    assert state.rows("SELECT 1 FROM no_such_table") == []
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        state.rows("INSERT INTO kernel_key_value VALUES ('a', 'b', 'c')")
    assert state.verify_audit()["ok"]


def test_no_database_is_an_empty_one(tmp_path: Path) -> None:
    assert StateFile(tmp_path).rows("SELECT 1 FROM kernel_audit") == []
    assert StateFile(tmp_path).verify_audit()["ok"]
    with closing(sqlite3.connect(tmp_path / "state.sqlite3")) as connection:
        connection.execute("CREATE TABLE other (id)")
    assert StateFile(tmp_path).verify_audit()["ok"]


@pytest.mark.parametrize(
    ("direct", "source", "editable"),
    [
        (None, "index", False),
        ({"url": "file:///x", "dir_info": {"editable": True}}, "folder", True),
        ({"url": "https://x/y.whl", "archive_info": {}}, "archive", False),
        ({"url": "https://x/y.git", "vcs_info": {"vcs": "git", "commit_id": "1"}}, "vcs", False),
        (["odd"], "unknown", False),
    ],
)
def test_where_a_plugin_came_from(direct: object, source: str, *, editable: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    Distributions(tmp_path).add("mine", "raise AssertionError('nothing is imported')\n", distribution=f"acme-{source}")
    if direct is not None:
        (tmp_path / f"acme_{source}-1.0.dist-info" / "direct_url.json").write_text(json.dumps(direct))
    (plugin,) = [each for each in installed_plugins(Config(), discover()) if each.id == "mine"]
    assert (plugin.source, plugin.editable, plugin.bundled, plugin.runs) == (source, editable, False, True)
    assert plugin.folder is not None
    assert (plugin.folder / "plugin.py").is_file()
