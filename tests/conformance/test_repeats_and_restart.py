"""The reference client repeats its requests over a kill and asks for a restart (P5, P24)."""

from __future__ import annotations

import pytest

from tests.conformance.reference_client import reference_client
from tests.plugins.conversation.harness import until
from tests.support.gateway import RunningGateway

pytestmark = pytest.mark.requires("node24", "gateway-client")


async def test_a_request_repeated_after_a_kill_is_answered_as_before(gateway: RunningGateway) -> None:
    send = {"sessionKey": "main", "message": "once", "idempotencyKey": "k1"}
    turn = {"sessionKey": "main", "message": "a turn", "idempotencyKey": "r1"}
    async with reference_client(gateway.ws_url, token=gateway.token) as client:
        await client.wait("hello")
        sent = await client.request("chat.send", send)
        ended = await client.request("agent", turn, expect_final=True)
        position = len(client.lines)
        await gateway.kill()
        await client.wait("closed", after=position)
        await gateway.start()
        await client.wait("hello", after=position)
        assert await client.request("chat.send", send) == sent
        assert await client.request("agent", turn, expect_final=True) == ended
        history = await client.request("chat.history", {"sessionKey": "main"})
        assert [message["role"] for message in history["messages"]] == ["user", "assistant"] * 2


async def test_a_restart_that_the_client_asks_for_brings_it_back_by_itself(gateway: RunningGateway) -> None:
    # It connects again to where it was; a port that the system chose would be another after the start.
    await gateway.stop()
    await gateway.start()
    async with reference_client(gateway.ws_url, token=gateway.token) as client:
        first = (await client.wait("hello"))["hello"]
        position = len(client.lines)
        asked = await client.request("gateway.restart.request", {"sessionKey": "main", "reason": "the client asks"})
        assert asked["status"] == "scheduled"
        assert (await client.event("shutdown", after=position))["restartExpectedMs"] > 0
        assert (await client.wait("closed", after=position))["code"] == 1012
        second = (await client.wait("hello", after=position))["hello"]
        assert second["server"]["bootId"] != first["server"]["bootId"]

        async def told() -> list[str]:
            history = await client.request("chat.history", {"sessionKey": "main"})
            return [message["content"][0]["text"] for message in history["messages"]]

        assert ["the client asks" in text for text in await until(told, "that the session is told")] == [True]
