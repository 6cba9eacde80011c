"""New code of a plugin beside the old: its package imported anew, and whether that can be done honestly."""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.metadata
import sys
from collections.abc import Mapping
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, Final

from openclaw_kernel.host.discovery import Found
from openclaw_kernel.host.loader import load_class

_NOT_SAID: Final = frozenset({"builtins", "types", "functools", "_frozen_importlib", "_frozen_importlib_external", "weakref", "_thread"})
"""Where containers, frames and the like come from, which do not tell whose they are."""


class FreshCode:
    """The package of some plugins, imported anew by the first of them that is loaded; whoever imports from then on gets the new one.

    Call `drop` where it does not come about, and `keep` where it does. The old modules go on for whoever holds them.
    """

    def __init__(self, package: str) -> None:
        self._package = package
        self._old: dict[str, ModuleType] | None = None

    def load(self, found: Found) -> type[Any]:
        """Import a plugin of the package and return its class; on a thread. Whatever the import raises goes through."""
        if self._old is None:
            self._old = _take_out(self._package)
            for module in self._old.values():
                _forget_bytecode(module)
            importlib.invalidate_caches()
        return load_class(found)

    def drop(self) -> None:
        """Put the old modules back."""
        if self._old is not None:
            _take_out(self._package)
            sys.modules.update(self._old)
            self._old = None

    def keep(self) -> None:
        """Let go of the old modules, also where nothing of the package runs now: whoever is enabled later gets the new."""
        if self._old is None:
            _take_out(self._package)
        self._old = {}


def top_of(found: Found) -> str:
    """The top-level package of a plugin; empty for a program."""
    return found.package.partition(".")[0]


def loaded_of(package: str) -> dict[str, ModuleType]:
    """The modules of a top-level package that are imported, by name."""
    return {name: module for name, module in list(sys.modules.items()) if _is_below(name, package) and isinstance(module, ModuleType)}


def forget(package: str) -> None:
    """Let go of the modules of a package that is gone."""
    _take_out(package)


def why_restart(found: Found) -> str | None:
    """Say what keeps a plugin's code from being replaced in this process, None where nothing does; some 100 ms, on a thread."""
    if found.bundled:
        return "it is part of openclaw-kernel itself"
    package = top_of(found)
    sharing = sorted(set(importlib.metadata.packages_distributions().get(package, ())))
    if len(sharing) > 1:
        return f"its package {package} belongs to {' and '.join(sharing)}"
    modules = loaded_of(package)
    return _extension(found, modules) or _leak(package, modules)


def _extension(found: Found, modules: Mapping[str, ModuleType]) -> str | None:
    for name, module in modules.items():
        spec = getattr(module, "__spec__", None)
        if isinstance(getattr(spec, "loader", None), ExtensionFileLoader):
            return f"{name} is a C extension, which cannot be loaded twice"
    with contextlib.suppress(importlib.metadata.PackageNotFoundError, OSError):
        files = importlib.metadata.distribution(found.distribution).files or []
        for file in files:
            # Python loads its own kind alone; what else is in a wheel is a library for the plugin's own use.
            if modules and file.name.endswith(tuple(EXTENSION_SUFFIXES)) and file.parts[0] == top_of(found):
                return f"{file} is a C extension, which cannot be loaded twice"
    return None


def _leak(package: str, modules: Mapping[str, ModuleType]) -> str | None:
    """Name somebody outside who holds something of the package, and would go on with the old code."""
    for name, outside in list(sys.modules.items()):
        if _is_below(name, package) or not isinstance(outside, ModuleType):
            continue
        for key, value in list(vars(outside).items()):
            if _origin(value, modules) is not None:
                return f"the module {name} holds {_origin(value, modules)} as {key}"
    known = {id(module.__dict__) for module in modules.values()}
    for holder in gc.get_referrers(*modules.values()):
        where = type(holder).__module__
        if id(holder) in known or where in _NOT_SAID or _is_below(where, package) or isinstance(holder, ModuleType):
            continue
        if not where.startswith("openclaw_kernel."):
            return f"a {where}.{type(holder).__name__} holds a module of it"
    return None


def _origin(value: object, modules: Mapping[str, ModuleType]) -> str | None:
    if type(value) is ModuleType:
        return value.__name__ if modules.get(value.__name__) is value else None
    if type(value) is FunctionType or issubclass(type(value), type):
        where = getattr(value, "__module__", None)
        if isinstance(where, str) and where in modules:
            return f"{where}.{getattr(value, '__qualname__', '?')}"
    return None


def _is_below(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def _take_out(package: str) -> dict[str, ModuleType]:
    return {name: sys.modules.pop(name) for name in list(sys.modules) if _is_below(name, package)}


def _forget_bytecode(module: ModuleType) -> None:
    # It is taken for fresh when the source changed within the same second and has the same length.
    cached = getattr(module, "__cached__", None)
    if isinstance(cached, str):
        with contextlib.suppress(OSError):
            Path(cached).unlink(missing_ok=True)
