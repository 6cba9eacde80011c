"""Strangers' plugins: where they came from, and what they do beside what they say."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Final

from openclaw_kernel.api import CheckContext, Finding, InstalledPlugin, Severity
from openclaw_plugins.security.table import Table, writable_by_others

TABLE: Final = Table()

_MOST_FILES: Final = 500
_MOST_BYTES: Final = 1_000_000
_BEYOND: Final = {
    "openclaw_decide_admission": "decides who may start a turn",
    "openclaw_decide_route": "decides which agent answers",
    "openclaw_register_authenticators": "decides who somebody is",
    "openclaw_register_routes": "opens addresses on the gateway's port",
}
"""Hooks that reach further than a channel or a provider has to."""
_ALLOWED: Final = ("openclaw_kernel.api", "openclaw_kernel.hookspecs", "openclaw_kernel.testing")
_OWN: Final = ("openclaw_kernel", "openclaw_config", "openclaw_plugins", "openclaw_channels", "openclaw_providers")


@TABLE.add("plugins.unpinned", "a plugin has no fixed version", Severity.WARN)
def unpinned(context: CheckContext) -> Iterator[Finding]:
    for plugin in _strangers(context):
        if plugin.source == "index":
            continue
        from_where = (
            "a folder, and is read from there" if plugin.editable else {"vcs": "a repository"}.get(plugin.source, f"a {plugin.source}")
        )
        yield Finding(
            severity=Severity.WARN if plugin.source != "unknown" else Severity.INFO,
            where=f"plugin:{plugin.id}",
            evidence=f"{plugin.distribution} was installed from {from_where}: which code runs can change without a new version",
            cure=f"install a released version: pip install {plugin.distribution}==VERSION",
        )


@TABLE.add("plugins.rights", "a plugin does more than its kind says", Severity.WARN)
def rights(context: CheckContext) -> Iterator[Finding]:
    for plugin in _strangers(context):
        if plugin.kind == "plugin":
            continue
        found = sorted({name for tree in _trees(plugin) for name in _functions(tree) if name in _BEYOND})
        if found:
            yield Finding(
                severity=Severity.WARN,
                where=f"plugin:{plugin.id}",
                evidence=f"it is installed as a {plugin.kind}, and also {', '.join(_BEYOND[name] for name in found)}",
                cure=f"ask its author why, or uninstall {plugin.distribution}",
            )


@TABLE.add("plugins.imports", "a plugin uses libraries that it does not declare", Severity.WARN)
def imports(context: CheckContext) -> Iterator[Finding]:
    for plugin in _strangers(context):
        declared = {_module(requirement) for requirement in plugin.requires}
        declared |= {_module(str(need.get("module", ""))) for need in plugin.manifest.get("needs", ())}
        own = plugin.folder.stem if plugin.folder is not None else ""
        ours = {name.partition(".")[0] for name in _OWN}
        used = {name.partition(".")[0] for tree in _trees(plugin) for name in _imported(tree)}
        found = sorted(
            name
            for name in used - {own} - ours - sys.stdlib_module_names
            if _module(name) not in declared and not any(_module(name) in each for each in declared) and name not in _STANDARD
        )
        if found:
            brought = packages_distributions()
            found = [name for name in found if not {_module(each) for each in brought.get(name, ())} & declared]
        if found and plugin.requires:
            yield Finding(
                severity=Severity.WARN,
                where=f"plugin:{plugin.id}",
                evidence=f"its code imports {', '.join(found[:8])}, which neither its distribution nor its manifest names",
                cure="have it declared in the distribution's dependencies, with its version",
            )


_STANDARD: Final = frozenset({"pydantic", "pydantic_core", "typing_extensions", "aiohttp", "pluggy"})
"""What the api itself is made of."""


@TABLE.add("plugins.inside", "a plugin reaches into the gateway's inside", Severity.WARN)
def inside(context: CheckContext) -> Iterator[Finding]:
    for plugin in _strangers(context):
        found = sorted({name for tree in _trees(plugin) for name in _imported(tree) if _is_inside(name, plugin)})
        if found:
            yield Finding(
                severity=Severity.WARN,
                where=f"plugin:{plugin.id}",
                evidence=f"its code imports {', '.join(found[:5])}, past the api that the gateway watches over",
                cure="update it to one that imports openclaw_kernel.api alone, or uninstall it",
            )


@TABLE.add("plugins.duplicates", "several distributions bring the same plugin", Severity.WARN)
def duplicates(context: CheckContext) -> Iterator[Finding]:
    for problem in context.plugin_problems:
        if " comes from " in problem:
            yield Finding(
                severity=Severity.WARN,
                evidence=problem,
                cure="uninstall all but the one that you mean",
            )


@TABLE.add("plugins.writable", "others may change a plugin's code", Severity.CRITICAL)
def writable(context: CheckContext) -> Iterator[Finding]:
    for plugin in context.plugins:
        exposed = next((path for path in _files(plugin) if writable_by_others(context.look(path))), None)
        if exposed is not None:
            yield Finding(
                severity=Severity.CRITICAL,
                where=str(exposed),
                evidence=f"it is code of the plugin {plugin.id}: others decide what the gateway runs",
                cure=f"chmod -R go-w {plugin.folder}",
            )


def _strangers(context: CheckContext) -> list[InstalledPlugin]:
    return [plugin for plugin in context.plugins if plugin.runs and not plugin.bundled]


def _files(plugin: InstalledPlugin) -> Iterator[Path]:
    folder = plugin.folder
    if folder is None:
        return
    yield folder
    if folder.is_dir():
        for number, path in enumerate(sorted(folder.rglob("*.py"))):
            if number >= _MOST_FILES:
                return
            yield path


def _trees(plugin: InstalledPlugin) -> Iterator[ast.Module]:
    for path in _files(plugin):
        if path.suffix != ".py" or not path.is_file() or path.stat().st_size > _MOST_BYTES:
            continue
        try:
            yield ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            continue


def _functions(tree: ast.Module) -> Iterator[str]:
    return (node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield node.module


def _is_inside(name: str, plugin: InstalledPlugin) -> bool:
    ours = any(name == package or name.startswith(f"{package}.") for package in _OWN)
    own = plugin.folder is not None and name.partition(".")[0] == plugin.folder.stem
    return ours and not own and not any(name == allowed or name.startswith(f"{allowed}.") for allowed in _ALLOWED)


def _module(requirement: str) -> str:
    """The name of a distribution or module, in the spelling in which they are compared."""
    return re.split(r"[^A-Za-z0-9._-]", requirement.strip(), maxsplit=1)[0].partition(".")[0].lower().replace("_", "-")
