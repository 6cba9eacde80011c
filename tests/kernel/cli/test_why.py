"""why and dead as commands, against a running gateway."""

from __future__ import annotations

import json

from tests.kernel.cli.command import Outcome, run_command
from tests.support.gateway import RunningGateway


async def command(gateway: RunningGateway, *arguments: str) -> Outcome:
    return await run_command(*arguments, home=gateway.home)


async def say(gateway: RunningGateway, text: str, run_id: str) -> None:
    params = {"message": text, "idempotencyKey": run_id, "sessionKey": "main"}
    await command(gateway, "call", "agent", json.dumps(params), "--final")


async def test_why_tells_the_way_of_a_message(gateway: RunningGateway) -> None:
    await say(gateway, "hello there " * 40, "run-one")
    shown = await command(gateway, "why", "run-one")
    assert (shown.status, shown.err) == (0, "")
    lines = shown.out.splitlines()
    assert lines[0].startswith("message    m1: token:run-one on webchat, account default")
    assert any(line.startswith("from ") and line.endswith("(token), a client of the gateway") for line in lines)
    assert any(line.startswith("text       “hello there") and "(shortened)" in line for line in lines)
    assert any(line.startswith("route      agent:main:main, agent main") for line in lines)
    assert "admission  allow: a client of the gateway, by its scope" in lines
    assert any(line.startswith("queue      ") and "turn began" in line for line in lines)
    assert any(line.startswith("turn 1: run run-one, ok in ") and "tokens in" in line for line in lines)
    assert any(line.startswith("  model  echo/echo") and "done" in line for line in lines)
    assert lines[-1] == "m1 is answered"
    assert gateway.token not in shown.out
    answered = (await command(gateway, "why", "m1", "--json")).json()
    assert answered["message"]["runId"] == "run-one"
    assert answered["turns"][0]["steps"][0]["kind"] == "model"


async def test_why_lists_what_an_id_can_mean_and_says_where_to_look_for_an_unknown_one(gateway: RunningGateway) -> None:
    await say(gateway, "one", "run-one")
    await say(gateway, "two", "run-two")
    several = await command(gateway, "why", "run-")
    assert several.status == 1
    assert several.err == "why: 'run-' can mean several; name one of them by its id\n"
    assert several.out.splitlines()[0].split() == ["ID", "WHAT"]
    assert "m1  message token:run-one of webchat, answered" in several.out
    unknown = await command(gateway, "why", "nobody")
    assert (unknown.status, unknown.out) == (1, "")
    assert "nothing is known of 'nobody'; the ledger keeps 30 days" in unknown.err
    assert json.loads((await command(gateway, "why", "nobody", "--json")).err)["error"]["details"] == {"code": "UNKNOWN_ID"}


async def test_the_dead_are_listed_shown_retried_and_forgotten(gateway: RunningGateway) -> None:
    """W13."""
    assert (await command(gateway, "dead")).out == "nothing is dead\n"
    await say(gateway, "!fail auth", "run-one")
    await say(gateway, "!fail auth", "run-two")
    listed = await command(gateway, "dead", "list", "--kind", "message")
    assert [line.split()[0] for line in listed.out.splitlines()] == ["ID", "m2", "m1"]
    limited = await command(gateway, "dead", "list", "-n", "1")
    assert limited.err == "1 more; --limit shows them\n"
    shown = await command(gateway, "dead", "show", "run-one")
    assert "another turn: openclaw-kernel dead retry m1" in shown.out
    retried = await command(gateway, "dead", "retry", "m1")
    assert retried.out.startswith("message m1 gets a new turn, run ")
    run_id = retried.out.split("run ")[1].split(";")[0]
    await command(gateway, "call", "agent.wait", json.dumps({"runId": run_id, "timeoutMs": 10_000}))
    told = await command(gateway, "why", "m1")
    assert "turn 2: run " in told.out
    assert "retry of the message by token; it was dead_lettered" in told.out
    forgotten = await command(gateway, "dead", "forget", "run-two")
    assert forgotten.out == "message m2 is forgotten\n"
    assert (await command(gateway, "dead", "forget", "run-two")).out == "message m2 was already forgotten\n"
    refused = await command(gateway, "dead", "retry", "run-two")
    assert refused.status == 1
    assert "was forgotten" in refused.err
    assert [item["id"] for item in (await command(gateway, "dead", "--json")).json()["items"]] == ["m1"]


async def test_a_limit_that_is_none_is_refused(gateway: RunningGateway) -> None:
    wrong = await command(gateway, "dead", "list", "--limit", "0")
    assert wrong.status == 2
    assert "give a number from 1 to 500" in wrong.err


async def test_what_others_wrote_does_not_steer_the_terminal(gateway: RunningGateway) -> None:
    """W2: a client chooses the ids of its messages, a model the words of its errors."""
    hostile = "\x1b]0;mine\x07run\x9b31m\u202e\nm7 is answered"
    await say(gateway, "!fail auth \x1b[2J", hostile)
    await say(gateway, "!fail auth", f"{hostile} again")
    for arguments in (
        ("why", "m1"),
        ("why", "\x1b]0;mine"),
        ("dead", "list"),
        ("dead", "show", "m1"),
        ("dead", "show", "\x1b]0;mine"),
        ("dead", "retry", "m1"),
        ("dead", "forget", "m2"),
    ):
        shown = await command(gateway, *arguments)
        assert not set(shown.out + shown.err) & set("\x1b\x07\x9b\u202e"), arguments
        assert "m7 is answered" not in shown.out.splitlines(), arguments
        assert shown.out or shown.err


async def test_what_others_wrote_cannot_steer_the_terminal_as_json_either(gateway: RunningGateway) -> None:
    hostile = "\x9b31m\u202e\u2066é"
    await say(gateway, hostile, f"run{hostile}")
    shown = await command(gateway, "why", "m1", "--json")
    assert shown.json()["message"]["text"] == hostile
    assert {char for char in shown.out if char in hostile} <= {"3", "1", "m", "é"}


async def test_an_argument_that_is_no_text_is_refused_at_once(gateway: RunningGateway) -> None:
    refused = await command(gateway, "why", "\udcff")
    assert (refused.status, refused.err) == (2, "messages.why: an argument is not UTF-8; give it in UTF-8\n")
    refused = await command(gateway, "dead", "list", "-n", "²")
    assert refused.status == 2
    assert "found '²'; give a number from 1 to 500" in refused.err
