"""A model provider that asks a server over HTTP; what is the same of all such providers is of `openclaw_kernel.api.remote`."""

from __future__ import annotations

import codecs
from collections.abc import AsyncIterator, Sequence
from http import HTTPStatus
from typing import Annotated, ClassVar

import aiohttp
from pydantic import BaseModel, Field

from openclaw_kernel.api import (
    Completed,
    ModelEvent,
    ModelInfo,
    ModelRequest,
    PluginContext,
    ProviderErrorKind,
    Registrar,
    Text,
    TextDelta,
    UserMessage,
    hookimpl,
)
from openclaw_kernel.api.remote import ServedModel, ServerFaults, ServerSettings, kind_of_status, retry_after


class OracleSettings(ServerSettings):
    base_url: Annotated[str, Field(pattern=r"^https?://[^\s]+$")]
    """Where the oracle speaks."""
    models: list[ServedModel] = [ServedModel(id="pythia", name="Pythia", tools=False)]
    """The oracles there, the first being the default."""


class OracleProvider:
    label = "Oracle"

    def __init__(self, identity: str, settings: OracleSettings) -> None:
        self.id = identity
        self._settings = settings
        self._faults = ServerFaults(identity, settings, settings.base_url, address="where an oracle speaks")

    async def start(self) -> None:
        """Nothing to prepare."""

    async def stop(self) -> None:
        """Nothing to close: each call has a session of its own."""

    def models(self) -> Sequence[ModelInfo]:
        return [model.info(self.id) for model in self._settings.models]

    def problem(self) -> str | None:
        return None if self._settings.api_key else f"models.providers.{self.id}.apiKey is not set; an oracle wants one"

    async def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        begun = False
        # What aiohttp raises becomes a ProviderError that names the place and the cure, and no secret.
        with self._faults.reported(request.model, silent=TimeoutError, unconnected=aiohttp.ClientError):
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=self._settings.timeout_seconds)
            # A piece may end amid a character.
            decoder = codecs.getincrementaldecoder("utf-8")("replace")
            async with (
                aiohttp.ClientSession(timeout=timeout, headers=self._headers()) as session,
                session.post(self._settings.base_url, data=_question(request), allow_redirects=False) as response,
            ):
                await self._refuse(response, request.model)
                async for piece in response.content.iter_any():
                    begun = True
                    if text := decoder.decode(piece):
                        yield TextDelta(text)
            if rest := decoder.decode(b"", final=True):
                yield TextDelta(rest)
        yield self._faults.whole(Completed(stop_reason="stop"), request.model, has_begun=begun)

    def _headers(self) -> dict[str, str]:
        key = self._settings.api_key
        return {"Authorization": f"Bearer {key.unwrap() if key else ''}", **self._settings.sent_headers()}

    async def _refuse(self, response: aiohttp.ClientResponse, model: str) -> None:
        # A redirect is not followed, for the key would go with it: no answer either.
        if response.status != HTTPStatus.OK:
            kind = kind_of_status(response.status) or ProviderErrorKind.BAD_REQUEST
            message = f"the oracle answered {response.status}: {self._faults.told(await response.text(errors='replace'))}"
            raise self._faults.error(kind, message, model, retry_after(response.headers))


def _question(request: ModelRequest) -> str:
    last = request.messages[-1]
    return "".join(part.text for part in last.content if isinstance(part, Text)) if isinstance(last, UserMessage) else ""


class OraclePlugin:
    settings: ClassVar[type[BaseModel] | None] = OracleSettings

    def __init__(self, context: PluginContext) -> None:
        self._context = context

    @hookimpl
    def openclaw_register_providers(self, registrar: Registrar) -> None:
        for identity, settings in self._context.instances(OracleSettings).items():
            registrar.add_provider(OracleProvider(identity, settings))
