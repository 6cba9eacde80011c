"""State folders as the first start makes them, with things put wrong in them, and the bundled checks run on them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from openclaw_config.home import prepare_home
from openclaw_kernel.api import Check, CheckContext, MachineFacts, ProcessFacts
from openclaw_kernel.checks.gathering import Gathered
from openclaw_kernel.checks.running import Reported, run_checks
from openclaw_kernel.checks.scene import survey
from openclaw_kernel.host.discovery import Discovery, discover
from openclaw_kernel.host.guard import Guard
from openclaw_kernel.host.registry import Owned
from openclaw_plugins.security.catalogue import CHECKS

STRONG = "kX7v-3mQ9_tRz2LwYb8NcHdJ5sPfGa4u"

Context = Callable[[CheckContext], CheckContext]


@cache
def bundled() -> Discovery:
    """The plugins of this project, and no other."""
    return Discovery(plugins=tuple(found for found in discover().plugins if found.bundled))


@dataclass(frozen=True)
class Scene:
    """What is put into a state folder: keys over the first start's configuration, files, and facts that a test cannot bring about."""

    config: Mapping[str, Any] = field(default_factory=dict)
    prepare: Callable[[Path], None] = lambda _home: None
    context: Context = lambda context: context

    def look(self, home: Path) -> CheckContext:
        """Make the folder, and look at it."""
        prepare_home(home)
        if self.config:
            (home / "openclaw.yaml").write_text(json.dumps(self.config, indent=1))
        self.prepare(home)
        return self.again(home)

    def again(self, home: Path) -> CheckContext:
        """Look at it once more."""
        return self.context(calm(survey(home, bundled(), running=None).context))


def calm(context: CheckContext) -> CheckContext:
    """The same state folder on a machine of which there is nothing to say, for nobody knows where tests run."""
    process = ProcessFacts(is_gateway=True, user_id=context.files[context.home].user_id, umask=0o022, core_bytes=0, variables=("PATH",))
    machine = MachineFacts(now_ms=context.machine.now_ms, clock_synchronised=True, login_users=("ada",), file_system="ext4")
    return replace(context, process=process, machine=machine)


def found_by(check_id: str, context: CheckContext) -> list[Reported]:
    """Run one check, as the command does."""
    return run([check for check in CHECKS if check.id == check_id], context)


def run(checks: Sequence[Check], context: CheckContext) -> list[Reported]:
    """Run some."""
    gathered = Gathered([Owned("security", check) for check in checks], {})
    return asyncio.run(run_checks(gathered, context, Guard(), kind="security"))
