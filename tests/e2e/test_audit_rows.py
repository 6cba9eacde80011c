"""Each kind of row, shown by a real gateway: who, from where, what, what it was before and after; and no secret in any."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import Mapping
from typing import Any, Final

import aiohttp
import pytest

from openclaw_kernel.audit.chain import ChainCheck
from openclaw_kernel.audit.checkpoints import CheckpointFile
from openclaw_kernel.audit.verifying import rows_of, verify_files
from tests.emulators.telegram_control import TelegramEmulator
from tests.kernel.cli.command import run_command
from tests.plugins.pairing.device_client import Device
from tests.support.gateway import TOKEN, RunningGateway, StartGateway
from tests.support.ws_client import ConnectionEnded, Identity, RequestFailed, WsClient

TRACE: Final = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT: Final = f"00-{TRACE}-b7ad6b7169203331-01"

Row = Mapping[str, Any]


class Forger(Device):
    """A device that calls itself by the id of another."""

    id = "f" * 64


async def recorded(gateway: RunningGateway, **filters: Any) -> list[Row]:
    """The rows that match, oldest first."""
    async with gateway.connect() as client:
        answer = await client.request("audit.log.list", {**filters, "order": "oldest", "limit": 500})
    rows: list[Row] = answer["rows"]
    return rows


async def one_row(gateway: RunningGateway, action: str) -> Row:
    """The only row of an action."""
    (row,) = await recorded(gateway, action=action)
    return row


async def refused_connection(gateway: RunningGateway, token: str, **headers: str) -> None:
    """Try to connect with a wrong token."""
    with pytest.raises((RequestFailed, ConnectionEnded)):
        async with gateway.connect(token=token):
            raise AssertionError("it was let in")


async def test_a_config_load_has_the_digest_of_the_one_before(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    first = await one_row(gateway, "config.loaded")
    await gateway.stop()
    await gateway.start()
    second = (await recorded(gateway, action="config.loaded"))[-1]
    await gateway.stop()
    gateway.write_config({**gateway.config, "agents": {"entries": {"main": {"default": True}, "research": {}}}})
    await gateway.start()
    third = (await recorded(gateway, action="config.loaded"))[-1]
    assert (first["actor"], first["surface"], first["before"]) == ("gateway", "start", None)
    # The second start found the port written down that the first had been given.
    assert second["before"] == first["after"]
    assert third["before"] == second["after"] != third["after"]
    lives = [row["action"] for row in await recorded(gateway, action="gateway")]
    assert lives == ["gateway.started", "gateway.stopped"] * 2 + ["gateway.started"]


async def test_plugins_that_were_installed_removed_or_changed_since_the_start_before_are_named(gateway: RunningGateway) -> None:
    first = await one_row(gateway, "plugins.changed")
    assert first["before"] is None
    assert "telegram" in first["details"]["added"]
    await gateway.stop()
    with contextlib.closing(sqlite3.connect(gateway.home / "state.sqlite3")) as connection:
        # As if another version had been there: a removed plugin, one that is new, and one of another version.
        where = "owner = 'kernel' AND key = 'audit-plugins'"
        (text,) = connection.execute(f"SELECT value FROM kernel_key_value WHERE {where}").fetchone()  # noqa: S608
        known = json.loads(text)
        del known["echo"]
        known |= {"irc": "openclaw-irc 1.0", "telegram": "openclaw-kernel 0.0.1"}
        connection.execute(f"UPDATE kernel_key_value SET value = ? WHERE {where}", (json.dumps(known),))  # noqa: S608
        # The digest in the newest row tells that nothing changed, so that row must not be the newest of its kind.
        connection.execute("DROP TRIGGER kernel_audit_no_update")
        connection.execute("UPDATE kernel_audit SET after_digest = 'another' WHERE action = 'plugins.changed'")
        connection.commit()
    gateway.expect_log("the audit log is not as it was left")
    await gateway.start()
    second = (await recorded(gateway, action="plugins.changed"))[-1]
    assert (second["before"], second["after"]) == ("another", first["after"])
    assert list(second["details"]["added"]) == ["echo"]
    assert second["details"]["removed"] == {"irc": "openclaw-irc 1.0"}
    assert second["details"]["changed"]["telegram"][0] == "openclaw-kernel 0.0.1"
    assert len(await recorded(gateway, action="audit.broken")) == 1


async def test_wrong_credentials_are_refusals_of_nobody_counted_together(gateway: RunningGateway) -> None:
    for number in range(3):
        await refused_connection(gateway, f"wrong-{number}")
    (row,) = await recorded(gateway, action="auth.refused")
    assert (row["outcome"], row["actor"], row["surface"], row["address"]) == ("refused", "nobody", "ws", "127.0.0.1")
    assert (row["reason"], row["subject"]) == ("token_mismatch", None)
    await gateway.stop()
    first, rest = (one.to_json() for one in rows_of(gateway.home / "state.sqlite3") if one.action == "auth.refused")
    assert first == row
    assert rest["details"]["count"] == 2


async def test_a_wrong_device_proof_and_a_wrong_bearer_are_refusals(gateway: RunningGateway) -> None:
    device = Device()
    await device.refused(gateway.ws_url, auth={"token": "wrong-token"})
    await Forger().refused(gateway.ws_url, auth={"token": gateway.token})
    async with aiohttp.ClientSession() as http, http.get(f"{gateway.url}/readyz", headers={"Authorization": "Bearer wrong"}) as answer:
        assert answer.status == 200
    rows = await recorded(gateway, action="auth.refused")
    assert [(row["surface"], row["reason"], row["subject"]) for row in rows] == [
        ("ws", "token_mismatch", f"device:{device.id}"),
        ("ws", "device-id-mismatch", None),
        ("http", "token_mismatch", None),
    ]


async def test_a_page_of_a_foreign_origin_is_a_refusal(gateway: RunningGateway) -> None:
    async with aiohttp.ClientSession() as http:
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await http.ws_connect(gateway.ws_url, origin="https://evil.example")
        async with http.post(f"{gateway.url}/auth/exchange", json={"code": "x"}, headers={"Origin": "https://evil.example"}) as answer:
            assert answer.status == 403
    rows = await recorded(gateway, action="origin.refused")
    subject = "origin:https://evil.example"
    assert [(row["surface"], row["actor"], row["subject"]) for row in rows] == [("ws", "nobody", subject), ("http", "nobody", subject)]


async def test_a_method_beyond_scope_or_role_is_a_refusal_with_its_trace(gateway: RunningGateway) -> None:
    async with gateway.connect(identity=Identity(scopes=("operator.read",))) as client:
        for _ in range(2):
            with pytest.raises(RequestFailed):
                await client.request("audit.log.list", {}, traceparent=TRACEPARENT)
        with pytest.raises(RequestFailed):
            await client.request("no.such.method")
    (row,) = await recorded(gateway, action="method.refused")
    assert (row["actor"], row["reason"], row["subject"]) == ("token", "missing scope operator.admin", "method:audit.log.list")
    assert (row["traceId"], row["address"]) == (TRACE, "127.0.0.1")


async def test_who_would_hand_out_more_than_it_has_is_a_refusal(start_gateway: StartGateway) -> None:
    gateway = await start_gateway({"gateway": {"pairing": {"local": "ask"}}})
    failed, _, _ = await Device().refused(gateway.ws_url, auth={"token": gateway.token}, scopes=("operator.admin",))
    async with gateway.connect(identity=Identity(scopes=("operator.pairing",))) as client:
        with pytest.raises(RequestFailed):
            await client.request("device.pair.approve", {"requestId": failed.details["requestId"]}, traceparent=TRACEPARENT)
    (row,) = await recorded(gateway, action="grant")
    assert (row["action"], row["actor"], row["subject"]) == ("grant.refused", "token", "method:device.pair.approve")
    assert (row["reason"], row["traceId"]) == ("missing scope operator.admin", TRACE)


async def test_a_page_signed_in_by_its_code_is_a_row_and_a_second_use_a_refusal(gateway: RunningGateway) -> None:
    async with gateway.connect() as client:
        link = (await client.request("webchat.link", {}))["url"]
    code = link.partition("#code=")[2]
    async with aiohttp.ClientSession() as http:
        for status in (200, 401):
            async with http.post(f"{gateway.url}/auth/exchange", json={"code": code}, headers={"Origin": gateway.url}) as answer:
                assert answer.status == status
    rows = {row["action"]: (row["outcome"], row["actor"][:5], row["surface"]) for row in await recorded(gateway, action="page")}
    assert rows == {
        "page.code-issued": ("done", "token", "ws"),
        "page.signed-in": ("done", "page:", "http"),
        "page.refused": ("refused", "nobod", "http"),
    }
    assert code not in json.dumps(await recorded(gateway))


async def test_restarts_deleted_sessions_and_stopped_channels_are_rows(start_gateway: StartGateway) -> None:
    async with TelegramEmulator() as emulator:
        bot = {"botToken": emulator.token, "apiRoot": emulator.api_root, "pollTimeoutSeconds": 1}
        gateway = await start_gateway({"channels": {"telegram": bot}})
        async with gateway.connect() as client:
            await client.request("sessions.patch", {"key": "agent:main:side", "label": "side"})
            deleted = await client.request("sessions.delete", {"key": "agent:main:side", "idempotencyKey": "d1"}, traceparent=TRACEPARENT)
            assert deleted["deleted"] is True
            for method in ("channels.stop", "channels.stop", "channels.start"):
                await client.request(method, {"channel": "telegram"})
        session = await one_row(gateway, "session.deleted")
        assert (session["actor"], session["subject"], session["traceId"]) == ("token", "session:agent:main:side", TRACE)
        assert session["before"] is not None
        channels = await recorded(gateway, action="channel")
        assert [(row["action"], row["subject"]) for row in channels] == [
            ("channel.stopped", "channel:telegram"),
            ("channel.started", "channel:telegram"),
        ]
        async with gateway.connect() as client:
            await client.request("gateway.restart.request", {"restartDelayMs": 0, "reason": "a reason", "idempotencyKey": "r1"})
            await client.closed(deadline=20)
        await gateway.wait_line('"event": ?"ready".*')
        row = await one_row(await _started_again(gateway), "restart.requested")
        assert (row["actor"], row["details"]["reason"]) == ("token", "a reason")


async def _started_again(gateway: RunningGateway) -> RunningGateway:
    async with asyncio.timeout(20):
        while sum('"ready"' in line.text for line in gateway.lines) < 2:  # noqa: ASYNC110 - its output has no event for the second
            await asyncio.sleep(0.02)
    return gateway


async def test_a_plugin_that_fails_is_a_row(start_gateway: StartGateway) -> None:
    gateway = await start_gateway({"channels": {"telegram": {"botToken": "1:wrong", "apiRoot": "http://127.0.0.1:9"}}})
    gateway.expect_log("telegram")
    await gateway.wait_line("telegram.*cannot be reached")
    rows = await recorded(gateway, action="plugin.state")
    assert {(row["subject"], row["actor"]) for row in rows} == {("plugin:telegram", "gateway")}
    assert rows[0]["reason"] in {"degraded", "failed"}
    assert rows[0]["details"]["why"]


async def test_what_a_kill_leaves_is_a_sound_log_with_all_that_was_acknowledged(gateway: RunningGateway) -> None:
    """Each round deletes sessions, and is killed while it does: whoever was answered has its row, and each row its deletion."""
    acknowledged: set[str] = set()
    for round_number in range(3):
        async with gateway.connect() as client:
            keys = [f"agent:main:r{round_number}-{number}" for number in range(20)]
            for key in keys:
                await client.request("sessions.patch", {"key": key, "label": key})
            await asyncio.gather(*(_delete(client, key, acknowledged) for key in keys[:5]))
            rest = [asyncio.ensure_future(_delete(client, key, acknowledged)) for key in keys[5:]]
            await asyncio.wait(rest, return_when=asyncio.FIRST_COMPLETED)
            await gateway.kill()
            await asyncio.wait(rest)
            for task in rest:
                task.exception()
        assert verify_files(gateway.home / "state.sqlite3", gateway.home)["fault"] is None
        with contextlib.closing(sqlite3.connect(gateway.home / "state.sqlite3")) as connection:
            rows = {subject for (subject,) in connection.execute("SELECT subject FROM kernel_audit WHERE action = 'session.deleted'")}
            left = {f"session:{key}" for (key,) in connection.execute("SELECT key FROM conversation_sessions")}
        assert {f"session:{key}" for key in acknowledged} <= rows
        assert not rows & left
        assert rows | left >= {f"session:{key}" for key in keys}
        await gateway.start()


async def _delete(client: WsClient, key: str, acknowledged: set[str]) -> None:
    with contextlib.suppress(ConnectionEnded):
        await client.request("sessions.delete", {"key": key, "idempotencyKey": key})
        acknowledged.add(key)


async def test_ordinary_reads_and_messages_leave_no_row(gateway: RunningGateway) -> None:
    async with gateway.connect() as client:
        before = await client.request("audit.log.verify", {})
        for method in ("health", "status", "sessions.list", "config.get", "device.pair.list", "audit.log.list"):
            await client.request(method, {})
        await client.request("chat.send", {"sessionKey": "main", "message": "hello", "idempotencyKey": "m1"})
        await client.request("agent.wait", {"runId": "m1", "timeoutMs": 10_000})
        after = await client.request("audit.log.verify", {})
    assert after["rows"] == before["rows"]


async def test_no_secret_is_in_any_row_or_checkpoint(start_gateway: StartGateway) -> None:
    canary = "canary-7f3a-secret-value"
    gateway = await start_gateway(
        {
            "gateway": {"auth": {"token": f"{canary}-token"}},
            "channels": {"telegram": {"botToken": f"1:{canary}-bot", "apiRoot": f"http://user:{canary}-url@127.0.0.1:9"}},
        }
    )
    gateway.expect_log("telegram")
    await refused_connection(gateway, f"{canary}-wrong")
    async with gateway.connect() as client:
        with pytest.raises(RequestFailed):
            await client.request("device.pair.approve", {"requestId": f"{canary}-token"})
        await client.request(
            "gateway.restart.request", {"restartDelayMs": 600_000, "reason": f"leak {canary}-token", "idempotencyKey": "r1"}
        )
    exported = await run_command("audit", "export", home=gateway.home)
    assert exported.status == 0
    assert "restart.requested" in exported.out
    assert canary not in exported.out
    await gateway.stop()
    for path in gateway.home.iterdir():
        if path.name.startswith("audit"):
            assert canary.encode() not in path.read_bytes()
    checkpoints, fault = CheckpointFile(gateway.home).read()
    check = ChainCheck(checkpoints, fault=fault)
    for row in rows_of(gateway.home / "state.sqlite3"):
        check.take(row)
        assert canary not in str(row)
    assert check.finish().fault is None
    assert TOKEN not in exported.out
