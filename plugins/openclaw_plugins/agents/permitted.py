"""The providers that one agent may use: of the others it sees nothing. The kernel refuses a call of them all the same."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from openclaw_kernel.api import ModelEvent, ModelInfo, ModelRequest, Providers


class PermittedProviders:
    """Implements `Providers` over those of the gateway."""

    def __init__(self, providers: Providers, permitted: frozenset[str]) -> None:
        self._providers = providers
        self._permitted = permitted

    def ids(self) -> Sequence[str]:
        """Return the ids of those permitted."""
        return [identity for identity in self._providers.ids() if identity in self._permitted]

    def models(self) -> Sequence[ModelInfo]:
        """Return their models."""
        return [info for info in self._providers.models() if info.provider in self._permitted]

    def find(self, ref: str) -> ModelInfo | None:
        """Resolve a reference to one of their models."""
        return self._providers.find(ref) if ref.partition("/")[0] in self._permitted else None

    def problem(self, provider: str) -> str | None:
        """Say why one cannot answer."""
        return self._providers.problem(provider)

    def stream(self, provider: str, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """Call a model."""
        return self._providers.stream(provider, request)
