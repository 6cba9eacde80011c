"""Delivery: in order, with patience, and with an end."""

from __future__ import annotations

import asyncio

import pytest
from pydantic import ValidationError

from openclaw_kernel.api import Attachment, Delivery, OutboundMessage, SendFailed, Target
from openclaw_plugins.conversation.outbox import DeliveryRules
from openclaw_plugins.conversation.outbox_rows import IN_DOUBT
from openclaw_plugins.conversation.settings import ConversationSettings
from tests.plugins.conversation.harness import Harness, until

HASTY = ConversationSettings.model_validate({"deliveryAttempts": 3, "deliveryFirstDelaySeconds": 0.01, "deliveryLongestDelaySeconds": 0.02})


def place(peer: str = "7", channel: str = "telegram") -> Target:
    return Target(channel=channel, account_id="default", peer_kind="direct", peer_id=peer)


async def deliver(harness: Harness, text: str, peer: str = "7", channel: str = "telegram") -> str:
    outbox_id: str = await harness.services[Delivery].enqueue(place(peer, channel), text=text)
    return outbox_id


async def state_of(harness: Harness, outbox_id: str) -> tuple[str, int, str | None]:
    ((state, attempts, error),) = await harness.rows(
        "SELECT state, attempts, error FROM conversation_outbox WHERE outbox_id = ?", outbox_id
    )
    return state, attempts, error


async def ended(harness: Harness, outbox_id: str) -> tuple[str, int, str | None]:
    async def done() -> bool:
        return (await state_of(harness, outbox_id))[0] not in ("prepared", "sending")

    await until(done)
    return await state_of(harness, outbox_id)


@pytest.fixture
async def hasty(harness: Harness) -> Harness:
    """Delivery that gives up soon."""
    harness.settings = HASTY
    await harness.restart()
    return harness


async def test_a_conversation_gets_its_messages_in_order(harness: Harness) -> None:
    for number in range(50):
        await deliver(harness, str(number))
    await until(lambda: len(harness.channels.sent) == 50)
    assert harness.channels.texts() == [str(number) for number in range(50)]


async def test_a_failed_attempt_is_repeated_and_the_next_waits(hasty: Harness) -> None:
    failures = iter([SendFailed("flaky"), SendFailed("flaky")])

    async def flaky(message: OutboundMessage) -> None:
        for failure in failures:
            raise failure

    hasty.channels.script = flaky
    first = await deliver(hasty, "one")
    await deliver(hasty, "two")
    await until(lambda: len(hasty.channels.sent) == 2)
    assert hasty.channels.texts() == ["one", "two"]
    assert [message.text for message in hasty.channels.attempts] == ["one", "one", "one", "two"]
    assert await ended(hasty, first) == ("sent", 3, None)
    assert len({message.outbox_id for message in hasty.channels.attempts[:3]}) == 1


async def test_a_poisonous_message_is_given_up_and_the_others_flow(hasty: Harness) -> None:
    async def poison(message: OutboundMessage) -> None:
        if message.text == "poison":
            raise SendFailed("cannot parse")

    hasty.channels.script = poison
    bad = await deliver(hasty, "poison")
    await deliver(hasty, "fine")
    await deliver(hasty, "elsewhere", peer="8")
    state, attempts, error = await ended(hasty, bad)
    assert (state, attempts) == ("dead_lettered", 3)
    assert error is not None
    assert "cannot parse" in error
    await until(lambda: len(hasty.channels.sent) == 2)
    assert set(hasty.channels.texts()) == {"fine", "elsewhere"}


async def test_a_permanent_failure_is_the_end_at_once(harness: Harness) -> None:
    async def blocked(message: OutboundMessage) -> None:
        raise SendFailed("blocked by the user", permanent=True)

    harness.channels.script = blocked
    assert await ended(harness, await deliver(harness, "one")) == ("failed", 1, "blocked by the user")


async def test_what_may_have_arrived_is_not_sent_again(harness: Harness) -> None:
    async def lost(message: OutboundMessage) -> None:
        raise SendFailed("the connection broke", unknown=True)

    harness.channels.script = lost
    assert await ended(harness, await deliver(harness, "one")) == ("unknown_after_send", 1, "the connection broke")


async def test_a_channel_that_drops_repeats_is_asked_again(hasty: Harness) -> None:
    hasty.channels.idempotent = {"telegram"}
    failures = iter([SendFailed("broke", unknown=True)])

    async def lost(message: OutboundMessage) -> None:
        for failure in failures:
            raise failure

    hasty.channels.script = lost
    assert (await ended(hasty, await deliver(hasty, "one")))[:2] == ("sent", 2)


async def test_the_wait_that_a_platform_asks_for_is_kept(harness: Harness) -> None:
    times: list[int] = []

    async def limited(message: OutboundMessage) -> None:
        times.append(harness.now_ms())
        if len(times) == 1:
            raise SendFailed("slow down", retry_after=0.2)

    harness.channels.script = limited
    await ended(harness, await deliver(harness, "one"))
    assert 190 <= times[1] - times[0] < 900


async def test_while_a_channel_is_down_messages_wait_and_then_go(harness: Harness) -> None:
    harness.channels.up.remove("telegram")
    first = await deliver(harness, "one")
    await deliver(harness, "two")
    await deliver(harness, "elsewhere", channel="irc")
    await until(lambda: harness.channels.texts() == ["elsewhere"])
    assert await state_of(harness, first) == ("prepared", 0, None)
    harness.channels.up.add("telegram")
    await until(lambda: len(harness.channels.sent) == 3)
    assert harness.channels.texts()[1:] == ["one", "two"]


async def test_what_cannot_be_sent_for_a_day_is_given_up(harness: Harness) -> None:
    harness.channels.up.remove("telegram")
    one = await deliver(harness, "one")
    harness.offset_ms = 25 * 3_600_000
    assert (await ended(harness, one))[0] == "dead_lettered"


async def test_what_goes_to_a_channel_that_was_switched_off_waits_for_it(harness: Harness) -> None:
    harness.channels.known.remove("telegram")
    harness.channels.up.remove("telegram")
    one = await deliver(harness, "one")
    await deliver(harness, "elsewhere", channel="irc")
    await until(lambda: harness.channels.texts() == ["elsewhere"])
    assert await state_of(harness, one) == ("prepared", 0, None)
    harness.channels.known.append("telegram")
    harness.channels.up.add("telegram")
    await until(lambda: harness.channels.texts() == ["elsewhere", "one"])


async def test_a_channel_that_goes_between_the_look_and_the_sending_costs_no_message(harness: Harness) -> None:
    gone = iter([True])

    async def switched_off(message: OutboundMessage) -> None:
        for _ in gone:
            harness.channels.up.remove("telegram")
            raise SendFailed("there is no channel 'telegram'")

    harness.channels.script = switched_off
    one = await deliver(harness, "one")
    await until(lambda: "telegram" not in harness.channels.up)
    harness.channels.up.add("telegram")
    assert (await ended(harness, one))[0] == "sent"


async def test_who_gives_up_says_that_its_channel_is_not_there(harness: Harness) -> None:
    one = await deliver(harness, "one", channel="pigeon")
    harness.offset_ms = 25 * 3_600_000
    assert await ended(harness, one) == ("dead_lettered", 0, "not delivered in time; channel 'pigeon' does not run")


async def test_a_channel_that_breaks_the_contract_stops_no_other_message(harness: Harness) -> None:
    async def broken(message: OutboundMessage) -> None:
        if message.text == "one":
            raise ZeroDivisionError

    harness.channels.script = broken
    one = await deliver(harness, "one")
    await deliver(harness, "two")
    await until(lambda: harness.channels.texts() == ["two"])
    assert (await ended(harness, one))[0] == "unknown_after_send"


async def test_files_go_along_also_after_a_restart(harness: Harness) -> None:
    harness.channels.up.remove("telegram")
    picture = Attachment(kind="image", mime_type="image/png", file_name="p.png", content=b"\x89PNG")
    await harness.services[Delivery].enqueue(place(), text="see", attachments=(picture,))
    await harness.restart()
    harness.channels.up.add("telegram")
    await until(lambda: harness.channels.sent)
    assert harness.channels.sent[0].attachments == (picture,)
    await until(lambda: _empty(harness))


async def _empty(harness: Harness) -> bool:
    return await harness.rows("SELECT count(*) FROM conversation_attachments") == [(0,)]


async def test_a_long_queue_is_not_held_in_memory_but_comes_whole(harness: Harness) -> None:
    harness.channels.up.remove("telegram")
    for number in range(100):
        await deliver(harness, f"text {number}")
    harness.channels.up.add("telegram")
    await until(lambda: len(harness.channels.sent) == 100)
    assert harness.channels.texts() == [f"text {number}" for number in range(100)]


async def test_a_stop_lets_what_is_being_sent_arrive(harness: Harness) -> None:
    entered = asyncio.Event()

    async def slow(message: OutboundMessage) -> None:
        entered.set()
        await asyncio.sleep(0.1)

    harness.channels.script = slow
    one = await deliver(harness, "one")
    await entered.wait()
    await harness.restart()
    assert await state_of(harness, one) == ("sent", 1, None)
    assert len(harness.channels.attempts) == 1


async def test_a_pause_that_a_platform_asks_for_costs_no_attempt(hasty: Harness) -> None:
    async def limited(message: OutboundMessage) -> None:
        if len(hasty.channels.attempts) <= 10:
            raise SendFailed("slow down", retry_after=0.0)

    hasty.channels.script = limited
    assert (await ended(hasty, await deliver(hasty, "one")))[:2] == ("sent", 11)


async def test_a_pause_of_one_conversation_does_not_hold_up_another(harness: Harness) -> None:
    async def limited(message: OutboundMessage) -> None:
        if message.target.peer_id == "7":
            raise SendFailed("slow down", retry_after=60.0)

    harness.channels.script = limited
    await deliver(harness, "one")
    await until(lambda: len(harness.channels.attempts) == 1)
    await deliver(harness, "elsewhere", peer="8")
    await until(lambda: harness.channels.texts() == ["elsewhere"])


async def test_a_pause_of_an_account_holds_up_all_that_goes_over_it_and_nothing_else(harness: Harness) -> None:
    times: list[int] = []

    async def limited(message: OutboundMessage) -> None:
        if message.target.channel == "telegram":
            times.append(harness.now_ms())
            if len(times) == 1:
                raise SendFailed("slow down", retry_after=0.5, whole_account=True)

    harness.channels.script = limited
    await deliver(harness, "one")
    await until(lambda: len(times) == 1)
    await until(lambda: _waits(harness))
    for peer in ("8", "9"):
        await deliver(harness, "elsewhere", peer=peer)
    await deliver(harness, "over there", channel="irc")
    await until(lambda: len(harness.channels.sent) == 4)
    assert harness.channels.texts()[0] == "over there"
    assert min(times[1:]) - times[0] >= 490
    assert len(times) == 4


async def _waits(harness: Harness) -> bool:
    return await harness.rows("SELECT count(*) FROM conversation_outbox WHERE error = 'slow down'") == [(1,)]


@pytest.mark.parametrize(
    ("policy", "end", "notices"), [("notify", "unknown_after_send", 1), ("resend", "sent", 0), ("drop", "unknown_after_send", 0)]
)
async def test_the_channels_policy_decides_about_an_answer_that_may_have_arrived(
    harness: Harness, policy: str, end: str, notices: int
) -> None:
    """P5: asked again where the channel can say, else by the policy of the channel."""
    harness.settings = ConversationSettings.model_validate(
        {
            "unknownAfterSend": "drop" if policy != "drop" else "notify",
            "unknownAfterSendByChannel": {"telegram": policy},
            "deliveryFirstDelaySeconds": 0.01,
        }
    )
    await harness.restart()
    failures = iter([SendFailed("the connection broke", unknown=True)])

    async def lost(message: OutboundMessage) -> None:
        for failure in failures:
            raise failure

    harness.channels.script = lost
    await harness.receive("hello", "1")
    await harness.settled()
    ((outbox_id,),) = await harness.rows("SELECT outbox_id FROM conversation_outbox WHERE run_id IS NOT NULL")
    assert (await ended(harness, outbox_id))[0] == end
    await until(lambda: len(harness.channels.sent) == notices + (end == "sent"))
    assert harness.channels.texts().count(IN_DOUBT) == notices


async def test_the_word_about_an_answer_in_doubt_is_said_again_where_it_is_in_doubt_itself(harness: Harness) -> None:
    harness.settings = ConversationSettings.model_validate({"deliveryFirstDelaySeconds": 0.01})
    await harness.restart()
    offered: list[str] = []

    async def lost(message: OutboundMessage) -> None:
        offered.append(message.text)
        if len(offered) < 3:
            raise SendFailed("the connection broke", unknown=True)

    harness.channels.script = lost
    await harness.receive("hello", "1")
    await until(lambda: harness.channels.texts() == [IN_DOUBT])
    assert offered[1:] == [IN_DOUBT] * 2
    assert await harness.rows("SELECT state FROM conversation_outbox WHERE run_id IS NULL") == [("sent",)]


async def test_sending_again_what_may_have_arrived_is_given_up_in_the_end(hasty: Harness) -> None:
    hasty.settings = HASTY.model_copy(update={"unknown_after_send": "resend"})
    await hasty.restart()

    async def lost(message: OutboundMessage) -> None:
        raise SendFailed("the connection broke", unknown=True)

    hasty.channels.script = lost
    state, attempts, error = await ended(hasty, await deliver(hasty, "one"))
    assert (state, attempts) == ("dead_lettered", 3)
    assert error == "the connection broke (given up after 3 attempts)"


@pytest.mark.parametrize(
    "settings",
    [
        {"unknownAfterSend": "perhaps"},
        {"unknownAfterSendByChannel": {"telegram": "perhaps"}},
        {"unknownAfterSendByChannel": {"Not A Channel": "drop"}},
        {"orphanSeconds": 0},
        {"sweepSeconds": 0},
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ConversationSettings.model_validate(settings)


def test_the_waits_double_up_to_a_ceiling() -> None:
    rules = DeliveryRules(first_delay=1, longest_delay=300)
    assert [rules.delay(attempts) for attempts in (1, 2, 3, 9, 10, 50)] == [1, 2, 4, 256, 300, 300]


async def test_a_stop_does_not_wait_for_what_stands_behind_one_that_waits(harness: Harness) -> None:
    """P4: a platform that wants silence for an hour does not use up the time in which turns may end."""

    async def limited(message: OutboundMessage) -> None:
        raise SendFailed("slow down", retry_after=3600.0)

    harness.channels.script = limited
    first = await deliver(harness, "one")
    await deliver(harness, "two")

    async def waits() -> bool:
        return (await state_of(harness, first))[1] == 1

    await until(waits)
    (unit,) = harness.registered.units
    async with asyncio.timeout(2):
        await unit.drain()  # type: ignore[attr-defined]


@pytest.mark.parametrize("whole_account", [False, True])
async def test_a_clock_that_is_set_back_does_not_hold_up_what_waits(harness: Harness, whole_account: bool) -> None:
    """P1: the wait is as long as it was to be, whatever the clock says."""
    tries: list[str] = []

    async def fails_once(message: OutboundMessage) -> None:
        tries.append(message.text)
        if len(tries) == 1:
            raise SendFailed("slow down", retry_after=0.5, whole_account=whole_account)

    harness.channels.script = fails_once
    one = await deliver(harness, "one")

    async def waits() -> bool:
        return await state_of(harness, one) == ("prepared", 1, "slow down")

    await until(waits)
    harness.offset_ms = -3_600_000
    assert (await ended(harness, one))[0] == "sent"
