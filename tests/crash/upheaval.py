"""A block in which operators change the config, restart, reload and break things while people talk and the gateway is killed."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from typing import Any

from openclaw_config.source import ConfigError, parse
from openclaw_kernel.generations.attempts import DEATHS, Attempts
from tests.crash import aftermath
from tests.crash.block import POLL_SECONDS, Block, Kill
from tests.crash.changes import Change, Changes, written
from tests.crash.evidence import Evidence
from tests.crash.load import Wave
from tests.support.gateway import free_port, merge
from tests.support.ws_client import ConnectionEnded, RequestFailed, WsClient, connect

ANSWER_SECONDS = 60.0
IN_FORCE_SECONDS = 60.0
RESTART_SECONDS = 60.0
AGED_SECONDS = 3600
# A restart that is asked for while the file is broken is refused, and says why. A child whose end takes long is let go of by name.
_EXPECTED = re.compile(r"not restarted, for|stop of unit Child did not end in")
STALE = "config changed since last load"
NOT_RESTARTED = "not restarted, for"


class Upheaval(Block):
    """`isolated`: Telegram runs in a process of its own, which is killed too."""

    dies_within = 15.0
    restarts_at_rest = 2

    def __init__(self, folder: Path, *, isolated: bool = False, **options: Any) -> None:
        super().__init__(folder, **options)
        self._isolated = isolated
        self._port = free_port()
        self._changes = Changes(self.random)
        self.draw: Callable[[], Sequence[Change]] = self._changes.wave
        """What operators do in the next cycle."""
        self._wave: Sequence[Change] = ()
        self._busy = False
        self._first_line = 0
        self._execs = folder / "execs"
        self.document: dict[str, Any] = {}
        """The config as it was last written, valid."""
        self._may_be: list[str | dict[str, Any]] = []
        """What the file may say: a text, or a document however it is written."""
        self.done: dict[str, int] = {}
        """How often operators came to the end of each kind."""

    def _config(self) -> dict[str, Any]:
        entries: dict[str, Any] = {"spare": {"config": {"number": 0}}}
        if self._isolated:
            entries["telegram"] = {"isolation": "process"}
        over = {"gateway": {"port": self._port, "reload": {"debounceMs": 50}}, "plugins": {"entries": entries}}
        self.document = merge(super()._config(), over)
        self._may_be = [self.document]
        return self.document

    # --- cycles -------------------------------------------------------------------------------------------------------

    async def cycle(self, kill: Kill) -> None:
        self._wave = self.draw()
        if self._is_broken:
            self._save(self._changes.mending())
        await super().cycle(kill)

    async def start(self, kill: Kill | None = None) -> bool:
        home = self.gateway.home
        deaths = Attempts(home).deaths
        self.gateway._arguments = ["--last-good", *(["--no-safe-mode"] if deaths >= DEATHS else [])]
        left = aftermath.temporary(home)
        hour_ago = time.time() - AGED_SECONDS
        for path in left:
            os.utime(path, (hour_ago, hour_ago))
        self._execs.unlink(missing_ok=True)
        self._first_line = len(self.gateway.lines)
        alive = await super().start(kill)
        if alive:
            await self._look_at_start(left)
        return alive

    def _wanted(self) -> dict[str, Any]:
        return {**super()._wanted(), "upheaval": True, "execs": str(self._execs)}

    async def _look_at_start(self, left: Sequence[Path]) -> None:
        safe = [line for line in self.gateway.ready["problems"] if line.startswith("safe mode")]
        self.outcome.violations += [f"P2: {line}" for line in safe]
        await self._until(lambda: not self.gateway.is_running or not any(path.exists() for path in left), IN_FORCE_SECONDS)
        if self.gateway.is_running:
            stay = [str(path.relative_to(self.gateway.home)) for path in left if path.exists()]
            self.outcome.violations += [f"what an earlier kill left half written is still there: {name}" for name in stay]

    async def _live(self, kill: Kill, wave: Wave, first: int) -> None:
        self._busy = True
        operators = asyncio.create_task(self._upheave())
        try:
            await super()._live(kill, wave, first)
        finally:
            operators.cancel()
            (ended,) = await asyncio.gather(operators, return_exceptions=True)
            self._busy = False
        if isinstance(ended, Exception):
            raise ended

    async def _is_quiet(self) -> bool:
        return not self._busy and await super()._is_quiet()

    async def kept(self) -> list[str]:
        home = self.gateway.home
        lines = list(aftermath.free(home))
        begun, strays = aftermath.executed(self._execs)
        lines += strays
        if self._boots() == begun + 1:
            lines += aftermath.not_counted(home)
        lines += self._look_at_file()
        for check in (aftermath.generations, aftermath.chained, aftermath.bounded):
            lines += check(home)
        lines += await aftermath.alone(home)
        return [*lines, *await super().kept()]

    async def settle(self) -> None:
        self._save(self._changes.mending())
        await self.start()
        async with self._client() as client:
            await self._in_force(client)
        for _ in range(self.restarts_at_rest):
            await self._restarted()
        await self._stop_gently()
        self.outcome.violations += [f"after restarts: {line}" for line in await self.kept()]
        await super().settle()

    async def _restarted(self) -> None:
        before = self._boots()
        async with self._client() as client:
            await client.request("gateway.restart.request", {}, deadline=ANSWER_SECONDS)
        if not await self._until(lambda: self._boots() > before, RESTART_SECONDS):
            self.outcome.violations.append(f"it did not restart within {RESTART_SECONDS} s:\n{self.gateway.tail()}")
            return
        async with self._client() as client:
            await self._in_force(client)

    def _boots(self) -> int:
        """How often this process was ready; the same one is again after each restart."""
        return sum(line.record.get("event") == "ready" for line in self.gateway.lines[self._first_line :])

    def _ends_well(self, status: int) -> bool:
        # Amid a restart the next process has no handler of signals yet, as at any start.
        begun, _ = aftermath.executed(self._execs)
        return super()._ends_well(status) or (status == -signal.SIGTERM and begun >= self._boots())

    # --- operators ----------------------------------------------------------------------------------------------------

    async def _upheave(self) -> None:
        """Do what is to be done in this cycle; the gateway may die at any moment of it."""
        await self._attempt(self._look_at_what_runs)
        for change in self._wave:
            await asyncio.sleep(change.pause)
            await self._attempt(lambda: self._do(change))  # noqa: B023 - it has ended before the next one
        if any(change.restarts for change in self._wave) and not self._is_broken:
            # Its points are still to come.
            await self._until(lambda: self._boots() > 1, self.dies_within)
        self._busy = False

    async def _until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait for what has no event to wait for; False where it did not come about."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not condition():  # noqa: ASYNC110 - see above
                    await asyncio.sleep(POLL_SECONDS)
        return condition()

    async def _attempt(self, what: Callable[[], Awaitable[None]]) -> None:
        try:
            await what()
        except (ConnectionEnded, TimeoutError, OSError):
            # It died, or restarts; the next one finds it back, or does not.
            return
        except RequestFailed as failed:
            if not (failed.error.get("retryable") or STALE in str(failed) or NOT_RESTARTED in str(failed)):
                self.outcome.violations.append(f"an operator was refused: {failed}")

    async def _do(self, change: Change) -> None:
        if change.kind in ("save", "break"):
            self._save(change)
        elif change.kind == "hang up":
            os.kill(self.gateway.process.pid, signal.SIGHUP)
        elif change.kind == "signal":
            os.kill(self.gateway.process.pid, signal.SIGUSR1)
        elif change.kind == "kill child":
            await self._kill_child()
        else:
            async with self._client() as client:
                await self._request(client, change)
        self.done[change.kind] = self.done.get(change.kind, 0) + 1

    async def _request(self, client: WsClient, change: Change) -> None:
        if change.kind == "restart":
            await client.request("gateway.restart.request", {}, deadline=ANSWER_SECONDS)
        elif change.kind == "reload":
            await client.request("plugins.reload", {"pluginId": "spare"}, deadline=ANSWER_SECONDS)
        elif self._is_broken:
            # A client that changes one key of a broken file is refused, and has no base for it.
            return
        elif change.kind == "toggle":
            await self._write(client, "config.patch", {"channels": {"telegram": {"enabled": False}}})
            await self._write(client, "config.patch", {"channels": {"telegram": {"enabled": True}}})
        else:
            await self._write(client, f"config.{change.kind}", change.patch or {})

    async def _write(self, client: WsClient, method: str, patch: Mapping[str, Any]) -> None:
        found = await client.request("config.get", {}, deadline=ANSWER_SECONDS)
        wanted = merge(self.document, patch)
        raw = written(wanted) if method == "config.set" else json.dumps(patch)
        before = self._may_be
        # From here to the answer nobody can say whether it is there.
        self._may_be = [*before, wanted]
        try:
            await client.request(method, {"raw": raw, "baseHash": found["hash"]}, deadline=ANSWER_SECONDS)
        except RequestFailed:
            self._may_be = before
            raise
        self._may_be, self.document = [wanted], wanted

    def _save(self, change: Change) -> None:
        """As a person with an editor."""
        document = merge(self.document, change.patch or {})
        text = change.text(document)
        file = self.gateway.config_path
        if change.in_place:
            file.write_text(text, encoding="utf-8")
        else:
            beside = file.with_name(".saved-by-hand")
            beside.write_text(text, encoding="utf-8")
            beside.chmod(0o600)
            beside.replace(file)
        self._may_be = [text]
        if not change.fault:
            self.document = document

    async def _kill_child(self) -> None:
        """End what runs of the isolated channel, as a crash of it would."""
        for line in aftermath.processes(self.gateway.home):
            pid, _, command = line.partition(" ")
            if "openclaw_kernel.children.runner" in command and int(pid) != self.gateway.process.pid:
                os.kill(int(pid), signal.SIGKILL)

    # --- judging ------------------------------------------------------------------------------------------------------

    @property
    def _is_broken(self) -> bool:
        return len(self._may_be) == 1 and isinstance(self._may_be[0], str) and self._may_be[0] != written(self.document)

    def _look_at_file(self) -> list[str]:
        """The config file is whole, and one of those that it may be; which one is known from then on."""
        text = self.gateway.config_path.read_text(encoding="utf-8")
        for wanted in self._may_be:
            if text == wanted:
                return []
            if not isinstance(wanted, str) and _document(text) == wanted:
                self._may_be, self.document = [wanted], wanted
                return []
        return [f"openclaw.yaml is none of {len(self._may_be)} that it may be:\n{text}\n--- may be\n{self._may_be}"]

    async def _look_at_what_runs(self) -> None:
        """What runs is what the file says; where that is wrong, what last worked, and it says so."""
        async with self._client() as client:
            if not self._is_broken:
                await self._in_force(client)
                return
            status = await client.request("status", {}, deadline=ANSWER_SECONDS)
        if not any("is not served" in line for line in status["reasons"]):
            self.outcome.violations.append(f"the file is broken, and status says only {status['reasons']}")

    async def _in_force(self, client: WsClient) -> None:
        found: dict[str, Any] = {}
        with suppress(TimeoutError):
            async with asyncio.timeout(IN_FORCE_SECONDS):
                while not found or found["hash"] != found["appliedConfigHash"]:
                    found = await client.request("config.get", {}, deadline=ANSWER_SECONDS)
        if found and found["hash"] != found["appliedConfigHash"]:
            self.outcome.violations.append(f"the file is not in force: {found['hash']} is read, {found['appliedConfigHash']} runs")

    def _client(self) -> AbstractAsyncContextManager[WsClient]:
        return connect(self.gateway.ws_url, token=self.gateway.token, validate=False)

    async def _evidence(self, *, with_why: bool = False) -> Evidence:
        evidence = await super()._evidence(with_why=with_why)
        evidence.errors = [line for line in evidence.errors if not _EXPECTED.search(line)]
        return evidence


def _document(text: str) -> Any:
    try:
        return parse("openclaw.yaml", text)
    except ConfigError:
        return None
