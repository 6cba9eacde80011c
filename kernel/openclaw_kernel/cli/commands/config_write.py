"""`openclaw-kernel config set|unset|patch|apply`: through the gateway that runs, or, where none does, into the file under its lock."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from openclaw_kernel.cli.errors import BadConfig, BadUsage, CommandFailed, NotNow
from openclaw_kernel.cli.exits import OK
from openclaw_kernel.cli.parsing import Commands
from openclaw_kernel.cli.terminal import emit, emit_json, note

if TYPE_CHECKING:
    from openclaw_config.placing import Placed

WRITE_SECONDS: Final = 120.0
_ACTS: Final = {"none": "read when needed", "hot": "taken live", "unit": "started anew", "process": "the gateway restarts"}


def add(group: Commands) -> None:
    """Add the commands that write."""
    details = """\
VALUE is JSON where it is JSON, else a text: 8080, true, '["a"]', '{"mode": "token"}', hello.
Only what changes is written: comments, order and quoting stay."""
    setting = group.add("set", "give one key a value", run=set_one, asks_gateway=True, details=details)
    setting.add_argument("path", metavar="PATH", help="dotted key, e.g. gateway.port; items of a list by their index")
    setting.add_argument("value", metavar="VALUE", help="its value")
    setting.add_argument("--text", action="store_true", help="VALUE is a text, whatever it looks like", default=False)
    unsetting = group.add("unset", "take one key out", run=unset_one, asks_gateway=True)
    unsetting.add_argument("path", metavar="PATH", help="dotted key, e.g. gateway.port")
    details = "null deletes, objects are merged, lists of things with an id are merged by it, other lists replaced."
    patching = group.add("patch", "merge a patch of JSON5 into the file", run=patch_file, asks_gateway=True, details=details)
    patching.add_argument("file", metavar="FILE", help="the patch; - reads it from stdin")
    patching.add_argument("--replace", metavar="PATH", action="append", help="a list that may lose entries; can be repeated", default=[])
    applying = group.add("apply", "put another file in the place of openclaw.yaml", run=apply_file, asks_gateway=True)
    applying.add_argument("file", metavar="FILE", help="the whole config, YAML or JSON5; - reads it from stdin")
    applying.add_argument("--allow-shrink", action="store_true", help="it may be less than half of what is there", default=False)
    for parser in (setting, unsetting, patching, applying):
        parser.add_argument("--dry-run", action="store_true", help="say what would happen to each unit, and do nothing", default=False)


def set_one(options: argparse.Namespace) -> int:
    """Give a key a value."""
    value = options.value if options.text else _value(options.value)
    if value is None:
        raise BadUsage(f"config set: null is no value; to take the key out: openclaw-kernel config unset {options.path}")
    return _patch(options, lambda source: _placed(source, options.path, value))


def unset_one(options: argparse.Namespace) -> int:
    """Take a key out."""
    from openclaw_config.placing import UNSET

    return _patch(options, lambda source: _placed(source, options.path, UNSET))


def patch_file(options: argparse.Namespace) -> int:
    """Merge a patch."""
    from openclaw_config.placing import Placed
    from openclaw_kernel.api.edits import read_object

    try:
        patch = dict(read_object(_read(options.file)))
    except ValueError as error:
        raise BadUsage(f"config patch: {options.file}: {str(error).removeprefix('raw: ')}") from error
    return _patch(options, lambda _source: Placed(patch, options.replace))


def apply_file(options: argparse.Namespace) -> int:
    """Replace the file."""
    raw = _read(options.file)
    if not _through_gateway(options):
        from openclaw_kernel.api.edits import file_edit

        return _offline(options, lambda: file_edit(raw), shrink=options.allow_shrink)
    return _online(options, {"raw": raw}, "config.apply", {"allowShrink": True} if options.allow_shrink else {}, lambda _source: {})


def _patch(options: argparse.Namespace, placed: Callable[[Mapping[str, Any]], Placed]) -> int:
    if not _through_gateway(options):
        from openclaw_config.patching import patched, tree_of
        from openclaw_config.restoring import restored
        from openclaw_config.source import FILE_NAME

        def edit(text: str) -> str:
            source = tree_of(FILE_NAME, text)
            wish = placed(source)
            return patched(FILE_NAME, text, restored(wish.patch, source, ()), wish.replace_paths)

        return _offline(options, lambda: edit, shrink=True)

    def params(source: Mapping[str, Any]) -> dict[str, Any]:
        wish = placed(source)
        return {"raw": json.dumps(wish.patch), **({"replacePaths": wish.replace_paths} if wish.replace_paths else {})}

    return _online(options, {}, "config.patch", {}, params)


def _online(
    options: argparse.Namespace,
    wish: Mapping[str, Any],
    method: str,
    more: Mapping[str, Any],
    params_of: Callable[[Mapping[str, Any]], Mapping[str, Any]],
) -> int:
    from openclaw_kernel.cli.client import Client
    from openclaw_kernel.cli.target import find_target

    with Client(find_target(options)) as client:
        found = client.request("config.get", {})
        params = {**wish, **params_of(found["config"])}
        if options.dry_run:
            if method == "config.patch":
                params["patch"] = params.pop("raw")
            plan = client.request("config.plan", params, seconds=WRITE_SECONDS)
            _show(options, plan, plan["units"], "nothing would change" if not plan["changed"] else f"would change {_keys(plan['changed'])}")
            return OK
        base = {"baseHash": found["hash"]} if found["exists"] else {}
        answer = client.request(method, {**params, **base, **more}, seconds=WRITE_SECONDS)
    if answer.get("noop"):
        _show(options, answer, (), "nothing changes: the file says that already")
    else:
        told = f"generation {answer.get('generation')}: {_keys(answer.get('changedPaths', ()))}"
        _show(options, answer, answer.get("units", ()), told)
    return OK


def _offline(options: argparse.Namespace, edit_of: Callable[[], Callable[[str], str]], *, shrink: bool) -> int:
    from openclaw_config.home import config_path, find_home
    from openclaw_config.issues import ConfigError
    from openclaw_config.merging import CannotMerge
    from openclaw_config.patching import CannotEdit
    from openclaw_config.restoring import CannotRestore
    from openclaw_kernel.lock import AlreadyRunning, CannotLock, StateLock

    home = find_home(options.home)
    lock = StateLock(home)
    try:
        lock.acquire()
    except AlreadyRunning as error:
        raise NotNow(f"config: {error}; it starts or stops now: try again") from error
    except CannotLock as error:
        raise CommandFailed(f"config: {error}") from error
    try:
        keys = _write(config_path(home), edit_of(), shrink=shrink, dry_run=options.dry_run)
    except ConfigError as error:
        raise BadConfig(str(error)) from error
    except (CannotEdit, CannotMerge, CannotRestore, ValueError) as error:
        raise CommandFailed(f"config: {error}") from error
    finally:
        lock.release()
    what = ("would change" if options.dry_run else "changed") if keys else "nothing changes"
    told = f"{what} {_keys(keys)}; no gateway runs, the next start takes it" if keys else f"{what}: the file says that already"
    _show(options, {"changedPaths": list(keys), "written": bool(keys) and not options.dry_run}, (), told)
    return OK


def _write(path: Path, edit: Callable[[str], str], *, shrink: bool, dry_run: bool) -> Sequence[str]:
    from openclaw_config.issues import dotted
    from openclaw_config.load import load_text
    from openclaw_config.merging import differences
    from openclaw_config.patching import tree_of
    from openclaw_config.restoring import restored_text
    from openclaw_kernel.api.errors import GatewayError
    from openclaw_kernel.cli.validation import plugin_issues
    from openclaw_kernel.configuration.file import ConfigFile, FileChanged

    file = ConfigFile(path)
    before = file.text()
    text = restored_text(path.name, edit(before or ""), before or "", ())
    keys = sorted(dotted(where) for where, _, _ in differences(tree_of(path.name, before or ""), tree_of(path.name, text)))
    issues = plugin_issues(load_text(text, path))
    if issues:
        raise BadConfig("\n".join(map(str, issues)), issues)
    if text == before or dry_run:
        return keys
    if not shrink and len(text.encode()) * 2 < len((before or "").encode()):
        raise CommandFailed(f"config apply: {path.name} would lose more than half of itself; give --allow-shrink if that is meant")
    try:
        file.replace(text, expected=before)
    except FileChanged:
        raise NotNow(f"config: {path} was changed by somebody else meanwhile; try again") from None
    except GatewayError as error:
        raise CommandFailed(f"config: {error.message}") from error
    return keys


def _through_gateway(options: argparse.Namespace) -> bool:
    if options.url is not None:
        return True
    from openclaw_config.home import find_home
    from openclaw_kernel.cli.target import running_at

    return running_at(find_home(options.home)) is not None


def _show(options: argparse.Namespace, answer: Any, units: Sequence[Mapping[str, Any]], told: str) -> None:
    if options.json:
        emit_json(answer)
        return
    emit(told)
    for unit in units:
        act = "waits for a restart" if unit.get("waits") else _ACTS.get(str(unit["outcome"]), str(unit["outcome"]))
        who = f", {unit['connections']} connected" if unit.get("connections") else ""
        why = f" ({unit['reason']})" if unit.get("reason") else ""
        emit(f"  {unit['unit']}: {act}{why}{who}")
        if unit.get("error"):
            note(f"  {unit['unit']}: {unit['error']}")


def _keys(keys: Sequence[str]) -> str:
    shown = ", ".join(keys[:8])
    return f"{shown} and {len(keys) - 8} more" if len(keys) > 8 else shown or "only what no key says"  # noqa: PLR2004 - as many as one reads


def _placed(source: Mapping[str, Any], path: str, value: Any) -> Placed:
    from openclaw_config.placing import CannotPlace, placed

    try:
        return placed(source, path, value)
    except CannotPlace as error:
        raise CommandFailed(f"config: {error}") from error


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _read(name: str) -> str:
    try:
        return sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise CommandFailed(f"config: {name} cannot be read ({error}); give a file of UTF-8 text, or -") from error
