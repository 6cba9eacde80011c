"""`make bench`: every figure beside its reach, the yardstick measured in the same run, and a profile where a reach is missed."""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.bench import children, history, load, restart
from tests.bench.abuse import KINDS
from tests.bench.processes import Measured, config, gateway, running
from tests.emulators.model_control import API_KEY, EmulatorProcess

STARTS = 5
REPEATS = 3
PROFILE_ROWS = 15
PARALLEL = 8
CALLS = 2_000
SAVES = 40
LISTS: dict[str, dict[str, Any]] = {
    "first page of 100,000": {},
    "page 500": {"offset": 50_000},
    "of one agent": {"agentId": "main", "includeDerivedTitles": True, "includeLastMessage": True},
    "a search": {"search": "past-77123"},
}


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. `reach` is the most it may be, or with `at_least` the least."""

    name: str
    value: float
    unit: str
    reach: float | None = None
    at_least: bool = False
    note: str = ""

    @property
    def reached(self) -> bool:
        """Whether the figure is as good as it should be."""
        return self.reach is None or (self.value >= self.reach if self.at_least else self.value <= self.reach)

    def __str__(self) -> str:
        bound = "" if self.reach is None else f"{'over' if self.at_least else 'under'} {self.reach:,.4g} {self.unit}"
        verdict = "" if self.reach is None else ("ok" if self.reached else "MISSED")
        return f"{self.name:<56} {self.value:>12,.4g} {self.unit:<5} {bound:<24} {verdict:<7} {self.note}"


def ws_url(measured: Measured) -> str:
    """Where a gateway or the echo server listens."""
    if "port" in measured.ready:
        return f"ws://127.0.0.1:{measured.ready['port']}/"
    return str(measured.ready["url"]).replace("http://", "ws://") + "/"


async def median_of(times: int, measure: Callable[[], Awaitable[float]]) -> float:
    """The median of several measurements."""
    return statistics.median([await measure() for _ in range(times)])


async def start_rows(folder: Path) -> list[Row]:
    """Exec to ready and memory at ready; the first start of a state folder, with its migrations, is a row of its own."""
    seconds, memory = [], []
    async with gateway(folder / "home", config()) as first:
        rows = [Row("exec to ready, first start of a folder", first.seconds_to_ready, "s", note="makes the tables")]
    for _ in range(STARTS):
        async with gateway(folder / "home", config()) as measured:
            seconds.append(measured.seconds_to_ready)
            memory.append(measured.resident_mb)
    rows.insert(0, Row("exec to ready", statistics.median(seconds), "s", 0.8))
    return [*rows, Row("resident memory at ready", statistics.median(memory), "MB", 64)]


async def wire_rows(folder: Path) -> list[Row]:
    """Handshake and pipelined calls, against the echo server."""
    async with running("-m", "tests.bench.echo_server") as echo, gateway(folder / "home", config()) as measured:
        ours, bare = ws_url(measured), ws_url(echo)
        echo_shake = await median_of(REPEATS, lambda: load.handshake_seconds(bare, echo=True))
        shake = await median_of(REPEATS, lambda: load.handshake_seconds(ours, echo=False))
        device_shake = await median_of(REPEATS, lambda: load.device_handshake_seconds(ours))
        echo_rate = await median_of(REPEATS, lambda: load.pipelined_per_second(bare, echo=True))
        rate = await median_of(REPEATS, lambda: load.pipelined_per_second(ours, echo=False))
        return [
            Row("resident memory of the bare echo", echo.resident_mb, "MB"),
            Row("handshake p50 of the bare echo", echo_shake * 1000, "ms"),
            Row("handshake p50", shake * 1000, "ms", 2 * echo_shake * 1000),
            Row("handshake p50 of a paired device", device_shake * 1000, "ms", 2.5 * echo_shake * 1000, note="its signature verified"),
            Row("pipelined echo", echo_rate, "/s"),
            Row("pipelined system-presence", rate, "/s", echo_rate / 2, at_least=True),
        ]


async def turn_rows(folder: Path) -> list[Row]:
    """A whole turn with an instant model over loopback HTTP, and its end at 50 subscribers."""
    async with EmulatorProcess("openai") as emulator, gateway(folder / "home", instant_model(emulator)) as measured:
        url = ws_url(measured)
        await load.turn_seconds(url, 10)
        turn = await median_of(REPEATS, lambda: load.turn_seconds(url))
        fan = await median_of(REPEATS, lambda: load.fan_out_seconds(url))
        followed_turn = await median_of(REPEATS, lambda: load.turn_seconds(url, follow=True))
        recorded_turn = await median_of(REPEATS, lambda: load.turn_seconds(url))
        recorded_fan = await median_of(REPEATS, lambda: load.fan_out_seconds(url))
        followed_fan = await median_of(REPEATS, lambda: load.fan_out_seconds(url, follow=True))
    return [
        Row("chat.send to final, instant model", turn * 1000, "ms", 12),
        Row("last of 50 subscribers after the first", fan * 1000, "ms", 4),
        Row("the same turn while events are recorded", recorded_turn * 1000, "ms"),
        Row("the same turn followed by cursor", followed_turn * 1000, "ms", note="told once it is on disk"),
        Row("the same 50 while events are recorded", recorded_fan * 1000, "ms"),
        Row("the same 50 following by cursor", followed_fan * 1000, "ms"),
    ]


async def flow_rows(folder: Path) -> list[Row]:
    """How fast a message is on disk, and how many turns of several sessions there are in a second, with an instant model."""
    async with EmulatorProcess("openai") as emulator, gateway(folder / "home", instant_model(emulator)) as measured:
        url = ws_url(measured)
        await load.turn_seconds(url, 10)
        accepted = await load.accept_seconds(url)
        rows = [
            Row("durable accept p50", statistics.median(accepted) * 1000, "ms", note="chat.send to its response, fsync included"),
            Row("durable accept p99", percentile(accepted, 99) * 1000, "ms"),
        ]
        for sessions, rounds in ((1, 60), (8, 30), (64, 8)):
            taken = await load.parallel_turns_seconds(url, sessions, rounds)
            rows.append(Row(f"turns a second, sessions in parallel: {sessions}", sessions * len(taken) / sum(taken), "/s"))
            if sessions == PARALLEL:
                rows.append(Row(f"{PARALLEL} turns at once, all final", statistics.median(taken) * 1000, "ms", 100))
    return rows


async def past_rows(folder: Path) -> list[Row]:
    """What a long past costs: the start with 1 MB and with 1 GB of history, lists of 100,000 sessions."""
    small, large = folder / "small", folder / "large"
    await history.with_past(small, sessions=10, total_bytes=1 << 20)
    await history.with_past(large, sessions=100_000, total_bytes=1 << 30)
    seconds: dict[Path, list[float]] = {small: [], large: []}
    for _ in range(STARTS + 1):
        for home in (small, large):
            async with gateway(home, config()) as measured:
                seconds[home].append(measured.seconds_to_ready)
    little, much = (statistics.median(seconds[home][1:]) for home in (small, large))
    rows = [
        Row("exec to ready, 1 MB of history", little, "s"),
        Row("exec to ready, 1 GB and 100,000 sessions", much, "s", little * 1.1),
    ]
    async with gateway(large, config()) as measured:
        url = ws_url(measured)
        for name, params in LISTS.items():
            taken = await load.call_seconds(url, "sessions.list", params, 300)
            reach, note = (None, "looks at every row") if "search" in params else (20, "")
            rows.append(Row(f"sessions.list p99, {name}", percentile(taken, 99) * 1000, "ms", reach, note=note))
    return rows


async def abuse_rows(folder: Path) -> list[Row]:
    """What other clients notice of peers that mean harm: the p99 of a call, and what the gateway grows by."""
    rows = []
    async with gateway(folder / "home", config()) as measured:
        url = ws_url(measured)
        port = url.rpartition(":")[2].strip("/")
        quiet = [percentile(await load.call_seconds(url, "status", None, CALLS), 99) for _ in range(REPEATS)]
        alone = statistics.median(quiet) * 1000
        talking = alone
        rows.append(Row("p99 of a call, alone", alone, "ms"))
        for kind in KINDS:
            before = measured.resident_mb
            async with running("-m", "tests.bench.abuse", port, kind):
                taken = [percentile(await load.call_seconds(url, "status", None, CALLS), 99) for _ in range(REPEATS)]
                grown = measured.resident_mb - before
            p99 = statistics.median(taken) * 1000
            if kind == "talk":
                # No abuse, but what the others do while some do not read.
                talking = p99
                rows.append(Row("p99 of a call beside ten turns a second", talking, "ms"))
                continue
            rows.append(Row(f"p99 of a call beside {kind}", p99, "ms", 2 * (talking if kind == "stalled-readers" else alone)))
            rows.append(Row(f"memory more by {kind}", grown, "MB", 16))
    return rows


async def child_rows(folder: Path) -> list[Row]:
    """What other clients notice of a plugin in a process of its own that runs wild: the p99 of a call."""
    rows: list[Row] = []
    for name in ("calm", *children.WILD):
        home = folder / name
        children.install(home, name)
        async with gateway(home, config(plugins={"entries": {"wild": {"limits": {"answerSeconds": 600}}}})) as measured:
            url = ws_url(measured)
            taken = [percentile(await load.call_seconds(url, "health", None, CALLS), 99) for _ in range(REPEATS)]
        p99 = statistics.median(taken) * 1000
        reach = None if not rows else rows[0].value + children.MORE_MS
        rows.append(Row(f"p99 of a call beside a child: {name}", p99, "ms", reach))
    return rows


def percentile(ordered: list[float], part: int) -> float:
    """The value below which `part` per cent of a sorted list lie."""
    return ordered[min(len(ordered) - 1, len(ordered) * part // 100)]


def instant_model(emulator: EmulatorProcess) -> dict[str, Any]:
    """The config of a gateway whose model answers at once, over loopback HTTP."""
    provider = {"baseUrl": emulator.openai_url, "apiKey": API_KEY, "models": [{"id": "gpt-4o-mini"}]}
    return config(models={"providers": {"openai": provider}}, agents={"defaults": {"model": "openai/gpt-4o-mini"}})


async def restart_rows(folder: Path) -> list[Row]:
    """What a restart is to those who are connected, and to those who call meanwhile."""
    async with gateway(folder / "home", config()) as measured:
        url = ws_url(measured)
        port = int(url.rpartition(":")[2].strip("/"))
        restarts = asyncio.ensure_future(restart.away_seconds(url, STARTS))
        waited, lost = await restart.called(port, restarts.done)
        away = await restarts
    return [
        Row("a client's absence at a restart", statistics.median(away), "s", 1, note="from 1012 to hello-ok"),
        Row("longest wait of a caller meanwhile", max(waited), "s", note=f"of {len(waited)}"),
        Row("callers refused or cut off meanwhile", lost, "", 0),
    ]


async def reload_rows(folder: Path) -> list[Row]:
    """From the save of the config file to the word that it is in force."""
    async with gateway(folder / "home", config()) as measured:
        file = folder / "home" / "openclaw.yaml"
        seconds = sorted(await load.save_seconds(ws_url(measured), file, SAVES))
    p99 = seconds[min(len(seconds) - 1, round(len(seconds) * 0.99))]
    return [
        Row("save to applied p50", statistics.median(seconds) * 1000, "ms", 300, note="of it 100 ms without a further write"),
        Row("save to applied p99", p99 * 1000, "ms", 300),
    ]


async def cli_rows(folder: Path) -> list[Row]:
    """`openclaw-kernel status` as a whole process."""
    home = folder / "home"
    async with gateway(home, config()):
        taken = []
        for _ in range(2 * STARTS):
            begun = time.perf_counter()
            command = [sys.executable, "-m", "openclaw_kernel", "status", "--home", str(home)]
            await asyncio.to_thread(subprocess.run, command, check=True, stdout=subprocess.DEVNULL)
            taken.append(time.perf_counter() - begun)
    return [Row("openclaw-kernel status", statistics.median(taken), "s", 0.35)]


async def profile_gateway(folder: Path) -> str:
    """Where a gateway spends its time while it starts, shakes hands, answers and runs turns."""
    output = folder / "gateway.profile"
    async with gateway(folder / "profiled", config(), profile=("-m", "cProfile", "-o", str(output))) as measured:
        url = ws_url(measured)
        await load.handshake_seconds(url, echo=False, times=50)
        await load.pipelined_per_second(url, echo=False, requests=5_000)
        await load.turn_seconds(url, 30)
    report = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", f"import pstats; pstats.Stats({str(output)!r}).sort_stats('tottime').print_stats({PROFILE_ROWS})"],
        check=True,
        capture_output=True,
        text=True,
    )
    return report.stdout


PARTS = {
    "start": start_rows,
    "wire": wire_rows,
    "turn": turn_rows,
    "flow": flow_rows,
    "past": past_rows,
    "abuse": abuse_rows,
    "children": child_rows,
    "restart": restart_rows,
    "reload": reload_rows,
    "cli": cli_rows,
}


async def main() -> int:
    """Print the rows; 1 where a reach was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], help="what to measure; everything by default")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    options = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="openclaw-bench-") as name:
        for part in options.parts or PARTS:
            found = await PARTS[part](Path(name) / part)
            rows += found
            if not options.json:
                print(*found, sep="\n", flush=True)
        missed = [row for row in rows if not row.reached]
        if options.json:
            print(json.dumps({"python": platform.python_version(), "machine": platform.machine(), "rows": [asdict(row) for row in rows]}))
        elif missed:
            print(f"\nmissed: {', '.join(row.name for row in missed)}; where the time goes:\n\n{await profile_gateway(Path(name))}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
