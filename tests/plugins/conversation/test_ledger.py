"""The ledger keeps what is open for ever and what is done for a while."""

from __future__ import annotations

from openclaw_plugins.conversation import ledger
from tests.plugins.conversation.harness import Gate, Harness


async def test_what_is_done_goes_in_time_and_what_is_open_stays(harness: Harness) -> None:
    await harness.receive("old", "1")
    await harness.receive("old too", "2")
    await harness.settled()
    gate = Gate()
    harness.runtime.script = gate
    await harness.receive("open", "3")
    await gate.running("open")
    later = harness.now_ms() + 1

    def clean(limit: int) -> object:
        return harness.store.write(lambda connection: ledger.forget_old(connection, later, limit))

    await harness.store.write(lambda connection: ledger.forget_old(connection, 0, 10))
    assert len(await harness.states()) == 3
    await clean(1)  # type: ignore[misc]
    assert [row[0] for row in await harness.states()] == ["2", "3"]
    await clean(10)  # type: ignore[misc]
    assert await harness.states() == [("3", "running", None)]
    gate.let("open")
    await harness.settled()
