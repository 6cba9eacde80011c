"""What joins the service `Configuration` with the running gateway."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from openclaw_kernel.api.audit import AuditLog
from openclaw_kernel.api.config import Configuration, ReloadOutcome
from openclaw_kernel.configuration.desk import ConfigurationDesk
from openclaw_kernel.configuration.view import ConfigView
from openclaw_kernel.gateway import GatewayFacts
from openclaw_kernel.generations import Generations
from openclaw_kernel.host import PluginHost
from openclaw_kernel.live.config import LiveConfig
from openclaw_kernel.reload.matrix import KERNEL


def offer_configuration(
    host: PluginHost, live: LiveConfig, *, facts: GatewayFacts, generations: Generations, audit: AuditLog, now_ms: Callable[[], int]
) -> ConfigurationDesk:
    """Let plugins read and change the configuration; the caller closes what is returned."""
    path = live.engine.accepted.path
    view = ConfigView(path, schema_source=facts.config_schema, outcome_of=lambda parts: _outcome_of(live, parts))
    desk = ConfigurationDesk(
        path=path, engine=live.engine, reread=live.reload, generations=generations, audit=audit, view=view, now_ms=now_ms
    )
    host.offer(Configuration, desk)
    return desk


def _outcome_of(live: LiveConfig, parts: Sequence[str]) -> ReloadOutcome:
    """What a change of a key does: by the rules of the plugin whose section it is in, else by the kernel's own."""
    path = tuple(parts)
    owners = [part for part in live.engine.parts() if part.owns(path)]
    rules = [rule for part in owners if (rule := part.rules.of(path)) is not None]
    own = KERNEL.of(path)
    if rules:
        return max((rule.outcome for rule in rules), key=list(ReloadOutcome).index)
    return ReloadOutcome.PROCESS if own is None or owners else own.outcome
