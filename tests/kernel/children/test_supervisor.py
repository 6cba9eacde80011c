"""One that is ended while it is started leaves no process."""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path

import pytest

from openclaw_kernel.api import NotReady
from openclaw_kernel.children.process import Launch
from openclaw_kernel.children.stderr import ChildLog
from openclaw_kernel.children.supervisor import ChildTiming, Supervisor
from openclaw_kernel.host.isolation import LateHold
from tests.kernel.children.support import PRELUDE, processes_here


async def test_one_that_is_closed_while_it_is_started_leaves_no_process(tmp_path: Path) -> None:
    program = tmp_path / "main.py"
    program.write_text(PRELUDE + "serve()")
    asked, goes_on = asyncio.Event(), asyncio.Event()

    async def prepare() -> None:
        asked.set()
        await goes_on.wait()

    supervisor = Supervisor(
        Launch(plugin_id="x", command=[sys.executable, "-I", str(program)], home=tmp_path, state_folder=tmp_path),
        hello=dict,
        prepare=prepare,
        handlers={},
        notices={},
        log=ChildLog(logging.getLogger("x"), lambda: 0.0),
        hold=LateHold(),
        timing=ChildTiming(),
    )
    starting = asyncio.create_task(supervisor.begin())
    await asked.wait()
    await supervisor.close()
    goes_on.set()
    with pytest.raises(NotReady, match="was ended with the plugin"):
        await starting
    assert supervisor.pid is None
    assert processes_here() == []
