"""One block: a state folder, some people and clients, and a gateway that is killed again and again."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Self

from tests.crash import checks
from tests.crash.evidence import Evidence, read_ledger
from tests.crash.launcher import VARIABLE
from tests.crash.load import FRIENDS, Asked, Load, Said, Wave
from tests.emulators.model_control import API_KEY, EmulatorProcess
from tests.emulators.telegram_control import TelegramEmulator
from tests.support.gateway import GatewayFailed, RunningGateway, base_config, merge
from tests.support.ws_client import ConnectionEnded, RequestFailed, WsClient, connect

START_SECONDS = 90.0
STOP_SECONDS = 60.0
QUIET_SECONDS = 120.0
ANSWER_SECONDS = 8.0
ASKED_BY_HAND = 1
POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Kill:
    """How a cycle ends: at the `hit`-th time at a point, or so many seconds after the gateway is ready; with SIGTERM where `gently`."""

    at: str | None = None
    hit: int = 1
    after: float = 0.0
    gently: bool = False

    def __str__(self) -> str:
        if self.at is not None:
            return f"at {self.at!r}, hit {self.hit}"
        return f"{'SIGTERM' if self.gently else 'SIGKILL'} after {self.after:.2f} s"


@dataclass(slots=True)
class Outcome:
    """What a block came to."""

    violations: list[str] = field(default_factory=list)
    died_at: list[str] = field(default_factory=list)
    """The points at which it died."""
    kills: int = 0
    ends: dict[str, int] = field(default_factory=dict)
    """Messages and requests by terminal state."""
    deliveries: dict[str, int] = field(default_factory=dict)
    start_seconds: list[float] = field(default_factory=list)


class Block:
    """Runs the cycles of one block and judges what is left."""

    dies_within = 3.0
    """Seconds in which it comes to its point, or not at all."""

    def __init__(
        self,
        folder: Path,
        *,
        number: int,
        seed: int,
        site: str,
        telegram_port: int,
        model: EmulatorProcess,
        points: Path,
        sabotage: str | None = None,
        quiet_seconds: float = QUIET_SECONDS,
        streaming: str = "partial",
    ) -> None:
        self.folder = folder
        self.number = number
        self.random = Random(f"{seed} {number}")  # noqa: S311 - drawn so that it can be drawn again
        self.load = Load(number, self.random)
        self.effects = folder / "effects.jsonl"
        self._mark = folder / "died"
        self.outcome = Outcome()
        self.said: list[Said] = []
        self.asked: list[Asked] = []
        self.model = model
        self.telegram = TelegramEmulator(tokens=(f"{7000 + number}:CRASH",), attach=telegram_port)
        self._site = site
        self._points = points
        self._sabotage = sabotage
        self._quiet_seconds = quiet_seconds
        self._streaming = streaming
        self.gateway: RunningGateway
        self._env: dict[str, str] = {}

    async def __aenter__(self) -> Self:
        await self.telegram.__aenter__()
        for chat in FRIENDS:
            await self.telegram.open_chat(chat)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._env = {"PYTHONPATH": self._site, VARIABLE: "{}"}
        self.gateway = RunningGateway(self.folder / "home", self._config(), arguments=("--no-safe-mode",), env={})
        # The same mapping, so that each start can be told something else.
        self.gateway._env = self._env
        self.gateway.write_config(self.gateway.config)
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.gateway.sweep()
        await self.telegram.__aexit__(None, None, None)

    def _config(self) -> dict[str, Any]:
        telegram = {
            "botToken": self.telegram.token,
            "apiRoot": self.telegram.api_root,
            "allowFrom": [*FRIENDS],
            "pollTimeoutSeconds": 5,
            "streaming": self._streaming,
        }
        model = {"id": "gpt-4o-mini", "contextWindow": 100_000}
        over = {
            "models": {"providers": {"echo": None, "openai": {"apiKey": API_KEY, "baseUrl": self.model.openai_url, "models": [model]}}},
            "channels": {"telegram": telegram},
            "session": {"dmScope": "per-peer"},
            "agents": {"defaults": {"maxToolRounds": 8}},
            "plugins": {"entries": {"effects": {"config": {"file": str(self.effects)}}}},
        }
        return merge(base_config(), over)

    # --- cycles -------------------------------------------------------------------------------------------------------

    async def run(self, kills: Sequence[Kill]) -> Outcome:
        """All cycles, then a start without faults; stop at the first violation."""
        for kill in kills:
            await self.cycle(kill)
            if self.outcome.violations:
                return self.outcome
        await self.settle()
        return self.outcome

    async def cycle(self, kill: Kill) -> None:
        """Start, send a wave, die."""
        wave = self.load.wave()
        first = self.random.randint(0, len(wave.said) // 2)
        await self.say(wave.said[:first])
        if wave.trouble is not None:
            await self.telegram.fault("sendMessage", times=1, **wave.trouble)
        self.asked.extend(wave.asked)
        alive = await self.start(kill)
        if alive:
            await self._live(kill, wave, first)
        else:
            await self.say(wave.said[first:])
        self.outcome.kills += 1
        self.outcome.violations += [f"after {kill}: {line}" for line in await self.kept()]

    async def _live(self, kill: Kill, wave: Wave, first: int) -> None:
        operator = asyncio.create_task(self._speak(repeat=True))
        try:
            await self.say(wave.said[first:])
            confirmed = (await self.telegram.stats())["confirmed_below"]
            known = [said.update_id for said in self.said if said.update_id < confirmed]
            if wave.repeats and known:
                await self.telegram.repeat(self.random.choice(known))
            await self._die(kill)
        finally:
            operator.cancel()
            await asyncio.gather(operator, return_exceptions=True)

    async def start(self, kill: Kill | None = None) -> bool:
        """Start the gateway; False where it died at its point before it was ready."""
        wanted = self._wanted()
        if kill is not None and kill.at is not None:
            wanted |= {"at": kill.at, "hit": kill.hit, "mark": str(self._mark)}
        self._env[VARIABLE] = json.dumps(wanted)
        began = asyncio.get_running_loop().time()
        try:
            await self.gateway.start(deadline=START_SECONDS)
        except GatewayFailed:
            if kill is None or not await self._died_at(kill):
                raise
            return False
        self.outcome.start_seconds.append(asyncio.get_running_loop().time() - began)
        failed = [problem for problem in self.gateway.ready["problems"] if "is failed" in problem]
        if failed:
            raise GatewayFailed(f"it started without a part of it: {failed}")
        return True

    def _wanted(self) -> dict[str, Any]:
        """What the gateway's process is told of what is to happen to it."""
        return {"log": str(self._points), "sabotage": self._sabotage}

    async def _die(self, kill: Kill) -> None:
        """Wait for the death at the point, or for the moment; where nothing is left to die in, the point may be in the stop."""
        if kill.at is None:
            await asyncio.sleep(kill.after)
            if kill.gently:
                await self._stop_gently(kill)
            else:
                await self.gateway.kill()
            return
        died = asyncio.create_task(self.gateway.process.wait())
        idle = asyncio.create_task(self._quiet())
        await asyncio.wait({died, idle}, timeout=self.dies_within, return_when=asyncio.FIRST_COMPLETED)
        idle.cancel()
        await asyncio.gather(idle, return_exceptions=True)
        if not died.done():
            await self._stop_gently(kill)
        elif not await self._died_at(kill):
            self.outcome.violations.append(f"the gateway ended with {died.result()} by itself:\n{self.gateway.tail()}")
        await died

    async def _died_at(self, kill: Kill) -> bool:
        # The mark, for one that hangs is killed with the same signal by who waits for it.
        if kill.at is None or await self.gateway.process.wait() != -signal.SIGKILL or not self._mark.exists():
            return False
        self._mark.unlink()
        self.outcome.died_at.append(kill.at)
        return True

    async def _stop_gently(self, kill: Kill | None = None) -> None:
        os.kill(self.gateway.process.pid, signal.SIGTERM)
        try:
            status = await self.gateway.wait_ended(deadline=STOP_SECONDS)
        except GatewayFailed as failed:
            self.outcome.violations.append(str(failed))
            return
        if not self._ends_well(status) and not (kill is not None and await self._died_at(kill)):
            self.outcome.violations.append(f"after SIGTERM the gateway ended with {status}:\n{self.gateway.tail()}")

    def _ends_well(self, status: int) -> bool:
        """Whether this is how a gateway may end that was told to."""
        return status == 0

    # --- load ---------------------------------------------------------------------------------------------------------

    async def say(self, said: Sequence[Said]) -> None:
        for each in said:
            if each.kind == "stop":
                # So that there is something to stop, mostly.
                await asyncio.sleep(self.random.uniform(0.05, 0.3))
            sent = await self.telegram.user_message(each.text, chat_id=each.chat)
            each.update_id, each.message_id = sent["update_id"], sent["message_id"]
            self.said.append(each)

    async def _speak(self, *, repeat: bool) -> None:
        """Be the WebSocket client of one run of the gateway: ask what has no answer, and again some of what has one."""
        open_requests = [asked for asked in self.asked if not asked.answered]
        again = [asked for asked in self.asked if asked.answered]
        if repeat and again:
            open_requests += self.random.sample(again, k=min(2, len(again)))
        if not open_requests:
            return
        with suppress(ConnectionEnded, ConnectionError, TimeoutError, OSError):
            async with connect(self.gateway.ws_url, token=self.gateway.token, validate=False) as client:
                await asyncio.gather(*(self._ask(client, asked) for asked in open_requests))

    async def _ask(self, client: WsClient, asked: Asked) -> None:
        try:
            payload = await client.request(asked.method, asked.params, deadline=ANSWER_SECONDS)
        except RequestFailed as failed:
            if not failed.error.get("retryable"):
                asked.refusals.append(str(failed))
        else:
            asked.answers.append(payload)

    # --- judging ------------------------------------------------------------------------------------------------------

    async def kept(self) -> list[str]:
        """With the gateway dead, look whether everything is on disk that somebody was told we have."""
        return checks.accepted(await self._evidence())

    async def settle(self) -> None:
        """Let everything come to its end without faults, judge it, and look that another start changes nothing."""
        await self.start()
        async with asyncio.timeout(self._quiet_seconds):
            while any(not asked.answered for asked in self.asked):
                await self._speak(repeat=False)
        if not await self._comes_to_rest():
            self.outcome.violations.append(f"it does not come to rest:\n{self._open()}\n{self.gateway.tail()}")
        evidence = await self._evidence(with_why=True)
        self.outcome.violations += checks.everything(evidence)
        self.outcome.ends = evidence.ends()
        self.outcome.deliveries = evidence.deliveries()
        await self._stop_gently()
        await self.start()
        await self._comes_to_rest()
        await self._stop_gently()
        self.outcome.violations += checks.unchanged(evidence, await self._evidence())

    async def _comes_to_rest(self) -> bool:
        try:
            async with asyncio.timeout(self._quiet_seconds):
                await self._quiet()
        except TimeoutError:
            return False
        return True

    async def _quiet(self) -> None:
        """Wait until everything that was sent is at its end."""
        while not await self._is_quiet():  # noqa: ASYNC110 - a database has no event to wait for
            await asyncio.sleep(POLL_SECONDS)

    async def _is_quiet(self) -> bool:
        if self._open() or any(not asked.answered for asked in self.asked):
            return False
        stats = await self.telegram.stats()
        return stats["pending_updates"] == 0 and not self._open()

    def _open(self) -> list[Mapping[str, Any]]:
        """What has not come to its end, of messages and deliveries."""
        try:
            with closing(sqlite3.connect(f"file:{self.gateway.home}/state.sqlite3?mode=ro", uri=True)) as connection:
                connection.row_factory = sqlite3.Row
                inbound = connection.execute(
                    "SELECT id, channel, message_id, state, run_id FROM conversation_inbound"
                    " WHERE state NOT IN ('answered', 'suppressed', 'dead_lettered', 'superseded')"
                ).fetchall()
                outbox = connection.execute(
                    "SELECT id, outbox_id, peer_id, state, attempts, error FROM conversation_outbox WHERE state IN ('prepared', 'sending')"
                ).fetchall()
        except sqlite3.OperationalError as error:
            # Killed before the tables were made.
            return [{"state": str(error)}]
        return [dict(row) for row in (*inbound, *outbox)]

    async def _evidence(self, *, with_why: bool = False) -> Evidence:
        sent = await self.telegram.sent()
        evidence = Evidence(
            bot=7000 + self.number,
            said=self.said,
            asked=self.asked,
            confirmed_below=(await self.telegram.stats())["confirmed_below"],
            visible={int(chat): messages for chat, messages in sent["visible"].items()},
            asks=[
                {**request["body"], "at": request["at"], "outcome": request["outcome"]}
                for request in await self.model.requests()
                if str((request["body"] or {}).get("token", "")).startswith(f"t{self.number:04}")
            ],
            effects=[json.loads(line) for line in self.effects.read_text(encoding="utf-8").splitlines()] if self.effects.exists() else [],
            errors=[line.text for line in self.gateway.lines if line.is_error],
        )
        read_ledger(self.folder / "home" / "state.sqlite3", evidence)
        if with_why:
            await self._ask_why(evidence)
        return evidence

    async def _ask_why(self, evidence: Evidence) -> None:
        async with connect(self.gateway.ws_url, token=self.gateway.token, validate=False) as client:
            for identity in evidence.identities():
                try:
                    evidence.why[identity] = await client.request("messages.why", {"id": identity})
                except RequestFailed as failed:
                    evidence.why[identity] = {"failed": str(failed)}
        for identity in self.random.sample(sorted(evidence.why), k=min(ASKED_BY_HAND, len(evidence.why))):
            told = await self._ask_by_hand(identity)
            if json.loads(told or "null") != evidence.why[identity]:
                evidence.why[identity] = {"failed": f"the command line answers {told!r}"}

    async def _ask_by_hand(self, identity: str) -> str:
        command = [sys.executable, "-m", "openclaw_kernel", "why", identity, "--home", str(self.gateway.home), "--json"]
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
        output, _ = await process.communicate()
        return output.decode()
