"""status, health, open and call against a running gateway."""

from __future__ import annotations

import json
import re

import aiohttp

from tests.kernel.cli.command import run_command
from tests.support.gateway import RunningGateway, StartGateway


async def test_status_tells_where_and_how_the_gateway_is(gateway: RunningGateway) -> None:
    shown = await run_command("status", home=gateway.home)
    assert (shown.status, shown.err) == (0, "")
    first, *rows = shown.out.splitlines()
    assert first.startswith(f"openclaw-kernel 0.1.0 on {gateway.url}: ready, up ")
    assert "agents    main (default)" in rows
    assert "channels  webchat" in rows
    assert gateway.token not in shown.out
    answered = (await run_command("status", "--json", home=gateway.home)).json()
    assert answered["url"] == gateway.url
    assert {plugin["id"] for plugin in answered["plugins"]} >= {"echo", "control", "webchat"}


async def test_status_shows_what_is_wrong(start_gateway: StartGateway) -> None:
    gateway = await start_gateway({"channels": {"telegram": {"botTokn": "x"}, "nosuch": {}}})
    gateway.expect_log("telegram|nosuch")
    shown = await run_command("status", home=gateway.home)
    assert shown.status == 0
    assert "telegram  failed" in shown.out
    assert "unknown key 'botTokn'; did you mean 'botToken'?" in shown.out
    assert re.search(r"problem: openclaw.yaml:\d+:\d+: channels.nosuch: no channel plugin 'nosuch' is installed", shown.out)


async def test_health_says_well(gateway: RunningGateway) -> None:
    shown = await run_command("health", home=gateway.home)
    assert (shown.status, shown.err) == (0, "")
    assert shown.out.splitlines()[0] == f"well: {gateway.url}"
    assert (await run_command("health", "--json", home=gateway.home)).json()["ok"] is True


async def test_open_prints_a_link_that_works_once(gateway: RunningGateway) -> None:
    shown = await run_command("open", home=gateway.home)
    assert (shown.status, shown.err) == (0, "")
    link = shown.out.strip()
    assert link.startswith(f"{gateway.url}/#code=")
    again = (await run_command("open", "--json", home=gateway.home)).json()
    assert again["url"] != link
    assert again["expiresAtMs"] > 0
    async with aiohttp.ClientSession() as browser, browser.get(link) as page:
        assert page.status == 200


async def test_call_prints_what_a_method_returns(gateway: RunningGateway) -> None:
    plain = await run_command("call", "system-presence", home=gateway.home)
    assert (plain.status, plain.err) == (0, "")
    assert plain.json()[0]["mode"] == "gateway"
    with_params = await run_command("call", "sessions.list", '{"limit": 1}', "--json", home=gateway.home)
    assert with_params.out.count("\n") == 1
    assert with_params.json()["sessions"] == []
    from_stdin = await run_command("call", "sessions.resolve", "-", home=gateway.home, stdin='{"key": "main", "allowMissing": true}')
    assert from_stdin.status == 0, from_stdin.err


async def test_call_lists_the_methods(gateway: RunningGateway) -> None:
    names = (await run_command("call", "--list", home=gateway.home)).out.split()
    assert {"health", "chat.send", "sessions.list"} <= set(names)
    assert names == sorted(names)


async def test_call_can_wait_for_the_second_answer(gateway: RunningGateway) -> None:
    params = json.dumps({"message": "hello there", "idempotencyKey": "once", "sessionKey": "main"})
    first = await run_command("call", "agent", params, home=gateway.home)
    assert first.json()["status"] == "accepted"
    params = json.dumps({"message": "hello again", "idempotencyKey": "twice", "sessionKey": "main"})
    last = await run_command("call", "agent", params, "--final", home=gateway.home)
    assert last.json()["status"] == "ok"


async def test_a_refused_call_ends_with_1_and_the_reason(gateway: RunningGateway) -> None:
    unknown = await run_command("call", "statu", home=gateway.home)
    assert (unknown.status, unknown.out) == (1, "")
    assert unknown.err == "call: unknown method: statu; did you mean status?\n"
    bad = await run_command("call", "chat.history", '{"nonsense": 1}', "--json", home=gateway.home)
    assert bad.status == 1
    error = json.loads(bad.err)["error"]
    assert error["code"] == "INVALID_REQUEST"
    assert error["message"].startswith("chat.history: ")
    assert error["exit"] == 1


async def test_a_gateway_without_auth_needs_no_secret(start_gateway: StartGateway) -> None:
    gateway = await start_gateway({"gateway": {"auth": {"mode": "none", "token": None}}})
    assert (await run_command("status", home=gateway.home)).status == 0
    assert (await run_command("chat", "-m", "hello", home=gateway.home)).out == "hello\n"


async def test_a_password_opens_as_a_token_does(start_gateway: StartGateway) -> None:
    gateway = await start_gateway({"gateway": {"auth": {"mode": "password", "token": None, "password": "open sesame"}}})
    assert (await run_command("status", home=gateway.home)).status == 0


async def test_references_in_the_file_are_followed(start_gateway: StartGateway) -> None:
    secret = "a-token-from-elsewhere"
    gateway = await start_gateway({"gateway": {"auth": {"token": "${env:GATEWAY_SECRET}"}}}, env={"GATEWAY_SECRET": secret})
    assert (await run_command("status", home=gateway.home, env={"GATEWAY_SECRET": secret})).status == 0
    without = await run_command("status", home=gateway.home)
    assert without.status == 78
    assert "gateway.auth.token: the environment variable GATEWAY_SECRET is not set" in without.err
    assert (await run_command("status", home=gateway.home, env={"OPENCLAW_GATEWAY_TOKEN": secret})).status == 0
