"""What makes a gateway one that can be killed at a point: a folder on its PYTHONPATH, whose `sitecustomize` calls `install`.

So it is the real command that runs, with nothing of it changed. The variable OPENCLAW_CRASH holds what is to happen, as JSON:
`log` is the file for the points that it comes to, `at` and `hit` say where it dies, `mark` is the file that this leaves, `sabotage`
names one of `tests.crash.sabotage`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from tests.crash.points import ROOT, Fault, watch_commits, watch_tasks

VARIABLE = "OPENCLAW_CRASH"


def install() -> None:
    """Prepare this process for what the variable says."""
    wanted = json.loads(os.environ[VARIABLE])
    log, mark = (Path(wanted[name]) if wanted.get(name) else None for name in ("log", "mark"))
    fault = Fault(log=log, kill_at=wanted.get("at"), hit=wanted.get("hit", 1), mark=mark)
    watch_tasks(fault)
    watch_commits(fault)
    if wanted.get("sabotage"):
        from tests.crash.sabotage import SABOTAGES

        SABOTAGES[wanted["sabotage"]]()


def make_site(folder: Path) -> str:
    """Make the folder: the hook, and the plugin `effects` as an installed distribution. Return a PYTHONPATH with it and our packages."""
    info = folder / "effects-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "sitecustomize.py").write_text("from tests.crash.launcher import install\n\ninstall()\n", encoding="utf-8")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: effects\nVersion: 1.0\n", encoding="utf-8")
    entry = "[openclaw.plugins]\neffects = tests.crash.effects.plugin:EffectsPlugin\n"
    (info / "entry_points.txt").write_text(entry, encoding="utf-8")
    packages = [str(ROOT / name) for name in ("kernel", "config", "channels", "providers", "plugins")]
    return os.pathsep.join([str(folder), *packages, str(ROOT)])
