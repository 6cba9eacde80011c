"""`openclaw-kernel config history|diff|blame|rollback`: what was accepted, by whom and why, and putting it back."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openclaw_kernel.cli.errors import BadConfig, CommandFailed, NotNow
from openclaw_kernel.cli.exits import OK
from openclaw_kernel.cli.parsing import Commands
from openclaw_kernel.cli.terminal import emit, emit_json, harmless, note, one_line, table

if TYPE_CHECKING:
    from openclaw_config.load import Loaded
    from openclaw_kernel.generations.table import Kept

_FILE = "the file"


def add(group: Commands) -> None:
    """Add the commands."""
    history = group.add("history", "list the configs that were accepted, the newest first", run=show_history)
    history.add_argument("-n", "--limit", metavar="N", type=_number, help="how many (default: 50)", default=50)
    diff = group.add("diff", "show what differs between two generations, or the newest and the file; secrets replaced", run=show_diff)
    diff.add_argument("first", metavar="A", nargs="?", type=_number, help="a generation (default: the newest)", default=None)
    diff.add_argument("second", metavar="B", nargs="?", type=_number, help="another one (default: the file)", default=None)
    blame = group.add("blame", "tell which generation gave a key its value, who wanted that, and when", run=show_blame)
    blame.add_argument("path", metavar="PATH", nargs="?", help="dotted key, e.g. gateway.port (default: every key)", default=None)
    details = """\
It writes openclaw.yaml, and the files it includes, as they were; what they said before is kept below generations/rejected.
A gateway that runs does it itself, and answers when it is in force (where included files differ, too, it takes them as it takes every
edit); where none runs, the next start serves it."""
    rollback = group.add("rollback", "put an earlier generation back", run=roll_back, details=details)
    rollback.add_argument("generation", metavar="N", type=_wanted, help="its number, or last-good for the one that last worked")
    rollback.add_argument("--reason", metavar="TEXT", help="why, for the history", required=True)


def show_history(options: argparse.Namespace) -> int:
    """Show a table."""
    kept = _history(_home(options))[: options.limit]
    if options.json:
        emit_json({"generations": [_to_json(one) for one in kept]})
        return OK
    rows = [(one.generation.number, *_author(one), one_line(", ".join(one.generation.changed), 80)) for one in kept]
    emit(table(harmless(rows), head=("GENERATION", "TIME", "BY", "THROUGH", "REASON", "CHANGED")) if rows else "nothing was accepted yet")
    return OK


def show_diff(options: argparse.Namespace) -> int:
    """Show a unified diff of the redacted texts."""
    from openclaw_kernel.generations.changes import unified

    home = _home(options)
    first = options.first if options.first is not None else _newest(home).generation.number
    second = options.second
    before, after = _shown(home, first), _shown(home, second)
    names = (f"generation {first}", _FILE if second is None else f"generation {second}")
    lines = list(unified(before, after, names=names))
    if options.json:
        emit_json({"from": first, "to": second, "diff": lines})
    elif lines:
        emit("\n".join(lines))
    else:
        note("nothing differs; secrets are not compared")
    return OK


def show_blame(options: argparse.Namespace) -> int:
    """Show the generation of each key."""
    from openclaw_config.home import config_path
    from openclaw_config.issues import ConfigError
    from openclaw_config.source import parse, read_text
    from openclaw_kernel.generations.changes import changed_keys, leaves, touches

    home = _home(options)
    path = config_path(home)
    kept = _history(home)
    try:
        now = parse(path.name, read_text(path))
    except ConfigError as error:
        raise BadConfig(str(error), error.issues) from error
    accepted = parse(path.name, _bytes(home, str(kept[0].generation.number)).decode()) if kept else {}
    open_keys = changed_keys(accepted, now)
    keys = sorted(leaves(now)) if options.path is None else [options.path]
    rows = []
    for key in keys:
        found = next((one for one in kept if touches(one.generation.changed, key)), None)
        rows.append((key, None if touches(open_keys, key) else found, touches(open_keys, key)))
    if options.json:
        emit_json({"keys": [{"key": key, "accepted": not is_open, **({} if one is None else _to_json(one))} for key, one, is_open in rows]})
        return OK
    shown = [
        (key, "-", _unknown(is_open), "", "", "") if one is None else (key, one.generation.number, *_author(one))
        for key, one, is_open in rows
    ]
    emit(table(harmless(shown), head=("KEY", "GENERATION", "TIME", "BY", "THROUGH", "REASON")))
    return OK


def roll_back(options: argparse.Namespace) -> int:
    """Check, write, and write down where no gateway runs."""
    from openclaw_config.home import config_path
    from openclaw_config.load import ConfigError, load
    from openclaw_config.source import read_text
    from openclaw_kernel.generations import offline
    from openclaw_kernel.lock import AlreadyRunning, CannotLock, StateLock

    home = _home(options)
    try:
        wanted = offline.find_wanted(home, options.generation)
        texts = offline.texts_of(home, wanted)
    except offline.NoHistory as error:
        raise CommandFailed(str(error)) from error
    try:
        loaded = load(config_path(home), read=lambda path: texts[path].decode() if path in texts else read_text(path))
    except ConfigError as error:
        raise BadConfig(f"generation {wanted.number} cannot be used by this version:\n{error}", error.issues) from error
    lock, is_running = StateLock(home), False
    try:
        lock.acquire()
    except AlreadyRunning:
        is_running = True
    except CannotLock as error:
        raise NotNow(str(error)) from error
    if is_running and len(texts) == 1:
        return _ask_gateway(options, wanted.number)
    try:
        written = _put_back(home, texts, None if is_running else loaded, options.reason)
    finally:
        if not is_running:
            lock.release()
    if options.json:
        emit_json({"generation": wanted.number, "written": [str(path) for path in written], "running": is_running})
    else:
        follows = "the running gateway takes it as it takes an edit of the file" if is_running else "the next start serves it"
        emit(
            f"generation {wanted.number} is put back; {follows}"
            if written
            else f"the file says already what generation {wanted.number} says"
        )
    return OK


def _put_back(home: Path, texts: Mapping[Path, bytes], loaded: Loaded | None, reason: str) -> list[Path]:
    """Write the files, and where no gateway does, write it down."""
    import asyncio

    from openclaw_kernel.api.errors import GatewayError
    from openclaw_kernel.generations import offline

    try:
        written = offline.put_back(home, texts)
    except OSError as error:
        raise CommandFailed(f"{error.filename or home}: cannot be written ({(error.strerror or str(error)).lower()})") from error
    try:
        if loaded is not None:
            asyncio.run(offline.record_rollback(home, loaded, reason))
    except (GatewayError, OSError) as error:
        note(f"it is put back, and not in the history until the next start: {error}")
    return written


def _ask_gateway(options: argparse.Namespace, number: int) -> int:
    """Have the running gateway put it back, which answers when it is in force."""
    from openclaw_kernel.cli.client import Client
    from openclaw_kernel.cli.target import find_target

    with Client(find_target(options)) as client:
        answer = client.request("config.rollback", {"generation": number, "reason": options.reason})
    if options.json:
        emit_json({**answer, "running": True})
    elif answer["noop"]:
        emit(f"the file says already what generation {number} says")
    else:
        restart = "; the gateway restarts to bring the rest about" if answer["restart"] else ""
        emit(f"generation {number} is put back and in force, as generation {answer['generation']}{restart}")
    return OK


def _home(options: argparse.Namespace) -> Path:
    from openclaw_config.home import find_home

    return find_home(options.home)


def _history(home: Path) -> list[Kept]:
    from openclaw_kernel.generations.offline import NoHistory, read_history

    try:
        return read_history(home)
    except NoHistory as error:
        raise CommandFailed(str(error)) from error


def _newest(home: Path) -> Kept:
    kept = _history(home)
    if not kept:
        raise CommandFailed(f"{home}: nothing was accepted yet; start the gateway once")
    return kept[0]


def _bytes(home: Path, which: str) -> bytes:
    from openclaw_kernel.generations.offline import NoHistory, find_wanted, texts_of

    try:
        return next(iter(texts_of(home, find_wanted(home, which)).values()))
    except NoHistory as error:
        raise CommandFailed(str(error)) from error


def _shown(home: Path, number: int | None) -> str:
    from openclaw_config.home import config_path
    from openclaw_config.issues import ConfigError
    from openclaw_config.source import parse, read_text
    from openclaw_kernel.generations.shown import redacted_text

    path = config_path(home)
    try:
        text = read_text(path) if number is None else _bytes(home, str(number)).decode()
        shown = redacted_text(path.name, text)
        if shown is None:
            parse(path.name, text)
    except ConfigError as error:
        raise BadConfig(f"{error}\nit cannot be shown, for its secrets cannot be told from the rest", error.issues) from error
    if shown is None:
        which = _FILE if number is None else f"generation {number}"
        raise CommandFailed(f"{which}: its secrets cannot be told from the rest; read it yourself")
    return shown


def _author(one: Kept) -> tuple[str, str, str, str]:
    from openclaw_kernel.cli.commands.why import clock

    made = one.generation
    return clock(made.ts_ms)[:19], made.actor, made.surface, one_line(made.reason or "", 60)


def _unknown(is_open: bool) -> str:  # noqa: FBT001 - one of two words
    return "not accepted yet" if is_open else "before the history begins"


def _to_json(one: Kept) -> dict[str, Any]:
    made = one.generation
    names = {"number": made.number, "hash": made.hash, "timeMs": made.ts_ms, "actor": made.actor, "surface": made.surface}
    return {**names, "reason": made.reason, "changed": list(made.changed)}


def _number(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"found {text!r}; give a number from 1")
    return int(text)


def _wanted(text: str) -> str:
    if text != "last-good" and not re.fullmatch(r"[1-9][0-9]*", text):
        raise argparse.ArgumentTypeError(f"found {text!r}; give the number of a generation, or last-good")
    return text
