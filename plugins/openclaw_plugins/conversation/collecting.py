"""Queue mode `collect`: messages that wait become one turn with the one that comes after them."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from openclaw_plugins.conversation import ledger
from openclaw_plugins.conversation.lanes import Lanes
from openclaw_plugins.conversation.runs import Run

BETWEEN: str = "\n\n"


@dataclass(frozen=True, slots=True)
class Collected:
    """What a new run carries: runs that waited, taken out of their lane, the oldest first."""

    runs: tuple[Run, ...] = ()

    def text(self, newest: str) -> str:
        """Return what is said in all of them, and last in the newest."""
        return BETWEEN.join(text for text in (*(run.text for run in self.runs), newest) if text)

    def write(self, connection: sqlite3.Connection, carrier: Run, now_ms: int) -> None:
        """End the messages as superseded by the one that carries them, and give it their files, inside its write."""
        files = [ledger.read_attachments(connection, "inbound", run.inbound_id) for run in self.runs]
        files.append(ledger.read_attachments(connection, "inbound", carrier.inbound_id))
        for run in self.runs:
            ledger.supersede(connection, run.inbound_id, carrier.run_id, now_ms)
            ledger.end(connection, run.inbound_id, "suppressed", "collected", now_ms)
        if any(files[:-1]):
            ledger.drop_attachments(connection, "inbound", carrier.inbound_id)
            ledger.keep_attachments(connection, "inbound", carrier.inbound_id, [item for part in files for item in part])

    def put_back(self, lanes: Lanes) -> None:
        """Let them wait again where they were, before all that waits."""
        for run in reversed(self.runs):
            lanes.enqueue(run, first=True)


def collect(lanes: Lanes, waiting: Sequence[Run], newest: Run) -> Collected:
    """Take out of the lane what waits and was sent for collecting, by the same client and with the same options."""
    taken = [
        run
        for run in waiting
        if run.collects
        and not run.begun
        and not run.stopped.done()
        and run.options == newest.options
        and _sender(run) == _sender(newest)
        and lanes.withdraw(run.session_key, run)
    ]
    return Collected(tuple(taken))


def _sender(run: Run) -> str:
    message_id = run.request[0] if run.request is not None else ""
    return message_id.removesuffix(run.run_id)
