"""Named secrets (`secrets.entries`), for the agents whose scope names them.

A tool gets those of the agent it runs for by `ToolContext.secrets`. What was handed out in a call is cut out of its result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from openclaw_config.secrets import Secret
from openclaw_kernel.api.errors import Forbidden


class Secrets(Protocol):
    """The service: every secret that is handed out or denied is in the audit log."""

    def names(self, agent_id: str) -> Sequence[str]:
        """Return the names in an agent's scope; none for one that is not configured."""
        ...

    async def lease(self, agent_id: str, name: str, *, plugin_id: str, purpose: str) -> Secret:
        """Return a secret for what the plugin does for the agent; raise `Forbidden` for a name that is not in the agent's scope.

        `purpose` is a few fixed words for the audit log. Ask each time: what is kept outlives the scope.
        """
        ...


class AgentSecrets(Protocol):
    """The same for one agent and the tool that runs for it."""

    def names(self) -> Sequence[str]:
        """Return the names in the agent's scope."""
        ...

    async def lease(self, name: str, *, purpose: str) -> Secret:
        """Return a secret; raise `Forbidden`."""
        ...


class _None:
    def names(self) -> Sequence[str]:
        return ()

    async def lease(self, name: str, *, purpose: str) -> Secret:
        raise Forbidden(f"secret {name[:64]!r}: there are no secrets here; run the tool through the service Tools")


NO_SECRETS: Final[AgentSecrets] = _None()
"""What a tool sees that is run by hand, as in a test."""
