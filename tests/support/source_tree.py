"""The project's source as data: modules, what each imports, and what it reaches when it is imported."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE_ROOTS = ("kernel", "config", "channels", "providers", "plugins")
SKIPPED_FOLDERS = {"node_modules", "__pycache__", "build", "dist", "tests"}


@dataclass(frozen=True)
class Import:
    """One imported module, by its full dotted name."""

    target: str
    line: int
    deferred: bool
    """Inside a function: not run when the module is imported."""
    typing_only: bool
    """Under `if TYPE_CHECKING`: never run."""

    @property
    def at_import_time(self) -> bool:
        """Whether importing the module runs this import."""
        return not self.deferred and not self.typing_only


@dataclass(frozen=True)
class Module:
    """One source file under its dotted name."""

    name: str
    path: Path
    source: str
    plugin: str | None = None
    """The dotted name of the plugin it belongs to, None for the kernel and the config."""

    @cached_property
    def tree(self) -> ast.Module:
        """Its syntax tree."""
        return ast.parse(self.source, filename=str(self.path))

    @property
    def is_package(self) -> bool:
        """Whether the file is an `__init__.py`."""
        return self.path.name == "__init__.py"


class SourceTree:
    """All modules of the project, with the imports between them resolved."""

    def __init__(self, modules: Mapping[str, Module]) -> None:
        """Take modules by dotted name."""
        self.modules = dict(modules)
        self._imports: dict[str, list[Import]] = {}

    def __iter__(self) -> Iterator[Module]:
        """In the order of the names."""
        return iter(sorted(self.modules.values(), key=lambda module: module.name))

    def imports(self, module: Module) -> list[Import]:
        """Every import statement of a module; `from package import module` names the module where there is one."""
        if module.name not in self._imports:
            self._imports[module.name] = [*self._walk(module, module.tree, deferred=False, typing_only=False)]
        return self._imports[module.name]

    def reached(self, module: Module) -> dict[str, list[str]]:
        """Each module that runs when this one is imported, with the chain of names that leads there.

        The packages above a module run too. Third parties are named, not followed.
        """
        chains: dict[str, list[str]] = {module.name: [module.name]}
        waiting = [module]
        while waiting:
            current = waiting.pop()
            for target in self._runs(current):
                if target not in chains:
                    chains[target] = [*chains[current.name], target]
                    if target in self.modules:
                        waiting.append(self.modules[target])
        return chains

    @cached_property
    def circles(self) -> dict[str, list[str]]:
        """For each module that is on a circle of imports its shortest one, from its name to its name.

        Imports in functions and for the types alone count too: they hide a circle, and do not undo it.
        """
        ours = {module.name: {found.target for found in self.imports(module) if found.target in self.modules} for module in self}
        left = {name: targets - {name} for name, targets in ours.items()}
        # Who imports nothing that is left is on no circle.
        while ends := {name for name, targets in left.items() if not targets & left.keys()}:
            left = {name: targets for name, targets in left.items() if name not in ends}
        found = {name: _way_back(left, name) for name in left}
        return {name: way for name, way in found.items() if way}

    def _runs(self, module: Module) -> Iterator[str]:
        yield from _parents(module.name)
        for found in self.imports(module):
            if found.at_import_time:
                yield from _parents(found.target)
                yield found.target

    def _walk(self, module: Module, node: ast.AST, *, deferred: bool, typing_only: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import | ast.ImportFrom):
                for target in self._targets(module, child):
                    yield Import(target, child.lineno, deferred=deferred, typing_only=typing_only)
            elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                yield from self._walk(module, child, deferred=True, typing_only=typing_only)
            elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                for part in child.body:
                    yield from self._walk(module, ast.Module([part], []), deferred=deferred, typing_only=True)
                for part in child.orelse:
                    yield from self._walk(module, ast.Module([part], []), deferred=deferred, typing_only=typing_only)
            else:
                yield from self._walk(module, child, deferred=deferred, typing_only=typing_only)

    def _targets(self, module: Module, statement: ast.Import | ast.ImportFrom) -> Iterator[str]:
        if isinstance(statement, ast.Import):
            yield from (alias.name for alias in statement.names)
            return
        base = statement.module or ""
        if statement.level:
            parts = module.name.split(".")
            kept = len(parts) - statement.level + (1 if module.is_package else 0)
            base = ".".join([*parts[:kept], *([base] if base else [])])
        inner = (f"{base}.{alias.name}" for alias in statement.names)
        yield from dict.fromkeys(name if name in self.modules else base for name in inner)


def _parents(name: str) -> Iterator[str]:
    parts = name.split(".")
    for length in range(1, len(parts)):
        yield ".".join(parts[:length])


def _way_back(graph: Mapping[str, set[str]], start: str) -> list[str]:
    """The shortest way from a module to itself, empty where there is none."""
    ways, seen = [[start]], set[str]()
    while ways:
        way = ways.pop(0)
        for target in sorted(graph.get(way[-1], ())):
            if target == start:
                return [*way, start]
            if target not in seen:
                seen.add(target)
                ways.append([*way, target])
    return []


def read_project(root: Path = ROOT) -> SourceTree:
    """The five packages, and every plugin in contrib/ and docs/."""
    modules: dict[str, Module] = {}
    for folder in PACKAGE_ROOTS:
        for module in _read(root / folder):
            modules[module.name] = module
    for folder in ("contrib", "docs"):
        for package in _outside_packages(root / folder):
            for module in _read(package.parent, below=package):
                modules[module.name] = module
    return SourceTree(modules)


def module_name(base: Path, path: Path) -> str:
    """The dotted name of a file below the folder that is on the import path."""
    parts = path.relative_to(base).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def plugin_of(name: str) -> str | None:
    """The plugin that a module belongs to: its folder in the built-in packages, its distribution elsewhere."""
    parts = name.split(".")
    if parts[0] in {"openclaw_kernel", "openclaw_config"}:
        return None
    if parts[0] in {"openclaw_channels", "openclaw_providers", "openclaw_plugins"}:
        return ".".join(parts[:2])
    return parts[0]


def _read(base: Path, *, below: Path | None = None) -> Iterator[Module]:
    for path in sorted((below or base).rglob("*.py")) if below is None or below.is_dir() else [below]:
        if not SKIPPED_FOLDERS & set(path.relative_to(base).parts):
            name = module_name(base, path)
            yield Module(name, path, path.read_text(encoding="utf-8"), plugin_of(name))


def _outside_packages(folder: Path) -> Iterator[Path]:
    """Top packages and single modules of the distributions in a folder."""
    for path in sorted(folder.rglob("*.py")):
        relative = path.relative_to(folder).parts
        if SKIPPED_FOLDERS & set(relative) or path.name.startswith(("test_", "conftest")):
            continue
        if (path.parent / "__init__.py").exists():
            if path.name == "__init__.py" and not (path.parent.parent / "__init__.py").exists():
                yield path.parent
        else:
            yield path
