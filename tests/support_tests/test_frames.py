"""The recorder in a session of pytest: what a gateway sends wrongly fails the test that made it do so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from openclaw_kernel.testing import run_gateway
from tests.support.frames import FrameWatch
from tests.support.recorder import Recorder

pytestmark = pytest.mark.requires("contract")

ROOT = Path(__file__).resolve().parents[2]

BROKEN = """
from openclaw_kernel.protocol import dispatch
dispatch.response = lambda request_id, payload: b'{"type":"res","id":"%s","ok":true,"payload":["broken"]}' % request_id.encode()
"""

BEGINNING = f"""
import subprocess
import sys
import pytest
from openclaw_kernel.testing import run_gateway
from tests.support.gateway import gateway, start_gateway

BROKEN = {BROKEN!r}

def ask(gateway):
    # A stranger's client: the one of the tests would find the fault itself.
    subprocess.run([sys.executable, "-m", "openclaw_kernel", "call", "health", "--home", gateway.home])
"""


@pytest.fixture
def inner(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A session with the recorder, in a process of its own."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    pytester.makeini("[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n")
    pytester.makeconftest('pytest_plugins = ["tests.support.requirements", "tests.support.frames"]')
    return pytester


def run(inner: pytest.Pytester, source: str) -> pytest.RunResult:
    inner.makepyfile(BEGINNING + source)
    return inner.runpytest_subprocess("-p", "no:randomly", "-p", "no:cacheprovider")


async def test_everything_that_a_client_receives_is_recorded(tmp_path: Path) -> None:
    records: list[bytes] = []
    recorder = Recorder(records.append)
    recorder.install()
    try:
        async with run_gateway(tmp_path, {"models": {"providers": {"echo": {}}}}) as gateway:
            await gateway.call("sessions.subscribe")
            await gateway.ask("!slow 20\none two three")
            await gateway.event("sessions.changed")
            received = list(gateway.transcript)
    finally:
        recorder.remove()
    sent = [json.loads(record.partition(b"\n")[2]) for record in records if record.startswith(b"O ")]
    assert {"agent", "chat", "connect.challenge", "sessions.changed"} <= {frame.get("event") for frame in received}
    assert sent[: len(received)] == received


def test_what_a_process_writes_as_it_ends_is_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = FrameWatch(tmp_path)
    recording = tmp_path / "1.2.frames"
    recording.touch()

    def ends(_process: int) -> bool:
        recording.write_bytes(b"N 1 0\n\nO 1 2\n[]\n")
        return False

    monkeypatch.setattr("tests.support.frames._is_running", ends)
    found = [*watch.problems(frozenset())]
    assert len(found) == 1
    assert found[0].startswith("a frame is neither a response nor an event")


def test_a_gateway_in_this_process_is_judged_after_each_test(inner: pytest.Pytester) -> None:
    outcome = run(
        inner,
        """
async def test_good_before(tmp_path):
    async with run_gateway(tmp_path) as gateway:
        await gateway.call("health")

async def test_bad(tmp_path, monkeypatch):
    async with run_gateway(tmp_path) as gateway:
        with monkeypatch.context() as patch:
            patch.setattr("openclaw_kernel.protocol.dispatch.response", lambda name, _: b'{"type":"res","id":"%b","ok":1}' % name.encode())
            await gateway.call("health")

async def test_good_after(tmp_path):
    async with run_gateway(tmp_path) as gateway:
        await gateway.call("health")
""",
    )
    outcome.assert_outcomes(passed=3, errors=1)
    outcome.stdout.fnmatch_lines(["*ERROR at teardown of test_bad*", "*not a ResponseFrame*", "*frames of gateways judged by *"])


def test_a_gateway_of_its_own_process_is_judged_also_when_it_is_killed(inner: pytest.Pytester) -> None:
    outcome = run(
        inner,
        """
async def test_bad(start_gateway, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(BROKEN)
    gateway = await start_gateway(env={"PYTHONPATH": str(tmp_path)})
    ask(gateway)
    await gateway.kill()

async def test_good(gateway):
    ask(gateway)
""",
    )
    outcome.assert_outcomes(passed=2, errors=1)
    outcome.stdout.fnmatch_lines(["*ERROR at teardown of test_bad*", "*the result of health*", "*broken*"])


def test_a_mark_leaves_out_what_it_names_and_has_to_say_why(inner: pytest.Pytester) -> None:
    test = """
@pytest.mark.payloads_not_judged({arguments})
async def test_marked(start_gateway, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(BROKEN)
    gateway = await start_gateway(env={{"PYTHONPATH": str(tmp_path)}})
    ask(gateway)
"""
    run(inner, test.format(arguments='"its result is broken on purpose", "health"')).assert_outcomes(passed=1)
    run(inner, test.format(arguments='"its result is broken on purpose", "status"')).assert_outcomes(passed=1, errors=1)
    run(inner, test.format(arguments='"health"')).stderr.fnmatch_lines(["*payloads_not_judged('health',) does not say why*"])


def test_a_gateway_that_is_started_unrecorded_fails_the_test(inner: pytest.Pytester) -> None:
    outcome = run(
        inner,
        """
def test_bad(tmp_path):
    subprocess.run([sys.executable, "-m", "openclaw_kernel", "--home", tmp_path, "run", "--port", "nonsense"])

def test_bad_for_a_shell():
    subprocess.run("true || make run", shell=True)

@pytest.mark.not_recorded("the mark is what is tested")
def test_marked(tmp_path):
    subprocess.run([sys.executable, "-m", "openclaw_kernel", "run", "--port", "nonsense"])

def test_other_commands():
    subprocess.run([sys.executable, "-m", "openclaw_kernel", "--version"])
""",
    )
    outcome.assert_outcomes(passed=4, errors=2)
    outcome.stdout.fnmatch_lines(
        ["*ERROR at teardown of test_bad *", "*a gateway was started unrecorded*", "*ERROR at teardown of test_bad_for_a_shell*"]
    )
