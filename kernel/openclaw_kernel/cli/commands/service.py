"""`openclaw-kernel service`: the gateway as a service of systemd or launchd."""

from __future__ import annotations

import argparse
import os
import pwd
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openclaw_kernel.cli.errors import BadUsage, CommandFailed
from openclaw_kernel.cli.exits import CONFIG, FAILED, OK
from openclaw_kernel.cli.parsing import Commands
from openclaw_kernel.cli.terminal import GREEN, RED, YELLOW, emit, emit_json, paint_out, printable, table

if TYPE_CHECKING:
    from openclaw_kernel.service.managers import ServiceManager, ServiceState
    from openclaw_kernel.service.units import ServiceFacts

_COLOURS = {"active": GREEN, "failed": RED, "inactive": YELLOW, "activating": YELLOW}


def add(commands: Commands) -> None:
    """Add the commands."""
    group = commands.group("service", "have systemd or launchd run the gateway", run=status)
    details = """\
Writes a unit that starts openclaw-kernel run with this state folder, restarts it when it dies, but not when openclaw.yaml
is refused (exit code 78), and watches that it lives. --preview prints the unit and the commands and changes nothing.
What the configuration takes from the environment (${env:NAME}) goes into service.env in the state folder, NAME=value a line."""
    install_parser = group.add("install", "write the unit, and start it", run=install, details=details)
    _add_scope(install_parser)
    install_parser.add_argument("--user", metavar="NAME", help="whom the service runs as, with --system (default: the folder's owner)")
    install_parser.add_argument("--preview", action="store_true", help="print what would be written and run; change nothing")
    install_parser.add_argument("--no-start", action="store_true", help="do not start it now")
    status_parser = group.add("status", "say what the service manager knows of it", run=status)
    _add_scope(status_parser)
    logs_parser = group.add("logs", "show what the service wrote", run=logs)
    _add_scope(logs_parser)
    logs_parser.add_argument("-f", "--follow", action="store_true", help="go on showing what comes")
    logs_parser.add_argument("--lines", metavar="N", type=int, default=100, help="how many of the newest lines (default: 100)")
    _add_scope(group.add("uninstall", "stop it and remove the unit; the state folder stays", run=uninstall))


def _add_scope(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--system", action="store_true", help="a service of the whole machine, not of this user", default=False)


def install(options: argparse.Namespace) -> int:
    """Write the unit and start it, or show both."""
    from openclaw_kernel.service.managers import install as put

    manager, facts = manager_of(options), facts_of(options)
    start = not getattr(options, "no_start", False)
    if getattr(options, "preview", False):
        commands = [" ".join(command) for command in manager.after_install(start=start)]
        if options.json:
            emit_json({"manager": manager.name, "file": str(manager.file), "text": manager.text(facts), "commands": commands})
        else:
            emit("\n".join([f"# {manager.file}", manager.text(facts), *(f"$ {command}" for command in commands)]))
        return OK
    with _named_failures():
        kept = put(manager, facts, start=start)
        state = manager.state()
    if options.json:
        emit_json({"manager": manager.name, "file": str(manager.file), "kept": None if kept is None else str(kept), **_shown(state)})
        return OK
    emit(f"wrote {manager.file}" + (f"; the one before is {kept}" if kept else ""))
    emit(f"{manager.name}: {state.active}{f' ({state.detail})' if state.detail else ''}")
    if start and manager.name == "systemd --user":
        emit("it ends when you log out, unless `loginctl enable-linger` lets services of yours go on")
    return OK


def status(options: argparse.Namespace) -> int:
    """Ask the manager; 1 where the service is not at work."""
    manager = manager_of(options)
    state = manager.state()
    current = manager.is_current(facts_of(options))
    if options.json:
        emit_json({"manager": manager.name, "file": str(manager.file), "current": current, **_shown(state)})
    else:
        rows = [("service", f"{paint_out(state.active, _COLOURS.get(state.active, ''))}{f' ({state.detail})' if state.detail else ''}")]
        rows.append(("manager", manager.name))
        if not state.installed:
            rows.append(("unit", f"none at {manager.file}; openclaw-kernel service install writes it"))
        else:
            note = "" if current else " (differs from what this version would write; openclaw-kernel service install renews it)"
            rows.append(("unit", f"{manager.file}{note}"))
            rows += [(name, str(value)) for name, value in (("pid", state.pid), ("restarts", state.restarts)) if value is not None]
            rows.append(("at start", "yes" if state.at_boot else "no"))
        emit(table(rows))
    return OK if state.active == "active" else FAILED


def logs(options: argparse.Namespace) -> int:
    """Show the manager's log; the gateway's own is `openclaw-kernel logs`."""
    import subprocess

    from openclaw_config.home import find_home

    lines = getattr(options, "lines", 100)
    if lines < 1:
        raise BadUsage(f"--lines: found {lines}; give a number over 0")
    manager = manager_of(options)
    command = list(manager.log_command(find_home(options.home), follow=getattr(options, "follow", False), lines=lines))
    try:
        return subprocess.run(command, check=False).returncode
    except FileNotFoundError:
        raise CommandFailed(f"service logs: there is no {command[0]} on this machine; use openclaw-kernel logs") from None


def uninstall(options: argparse.Namespace) -> int:
    """Stop it and remove the unit."""
    from openclaw_kernel.service.managers import uninstall as take

    manager = manager_of(options)
    with _named_failures():
        was_there = take(manager)
    if options.json:
        emit_json({"manager": manager.name, "file": str(manager.file), "removed": was_there})
    else:
        emit(f"removed {manager.file}" if was_there else f"nothing to remove: there is no {manager.file}")
    return OK


@contextmanager
def _named_failures() -> Iterator[None]:
    from openclaw_kernel.service.managers import ServiceError

    try:
        yield
    except ServiceError as error:
        raise CommandFailed(f"service: {error}") from error


def manager_of(options: argparse.Namespace) -> ServiceManager:
    """The manager that the options name."""
    from openclaw_kernel.service.managers import find_manager

    with _named_failures():
        return find_manager(is_system=getattr(options, "system", False))


def facts_of(options: argparse.Namespace) -> ServiceFacts:
    """What the unit is made of."""
    from openclaw_config.home import find_home
    from openclaw_kernel.service.units import ServiceFacts

    home = find_home(options.home)
    is_system, user = getattr(options, "system", False), getattr(options, "user", None)
    if user is not None and not is_system:
        raise BadUsage("--user: only a service of the whole machine runs as another; add --system")
    if is_system and user is None:
        user = _owner_of(home)
    elif user is not None:
        _check_user(user)
    return ServiceFacts(
        program=[sys.executable, "-m", "openclaw_kernel", "--home", str(home), "run"],
        home=home,
        path=os.environ.get("PATH", os.defpath),
        refused_status=CONFIG,
        user=user,
        writable=_workspaces(home) if is_system else (),
    )


def _owner_of(home: Path) -> str:
    try:
        return home.owner()
    except (OSError, KeyError) as error:
        raise BadUsage(f"--user: nobody owns {home} yet; start openclaw-kernel run once as whom it is to be, or name them") from error


def _check_user(user: str) -> None:
    try:
        pwd.getpwnam(user)
    except KeyError:
        raise BadUsage(f"--user: there is no user {user!r} on this machine; make one, or name another") from None


def _workspaces(home: Path) -> list[Path]:
    """The folders of agents that lie outside the state folder, as far as openclaw.yaml can be read."""
    from openclaw_config.home import config_path
    from openclaw_config.source import ConfigError, parse, read_text

    try:
        source = parse(config_path(home).name, read_text(config_path(home)))
    except ConfigError:
        return []
    agents: Any = source.get("agents") or {}
    entries: Any = [agents.get("defaults"), *(agents.get("entries") or {}).values()] if isinstance(agents, dict) else []
    named = [entry["workspace"] for entry in entries if isinstance(entry, Mapping) and isinstance(entry.get("workspace"), str)]
    folders = []
    for folder in map(Path, named):
        with suppress(RuntimeError):
            # Else it is the home of a user whom this machine does not know.
            folders.append(folder.expanduser())
    return sorted({folder for folder in folders if folder.is_absolute() and not folder.is_relative_to(home)})


def _shown(state: ServiceState) -> dict[str, Any]:
    return {
        "installed": state.installed,
        "active": state.active,
        "detail": printable(state.detail),
        "pid": state.pid,
        "restarts": state.restarts,
        "atBoot": state.at_boot,
    }
