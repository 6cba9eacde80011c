"""Restarts that a client asks for: the same process, a new boot id, and the session that is told once (P24)."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from typing import Any

import pytest

from openclaw_kernel.api import AuditAction, AuditEntry, Call, RestartSentinel
from openclaw_kernel.tasks import TaskOwner
from openclaw_plugins.control.restart import RestartMethods
from openclaw_plugins.control.wire import RestartParams
from tests.emulators.telegram_control import TelegramEmulator
from tests.kernel.cli.command import run_command
from tests.plugins.conversation.harness import TestClient, until
from tests.support.gateway import RunningGateway, StartGateway
from tests.support.ws_client import RequestFailed, WsClient, is_chat, is_event

CHAT = 42
RESTARTED = "The gateway has restarted"


@pytest.fixture
async def emulator() -> AsyncIterator[TelegramEmulator]:
    async with TelegramEmulator() as started:
        yield started


def boot_id(client: WsClient) -> str:
    return str(client.hello["server"]["bootId"])


async def ready_again(gateway: RunningGateway, count: int = 2) -> None:
    """Wait until the process has said so often that it is ready."""
    await until(lambda: sum(line.record.get("event") == "ready" for line in gateway.lines) == count, "the next start")


async def texts(gateway: RunningGateway, session: str = "main") -> list[str]:
    async with gateway.connect() as client:
        history = await client.request("chat.history", {"sessionKey": session})
    return ["".join(part.get("text", "") for part in message["content"]) for message in history["messages"]]


async def told(gateway: RunningGateway, session: str = "main") -> list[str]:
    return await until(lambda: _told(gateway, session), "that the session is told")


async def _told(gateway: RunningGateway, session: str) -> list[str]:
    return [text for text in await texts(gateway, session) if RESTARTED in text]


def rows(gateway: RunningGateway, statement: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(f"file:{gateway.home}/state.sqlite3?mode=ro", uri=True)) as connection:
        return connection.execute(statement).fetchall()


async def test_a_restart_keeps_the_process_and_tells_its_session_once(gateway: RunningGateway) -> None:
    params = {"reason": "new config", "note": "Wake up.", "sessionKey": "main", "idempotencyKey": "r1", "unheardOf": 1}
    pid = gateway.process.pid
    async with gateway.connect() as client:
        before = boot_id(client)
        answer = await client.request("gateway.restart.request", params)
        assert (answer["status"], answer["restart"]["pid"]) == ("scheduled", pid)
        assert answer["sentinel"]["payload"]["sessionKey"] == "main"
        shutdown = await client.expect_event(is_event("shutdown"))
        assert shutdown["payload"]["restartExpectedMs"] > 0
        assert (await client.closed()).code == 1012
    await ready_again(gateway)
    async with gateway.connect() as client:
        assert boot_id(client) != before
        assert (await client.request("gateway.restart.request", params)) == answer
    assert (gateway.process.pid, gateway.is_running) == (pid, True)
    assert await told(gateway) == ["⚙️ The gateway has restarted (new config).\n\nWake up."]
    await gateway.kill()
    await gateway.start()
    assert len(await told(gateway)) == 1
    assert rows(gateway, "SELECT count(*) FROM kernel_sentinels") == [(0,)]


async def test_who_reads_along_sees_it(gateway: RunningGateway) -> None:
    async with gateway.connect() as client:
        await client.request("gateway.restart.request", {"sessionKey": "main"})
        await client.closed()
    await ready_again(gateway)
    assert await told(gateway)


async def test_a_session_of_a_channel_is_told_there_and_a_named_place_instead(
    emulator: TelegramEmulator, start_gateway: StartGateway
) -> None:
    telegram = {"botToken": emulator.token, "apiRoot": emulator.api_root, "allowFrom": [CHAT, 43], "pollTimeoutSeconds": 1}
    gateway = await start_gateway({"channels": {"telegram": telegram}, "session": {"dmScope": "per-peer"}})
    await emulator.open_chat(43)
    await emulator.user_message("hello", chat_id=CHAT)
    await emulator.wait(chat_id=CHAT, contains="hello")
    (key,) = rows(gateway, "SELECT key FROM conversation_sessions")[0]
    async with gateway.connect() as client:
        await client.request("gateway.restart.request", {"sessionKey": key})
        await client.closed()
    await ready_again(gateway)
    await emulator.wait(chat_id=CHAT, contains=RESTARTED)
    async with gateway.connect() as client:
        await client.request("gateway.restart.request", {"note": "elsewhere", "deliveryContext": {"channel": "telegram", "to": "43"}})
        await client.closed()
    await ready_again(gateway, 3)
    await emulator.wait(chat_id=43, contains="elsewhere")
    shown = [message["text"] for message in await emulator.visible(CHAT)]
    assert len([text for text in shown if RESTARTED in text]) == 1


async def test_a_kill_between_request_and_start_leaves_one_message(gateway: RunningGateway) -> None:
    async with gateway.connect() as client:
        await client.request("gateway.restart.request", {"sessionKey": "main", "restartDelayMs": 600_000})
        await gateway.kill()
    await gateway.start()
    assert len(await told(gateway)) == 1
    await gateway.kill()
    await gateway.start()
    assert len(await told(gateway)) == 1


async def test_requests_that_come_together_are_one_restart_and_each_session_is_told(gateway: RunningGateway) -> None:
    async with gateway.connect() as client:
        await client.request("gateway.restart.request", {"sessionKey": "one", "restartDelayMs": 300})
        second = await client.request("gateway.restart.request", {"sessionKey": "two", "restartDelayMs": 0})
        assert second["status"] == "coalesced"
        await client.closed()
    await ready_again(gateway)
    assert [len(await told(gateway, session)) for session in ("one", "two")] == [1, 1]
    assert sum(line.record.get("event") == "ready" for line in gateway.lines) == 2


async def test_a_config_that_could_not_start_keeps_the_gateway_as_it_is(gateway: RunningGateway) -> None:
    good = gateway.config_path.read_text()
    gateway.config_path.write_text("gateway:\n  prot: 1\n")
    async with gateway.connect() as client:
        with pytest.raises(RequestFailed, match="prot") as refused:
            await client.request("gateway.restart.request", {"sessionKey": "main"})
        assert refused.value.code == "INVALID_REQUEST"
        assert (await client.request("health"))["ok"] is True
    asked = await run_command("restart", home=gateway.home, env={"OPENCLAW_GATEWAY_TOKEN": gateway.token})
    assert asked.status != 0
    assert "prot" in asked.err
    gateway.config_path.write_text(good)
    assert rows(gateway, "SELECT count(*) FROM kernel_sentinels") == [(0,)]


@pytest.mark.parametrize("body", ["{", "[]", "{}", '{"target": {"channel": "x"}}', '{"reason": "r", "target": null, "later": 1}'])
async def test_what_cannot_be_read_of_a_restart_keeps_nobody_from_being_answered(
    emulator: TelegramEmulator, start_gateway: StartGateway, body: str
) -> None:
    telegram = {"botToken": emulator.token, "apiRoot": emulator.api_root, "allowFrom": [CHAT], "pollTimeoutSeconds": 1}
    gateway = await start_gateway({"channels": {"telegram": telegram}})
    await gateway.kill()
    with closing(sqlite3.connect(f"{gateway.home}/state.sqlite3")) as connection:
        connection.execute("INSERT INTO kernel_sentinels (boot_id, body) VALUES ('of another process', ?)", (body,))
        connection.commit()
    await gateway.start()
    await emulator.user_message("hello", chat_id=CHAT)
    await emulator.wait(chat_id=CHAT, contains="hello")
    assert rows(gateway, "SELECT count(*) FROM kernel_sentinels") == [(0,)]


async def test_the_method_is_for_admins(gateway: RunningGateway) -> None:
    async with gateway.connect() as client:
        with pytest.raises(RequestFailed, match="deliveryContext"):
            await client.request("gateway.restart.request", {"deliveryContext": {"channel": "telegram"}})
        with pytest.raises(RequestFailed, match="restartDelayMs"):
            await client.request("gateway.restart.request", {"restartDelayMs": -1})


async def test_a_message_that_waits_is_answered_after_the_restart_once(gateway: RunningGateway) -> None:
    slow = {"sessionKey": "main", "message": "!slow 40\n" + "word " * 100, "idempotencyKey": "k1"}
    async with gateway.connect() as client:
        await client.request("chat.send", slow)
        await client.expect_event(is_chat("delta", run="k1"))
        await client.request("chat.send", {"sessionKey": "main", "message": "the second", "idempotencyKey": "k2"})
        await client.request("gateway.restart.request", {"sessionKey": "main"})
        await client.closed(deadline=30)
    await ready_again(gateway)
    async with gateway.connect() as client:
        ended = await client.request("agent.wait", {"runId": "k2", "timeoutMs": 20_000})
        assert ended["status"] == "ok"
        await client.request("agent.wait", {"runId": "k1", "timeoutMs": 20_000})
    assert (await texts(gateway)).count("the second") == 2
    assert rows(gateway, "SELECT count(*) FROM conversation_inbound") == [(2,)]
    assert len(await told(gateway)) == 1


async def test_the_command_waits_for_the_next_boot(gateway: RunningGateway) -> None:
    pid = gateway.process.pid
    boots = set()
    for number in range(3):
        asked = await run_command("restart", "--json", "--session", "main", "--reason", f"round {number}", home=gateway.home)
        assert (asked.status, asked.err) == (0, "")
        shown = asked.json()
        boots.add(shown["bootId"])
        assert shown["bootId"] != shown["previousBootId"]
    assert len(boots) == 3
    assert gateway.process.pid == pid
    assert [f"(round {number})" in text for number, text in enumerate(await told(gateway))] == [True] * 3


async def test_the_command_without_a_gateway_says_so(gateway: RunningGateway) -> None:
    await gateway.stop()
    asked = await run_command("restart", home=gateway.home)
    assert asked.status == 69


async def test_ctrl_c_during_a_restart_ends_the_gateway(gateway: RunningGateway) -> None:
    async with gateway.connect() as client:
        await client.request("gateway.restart.request", {"restartDelayMs": 0})
        await client.expect_event(is_event("shutdown"))
        gateway.process.terminate()
    assert await gateway.wait_ended() in (0, -15)


class _Desk:
    """Implements the services a request for a restart needs; its store takes a write, and answers when it is told to."""

    boot_id = "boot"
    pending = False
    store: Any

    def __init__(self) -> None:
        self.store = self
        self.taken, self.told = asyncio.Event(), asyncio.Event()
        self.begun = asyncio.Event()
        self.written: list[RestartSentinel] = []
        self.recorded: list[AuditAction] = []
        self.tasks = TaskOwner("control", lambda _name, _error: None)
        self.spawn = self.tasks.spawn

    def service(self, _kind: type) -> Any:
        return self

    def now_ms(self) -> int:
        return 1

    async def check(self) -> None:
        return

    async def write_in(self, change: Callable[[Any], Any]) -> Any:
        answer = change(None)
        self.taken.set()
        await self.told.wait()
        return answer

    def append(self, _connection: Any, entry: AuditEntry) -> int:
        self.recorded.append(entry.action)
        return 1

    def write(self, *given: Any) -> Any:
        if len(given) == 1:
            return self.write_in(given[0])
        self.written.append(given[1])
        return None

    def begin(self, _reason: str, _delay: float) -> None:
        self.begun.set()


async def test_a_restart_that_is_written_down_begins_though_its_client_is_gone() -> None:
    """A connection that closes cancels its calls; a repeat is told that the restart was scheduled, so it has to be."""
    desk = _Desk()
    methods = RestartMethods(desk)  # type: ignore[arg-type]  # the part of a context it needs
    client = TestClient()
    call = Call(client=client, method="gateway.restart.request", request_id="r1", respond_early=lambda _value: None, request=None)
    asked = asyncio.create_task(methods.restart(call, RestartParams.model_validate({})))
    await desk.taken.wait()
    asked.cancel()
    await asyncio.wait({asked})
    desk.told.set()
    async with asyncio.timeout(5):
        await desk.begun.wait()
    assert len(desk.written) == 1
