"""A program in any language: found by its manifest, trusted only where nobody else could have put it, and held to the contract."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import math
import os
import sqlite3
import sys
import time
from pathlib import Path

import pytest

from openclaw_kernel.api import OutboundMessage, PluginState, SendFailed, Target, ToolContext
from openclaw_kernel.api.audit import AuditEntry, AuditLog
from openclaw_kernel.children.errors import Code, NotAsked
from openclaw_kernel.host.discovery import discover
from tests.kernel.children.conftest import DEADLINE, Start
from tests.kernel.children.support import PRELUDE, add_program, processes_here

CHANNEL = (
    PRELUDE
    + """
REGISTERED = {"channels": [{"id": "lines", "label": "Lines"}],
              "tools": [{"name": "shout", "label": "Shout", "description": "Shouts.", "parameters": {"type": "object"},
                         "retryClass": "pure", "timeoutSeconds": 5}],
              "commands": [{"name": "wave", "description": "Waves."}]}

def accept(number, channel, **more):
    target = {"channel": channel, "accountId": "default", "peerKind": "direct", "peerId": "ann"}
    say({"id": number, "method": "channel.accept", "params": {"message": {"target": target, "messageId": "1", "senderId": "ann", **more}}})
    while True:
        heard = json.loads(sys.stdin.readline())
        if heard.get("id") == number and "method" not in heard:
            return heard.get("error", heard.get("result"))

def send(params):
    text = params["message"]["text"]
    if text == "as another":
        return {"messageIds": [json.dumps(accept("a", "good", text="forged"))]}
    if text == "wrong":
        return {"messageIds": [json.dumps(accept("b", "lines", text=5))]}
    if text == "link":
        os.symlink("/etc/passwd", os.path.join(serve.hello["exchangeFolder"], "evil"))
        files = [{"kind": "file", "mimeType": "x", "fileName": "f", "file": "evil"}]
        return {"messageIds": [json.dumps(accept("c", "lines", attachments=files))]}
    if text == "path":
        files = [{"kind": "file", "mimeType": "x", "fileName": "f", "file": "../x"}]
        return {"messageIds": [json.dumps(accept("d", "lines", attachments=files))]}
    if text == "garbled":
        return {"messageIds": 5}
    return {"messageIds": [text, json.dumps(serve.hello["settings"])]}

serve(**{"channel.send": send, "tool.run": lambda p: {"text": p["arguments"]["text"].upper()}, "command.run": lambda p: {"text": "waves"}})
"""
)
TARGET = Target(channel="lines", account_id="default", peer_kind="direct", peer_id="ann")


def line(text: str) -> OutboundMessage:
    return OutboundMessage(target=TARGET, outbox_id="1", text=text)


async def test_it_is_a_plugin_with_a_channel_a_tool_and_a_command(home: Path, start: Start) -> None:
    add_program(home, "lines", CHANNEL, kind="channel")
    family = await start({}, {"lines": {"enabled": True, "colour": "red"}})
    status = family.hosting.status("lines")
    assert (status.state, status.version, status.kind) == (PluginState.STARTED, "2.0", "channel"), status.reason
    assert (await family.hosting.host.channels.send(line("x"))).message_ids == ("x", '{"colour": "red"}')
    assert (await family.tool("shout", text="ab")).text == "AB"
    await family.hosting.check_good()


@pytest.mark.parametrize(
    ("text", "code", "told"),
    [
        ("as another", -32007, "is no channel that you registered"),
        ("wrong", -32602, "text is a int"),
        ("link", -32602, "cannot be read"),
        ("path", -32602, "nor the name of a file"),
    ],
)
async def test_it_speaks_for_its_own_channels_in_the_shapes_of_the_contract_only(
    home: Path, start: Start, text: str, code: int, told: str
) -> None:
    add_program(home, "lines", CHANNEL, kind="channel")
    family = await start({}, {"lines": {}})
    (answer,) = (await family.hosting.host.channels.send(line(text))).message_ids
    assert str(code) in answer
    assert told in answer
    assert family.door.accepted == []


async def test_a_receipt_that_is_none_leaves_the_message_in_doubt(home: Path, start: Start) -> None:
    add_program(home, "lines", CHANNEL, kind="channel")
    family = await start({}, {"lines": {}})
    with pytest.raises(SendFailed, match="messageIds") as caught:
        await family.hosting.host.channels.send(line("garbled"))
    assert caught.value.unknown


async def test_only_the_config_makes_a_program_run_and_no_key_of_it_names_one(home: Path, start: Start) -> None:
    add_program(home, "idle", PRELUDE + "serve()")
    family = await start({})
    assert family.hosting.state("idle") is PluginState.DISABLED
    assert family.hosting.reason("idle") == "there is no section plugins.entries.idle"
    assert processes_here() == []


async def test_it_runs_once_its_entry_is_there(home: Path, start: Start) -> None:
    add_program(home, "idle", PRELUDE + "serve()")
    family = await start({"idle": {}})
    assert family.hosting.state("idle") is PluginState.STARTED, family.hosting.reason("idle")


def test_what_somebody_else_could_have_put_there_is_not_run(home: Path) -> None:
    folder = add_program(home, "lines", CHANNEL, kind="channel")
    manifest = folder / "plugin.toml"
    text = manifest.read_text()

    def told() -> str:
        (found,) = [each for each in discover(home).plugins if each.id == "lines"]
        assert found.state in {"failed", "discovered"}
        return found.reason or found.state

    assert told() == "discovered"
    for path in (folder, folder.parent, manifest, folder / "main.py"):
        mode = path.stat().st_mode
        path.chmod(mode | 0o002)
        assert told() == f"{path}: can be changed by others; run chmod go-w on it"
        path.chmod(mode)
    manifest.write_text(text.replace(sys.executable, "python3"))
    assert "give the program's absolute path" in told()
    manifest.write_text(text.replace(sys.executable, "/nowhere/python3"))
    assert "/nowhere/python3: cannot be read" in told()
    manifest.write_text(text.replace(sys.executable, str(manifest)))
    assert "is no program that can be run" in told()
    manifest.write_text(text.partition("[child]")[0])
    assert "has no table [child]" in told()
    manifest.write_text(text)
    assert told() == "discovered"
    if os.geteuid() == 0:
        os.chown(folder / "main.py", 12345, -1)
        assert "belongs to another user (12345)" in told()


def test_a_distribution_brings_a_program_with_the_same_table(home: Path, distributions: object, tmp_path: Path) -> None:
    package = tmp_path / "site" / "acme_lines"
    package.mkdir(mode=0o755)
    (tmp_path / "site").chmod(0o755)
    (package / "__init__.py").touch()
    (package / "main.py").write_text(CHANNEL)
    text = f'api = 1\nid = "lines"\nsummary = "x"\n[child]\ncommand = ["{sys.executable}", "./main.py"]\n'
    (package / "plugin.toml").write_text(text)
    for path in package.iterdir():
        path.chmod(0o644)
    info = tmp_path / "site" / "acme_lines-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-lines\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[openclaw.channels]\nlines = acme_lines:program\n")
    (found,) = [each for each in discover(home).plugins if each.id == "lines"]
    assert (found.kind, found.distribution, found.state) == ("channel", "acme-lines", "discovered"), found.reason
    assert found.program == (sys.executable, str(package / "main.py"))


BROKEN = {
    "garbage": ("sys.stdout.write('hello\\n'); sys.stdout.flush()", "broke the contract: it wrote what is no JSON: 'hello'"),
    "half": ("sys.stdout.write('{\"jsonrpc\"'); sys.stdout.flush(); os._exit(4)", "ended by itself with status 4"),
    "closed": ("os.close(1); time.sleep(600)", "closed its standard output"),
    "long": ("sys.stdout.write('x' * 3_000_000); sys.stdout.flush()", "broke the contract: it wrote a line longer than 1048576 bytes"),
    "exit": ("print('the database is gone', file=sys.stderr); sys.exit(3)", "ended by itself with status 3 (the database is gone)"),
    "abort": ("os.abort()", "was ended by SIGABRT"),
    "hang": ("while True: pass", "did not answer a ping in 0.5 s and was killed"),
    "deaf": ("time.sleep(600)", "did not answer a ping in 0.5 s and was killed"),
}


@pytest.mark.parametrize("fault", sorted(BROKEN))
async def test_what_it_does_wrong_is_its_state_and_it_is_started_again(home: Path, start: Start, fault: str) -> None:
    body, told = BROKEN[fault]
    # The second life is a good one, so that it is seen to come.
    once = f"""
def go():
    if not os.path.exists("lived"):
        open("lived", "w").close()
        {body}

serve(on_ping=go)
"""
    add_program(home, "wild", PRELUDE + once)
    family = await start({"wild": {"limits": {"answerSeconds": 2.5 if fault == "closed" else 0.5}}})
    hosting = family.hosting
    await hosting.wait_until(lambda: hosting.state("wild") is PluginState.DEGRADED, DEADLINE)
    assert told in hosting.reason("wild")
    await hosting.check_good()
    await hosting.wait_until(lambda: hosting.state("wild") is PluginState.STARTED, DEADLINE)


async def test_memory_over_its_limit_ends_it_alone(home: Path, start: Start) -> None:
    hog = """
def go():
    if not os.path.exists("lived"):
        open("lived", "w").close()
        held = []
        while True:
            held.append(bytearray(4_000_000))

serve(on_ping=go)
"""
    add_program(home, "wild", PRELUDE + hog)
    family = await start({"wild": {"limits": {"answerSeconds": 2, "memoryMb": 128}}})
    hosting = family.hosting
    await hosting.wait_until(lambda: hosting.state("wild") is PluginState.DEGRADED, DEADLINE)
    assert "ended by itself with status 1 (MemoryError" in hosting.reason("wild")
    await hosting.check_good()


async def test_the_limits_of_the_config_are_the_limits_of_the_process(home: Path, start: Start) -> None:
    limits = """
import resource
def limit(kind):
    return resource.getrlimit(getattr(resource, "RLIMIT_" + kind))
def run(params):
    return {"text": json.dumps([limit(kind) for kind in ("DATA", "NOFILE", "CORE")])}
REGISTERED = {"tools": [{"name": "limits", "label": "L", "description": "D.", "parameters": {"type": "object"}, "retryClass": "pure",
              "timeoutSeconds": 5}]}
serve(**{"tool.run": run})
"""
    add_program(home, "wild", PRELUDE + limits)
    family = await start({"wild": {"limits": {"memoryMb": 200, "files": 40}}})
    assert (await family.tool("limits")).text == "[[209715200, 209715200], [40, 40], [0, 0]]"


async def test_its_log_is_in_the_gateways_bounded_and_under_its_name(home: Path, start: Start, caplog: pytest.LogCaptureFixture) -> None:
    noise = """
def run(params):
    for number in range(500):
        print("<4>line", number, file=sys.stderr)
    sys.stderr.write("y" * 100_000 + "\\n")
    sys.stderr.flush()
    return {"text": "done"}
REGISTERED = {"tools": [{"name": "noise", "label": "L", "description": "D.", "parameters": {"type": "object"}, "retryClass": "pure",
              "timeoutSeconds": 5}]}
serve(**{"tool.run": run})
"""
    add_program(home, "wild", PRELUDE + noise)
    family = await start({"wild": {}})
    assert (await family.tool("noise")).text == "done"
    await family.hosting.stop(10.0)
    records = [record for record in caplog.records if record.name == "openclaw.plugin.wild"]
    assert ("WARNING", "line 0") in {(record.levelname, record.getMessage()) for record in records}
    assert 50 <= len(records) <= 52
    assert any("further lines of its log were left out" in record.getMessage() for record in records)
    assert max(len(record.getMessage()) for record in records) <= 2_000


async def test_one_that_cannot_speak_this_version_says_so(home: Path, start: Start) -> None:
    add_program(home, "wild", PRELUDE.replace('"protocol": 1', '"protocol": 2') + "serve()")
    family = await start({"wild": {}})
    assert family.hosting.state("wild") is PluginState.FAILED
    assert "speaks version 2 of the contract, this gateway speaks 1" in family.hosting.reason("wild")
    assert processes_here() == []


async def test_one_that_registers_nonsense_is_told_where(home: Path, start: Start) -> None:
    add_program(home, "wild", PRELUDE + 'REGISTERED = {"tools": [{"name": "x"}]}\nserve()')
    family = await start({"wild": {}})
    assert family.hosting.state("wild") is PluginState.FAILED
    assert "tools[0].label: is missing" in family.hosting.reason("wild")


async def test_one_that_does_not_answer_its_first_question_holds_up_nobody(home: Path, start: Start) -> None:
    add_program(home, "wild", "import time; time.sleep(600)")
    family = await start({"wild": {}}, callTimeoutSeconds=1)
    assert family.hosting.state("wild") is PluginState.FAILED
    assert "did not answer in 1 s when it was started" in family.hosting.reason("wild")
    await family.hosting.check_good()


async def test_what_it_starts_ends_with_it(home: Path, start: Start) -> None:
    forker = """
import subprocess
def go():
    subprocess.Popen(["/bin/sleep", "600"], start_new_session=True)
serve(on_start=go)
"""
    add_program(home, "wild", PRELUDE + forker)
    family = await start({"wild": {}})
    assert len(processes_here()) == 3
    await family.hosting.stop(10.0)
    assert processes_here() == []


async def command(*arguments: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "openclaw_kernel", *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


async def test_the_command_line_lists_it_and_takes_its_section_as_it_is(home: Path) -> None:
    add_program(home, "lines", CHANNEL, kind="channel")
    document = {
        "gateway": {"port": 0, "auth": {"token": "x" * 32}},
        "channels": {"lines": {"any": "thing"}},
        "models": {"providers": {"echo": {}}},
    }
    (home / "openclaw.yaml").write_text(json.dumps(document))
    (home / "openclaw.yaml").chmod(0o600)
    status, listed = await command("plugins", "list", "--home", str(home), "--json")
    rows = {row["id"]: row for row in json.loads(listed)["plugins"]}
    assert (status, rows["lines"]["state"], rows["lines"]["version"]) == (0, "discovered", "2.0")
    status, said = await command("config", "validate", "--home", str(home))
    assert status == 0, said


async def test_one_that_dies_at_each_start_is_given_up_too_and_no_attempt_of_the_hosts_brings_it_back(home: Path, start: Start) -> None:
    dier = """
REGISTERED = {"channels": [{"id": "dier", "label": "Dier"}]}
def go():
    with open("lives", "a") as file:
        file.write("x")
    if not os.path.exists("calm"):
        os._exit(9)
serve(on_start=go)
"""
    add_program(home, "dier", PRELUDE + dier, kind="channel")
    family = await start({}, {"dier": {}})
    hosting = family.hosting
    folder = home / "plugins" / "dier"
    await hosting.wait_until(lambda: "it is not started again" in hosting.reason("dier"), DEADLINE)
    await hosting.wait_until(lambda: hosting.state("dier") is PluginState.FAILED, DEADLINE)
    lives = (folder / "lives").read_text()
    assert len(lives) <= 3
    (folder / "calm").touch()
    assert await hosting.host.channels.start("dier")
    await hosting.wait_until(lambda: hosting.state("dier") is PluginState.STARTED, DEADLINE)
    assert len((folder / "lives").read_text()) == len(lives) + 1


async def test_a_channel_that_does_not_stop_is_stopped_with_its_process(home: Path, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    stuck = """
REGISTERED = {"channels": [{"id": "stuck", "label": "Stuck"}]}
serve(**{"channel.stop": lambda params: time.sleep(600)})
"""
    monkeypatch.setattr("openclaw_kernel.children.plugin.STOP_SECONDS", 0.3)
    add_program(home, "stuck", PRELUDE + stuck, kind="channel")
    family = await start({}, {"stuck": {}})
    (before,) = family.children.pids("stuck")
    assert await family.hosting.host.channels.stop("stuck")
    await family.hosting.wait_until(lambda: "did not stop channel stuck in time" in family.hosting.reason("stuck"), DEADLINE)
    await family.hosting.wait_until(lambda: "did not stop" not in family.hosting.reason("stuck"), DEADLINE)
    assert before not in processes_here()
    assert family.hosting.host.channels.capabilities("stuck") is None


async def test_a_secret_of_its_settings_that_it_writes_is_in_no_reason(home: Path, start: Start) -> None:
    blabber = """
def go():
    if not os.path.exists("lived"):
        open("lived", "w").close()
        print("login with", serve.hello["settings"]["botToken"], "failed", file=sys.stderr)
        sys.exit(3)
serve(on_ping=go)
"""
    add_program(home, "blabber", PRELUDE + blabber)
    config = {"botToken": "plain-in-the-file-0123"}
    family = await start({"blabber": {"config": config, "limits": {"answerSeconds": 0.3}}})
    await family.hosting.wait_until(lambda: family.hosting.state("blabber") is PluginState.DEGRADED, DEADLINE)
    assert "ended by itself with status 3 (login with __OPENCLAW_REDACTED__ failed)" in family.hosting.reason("blabber")


SHOWS = {
    "output": "print(token(json.loads(sys.stdin.readline())['params']))",
    "refusal": "refuse(-32603, 'bad ' + token(json.loads(sys.stdin.readline())['params']), {})",
    "rejection": "told = token(json.loads(sys.stdin.readline())['params'])\n"
    "refuse(-32003, 'bad', {'key': 'botToken', 'found': told, 'cure': 'x'})",
    "degrade": "serve(on_start=lambda: say({'method': 'degrade', 'params': {'reason': 'bad ' + token(serve.hello)}}))",
}


@pytest.mark.parametrize("way", sorted(SHOWS))
async def test_in_whatever_way_it_shows_a_secret_the_reason_has_none(home: Path, start: Start, way: str) -> None:
    helpers = """
def token(params):
    return params["settings"]["botToken"]

def refuse(code, message, data):
    say({"id": 1, "error": {"code": code, "message": message, "data": data}})
    sys.stdin.read()
"""
    add_program(home, "blabber", PRELUDE + helpers + SHOWS[way])
    family = await start({"blabber": {"config": {"botToken": "plain-in-the-file-0123"}}})
    await family.hosting.wait_until(lambda: family.hosting.reason("blabber") != "", DEADLINE)
    assert "__OPENCLAW_REDACTED__" in family.hosting.reason("blabber")
    assert "plain-in" not in family.hosting.reason("blabber")


async def test_a_secret_in_what_it_says_of_its_accounts_is_not_shown(home: Path, start: Start) -> None:
    tells = """
def tell():
    account = {"accountId": "default", "lastError": "login with " + serve.hello["settings"]["botToken"] + " failed"}
    say({"method": "channel.status", "params": {"channel": "lines", "accounts": [account]}})
REGISTERED = {"channels": [{"id": "lines", "label": "Lines"}]}
serve(on_start=tell)
"""
    add_program(home, "lines", PRELUDE + tells, kind="channel")
    family = await start({}, {"lines": {"botToken": "plain-in-the-file-0123"}})
    assert family.hosting.host.channels.status("lines")[0].last_error == "login with __OPENCLAW_REDACTED__ failed"


@pytest.mark.parametrize(("value", "found"), [(math.nan, "found nan"), (dt.date(2026, 1, 1), "found a date")])
async def test_a_setting_that_json_does_not_have_is_told_with_its_place(home: Path, start: Start, value: object, found: str) -> None:
    add_program(home, "lines", CHANNEL, kind="channel")
    family = await start({}, {"lines": {"colours": ["red", value]}})
    assert family.hosting.state("lines") is PluginState.FAILED
    assert family.hosting.reason("lines").startswith(f"channels.lines.colours.1: {found}; ")


async def test_one_that_cannot_be_started_leaves_no_folder(home: Path, start: Start) -> None:
    add_program(home, "wild", "raise SystemExit(2)")
    family = await start({"wild": {}})
    assert family.hosting.state("wild") is PluginState.FAILED
    assert list(home.rglob("exchange/*")) == []


class Trail:
    """An audit log that keeps what was refused."""

    def __init__(self) -> None:
        self.entries: list[AuditEntry] = []

    def append(self, _: sqlite3.Connection, entry: AuditEntry) -> int:
        self.entries.append(entry)
        return len(self.entries)

    def refused(self, entry: AuditEntry) -> None:
        self.entries.append(entry)

    note = refused


async def test_calls_of_two_runs_with_one_id_are_judged_by_their_own_agents_secrets(home: Path, start: Start) -> None:
    # Models number their calls, so the first call of each run may have the same id.
    tool = """
held = []
def lease(call, **more):
    asked = {"callId": call["callId"], "name": "key", "purpose": "x", **more}
    say({"id": call["agentId"], "method": "secret.lease", "params": asked})
    answer = json.loads(sys.stdin.readline())
    return answer.get("result", answer.get("error"))
for line in sys.stdin:
    asked = json.loads(line)
    method = asked.get("method")
    if method == "tool.run":
        held.append(asked)
        if len(held) == 2:
            calls = [each["params"]["call"] for each in held]
            told = [[lease(call), lease(call, runId=call["runId"])] for call in calls]
            for each, leases in zip(held, told):
                say({"id": each["id"], "result": {"text": json.dumps(leases)}})
    elif "id" in asked:
        tool = {"name": "pair", "label": "L", "description": "D.", "parameters": {}, "retryClass": "pure", "timeoutSeconds": 9}
        say({"id": asked["id"], "result": {"protocol": 1, "tools": [tool]}})
"""
    add_program(home, "pair", PRELUDE + tool)
    family = await start({"pair": {}}, more_services={AuditLog: Trail()})

    async def call(agent: str) -> list[dict[str, object]]:
        context = ToolContext(agent_id=agent, session_key="s", run_id=f"run of {agent}", call_id="call_1", workspace=Path("/"))
        answered = await family.hosting.host.tools.run("pair", context, {})
        return list(json.loads(answered.text))

    for agent, (unclear, leased) in zip(("ann", "bob"), await asyncio.gather(call("ann"), call("bob")), strict=True):
        assert unclear["code"] == Code.FORBIDDEN
        assert "give runId" in str(unclear["message"])
        # Whose secrets were looked through is in the words of the refusal.
        assert f"is not in the scope of agent '{agent}'" in str(leased["message"])


async def test_one_that_rejects_its_settings_when_it_is_started_again_is_not_asked_once_more(home: Path, start: Start) -> None:
    fickle = """
def go():
    open("lived", "w").close()
    os._exit(3)
if os.path.exists("lived"):
    line = json.loads(sys.stdin.readline())
    open("asked", "a").write("x")
    data = {"key": "plugins.entries.fickle.config.key", "found": "was revoked", "cure": "make another"}
    say({"id": line["id"], "error": {"code": -32003, "message": "no", "data": data}})
    sys.stdin.read()
serve(on_ping=go)
"""
    add_program(home, "fickle", PRELUDE + fickle)
    family = await start({"fickle": {"limits": {"answerSeconds": 0.2}}})
    await family.hosting.wait_until(lambda: family.hosting.state("fickle") is PluginState.FAILED, DEADLINE)
    assert family.hosting.reason("fickle").startswith("plugins.entries.fickle.config.key: was revoked; make another")
    (asked,) = home.rglob("asked")
    assert asked.read_text() == "x"


async def test_a_message_of_which_nothing_was_written_to_a_child_that_is_gone_is_not_in_doubt(home: Path, start: Start) -> None:
    add_program(
        home, "lines", CHANNEL.replace('text == "garbled"', 'text == "die"').replace('{"messageIds": 5}', "os._exit(3)"), kind="channel"
    )
    family = await start({}, {"lines": {}})
    (supervisor,) = family.children._open["lines"]
    peer = supervisor.peer
    with pytest.raises(SendFailed) as written:
        await family.hosting.host.channels.send(line("die"))
    assert written.value.unknown
    with pytest.raises(NotAsked):
        await peer.request("channel.send", {})
    await family.hosting.wait_until(lambda: family.hosting.state("lines") is PluginState.STARTED, DEADLINE)
    await supervisor.peer.close("gone")
    with pytest.raises(SendFailed) as not_written:
        await family.hosting.host.channels.send(line("x"))
    assert not not_written.value.unknown


async def test_a_gateway_that_was_held_up_itself_kills_no_child_that_answered_meanwhile(home: Path, start: Start) -> None:
    add_program(home, "calm", PRELUDE + "serve(on_ping=lambda: open('asked', 'a').write('x'))")
    family = await start({"calm": {"limits": {"answerSeconds": 0.2}}})
    (before,) = family.children.pids("calm")
    for _ in range(10):
        # From one pass of the loop to the next: a ping is written in one of them, and its answer read in another.
        time.sleep(0.5)  # noqa: ASYNC251 - holding up the loop is the subject
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert family.children.pids("calm") == [before]
    assert family.hosting.state("calm") is PluginState.STARTED
