"""Each hook does what it promises, through an installed plugin; a hook without documentation or test fails here."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from openclaw_kernel import hookspecs
from openclaw_kernel.api import CommandCall, Config, Gateway, Verdict
from openclaw_kernel.checks.gathering import gather
from openclaw_kernel.host.guard import Guard
from openclaw_kernel.host.manager import CHECK_HOOK, REGISTER_HOOKS
from tests.kernel.host.distributions import Distributions
from tests.kernel.host.hosting import MESSAGE, Hosting, strangers

MakeHosting = Callable[..., Hosting]

ROOT = Path(__file__).resolve().parents[3]
GUIDE = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
HOOKS = sorted(name for name, member in vars(hookspecs).items() if name.startswith("openclaw_") and inspect.isfunction(member))


@pytest.mark.parametrize("hook", HOOKS)
def test_each_hook_is_documented_and_tested(hook: str) -> None:
    assert f"\n### {hook}\n" in GUIDE, f"docs/plugins.md has no section '### {hook}'"
    assert f"test_hook_{hook.removeprefix('openclaw_')}" in globals(), f"there is no test of {hook}"
    specification = getattr(hookspecs, hook)
    for parameter in inspect.signature(specification).parameters:
        assert f":param {parameter}:" in (specification.__doc__ or ""), f"{hook} does not describe {parameter}"
    assert "When: " in (specification.__doc__ or "")


def test_each_register_hook_is_called() -> None:
    assert sorted([*REGISTER_HOOKS, CHECK_HOOK]) == [hook for hook in HOOKS if hook.startswith("openclaw_register_")]


def test_the_guide_shows_the_examples_as_they_are() -> None:
    blocks = re.findall(r"<!-- (\S+) -->\n *```\w+\n(.*?) *```\n", GUIDE, flags=re.DOTALL)
    assert len(blocks) == 9
    for path, text in blocks:
        assert dedent(text) == (ROOT / path).read_text(encoding="utf-8"), f"docs/plugins.md shows another {path}"


def plugin(hook: str, arguments: str, body: str, *, before: str = "") -> str:
    return f"""
{before}
class Nothing(BaseModel):
    pass

class ThePlugin:
    settings = None

    def __init__(self, context):
        self.context = context
        self.calls = 0

    @hookimpl
    def {hook}(self, {arguments}):
        self.calls += 1
        {body}
"""


async def run(source: str, good: Distributions, hosting: MakeHosting, **options: Any) -> Hosting:
    good.add("mine", source)
    running = hosting(**options)
    await running.run()
    await running.check_good()
    return running


async def test_hook_register_services(good: Distributions, hosting: MakeHosting) -> None:
    body = "registrar.provide(Bell, Bell()); registrar.add_unit(self); registrar.add_migrations([TABLE])"
    before = """
TABLE = Migration(number=1, name="x", apply=lambda database: database["mine_x"].create({"id": int}))

class Bell:
    rung = 0
"""
    source = plugin("openclaw_register_services", "registrar", body, before=before)
    source += """
    async def start(self):
        self.context.service(Bell).rung += 1
        await self.context.store.write(lambda connection: connection.execute("INSERT INTO mine_x VALUES (1)"))

    async def stop(self):
        self.context.service(Bell).rung += 10
"""
    running = await run(source, good, hosting)
    (bell,) = [owned.item for kind, owned in running.host.registry.services.items() if kind.__name__ == "Bell"]
    assert bell.rung == 1  # type: ignore[attr-defined]
    rows = await running.store.read(lambda connection: connection.execute("SELECT count(*) FROM mine_x").fetchone())
    assert rows == (1,)
    await running.stop()
    assert bell.rung == 11  # type: ignore[attr-defined]


async def test_hook_register_channels(good: Distributions, hosting: MakeHosting) -> None:
    running = hosting()
    await running.run()
    channels = running.host.channels
    assert (list(channels.ids()), channels.label("good"), channels.label("other")) == (["good"], "Good", "other")
    assert channels.status("good")[0].connected
    await running.check_good()


async def test_hook_register_providers(good: Distributions, hosting: MakeHosting) -> None:
    before = """
class Parrot:
    id = "parrot"
    label = "Parrot"
    async def start(self): pass
    async def stop(self): pass
    def models(self): return [ModelInfo(id="grey", provider="parrot", name="Grey")]
    async def stream(self, request): yield Completed(stop_reason="stop")
    def problem(self): return None
"""
    source = plugin("openclaw_register_providers", "registrar", "registrar.add_provider(Parrot())", before=before)
    running = await run(source, good, hosting)
    assert [model.ref for model in running.host.providers.models()] == ["parrot/grey"]


async def test_hook_register_tools(good: Distributions, hosting: MakeHosting) -> None:
    body = (
        "registrar.add_tool(Tool(name='mine', label='', description='', params=Nothing, run=print,"
        " retry_class=RetryClass.PURE, timeout_seconds=1.0))"
    )
    running = await run(plugin("openclaw_register_tools", "registrar", body), good, hosting)
    assert {tool.name: running.host.tools.source(tool.name) for tool in running.host.tools.all()} == {"greet": "good", "mine": "mine"}


async def test_hook_register_commands(good: Distributions, hosting: MakeHosting) -> None:
    before = "async def ring(call):\n    return f'rang for {call.sender_id}'\n"
    body = "registrar.add_command(Command(name='ring', description='Rings.', run=ring))"
    running = await run(plugin("openclaw_register_commands", "registrar", body, before=before), good, hosting)
    found = running.host.commands.find("/ring")
    assert found is not None
    call = CommandCall(session_key="s", agent_id="main", arguments="", target=None, sender_id="alice")
    assert await found[0].run(call) == "rang for alice"


async def test_hook_register_methods(good: Distributions, hosting: MakeHosting) -> None:
    before = """
class Methods:
    @rpc("mine.get", scope=Scope.READ, result=str)
    def get(self, call):
        "Get it."
        return "got"
"""
    source = plugin("openclaw_register_methods", "registrar", "registrar.add_methods(Methods())", before=before)
    running = await run(source, good, hosting)
    ((owner, method),) = running.host.registry.methods
    assert (owner, method.name, sorted(method.scopes)) == ("mine", "mine.get", ["operator.read"])
    handler: Any = method.handler
    assert handler(None) == "got"


async def test_hook_register_routes(good: Distributions, hosting: MakeHosting) -> None:
    body = "registrar.add_route(HttpRoute(method='GET', path='/mine', handler=len))"
    running = await run(plugin("openclaw_register_routes", "registrar", body), good, hosting)
    ((owner, route),) = running.host.registry.routes
    assert (owner, route.method, route.path) == ("mine", "GET", "/mine")


async def test_hook_register_authenticators(good: Distributions, hosting: MakeHosting) -> None:
    before = """
class Badge:
    id = "badge"
    async def authenticate(self, approach):
        return None
"""
    running = await run(
        plugin("openclaw_register_authenticators", "registrar", "registrar.add_authenticator(Badge())", before=before), good, hosting
    )
    assert running.host.registry.authenticators["badge"].plugin_id == "mine"


async def test_hook_register_checks(good: Distributions, hosting: MakeHosting, tmp_path: Path) -> None:
    before = "def look(context):\n    yield Finding(severity=Severity.WARN, evidence=str(context), cure='none')\n"
    body = "registrar.add_check(Check(id='mine.looks', title='mine', worst=Severity.WARN, run=look))"
    running = await run(plugin("openclaw_register_checks", "registrar", body, before=before), good, hosting)
    # A start does not ask for them.
    assert running.host.registry.checks == {}
    gathered = await gather(Guard(), config=Config(), home=tmp_path, discovery=strangers())
    ((owner, check),) = [(owned.plugin_id, owned.item) for owned in gathered.checks]
    assert (owner, check.id, gathered.faults) == ("mine", "mine.looks", {})
    context: Any = "the context"
    assert [finding.evidence for finding in check.run(context)] == ["the context"]


async def test_hook_decide_route(good: Distributions, hosting: MakeHosting) -> None:
    body = """
        if message.text != "hi":
            return None
        return Route(agent_id="main", session_key="agent:main:hi", reason="mine")
"""
    running = await run(plugin("openclaw_decide_route", "message", body), good, hosting)
    assert running.host.policies.route(MESSAGE).reason == "mine"


async def test_hook_decide_admission(good: Distributions, hosting: MakeHosting) -> None:
    # It names only one of the hook's two arguments, which is its right.
    body = "return Admission(verdict=Verdict.DROP, reason=route.session_key) if route.session_key == 'x' else None"
    running = await run(plugin("openclaw_decide_admission", "route", body), good, hosting)
    route = running.host.policies.route(MESSAGE)
    assert running.host.policies.admit(MESSAGE, route).verdict is Verdict.ALLOW
    elsewhere = type(route)(agent_id="main", session_key="x", reason="")
    assert running.host.policies.admit(MESSAGE, elsewhere).verdict is Verdict.DROP


async def test_hooks_are_called_in_their_order_and_before_that_nothing(good: Distributions, hosting: MakeHosting) -> None:
    hooks = "\n".join(
        f"    @hookimpl\n    def {hook}(self, registrar):\n        self.context.service(list).append('{hook}')\n"
        for hook in reversed(REGISTER_HOOKS)
    )
    source = "class ThePlugin:\n    settings = None\n    def __init__(self, context):\n        self.context = context\n" + hooks
    journal: list[str] = []
    await run(source, good, hosting, services={list: journal})
    assert journal == list(REGISTER_HOOKS)


async def test_the_kernels_services_are_there_for_plugins(good: Distributions, hosting: MakeHosting) -> None:
    class Facts:
        """Stands for the running gateway."""

    facts: Any = Facts()
    running = hosting(services={Gateway: facts})
    await running.run()
    context = running.host.current().hosted["good"].context
    assert context.service(Gateway) is facts
