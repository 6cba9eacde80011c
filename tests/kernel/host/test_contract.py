"""What a plugin hands over is looked at before anybody relies on it; what is garbage is that plugin's fault in a line."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from openclaw_kernel.api import (
    CommandCall,
    Completed,
    ModelEvent,
    OutboundMessage,
    PluginState,
    ProviderError,
    ProviderErrorKind,
    SendFailed,
    TextDelta,
    ToolStep,
    Usage,
)
from openclaw_kernel.host.contract import misfit
from openclaw_kernel.host.guard import describe
from openclaw_kernel.host.lines import encodable, one_line
from tests.kernel.host.distributions import Distributions
from tests.kernel.host.hosting import TARGET, Hosting
from tests.kernel.host.test_isolation import CLASS, UNIT
from tests.kernel.host.test_services import CONTEXT, REQUEST, TOOL, bells, collect, providers

MakeHosting = Callable[..., Hosting]

STATUSES = {
    "none": ("return None", "returned NoneType; return a list of AccountStatus"),
    "a coroutine": (
        "async def late(): ...\n        it = late(); it.close(); return it",
        "returned coroutine; return a list of AccountStatus",
    ),
    "words": ("return 'fine'", "returned str; return a list of AccountStatus"),
    "others": ("return [3]", "returned int; return a AccountStatus"),
    "a wrong field": (
        "return [AccountStatus(account_id='default', last_inbound_at='now')]",
        "returned a AccountStatus whose last_inbound_at is a str; give what the type says",
    ),
    "an endless generator": ("yield from iter(int, 1)", "returned generator; return a list of AccountStatus"),
}


@pytest.mark.parametrize("case", STATUSES)
async def test_a_channels_status_that_is_garbage_is_its_error(case: str, good: Distributions, hosting: MakeHosting) -> None:
    status, text = STATUSES[case]
    running = await bells(good, hosting, status=status)
    (account,) = running.host.channels.status("bells")
    assert text in (account.last_error or "")
    await running.check_good()


async def test_a_channel_that_changes_its_face_is_known_by_the_first(good: Distributions, hosting: MakeHosting) -> None:
    running = await bells(good, hosting)
    channel: Any = running.host.registry.channels["bells"].item
    channel.label = channel.capabilities = None
    assert running.host.channels.label("bells") == "Bells"
    capabilities = running.host.channels.capabilities("bells")
    assert capabilities is not None
    assert not capabilities.progress


async def test_a_receipt_that_is_garbage_is_no_receipt(good: Distributions, hosting: MakeHosting) -> None:
    running = await bells(good, hosting, send="return Receipt(message_ids=(7,))")
    with pytest.raises(SendFailed, match="returned a Receipt whose message_ids is a tuple") as failed:
        await running.host.channels.send(OutboundMessage(target=replace(TARGET, channel="bells"), outbox_id="1"))
    assert failed.value.unknown


@pytest.mark.parametrize("delay", ["'soon'", "float('nan')", "float('inf')", "-1.0", "1e300"])
async def test_a_delay_nobody_can_wait_for_is_none(delay: str, good: Distributions, hosting: MakeHosting) -> None:
    running = await bells(good, hosting, send=f"raise SendFailed('busy', permanent='no', retry_after={delay})")
    with pytest.raises(SendFailed, match="busy") as failed:
        await running.host.channels.send(OutboundMessage(target=replace(TARGET, channel="bells"), outbox_id="1"))
    assert (failed.value.retry_after, failed.value.permanent, failed.value.unknown) == (None, False, False)


@pytest.mark.parametrize(
    "models", ["return None", "return 'gpt'", "return [{'id': 'gpt'}]", "return [ModelInfo(id=3, provider='one', name='')]"]
)
async def test_models_that_are_garbage_are_none(models: str, good: Distributions, hosting: MakeHosting) -> None:
    running = await providers(good, hosting, models=models)
    assert running.host.providers.models() == []
    assert running.host.providers.find("one") is None
    assert "models of provider one returned" in running.reason("one")
    await running.check_good()


async def test_a_problem_that_is_garbage_is_a_problem(good: Distributions, hosting: MakeHosting) -> None:
    running = await providers(good, hosting)
    provider: Any = running.host.registry.providers["one"].item
    provider.problem = lambda: ["no key"]
    assert "problem of provider one returned list; return a text or None" in (running.host.providers.problem("one") or "")


EVENTS = {
    "nothing": ("yield None", "yielded NoneType; yield TextDelta, ThinkingDelta, ToolStep or Completed"),
    "words": ("yield 'hello'", "yielded str"),
    "a text that is none": ("yield TextDelta(None)", "returned a TextDelta whose text is None"),
    "an end that is none": ("yield Completed(stop_reason='whatever')", "returned a Completed whose stop_reason is a str"),
    "calls that are none": ("yield Completed(stop_reason='tool_calls', tool_calls=({},))", "whose tool_calls is a tuple"),
    "an error of no kind": ("raise ProviderError('odd', 'boom', provider='one', retry_after='x')", "boom"),
    "an error without a text": (
        "class Mute(Exception):\n                def __str__(self): raise ValueError('mute')\n            raise Mute",
        "raised Mute: (its text raised ValueError)",
    ),
}


@pytest.mark.parametrize("case", EVENTS)
async def test_a_stream_of_garbage_is_a_provider_error(case: str, good: Distributions, hosting: MakeHosting) -> None:
    stream, text = EVENTS[case]
    running = await providers(good, hosting, stream=stream)
    events: list[ModelEvent] = []
    with pytest.raises(ProviderError) as failed:
        await collect(running, events)
    assert events == [TextDelta("a")]
    assert text in str(failed.value)
    assert (failed.value.kind, failed.value.retry_after) == (ProviderErrorKind.UNAVAILABLE, None)
    await running.check_good()


async def test_half_a_character_of_a_model_is_replaced(good: Distributions, hosting: MakeHosting) -> None:
    running = await providers(good, hosting, stream="yield TextDelta('b\\ud83d'); yield Completed(stop_reason='stop')")
    events: list[ModelEvent] = []
    await collect(running, events)
    assert events == [TextDelta("a"), TextDelta("b\ufffd"), Completed(stop_reason="stop")]


async def test_a_model_that_does_not_let_itself_be_cancelled_holds_nobody_up(good: Distributions, hosting: MakeHosting) -> None:
    stubborn = """
            free = self.free = asyncio.Event()
            while not free.is_set():
                try:
                    await free.wait()
                except BaseException:
                    pass"""
    running = await providers(good, hosting, stream=stubborn)
    provider: Any = running.host.registry.providers["one"].item
    began = asyncio.Event()

    async def consume() -> None:
        async for _ in running.host.providers.stream("one", REQUEST):
            began.set()

    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(consume())
        await began.wait()
        at = loop.time()
        task.cancel()
    assert task.cancelled()
    assert loop.time() - at < 2
    assert any("call of provider one" in line for line in running.host.guard.abandoned)
    provider.free.set()


async def test_a_model_that_is_ahead_of_its_reader_waits(good: Distributions, hosting: MakeHosting) -> None:
    flood = "self.count = 0\n            while True:\n                self.count += 1\n                yield TextDelta('x')"
    running = await providers(good, hosting, stream=flood)
    provider: Any = running.host.registry.providers["one"].item
    events: Any = running.host.providers.stream("one", REQUEST)
    assert await anext(events) == TextDelta("a")
    assert provider.count < 100
    for _ in range(1000):
        await anext(events)
    assert 1000 <= provider.count < 1100
    await events.aclose()
    await asyncio.wait_for(provider.closed.wait(), 1)


TOOL_RESULTS = {
    "none for a text": ("return ToolResult(text=None)", "returned a ToolResult whose text is None"),
    "bytes": ("return ToolResult(text=b'x')", "returned a ToolResult whose text is a bytes"),
    "words": ("return 'done'", "returned str; return a ToolResult"),
}


@pytest.mark.parametrize("case", TOOL_RESULTS)
async def test_a_tool_result_that_is_garbage_is_an_error_for_the_model(case: str, good: Distributions, hosting: MakeHosting) -> None:
    run, text = TOOL_RESULTS[case]
    good.add("web", TOOL.format(run=run))
    running = hosting()
    await running.run()
    result = await running.host.tools.run("fetch", CONTEXT, {"url": "x"})
    assert result.is_error
    assert text in result.text


async def test_half_a_character_of_a_tool_is_replaced(good: Distributions, hosting: MakeHosting) -> None:
    good.add("web", TOOL.format(run=r"return ToolResult(text='\ud800 snow \u2603')"))
    running = hosting()
    await running.run()
    assert (await running.host.tools.run("fetch", CONTEXT, {"url": "x"})).text == "\ufffd snow \u2603"


WRONG_TOOLS = {
    "name": ("3", "name is a int"),
    "description": ("None", "description is None"),
    "params": ("dict", "params is a type"),
    "run": ("None", "run is None"),
    "retry_class": ("'pure'", "retry_class is a str"),
    "timeout_seconds": ("float('nan')", "timeout_seconds is nan; give a positive one"),
    "enabled": ("None", "enabled is None"),
}


@pytest.mark.parametrize("field", WRONG_TOOLS)
async def test_a_tool_with_a_wrong_field_is_refused(field: str, good: Distributions, hosting: MakeHosting) -> None:
    value, reason = WRONG_TOOLS[field]
    good.add(
        "web",
        TOOL.format(run="pass")
        .replace("timeout_seconds=0.3))", f"timeout_seconds=0.3) | {{'{field}': {value}}}))")
        .replace("add_tool(Tool(", "add_tool(Tool(**dict("),
    )
    running = hosting()
    await running.run()
    assert running.state("web") is PluginState.FAILED
    assert reason in running.reason("web")
    await running.check_good()


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ("raise ValueError('boom')", "openclaw_register_tools raised ValueError: boom"),
        ("return None", "schema() returned NoneType; return a JSON Schema object"),
        ("return {'default': object()}", "its schema is not JSON"),
        ("threading.Event().wait()", "openclaw_register_tools did not end in 0.5 s"),
    ],
)
async def test_a_tool_whose_schema_cannot_be_had_is_refused(schema: str, reason: str, good: Distributions, hosting: MakeHosting) -> None:
    source = TOOL.format(run="pass").replace(
        "    count: int = 1", f"    @classmethod\n    def model_json_schema(cls, *a, **k):\n        {schema}"
    )
    good.add("web", source)
    running = hosting()
    await running.run()
    assert running.state("web") is PluginState.FAILED
    assert reason in running.reason("web")
    await running.check_good()


async def test_a_name_that_compares_as_it_likes_is_refused(good: Distributions, hosting: MakeHosting) -> None:
    good.add(
        "bad",
        """
class Name(str):
    def __eq__(self, other): return True
    def __hash__(self): return hash("good")
"""
        + CLASS
        + """
        self.id = Name("x"); self.label = "x"; self.capabilities = ChannelCapabilities()
    async def start(self): pass
    async def stop(self): pass
    async def send(self, message): pass
    async def show_progress(self, progress): pass
    def status(self): return []
    @hookimpl
    def openclaw_register_channels(self, registrar):
        registrar.add_channel(self)
""",
    )
    running = hosting()
    await running.run()
    assert "channel 'x': its id is a Name; give a plain str" in running.reason("bad")
    await running.check_good()


async def test_a_command_that_answers_nothing_says_so(good: Distributions, hosting: MakeHosting) -> None:
    good.add(
        "bad",
        CLASS
        + """
    @hookimpl
    def openclaw_register_commands(self, registrar):
        async def run(call): pass
        registrar.add_command(Command(name="bad", description="", run=run))
""",
    )
    running = hosting()
    await running.run()
    found = running.host.commands.find("/bad")
    assert found is not None
    call = CommandCall(session_key="s", agent_id="main", arguments="", target=None, sender_id="alice")
    assert "command /bad returned NoneType; return a str" in await found[0].run(call)


@pytest.mark.parametrize("alias", ["", "STOP", " stop", "a\tb"])
async def test_an_alias_that_could_never_be_said_is_refused(alias: str, good: Distributions, hosting: MakeHosting) -> None:
    good.add(
        "bad",
        CLASS
        + f"""
    @hookimpl
    def openclaw_register_commands(self, registrar):
        registrar.add_command(Command(name="bad", description="", run=print, aliases=({alias!r},)))
""",
    )
    running = hosting()
    await running.run()
    assert f"alias {alias!r}: use lower-case words parted by one space" in running.reason("bad")


async def test_a_reason_is_one_line_of_bearable_length(good: Distributions, hosting: MakeHosting) -> None:
    good.add("bad", UNIT.format(start=r"self.context.degrade('first\nsecond\x1b[2J ' + 'x' * 1_000_000)", stop="pass"))
    running = hosting()
    await running.run()
    assert running.reason("bad").startswith("first second [2J xxx")
    assert len(running.reason("bad")) <= 1000


def test_an_error_whose_text_raises_is_described() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise SystemExit(3)

    assert describe(Mute()) == "Mute: (its text raised SystemExit)"


def test_a_short_line_stays_as_it_is() -> None:
    assert one_line("plain \u2603 words") == "plain \u2603 words"
    assert encodable("plain \u2603 \U0001f600 words") == "plain \u2603 \U0001f600 words"


def test_types_are_looked_at_below_the_first_level() -> None:
    assert misfit(Completed(stop_reason="stop", usage=Usage(input_tokens=3, cost_usd=1))) is None
    assert misfit(Completed(stop_reason="stop", usage=Usage(input_tokens="3"))) == "usage is a Usage"  # type: ignore[arg-type]
    assert misfit(ToolStep(id="1", name="x", phase="start", arguments=[])) == "arguments is a list"  # type: ignore[arg-type]
    assert misfit(Usage(input_tokens=True)) == "input_tokens is a bool"
