"""`openclaw-kernel run`: the gateway in the foreground."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from openclaw_kernel.cli.errors import BadConfig, CommandFailed, NotNow, NotRestarted
from openclaw_kernel.cli.exits import CONFIG, OK
from openclaw_kernel.cli.parsing import Commands
from openclaw_kernel.cli.starting import DETAILS, add_options, choose, start_chosen

if TYPE_CHECKING:
    import asyncio

    from openclaw_config.load import Loaded
    from openclaw_kernel.app import GatewayApp
    from openclaw_kernel.boot import Boot
    from openclaw_kernel.handover.belongings import Belongings
    from openclaw_kernel.lock import AlreadyRunning
    from openclaw_kernel.notify import Notifier

_STANDARD_ERROR = 2
_GIVE_UP_SECONDS = 15.0
_ADDRESS_SECONDS = 5.0
_ADDRESS_PAUSE_SECONDS = 0.05


def add(commands: Commands) -> None:
    """Add the command."""
    details = """\
The first start writes a commented openclaw.yaml and a random token into the state folder.
It prints one link that opens the chat page; Ctrl+C or SIGTERM stops it.
openclaw-kernel restart, or SIGUSR1, begins it anew in the same process with the port open all the while, once a check as
that of --check has shown that it can start again."""
    parser = commands.add("run", "run the gateway in the foreground", run=run, details=details + DETAILS)
    add_options(parser)
    checking = "load configuration and plugins, say what is wrong, start nothing"
    parser.add_argument("--check", action="store_true", help=checking, default=False)


def run(options: argparse.Namespace) -> int:
    """Run until SIGINT or SIGTERM; return the exit code."""
    # Imported here: this is the one command that is the server.

    from openclaw_config.home import config_path, find_home
    from openclaw_config.load import ConfigError, load
    from openclaw_kernel.boot import at_terminal, is_supervised
    from openclaw_kernel.handover.belongings import receive
    from openclaw_kernel.handover.sockets import BadSocket
    from openclaw_kernel.lean import import_aiohttp
    from openclaw_kernel.lock import unusable
    from openclaw_kernel.logs import set_up_logging, tear_down_logging
    from openclaw_kernel.notify import Notifier
    from openclaw_kernel.tasks import run_whole

    _occupy_standard_descriptors()
    import_aiohttp()
    home = find_home(options.home)
    try:
        if options.check:
            return run_whole(_check(load(config_path(home)), home, as_json=options.json))
        # Before the variables of the service manager are taken out of the environment.
        supervised = is_supervised(os.environ, at_terminal=at_terminal())
        standing = _Standing(receive(os.environ), Notifier(os.environ))
        again = standing.belongings.paused_at is not None
        boot, standing.first_start = choose(options, home, by_itself=supervised or again)
        loaded = boot.loaded
        handlers = set_up_logging(home, level=loaded.config.logging.level, as_json=options.json, secrets=loaded.secrets)
    except ConfigError as error:
        raise BadConfig(str(error), error.issues) from error
    except BadSocket as error:
        raise BadConfig(str(error)) from error
    except OSError as error:
        raise BadConfig(unusable(home, error)) from error
    while True:
        try:
            code = _serve_once(boot, standing, as_json=options.json)
        finally:
            tear_down_logging(handlers)
        if code is not None:
            return code
        try:
            _run_again(standing)
        except NotRestarted as error:
            # The program that was to follow is gone, this one is still in memory: it goes on with what it was to leave.
            standing.not_restarted = error
            handlers = set_up_logging(home, level=loaded.config.logging.level, as_json=options.json, secrets=loaded.secrets)


def _occupy_standard_descriptors() -> None:
    """Open what is closed of 0, 1 and 2, so that no socket and no database is ever written to as the standard output."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _STANDARD_ERROR:
        os.set_inheritable(descriptor, True)  # noqa: FBT003 - the standard library's signature
    os.close(descriptor)


@dataclass(slots=True)
class _Standing:
    """What outlasts a start: it was given to the process, or is what the start before left."""

    belongings: Belongings
    notifier: Notifier
    first_start: bool = False
    not_restarted: NotRestarted | None = None
    """Why the program could not be run again, where that is so."""


def _serve_once(boot: Boot, standing: _Standing, *, as_json: bool) -> int | None:
    """Serve until the end and return the exit code, or until a restart and return None."""
    from openclaw_kernel.tasks import run_whole

    failed = standing.not_restarted
    if failed is not None:
        import logging

        logging.getLogger("openclaw.gateway").error("%s; this process goes on", failed)
    try:
        return run_whole(_serve(boot, standing, as_json=as_json))
    except CommandFailed as error:
        if failed is None:
            raise
        raise NotRestarted(f"{failed}; and this process cannot go on: {error}") from error


async def _check(loaded: Loaded, home: Path, *, as_json: bool) -> int:
    from openclaw_kernel.app import GatewayApp

    with _told():
        problems = await GatewayApp(loaded=loaded, home=home).rehearse()
    if as_json:
        print(json.dumps({"event": "checked", "problems": problems}), flush=True)
    else:
        print("\n".join([*(f"problem: {problem}" for problem in problems), "a gateway can be started with this configuration"]), flush=True)
    return OK


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Turn what keeps a gateway from starting into the end of the command."""
    from openclaw_kernel.cannot_start import CannotStart
    from openclaw_kernel.protocol.registry import RegistryError
    from openclaw_kernel.store.errors import StoreError

    try:
        yield
    except CannotStart as error:
        raise (BadConfig if error.status == CONFIG else NotNow)(str(error)) from error
    except RegistryError as error:
        raise BadConfig(str(error)) from error
    except StoreError as error:
        # What does not mend itself is nothing to try again and again.
        raise (NotNow if error.retryable else BadConfig)(str(error)) from error


def _run_again(standing: _Standing) -> NoReturn:
    """Replace this process by a new one of the same program, which keeps its id, terminal, supervisor, port and lock.

    Raises:
        NotRestarted: the program cannot be run; everything that was to be passed on is as it was.
    """
    import signal

    for stream in (sys.stdout, sys.stderr):
        # None where it was closed at the start.
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.flush()
    # It would end the next process before that has a say in it.
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    if sys.stdin is None or not sys.stdin.isatty():
        # What it asks for the next process does anyway: it reads all anew. At a terminal it says that this is closed, and ends it.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    environment = {**os.environ, **standing.notifier.to_environment(), **standing.belongings.to_environment()}
    try:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)  # noqa: S606 - the program that runs already
    except OSError as error:
        standing.belongings.keep_from_children()
        reason = (error.strerror or str(error)).lower()
        raise NotRestarted(f"{sys.executable}: cannot be run again ({reason}); install it anew") from error


async def _serve(boot: Boot, standing: _Standing, *, as_json: bool) -> int | None:
    """Return the exit code, None where a restart was asked for."""
    from openclaw_kernel.lock import AlreadyRunning
    from openclaw_kernel.tasks import TaskOwner

    signs = TaskOwner("service manager", lambda _name, _error: None)
    signs.spawn("watchdog", standing.notifier.show_life())
    try:
        with _told():
            started = await start_chosen(boot, standing.belongings, _start_one)
        if started is None:
            return OK
        app, stopping = started
        _announce(app, as_json=as_json, first_start=standing.first_start)
        standing.notifier.ready(f"serving on {app.facts.url}")
        return await _until_the_end(app, stopping, standing)
    except AlreadyRunning as first:
        running = await _when_it_has_an_address(first, boot.home)
        # Whoever ends before it was ready has failed, and would be started again and again.
        standing.notifier.ready(str(running))
        if as_json:
            print(json.dumps({"event": "already-running", "message": str(running), "owner": running.owner}), flush=True)
        else:
            print(running, file=sys.stderr)
        return OK
    finally:
        await signs.close(1.0)


async def _when_it_has_an_address(first: AlreadyRunning, home: Path) -> AlreadyRunning:
    """Give a gateway that was started in the same instant the time to say where it is reached."""
    import asyncio

    from openclaw_kernel.lock import FILE_NAME, AlreadyRunning, is_running, read_owner

    for _ in range(int(_ADDRESS_SECONDS / _ADDRESS_PAUSE_SECONDS)):
        owner = read_owner(home)
        if is_running(owner):
            return AlreadyRunning(home / FILE_NAME, owner)
        await asyncio.sleep(_ADDRESS_PAUSE_SECONDS)
    return first


async def _start_one(boot: Boot, belongings: Belongings) -> tuple[GatewayApp, asyncio.Event] | None:
    """Start; None where the signal to stop came first."""
    from openclaw_kernel.app import GatewayApp
    from openclaw_kernel.handover.candidate import Candidate

    app = GatewayApp(loaded=boot.loaded, home=boot.home, belongings=belongings, boot=boot)
    app.candidate = Candidate.of_this_process(boot.home).try_out
    stopping = _stopped_by_signals(app)
    return (app, stopping) if await _start_unless(stopping, app) else None


async def _until_the_end(app: GatewayApp, stopping: asyncio.Event, standing: _Standing) -> int | None:
    import signal

    await _first_of(stopping, app.restarts.wanted)
    wanted = app.restarts.wanted.is_set()
    if wanted:
        standing.notifier.restarting(f"restarts: {app.restarts.reason}")
    else:
        standing.notifier.stopping("stops when what is under way has ended")
    await app.drain()
    # Whoever presses Ctrl+C from here on does not want to wait any longer.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if not wanted:
        await app.stop()
        return OK
    standing.belongings, standing.first_start = await app.hand_over(), False
    if stopping.is_set():
        # Who pressed Ctrl+C meanwhile wants it to end.
        standing.notifier.stopping("stops instead of restarting")
        standing.belongings.close()
        return OK
    return None


def _stopped_by_signals(app: GatewayApp) -> asyncio.Event:
    """Return what SIGINT and SIGTERM set; a second one shortens the stop.

    SIGUSR1 asks for a restart, SIGHUP takes the configuration anew.
    """
    import asyncio
    import signal

    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop() -> None:
        if stopping.is_set() or app.stops:
            app.hurry()
        stopping.set()

    def restart() -> None:
        # Before the start is over there is nothing yet to restart.
        if app.started:
            app.restarts.begin("SIGUSR1", 0)

    had_terminal = sys.stdin is not None and sys.stdin.isatty()

    def hang_up() -> None:
        # The terminal that it ran at is closed; else somebody wants the configuration read anew.
        if had_terminal and not sys.stdin.isatty():
            stop()
        elif app.live is not None:
            app.live.reload_soon()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    loop.add_signal_handler(signal.SIGHUP, hang_up)
    loop.add_signal_handler(signal.SIGUSR1, restart)
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


def _announce(app: GatewayApp, *, as_json: bool, first_start: bool) -> None:
    from openclaw_config.home import config_path

    url, problems, tls = app.facts.url, app.facts.reasons(), app.facts.tls
    if as_json:
        event = {"event": "ready", "url": url, "link": app.link(), "home": str(app.home), "pid": os.getpid(), "problems": problems}
        _say(json.dumps(event if tls is None else {**event, "tlsFingerprint": tls.fingerprint}))
        return
    lines = [f"openclaw-kernel {app.facts.version} is ready on {url}"]
    if tls is not None:
        lines.append(f"certificate SHA-256 {tls.fingerprint}")
    if first_start:
        lines.append(f"wrote {config_path(app.home)} with a new token beside it; edit it to add channels and models")
    lines += [f"problem: {problem}" for problem in problems]
    lines += [
        "",
        f"  open  {app.link()}",
        "",
        "the link works once, within 10 minutes; `openclaw-kernel open` prints another. stop with Ctrl+C",
    ]
    _say("\n".join(lines))


def _say(text: str) -> None:
    """Print it; where nobody reads any more, as after `| head` or with the terminal gone, the gateway serves all the same."""
    import logging

    try:
        print(text, flush=True)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        logging.getLogger("openclaw.gateway").warning(
            "nobody reads what the command prints (%s); from now on only the log is written", reason
        )
        # Else what waits in the buffer fails again with each flush, the last of which is at the end of the process.
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)
        os.close(nothing)
