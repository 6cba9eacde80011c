"""A login from the command line: waits as long as the person takes, and asks no oftener than the server wants."""

from __future__ import annotations

import http.client
import time
import urllib.request
import uuid
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import urlencode, urlsplit

from openclaw_config.oauth import OAuthClient
from openclaw_kernel.oauth.flow import (
    LONGEST_ANSWER,
    DeviceCode,
    OAuthFailed,
    Polling,
    Tokens,
    device_form,
    poll_form,
    read_device_code,
    read_tokens,
)

ANSWER_SECONDS: Final = 20.0


def log_in(
    client: OAuthClient,
    show: Callable[[DeviceCode], None],
    *,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
    answer_seconds: float = ANSWER_SECONDS,
) -> Tokens:
    """Begin a login, show the person what to do, and wait for the end; raise `OAuthFailed`."""
    code = read_device_code(*_post(client.device_authorization_url, device_form(client), answer_seconds))
    polling = Polling(code, clock())
    show(code)
    login_id = uuid.uuid4().hex
    failed: OAuthFailed | None = None
    while True:
        sleep(polling.wait(clock(), failed))
        try:
            status, body = _post(client.token_url, poll_form(client, code), answer_seconds)
            return read_tokens(status, body, login_id=login_id, now_ms=time.time_ns() // 1_000_000)
        except OAuthFailed as error:
            failed = error


def _post(url: str, form: Mapping[str, str], seconds: float) -> tuple[int, bytes]:
    request = urllib.request.Request(  # noqa: S310 - the config takes https, and http to this machine
        url,
        data=urlencode(form).encode(),
        headers={"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"},
    )
    deadline = time.monotonic() + seconds
    try:
        with _opener().open(request, timeout=seconds) as response:
            body = bytearray()
            while len(body) <= LONGEST_ANSWER:
                piece = response.read1(LONGEST_ANSWER)
                if not piece:
                    if response.length:
                        raise http.client.IncompleteRead(bytes(body), response.length)
                    break
                body += piece
                if time.monotonic() > deadline:
                    raise TimeoutError
            return response.status, bytes(body)
    except (OSError, http.client.HTTPException) as error:
        # Also `URLError`, which may hold the address, but never what was sent.
        reason = getattr(error, "reason", error)
        told = "no answer in time" if isinstance(reason, TimeoutError) else getattr(reason, "strerror", None) or type(reason).__name__
        host = urlsplit(url).netloc
        raise OAuthFailed("unreachable", f"no answer from {host} ({str(told).lower()})", temporary=True) from None


def _opener() -> urllib.request.OpenerDirector:
    """Return what opens a URL and follows no redirect: what is sent is for this address alone."""
    opener = urllib.request.OpenerDirector()
    for handler in (urllib.request.ProxyHandler(), urllib.request.HTTPHandler(), urllib.request.HTTPSHandler()):
        opener.add_handler(handler)
    return opener
