"""The authenticators of plugins, asked one after the other: each call guarded, each fault named."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Final

from openclaw_kernel.api.authenticator import Approach, Authenticator, Identity, IdentityRefused
from openclaw_kernel.host.calls import in_force
from openclaw_kernel.host.contract import ContractBroken, misfit
from openclaw_kernel.host.guard import Guard, PluginFault, PluginHung, fault_of
from openclaw_kernel.host.registry import Owned, Registry

logger: Final = logging.getLogger(__name__)

ANSWER_SECONDS: Final = 5.0
REST_SECONDS: Final = 30.0
"""For how long one that hung is not asked: nobody waits for it again and again."""


class HostedAuthenticators:
    """Asks every authenticator until one answers. A failure of one lets nobody in and keeps out nobody whom another proves."""

    def __init__(
        self,
        registry: Registry,
        guard: Guard,
        *,
        report: Callable[[PluginFault], None],
        seconds: float = ANSWER_SECONDS,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._registry = registry
        self._guard = guard
        self._report = report
        self._seconds = seconds
        self._clock = clock
        self._resting: dict[str, float] = {}

    def __bool__(self) -> bool:
        return bool(self._registry.authenticators)

    async def ask(self, approach: Approach) -> Identity | IdentityRefused | None:
        """Return the first answer; where there is none and one failed, a refusal that says so."""
        failed: IdentityRefused | None = None
        for name in list(self._registry.authenticators):
            owned = await in_force(partial(self._registry.authenticators.get, name))
            if owned is None:
                continue
            with owned.calls.call():
                answer = await self._ask_one(name, owned, approach)
            if isinstance(answer, IdentityRefused) and answer.reason == _FAILED:
                failed = answer
            elif answer is not None:
                return answer
        return failed

    async def _ask_one(self, name: str, owned: Owned[Authenticator], approach: Approach) -> Identity | IdentityRefused | None:
        failed = IdentityRefused(reason=_FAILED, cure=f"the authenticator {name} failed; the gateway's log has the details", temporary=True)
        if self._resting.get(name, 0.0) > self._clock():
            return failed
        what = f"authenticator {name}"
        try:
            answer = await self._guard.run(owned.plugin_id, what, partial(owned.item.authenticate, approach), self._seconds)
            return _checked(answer)
        except ContractBroken as error:
            self._report(fault_of(owned.plugin_id, what, error))
        except PluginFault as fault:
            if isinstance(fault, PluginHung):
                self._resting[name] = self._clock() + REST_SECONDS
            self._report(fault)
        return failed


_FAILED: Final = "authenticator_failed"
_OF_THE_PROXY: Final = "trusted-proxy"
"""The issuer under which `gateway.auth.identities` names whom the trusted proxy vouches for."""


def _checked(answer: object) -> Identity | IdentityRefused | None:
    if answer is None:
        return None
    if not isinstance(answer, Identity | IdentityRefused):
        raise ContractBroken(f"returned {type(answer).__name__}", "return an Identity, an IdentityRefused or None")
    wrong = misfit(answer)
    if wrong is not None:
        raise ContractBroken(f"returned an {type(answer).__name__} whose {wrong}", "give what the type says")
    if isinstance(answer, Identity):
        for field in ("issuer", "subject"):
            value = getattr(answer, field)
            if not value or value.strip() != value or not value.isprintable():
                raise ContractBroken(f"returned an Identity whose {field} is {value[:64]!r}", "give what the issuer says, or refuse")
        if answer.issuer == _OF_THE_PROXY:
            raise ContractBroken(
                f"returned an Identity whose issuer is {_OF_THE_PROXY!r}", "give another name: this is the trusted proxy's"
            )
        if "#" in answer.issuer:
            # Issuer and subject are one name, parted by it.
            raise ContractBroken("returned an Identity whose issuer has a '#'", "give an issuer without a fragment")
    return answer
