"""One import: read, map, keep what fits, write. Twice changes nothing more."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from openclaw_config.edit import CannotEdit
from openclaw_config.home import DEFAULT_FILE, config_path, prepare_home
from openclaw_config.patching import rewritten, tree_of
from openclaw_config.source import FILE_NAME, ConfigError, dotted, read_text
from openclaw_kernel.api.check import Fix
from openclaw_kernel.checks.changes import CannotFix, ContentStep, Plan
from openclaw_kernel.checks.fixes import FixBook
from openclaw_kernel.host.discovery import discover
from openclaw_kernel.host.guard import Guard
from openclaw_kernel.importing.fitting import at, faults_of, fitted, put
from openclaw_kernel.importing.keys import provider_keys
from openclaw_kernel.importing.mapping import Leaf, Mapper
from openclaw_kernel.importing.people import DEFAULT, paired_people
from openclaw_kernel.importing.report import Report
from openclaw_kernel.importing.secrets import NotTaken, Vault
from openclaw_kernel.importing.sessions import import_sessions
from openclaw_kernel.importing.source import CannotImport, Installation, read_installation
from openclaw_kernel.importing.workspaces import copy_all, plan_workspaces

CHECK_ID: Final = "import.openclaw"
_REFERENCE: Final = re.compile(r"\$\{file:[^{}]+\}")
_KNOWN: Final = frozenset({"agents", "credentials", "workspace", "openclaw.json", ".env", "state", "logs", "media", "tmp", "cache"})
_OTHERS: Final = {
    "cron": "there are no schedules here yet",
    "devices": "devices are paired anew: openclaw-kernel devices",
    "identity": "this gateway is another device",
    "hooks": "there are no webhooks for agents here yet",
    "skills": "there are no skills here",
    "extensions": "plugins of the reference do not run here",
    "plugins": "plugins of the reference do not run here",
    "memory": "there is no index of memories here; the files in workspaces were copied",
}


@dataclass(slots=True)
class Imported:
    """What became of it. `undo` takes the change of openclaw.yaml back; None where it was not changed."""

    report: Report
    dry_run: bool
    undo: str | None = None
    sessions: int = 0


async def import_openclaw(source: Path, home: Path, *, dry_run: bool) -> Imported:
    """Take an installation over; raise `CannotImport` where nothing can be, with nothing changed."""
    installation = read_installation(source)
    if _lies_within(home, installation.folder) or _lies_within(installation.folder, home):
        raise CannotImport(f"{installation.folder}: the state folder {home} and the source lie in each other; name another with --home")
    report = Report(str(installation.folder))
    vault = Vault(home, installation)
    path = config_path(home)
    before = _text_before(home, path, dry_run=dry_run)
    guard = Guard()
    try:
        leaves, after = await _config(installation, vault, report, before, guard)
    finally:
        await guard.close(1.0)
    copies = plan_workspaces(installation, home, report)
    _report_others(installation, report)
    report.written += [str(file) for file in vault.pending()]
    report.written += [str(path)] if after != before else []
    result = Imported(report, dry_run)
    try:
        if not dry_run:
            vault.keep()
            result.undo = _write(home, path, before, after) if after != before else None
            copy_all(copies)
        main_key = str(leaves.get(("session", "mainKey")) or "main")
        result.sessions = import_sessions(installation, home, report, main_key=main_key, dry_run=dry_run)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise CannotImport(f"{error.filename or home}: {reason}; mend that and run it again, it goes on from here") from error
    return result


async def _config(
    installation: Installation, vault: Vault, report: Report, before: str, guard: Guard
) -> tuple[dict[tuple[str, ...], Any], str]:
    """The leaves that are taken, and the text of openclaw.yaml with them."""
    leaves = {leaf.where: leaf for leaf in _leaves(installation, vault, report)}
    tree: dict[str, Any] = {}
    for leaf in leaves.values():
        put(tree, leaf.where, leaf.value)
    discovery = discover()
    for key, reason in await fitted(tree, guard, discovery):
        report.leave(_source_of(leaves, tuple(map(str, key))), reason)
    try:
        ours, default = tree_of(FILE_NAME, before), tree_of(FILE_NAME, DEFAULT_FILE)
    except ConfigError as error:
        raise CannotImport(f"{error}; mend it first: openclaw-kernel doctor --fix") from error
    wanted = _copy(ours)
    taken: dict[tuple[str, ...], Any] = {}
    for where, leaf in leaves.items():
        value = at(tree, where)
        if value is None:
            continue
        taken[where] = value
        there = at(ours, where)
        if there == value:
            report.there += 1
        elif there is None or there == at(default, where) or value == {}:
            put(wanted, where, value)
            report.take(".".join(leaf.source), dotted(where), leaf.why)
        else:
            report.leave(".".join(leaf.source), f"openclaw.yaml says something else at {dotted(where)}, which stays")
    vault.forget(set(_REFERENCE.findall(repr(wanted))))
    try:
        after = rewritten(FILE_NAME, before, wanted)
    except CannotEdit as error:
        raise CannotImport(f"{error}; nothing was changed") from error
    known = {(fault.key, fault.found) for fault in await faults_of(before, guard, discovery)}
    fresh = [fault for fault in await faults_of(after, guard, discovery) if (fault.key, fault.found) not in known]
    if fresh:
        faults = "; ".join(f"{dotted(fault.key)}: {fault.found}" for fault in fresh[:3])
        raise CannotImport(f"openclaw.yaml would not be valid with what is there already ({faults}); nothing was changed")
    return taken, after


def _leaves(installation: Installation, vault: Vault, report: Report) -> Iterator[Leaf]:
    mapper = Mapper(vault, report)
    found = {leaf.where: leaf for leaf in mapper.leaves(installation.config)}
    for place, provider, key in provider_keys(installation, report):
        slot = ("models", "providers", provider, "apiKey")
        if slot in found:
            continue
        try:
            found[slot] = Leaf(slot, vault.put(key, slot), (place,), "moved into a file of its own")
        except NotTaken as error:
            report.leave(place, str(error))
    for place, channel, account, ids in paired_people(installation, report):
        top = ("channels", channel)
        if not any(where[:2] == top for where in found):
            report.leave(place, f"there is no channels.{channel} in the configuration")
            continue
        own = () if account == DEFAULT else ("accounts", account)
        where = (*top, *own, "allowFrom")
        listed = list(found[where].value) if where in found and isinstance(found[where].value, list) else []
        fresh = [each for each in ids if each not in map(str, listed)]
        if fresh:
            found[where] = Leaf(where, [*listed, *fresh], (place,), "people who were paired are in allowFrom here")
    yield from found.values()


def _source_of(leaves: Mapping[tuple[str, ...], Leaf], key: tuple[str, ...]) -> str:
    """Where in the source a place of ours comes from."""
    for length in range(len(key), 0, -1):
        leaf = leaves.get(key[:length])
        if leaf is not None:
            return ".".join((*leaf.source, *key[length:]))
    return ".".join(key) or "the configuration"


def _text_before(home: Path, path: Path, *, dry_run: bool) -> str:
    try:
        if not dry_run:
            prepare_home(home)
        return read_text(path) if path.exists() else DEFAULT_FILE
    except (OSError, ConfigError) as error:
        raise CannotImport(f"{home}: the state folder cannot be used ({error}); mend that, or name another with --home") from error


def _write(home: Path, path: Path, before: str, after: str) -> str:
    real = path.resolve()
    mode = real.stat().st_mode & 0o7777
    step = ContentStep(real, before.encode(), mode, after.encode(), mode, ("what was imported",))
    try:
        return FixBook(home).make(Plan(Fix(summary="import a reference installation", changes=()), [step]), CHECK_ID)
    except CannotFix as error:
        raise CannotImport(str(error)) from error


def _report_others(installation: Installation, report: Report) -> None:
    try:
        names = sorted(path.name for path in installation.folder.iterdir())
    except OSError:
        return
    for name in names:
        path = installation.folder / name
        is_known = name in _KNOWN or name.startswith(("workspace-", "openclaw.json", ".")) or path.resolve() in installation.files
        if name in _OTHERS:
            report.leave(str(path), _OTHERS[name])
        elif not is_known:
            report.leave(str(path), "nothing here reads it")


def _lies_within(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def _copy(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _copy(item) for key, item in tree.items()}
    return [_copy(item) for item in tree] if isinstance(tree, list) else tree
