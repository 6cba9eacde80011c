"""What the kernel offers of the plugins' things never hangs and never raises what it does not promise."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from openclaw_kernel.api import (
    ModelEvent,
    ModelRequest,
    OutboundMessage,
    PluginState,
    Progress,
    ProviderError,
    ProviderErrorKind,
    SendFailed,
    TextDelta,
    ToolContext,
    Unavailable,
    Verdict,
)
from openclaw_kernel.host.discovery import Discovery
from tests.kernel.host.distributions import Distributions
from tests.kernel.host.hosting import MESSAGE, TARGET, Hosting
from tests.kernel.host.test_lifecycle import BELLS, CHANNEL

MakeHosting = Callable[..., Hosting]

CONTEXT = ToolContext(agent_id="main", session_key="s", run_id="r", call_id="c", workspace=Path())
REQUEST = ModelRequest(model="m", system="", messages=(), agent_id="main", session_key="s", session_id="1", run_id="r", workspace=Path())


# --- channels -------------------------------------------------------------------------------------------------------


async def bells(good: Distributions, hosting: MakeHosting, send: str = "", status: str = "return []") -> Hosting:
    source = CHANNEL.format(start="pass").replace('return Receipt(message_ids=("1",))', send or "pass")
    good.add("bells", source.replace('return [AccountStatus(account_id="default", running=True)]', status), kind="channel")
    running = hosting(BELLS)
    await running.run()
    return running


SENDS = {
    "raises": ("raise ValueError('boom')", "send on channel bells raised ValueError: boom", False, True),
    "hangs": ("await asyncio.Event().wait()", "send on channel bells did not end in 0.3 s", False, True),
    "returns nothing": ("pass", "send on channel bells returned NoneType; return a Receipt", False, True),
    "says it is in vain": ("raise SendFailed('blocked by the user', permanent=True)", "blocked by the user", True, False),
}


@pytest.mark.parametrize("case", SENDS)
async def test_every_failure_to_send_is_told_as_such(case: str, good: Distributions, hosting: MakeHosting) -> None:
    body, text, permanent, unknown = SENDS[case]
    running = await bells(good, hosting, body)
    message = OutboundMessage(target=replace(TARGET, channel="bells"), outbox_id="1")
    with pytest.raises(SendFailed) as failed:
        await running.host.channels.send(message)
    assert text in str(failed.value)
    assert (failed.value.permanent, failed.value.unknown) == (permanent, unknown)
    await running.check_good()


async def test_a_message_to_a_channel_that_is_not_there_cannot_be_sent_now(good: Distributions, hosting: MakeHosting) -> None:
    running = hosting()
    await running.run()
    with pytest.raises(SendFailed, match="there is no channel 'godo'; did you mean 'good'") as failed:
        await running.host.channels.send(OutboundMessage(target=replace(TARGET, channel="godo"), outbox_id="1"))
    assert not failed.value.permanent


async def test_a_channel_that_cannot_say_its_state_is_shown_with_the_reason(good: Distributions, hosting: MakeHosting) -> None:
    running = await bells(good, hosting, status="raise ValueError('boom')")
    (account,) = running.host.channels.status("bells")
    assert "status of channel bells raised ValueError: boom" in (account.last_error or "")
    assert running.host.channels.status("unknown") == ()


async def test_progress_skips_to_the_newest_of_each_run_while_the_channel_is_busy(good: Distributions, hosting: MakeHosting) -> None:
    running = hosting()
    await running.run()
    channel: Any = running.host.registry.channels["good"].item
    gate = asyncio.Event()
    shown: list[Progress] = []
    ended = asyncio.Event()

    async def show(progress: Progress) -> None:
        shown.append(progress)
        await gate.wait()
        if progress.phase == "ended":
            ended.set()

    channel.show_progress = show
    offer = running.host.channels.show_progress
    offer(Progress(target=TARGET, run_id="a", phase="started"))
    await asyncio.sleep(0.01)
    for number in range(1000):
        offer(Progress(target=TARGET, run_id="a", phase="text", text=str(number)))
    offer(Progress(target=TARGET, run_id="b", phase="ended"))
    gate.set()
    await asyncio.wait_for(ended.wait(), 5)
    assert [(one.run_id, one.text) for one in shown] == [("a", ""), ("a", "999"), ("b", "")]


async def test_progress_that_fails_is_harmless(good: Distributions, hosting: MakeHosting) -> None:
    running = hosting()
    await running.run()
    channel: Any = running.host.registry.channels["good"].item
    second = asyncio.Event()

    async def show(progress: Progress) -> None:
        if progress.phase == "started":
            raise ValueError("boom")
        second.set()

    channel.show_progress = show
    running.host.channels.show_progress(Progress(target=TARGET, run_id="a", phase="started"))
    running.host.channels.show_progress(Progress(target=TARGET, run_id="b", phase="text"))
    await asyncio.wait_for(second.wait(), 5)
    await running.check_good()


# --- providers ------------------------------------------------------------------------------------------------------

PROVIDER = """
class Settings(BaseModel):
    trouble: str | None = None
    models: int = 2

class OneProvider:
    label = "One"

    def __init__(self, id, settings):
        self.id = id
        self.settings = settings
        self.closed = asyncio.Event()

    async def start(self): pass
    async def stop(self): pass

    def models(self):
        {models}
        return [ModelInfo(id=f"m{{n}}", provider=self.id, name="m") for n in range(self.settings.models)]

    async def stream(self, request):
        try:
            yield TextDelta("a")
            {stream}
        finally:
            self.closed.set()

    def problem(self):
        return self.settings.trouble

class ThePlugin:
    settings = Settings

    def __init__(self, context):
        self.context = context

    @hookimpl
    def openclaw_register_providers(self, registrar):
        for id, settings in self.context.instances(Settings).items():
            registrar.add_provider(OneProvider(id, settings))
"""


async def providers(
    good: Distributions, hosting: MakeHosting, *, stream: str = "yield Completed(stop_reason='stop')", models: str = "pass"
) -> Hosting:
    good.add("one", PROVIDER.format(stream=stream, models=models), kind="provider")
    entries = {
        "first": {"api": "one", "trouble": "no key; set one"},
        "empty": {"api": "one", "models": 0},
        "one": {},
        "last": {"api": "one"},
    }
    running = hosting({"channels": {"good": {}}, "models": {"providers": entries}})
    await running.run()
    return running


async def test_the_default_model_is_the_first_of_the_first_provider_that_can_answer(good: Distributions, hosting: MakeHosting) -> None:
    offered = (await providers(good, hosting)).host.providers
    assert [info.ref for info in offered.models()] == ["one/m0", "one/m1", "last/m0", "last/m1", "first/m0", "first/m1"]
    assert offered.problem("first") == "no key; set one"
    assert offered.problem("one") is None
    assert offered.problem("lost") == "there is no provider 'lost'; did you mean 'last'?"


async def test_a_model_is_found_by_reference_or_by_its_provider_alone(good: Distributions, hosting: MakeHosting) -> None:
    offered = (await providers(good, hosting)).host.providers
    refs = [offered.find(ref) for ref in ("one/m1", "one", "one/m9", "empty", "lost/m0")]
    assert [info.ref if info is not None else None for info in refs] == ["one/m1", "one/m0", None, None, None]


async def test_models_that_cannot_be_listed_degrade_their_plugin(good: Distributions, hosting: MakeHosting) -> None:
    running = await providers(good, hosting, models="raise ValueError('boom')")
    assert running.host.providers.models() == []
    assert running.state("one") is PluginState.DEGRADED
    assert "raised ValueError: boom" in running.reason("one")
    await running.check_good()


STREAMS = {
    "raises": ("raise ValueError('boom')", ProviderErrorKind.UNAVAILABLE, "call of provider one raised ValueError: boom"),
    "exits": ("sys.exit(3)", ProviderErrorKind.UNAVAILABLE, "raised SystemExit: 3"),
    "cancels itself": ("raise asyncio.CancelledError", ProviderErrorKind.UNAVAILABLE, "raised CancelledError"),
    "ends too early": ("return", ProviderErrorKind.UNAVAILABLE, "ended without Completed"),
    "refuses": (
        "raise ProviderError(ProviderErrorKind.RATE_LIMIT, 'too much', provider='one', retry_after=3.0)",
        ProviderErrorKind.RATE_LIMIT,
        "too much",
    ),
}


async def collect(running: Hosting, events: list[ModelEvent]) -> None:
    async for event in running.host.providers.stream("one", REQUEST):
        events.append(event)  # noqa: PERF401 - what came before an error counts


@pytest.mark.parametrize("case", STREAMS)
async def test_every_failure_of_a_model_call_is_a_provider_error(case: str, good: Distributions, hosting: MakeHosting) -> None:
    stream, kind, text = STREAMS[case]
    running = await providers(good, hosting, stream=stream)
    events: list[ModelEvent] = []
    with pytest.raises(ProviderError) as failed:
        await collect(running, events)
    assert events == [TextDelta("a")]
    assert failed.value.kind is kind
    assert text in str(failed.value)
    await running.check_good()


async def test_a_stream_that_is_no_iterator_is_a_provider_error(good: Distributions, hosting: MakeHosting) -> None:
    running = await providers(good, hosting)
    provider: Any = running.host.registry.providers["one"].item

    async def no_iterator(request: ModelRequest) -> None: ...

    provider.stream = no_iterator
    with pytest.raises(ProviderError, match="returned coroutine; return an async iterator"):
        async for _ in running.host.providers.stream("one", REQUEST):
            pass


async def test_a_call_of_an_unknown_provider_is_not_found(good: Distributions, hosting: MakeHosting) -> None:
    running = await providers(good, hosting)
    with pytest.raises(ProviderError) as failed:
        async for _ in running.host.providers.stream("lost", REQUEST):
            pass
    assert failed.value.kind is ProviderErrorKind.NOT_FOUND


async def test_closing_a_stream_closes_the_providers_own(good: Distributions, hosting: MakeHosting) -> None:
    running = await providers(good, hosting, stream="await asyncio.Event().wait()")
    provider: Any = running.host.registry.providers["one"].item
    events: Any = running.host.providers.stream("one", REQUEST)
    async with aclosing(events):
        assert await anext(events) == TextDelta("a")
    await asyncio.wait_for(provider.closed.wait(), 1)


async def test_cancelling_a_call_ends_the_providers_own_within_a_second(good: Distributions, hosting: MakeHosting) -> None:
    running = await providers(good, hosting, stream="await asyncio.Event().wait()")
    provider: Any = running.host.registry.providers["one"].item
    began = asyncio.Event()

    async def consume() -> None:
        async for _ in running.host.providers.stream("one", REQUEST):
            began.set()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(consume())
        await began.wait()
        task.cancel()
        await asyncio.wait_for(provider.closed.wait(), 1)
    assert task.cancelled()


# --- tools ----------------------------------------------------------------------------------------------------------

TOOL = """
class Params(BaseModel):
    url: str
    count: int = 1

class ThePlugin:
    settings = None

    def __init__(self, context):
        self.ended = False

    async def run(self, context, params):
        try:
            {run}
        finally:
            self.ended = True

    @hookimpl
    def openclaw_register_tools(self, registrar):
        registrar.add_tool(Tool(name="fetch", label="Fetch", description="", params=Params, run=self.run,
                                retry_class=RetryClass.PURE, timeout_seconds=0.3))
"""

TOOLS = {
    "works": ("return ToolResult(text=params.url)", {"url": "x"}, "x", False),
    "says no": ("raise ToolError('no such page')", {"url": "x"}, "no such page", True),
    "raises": ("raise ValueError('boom')", {"url": "x"}, "tool fetch raised ValueError: boom", True),
    "exits": ("sys.exit(3)", {"url": "x"}, "raised SystemExit: 3", True),
    "hangs": ("await asyncio.Event().wait()", {"url": "x"}, "fetch did not end in 0.3 s and was stopped", True),
    "returns nothing": ("pass", {"url": "x"}, "fetch returned NoneType", True),
    "lacks an argument": ("pass", {}, "fetch: arguments.url: missing; add it", True),
    "gets a wrong one": (
        "pass",
        {"url": "x", "count": "many"},
        "fetch: arguments.count: found str; input should be a valid integer",
        True,
    ),
}


@pytest.mark.parametrize("case", TOOLS)
async def test_a_tool_always_has_a_result(case: str, good: Distributions, hosting: MakeHosting) -> None:
    run, arguments, text, is_error = TOOLS[case]
    good.add("web", TOOL.format(run=run))
    running = hosting()
    await running.run()
    result = await running.host.tools.run("fetch", CONTEXT, arguments)
    assert text in result.text
    assert result.is_error is is_error
    assert running.host.tools.source("fetch") == "web"
    await running.check_good()


async def test_an_unknown_tool_is_an_error_for_the_model(good: Distributions, hosting: MakeHosting) -> None:
    running = hosting()
    await running.run()
    result = await running.host.tools.run("gret", CONTEXT, {})
    assert (result.is_error, result.text) == (True, "there is no tool 'gret'; did you mean 'greet'?")
    with pytest.raises(LookupError, match="did you mean 'greet'"):
        running.host.tools.source("gret")


async def test_cancelling_a_run_ends_the_tool(good: Distributions, hosting: MakeHosting) -> None:
    good.add("web", TOOL.format(run="self.began.set(); await asyncio.Event().wait()").replace("0.3", "30.0"))
    running = hosting()
    await running.run()
    standin: Any = running.host._manager._pluggy.get_plugin("web")
    plugin = standin.plugin
    plugin.began = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(running.host.tools.run("fetch", CONTEXT, {"url": "x"}))
        await plugin.began.wait()
        task.cancel()
    assert task.cancelled()
    assert plugin.ended


# --- commands and policies ------------------------------------------------------------------------------------------

COMMANDS = """
class ThePlugin:
    settings = None

    def __init__(self, context):
        pass

    async def run(self, call):
        return f"ran {call.arguments}"

    @hookimpl
    def openclaw_register_commands(self, registrar):
        registrar.add_command(Command(name="stop", description="", run=self.run, aliases=("stop", "please stop")))
        registrar.add_command(Command(name="model", description="", run=self.run, accepts_arguments=True))
"""

FOUND = {
    "/stop": ("stop", ""),
    "  /STOP  ": ("stop", ""),
    "/stop@my_bot": ("stop", ""),
    "/model@my_bot  openai/gpt  x ": ("model", "openai/gpt  x"),
    "/model\nopenai": ("model", "openai"),
    "Stop": ("stop", ""),
    " please STOP ": ("stop", ""),
    "stop it": None,
    "/stopp": None,
    "/": None,
    "": None,
    "model": None,
    "text /stop": None,
}


@pytest.mark.parametrize("text", FOUND)
async def test_a_command_is_found_in_a_whole_message(text: str, good: Distributions, hosting: MakeHosting) -> None:
    good.add("talk", COMMANDS)
    running = hosting()
    await running.run()
    found = running.host.commands.find(text)
    assert (None if found is None else (found[0].name, found[1])) == FOUND[text]
    assert [command.name for command in running.host.commands.all()] == ["stop", "model"]


async def test_without_a_policy_nothing_is_routed_and_nobody_admitted(hosting: MakeHosting) -> None:
    running = hosting(discovery=Discovery(plugins=()))
    await running.run()
    with pytest.raises(Unavailable, match="enable the plugin 'routing'"):
        running.host.policies.route(MESSAGE)
    verdict = running.host.policies.admit(MESSAGE, None)  # type: ignore[arg-type]
    assert verdict.verdict is Verdict.DROP
