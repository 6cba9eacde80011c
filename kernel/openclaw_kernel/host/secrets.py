"""Who may have which named secret, and which provider: decided by the agent's scope, written into the audit log."""

from __future__ import annotations

from collections.abc import Sequence

from openclaw_config.agent_scope import agent_scope
from openclaw_config.models import Config
from openclaw_config.redaction import replace_all
from openclaw_config.secrets import Secret
from openclaw_kernel.api.audit import AuditAction, AuditEntry, AuditLog, AuditOrigin
from openclaw_kernel.api.errors import Forbidden, Unavailable
from openclaw_kernel.api.store import Store

_NOT_IN_SCOPE = "the agent's scope does not name it"


class SecretBroker:
    """Implements `openclaw_kernel.api.Secrets`. Without an audit log nothing is handed out."""

    def __init__(self, config: Config, store: Store, audit: AuditLog | None) -> None:
        self.config = config
        self._store = store
        self._audit = audit

    def names(self, agent_id: str) -> Sequence[str]:
        """Return the names in an agent's scope, sorted."""
        return sorted(agent_scope(self.config, agent_id).secrets)

    async def lease(self, agent_id: str, name: str, *, plugin_id: str, purpose: str) -> Secret:
        """Return a secret once it is on disk who got it; raise `Forbidden`, or `Unavailable` where it cannot be written down."""
        audit = self._audit
        if audit is None:
            raise Unavailable(f"secret {name[:64]!r}: there is no audit log, so nothing is handed out")
        entry = AuditEntry(
            action=AuditAction.SECRET_READ,
            origin=_origin(agent_id),
            subject=f"secret:{name}",
            details={"plugin": plugin_id, "purpose": purpose},
        )
        secret = self.config.secrets.entries.get(name) if name in agent_scope(self.config, agent_id).secrets else None
        if secret is None:
            self._deny(agent_id, f"secret:{name}", plugin_id)
            raise Forbidden(
                f"secret {name[:64]!r} is not in the scope of agent {agent_id[:64]!r}; add it to agents.entries.<agent>.secrets",
                details={"code": "SECRET_NOT_IN_SCOPE", "secret": name[:64], "agentId": agent_id[:64]},
            )
        await self._store.write(lambda connection: audit.append(connection, entry))
        return secret

    def permits_provider(self, agent_id: str, provider: str, plugin_id: str) -> bool:
        """Tell whether the agent may use a provider; that it may not is written down."""
        permitted = agent_scope(self.config, agent_id).permits_provider(provider)
        if not permitted:
            self._deny(agent_id, f"provider:{provider}", plugin_id)
        return permitted

    def _deny(self, agent_id: str, subject: str, plugin_id: str) -> None:
        if self._audit is not None:
            self._audit.refused(
                AuditEntry(
                    action=AuditAction.SECRET_DENIED,
                    origin=_origin(agent_id),
                    subject=subject,
                    reason=_NOT_IN_SCOPE,
                    details={"plugin": plugin_id},
                )
            )


class ToolSecrets:
    """Implements `openclaw_kernel.api.AgentSecrets` for one call of a tool."""

    def __init__(self, broker: SecretBroker, *, agent_id: str, plugin_id: str) -> None:
        self._broker = broker
        self._agent_id = agent_id
        self._plugin_id = plugin_id
        self._leased: list[Secret] = []

    def names(self) -> Sequence[str]:
        """Return the names in the agent's scope."""
        return self._broker.names(self._agent_id)

    async def lease(self, name: str, *, purpose: str) -> Secret:
        """Return a secret; raise `Forbidden`."""
        secret = await self._broker.lease(self._agent_id, name, plugin_id=self._plugin_id, purpose=purpose)
        self._leased.append(secret)
        return secret

    def clean(self, text: str) -> str:
        """Return a text of the tool's without what was handed to it: a tool uses a secret, a model does not read it."""
        return replace_all(text, [secret.unwrap() for secret in self._leased]) if self._leased else text


def _origin(agent_id: str) -> AuditOrigin:
    return AuditOrigin(actor=f"agent:{agent_id}", surface="turn")
