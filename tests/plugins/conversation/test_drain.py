"""SIGTERM: what is under way ends and goes out; what takes longer goes on after the next start."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
from contextlib import closing
from typing import Any

import pytest

from openclaw_kernel.api import Command, CommandCall, Commands
from tests.emulators.model_control import API_KEY, EmulatorProcess
from tests.emulators.telegram_control import TelegramEmulator
from tests.plugins.conversation.harness import Gate, Harness, say, until
from tests.support.gateway import RunningGateway, StartGateway
from tests.support.ws_client import RequestFailed, WsClient

CHAT = 42


def config(emulator: TelegramEmulator, drain_seconds: float) -> dict[str, Any]:
    telegram = {"botToken": emulator.token, "apiRoot": emulator.api_root, "allowFrom": [CHAT], "pollTimeoutSeconds": 5}
    return {"channels": {"telegram": telegram}, "plugins": {"entries": {"conversation": {"config": {"drainSeconds": drain_seconds}}}}}


def states(gateway: RunningGateway) -> list[tuple[str, int]]:
    with closing(sqlite3.connect(f"file:{gateway.home}/state.sqlite3?mode=ro", uri=True)) as connection:
        return connection.execute("SELECT state, attempts FROM conversation_inbound ORDER BY id").fetchall()


async def texts(emulator: TelegramEmulator) -> list[str]:
    return [message["text"] for message in await emulator.visible(CHAT)]


async def test_a_turn_under_way_ends_and_its_answer_goes_out_before_the_process_ends(start_gateway: StartGateway) -> None:
    """P4: within the drain deadline nothing is cut off; what waits is answered after the next start."""
    async with TelegramEmulator() as emulator:
        gateway = await start_gateway(config(emulator, 20))
        async with gateway.connect() as client:
            await emulator.user_message("!slow 60\n" + "word " * 25 + "end", chat_id=CHAT)
            await emulator.wait(chat_id=CHAT, contains="word")
            waiting = await emulator.user_message("waits", chat_id=CHAT)
            await emulator.wait(confirmed=waiting["update_id"])
            await until(lambda: ("queued", 0) in states(gateway))
            gateway.process.send_signal(signal.SIGTERM)

            await until(lambda: _refuses(client))
            with pytest.raises(RequestFailed, match="restarting"):
                await client.request("chat.send", {"sessionKey": "main", "message": "no", "idempotencyKey": "k1"})
            assert await gateway.wait_ended() == 0
        assert states(gateway) == [("answered", 1), ("queued", 0)]
        assert [text for text in await texts(emulator) if text.endswith("end")]
        await gateway.start()
        await emulator.wait(chat_id=CHAT, contains="waits")
        assert (await texts(emulator)).count("waits") == 1


async def test_a_turn_that_takes_longer_goes_on_after_the_next_start(start_gateway: StartGateway) -> None:
    """P4: it is left as it is, nobody is told of an end, and one answer comes."""
    async with TelegramEmulator() as emulator:
        gateway = await start_gateway(config(emulator, 0.2))
        await emulator.user_message("!slow 60\n" + "word " * 25 + "end", chat_id=CHAT)
        await emulator.wait(chat_id=CHAT, contains="word")
        await gateway.stop()
        assert states(gateway) == [("running", 0)]
        await gateway.start()
        await until(lambda: states(gateway) == [("answered", 1)])
        await until(lambda: _sent(gateway))
        assert len([text for text in await texts(emulator) if text.endswith("end")]) == 1


@pytest.mark.parametrize("how", ["in its time", "not at all", "a second signal"])
async def test_a_turn_whose_model_is_stopped_as_well_goes_on_after_the_next_start(how: str, start_gateway: StartGateway) -> None:
    """P4: that its connection is closed under it is no fault of the turn's."""
    async with EmulatorProcess("openai", module="tests.crash.model") as model:
        seconds = {"in its time": 0.2, "not at all": 0, "a second signal": 60}[how]
        provider = {"apiKey": API_KEY, "baseUrl": model.openai_url, "models": [{"id": "gpt-4o-mini"}]}
        models = {"models": {"providers": {"echo": None, "openai": provider}}}
        gateway = await start_gateway(models | {"plugins": {"entries": {"conversation": {"config": {"drainSeconds": seconds}}}}})
        async with gateway.connect() as client:
            await client.request("chat.send", {"sessionKey": "main", "message": "t0000001; words 40; pace 100", "idempotencyKey": "k1"})
            await client.expect_event(lambda frame: frame["event"] == "chat" and frame["payload"]["state"] == "delta")
            gateway.process.send_signal(signal.SIGTERM)
            if how == "a second signal":
                await until(lambda: _refuses(client))
                gateway.process.send_signal(signal.SIGTERM)
            assert await gateway.wait_ended() == 0
        assert states(gateway) == [("running", 0)]
        await gateway.start()
        await until(lambda: states(gateway) == [("answered", 1)])


async def _refuses(client: WsClient) -> bool:
    try:
        await client.request("health")
    except RequestFailed:
        return True
    return False


def _sent(gateway: RunningGateway) -> bool:
    with closing(sqlite3.connect(f"file:{gateway.home}/state.sqlite3?mode=ro", uri=True)) as connection:
        return connection.execute("SELECT state FROM conversation_outbox").fetchall() == [("sent",)]


async def test_a_second_signal_ends_the_wait(start_gateway: StartGateway) -> None:
    gateway = await start_gateway({"plugins": {"entries": {"conversation": {"config": {"drainSeconds": 60}}}}})
    async with gateway.connect() as client:
        await client.request("chat.send", {"sessionKey": "main", "message": "!hang\nnever", "idempotencyKey": "k1"})
        await client.expect_event(lambda frame: frame["event"] == "chat" and frame["payload"]["state"] == "delta")
        gateway.process.send_signal(signal.SIGTERM)

        await until(lambda: _refuses(client))
        gateway.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(15):
            assert await gateway.wait_ended() == 0
    assert states(gateway) == [("running", 0)]


@pytest.mark.parametrize(
    ("method", "params", "answer"),
    [
        ("chat.abort", {"sessionKey": "main"}, {"ok": True, "aborted": True, "runIds": ["k1"]}),
        ("sessions.abort", {"runId": "k1"}, {"ok": True, "status": "aborted", "abortedRunId": "k1", "runIds": ["k1"]}),
    ],
)
async def test_a_turn_that_is_waited_for_can_be_stopped(
    start_gateway: StartGateway, method: str, params: dict[str, Any], answer: dict[str, Any]
) -> None:
    """P15: the stop ends the wait with the turn, and the turn for good."""
    gateway = await start_gateway({"plugins": {"entries": {"conversation": {"config": {"drainSeconds": 60}}}}})
    async with gateway.connect() as client:
        await client.request("chat.send", {"sessionKey": "main", "message": "!hang\nnever", "idempotencyKey": "k1"})
        await client.expect_event(lambda frame: frame["event"] == "chat" and frame["payload"]["state"] == "delta")
        gateway.process.send_signal(signal.SIGTERM)

        await until(lambda: _refuses(client))
        assert await client.request(method, params) == answer
        async with asyncio.timeout(15):
            assert await gateway.wait_ended() == 0
    assert states(gateway) == [("suppressed", 1)]


async def test_a_command_under_way_is_waited_for_and_not_run_again(harness: Harness) -> None:
    """P4, P5: whether it came from a channel or from a client."""
    ran: list[str] = []
    released = asyncio.Event()

    async def slow(call: CommandCall) -> str:
        ran.append(call.session_key)
        await released.wait()
        return "done"

    harness.services[Commands].add(Command(name="slow", description="takes its time", run=slow))
    await harness.receive("/slow", "1")
    await harness.send("/slow", "k1")
    await until(lambda: len(ran) == 2)
    (unit,) = harness.registered.units
    draining = asyncio.create_task(unit.drain())  # type: ignore[attr-defined]
    await asyncio.wait({draining}, timeout=0.2)
    assert not draining.done()
    released.set()
    await draining
    assert harness.channels.texts() == ["done"]
    await harness.restart()
    assert [state for _, state, _ in await harness.settled()] == ["answered", "answered"]
    assert len(ran) == 2


@pytest.mark.parametrize("moment", ["while it ends", "after that"])
async def test_a_stop_that_comes_while_turns_are_broken_off_keeps_them_from_going_on(harness: Harness, moment: str) -> None:
    """P15: the last moment at which somebody can ask for it."""
    gate = Gate(stubborn=True)
    harness.runtime.script = gate
    await harness.send("work", "k1")
    await gate.running("work")
    (unit,) = harness.registered.units
    stopping = asyncio.create_task(unit.stop())
    await until(lambda: gate.cancelled)
    if moment == "after that":
        gate.released.set()
        await stopping
    answer = await harness.call("sessions.abort", None, key="main")
    gate.released.set()
    await stopping
    await harness.crash()
    harness.runtime.script = say
    await harness.start()
    assert answer == {"ok": True, "status": "aborted", "abortedRunId": "k1", "runIds": ["k1"]}
    assert await harness.settled() == [("token:k1", "suppressed", "stopped")]
    assert gate.started == ["work"]
    assert len(harness.runtime.turns) == 1
