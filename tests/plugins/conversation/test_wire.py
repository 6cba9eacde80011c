"""The same over a real gateway: a process, a WebSocket, a kill."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.gateway import RunningGateway
from tests.support.ws_client import RequestFailed


def ends(run_id: str) -> Any:
    return lambda frame: (
        frame.get("event") == "chat" and frame["payload"]["runId"] == run_id and frame["payload"]["state"] in ("final", "aborted", "error")
    )


async def test_a_conversation_survives_a_kill(gateway: RunningGateway) -> None:
    async with gateway.connect() as client:
        request = {"sessionKey": "main", "message": "remember me", "idempotencyKey": "w1"}
        first = await client.request("chat.send", request)
        final = await client.expect_event(ends("w1"))
        assert final["payload"]["message"]["content"][0]["text"].endswith("remember me")
        before = await client.request("chat.history", {"sessionKey": "main"})
    await gateway.kill()
    await gateway.start()
    async with gateway.connect() as client:
        after = await client.request("chat.history", {"sessionKey": "main"})
        assert after["messages"] == before["messages"]
        assert len(after["messages"]) == 2
        assert await client.request("chat.send", request) == first
        waited = await client.request("agent.wait", {"runId": "w1"})
        assert waited["status"] == "ok"
        with pytest.raises(RequestFailed) as conflict:
            await client.request("chat.send", {**request, "message": "something else"})
        assert conflict.value.details["reason"] == "chat-request-conflict"


async def test_every_read_of_sessions_is_as_the_contract_has_it(gateway: RunningGateway) -> None:
    async with gateway.connect() as client:
        await client.request("sessions.subscribe")
        await client.request("sessions.messages.subscribe", {"key": "side"})
        await client.request("chat.send", {"sessionKey": "side", "message": "Pancakes", "idempotencyKey": "w1"})
        await client.expect_event(ends("w1"))
        changed = await client.expect_event(lambda frame: frame.get("event") == "sessions.changed")
        assert changed["payload"]["session"]["key"] == "agent:main:side"
        listed = await client.request("sessions.list", {"includeDerivedTitles": True, "includeLastMessage": True})
        assert listed["sessions"][0]["derivedTitle"] == "Pancakes"
        assert (await client.request("sessions.resolve", {"key": "side"}))["ok"] is True
        assert (await client.request("sessions.preview", {"keys": ["side"]}))["previews"][0]["status"] == "ok"
        await client.request("sessions.patch", {"key": "side", "label": "Breakfast", "thinkingLevel": "low"})
        assert (await client.request("sessions.list", {"label": "Breakfast"}))["count"] == 1
        await client.request("sessions.reset", {"key": "side"})
        assert (await client.request("chat.history", {"sessionKey": "side"}))["messages"] == []
        assert (await client.request("sessions.delete", {"key": "side"}))["deleted"] is True
        with pytest.raises(RequestFailed, match="cannot be deleted"):
            await client.request("sessions.delete", {"key": "main"})


async def test_one_request_has_one_turn_however_often_it_is_sent(gateway: RunningGateway) -> None:
    request = {"sessionKey": "main", "message": "once", "idempotencyKey": "w1"}
    for _ in range(3):
        async with gateway.connect() as client:
            await client.request("chat.send", request)
    async with gateway.connect() as client:
        await client.request("agent.wait", {"runId": "w1"})
        history = await client.request("chat.history", {"sessionKey": "main"})
    assert [message["role"] for message in history["messages"]] == ["user", "assistant"]
