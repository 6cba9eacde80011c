"""The provider: one client of the SDK for each instance, opened on the first call, closed at stop."""

from __future__ import annotations

import importlib
from collections.abc import AsyncGenerator, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from openclaw_kernel.api import (
    ModelEvent,
    ModelInfo,
    ModelRequest,
    PluginContext,
    ProviderError,
    ProviderErrorKind,
)
from openclaw_kernel.api.remote import OpenedOnce, ServerFaults, retry_after
from openclaw_providers.anthropic.failures import error_fields, kind_of, reset_of
from openclaw_providers.anthropic.settings import KNOWN_MODELS, AnthropicModel, AnthropicSettings
from openclaw_providers.anthropic.wire import Reader, ThinkingStyle, parameters, style_of

if TYPE_CHECKING:
    from anthropic import APIError, AsyncAnthropic

_CONNECT_SECONDS: Final = 10.0


def _transport() -> ModuleType:
    """Return the HTTP library under the SDK (httpx or httpx2): its errors come through while a stream is read."""
    from anthropic import Timeout

    # The SDK gives the class its own name as module; only the class's functions still know where they are from.
    return importlib.import_module(Timeout.__init__.__module__.partition(".")[0])


class AnthropicProvider:
    """One instance in `models.providers`."""

    label = "Anthropic"

    def __init__(self, identity: str, settings: AnthropicSettings, context: PluginContext) -> None:
        self.id = identity
        self._settings = settings
        self._context = context
        self._faults = ServerFaults(identity, settings, settings.base_url, address="the address of the API, without /v1")
        self._known: dict[str, AnthropicModel] = {model.id: model for model in settings.models or KNOWN_MODELS}
        self._client = OpenedOnce(self._new_client)

    async def start(self) -> None:
        """Nothing to prepare: the client is opened by the first call."""

    async def stop(self) -> None:
        """Close the client."""
        await self._client.close()

    def models(self) -> Sequence[ModelInfo]:
        """Return the configured models, or the known ones."""
        return tuple(model.info(self.id) for model in self._known.values())

    def problem(self) -> str | None:
        """Say where the key is missing."""
        if self._settings.api_key is not None:
            return None
        where = f"models.providers.{self.id}.apiKey"
        return f"{where} is not set; set it to ${{env:ANTHROPIC_API_KEY}} and export ANTHROPIC_API_KEY"

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        """Call the model; each failure is a `ProviderError`, and nothing is tried twice."""
        problem = self.problem()
        if problem is not None:
            raise self._faults.error(ProviderErrorKind.AUTH, problem, request.model)
        client = await self._client.get()
        from anthropic import APIError

        transport = _transport()
        reader = Reader(request.model)
        with self._faults.reported(request.model, silent=transport.TimeoutException, unconnected=transport.TransportError):
            try:
                async with await client.messages.create(**self._parameters(request)) as events:
                    async for event in events:
                        for made in reader.read(event):
                            yield made
            except APIError as error:
                raise self._translate(error, request.model) from error
        yield self._faults.whole(reader.finish(), request.model, has_begun=reader.has_begun)

    def _parameters(self, request: ModelRequest) -> dict[str, Any]:
        model = self._known.get(request.model, AnthropicModel(id=request.model))
        style: ThinkingStyle | None = (model.thinking_style or style_of(model.id)) if model.reasoning else None
        limit = request.max_output_tokens or min(self._settings.max_output_tokens, model.max_tokens or 2**31)
        caching = self._settings.prompt_caching
        return parameters(request, provider=self.id, style=style, limit=limit, caching=caching)

    def _new_client(self) -> AsyncAnthropic:
        from anthropic import AsyncAnthropic, DefaultAsyncHttpxClient, Timeout

        timeout = Timeout(self._settings.timeout_seconds, connect=_CONNECT_SECONDS)
        key = self._settings.api_key
        client = AsyncAnthropic(
            api_key=key.unwrap() if key is not None else "",
            base_url=self._settings.base_url,
            default_headers=self._settings.sent_headers(),
            timeout=timeout,
            # Whether to try again is decided by who can also choose another model.
            max_retries=0,
            # The key's header would follow a redirect to any other host.
            http_client=DefaultAsyncHttpxClient(follow_redirects=False, timeout=timeout),
        )
        # The SDK loads its parts on first access.
        _ = client.messages
        return client

    def _translate(self, error: APIError, model: str) -> ProviderError:
        from anthropic import APIConnectionError, APIStatusError, APITimeoutError

        if isinstance(error, APITimeoutError):
            return self._faults.silent(model)
        if isinstance(error, APIConnectionError):
            return self._faults.unconnected(error, model)
        error_type, told = error_fields(error.body)
        status = error.status_code if isinstance(error, APIStatusError) else 200
        if isinstance(error, APIStatusError) and error.response.is_redirect:
            return self._faults.odd(f"redirects to {error.response.headers.get('location')}, where no key is sent", model)
        kind = kind_of(status, error_type, told)
        message = f"{self.label} answered {error_type or status}: {self._faults.told(told or error.message)}"
        if kind is ProviderErrorKind.AUTH:
            message += f"; check models.providers.{self.id}.apiKey and the account"
        after = retry_after(error.response.headers, otherwise=reset_of) if isinstance(error, APIStatusError) else None
        return self._faults.error(kind, message, model, after)
