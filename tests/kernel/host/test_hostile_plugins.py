"""A plugin that goes out of its way to harm its neighbours does not."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from openclaw_kernel.api import PluginState
from openclaw_kernel.host import context as context_module
from tests.kernel.host.distributions import Distributions
from tests.kernel.host.hosting import Hosting, strangers
from tests.kernel.host.test_isolation import CLASS, HANG, UNIT
from tests.kernel.host.test_lifecycle import JOURNAL

MakeHosting = Callable[..., Hosting]


async def test_a_plugin_that_equals_every_other_registers_alone(good: Distributions, hosting: MakeHosting) -> None:
    equal = CLASS + "    def __eq__(self, other): return True\n    __hash__ = None\n"
    for name in ("aa", "zz"):
        good.add(name, equal)
    running = hosting()
    await running.run()
    assert [running.state(name) for name in ("aa", "zz")] == [PluginState.STARTED, PluginState.STARTED]
    await running.check_good()


STEALS = (
    CLASS
    + """
    @hookimpl(tryfirst=True)
    def openclaw_register_services(self, registrar):
        registrar.provide(list, [])
"""
)


async def test_nobody_takes_a_name_before_those_that_come_earlier(good: Distributions, hosting: MakeHosting) -> None:
    packages = {name: good.add(name, STEALS.replace("(tryfirst=True)", "")) for name in ("aaa", "zzz")}
    # Found earlier is registered earlier: so the bundled ones come before all strangers.
    first, second = [plugin.id for plugin in strangers().plugins if plugin.id in packages]
    greedy = good.folder / packages[second] / "plugin.py"
    greedy.write_text(greedy.read_text().replace("@hookimpl", "@hookimpl(tryfirst=True)"))
    running = hosting()
    await running.run()
    assert running.host.registry.services[list].plugin_id == first
    assert f"service 'list' is registered by plugin '{first}' already" in running.reason(second)
    await running.check_good()


async def test_who_waits_for_a_circle_is_not_part_of_it(good: Distributions, hosting: MakeHosting) -> None:
    good.add("left", JOURNAL, manifest='after = ["right"]')
    good.add("right", JOURNAL, manifest='after = ["left"]')
    good.add("self", JOURNAL, manifest='after = ["self"]')
    good.add("innocent", JOURNAL, manifest='after = ["left", "self"]')
    journal: list[str] = []
    running = hosting(services={list: journal})
    await running.run()
    assert journal == ["+innocent"]
    assert "goes in a circle among left, right;" in running.reason("left")
    assert "its 'after' names itself; remove it" in running.reason("self")
    await running.check_good()


async def test_of_two_units_of_one_class_the_one_that_fails_shows(good: Distributions, hosting: MakeHosting) -> None:
    good.add(
        "bad",
        """
class Part:
    def __init__(self, fails): self.fails = fails
    async def start(self):
        if self.fails: raise NotReady("no disk")
    async def stop(self): pass
"""
        + CLASS
        + """
    @hookimpl
    def openclaw_register_services(self, registrar):
        registrar.add_unit(Part(True))
        registrar.add_unit(Part(False))
""",
    )
    running = hosting()
    await running.run()
    assert running.state("bad") is PluginState.DEGRADED
    assert "no disk" in running.reason("bad")


async def test_plugins_that_hang_at_import_hang_together(good: Distributions, hosting: MakeHosting) -> None:
    names = [f"bad-{number}" for number in range(8)]
    for name in names[:4]:
        good.add(name, HANG)
    for name in names[4:]:
        good.add(name, CLASS + f"        {HANG}\n")
    running = hosting()
    began = time.monotonic()
    await running.run()
    # One after the other they would take 8 times the 0.5 s that each has.
    assert time.monotonic() - began < 3
    assert {running.state(name) for name in names} == {PluginState.FAILED}
    await running.check_good()


async def test_an_import_that_never_rests_is_broken_off(good: Distributions, hosting: MakeHosting) -> None:
    good.add("bad", "while True: pass")
    # Other tests leave threads of that name that hang in C code, which nothing can end.
    others = set(threading.enumerate())
    running = hosting()
    await running.run()
    assert "import did not end in 0.5 s" in running.reason("bad")
    spinning = [thread for thread in threading.enumerate() if thread.name == "plugin bad import" and thread not in others]
    for thread in spinning:
        await asyncio.to_thread(thread.join, 5)
        assert not thread.is_alive()
    await running.check_good()


SPAWNS = {
    "nothing": ("None", "spawn 'x': found NoneType; give a coroutine"),
    "a function": ("asyncio.sleep", "spawn 'x': found builtin_function_or_method; give a coroutine"),
    "a future": ("asyncio.get_running_loop().create_future()", "give a coroutine"),
}


@pytest.mark.parametrize("case", SPAWNS)
async def test_what_cannot_run_is_not_spawned(case: str, good: Distributions, hosting: MakeHosting) -> None:
    source, reason = SPAWNS[case]
    good.add("bad", UNIT.format(start=f"self.context.spawn('x', {source})", stop="pass"))
    running = hosting()
    await running.run()
    assert "TypeError: " in running.reason("bad")
    assert "give a coroutine" in running.reason("bad")
    if case == "nothing":
        assert reason in running.reason("bad")
    await running.check_good()


async def test_the_tasks_of_one_plugin_are_bounded(good: Distributions, hosting: MakeHosting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context_module, "TASK_LIMIT", 10)
    start = "[self.context.spawn('x', asyncio.sleep(60)) for _ in range(11)]"
    good.add("bad", UNIT.format(start=start, stop="pass"))
    running = hosting()
    await running.run()
    assert "has 10 tasks already; let some end first" in running.reason("bad")
    await running.check_good()


@pytest.mark.parametrize("place", ["__init__", "hook"])
async def test_spawning_before_the_start_says_where_to_do_it(place: str, good: Distributions, hosting: MakeHosting) -> None:
    spawn = "self.context.spawn('x', asyncio.sleep(0))"
    source = CLASS + (f"        {spawn}\n" if place == "__init__" else "")
    if place == "hook":
        source += f"    @hookimpl\n    def openclaw_register_tools(self, registrar):\n        {spawn}\n"
    good.add("bad", source)
    running = hosting()
    await running.run()
    assert "spawn 'x': there is no event loop here; spawn in start, or later" in running.reason("bad")


async def test_a_fault_may_be_reported_from_any_thread(good: Distributions, hosting: MakeHosting) -> None:
    running = hosting()
    await running.run()
    told_on: list[int] = []
    context = running.host.current().hosted["good"].context
    running.host._on_state = lambda _status: told_on.append(threading.get_ident())
    await asyncio.to_thread(context.degrade, "no disk")
    await asyncio.sleep(0)
    assert running.state("good") is PluginState.DEGRADED
    assert told_on == [threading.get_ident()]


async def test_parts_that_hang_at_stop_leave_time_for_the_rest(good: Distributions, hosting: MakeHosting) -> None:
    parts = """
class Settings(BaseModel): pass

class Stuck:
    label = "Stuck"
    def __init__(self, id): self.id = id
    async def start(self): pass
    async def stop(self): await asyncio.Event().wait()
    def models(self): return []
    def problem(self): return None
    def stream(self, request): ...
"""
    good.add(
        "stuck",
        parts
        + CLASS.replace("settings = None", "settings = Settings")
        + """
    @hookimpl
    def openclaw_register_providers(self, registrar):
        for id in self.context.instances(Settings):
            registrar.add_provider(Stuck(id))
""",
        kind="provider",
    )
    good.add("below", JOURNAL)
    journal: list[str] = []
    entries: dict[str, Any] = {f"stuck{number}": {"api": "stuck"} for number in range(12)}
    running = hosting({"models": {"providers": entries}, "plugins": {"callTimeoutSeconds": 10}}, services={list: journal})
    await running.run()
    began = time.monotonic()
    abandoned = await running.stop(4.0)
    assert time.monotonic() - began < 6
    assert journal == ["+below", "-below"]
    assert sum("stop of provider stuck" in line for line in abandoned) == 12
