"""Turns through the real gateway with the echo model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.plugins.shell_tool.test_runtime import alive, until
from tests.plugins.web_tools.server import response, serve
from tests.support.gateway import RunningGateway, StartGateway
from tests.support.ws_client import WsClient, is_chat


async def say(client: WsClient, text: str, key: str) -> None:
    await client.request("chat.send", {"sessionKey": "main", "message": text, "idempotencyKey": key})


async def answer(client: WsClient, text: str, key: str) -> dict[str, Any]:
    await say(client, text, key)
    frame = await client.expect_event(is_chat("final", run=key))
    message: dict[str, Any] = frame["payload"]["message"]
    return message


async def test_a_gateway_tells_of_its_agents_models_tools_and_usage(gateway: RunningGateway) -> None:
    async with gateway.connect() as client:
        agents = await client.request("agents.list")
        assert agents["defaultId"] == "main"
        workspace = Path(agents["agents"][0]["workspace"])
        assert workspace == gateway.home / "workspace" / "main"
        assert (workspace / "AGENTS.md").is_file()
        assert (await client.request("agent.identity.get"))["agentId"] == "main"
        [row] = (await client.request("models.list"))["models"]
        assert row["provider"] == "echo"
        catalog = await client.request("tools.catalog")
        assert [group["id"] for group in catalog["groups"]] == ["runtime", "web"]
        assert (await client.request("usage.status"))["providers"][0]["provider"] == "echo"
        assert (await client.request("usage.cost"))["totals"]["totalTokens"] == 0
        await answer(client, "one two three", "k1")
        cost = await client.request("usage.cost", {"days": 2})
        assert cost["totals"]["output"] == 3
        assert len(cost["daily"]) == 1


async def test_a_tool_is_called_and_the_whole_round_is_in_the_history(start_gateway: StartGateway) -> None:
    async with serve({"/": response("<h1>Tide</h1>", content_type="text/html")}) as server:
        gateway = await start_gateway({"plugins": {"entries": {"web-tools": {"config": {"allowPrivate": [server.place]}}}}})
        async with gateway.connect() as client:
            message = await answer(client, f'!tool fetch {{"url": "{server.url()}"}}\nreading', "k1")
            assert message["content"][0]["text"].startswith("reading\n\nfetch: [http://127.0.0.1")
            assert "# Tide" in message["content"][0]["text"]
            history = await client.request("chat.history", {"sessionKey": "main"})
            assert [entry["role"] for entry in history["messages"]] == ["user", "assistant", "toolResult", "assistant"]
        assert len(server.requests) == 1


async def test_a_private_address_is_refused_to_the_model(gateway: RunningGateway) -> None:
    async with serve({"/": response("secret")}) as server:
        async with gateway.connect() as client:
            message = await answer(client, f'!tool fetch {{"url": "{server.url()}"}}', "k1")
        assert "is not a public address" in message["content"][0]["text"]
        assert server.connections == 0


async def test_the_shell_is_only_there_for_an_agent_that_names_it(start_gateway: StartGateway) -> None:
    call = '!tool shell {"argv": ["pwd"]}'
    gateway = await start_gateway()
    async with gateway.connect() as client:
        assert "there is no tool 'shell'" in (await answer(client, call, "k1"))["content"][0]["text"]
    gateway = await start_gateway({"agents": {"defaults": {"tools": {"allow": ["shell"]}}}})
    async with gateway.connect() as client:
        text = (await answer(client, call, "k1"))["content"][0]["text"]
        assert text == f"shell: {gateway.home / 'workspace' / 'main'}\n"


async def test_an_abort_ends_the_command_and_the_next_turn_sees_it_as_interrupted(start_gateway: StartGateway) -> None:
    gateway = await start_gateway({"agents": {"defaults": {"tools": {"allow": ["shell"]}}}})
    script = "trap '' TERM INT; echo $$ > pid.new; mv pid.new pid; sleep 600"
    async with gateway.connect() as client:
        await say(client, f"!tool shell {json.dumps({'argv': ['sh', '-c', script]})}", "k1")
        pid_file = gateway.home / "workspace" / "main" / "pid"
        await until(pid_file.exists, seconds=10)
        pid = int(pid_file.read_text())
        assert alive(pid)
        assert (await client.request("chat.abort", {"sessionKey": "main"}))["aborted"]
        await client.expect_event(is_chat("aborted", run="k1"))
        await until(lambda: not alive(pid), seconds=2)
        assert (await answer(client, "still there?", "k2"))["content"][0]["text"] == "still there?"
        history = await client.request("chat.history", {"sessionKey": "main"})
        [result] = [entry for entry in history["messages"] if entry["role"] == "toolResult"]
        assert "interrupted" in result["content"][0]["text"]


async def test_a_fallback_answers_for_a_model_that_cannot(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(
        {
            "models": {"providers": {"echo": {"api": "echo", "fail": "overloaded"}, "second": {"api": "echo"}}},
            "agents": {"defaults": {"model": {"primary": "echo/echo", "fallbacks": ["second"]}}},
        }
    )
    async with gateway.connect() as client:
        message = await answer(client, "hello", "k1")
    assert message["content"][0]["text"] == "hello"
    assert message["provider"] == "second"


async def test_a_model_that_is_not_there_is_a_visible_error(start_gateway: StartGateway) -> None:
    gateway = await start_gateway({"agents": {"defaults": {"model": "echo/none"}}})
    async with gateway.connect() as client:
        await say(client, "hello", "k1")
        frame = await client.expect_event(is_chat("error", run="k1"))
    assert 'there is no model "echo/none" (agents.defaults.model)' in frame["payload"]["errorMessage"]
