"""What an earlier process left behind: what waited waits again, what ran is ended as interrupted."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence

from openclaw_plugins.conversation import ledger
from openclaw_plugins.conversation.durable import write_patiently
from openclaw_plugins.conversation.endings import INTERRUPTED, Endings
from openclaw_plugins.conversation.intake import run_of
from openclaw_plugins.conversation.lanes import Lanes
from openclaw_plugins.conversation.ledger import Inbound
from openclaw_plugins.conversation.runs import Outcome, Run
from openclaw_plugins.conversation.world import World


class Recovery:
    """Takes up, once at the start, the messages that have no end."""

    def __init__(self, world: World, lanes: Lanes, endings: Endings) -> None:
        self._world = world
        self._lanes = lanes
        self._endings = endings

    async def recover(self) -> Sequence[Inbound]:
        """Line up what waited, end what ran; return the messages about which nothing was decided yet."""
        left, unreadable = await self._world.store.read(ledger.unfinished)
        if unreadable:
            await self._give_up(unreadable)
        cut_off = (self._interrupted(entry) for entry in left if entry.state == "running")
        await asyncio.gather(*cut_off)
        undecided = []
        for entry in left:
            if entry.state == "running":
                continue
            if entry.state == "queued":
                run = run_of(entry)
                run.lined_up = True
                self._world.board.add(run)
                self._lanes.enqueue(run)
            else:
                undecided.append(entry)
        return undecided

    async def _give_up(self, inbound_ids: Sequence[int]) -> None:
        now = self._world.now_ms()

        def write(connection: sqlite3.Connection) -> None:
            for inbound_id in inbound_ids:
                ledger.end(connection, inbound_id, "dead_lettered", "cannot be read back", now)

        await write_patiently(self._world.store, write)

    async def _interrupted(self, entry: Inbound) -> None:
        outcome = Outcome(status="interrupted", error=INTERRUPTED, stop_reason="interrupted")
        await self._endings.finish(await self._cut_off(entry), outcome)

    async def _cut_off(self, entry: Inbound) -> Run:
        """Return the run of a message whose turn an earlier process did not end."""
        run = run_of(entry)
        row = await self._world.store.read(
            lambda connection: connection.execute(
                "SELECT id, session_id, started_ms FROM conversation_runs WHERE inbound_id = ? ORDER BY id DESC LIMIT 1",
                (entry.id,),
            ).fetchone()
        )
        if row is not None:
            run.row_id, run.session_id, run.started_ms = row
            run.begun = True
        self._world.board.add(run)
        return run
