"""What the tests of children look at from outside, and how programs get where they are found."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from openclaw_kernel.api.children import MARK_VARIABLE
from openclaw_kernel.api.keeper import children
from openclaw_kernel.host.discovery import Discovery, discover


def strangers_in(home: Path) -> Discovery:
    """What is installed beside the bundled plugins, and the programs of a state folder."""
    found = discover(home)
    return Discovery(plugins=tuple(plugin for plugin in found.plugins if not plugin.bundled), problems=found.problems)


def processes_below(pid: int) -> list[int]:
    """Every process under this one."""
    return [found for child in children(pid) for found in (child, *processes_below(child))]


_others: frozenset[int] = frozenset()


def leave_out_others() -> None:
    """What runs below this process by now belongs to fixtures that outlive their tests."""
    global _others  # noqa: PLW0603 - one process, one test at a time
    _others = frozenset(children(os.getpid()))


def processes_here() -> list[int]:
    """Every process under this one that came since."""
    return [found for child in children(os.getpid()) if child not in _others for found in (child, *processes_below(child))]


def environment_of(pid: int) -> dict[str, str]:
    """The environment a process was started with, without the leash's mark."""
    entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    pairs = (entry.decode().partition("=") for entry in entries if entry)
    return {name: value for name, _, value in pairs if name != MARK_VARIABLE}


def the_program(keeper: int) -> int:
    """The process that a keeper keeps."""
    (program,) = map(int, Path(f"/proc/{keeper}/task/{keeper}/children").read_text().split())
    return program


def add_program(home: Path, plugin_id: str, source: str, *, manifest: str = "", kind: str = "plugin") -> Path:
    """Put a program in Python into `children/<id>/`; return its folder."""
    folder = home / "children" / plugin_id
    folder.mkdir(parents=True, mode=0o700)
    folder.parent.chmod(0o700)
    (folder / "main.py").write_text(source, encoding="utf-8")
    text = (
        f'api = 1\nid = "{plugin_id}"\nsummary = "a program of a test"\n{manifest}\n'
        f'[child]\nkind = "{kind}"\nversion = "2.0"\ncommand = ["{sys.executable}", "-I", "./main.py"]\n'
    )
    (folder / "plugin.toml").write_text(text, encoding="utf-8")
    for path in (folder / "main.py", folder / "plugin.toml"):
        path.chmod(0o600)
    assert os.access(sys.executable, os.X_OK)
    return folder


PRELUDE = """
import json, os, sys, time

def say(message):
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\\n")
    sys.stdout.flush()

REGISTERED = {}

def serve(on_ping=None, on_start=None, **more):
    for line in sys.stdin:
        asked = json.loads(line)
        method, params = asked.get("method"), asked.get("params", {})
        if "id" not in asked or method is None:
            continue
        answer = {}
        if method == "initialize":
            serve.hello = params
            answer = {"protocol": 1, "name": "x", "version": "1"}
        elif method == "register":
            answer = REGISTERED
        elif method == "ping" and on_ping:
            on_ping()
        elif method == "start" and on_start:
            on_start()
        elif method in more:
            answer = more[method](params)
        say({"id": asked["id"], "result": answer})
"""
