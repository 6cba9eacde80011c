"""The provider: one client of the SDK for each instance, opened on the first call, closed at stop."""

from __future__ import annotations

import asyncio
import importlib
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from openclaw_kernel.api import (
    Logins,
    ModelEvent,
    ModelInfo,
    ModelRequest,
    PluginContext,
    ProviderError,
    ProviderErrorKind,
    Secret,
)
from openclaw_kernel.api.remote import OpenedOnce, ServedModel, ServerFaults, retry_after
from openclaw_providers.openai.failures import error_fields, kind_of, reset_of
from openclaw_providers.openai.settings import SERVERS, OpenAISettings, server_of
from openclaw_providers.openai.wire import Reader, parameters

if TYPE_CHECKING:
    from openai import APIError, AsyncOpenAI

_CONNECT_SECONDS: Final = 10.0
_LIST_AGAIN_SECONDS: Final = 60.0
#: What OpenAI lists beside models that chat.
_NOT_FOR_CHAT: Final = re.compile(
    r"audio|image|realtime|tts|transcribe|whisper|search|embedding|moderation|dall-e|instruct|sora|babbage|davinci"
)


def _transport() -> ModuleType:
    """Return the HTTP library under the SDK (httpx or httpx2): its errors come through while a stream is read."""
    from openai import Timeout

    # The SDK gives the class its own name as module; only the class's functions still know where they are from.
    return importlib.import_module(Timeout.__init__.__module__.partition(".")[0])


class OpenAIProvider:
    """One instance in `models.providers`."""

    def __init__(self, identity: str, settings: OpenAISettings, context: PluginContext) -> None:
        self.id = identity
        self._settings = settings
        self._context = context
        self._server = server_of(identity)
        self.label = self._server.label
        self._url = settings.base_url or self._server.base_url or ""
        self._faults = ServerFaults(identity, settings, self._url, address="the address of the API up to /v1", reach="that the server runs")
        self._models = [self._info(model) for model in settings.models or self._server.models]
        self._client = OpenedOnce(self._new_client)
        self._listing: asyncio.Task[None] | None = None
        self._unlisted: str | None = None

    async def start(self) -> None:
        """Begin to ask the server for its models, where the config names none."""
        if not self._settings.models and (self._settings.oauth is not None or self._missing_setting() is None):
            self._listing = self._context.spawn(f"{self.id}: list models", self._list_models())

    async def stop(self) -> None:
        """Close the client."""
        if self._listing is not None:
            self._listing.cancel()
            self._listing = None
        await self._client.close()

    def models(self) -> Sequence[ModelInfo]:
        """Return the configured models, or the known ones and those that the server listed."""
        return tuple(self._models)

    def problem(self) -> str | None:
        """Say what is missing: the key, the server, or a model."""
        missing = self._missing_setting()
        if missing is not None:
            return missing
        if not self._models:
            reason = self._unlisted or f"{self._faults.place} has not listed its models yet"
            return f"{reason}; or name them in models.providers.{self.id}.models"
        return None

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        """Call the model; each failure is a `ProviderError`, and nothing is tried twice."""
        missing = self._missing_setting()
        if missing is not None:
            kind = ProviderErrorKind.AUTH if self._url else ProviderErrorKind.BAD_REQUEST
            raise self._faults.error(kind, missing, request.model)
        client = await self._client.get()
        from openai import APIError

        transport = _transport()
        reasoning = any(model.id == request.model and model.reasoning for model in self._models)
        wanted = parameters(request, self._server, reasoning=reasoning, usage=self._settings.stream_usage)
        # The SDK walks every message by its declared type, milliseconds for a conversation of a few turns; ours is in wire form already.
        body = wanted.pop("extra_body", {}) | {name: wanted.pop(name) for name in ("messages", "tools") if name in wanted}
        reader = Reader(request.model)
        with self._faults.reported(request.model, silent=transport.TimeoutException, unconnected=transport.TransportError):
            try:
                async with await self._begin(client, body, wanted) as chunks:
                    async for chunk in chunks:
                        for event in reader.read(chunk):
                            yield event
            except APIError as error:
                raise self._translate(error, request.model) from error
        yield self._faults.whole(reader.finish(), request.model, has_begun=reader.has_begun)

    async def _begin(self, client: AsyncOpenAI, body: Mapping[str, Any], wanted: Mapping[str, Any]) -> Any:
        """Begin the answer; a token that the server refuses is refreshed, and it is asked once more."""
        from openai import AuthenticationError

        async def begin(token: Secret | None) -> Any:
            self._faults.token = token
            headers = {} if token is None else {"Authorization": f"Bearer {token.unwrap()}"}
            return await client.chat.completions.create(messages=[], extra_body=body, extra_headers=headers, **wanted)

        token = await self._access_token()
        try:
            return await begin(token)
        except AuthenticationError:
            if token is None:
                raise
            return await begin(await self._access_token(refused=token))

    async def _access_token(self, *, refused: Secret | None = None) -> Secret | None:
        oauth = self._settings.oauth
        return None if oauth is None else await self._context.service(Logins).token(self.id, oauth, refused=refused)

    def _new_client(self) -> AsyncOpenAI:
        from openai import AsyncOpenAI, DefaultAsyncHttpxClient, Timeout

        timeout = Timeout(self._settings.timeout_seconds, connect=_CONNECT_SECONDS)
        key = self._settings.api_key
        client = AsyncOpenAI(
            # The SDK would take a key from the environment: a server that needs none must not be sent it.
            api_key=key.unwrap() if key is not None else "none",
            base_url=self._url,
            default_headers=self._settings.sent_headers(),
            timeout=timeout,
            # Whether to try again is decided by who can also choose another model.
            max_retries=0,
            # Headers with credentials would follow a redirect to any other host.
            http_client=DefaultAsyncHttpxClient(follow_redirects=False, timeout=timeout),
        )
        # The SDK loads its parts on first access.
        _ = client.chat.completions
        return client

    async def _list_models(self) -> None:
        """Ask until the server answers: one on this machine may be started after the gateway."""
        from openclaw_providers.openai.listing import ListingFailed, list_models

        while True:
            try:
                key = await self._access_token() or self._settings.api_key
                self._take_models(
                    await list_models(
                        self._url, key.unwrap() if key is not None else None, self._settings.sent_headers(), self._faults.told
                    )
                )
                if self._models:
                    return
                kind, message = None, f"{self._faults.place} has no model; load one there"
            except (ListingFailed, ProviderError) as error:
                kind, message = error.kind, self._faults.clean(error.message)
            if message != self._unlisted:
                self._unlisted = message
                self._context.logger.info("%s: %s", self.id, message)
            if kind is ProviderErrorKind.AUTH and self._settings.oauth is None:
                return
            await asyncio.sleep(_LIST_AGAIN_SECONDS)

    def _take_models(self, listed: Sequence[str]) -> None:
        known = {model.id for model in self._models}
        found = [item for item in listed if item not in known and not _NOT_FOR_CHAT.search(item)]
        self._models += [self._info(ServedModel(id=item)) for item in found]
        if self._models:
            self._unlisted = None

    def _info(self, model: ServedModel) -> ModelInfo:
        return model.info(self.id, price=0.0 if self._server.free else None)

    def _missing_setting(self) -> str | None:
        where = f"models.providers.{self.id}"
        if not self._url:
            known = ", ".join(SERVERS)
            return f"{where}.baseUrl is not set; set it to the server's URL up to /v1, or use one of the ids {known}"
        if self._settings.oauth is not None:
            return self._context.service(Logins).problem(self.id, self._settings.oauth)
        variable = self._server.key_variable
        # Another URL under a known id is a server of one's own, which may ask for no key.
        if variable is None or self._settings.api_key is not None or self._settings.base_url is not None:
            return None
        return f"{where}.apiKey is not set; set it to ${{env:{variable}}} and export {variable}"

    def _translate(self, error: APIError, model: str) -> ProviderError:
        from openai import APIConnectionError, APIStatusError, APITimeoutError

        if isinstance(error, APITimeoutError):
            return self._faults.silent(model)
        if isinstance(error, APIConnectionError):
            return self._faults.unconnected(error, model)
        code, told = error_fields(error.body)
        status = error.status_code if isinstance(error, APIStatusError) else None
        if isinstance(error, APIStatusError) and error.response.is_redirect:
            return self._faults.odd(f"redirects to {error.response.headers.get('location')}, where no key is sent", model)
        kind = kind_of(status, code, told)
        message = f"{self.label} answered {status or 'in the stream'}: {self._faults.told(told or error.message)}"
        if kind is ProviderErrorKind.AUTH:
            message += f"; check {'the login' if self._settings.oauth else f'models.providers.{self.id}.apiKey'} and the account"
        after = retry_after(error.response.headers, otherwise=reset_of) if isinstance(error, APIStatusError) else None
        return self._faults.error(kind, message, model, after)
