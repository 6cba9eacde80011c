"""Ask a server which models it has.

Without the SDK: this happens when the gateway starts, and importing the SDK costs more than all of the gateway.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

import aiohttp

from openclaw_kernel.api import ProviderErrorKind
from openclaw_kernel.api.remote import cause_of, without_password
from openclaw_providers.openai.failures import error_fields, kind_of

_TIMEOUT: Final = aiohttp.ClientTimeout(total=30, connect=10)
_OK: Final = 200
_LONGEST_BYTES: Final = 8 * 1024 * 1024


class ListingFailed(Exception):
    """The server did not list its models."""

    def __init__(self, kind: ProviderErrorKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


async def list_models(url: str, key: str | None, headers: Mapping[str, str], shown: Callable[[str], str]) -> list[str]:
    """Return the ids that `GET {url}/models` lists; raise `ListingFailed`, what the server said in it as `shown` returns it."""
    place = without_password(url)
    sent = {**({"Authorization": f"Bearer {key}"} if key is not None else {}), **headers}
    try:
        async with (
            aiohttp.ClientSession(timeout=_TIMEOUT, trust_env=True) as session,
            # A key must not follow a redirect to another host.
            session.get(f"{url.rstrip('/')}/models", headers=sent, allow_redirects=False) as response,
        ):
            status = response.status
            body: Any = json.loads(await _read(response))
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise ListingFailed(ProviderErrorKind.NETWORK, f"no list of models from {place} ({shown(cause_of(error))})") from error
    listed = body.get("data") if isinstance(body, dict) else None
    if status != _OK or not isinstance(listed, list):
        code, told = error_fields(body)
        raise ListingFailed(kind_of(status, code, told), f"{place}/models answered {status}: {shown(told) or 'no list'}")
    return [str(item["id"]) for item in listed if isinstance(item, dict) and item.get("id")]


async def _read(response: aiohttp.ClientResponse) -> bytes:
    read = bytearray()
    async for piece in response.content.iter_any():
        read += piece
        if len(read) > _LONGEST_BYTES:
            raise ValueError("the list is longer than 8 MiB")
    return bytes(read)
