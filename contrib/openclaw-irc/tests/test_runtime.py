"""The channel against a server that misbehaves."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from typing import Any

import pytest

from openclaw_kernel.api import OutboundMessage, SendFailed, Target

Server = Any
Context = Any
Running = Callable[..., Any]
"""The fixtures of conftest.py, which no test can import."""


def message(text: str, to: str = "#room", outbox_id: str = "1") -> OutboundMessage:
    target = Target(channel="irc", account_id="default", peer_kind="group", peer_id=to)
    return OutboundMessage(target=target, outbox_id=outbox_id, text=text)


async def test_a_connection_that_died_without_a_word_is_cut_and_made_anew(server: Server, context: Context, running: Running) -> None:
    async with running() as channel:
        server.mute = True
        await context.reason("did not answer a ping")
        assert channel.status()[0].connected is False
        server.mute = False
        await context.well()
        assert channel.status()[0].connected
        assert server.connections == 2


async def test_a_server_that_throws_out_at_once_is_tried_ever_more_slowly(server: Server, running: Running) -> None:
    loop = asyncio.get_running_loop()
    came: list[float] = []

    def welcome(_line: str) -> list[str]:
        came.append(loop.time())
        return [":irc.test 001 {nick} :welcome", "ERROR :Closing link: too many connections"]

    server.reply["USER"] = welcome
    async with running():
        await server.wait("USER", times=5)
    assert came[4] - came[3] > 2 * (came[1] - came[0])


async def test_a_refused_password_is_named_as_such(server: Server, context: Context, running: Running) -> None:
    server.reply["USER"] = [":irc.test 464 {nick} :Password incorrect", "ERROR :Closing link"]
    async with running(password="hunter2") as channel:  # noqa: S106 - the example's
        reason = await context.reason("channels.irc.password", "Password incorrect")
        assert "hunter2" not in reason
        assert channel.status()[0].last_error == reason


async def test_what_the_server_says_at_the_end_is_passed_on(server: Server, context: Context, running: Running) -> None:
    server.reply["USER"] = ["ERROR :Closing link: (K-lined: no bots here)"]
    async with running():
        await context.reason("channels.irc.server", "no bots here")


async def test_a_nick_in_use_is_varied_even_where_the_server_cuts_it(server: Server, running: Running) -> None:
    def nick(asked: str) -> list[str]:
        server.nick = asked[:9]
        return [] if server.nick not in ("openclaw", "openclaw_") else [f":irc.test 433 * {server.nick} :Nickname is already in use"]

    welcomed: list[str] = []

    def nick_then_welcome(asked: str) -> list[str]:
        refused = nick(asked)
        welcomed.append(server.nick)
        return refused or [":irc.test 001 {nick} :welcome"]

    server.reply |= {"NICK": nick_then_welcome, "USER": []}
    async with running(nick="openclaw") as channel:
        await server.wait("NICK")
        async with asyncio.timeout(5):
            while not channel.status()[0].connected:
                await server.wait("NICK", times=len(welcomed))
                await asyncio.sleep(0)
    assert len(welcomed) < 10
    assert server.connections == 1


async def test_a_nick_the_server_does_not_take_is_named(server: Server, context: Context, running: Running) -> None:
    server.reply["USER"] = [":irc.test 432 * claw :Erroneous nickname"]
    async with running():
        await context.reason("channels.irc.nick", "Erroneous nickname")


async def test_a_room_it_was_thrown_out_of_is_reported_and_entered_again(server: Server, context: Context, running: Running) -> None:
    server.reply["JOIN"] = [":{nick}!u@h JOIN #room"]
    async with running(rooms=["#room"]):
        await server.wait("JOIN #room")
        server.say(":op!u@h KICK #room claw :out")
        await context.reason("#room", "out")
        await server.wait("JOIN #room", times=2)
        await context.well()


async def test_a_room_that_does_not_let_it_in_is_reported(server: Server, context: Context, running: Running) -> None:
    server.reply["JOIN"] = [":irc.test 474 {nick} #room :Cannot join channel (+b)"]
    async with running(rooms=["#room"]) as channel:
        await context.reason("channels.irc.rooms", "#room", "Cannot join channel (+b)")
        assert channel.status()[0].connected


async def test_each_capability_is_asked_for_on_its_own(server: Server, running: Running) -> None:
    # A server that knows only one of several refuses the request as a whole.
    server.reply["CAP"] = lambda asked: [f":irc.test CAP {{nick}} NAK :{asked.partition(' ')[2].lstrip(':')}"]
    async with running():
        asked = [await server.wait("CAP REQ", name) for name in ("account-tag", "message-tags")]
        assert len(set(asked)) == 2
        server.say(":ann!u@h PRIVMSG claw :hi")


async def test_a_line_that_could_not_be_stored_is_kept_and_stored_later(server: Server, context: Context, running: Running) -> None:
    context.door.refusal = sqlite3.OperationalError("disk full")
    async with running():
        server.say(":ann!u@h PRIVMSG claw :keep me")
        server.say(":ann!u@h PRIVMSG claw :and me")
        await context.door.wait(knocks=2)
        await context.reason("could not store", "disk full")
        context.door.refusal = None
        await context.door.wait(count=2)
        await context.well()
    assert [item.text for item in context.door.accepted] == ["keep me", "and me"]


async def test_odd_lines_neither_end_the_connection_nor_become_messages(server: Server, context: Context, running: Running) -> None:
    async with running():
        server.say(":ann!u@h PRIVMSG claw :\x01VERSION\x01")
        server.say(":ann!u@h PRIVMSG claw :\x01DCC SEND x 1 2 3\x01")
        server.say(":ann!u@h NOTICE claw :a notice")
        server.say("PRIVMSG claw :from nobody")
        server.say(":ann!u@h PRIVMSG claw :   ")
        server.say("@account=Ann;x :ann!u@h PRIVMSG claw :caf\udce9")
        await context.door.wait(count=1)
    (item,) = context.door.accepted
    assert (item.sender_id, item.text[:3]) == ("account:ann", "caf")
    assert server.connections == 1


async def test_stopping_and_starting_leaves_one_reader_of_lines(context: Context, running: Running) -> None:
    async with running() as channel:
        for _ in range(3):
            await channel.stop()
            await channel.start()
        assert sorted(task.get_name() for task in context.tasks) == ["connection", "intake"]


async def test_a_stop_while_connecting_is_quick(server: Server, running: Running) -> None:
    server.mute = True
    async with running(timing={"connect": 30.0, "first_outcome": 0.05}) as channel:
        await server.wait("USER")
        async with asyncio.timeout(1):
            await channel.stop()
    assert server.connections == 1


async def test_a_host_name_that_can_be_none_is_reported(context: Context, running: Running) -> None:
    async with running(server="irc..example"):
        await context.reason("channels.irc.server", "irc..example")


async def test_many_reconnects_leave_no_task_behind(server: Server, context: Context, running: Running) -> None:
    async with running(timing={"retry_first": 0.001, "retry_longest": 0.001}):
        for count in range(2, 40):
            server.drop()
            await server.wait_connections(count)
            await server.wait("USER", times=count)
        assert len(context.tasks) <= 4


# --- sending ---------------------------------------------------------------------------------------------------------


async def test_a_long_answer_goes_on_where_its_time_ended(server: Server, running: Running) -> None:
    text = "\n".join(f"line {number}" for number in range(25))
    async with running() as channel:
        with pytest.raises(SendFailed, match="waits for the next attempt") as failed:
            await channel.send(message(text))
        while True:
            try:
                await channel.send(message(text))
                break
            except SendFailed:
                continue
        await server.wait("PRIVMSG #room :line 24")
    assert (failed.value.permanent, failed.value.unknown) == (False, False)
    assert [line.partition(":")[2] for line in server.heard if line.startswith("PRIVMSG")] == text.split("\n")


async def test_a_long_answer_does_not_hold_up_another_conversation(server: Server, running: Running) -> None:
    async with running(timing={"send_budget": 5.0}) as channel:
        long = asyncio.ensure_future(channel.send(message("\n".join(["x"] * 30))))
        await server.wait("PRIVMSG #room")
        await channel.send(message("short", to="ann", outbox_id="2"))
        assert not long.done()
        long.cancel()


async def test_a_message_to_nowhere_is_refused_for_good(running: Running) -> None:
    async with running() as channel:
        for nowhere in ("a b", "x\r\nQUIT", "", ":x", "a,b", "x" * 300, "#" + "\N{SNOWMAN}" * 99):
            with pytest.raises(SendFailed) as refused:
                await channel.send(message("hi", to=nowhere))
            assert refused.value.permanent


async def test_what_a_model_writes_stays_one_message_of_text(server: Server, running: Running) -> None:
    async with running() as channel:
        await channel.send(message("\x01DCC SEND a\x01\rQUIT :bye\x00"))
        await server.wait("PRIVMSG #room :QUIT :bye")
    said = [line for line in server.heard if line.startswith("PRIVMSG")]
    assert said == ["PRIVMSG #room :DCC SEND a", "PRIVMSG #room :QUIT :bye"]


async def test_no_line_outgrows_what_a_server_passes_on(server: Server, running: Running) -> None:
    room = "#" + "r" * 60
    async with running() as channel:
        await channel.send(message("w" * 1200, to=room))
        await server.wait("PRIVMSG", times=3)
    # A server puts `:nick!user@host ` before it, up to 107 bytes, and everything has to fit into 512.
    assert all(len(line) + 107 + 2 <= 512 for line in server.heard if line.startswith("PRIVMSG"))
