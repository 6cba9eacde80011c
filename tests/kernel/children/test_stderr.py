"""What a child writes for people: none of it keeps others waiting, and the reason of an end has no secret in it."""

from __future__ import annotations

import asyncio
import logging

from openclaw_config.secrets import Secret
from openclaw_kernel.children.stderr import ChildLog


class Flood:
    """So many chunks of short lines."""

    def __init__(self, chunks: int) -> None:
        self._left = chunks

    async def read(self, _: int = -1, /) -> bytes:
        self._left -= 1
        return b"a\n" * 32_768 if self._left >= 0 else b""


async def test_others_run_between_the_lines_of_a_flood() -> None:
    lines = 0

    def now() -> float:
        # Asked once for each line.
        nonlocal lines
        lines += 1
        return 0.0

    log, most = ChildLog(logging.getLogger("flood"), now), 0
    copying = asyncio.create_task(log.copy(Flood(1)))
    while not copying.done():
        before = lines
        await asyncio.sleep(0)
        most = max(most, lines - before)
    assert lines > 32_768
    assert most < 1_000


def test_the_last_word_is_cleaned_before_it_is_cut_and_forgotten_with_the_next_process() -> None:
    secret = Secret("the-end-of-this-is-beyond-the-cut")
    log = ChildLog(logging.getLogger("last"), lambda: 0.0)
    log.write(logging.ERROR, "x" * 190 + secret.unwrap())
    assert log.last == "x" * 190 + "__OPENCLAW"
    log.begin()
    assert log.last == ""
