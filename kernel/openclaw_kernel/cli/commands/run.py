"""`openclaw-kernel run`: the gateway in the foreground."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from openclaw_kernel.cli.errors import BadConfig, NotNow, NotRestarted
from openclaw_kernel.cli.exits import CONFIG, OK
from openclaw_kernel.cli.parsing import Commands

if TYPE_CHECKING:
    import asyncio

    from openclaw_config.load import Loaded
    from openclaw_kernel.app import GatewayApp

_GIVE_UP_SECONDS = 15.0


def add(commands: Commands) -> None:
    """Add the command."""
    details = """\
The first start writes a commented openclaw.yaml and a random token into the state folder.
It prints one link that opens the chat page; Ctrl+C or SIGTERM stops it, openclaw-kernel restart begins it anew in the same process."""
    commands.add("run", "run the gateway in the foreground", run=run, details=details)


def run(options: argparse.Namespace) -> int:
    """Run until SIGINT or SIGTERM; return the exit code."""
    # Imported here: this is the one command that is the server.

    from openclaw_config.home import config_path, find_home, prepare_home
    from openclaw_config.load import ConfigError, load
    from openclaw_kernel.logs import set_up_logging, tear_down_logging
    from openclaw_kernel.tasks import run_whole

    home = find_home(options.home)
    try:
        first_start = prepare_home(home)
        loaded = load(config_path(home))
        handlers = set_up_logging(home, level=loaded.config.logging.level, as_json=options.json, secrets=loaded.secrets)
    except ConfigError as error:
        raise BadConfig(str(error)) from error
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise BadConfig(f"{error.filename or home}: the state folder cannot be used ({reason}); make it writable or use --home") from error
    try:
        code = run_whole(_serve(loaded, home, as_json=options.json, first_start=first_start))
    finally:
        tear_down_logging(handlers)
    return _run_again() if code is None else code


def _run_again() -> int:
    """Replace this process by a new one of the same program: its id, terminal and supervisor stay. Everything is closed before."""
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - the program that runs already
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise NotRestarted(f"{sys.executable}: cannot be run again ({reason}); start openclaw-kernel run yourself") from error


async def _serve(loaded: Loaded, home: Path, *, as_json: bool, first_start: bool) -> int | None:
    """Return the exit code, None where a restart was asked for."""
    import signal

    from openclaw_kernel.app import GatewayApp
    from openclaw_kernel.cannot_start import CannotStart
    from openclaw_kernel.lock import AlreadyRunning
    from openclaw_kernel.protocol.registry import RegistryError
    from openclaw_kernel.store.errors import StoreError

    app = GatewayApp(loaded=loaded, home=home)
    stopping = _stopped_by_signals(app)
    try:
        if not await _start_unless(stopping, app):
            return OK
    except AlreadyRunning as running:
        if as_json:
            print(json.dumps({"event": "already-running", "message": str(running), "owner": running.owner}), flush=True)
        else:
            print(running, file=sys.stderr)
        return OK
    except CannotStart as error:
        raise (BadConfig if error.status == CONFIG else NotNow)(str(error)) from error
    except RegistryError as error:
        raise BadConfig(str(error)) from error
    except StoreError as error:
        raise NotNow(str(error)) from error
    _announce(app, home, as_json=as_json, first_start=first_start)
    await _first_of(stopping, app.restarts.wanted)
    wanted = app.restarts.wanted.is_set()
    await app.drain()
    # Whoever presses Ctrl+C from here on does not want to wait any longer.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if not wanted:
        await app.stop()
        return OK
    await app.stop("gateway restart")
    # Who pressed Ctrl+C meanwhile wants it to end.
    return OK if stopping.is_set() else None


def _stopped_by_signals(app: GatewayApp) -> asyncio.Event:
    """Return what SIGINT and SIGTERM set; a second one shortens the stop."""
    import asyncio
    import signal

    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop() -> None:
        if stopping.is_set() or app.stops:
            app.hurry()
        stopping.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    return stopping


async def _first_of(*events: asyncio.Event) -> None:
    import asyncio

    from openclaw_kernel.tasks import TaskOwner

    owner = TaskOwner("run", lambda _name, _error: None)
    await asyncio.wait({owner.spawn("end", event.wait()) for event in events}, return_when=asyncio.FIRST_COMPLETED)
    await owner.close(1.0)


async def _start_unless(stopping: asyncio.Event, app: GatewayApp) -> bool:
    """Start, or give the start up when the signal to stop comes first; tell whether it started."""
    import asyncio

    from openclaw_kernel.tasks import TaskOwner

    owner = TaskOwner("run", lambda _name, _error: None)
    start = owner.spawn("start", app.start())
    await asyncio.wait({start, owner.spawn("signal", stopping.wait())}, return_when=asyncio.FIRST_COMPLETED)
    given_up = not start.done()
    hung = await owner.close(_GIVE_UP_SECONDS)
    if given_up:
        if hung:
            print("the start does not end when cancelled and is abandoned", file=sys.stderr)
        return False
    await start
    return True


def _announce(app: GatewayApp, home: Path, *, as_json: bool, first_start: bool) -> None:
    from openclaw_config.home import config_path

    url, problems, tls = app.facts.url, app.facts.reasons(), app.facts.tls
    if as_json:
        event = {"event": "ready", "url": url, "link": app.link(), "home": str(home), "pid": os.getpid(), "problems": problems}
        print(json.dumps(event if tls is None else {**event, "tlsFingerprint": tls.fingerprint}), flush=True)
        return
    lines = [f"openclaw-kernel {app.facts.version} is ready on {url}"]
    if tls is not None:
        lines.append(f"certificate SHA-256 {tls.fingerprint}")
    if first_start:
        lines.append(f"wrote {config_path(home)} with a new token beside it; edit it to add channels and models")
    lines += [f"problem: {problem}" for problem in problems]
    lines += [
        "",
        f"  open  {app.link()}",
        "",
        "the link works once, within 10 minutes; `openclaw-kernel open` prints another. stop with Ctrl+C",
    ]
    print("\n".join(lines), flush=True)
