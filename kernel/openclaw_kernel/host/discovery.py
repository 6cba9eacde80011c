"""Find the installed plugins through entry points, without importing any of their code.

Imports neither pluggy nor stevedore: listing plugins has to be quick.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Final, Literal

from openclaw_kernel.host.installed import Installed, installed
from openclaw_kernel.host.manifest import ID_PATTERN, Manifest, ManifestError, Need, read_manifest
from openclaw_kernel.host.programs import checked_command, checked_folder

PluginKind = Literal["channel", "provider", "plugin"]

GROUPS: Final[dict[str, PluginKind]] = {
    "openclaw.channels": "channel",
    "openclaw.providers": "provider",
    "openclaw.plugins": "plugin",
}
BUNDLED_DISTRIBUTION: Final = "openclaw-kernel"
CHILDREN_FOLDER: Final = "children"
"""Where in a state folder its owner puts programs, one folder each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One plugin that is installed. `manifest` is None exactly where `state` is `failed`."""

    id: str
    kind: PluginKind
    distribution: str
    version: str
    bundled: bool
    entry_point: EntryPoint
    manifest: Manifest | None
    state: Literal["discovered", "unavailable", "failed"]
    reason: str | None = None
    program: tuple[str, ...] | None = None
    """The command line of a plugin that is a program of its own; None where it is a class of Python."""

    @property
    def package(self) -> str:
        """The package whose code is this plugin's; empty for a program."""
        if self.program is not None:
            return ""
        module = self.entry_point.value.partition(":")[0].strip()
        return module.rpartition(".")[0] or module

    @property
    def section(self) -> str:
        """Path of its config section."""
        if self.manifest is not None and self.manifest.config is not None:
            return self.manifest.config
        if self.kind == "channel":
            return f"channels.{self.id}"
        return "models.providers" if self.kind == "provider" else f"plugins.entries.{self.id}.config"


@dataclass(frozen=True, slots=True, kw_only=True)
class Discovery:
    """What is installed: one `Found` an id, bundled ones first, and what was refused, a line each."""

    plugins: tuple[Found, ...]
    problems: tuple[str, ...] = ()

    def ids(self, kind: PluginKind | None = None) -> list[str]:
        """Return the ids, of one kind where it is given."""
        return [found.id for found in self.plugins if kind in {None, found.kind}]


def discover(home: Path | None = None) -> Discovery:
    """Read the entry points and manifests of everything on `sys.path`, and of the programs in a state folder."""
    inventory = installed(GROUPS)
    found: list[Found] = []
    problems = list(inventory.problems)
    for each in inventory.entries:
        if re.fullmatch(ID_PATTERN, each.entry_point.name):
            found.append(_read(each))
        else:
            problems.append(
                f"{each.distribution}: the plugin id {each.entry_point.name!r} is not usable; use lower-case letters, digits and single '-'"
            )
    if home is not None:
        found += programs_in(home)
    return _without_duplicates(found, problems)


def bundled_only(discovery: Discovery) -> Discovery:
    """Return what safe mode loads: of all others it is said that they do not run."""
    reason = "it does not run in safe mode; see openclaw-kernel status"
    kept = [
        found if found.bundled or found.state != "discovered" else replace(found, state="unavailable", reason=reason)
        for found in discovery.plugins
    ]
    return replace(discovery, plugins=tuple(kept))


def module_path(module: str) -> Path | None:
    """Return the file or folder of a module, None where there is none; nothing is imported."""
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError, AttributeError):
        # A module that put something else than a spec into `__spec__`, or a broken finder of an editable install.
        return None
    if spec is None:
        return None
    folders = spec.submodule_search_locations
    if folders is None:
        return Path(spec.origin or top) if not rest else None
    for folder in folders:
        path = Path(folder, *rest)
        if path.is_dir():
            return path
        if rest and (source := _module_file(path)) is not None:
            return source
    return None


def _module_file(path: Path) -> Path | None:
    # Extension modules are `name.cpython-311-x86_64-linux-gnu.so`.
    return next((file for file in path.parent.glob(f"{path.name}.*") if file.suffix in {".py", ".so", ".pyc", ".pyd"}), None)


def _read(each: Installed) -> Found:
    entry_point = each.entry_point
    found = Found(
        id=entry_point.name,
        kind=GROUPS[entry_point.group],
        distribution=each.distribution,
        version=each.version,
        bundled=re.sub(r"[-_.]+", "-", each.distribution).lower() == BUNDLED_DISTRIBUTION,
        entry_point=entry_point,
        manifest=None,
        state="failed",
        reason=each.fault,
    )
    if each.fault is not None:
        return found
    try:
        manifest = read_manifest(_manifest_path(entry_point), entry_point.name)
    except ManifestError as error:
        return replace(found, reason=str(error))
    if manifest.child is not None:
        return with_program(found, manifest, _manifest_path(entry_point).parent)
    missing = [need for need in manifest.needs if module_path(need.module) is None]
    if missing:
        return replace(found, manifest=manifest, state="unavailable", reason=_install_line(missing))
    return replace(found, manifest=manifest, state="discovered")


def _manifest_path(entry_point: EntryPoint) -> Path:
    if not entry_point.attr:
        raise ManifestError(f"entry point {entry_point.value!r} names a module; name a class: 'package.plugin:Class'")
    path = module_path(entry_point.module)
    if path is None:
        raise ManifestError(f"entry point {entry_point.value!r}: there is no module {entry_point.module!r}; reinstall the plugin")
    manifest = path / "plugin.toml" if path.is_dir() else path.with_name(path.name.partition(".")[0] + ".toml")
    if not manifest.is_file():
        raise ManifestError(f"{manifest}: there is no manifest; add it and make the build include it")
    return manifest


def programs_in(home: Path) -> list[Found]:
    """Read the manifests of the programs in `children/<id>/` of a state folder; nothing of them is run."""
    folder = home / CHILDREN_FOLDER
    if not folder.is_dir():
        return []
    return [_read_program(each) for each in sorted(folder.iterdir()) if re.fullmatch(ID_PATTERN, each.name)]


def _read_program(folder: Path) -> Found:
    path = folder / "plugin.toml"
    found = Found(
        id=folder.name,
        kind="plugin",
        distribution=CHILDREN_FOLDER,
        version="unknown",
        bundled=False,
        entry_point=EntryPoint(folder.name, str(path), CHILDREN_FOLDER),
        manifest=None,
        state="failed",
        program=(),
    )
    try:
        checked_folder(folder)
        manifest = read_manifest(path, folder.name)
        if manifest.child is None:
            raise ManifestError(f"{path}: has no table [child]; name the program there")
    except ManifestError as error:
        return replace(found, reason=str(error))
    return with_program(replace(found, kind=manifest.child.kind, version=manifest.child.version), manifest, folder)


def with_program(found: Found, manifest: Manifest, folder: Path) -> Found:
    """Return the plugin as a program whose manifest lies in `folder`; `failed` where the program is not to be trusted."""
    try:
        command = checked_command(manifest.child.command if manifest.child is not None else [], folder)
    except ManifestError as error:
        return replace(found, reason=str(error), program=())
    return replace(found, manifest=manifest, state="discovered", program=command)


def _install_line(missing: Iterable[Need]) -> str:
    requirements = dict.fromkeys(need.install for need in missing)
    return "pip install " + " ".join(f'"{requirement}"' for requirement in requirements)


def _without_duplicates(found: Iterable[Found], problems: list[str]) -> Discovery:
    by_id: dict[str, list[Found]] = {}
    for plugin in sorted(found, key=lambda plugin: not plugin.bundled):
        by_id.setdefault(plugin.id, []).append(plugin)
    kept: list[Found] = []
    for plugin_id, claimants in by_id.items():
        first, *others = claimants
        if not others:
            kept.append(first)
            continue
        owners = " and ".join(f"{one.distribution} {one.version}" for one in claimants)
        if first.bundled:
            kept.append(first)
            names = ", ".join(one.distribution for one in others)
            problems.append(f"plugin {plugin_id!r} comes from {owners}; the bundled one is used, uninstall {names}")
            continue
        reason = f"plugin {plugin_id!r} comes from {owners}, none is used; uninstall all but one"
        problems.append(reason)
        kept.append(replace(first, state="failed", reason=reason, manifest=None))
    return Discovery(plugins=tuple(kept), problems=tuple(problems))
