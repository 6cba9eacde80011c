"""What operators do in one cycle while people talk, drawn from a seed: they change the config in every way, restart, reload, break."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Any, Literal

from tests.support.gateway import merge

Kind = Literal["patch", "set", "save", "break", "hang up", "toggle", "restart", "signal", "reload", "kill child"]
KINDS: tuple[Kind, ...] = ("patch", "set", "save", "break", "hang up", "toggle", "restart", "signal", "reload", "kill child")
WEIGHTS = (5, 3, 5, 3, 2, 2, 3, 2, 2, 3)
FAULTS = ("cut off", "unknown key", "wrong type", "empty")


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that an operator does. `patch` is what becomes of the config, None for what leaves it alone."""

    kind: Kind
    pause: float
    """Seconds before it."""
    patch: Mapping[str, Any] | None = None
    in_place: bool = False
    """Whether a save writes over the file instead of replacing it."""
    fault: str = ""

    @property
    def restarts(self) -> bool:
        """Whether it takes a restart."""
        return self.kind in ("restart", "signal") or (self.patch is not None and "plugins" in self.patch)

    def text(self, document: Mapping[str, Any]) -> str:
        """What a save leaves in the file; JSON is YAML."""
        text = written(document)
        if self.fault == "cut off":
            return text[: len(text) // 2]
        if self.fault == "unknown key":
            return written(merge(document, {"gatway": {"port": 1}}))
        if self.fault == "wrong type":
            return written(merge(document, {"session": {"queueLimit": "many"}}))
        return "" if self.fault == "empty" else text


def written(document: Mapping[str, Any]) -> str:
    """A config as a file."""
    return json.dumps(document, indent=2) + "\n"


class Changes:
    """Draws what operators do; each value is written once, so that a file says whose it is."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._number = 0

    def wave(self) -> list[Change]:
        """The next cycle's, in order."""
        random = self._random
        kinds = random.choices(KINDS, WEIGHTS, k=random.randint(1, 4))
        found: list[Change] = []
        for kind in kinds:
            # More would be a channel that is given up, which is no fault.
            if kind == "kill child" and any(change.kind == kind for change in found):
                continue
            found.append(self._change(kind))
        if any(change.fault for change in found) and random.random() < 0.5:
            found.append(self._change("save"))
        return found

    def mending(self) -> Change:
        """A save of a config that is right."""
        return Change("save", 0.0, {"channels": {"telegram": {"enabled": True}}})

    def _change(self, kind: Kind) -> Change:
        random = self._random
        pause = random.choice((0.0, 0.0, 0.05, 0.2, 0.6))
        if kind in ("patch", "set", "save"):
            return Change(kind, pause, self._patch(), in_place=kind == "save" and random.random() < 0.4)
        if kind == "break":
            return Change(kind, pause, {}, in_place=random.random() < 0.5, fault=random.choice(FAULTS))
        return Change(kind, pause)

    def _patch(self) -> Mapping[str, Any]:
        """A change that is read when it is needed, one that replaces the channel, or one that takes a restart."""
        self._number += 1
        number = self._number
        hot = {"session": {"queueLimit": 1000 + number}}
        unit = {"channels": {"telegram": {"pollTimeoutSeconds": 3 + number % 5}}}
        process = {"plugins": {"entries": {"spare": {"config": {"number": number}}}}}
        (over,) = self._random.choices((hot, merge(hot, unit), merge(hot, process)), (5, 3, 2))
        return over
