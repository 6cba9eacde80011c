"""Which config a start serves, and with which plugins: decided from files alone, before anything runs.

The newest file serves where it can. Where it cannot, a start at a terminal is refused with the whole diagnosis; under a supervisor the
config that last worked serves, and everybody who looks is told. Starts that die before they are ready lead to safe mode.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from openclaw_config.home import config_path
from openclaw_config.issues import Issue
from openclaw_config.load import ConfigError, Loaded, load
from openclaw_config.secrets import Secret
from openclaw_config.source import read_text
from openclaw_kernel.api.config import Generation
from openclaw_kernel.api.errors import GatewayError
from openclaw_kernel.cannot_start import CannotStart
from openclaw_kernel.exposure import refusal_of
from openclaw_kernel.generations.attempts import Attempts
from openclaw_kernel.generations.files import GenerationFiles, LastGood, NotKept
from openclaw_kernel.protocol.registry import RegistryError

logger: Final = logging.getLogger("openclaw.gateway")

PUT_BACK: Final = "openclaw-kernel config rollback last-good --reason TEXT"
LEAVE_SAFE_MODE: Final = "openclaw-kernel run --no-safe-mode"

SHOWN: Final = 5
"""So many faults of a file are told in one line."""


class NotServed(Exception):
    """No config can be served; the message has a line for each thing that is wrong, and the cure, `issues` the faults of the file."""

    def __init__(self, message: str, issues: Sequence[Issue]) -> None:
        super().__init__(message)
        self.issues = issues


@dataclass(frozen=True, slots=True, kw_only=True)
class Boot:
    """What was chosen."""

    loaded: Loaded
    home: Path
    attempts: Attempts
    refusal: str | None = None
    """Why the newest file does not serve, a line for each fault; None where it serves."""
    rejected: bytes | None = None
    """The newest file where it does not serve and can be read."""
    good: LastGood | None = None
    """The config that serves instead of the newest file."""
    safe: bool = False
    may_fall_back: bool = False

    @classmethod
    def plain(cls, loaded: Loaded, home: Path) -> Boot:
        """The config that somebody loaded, whatever became of the starts before."""
        return cls(loaded=loaded, home=home, attempts=Attempts(home))

    @property
    def serves(self) -> str:
        """`newest` or `last-good`."""
        return "newest" if self.good is None else "last-good"

    def problems(self, current: Generation | None) -> list[str]:
        """What people have to know of it, a line each. `current` is the generation in force by now."""
        lines = []
        if self.safe:
            lines.append(
                f"safe mode: {self.attempts.deaths} starts in a row died before they were ready; no third-party plugin runs;"
                f" see openclaw-kernel logs, then leave it with openclaw-kernel restart, or {LEAVE_SAFE_MODE}"
            )
        if self.good is not None and not self.replaced(current):
            why = "starts died with it" if self.refusal is None else one_line(self.refusal)
            lines.append(
                f"{self.loaded.path.name} is not served, generation {self.good.number}, which last worked, is: {why};"
                f" mend the file, or put that generation back with {PUT_BACK}"
            )
        return lines

    def replaced(self, current: Generation | None) -> bool:
        """Whether another config was taken since the start."""
        return current is not None and current.hash != self.loaded.hash

    @property
    def is_ordinary(self) -> bool:
        """Whether the newest file serves, with all plugins."""
        return self.good is None and not self.safe

    def words(self) -> str:
        """One line for the log: what was chosen, and why."""
        source = f"{self.loaded.path.name} as it is" if self.good is None else f"generation {self.good.number}, which last worked"
        why = "" if self.refusal is None else f", for the newest file cannot be served: {one_line(self.refusal)}"
        mode = f"; in safe mode, for {self.attempts.deaths} starts in a row died before they were ready" if self.safe else ""
        return f"serving {source}{why}{mode}"

    def begin(self) -> None:
        """Count the start from here on; raise `CannotStart` where it would only die. The state folder is locked."""
        if self.safe and self.attempts.is_hopeless():
            raise CannotStart(
                f"{self.home}: not started, for {self.attempts.deaths} starts in a row died before they were ready,"
                f" {self.attempts.deaths_in_safe_mode} of them in safe mode; see openclaw-kernel logs,"
                f" then try again with {LEAVE_SAFE_MODE}",
                78,
            )
        self.attempts.begin(safe=self.safe)
        logger.log(logging.INFO if self.is_ordinary else logging.WARNING, "%s", self.words())

    def ended(self, error: BaseException) -> None:
        """The start ended with this, before it was ready: one that refuses in words, or is told to end, has not died."""
        if isinstance(error, (CannotStart, GatewayError, RegistryError, asyncio.CancelledError)):
            self.attempts.withdraw()

    def digest(self) -> str:
        """What tells this choice from another one that people were told of."""
        return hashlib.sha256(repr((self.refusal, self.loaded.hash, self.safe)).encode()).hexdigest()

    def fallen_back(self, refusal: str) -> Boot | None:
        """The last good config instead, where the newest one serves, turns out not to start, and may be replaced; else None."""
        good = GenerationFiles(self.home).last_good()
        if not self.may_fall_back or self.good is not None or good is None:
            return None
        try:
            loaded = load_good(self.home, good)
        except (ConfigError, NotKept):
            return None
        if loaded.hash == self.loaded.hash:
            return None
        for secret in loaded.secrets:
            # The log was set up for those of the newest file.
            Secret(secret)
        return replace(self, loaded=loaded, good=good, refusal=refusal, rejected=self.loaded.text.encode())


def decide(home: Path, attempts: Attempts, *, may_fall_back: bool) -> Boot:
    """Choose; raise `NotServed` where there is nothing to choose from.

    `may_fall_back` is whether the last good config may serve where the newest file cannot.
    """
    good, safe = GenerationFiles(home).last_good(), attempts.wants_safe_mode
    try:
        loaded = _checked(load(config_path(home)))
    except ConfigError as error:
        return _instead(error, home, attempts, good, may_fall_back=may_fall_back)
    newest = Boot(loaded=loaded, home=home, attempts=attempts, safe=safe, may_fall_back=may_fall_back)
    return _with_last_good(newest, good) if safe else newest


def _instead(refusal: ConfigError, home: Path, attempts: Attempts, good: LastGood | None, *, may_fall_back: bool) -> Boot:
    if not may_fall_back:
        raise NotServed(_with_cure(str(refusal), home, good), refusal.issues)
    if good is None:
        raise NotServed(f"{refusal}\nno config has worked here before that could serve instead; mend the file", refusal.issues)
    try:
        loaded = load_good(home, good)
    except (ConfigError, NotKept) as unusable:
        text = f"{refusal}\ngeneration {good.number}, which last worked, cannot serve instead:\n{unusable}"
        raise NotServed(text, refusal.issues) from unusable
    return Boot(
        loaded=loaded,
        home=home,
        attempts=attempts,
        refusal=str(refusal),
        rejected=_bytes_of(config_path(home)),
        good=good,
        safe=attempts.wants_safe_mode,
        may_fall_back=True,
    )


def load_good(home: Path, good: LastGood) -> Loaded:
    """Load the config that last worked from its kept bytes; raise `ConfigError`, `NotKept`."""
    files = GenerationFiles(home)
    try:
        texts = {files.path_of(name): files.read(digest).decode("utf-8") for name, digest in good.files.items()}
    except UnicodeDecodeError as error:
        raise NotKept(f"{files.folder}: generation {good.number} is no UTF-8 text") from error
    return _checked(load(config_path(home), read=lambda path: texts[path] if path in texts else read_text(path)))


def is_supervised(environment: Mapping[str, str], *, at_terminal: bool) -> bool:
    """Whether systemd or launchd runs this process, and starts it anew when it ends.

    A shell within a desktop's session inherits their variables; a terminal tells it apart.
    """
    if at_terminal:
        return False
    if environment.get("INVOCATION_ID") or environment.get("NOTIFY_SOCKET"):
        return True
    label = environment.get("XPC_SERVICE_NAME", "0")
    return label not in {"", "0"} and not label.startswith("application.")


def at_terminal() -> bool:
    """Whether somebody looks on."""
    return any(os.isatty(descriptor) for descriptor in (0, 2) if _is_open(descriptor))


def one_line(text: str) -> str:
    """Faults of a config in one line; of many, the first few."""
    lines = text.splitlines()
    more = f" (and {len(lines) - SHOWN} more)" if len(lines) > SHOWN else ""
    return f"{' | '.join(lines[:SHOWN])}{more}"


def _with_last_good(newest: Boot, good: LastGood | None) -> Boot:
    """In safe mode what last worked serves, if that is another config: the newest one may be what kills."""
    if good is None:
        return newest
    try:
        loaded = load_good(newest.home, good)
    except (ConfigError, NotKept):
        return newest
    return newest if loaded.hash == newest.loaded.hash else replace(newest, loaded=loaded, good=good)


def _checked(loaded: Loaded) -> Loaded:
    refusal = refusal_of(loaded.config.gateway)
    if refusal is not None:
        raise ConfigError([loaded.issue(refusal.key, refusal.found, refusal.cure)])
    return loaded


def _with_cure(refusal: str, home: Path, good: LastGood | None) -> str:
    if good is None or not GenerationFiles(home).holds(good.files):
        return refusal
    return (
        f"{refusal}\nnothing was started or changed; mend the file, or put back generation {good.number}, which last worked:"
        f" {PUT_BACK}; to serve that one meanwhile: openclaw-kernel run --last-good"
    )


def _bytes_of(path: Path) -> bytes | None:
    try:
        return read_text(path).encode()
    except ConfigError:
        return None


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True
