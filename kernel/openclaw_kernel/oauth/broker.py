"""The tokens of a running gateway: read where a login left them, refreshed before they end, one refresh at a time."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import aiohttp

from openclaw_config.keyrings import KeyringFailed
from openclaw_config.oauth import OAuthClient
from openclaw_config.secrets import Secret
from openclaw_kernel.api.audit import AuditAction, AuditEntry, AuditLog, AuditOrigin
from openclaw_kernel.api.errors import GatewayError, ProviderError, ProviderErrorKind
from openclaw_kernel.api.store import Store
from openclaw_kernel.oauth.flow import LONGEST_ANSWER, OAuthFailed, Tokens, read_tokens, refresh_form
from openclaw_kernel.oauth.tokens import TokenStore
from openclaw_kernel.tasks import TaskOwner

logger: Final = logging.getLogger(__name__)

ANSWER_SECONDS: Final = 20.0
_BY_COMMAND: Final = AuditOrigin(actor="gateway", surface="cli")
_OWNER: Final = "kernel"
_KEYRING_AGAIN_SECONDS: Final = 15.0
"""A keyring does not tell that it changed."""


class LoginDesk:
    """Implements `openclaw_kernel.api.Logins`."""

    def __init__(
        self, home: Path, store: Store, audit: AuditLog, *, now_ms: Callable[[], int], answer_seconds: float = ANSWER_SECONDS
    ) -> None:
        self._home = home
        self._store = store
        self._audit = audit
        self._now_ms = now_ms
        self._answer_seconds = answer_seconds
        self._tasks = TaskOwner("logins", _task_failed)
        self._logins: dict[str, _Login] = {}

    async def close(self) -> None:
        """Let a refresh that is under way end: a token that only we know of would be lost."""
        refreshes = [login.refresh for login in self._logins.values() if login.refresh is not None]
        if refreshes:
            await asyncio.wait(refreshes, timeout=2.0)
        await self._tasks.close(1.0)

    def problem(self, provider: str, client: OAuthClient) -> str | None:
        """Say why there is no token, as far as is known."""
        return self._login(provider, client).problem()

    async def token(self, provider: str, client: OAuthClient, *, refused: Secret | None = None) -> Secret:
        """Return a token that is valid now; raise `ProviderError`."""
        login = self._login(provider, client)
        tokens = await self._current(login)
        is_refused = refused is not None and tokens.access == refused
        if not is_refused and not tokens.is_stale(self._now_ms()):
            return tokens.access
        try:
            return (await self._refreshed(login, tokens)).access
        except ProviderError as error:
            # A server that is away is none of the token's business while it lasts.
            if error.kind is ProviderErrorKind.NETWORK and not is_refused and not tokens.is_over(self._now_ms()):
                return tokens.access
            raise

    def _login(self, provider: str, client: OAuthClient) -> _Login:
        login = self._logins.get(provider)
        if login is None or login.client != client:
            login = self._logins[provider] = _Login(provider, client, TokenStore(self._home, provider, client))
        return login

    async def _current(self, login: _Login) -> Tokens:
        if login.tokens is None or login.is_outdated():
            await self._read(login)
        if login.tokens is None:
            raise login.error(ProviderErrorKind.AUTH, login.fault or _not_logged_in(login.provider))
        return login.tokens

    async def _read(self, login: _Login) -> None:
        login.stamp, login.read_at = login.tokens_store.stamp(), time.monotonic()
        try:
            login.tokens = await asyncio.to_thread(login.tokens_store.load)
            login.fault = None
        except (OSError, KeyringFailed) as error:
            login.tokens = None
            reason = (error.strerror or str(error)).lower() if isinstance(error, OSError) else str(error)
            login.fault = f"the login of provider {login.provider!r} cannot be read from {login.tokens_store.place} ({reason})"
            return
        await self._record(login)

    async def _refreshed(self, login: _Login, stale: Tokens) -> Tokens:
        if login.refresh is None or login.refresh.done():
            login.refresh = self._tasks.spawn(f"refresh of {login.provider}", self._refresh(login, stale))
        # Whoever waits may be cancelled; the new token is kept all the same.
        outcome = await asyncio.shield(login.refresh)
        if isinstance(outcome, ProviderError):
            raise ProviderError(outcome.kind, outcome.message, provider=outcome.provider)
        return outcome

    async def _refresh(self, login: _Login, stale: Tokens) -> Tokens | ProviderError:
        await self._read(login)
        tokens = login.tokens
        if tokens is not None and tokens.access != stale.access and not tokens.is_stale(self._now_ms()):
            # Somebody logged in anew.
            return tokens
        if tokens is None or tokens.refresh is None:
            login.fault = login.fault or f"the login of provider {login.provider!r} has ended; {_again(login.provider)}"
            return login.error(ProviderErrorKind.AUTH, login.fault)
        try:
            status, body = await self._post(login.client.token_url, refresh_form(login.client, tokens.refresh))
            fresh = read_tokens(status, body, login_id=tokens.login_id, now_ms=self._now_ms(), before=tokens)
        except OAuthFailed as failed:
            return self._failed(login, failed)
        if not await self._keep(login, fresh):
            await self._read(login)
            return login.tokens or login.error(ProviderErrorKind.AUTH, login.fault or _not_logged_in(login.provider))
        return fresh

    def _failed(self, login: _Login, failed: OAuthFailed) -> ProviderError:
        if failed.temporary or failed.code == "odd-answer":
            return login.error(ProviderErrorKind.NETWORK, f"the token of provider {login.provider!r} cannot be refreshed: {failed}")
        login.fault = f"the login of provider {login.provider!r} is over: {failed}; {_again(login.provider)}"
        return login.error(ProviderErrorKind.AUTH, login.fault)

    async def _keep(self, login: _Login, fresh: Tokens) -> bool:
        """Return whether the login that was refreshed is still the one there is."""
        try:
            if not await asyncio.to_thread(login.tokens_store.renew, fresh):
                return False
        except (OSError, KeyringFailed) as error:
            # It works until the gateway ends; after that a person has to log in again.
            logger.warning("the new token of provider %r cannot be kept in %s: %s", login.provider, login.tokens_store.place, error)
        login.tokens, login.fault = fresh, None
        login.stamp = login.tokens_store.stamp()
        return True

    async def _post(self, url: str, form: Mapping[str, str]) -> tuple[int, bytes]:
        timeout = aiohttp.ClientTimeout(total=self._answer_seconds)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, trust_env=True) as session,
                session.post(url, data=form, headers={"Accept": "application/json"}, allow_redirects=False) as response,
            ):
                body = bytearray()
                async for piece in response.content.iter_any():
                    body += piece
                    if len(body) > LONGEST_ANSWER:
                        break
                return response.status, bytes(body)
        except TimeoutError:
            raise OAuthFailed("unreachable", "no answer from the authorization server in time", temporary=True) from None
        except (aiohttp.ClientError, OSError) as error:
            raise OAuthFailed("unreachable", f"no answer from the authorization server ({type(error).__name__})", temporary=True) from None

    async def _record(self, login: _Login) -> None:
        """Write down once that somebody logged in or out: the command that did has no part in the gateway's database."""
        login_id = "" if login.tokens is None else login.tokens.login_id
        if login_id == login.recorded:
            return
        key, subject = f"login:{login.tokens_store.path.stem}", f"provider:{login.provider}"

        def work(connection: sqlite3.Connection) -> None:
            row = connection.execute("SELECT value FROM kernel_key_value WHERE owner = ? AND key = ?", (_OWNER, key)).fetchone()
            if (row[0] if row is not None else "") == login_id:
                return
            action = AuditAction.LOGIN_COMPLETED if login_id else AuditAction.LOGIN_REMOVED
            connection.execute(
                "INSERT INTO kernel_key_value VALUES (?, ?, ?) ON CONFLICT (owner, key) DO UPDATE SET value = excluded.value",
                (_OWNER, key, login_id),
            )
            self._audit.append(connection, AuditEntry(action=action, origin=_BY_COMMAND, subject=subject))

        try:
            await self._store.write(work)
        except (GatewayError, sqlite3.Error) as error:
            logger.warning("the login of provider %r is not in the audit log yet: %s", login.provider, error)
            return
        login.recorded = login_id


class _Login:
    """What is known of the login of one provider."""

    def __init__(self, provider: str, client: OAuthClient, store: TokenStore) -> None:
        self.provider = provider
        self.client = client
        self.tokens_store = store
        self.tokens: Tokens | None = None
        self.stamp: tuple[int, int] | None = None
        self.read_at = 0.0
        self.fault: str | None = None
        self.refresh: asyncio.Task[Tokens | ProviderError] | None = None
        self.recorded: str | None = None

    def is_outdated(self) -> bool:
        """Tell whether somebody may have logged in or out since it was read."""
        if self.client.store == "keyring":
            return time.monotonic() - self.read_at > _KEYRING_AGAIN_SECONDS
        return self.tokens_store.stamp() != self.stamp

    def problem(self) -> str | None:
        """Say why there is no token, as far as is known."""
        if self.client.store == "file":
            stamp = self.tokens_store.stamp()
            if stamp is None:
                return _not_logged_in(self.provider)
            if stamp != self.stamp:
                # Somebody logged in since.
                return None
        return self.fault

    def error(self, kind: ProviderErrorKind, message: str) -> ProviderError:
        """Return what a provider raises."""
        return ProviderError(kind, message, provider=self.provider)


def _not_logged_in(provider: str) -> str:
    return f"provider {provider!r} is not logged in; run openclaw-kernel auth login {provider}"


def _again(provider: str) -> str:
    return f"run openclaw-kernel auth login {provider}"


def _task_failed(name: str, error: BaseException) -> None:
    logger.error("task %s failed", name, exc_info=error)
