"""pluggy behind one typed method a hook, one plugin at a time.

pluggy stops at the first implementation that raises; here each plugin's implementations are called on their own, in pluggy's
order: `tryfirst`, then the later registered before the earlier, then `trylast`. The `register` hooks know no `tryfirst`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

import pluggy

from openclaw_kernel import hookspecs
from openclaw_kernel.api.messages import InboundMessage
from openclaw_kernel.api.plugin import Registrar
from openclaw_kernel.api.policy import Admission, Route, Verdict
from openclaw_kernel.host.explain import suggest
from openclaw_kernel.host.guard import Guard, PluginFault

REGISTER_HOOKS: Final = (
    "openclaw_register_services",
    "openclaw_register_channels",
    "openclaw_register_providers",
    "openclaw_register_tools",
    "openclaw_register_commands",
    "openclaw_register_methods",
    "openclaw_register_routes",
    "openclaw_register_authenticators",
)
"""In the order in which they are called."""

CHECK_HOOK: Final = "openclaw_register_checks"
"""Called when checks are about to run, and not at a start."""

_PREFIX: Final = "openclaw_"


class HookRejected(Exception):
    """A plugin implements a hook that does not exist, or not as the hook asks."""


class _Standin:
    """What pluggy is given in place of a plugin, with its hooks: pluggy compares plugins, and one that equals all would keep them out."""

    def __init__(self, plugin: object) -> None:
        self.plugin = plugin


class PluginManager:
    """The registered plugins and their hooks. `report` is told of faults on the hot path."""

    def __init__(self, guard: Guard, report: Callable[[PluginFault], None]) -> None:
        self._guard = guard
        self._report = report
        self._pluggy = _empty()
        self._hooks = frozenset(name for name in dir(hookspecs) if name.startswith(_PREFIX))

    def register(self, plugin_id: str, plugin: object) -> None:
        """Take in a plugin; raise `HookRejected` where its hooks are not those of `hookspecs`."""
        self._refuse_unmarked(plugin)
        plugin = self._standin(plugin)
        try:
            self._pluggy.register(plugin, plugin_id)
            # pluggy takes a misspelt hook silently until it is asked.
            self._pluggy.check_pending()
            self._refuse_unsupported(plugin)
        except pluggy.PluginValidationError as error:
            wrong = self._unknown_hook(plugin)
            self.remove(plugin_id)
            if wrong is None:
                raise HookRejected(" ".join(str(error).split())) from error
            raise HookRejected(f"there is no hook {wrong!r}; {suggest(wrong, self._hooks)}") from error
        except HookRejected:
            self.remove(plugin_id)
            raise

    def remove(self, plugin_id: str) -> None:
        """Forget a plugin and its hooks."""
        if self._pluggy.has_plugin(plugin_id):
            self._pluggy.unregister(name=plugin_id)

    def joined(self, staged: PluginManager, *, without: Collection[str], order: Sequence[str]) -> PluginManager:
        """Return a manager of this one's plugins but those of `without`, and the staged ones; the first of `order` is asked first."""
        taken = {name: plugin for name, plugin in self._pluggy.list_name_plugin() if name not in without}
        taken |= dict(staged._pluggy.list_name_plugin())
        result = PluginManager(self._guard, self._report)
        # pluggy asks the last registered first.
        for plugin_id in reversed(order):
            if (plugin := taken.get(plugin_id)) is not None:
                result._pluggy.register(plugin, plugin_id)
        return result

    def adopt(self, other: PluginManager) -> None:
        """Ask the plugins of another manager from now on."""
        self._pluggy = other._pluggy

    def twin(self) -> PluginManager:
        """Return a manager that asks the same plugins, and still does when this one has adopted others."""
        twin = PluginManager(self._guard, self._report)
        twin.adopt(self)
        return twin

    def implements(self, hook: str) -> bool:
        """Tell whether any plugin has an implementation of the hook."""
        caller: pluggy.HookCaller = getattr(self._pluggy.hook, hook)
        return bool(caller.get_hookimpls())

    async def register_services(self, registrars: Mapping[str, Registrar], deadline: float) -> dict[str, PluginFault]:
        """Call `openclaw_register_services` of each plugin; return the faults by plugin."""
        return await self._register("openclaw_register_services", registrars, deadline)

    async def register_channels(self, registrars: Mapping[str, Registrar], deadline: float) -> dict[str, PluginFault]:
        """Call `openclaw_register_channels` of each plugin; return the faults by plugin."""
        return await self._register("openclaw_register_channels", registrars, deadline)

    async def register_providers(self, registrars: Mapping[str, Registrar], deadline: float) -> dict[str, PluginFault]:
        """Call `openclaw_register_providers` of each plugin; return the faults by plugin."""
        return await self._register("openclaw_register_providers", registrars, deadline)

    async def register_tools(self, registrars: Mapping[str, Registrar], deadline: float) -> dict[str, PluginFault]:
        """Call `openclaw_register_tools` of each plugin; return the faults by plugin."""
        return await self._register("openclaw_register_tools", registrars, deadline)

    async def register_commands(self, registrars: Mapping[str, Registrar], deadline: float) -> dict[str, PluginFault]:
        """Call `openclaw_register_commands` of each plugin; return the faults by plugin."""
        return await self._register("openclaw_register_commands", registrars, deadline)

    async def register_methods(self, registrars: Mapping[str, Registrar], deadline: float) -> dict[str, PluginFault]:
        """Call `openclaw_register_methods` of each plugin; return the faults by plugin."""
        return await self._register("openclaw_register_methods", registrars, deadline)

    async def register_routes(self, registrars: Mapping[str, Registrar], deadline: float) -> dict[str, PluginFault]:
        """Call `openclaw_register_routes` of each plugin; return the faults by plugin."""
        return await self._register("openclaw_register_routes", registrars, deadline)

    async def register_authenticators(self, registrars: Mapping[str, Registrar], deadline: float) -> dict[str, PluginFault]:
        """Call `openclaw_register_authenticators` of each plugin; return the faults by plugin."""
        return await self._register("openclaw_register_authenticators", registrars, deadline)

    async def register_checks(self, registrars: Mapping[str, Registrar], deadline: float) -> dict[str, PluginFault]:
        """Call `openclaw_register_checks` of each plugin; return the faults by plugin."""
        return await self._register(CHECK_HOOK, registrars, deadline)

    def decide_route(self, message: InboundMessage) -> Route | None:
        """Return the first route that is not None; a plugin that raises is passed over."""
        for implementation in self._implementations("openclaw_decide_route"):
            try:
                route: Route | None = self._decide(implementation, {"message": message}, Route)
            except PluginFault as fault:
                self._report(fault)
                continue
            if route is not None:
                return route
        return None

    def decide_admission(self, message: InboundMessage, route: Route) -> Admission | None:
        """Return the first verdict that is not None; a plugin that raises has refused."""
        for implementation in self._implementations("openclaw_decide_admission"):
            try:
                verdict: Admission | None = self._decide(implementation, {"message": message, "route": route}, Admission)
            except PluginFault as fault:
                self._report(fault)
                return Admission(verdict=Verdict.DROP, reason=f"refused: {fault}")
            if verdict is not None:
                return verdict
        return None

    async def _register(self, hook: str, registrars: Mapping[str, Registrar], deadline: float) -> dict[str, PluginFault]:
        faults: dict[str, PluginFault] = {}
        # Who registered last comes first, as in pluggy; but no `tryfirst` takes a name before those that come earlier.
        position = {plugin_id: number for number, plugin_id in enumerate(registrars)}
        for implementation in sorted(self._implementations(hook), key=lambda each: -position.get(each.plugin_name, -1)):
            plugin_id = implementation.plugin_name
            registrar = registrars.get(plugin_id)
            if registrar is None or plugin_id in faults:
                continue
            function = _bind(implementation, {"registrar": registrar})
            try:
                await self._guard.run_sync(plugin_id, hook, function, deadline)
            except PluginFault as fault:
                faults[plugin_id] = fault
        return faults

    def _decide(self, implementation: pluggy.HookImpl, arguments: Mapping[str, Any], kind: type[Any]) -> Any:
        hook = implementation.function.__name__
        result = self._guard.call(implementation.plugin_name, hook, _bind(implementation, arguments))
        if result is None or isinstance(result, kind):
            return result
        happened = f"returned {type(result).__name__}"
        raise PluginFault(implementation.plugin_name, hook, happened, f"return {kind.__name__} or None")

    def _implementations(self, hook: str) -> list[pluggy.HookImpl]:
        # pluggy keeps them in the order in which it would call them, last first.
        return getattr(self._pluggy.hook, hook).get_hookimpls()[::-1]  # type: ignore[no-any-return]

    def _standin(self, plugin: object) -> _Standin:
        standin = _Standin(plugin)
        for name in dir(type(plugin)):
            if self._pluggy.parse_hookimpl_opts(plugin, name) is not None:
                setattr(standin, name, getattr(plugin, name))
                if self._pluggy.parse_hookimpl_opts(standin, name) is None:
                    raise HookRejected(f"{name} is marked above a decorator; put @hookimpl directly above 'def'")
        return standin

    def _unknown_hook(self, plugin: object) -> str | None:
        callers = self._pluggy.get_hookcallers(plugin) or []
        return next((caller.name for caller in callers if not caller.has_spec()), None)

    def _refuse_unsupported(self, plugin: object) -> None:
        for caller in self._pluggy.get_hookcallers(plugin) or []:
            for implementation in caller.get_hookimpls():
                if implementation.plugin is not plugin:
                    continue
                if implementation.hookwrapper or implementation.wrapper:
                    raise HookRejected(f"{caller.name} is a wrapper; wrappers are not supported, use tryfirst or trylast")
                if inspect.iscoroutinefunction(implementation.function):
                    raise HookRejected(f"{caller.name} is async; hooks are sync, put async work in what they register")

    def _refuse_unmarked(self, plugin: object) -> None:
        for name in dir(type(plugin)):
            if name.startswith(_PREFIX) and self._pluggy.parse_hookimpl_opts(plugin, name) is None:
                raise HookRejected(f"{name} is not marked as a hook; decorate it with @hookimpl or rename it")


def _empty() -> pluggy.PluginManager:
    empty = pluggy.PluginManager("openclaw")
    empty.add_hookspecs(hookspecs)
    return empty


def _bind(implementation: pluggy.HookImpl, arguments: Mapping[str, Any]) -> Callable[[], Any]:
    # An implementation takes those arguments of the hook that it names.
    values = [arguments[name] for name in implementation.argnames]
    return lambda: implementation.function(*values)
