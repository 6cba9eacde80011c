"""What makes a gateway one that can be killed at a point: a folder on its PYTHONPATH, whose `sitecustomize` calls `install`.

So it is the real command that runs, with nothing of it changed. The variable OPENCLAW_CRASH holds what is to happen, as JSON:
`log` is the file for the points that it comes to, `at` and `hit` say where it dies, `mark` is the file that this leaves, `sabotage`
names one of `tests.crash.sabotage`. Where `upheaval` is set, the ways of a changed config and of a restart have points too, and
the file `execs` gets a line of JSON for each `exec` (when it begins) and for each process that came of one (what it holds open).
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

from openclaw_kernel.handover.belongings import VARIABLE as HANDOVER
from tests.crash import points
from tests.crash.points import ROOT, UPHEAVAL, Fault, note_strays, watch_commits, watch_execs, watch_renames, watch_tasks

VARIABLE = "OPENCLAW_CRASH"


def install() -> None:
    """Prepare this process for what the variable says."""
    if "run" not in sys.orig_argv or "--check" in sys.orig_argv:
        # Another command that a gateway starts, or the trial of its next start: the gateway alone dies at points.
        return
    wanted = json.loads(os.environ[VARIABLE])
    if wanted.get("upheaval"):
        note_strays(Path(wanted["execs"]))
    log, mark = (Path(wanted[name]) if wanted.get(name) else None for name in ("log", "mark"))
    fault = Fault(log=log, kill_at=wanted.get("at"), hit=wanted.get("hit", 1), mark=mark)
    if wanted.get("upheaval"):
        points.WAY.update(UPHEAVAL)
        if HANDOVER in os.environ:
            fault("exec after")
        watch_execs(fault, Path(wanted["execs"]))
        watch_renames(fault)
    watch_tasks(fault)
    watch_commits(fault)
    if wanted.get("sabotage"):
        from tests.crash.sabotage import SABOTAGES

        SABOTAGES[wanted["sabotage"]]()


def make_site(folder: Path) -> str:
    """Make the folder: the hook, and the plugins as installed distributions. Return a PYTHONPATH with it and our packages."""
    folder.mkdir(parents=True)
    (folder / "sitecustomize.py").write_text("from tests.crash.launcher import install\n\ninstall()\n", encoding="utf-8")
    _install(folder, "effects", "tests.crash.effects.plugin:EffectsPlugin")
    # A package of its own, so that its code can be replaced while a gateway runs.
    shutil.copytree(ROOT / "tests/crash/spare", folder / "crash_spare", ignore=shutil.ignore_patterns("__pycache__"))
    _install(folder, "spare", "crash_spare.plugin:SparePlugin")
    packages = [str(ROOT / name) for name in ("kernel", "config", "channels", "providers", "plugins")]
    return os.pathsep.join([str(folder), *packages, str(ROOT)])


def _install(folder: Path, name: str, entry: str) -> None:
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(f"[openclaw.plugins]\n{name} = {entry}\n", encoding="utf-8")
    package = entry.partition(".")[0]
    (info / "top_level.txt").write_text(f"{package}\n", encoding="utf-8")
