"""The method that writes fixes of `security audit` into the audit log."""

from __future__ import annotations

from typing_extensions import TypedDict

from openclaw_kernel.api import Call, Fixes, Params, PluginContext, Scope, origin_of, rpc


class Nothing(Params):
    """No params."""


class Recorded(TypedDict):
    """The ids of the fixes that have their row now and had none."""

    recorded: list[str]


class SecurityMethods:
    """security.fixes.record."""

    def __init__(self, context: PluginContext) -> None:
        self._context = context

    @rpc(
        "security.fixes.record",
        scope=Scope.ADMIN,
        params=Nothing,
        result=Recorded,
        repeatable="a fix that has its row gets no second one",
        advertised=False,
    )
    async def record(self, call: Call, _params: Nothing) -> Recorded:
        """Write down the fixes of `security audit` that lie in the state folder and have no row in the audit log yet."""
        return {"recorded": list(await self._context.service(Fixes).record(origin_of(call)))}
