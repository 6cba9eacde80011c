"""The provider: one client of the SDK for each instance, opened on the first call, closed at stop."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncGenerator, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from openclaw_kernel.api import (
    ModelEvent,
    ModelInfo,
    ModelRequest,
    PluginContext,
    ProviderError,
    ProviderErrorKind,
)
from openclaw_providers.anthropic.failures import cause_of, error_fields, kind_of, retry_after, shown, without_password, without_secrets
from openclaw_providers.anthropic.settings import KNOWN_MODELS, AnthropicModel, AnthropicSettings, model_info
from openclaw_providers.anthropic.wire import Reader, ThinkingStyle, parameters, style_of

if TYPE_CHECKING:
    from anthropic import APIError, AsyncAnthropic

_CONNECT_SECONDS: Final = 10.0
#: What the SDK and the reader raise on a stream of another form.
_ODD_FORM: Final = (AttributeError, KeyError, TypeError, ValueError)


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
        self._place = without_password(settings.base_url)
        self._known: dict[str, AnthropicModel] = {model.id: model for model in settings.models or KNOWN_MODELS}
        self._client: AsyncAnthropic | None = None
        self._opening = asyncio.Lock()

    async def start(self) -> None:
        """Nothing to prepare: the client is opened by the first call."""

    async def stop(self) -> None:
        """Close the client."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    def models(self) -> Sequence[ModelInfo]:
        """Return the configured models, or the known ones."""
        return tuple(model_info(self.id, model) for model in self._known.values())

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
            raise self._error(ProviderErrorKind.AUTH, problem, request.model)
        client = await self._open()
        from anthropic import APIError

        transport = _transport()
        reader = Reader(request.model)
        try:
            async with await client.messages.create(**self._parameters(request)) as events:
                async for event in events:
                    for made in reader.read(event):
                        yield made
        except APIError as error:
            raise self._translate(error, request.model) from error
        except transport.TimeoutException as error:
            raise self._silent(request.model) from error
        except transport.TransportError as error:
            raise self._unconnected(error, request.model) from error
        except _ODD_FORM as error:
            raise self._odd(f"wrote what is not of the API's form ({type(error).__name__})", request.model) from error
        if not reader.has_begun:
            raise self._odd("answered without a single piece of an answer", request.model)
        completed = reader.finish()
        if completed is None:
            message = f"{self._place} ended the answer before it was complete"
            raise self._error(ProviderErrorKind.NETWORK, message, request.model)
        yield completed

    def _parameters(self, request: ModelRequest) -> dict[str, Any]:
        model = self._known.get(request.model, AnthropicModel(id=request.model))
        style: ThinkingStyle | None = (model.thinking_style or style_of(model.id)) if model.reasoning else None
        limit = request.max_output_tokens or min(self._settings.max_output_tokens, model.max_tokens or 2**31)
        caching = self._settings.prompt_caching
        return parameters(request, provider=self.id, style=style, limit=limit, caching=caching)

    async def _open(self) -> AsyncAnthropic:
        async with self._opening:
            if self._client is None:
                # Importing the SDK takes the better part of a second: not on the loop.
                self._client = await asyncio.to_thread(self._new_client)
            return self._client

    def _headers(self) -> dict[str, str]:
        return {name: value.unwrap() for name, value in self._settings.headers.items()}

    def _new_client(self) -> AsyncAnthropic:
        from anthropic import AsyncAnthropic, DefaultAsyncHttpxClient, Timeout

        timeout = Timeout(self._settings.timeout_seconds, connect=_CONNECT_SECONDS)
        key = self._settings.api_key
        client = AsyncAnthropic(
            api_key=key.unwrap() if key is not None else "",
            base_url=self._settings.base_url,
            default_headers=self._headers(),
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
            return self._silent(model)
        if isinstance(error, APIConnectionError):
            return self._unconnected(error, model)
        error_type, told = error_fields(error.body)
        status = error.status_code if isinstance(error, APIStatusError) else 200
        if isinstance(error, APIStatusError) and error.response.is_redirect:
            return self._odd(f"redirects to {error.response.headers.get('location')}, where no key is sent", model)
        kind = kind_of(status, error_type, told)
        message = f"{self.label} answered {error_type or status}: {shown(told or error.message)}"
        if kind is ProviderErrorKind.AUTH:
            message += f"; check models.providers.{self.id}.apiKey and the account"
        after = retry_after(error.response.headers) if isinstance(error, APIStatusError) else None
        return self._error(kind, message, model, after)

    def _silent(self, model: str) -> ProviderError:
        seconds = f"{self._settings.timeout_seconds:g} s"
        message = f"{self._place} was silent for {seconds} (models.providers.{self.id}.timeoutSeconds)"
        return self._error(ProviderErrorKind.TIMEOUT, message, model)

    def _unconnected(self, error: Exception, model: str) -> ProviderError:
        cure = f"check models.providers.{self.id}.baseUrl and the network"
        message = f"no connection to {self._place} ({cause_of(error)}); {cure}"
        return self._error(ProviderErrorKind.NETWORK, message, model)

    def _odd(self, told: str, model: str) -> ProviderError:
        cure = f"check that models.providers.{self.id}.baseUrl is the address of the API, without /v1"
        return self._error(ProviderErrorKind.UNAVAILABLE, f"{self._place} {told}; {cure}", model)

    def _error(self, kind: ProviderErrorKind, message: str, model: str, after: float | None = None) -> ProviderError:
        settings = self._settings
        key, password = settings.api_key, urlsplit(settings.base_url).password or ""
        message = without_secrets(message, [key.unwrap() if key is not None else "", password, *self._headers().values()])
        return ProviderError(kind, message, provider=self.id, model=model, retry_after=after)
