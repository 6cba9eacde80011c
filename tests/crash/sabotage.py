"""Gateways with a fault of the kind that the harness is there to find, for the tests of the harness."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence

from openclaw_kernel.api import InboundMessage
from openclaw_kernel.configuration.file import ConfigFile, FileChanged
from openclaw_plugins.conversation import ledger, outbox_rows, recovery
from openclaw_plugins.conversation.calls import Call
from openclaw_plugins.conversation.endings import INTERRUPTED, Endings
from openclaw_plugins.conversation.intake import Intake
from openclaw_plugins.conversation.ledger import Inbound
from openclaw_plugins.conversation.outbox_rows import Outgoing
from openclaw_plugins.conversation.recovery import End, Recovery
from openclaw_plugins.conversation.runs import Outcome, Run
from openclaw_plugins.conversation.sink import Sink

LATE_SECONDS = 5.0


def acknowledge_early() -> None:
    """Say that a message is kept before it is."""
    accept = Intake.accept

    async def early(intake: Intake, message: InboundMessage) -> bool:
        async def late() -> None:
            await asyncio.sleep(LATE_SECONDS)
            await accept(intake, message)

        intake._world.spawn("accept late", late())
        return True

    setattr(Intake, "accept", early)  # noqa: B010 - a method is no variable to assign to


def send_again() -> None:
    """Send again what may have arrived."""
    unfinished = outbox_rows.unfinished

    def without_doubt(connection: sqlite3.Connection) -> list[Outgoing]:
        found = unfinished(connection)
        for item in found:
            item.in_doubt = False
        return found

    outbox_rows.unfinished = without_doubt


def forget_recovery() -> None:
    """Take up nothing of what an earlier process left."""

    async def forget(_recovery: Recovery) -> Sequence[Inbound]:
        return ()

    setattr(Recovery, "recover", forget)  # noqa: B010


def give_up() -> None:
    """Let no turn go on that was cut off."""
    setattr(recovery, "decide_attempt", lambda *_: End(Outcome(status="interrupted", error=INTERRUPTED)))  # noqa: B010


def repeat_effects() -> None:
    """Take no call for one that has effects."""
    setattr(Call, "has_effects", property(lambda _call: False))  # noqa: B010


def forget_stops() -> None:
    """Keep a stop in memory alone, and take long to end what was stopped."""
    finish = Endings.finish

    async def slowly(endings: Endings, run: Run, outcome: Outcome, sink: Sink | None = None) -> None:
        if outcome.status == "aborted":
            await asyncio.sleep(LATE_SECONDS)
        await finish(endings, run, outcome, sink)

    setattr(Endings, "finish", slowly)  # noqa: B010
    setattr(ledger, "ask_to_stop", lambda *_: None)  # noqa: B010


def write_in_place() -> None:
    """Write a part of the config over the file before all of it takes its place."""
    replace = ConfigFile.replace

    def torn(file: ConfigFile, text: str, *, expected: str | None) -> None:
        if file.text() != expected:
            raise FileChanged
        part = text[: len(text) // 2]
        file.path.write_text(part, encoding="utf-8")
        replace(file, text, expected=part)

    setattr(ConfigFile, "replace", torn)  # noqa: B010


SABOTAGES: dict[str, Callable[[], None]] = {
    "acknowledge early": acknowledge_early,
    "send again": send_again,
    "forget recovery": forget_recovery,
    "give up": give_up,
    "repeat effects": repeat_effects,
    "forget stops": forget_stops,
    "write in place": write_in_place,
}
