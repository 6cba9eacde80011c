"""An installed Python plugin in a process of its own: it does what it does inside, and its deaths are its own."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from openclaw_config.models import Config
from openclaw_kernel.api import OutboundMessage, PluginState, SendFailed, Target, Unavailable
from openclaw_kernel.api.config import NotApplied, ReloadOutcome
from tests.kernel.children.conftest import Start
from tests.kernel.children.support import environment_of, processes_here, the_program
from tests.kernel.host.distributions import Distributions

TALKER = """
class Settings(BaseModel):
    model_config = {"extra": "forbid"}
    greeting: str = "hello"
    token: Secret | None = None
    enabled: bool = True

class Nothing(BaseModel):
    text: str = ""

class Channel:
    id = "talker"
    label = "Talker"
    capabilities = ChannelCapabilities(progress=True, attachments=True)

    def __init__(self, context):
        self.context, self.settings = context, context.settings(Settings)
        self.running, self.shown = False, ""

    async def start(self):
        if self.settings.greeting == "not-ready":
            raise NotReady("the platform is away")
        if self.settings.greeting == "rejected":
            raise ConfigRejected("channels.talker.greeting", "rejected", "write another")
        self.running = True

    async def stop(self):
        self.running = False

    async def send(self, message):
        if message.text == "refuse":
            raise SendFailed("not today", permanent=True)
        if message.text == "later":
            raise SendFailed("slow down", retry_after=7.5, whole_account=True)
        if message.text == "bring":
            target = message.target
            files = message.attachments
            brought = InboundMessage(target=target, message_id="m1", sender_id="ann", text="brought", attachments=files)
            await self.context.service(Ingress).accept(brought)
        return Receipt(message_ids=(message.outbox_id, message.text))

    async def show_progress(self, progress):
        self.shown = progress.text

    def status(self):
        return [AccountStatus(account_id="default", running=self.running, detail=self.shown or self.settings.greeting)]

async def keep(context, params):
    return ToolResult(text="x")

class ThePlugin:
    settings = Settings

    def __init__(self, context):
        self.context = context

    @hookimpl
    def openclaw_register_channels(self, registrar):
        registrar.add_channel(Channel(self.context))

    @hookimpl
    def openclaw_register_tools(self, registrar):
        async def talk(call, params):
            storage = self.context.storage
            count = int(await storage.get("count") or 0) + 1
            await storage.put("count", str(count))
            if params.text == "fail":
                raise ToolError("it cannot")
            if params.text == "degrade":
                self.context.degrade("something is odd; look at it")
            token = self.context.settings(Settings).token
            return ToolResult(text=f"{params.text} {count} {token.unwrap() if token else '-'} {call.agent_id} {call.workspace}")
        registrar.add_tool(Tool(name="talk", label="Talk", description="Talks.", params=Nothing, run=talk,
                                retry_class=RetryClass.IDEMPOTENT, timeout_seconds=5.0))

    @hookimpl
    def openclaw_register_commands(self, registrar):
        async def greet(call):
            return f"greetings, {call.sender_id}"
        registrar.add_command(Command(name="greet", description="Greets.", run=greet))
"""

UNCLASSIFIED = """
class ThePlugin:
    settings = None

    def __init__(self, context):
        pass

    @hookimpl
    def openclaw_register_methods(self, registrar):
        registrar.add_events([EventSpec(name="open.rang", scope=None, doc="It rang.")])
"""

UNIT = {"talker": ReloadOutcome.UNIT}
CONSTRUCTED = """
class ThePlugin:
    settings = None

    def __init__(self, context):
        {body}
"""

HOOKED = """
import os

class ThePlugin:
    settings = None

    def __init__(self, context): ...

    @hookimpl
    def openclaw_register_tools(self, registrar):
        {body}
"""

HARMFUL = """
import ctypes, os

class What(BaseModel):
    harm: str

def harm(name):
    if name == "exit":
        os._exit(5)
    if name == "segfault":
        ctypes.string_at(0)
    if name == "leak":
        held = []
        while True:
            held.append(bytearray(8_000_000))
    while name == "block":
        pass

class ThePlugin:
    settings = None

    def __init__(self, context): ...

    @hookimpl
    def openclaw_register_tools(self, registrar):
        async def run(call, params):
            harm(params.harm)
            return ToolResult(text="unharmed")
        registrar.add_tool(Tool(name="harm", label="Harm", description="Harms.", params=What, run=run,
                                retry_class=RetryClass.PURE, timeout_seconds=30.0))
"""

ISOLATED = {"talker": {"isolation": "process"}}
TARGET = Target(channel="talker", account_id="default", peer_kind="direct", peer_id="ann")


def to_ann(text: str, **more: object) -> OutboundMessage:
    return OutboundMessage(target=TARGET, outbox_id="o1", text=text, **more)  # type: ignore[arg-type]


@pytest.fixture
def talker(distributions: Distributions) -> Distributions:
    distributions.add("talker", TALKER, kind="channel")
    return distributions


async def test_its_tool_command_and_channel_work_from_its_own_process(talker: Distributions, start: Start) -> None:
    family = await start(ISOLATED, {"talker": {"greeting": "servus", "token": "s3cret-s3cret"}})
    host = family.hosting.host
    assert family.hosting.state("talker") is PluginState.STARTED, family.hosting.reason("talker")
    (keeper,) = family.children.pids("talker")
    assert keeper in processes_here()
    result = await family.tool("talk", text="hi")
    assert result.text == "hi 1 s3cret-s3cret main /"
    assert (await family.tool("talk", text="fail")).text == "it cannot"
    assert "text" in (await family.tool("talk", text=5)).text
    assert next(tool for tool in host.tools.all() if tool.name == "talk").schema()["properties"]["text"]["type"] == "string"
    receipt = await host.channels.send(to_ann("hello"))
    assert receipt.message_ids == ("o1", "hello")
    found = host.commands.find("/greet")
    assert found is not None
    assert host.channels.capabilities("talker") == host.registry.capabilities["talker"]
    assert host.registry.capabilities["talker"].progress
    await family.hosting.check_good()


async def test_a_refusal_of_the_platform_keeps_its_meaning_over_the_pipe(talker: Distributions, start: Start) -> None:
    family = await start(ISOLATED, {"talker": {}})
    with pytest.raises(SendFailed, match="not today") as refused:
        await family.hosting.host.channels.send(to_ann("refuse"))
    assert (refused.value.permanent, refused.value.unknown) == (True, False)
    with pytest.raises(SendFailed) as later:
        await family.hosting.host.channels.send(to_ann("later"))
    assert (later.value.retry_after, later.value.whole_account) == (7.5, True)


async def test_a_message_with_short_and_long_files_goes_out_and_comes_in_whole(talker: Distributions, start: Start, home: Path) -> None:
    from openclaw_kernel.api import Attachment

    family = await start(ISOLATED, {"talker": {}})
    files = tuple(Attachment(kind="file", mime_type="x/y", file_name=f"{size}", content=os.urandom(size)) for size in (0, 10, 2_000_000))
    await family.hosting.host.channels.send(to_ann("bring", attachments=files))
    (message,) = family.door.accepted
    assert message.text == "brought"
    assert message.attachments == files
    assert [each for each in (home / "plugins" / "talker" / "exchange").rglob("*") if each.is_file()] == []


async def test_a_message_that_the_gateway_cannot_store_is_refused_to_the_plugin_and_no_answer_lies(
    talker: Distributions, start: Start
) -> None:
    family = await start(ISOLATED, {"talker": {}})
    family.door.refusal = Unavailable("the disk is full")
    with pytest.raises(SendFailed, match="the disk is full"):
        await family.hosting.host.channels.send(to_ann("bring"))
    assert family.door.accepted == []
    family.door.refusal = None
    await family.hosting.host.channels.send(to_ann("bring"))
    assert len(family.door.accepted) == 1


async def test_the_environment_is_the_allow_list_and_no_secret_is_in_it_nor_in_the_arguments(
    talker: Distributions, start: Start, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LD_PRELOAD_X", "PYTHONPATH", "SECRET_OF_THE_SHELL", "NODE_OPTIONS"):
        monkeypatch.setenv(name, "planted")
    family = await start(ISOLATED, {"talker": {"token": "s3cret-s3cret"}})
    program = the_program(family.children.pids("talker")[0])
    folder = str(home / "plugins" / "talker")
    expected = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": folder, "TMPDIR": folder, "LANG": "C.UTF-8", "LC_CTYPE": "C.UTF-8"}
    assert environment_of(program) == expected
    assert b"s3cret" not in Path(f"/proc/{program}/cmdline").read_bytes()
    assert Path(f"/proc/{program}/cwd").resolve() == (home / "plugins" / "talker").resolve()


async def test_it_inherits_no_descriptor_but_its_three(talker: Distributions, start: Start, tmp_path: Path) -> None:
    marker = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(marker, True)  # noqa: FBT003
    try:
        family = await start(ISOLATED, {"talker": {}})
        program = the_program(family.children.pids("talker")[0])
        seen = [str(each.readlink()) for each in Path(f"/proc/{program}/fd").iterdir()]
        assert str(tmp_path) not in seen
        # Nor does it listen anywhere: what it has to say goes over the pipe.
        tables = [Path(f"/proc/{program}/net/{name}").read_text().splitlines()[1:] for name in ("tcp", "tcp6")]
        listening = {f"socket:[{row.split()[9]}]" for rows in tables for row in rows if row.split()[3] == "0A"}
        assert listening.isdisjoint(seen)
    finally:
        os.close(marker)


async def test_a_child_that_is_killed_is_started_again_its_channel_works_and_the_reason_is_told(
    talker: Distributions, start: Start
) -> None:
    family = await start(ISOLATED, {"talker": {}})
    program = the_program(family.children.pids("talker")[0])
    before = len(family.hosting.changes)
    os.kill(program, signal.SIGKILL)
    await family.hosting.wait_until(lambda: family.hosting.state("talker") is PluginState.DEGRADED, 10)
    assert "was ended by SIGKILL" in family.hosting.reason("talker")
    await family.hosting.check_good()
    await family.hosting.wait_until(lambda: family.hosting.state("talker") is PluginState.STARTED, 20)
    receipt = await family.hosting.host.channels.send(to_ann("again"))
    assert receipt.message_ids == ("o1", "again")
    assert (await family.tool("talk", text="x")).text.startswith("x 1")
    assert {change.id for change in family.hosting.changes[before:]} == {"talker"}


async def test_what_keeps_dying_is_given_up_with_the_reason_until_its_channel_is_started_again(talker: Distributions, start: Start) -> None:
    family = await start(ISOLATED, {"talker": {}})
    hosting = family.hosting
    for _ in range(3):
        await hosting.wait_until(lambda: hosting.state("talker") is PluginState.STARTED, 20)
        os.kill(the_program(family.children.pids("talker")[0]), signal.SIGKILL)
        await hosting.wait_until(lambda: hosting.state("talker") is not PluginState.STARTED, 10)
    assert hosting.state("talker") is PluginState.FAILED
    assert "this was 3 times in 60 s, and it is not started again" in hosting.reason("talker")
    with pytest.raises(SendFailed, match="not running"):
        await hosting.host.channels.send(to_ann("x"))
    assert await hosting.host.channels.start("talker")
    await hosting.wait_until(lambda: hosting.state("talker") is PluginState.STARTED, 20)
    assert (await hosting.host.channels.send(to_ann("x"))).message_ids == ("o1", "x")


async def test_a_channel_that_was_stopped_stays_so_when_its_process_is_started_again(talker: Distributions, start: Start) -> None:
    family = await start(ISOLATED, {"talker": {}})
    assert await family.hosting.host.channels.stop("talker")
    os.kill(the_program(family.children.pids("talker")[0]), signal.SIGKILL)
    await family.hosting.wait_until(lambda: family.hosting.state("talker") is PluginState.DEGRADED, 10)
    await family.hosting.wait_until(lambda: family.hosting.state("talker") is PluginState.STARTED, 20)
    with pytest.raises(SendFailed, match="not running"):
        await family.hosting.host.channels.send(to_ann("x"))
    assert await family.hosting.host.channels.start("talker")
    assert (await family.hosting.host.channels.send(to_ann("x"))).message_ids == ("o1", "x")


@pytest.mark.parametrize(
    ("greeting", "state", "told"),
    [
        ("not-ready", PluginState.DEGRADED, "channel talker is not ready: the platform is away"),
        ("rejected", PluginState.DEGRADED, "channels.talker.greeting: rejected; write another"),
    ],
)
async def test_what_a_start_says_is_what_it_says_inside(
    talker: Distributions, start: Start, greeting: str, state: PluginState, told: str
) -> None:
    family = await start(ISOLATED, {"talker": {"greeting": greeting}})
    assert (family.hosting.state("talker"), told in family.hosting.reason("talker")) == (state, True), family.hosting.reason("talker")


async def test_settings_that_are_wrong_fail_it_with_the_words_that_they_have_inside(talker: Distributions, start: Start) -> None:
    family = await start(ISOLATED, {"talker": {"greting": "x"}})
    assert family.hosting.state("talker") is PluginState.FAILED
    assert "channels.talker.greting" in family.hosting.reason("talker")
    await family.hosting.check_good()


async def test_its_status_and_what_it_says_of_itself_reach_the_gateway(talker: Distributions, start: Start) -> None:
    from openclaw_kernel.api import Progress

    family = await start(ISOLATED, {"talker": {"greeting": "servus"}})
    (account,) = family.hosting.host.channels.status("talker")
    assert (account.running, account.detail) == (True, "servus")
    family.hosting.host.channels.show_progress(Progress(target=TARGET, run_id="r", phase="text", text="so far"))
    async with asyncio.timeout(10):
        while family.hosting.host.channels.status("talker")[0].detail != "so far":
            # What it tells of itself comes before its answer.
            await family.tool("talk", text="x")
    await family.tool("talk", text="degrade")
    await family.hosting.wait_until(lambda: "something is odd" in family.hosting.reason("talker"), 10)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("raise ValueError('at import')", "import raised ValueError: at import"),
        ("import os; os._exit(7)", "ended by itself with status 7"),
        ("import ctypes; ctypes.string_at(0)", "was ended by SIGSEGV"),
        (CONSTRUCTED.format(body="raise ValueError('x')"), "constructor raised ValueError: x"),
        (CONSTRUCTED.format(body="sys.exit(2)"), "constructor raised SystemExit: 2"),
        (HOOKED.format(body="raise ValueError('x')"), "openclaw_register_tools raised ValueError: x"),
        (HOOKED.format(body="os._exit(8)"), "ended by itself with status 8"),
    ],
)
async def test_one_that_dies_at_its_import_fails_alone(distributions: Distributions, start: Start, body: str, told: str) -> None:
    distributions.add("dier", body)
    family = await start({"dier": {"isolation": "process"}})
    assert family.hosting.state("dier") is PluginState.FAILED
    assert told in family.hosting.reason("dier")
    assert processes_here() == []
    await family.hosting.check_good()


@pytest.mark.parametrize(
    ("hook", "what"),
    [
        ("openclaw_register_routes", "HTTP routes"),
        ("openclaw_decide_admission", "decisions on messages"),
        ("openclaw_register_services", "services for other plugins"),
    ],
)
async def test_what_only_works_inside_is_refused_by_name(distributions: Distributions, start: Start, hook: str, what: str) -> None:
    argument = "message, route" if "decide" in hook else "registrar"
    bodies = {
        "openclaw_register_routes": "registrar.add_route(HttpRoute(method='GET', path='/x', handler=print))",
        "openclaw_decide_admission": "return None",
        "openclaw_register_services": "registrar.provide(Ingress2, object())",
    }
    source = f"""
class Ingress2: ...

class ThePlugin:
    settings = None
    def __init__(self, context): ...
    @hookimpl
    def {hook}(self, {argument}):
        {bodies[hook].replace("object()", "Ingress2()")}
"""
    distributions.add("insider", source)
    family = await start({"insider": {"isolation": "process"}})
    assert family.hosting.state("insider") is PluginState.FAILED
    assert what in family.hosting.reason("insider")
    assert "isolation: inproc" in family.hosting.reason("insider")


async def test_nothing_is_left_of_it_after_the_stop(talker: Distributions, start: Start) -> None:
    family = await start(ISOLATED, {"talker": {}})
    assert processes_here()
    assert await family.hosting.stop(10.0) == []
    await family.children.close(5)
    assert processes_here() == []


async def test_another_config_is_taken_by_a_process_beside_the_one_that_runs_which_ends_when_it_is_replaced(
    talker: Distributions, start: Start
) -> None:
    family = await start(ISOLATED, {"talker": {"greeting": "old"}})
    host = family.hosting.host
    (before,) = family.children.pids("talker")

    def config_with(greeting: object) -> Config:
        plugins = {"callTimeoutSeconds": 10, "entries": ISOLATED}
        return Config.model_validate({"plugins": plugins, "channels": {"good": {}, "talker": {"greeting": greeting}}})

    with pytest.raises(NotApplied, match=r"channels\.talker\.greeting"):
        await host.prepare(config_with(5), UNIT)
    given_up = await host.prepare(config_with("new"), UNIT)
    assert len(family.children.pids("talker")) == 2
    await given_up.discard()
    assert family.children.pids("talker") == [before]
    await (await host.prepare(config_with("new"), UNIT)).commit()
    assert host.channels.status("talker")[0].detail == "new"
    async with asyncio.timeout(10):
        while before in processes_here():
            # Each of its calls waits for something.
            await family.tool("talk", text="x")
    (after,) = family.children.pids("talker")
    assert after != before


async def test_a_config_that_another_plugin_makes_impossible_leaves_no_process_behind(talker: Distributions, start: Start) -> None:
    talker.add("open", UNCLASSIFIED)
    family = await start({"open": {"enabled": False}, "talker": {"enabled": False}}, {"talker": {}})
    plugins = {"callTimeoutSeconds": 10, "entries": {"open": {"enabled": True}, **ISOLATED}}
    config = Config.model_validate({"plugins": plugins, "channels": {"good": {}, "talker": {}}})
    for _ in range(2):
        with pytest.raises(NotApplied, match="'open' has no scope"):
            await family.hosting.host.prepare(config, {})
        assert family.children.pids("talker") == []
    assert processes_here() == []


async def test_a_plugin_moves_out_of_the_gateway_and_back_in_while_it_runs(talker: Distributions, start: Start) -> None:
    family = await start({}, {"talker": {}})
    host = family.hosting.host

    def config_with(isolation: str) -> Config:
        plugins = {"callTimeoutSeconds": 10, "entries": {"talker": {"isolation": isolation}}}
        return Config.model_validate({"plugins": plugins, "channels": {"good": {}, "talker": {}}})

    assert family.children.pids("talker") == []
    for isolation, processes in (("process", 1), ("inproc", 0), ("process", 1)):
        await (await host.prepare(config_with(isolation), UNIT)).commit()
        assert (await host.channels.send(to_ann(isolation))).message_ids == ("o1", isolation)
        await family.tool("talk", text="x")
        async with asyncio.timeout(10):
            while len(family.children.pids("talker")) != processes:
                # The one that was replaced ends once nothing of it is under way.
                await family.tool("talk", text="x")
    assert (await family.tool("talk", text="kept")).text.startswith("kept")
    assert family.hosting.state("talker") is PluginState.STARTED


async def test_one_whose_name_is_taken_is_failed_and_its_process_ends(talker: Distributions, start: Start) -> None:
    talker.add("copycat", TALKER.replace('id = "talker"', 'id = "copycat"'), kind="channel")
    family = await start({**ISOLATED, "copycat": {"isolation": "process"}}, {"talker": {}, "copycat": {}})
    states = {name: family.hosting.state(name) for name in ("talker", "copycat")}
    assert sorted(states.values()) == [PluginState.FAILED, PluginState.STARTED]
    (failed,) = [name for name, state in states.items() if state is PluginState.FAILED]
    assert "'talk'" in family.hosting.reason(failed)
    (keeper,) = family.children.pids(next(name for name in states if name != failed))
    async with asyncio.timeout(10):
        while {keeper, the_program(keeper)} != set(processes_here()):
            await family.hosting.check_good()


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        ("exit", "ended by itself with status 5"),
        ("segfault", "was ended by SIGSEGV"),
        ("block", "did not answer a ping in 1 s"),
        # The plugin's fault stays the call's: Python itself survives it.
        ("leak", ""),
    ],
)
async def test_whatever_its_code_does_is_the_end_of_its_process_alone(
    distributions: Distributions, start: Start, harm: str, told: str
) -> None:
    distributions.add("chaos", HARMFUL)
    # Only the one that blocks is to be late: on a busy machine each of the others may be, too.
    limits = {"answerSeconds": 1 if harm == "block" else 30, "memoryMb": 400}
    family = await start({"chaos": {"isolation": "process", "limits": limits}})
    result = await family.tool("harm", harm=harm)
    assert result.is_error
    assert told in result.text or harm == "leak"
    await family.hosting.check_good()
    if harm == "leak":
        assert "MemoryError" in result.text
    else:
        assert told in family.hosting.reason("chaos")
    await family.hosting.wait_until(lambda: family.hosting.state("chaos") is PluginState.STARTED, 20)
    assert (await family.tool("harm", harm="none")).text == "unharmed"


async def test_more_calls_than_may_be_under_way_at_once_wait_for_their_turn_in_either_direction(
    talker: Distributions, start: Start
) -> None:
    family = await start({"talker": {"isolation": "process", "limits": {"answerSeconds": 5}}}, {"talker": {}})
    (before,) = family.children.pids("talker")
    # Each reads and writes a value of the plugin's in the gateway.
    results = await asyncio.gather(*(family.tool("talk", text=str(number)) for number in range(300)))
    assert [result.text for result in results if result.is_error] == []
    assert family.children.pids("talker") == [before]
