"""Talking to the agent: once, from a pipe, and on a terminal."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from pathlib import Path

from tests.kernel.cli.command import DEADLINE_SECONDS, on_terminal, run_command, start_command
from tests.support.gateway import RunningGateway, StartGateway

PROMPT = r"> "


async def test_one_question_prints_the_answer(gateway: RunningGateway) -> None:
    outcome = await run_command("chat", "-m", "hello there", home=gateway.home)
    assert (outcome.status, outcome.out, outcome.err) == (0, "hello there\n", "")


async def test_the_question_may_come_from_stdin(gateway: RunningGateway) -> None:
    outcome = await run_command("chat", "-m", "-", home=gateway.home, stdin="two\nlines")
    assert outcome.out == "two\nlines\n"


async def test_programs_get_the_answer_as_json(gateway: RunningGateway) -> None:
    answer = (await run_command("chat", "-m", "hello", "--json", home=gateway.home)).json()
    assert (answer["state"], answer["text"], answer["sessionKey"]) == ("final", "hello", "agent:main:main")
    assert answer["message"]["role"] == "assistant"


async def test_the_answer_is_streamed(gateway: RunningGateway) -> None:
    process = await start_command("chat", "-m", "!slow 150\none two three four five six", home=gateway.home)
    assert process.stdout is not None
    first = await asyncio.wait_for(process.stdout.read(3), DEADLINE_SECONDS)
    assert first == b"one"
    assert process.returncode is None
    rest, err = await asyncio.wait_for(process.communicate(), DEADLINE_SECONDS)
    assert rest.decode() == " two three four five six\n"
    assert err == b""


async def test_a_failed_turn_ends_with_1_and_the_reason(gateway: RunningGateway) -> None:
    outcome = await run_command("chat", "-m", "!fail auth", home=gateway.home)
    assert outcome.status == 1
    assert outcome.out == ""
    assert outcome.err.startswith("the turn failed: ")
    assert outcome.err.count("\n") == 1
    cut_off = await run_command("chat", "-m", "!fail auth 2\none two three", home=gateway.home)
    assert cut_off.status == 1
    assert cut_off.out == "one two\n"


async def test_steps_of_tools_are_shown_beside_the_answer(gateway: RunningGateway) -> None:
    outcome = await run_command("chat", "-m", 'looking\n!tool fetch {"url": "http://127.0.0.1/"}', home=gateway.home)
    assert outcome.status == 0
    assert "> fetch url='http://127.0.0.1/'" in outcome.err
    assert "! fetch: " in outcome.err
    assert outcome.out.startswith("looking\n")
    assert "fetch: " in outcome.out


async def test_sessions_and_agents_can_be_chosen(start_gateway: StartGateway) -> None:
    gateway = await start_gateway({"agents": {"entries": {"main": {"default": True}, "research": {}}}})
    agent = (await run_command("chat", "-m", "hello", "--agent", "research", "--json", home=gateway.home)).json()
    assert agent["sessionKey"] == "agent:research:main"
    session = (await run_command("chat", "-m", "hello", "--session", "agent:main:notes", "--json", home=gateway.home)).json()
    assert session["sessionKey"] == "agent:main:notes"
    unknown = await run_command("chat", "-m", "hello", "--agent", "nobody", home=gateway.home)
    assert unknown.status == 1
    assert "nobody" in unknown.err


async def test_commands_are_passed_on(gateway: RunningGateway) -> None:
    help_text = (await run_command("chat", "-m", "/help", home=gateway.home)).out
    assert "/model" in help_text
    assert (await run_command("chat", "-m", "/stop", home=gateway.home)).out == "Nothing is running.\n"


async def test_ctrl_c_stops_the_turn_at_the_gateway(gateway: RunningGateway) -> None:
    process = await start_command("chat", "-m", "!hang\nbegun", home=gateway.home)
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.read(5), DEADLINE_SECONDS) == b"begun"
    process.send_signal(signal.SIGINT)
    _, err = await asyncio.wait_for(process.communicate(), DEADLINE_SECONDS)
    assert process.returncode == 130
    assert err.decode() == "stopped\n"
    listed = await run_command("call", "sessions.list", "{}", home=gateway.home)
    assert [row["status"] for row in listed.json()["sessions"]] == ["killed"]


async def test_a_turn_that_another_client_stops_ends_with_1(gateway: RunningGateway) -> None:
    process = await start_command("chat", "-m", "!hang\nbegun", home=gateway.home)
    assert process.stdout is not None
    await asyncio.wait_for(process.stdout.read(5), DEADLINE_SECONDS)
    assert (await run_command("chat", "-m", "stop", home=gateway.home)).out == "Stopped.\n"
    _, err = await asyncio.wait_for(process.communicate(), DEADLINE_SECONDS)
    assert (process.returncode, err.decode()) == (1, "stopped\n")


async def test_a_gateway_that_stops_in_the_middle_is_temporary(gateway: RunningGateway) -> None:
    process = await start_command("chat", "-m", "!hang\nbegun", home=gateway.home)
    assert process.stdout is not None
    await asyncio.wait_for(process.stdout.read(5), DEADLINE_SECONDS)
    await gateway.kill()
    _, err = await asyncio.wait_for(process.communicate(), DEADLINE_SECONDS)
    assert process.returncode == 75
    assert "the connection to the gateway was lost" in err.decode()


async def test_ctrl_c_twice_does_not_wait_for_the_gateway(gateway: RunningGateway) -> None:
    process = await start_command("chat", "-m", "!hang\nbegun", home=gateway.home)
    assert process.stdout is not None
    await asyncio.wait_for(process.stdout.read(5), DEADLINE_SECONDS)
    gateway.process.send_signal(signal.SIGSTOP)
    async with asyncio.timeout(DEADLINE_SECONDS):
        # Two that come at the same moment are one to the system, so they are pressed until it ends.
        while process.returncode is None:
            process.send_signal(signal.SIGINT)
            await asyncio.wait([asyncio.ensure_future(process.wait())], timeout=0.2)
    gateway.process.send_signal(signal.SIGCONT)
    assert process.returncode == 130


async def test_a_pipe_is_read_line_by_line(gateway: RunningGateway) -> None:
    outcome = await run_command("chat", home=gateway.home, stdin="one\n\n!fail auth\ntwo\n")
    assert outcome.out == "one\ntwo\n"
    assert outcome.err.count("the turn failed") == 1
    assert outcome.status == 1


async def test_a_conversation_on_a_terminal(gateway: RunningGateway) -> None:
    async with on_terminal("chat", home=gateway.home) as terminal:
        await terminal.expect(r"agent:main:main on http.*Ctrl\+D ends")
        await terminal.expect(PROMPT)
        terminal.type("hello there\n")
        await terminal.expect(r"\nhello there\r?\n.*> ")
        terminal.type("half a line")
        await terminal.expect("half a line")
        await terminal.press("\x03", until=r"\n> ")
        terminal.type("hello again\n")
        await terminal.expect(r"\nhello again\r?\n.*> ")
        terminal.type("\x04")
        assert await asyncio.wait_for(terminal.process.wait(), DEADLINE_SECONDS) == 0


async def test_ctrl_c_on_a_terminal_stops_the_answer_and_not_the_conversation(start_gateway: StartGateway) -> None:
    gateway = await start_gateway({"models": {"providers": {"echo": {"delayMs": 200, "reply": "word " * 200}}}})
    async with on_terminal("chat", home=gateway.home) as terminal:
        await terminal.expect(PROMPT)
        terminal.type("go\n")
        await terminal.expect("word word")
        terminal.type("\x03")
        await terminal.expect(r"stopped.*> ")
        terminal.type("/new\n")
        await terminal.expect(r"Started a new conversation.*> ")
        terminal.type("\x04")
        assert await asyncio.wait_for(terminal.process.wait(), DEADLINE_SECONDS) == 0


async def test_a_conversation_outlives_a_restart_of_the_gateway(gateway: RunningGateway) -> None:
    async with on_terminal("chat", home=gateway.home) as terminal:
        await terminal.expect(PROMPT)
        terminal.type("one\n")
        await terminal.expect(r"\none\r?\n.*> ")
        await gateway.stop()
        await gateway.start()
        terminal.type("two\n")
        await terminal.expect(r"the connection was lost meanwhile; connecting again.*\ntwo\r?\n.*> ")
        terminal.type("\x04")
        assert await asyncio.wait_for(terminal.process.wait(), DEADLINE_SECONDS) == 0


async def test_what_a_model_writes_cannot_steer_the_terminal(start_gateway: StartGateway) -> None:
    gateway = await start_gateway({"models": {"providers": {"echo": {"reply": "a\x1b]0;owned\x07b"}}}})
    async with on_terminal("chat", "-m", "hello", home=gateway.home) as terminal:
        assert await asyncio.wait_for(terminal.process.wait(), DEADLINE_SECONDS) == 0
        shown = await terminal.expect("b")
    assert "\x1b]" not in shown
    assert re.search("a.*owned", shown)


async def test_no_secret_is_in_any_output(gateway: RunningGateway, tmp_path: Path) -> None:
    for arguments in (["status"], ["chat", "-m", "x", "--json"], ["config", "get"], ["config", "get", "--json"], ["logs"], ["plugins"]):
        outcome = await run_command(*arguments, home=gateway.home)
        assert gateway.token not in outcome.out + outcome.err, arguments
    assert gateway.token in json.dumps(gateway.config)
