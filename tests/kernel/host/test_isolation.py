"""Whatever one plugin does, it is named with a reason, and its neighbour works on."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

import pytest

from openclaw_kernel.api import CommandCall, PluginState, Verdict
from tests.kernel.host.distributions import Distributions
from tests.kernel.host.hosting import MESSAGE, Hosting
from tests.kernel.host.test_services import CONTEXT

MakeHosting = Callable[..., Hosting]

HANG = "threading.Event().wait()"

CLASS = """
class ThePlugin:
    settings = None

    def __init__(self, context):
        self.context = context
"""

UNIT = (
    CLASS
    + """
    @hookimpl
    def openclaw_register_services(self, registrar):
        registrar.add_unit(self)

    async def start(self):
        {start}

    async def stop(self):
        {stop}
"""
)


def hook(name: str, body: str) -> str:
    return (
        CLASS
        + f"""
    @hookimpl
    def {name}(self, registrar):
        {body}
"""
    )


REGISTER_HOOKS = [
    f"openclaw_register_{noun}"
    for noun in ("services", "channels", "providers", "tools", "commands", "methods", "routes", "authenticators")
]

AT_LOAD = {
    "raises at import": ("raise ValueError('boom')", "import raised ValueError: boom"),
    "asserts at import": ("assert False, 'boom'", "import raised AssertionError: boom"),
    "exits at import": ("sys.exit(3)", "import raised SystemExit: 3"),
    "hangs at import": (HANG, "import did not end in 0.5 s and was abandoned"),
    "imports what is missing": ("import no_such_module", "import raised ModuleNotFoundError"),
    "lacks the class": ("", "AttributeError"),
    "is no class": ("ThePlugin = 3", "name the plugin's class"),
    "raises in the constructor": (
        "class ThePlugin:\n    def __init__(self, context):\n        raise ValueError('boom')",
        "constructor raised ValueError: boom",
    ),
    "exits in the constructor": (
        "class ThePlugin:\n    def __init__(self, context):\n        sys.exit(3)",
        "constructor raised SystemExit: 3",
    ),
    "hangs in the constructor": (
        f"class ThePlugin:\n    def __init__(self, context):\n        {HANG}",
        "constructor did not end in 0.5 s and was abandoned",
    ),
    "rejects its config": (
        "class ThePlugin:\n    def __init__(self, context):\n        raise ConfigRejected('a.b', 'found 3', 'use 4')",
        "a.b: found 3; use 4",
    ),
    "misspells a hook": (
        hook("openclaw_register_chanels", "pass"),
        "there is no hook 'openclaw_register_chanels'; did you mean 'openclaw_register_channels'?",
    ),
    "forgets to mark a hook": (
        CLASS + "    def openclaw_register_tools(self, registrar): pass",
        "openclaw_register_tools is not marked as a hook",
    ),
    "asks a hook for too much": (
        CLASS + "    @hookimpl\n    def openclaw_register_tools(self, registrar, more): pass",
        "more",
    ),
    "has an async hook": (
        CLASS + "    @hookimpl\n    async def openclaw_register_tools(self, registrar): pass",
        "openclaw_register_tools is async",
    ),
    "has a hook wrapper": (
        CLASS + "    @hookimpl(wrapper=True)\n    def openclaw_register_tools(self, registrar):\n        return (yield)",
        "wrappers are not supported",
    ),
    **{f"raises in {name}": (hook(name, "raise ValueError('boom')"), f"{name} raised ValueError: boom") for name in REGISTER_HOOKS},
    **{f"exits in {name}": (hook(name, "sys.exit(3)"), f"{name} raised SystemExit: 3") for name in REGISTER_HOOKS[:2]},
    **{f"hangs in {name}": (hook(name, HANG), f"{name} did not end in 0.5 s") for name in REGISTER_HOOKS[-1:]},
}


@pytest.mark.parametrize("case", AT_LOAD)
async def test_a_plugin_that_fails_to_load_is_named_and_the_other_works(case: str, good: Distributions, hosting: MakeHosting) -> None:
    source, reason = AT_LOAD[case]
    good.add("bad", source)
    running = hosting()
    await running.run()
    assert running.state("bad") is PluginState.FAILED
    assert reason in running.reason("bad")
    assert any("'bad'" in line and reason in line for line in running.host.problems())
    await running.check_good()


async def test_nothing_stays_of_a_plugin_whose_later_hook_fails(good: Distributions, hosting: MakeHosting) -> None:
    good.add(
        "bad",
        CLASS
        + """
    @hookimpl
    def openclaw_register_tools(self, registrar):
        class Nothing(BaseModel): pass
        registrar.add_tool(Tool(name="half", label="", description="", params=Nothing, run=print,
                                retry_class=RetryClass.PURE, timeout_seconds=1.0))

    @hookimpl
    def openclaw_register_routes(self, registrar):
        raise ValueError("boom")
""",
    )
    running = hosting()
    await running.run()
    assert [tool.name for tool in running.host.tools.all()] == ["greet"]


AT_START = {
    "raises": ("raise ValueError('boom')", "start of unit ThePlugin raised ValueError: boom"),
    "exits": ("sys.exit(3)", "start of unit ThePlugin raised SystemExit: 3"),
    "hangs": ("await asyncio.Event().wait()", "start of unit ThePlugin did not end in 0.5 s"),
    "cancels itself": ("raise asyncio.CancelledError", "start of unit ThePlugin was cancelled by itself"),
    "rejects its config": ("raise ConfigRejected('a.b', 'found 3', 'use 4')", "a.b: found 3; use 4"),
}


@pytest.mark.parametrize("case", AT_START)
async def test_a_plugin_that_fails_to_start_is_named_and_the_other_works(case: str, good: Distributions, hosting: MakeHosting) -> None:
    source, reason = AT_START[case]
    good.add("bad", UNIT.format(start=source, stop="pass"))
    running = hosting()
    await running.run()
    await running.wait_until(lambda: running.state("bad") is PluginState.FAILED)
    assert reason in running.reason("bad")
    await running.check_good()


async def test_a_start_that_is_not_async_is_named(good: Distributions, hosting: MakeHosting) -> None:
    good.add("bad", UNIT.format(start="pass", stop="pass").replace("async def start", "def start"))
    running = hosting()
    await running.run()
    assert "declare it async" in running.reason("bad")
    await running.check_good()


AT_STOP = {
    "raises": ("raise ValueError('boom')", "stop of unit ThePlugin raised ValueError: boom"),
    "exits": ("sys.exit(3)", "stop of unit ThePlugin raised SystemExit: 3"),
    "hangs": ("await asyncio.Event().wait()", "stop of unit ThePlugin did not end"),
}


@pytest.mark.parametrize("case", AT_STOP)
async def test_a_plugin_that_fails_to_stop_is_named_and_the_other_is_stopped(case: str, good: Distributions, hosting: MakeHosting) -> None:
    source, reason = AT_STOP[case]
    good.add("bad", UNIT.format(start="pass", stop=source))
    running = hosting()
    await running.run()
    abandoned = await running.stop()
    assert any("'bad'" in line and reason in line for line in abandoned)
    assert running.state("good") is PluginState.STOPPED


async def test_a_task_that_ignores_its_cancellation_is_abandoned_and_named(good: Distributions, hosting: MakeHosting) -> None:
    good.add(
        "bad",
        UNIT.format(start="self.free = asyncio.Event(); self.context.spawn('stubborn', self.stubborn())", stop="pass")
        + """
    async def stubborn(self):
        while not self.free.is_set():
            try:
                await self.free.wait()
            except asyncio.CancelledError:
                self.context.logger.debug("no")
""",
    )
    running = hosting()
    await running.run()
    await running.check_good()
    abandoned = await running.stop()
    assert abandoned == ["bad/stubborn"]
    task = next(task for task in asyncio.all_tasks() if task.get_name() == "bad/stubborn")
    unit = running.host.registry.units[0][1]
    unit.free.set()  # type: ignore[attr-defined]
    await task


async def test_a_task_that_fails_degrades_its_plugin(good: Distributions, hosting: MakeHosting) -> None:
    good.add(
        "bad",
        UNIT.format(start="self.context.spawn('work', self.work())", stop="pass")
        + "\n    async def work(self):\n        sys.exit('boom')\n",
    )
    running = hosting()
    await running.run()
    await running.wait_until(lambda: running.state("bad") is PluginState.DEGRADED)
    assert "task bad/work failed" in running.reason("bad")
    await running.check_good()


DECIDES = (
    CLASS
    + """
    @hookimpl
    def openclaw_decide_route(self, message):
        {route}

    @hookimpl
    def openclaw_decide_admission(self, message, route):
        {admission}
"""
)


@pytest.mark.parametrize("fault", ["raise ValueError('boom')", "sys.exit(3)", "return 3"])
async def test_a_route_decision_that_fails_is_passed_over(fault: str, good: Distributions, hosting: MakeHosting) -> None:
    good.add("bad", DECIDES.format(route=fault, admission="return None"))
    running = hosting()
    await running.run()
    assert running.host.policies.route(MESSAGE).reason == "good"
    assert running.state("bad") is PluginState.DEGRADED
    assert "openclaw_decide_route" in running.reason("bad")
    await running.wait_until(lambda: running.state("bad") is PluginState.STARTED)


@pytest.mark.parametrize("fault", ["raise ValueError('boom')", "sys.exit(3)", "return 3"])
async def test_an_admission_decision_that_fails_is_a_refusal(fault: str, good: Distributions, hosting: MakeHosting) -> None:
    good.add("bad", DECIDES.format(route="return None", admission=fault))
    running = hosting()
    await running.run()
    verdict = running.host.policies.admit(MESSAGE, running.host.policies.route(MESSAGE))
    assert verdict.verdict is Verdict.DROP
    assert "'bad'" in verdict.reason
    assert running.state("bad") is PluginState.DEGRADED


async def test_a_command_that_fails_is_answered(good: Distributions, hosting: MakeHosting) -> None:
    good.add(
        "bad",
        CLASS
        + """
    @hookimpl
    def openclaw_register_commands(self, registrar):
        async def run(call):
            raise ValueError("boom")
        registrar.add_command(Command(name="bad", description="", run=run))
""",
    )
    running = hosting()
    await running.run()
    found = running.host.commands.find("/bad")
    assert found is not None
    call = CommandCall(session_key="s", agent_id="main", arguments="", target=None, sender_id="alice")
    assert "plugin 'bad': command /bad raised ValueError: boom" in await found[0].run(call)
    await running.check_good()


@pytest.mark.parametrize(
    "block", ["time.sleep(60)", "while True: pass", "[time.sleep(0.01) for _ in iter(int, 1)]"], ids=["sleep", "loop", "short sleeps"]
)
async def test_a_plugin_that_blocks_the_loop_is_broken_off_and_named(
    block: str, good: Distributions, hosting: MakeHosting, caplog: pytest.LogCaptureFixture
) -> None:
    good.add(
        "bad",
        UNIT.format(start="self.context.spawn('work', self.work())", stop="pass")
        + f"""
    async def work(self):
        try:
            {block}
        except Exception:
            pass
""",
    )
    running = hosting()
    began = time.monotonic()
    with caplog.at_level(logging.WARNING):
        await running.run()
        await running.wait_until(lambda: running.state("bad") is PluginState.DEGRADED)
        await running.wait_until(lambda: "blocked the event loop for" in running.reason("bad"))
    assert time.monotonic() - began < 5
    assert "plugin.py:" in running.reason("bad")
    assert "PluginBlockedLoop" in running.reason("bad")
    assert any("the event loop has not run" in record.message and "'bad'" in record.message for record in caplog.records)
    await running.check_good()


async def test_a_tool_that_blocks_the_loop_is_an_error_for_the_model(good: Distributions, hosting: MakeHosting) -> None:
    good.add(
        "bad",
        CLASS
        + """
    @hookimpl
    def openclaw_register_tools(self, registrar):
        class Nothing(BaseModel): pass
        async def run(context, params):
            time.sleep(60)
        registrar.add_tool(Tool(name="slow", label="", description="", params=Nothing, run=run,
                                retry_class=RetryClass.PURE, timeout_seconds=30.0))
""",
    )
    running = hosting()
    await running.run()
    result = await running.host.tools.run("slow", CONTEXT, {})
    assert result.is_error
    assert "blocked the event loop" in result.text
    await running.check_good()
