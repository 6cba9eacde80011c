"""The calls of a turn in memory: what one may be, and which of them are still to be written."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from openclaw_kernel.api import RetryClass, Step, StepBegun, Usage
from openclaw_plugins.conversation import writable

CallState: TypeAlias = Literal["running", "done", "failed", "interrupted"]


@dataclass(slots=True, kw_only=True)
class Call:
    """One row. `number` counts the calls of a turn, over all its attempts; times are Unix milliseconds."""

    number: int
    kind: Literal["model", "tool"]
    name: str
    started_ms: int
    ended_ms: int = 0
    state: CallState = "running"
    retry_class: str | None = None
    call_id: str | None = None
    attempt: int = 1
    digest: str | None = None
    usage: Usage = Usage()
    cost_usd: float | None = None
    error: str | None = None

    @property
    def has_effects(self) -> bool:
        """Tell whether making the call again could do something twice; what is not known to be harmless could."""
        return self.retry_class not in (RetryClass.PURE, RetryClass.IDEMPOTENT)

    def cut_off(self) -> Call:
        """Return the row as it is after the process that made the call has died."""
        return replace(self, state="interrupted") if self.state == "running" else self

    def end(self, step: Step) -> None:
        """Take down how the call ended."""
        self.ended_ms = max(step.ended_ms, 1)
        self.state = "done" if step.error is None else "failed"
        self.usage, self.cost_usd = step.usage, step.cost_usd
        self.error = None if step.error is None else writable.text(step.error)


class Journal:
    """The calls of one run in memory, and which of them are still to be written."""

    def __init__(self, *, attempt: int, earlier: Sequence[Call]) -> None:
        """`attempt` is how often the turn was begun, with this time; `earlier` the calls of the attempts before."""
        self._attempt = attempt
        self.calls: dict[int, Call] = {call.number: call.cut_off() for call in earlier}
        self._unwritten: dict[int, Call] = {}

    def open(self, step: StepBegun) -> Call:
        """Begin a row; it is written with `take`."""
        return self._add(
            Call(
                number=self._next(),
                kind=step.kind,
                name=writable.text(step.name),
                started_ms=step.started_ms,
                retry_class=step.retry_class.value,
                call_id=None if step.call_id is None else writable.text(step.call_id),
                attempt=self._attempt,
                digest=None if step.arguments is None else digest_of(step.arguments),
            )
        )

    def close(self, number: int, step: Step) -> None:
        """End a row."""
        call = self.calls[number]
        call.end(step)
        self._unwritten[number] = call

    def add(self, step: Step) -> None:
        """Take down a call that began and ended elsewhere."""
        call = Call(
            number=self._next(),
            kind=step.kind,
            name=writable.text(step.name),
            started_ms=step.started_ms,
            retry_class=step.retry_class,
            call_id=None if step.call_id is None else writable.text(step.call_id),
            attempt=self._attempt,
        )
        call.end(step)
        self._add(call)

    def take(self) -> list[Call]:
        """Return the rows to be written as they are now, which are taken as written; give them back where that fails."""
        taken, self._unwritten = [replace(call) for call in self._unwritten.values()], {}
        return taken

    def give_back(self, calls: Iterable[Call]) -> None:
        """Take rows as unwritten again."""
        self._unwritten = {call.number: self.calls[call.number] for call in calls} | self._unwritten

    def running(self) -> Sequence[Call]:
        """Return the calls that have begun in this process and not ended."""
        return [call for call in self.calls.values() if call.state == "running"]

    def spent(self) -> tuple[Usage, float | None]:
        """Return tokens and cost of the model calls so far; the cost is None where that of one is unknown."""
        ended = [call for call in self.calls.values() if call.kind == "model" and call.state in ("done", "failed")]
        known = [call.cost_usd for call in ended if call.cost_usd is not None]
        usage = Usage(
            input_tokens=sum(call.usage.input_tokens for call in ended),
            output_tokens=sum(call.usage.output_tokens for call in ended),
            cache_read_tokens=sum(call.usage.cache_read_tokens for call in ended),
            cache_write_tokens=sum(call.usage.cache_write_tokens for call in ended),
        )
        return usage, sum(known) if known and len(known) == len(ended) else None

    def _next(self) -> int:
        return max(self.calls, default=0) + 1

    def _add(self, call: Call) -> Call:
        self.calls[call.number] = call
        self._unwritten[call.number] = call
        return call


def digest_of(arguments: Mapping[str, Any]) -> str:
    """Return what calls with the same arguments have in common."""
    return hashlib.sha256(writable.encoded(arguments)).hexdigest()[:32]
