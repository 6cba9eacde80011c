"""The tokens of a running gateway: refreshed in time, once however many ask, and never lost."""

from __future__ import annotations

import asyncio
import json
import stat
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import keyring
import pytest
from keyrings.alt.file import PlaintextKeyring

from openclaw_config.oauth import OAuthClient
from openclaw_kernel.api import ProviderError, ProviderErrorKind
from openclaw_kernel.audit import table
from openclaw_kernel.audit.trail import AuditTrail
from openclaw_kernel.lock import StateLock
from openclaw_kernel.oauth.broker import LoginDesk
from openclaw_kernel.oauth.login import log_in
from openclaw_kernel.oauth.tokens import TokenStore
from openclaw_kernel.store.sqlite import SqliteStore
from tests.emulators.oauth_control import AuthorizationProcess


class Clock:
    """Unix milliseconds, moved by hand."""

    def __init__(self) -> None:
        self.ahead_ms = 0

    def __call__(self) -> int:
        return time.time_ns() // 1_000_000 + self.ahead_ms


class Bench:
    """A login desk with its store and a provider `acme`."""

    def __init__(self, home: Path, server: AuthorizationProcess, **section: Any) -> None:
        self.home = home
        self.client = OAuthClient.model_validate(server.section(**section))
        self.clock = Clock()
        self.store = SqliteStore(home / "state.sqlite3")
        self.trail = AuditTrail(self.store, home=home, now_ms=self.clock)
        self.desk = LoginDesk(home, self.store, self.trail, now_ms=self.clock, answer_seconds=1.0)
        self.tokens = TokenStore(home, "acme", self.client)

    async def log_in(self) -> str:
        """Log in as the command does; return the access token."""
        found = await asyncio.to_thread(log_in, self.client, lambda _: None)
        self.tokens.save(found)
        return found.access.unwrap()

    async def token(self, **more: Any) -> str:
        return (await self.desk.token("acme", self.client, **more)).unwrap()

    async def fails(self, **more: Any) -> ProviderError:
        with pytest.raises(ProviderError) as failed:
            await self.token(**more)
        return failed.value

    async def audited(self) -> list[tuple[str, str | None]]:
        found = await self.store.read(lambda connection: table.rows_after(connection, 0, 100))
        return [(row.action, row.subject) for row in found]


@pytest.fixture
async def bench(tmp_path: Path, server: AuthorizationProcess) -> AsyncIterator[Bench]:
    await server.configure(approved=True)
    made = Bench(tmp_path, server)
    # As in a running gateway, whose lock of the folder others must not wait for.
    lock = StateLock(tmp_path)
    lock.acquire()
    await made.store.open({})
    yield made
    await made.desk.close()
    await made.store.close()
    lock.release()


async def refreshes(server: AuthorizationProcess) -> int:
    return sum(request["form"].get("grant_type") == "refresh_token" for request in await server.requests())


async def test_without_a_login_one_is_told_how_to_log_in(bench: Bench) -> None:
    failed = await bench.fails()
    assert failed.kind is ProviderErrorKind.AUTH
    assert failed.message == "provider 'acme' is not logged in; run openclaw-kernel auth login acme"
    assert bench.desk.problem("acme", bench.client) == failed.message


async def test_the_token_of_a_login_is_used_while_it_lasts(bench: Bench, server: AuthorizationProcess) -> None:
    access = await bench.log_in()
    assert bench.desk.problem("acme", bench.client) is None
    assert [await bench.token() for _ in range(3)] == [access] * 3
    assert await refreshes(server) == 0
    assert stat.S_IMODE(bench.tokens.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(bench.tokens.path.parent.stat().st_mode) == 0o700


async def test_it_is_refreshed_before_its_end_and_the_new_one_is_kept(bench: Bench, server: AuthorizationProcess) -> None:
    access = await bench.log_in()
    bench.clock.ahead_ms = 3_545_000
    fresh = await bench.token()
    assert fresh != access
    assert [fresh] == await server.access_tokens()
    again = LoginDesk(bench.home, bench.store, bench.trail, now_ms=bench.clock)
    assert (await again.token("acme", bench.client)).unwrap() == fresh
    await again.close()
    assert await refreshes(server) == 1


async def test_many_who_ask_at_once_share_one_refresh(bench: Bench, server: AuthorizationProcess) -> None:
    await bench.log_in()
    bench.clock.ahead_ms = 3_700_000
    found = await asyncio.gather(*(bench.token() for _ in range(20)))
    assert len(set(found)) == 1
    assert await refreshes(server) == 1


async def test_a_refused_token_is_refreshed_once_for_all_who_were_refused(bench: Bench, server: AuthorizationProcess) -> None:
    await bench.log_in()
    refused = await bench.desk.token("acme", bench.client)
    await server.revoke()
    found = await asyncio.gather(*(bench.token(refused=refused) for _ in range(5)))
    assert len({*found}) == 1
    assert await server.access_tokens() == [found[0]]
    # Whoever comes late with the old one gets the new one.
    assert await bench.token(refused=refused) == found[0]
    assert await refreshes(server) == 1


async def test_whoever_waits_may_be_cancelled_and_the_new_token_is_not_lost(bench: Bench, server: AuthorizationProcess) -> None:
    await bench.log_in()
    bench.clock.ahead_ms = 3_700_000
    before = len(await server.requests())
    await server.script("wait")
    waiting = asyncio.ensure_future(bench.token())
    await server.requests(count=before + 1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await server.release()
    assert [await bench.token()] == await server.access_tokens()
    assert await refreshes(server) == 1


async def test_a_logout_during_a_refresh_is_not_undone_by_it(bench: Bench, server: AuthorizationProcess) -> None:
    await bench.log_in()
    bench.clock.ahead_ms = 3_700_000
    before = len(await server.requests())
    await server.script("wait")
    waiting = asyncio.create_task(bench.fails())
    await server.requests(count=before + 1)
    assert bench.tokens.remove()
    await server.release()
    assert (await waiting).message == "provider 'acme' is not logged in; run openclaw-kernel auth login acme"
    assert not bench.tokens.path.exists()
    assert [action for action, _ in await bench.audited()] == ["login.completed", "login.removed"]


async def test_a_login_during_a_refresh_of_the_one_before_stays(bench: Bench, server: AuthorizationProcess) -> None:
    await bench.log_in()
    bench.clock.ahead_ms = 3_700_000
    before = len(await server.requests())
    await server.script("wait")
    waiting = asyncio.create_task(bench.token())
    await server.requests(count=before + 1)
    access = await bench.log_in()
    await server.release()
    assert await waiting == access
    bench.clock.ahead_ms = 0
    kept = bench.tokens.load()
    assert kept is not None
    assert kept.access.unwrap() == await bench.token() == access


@pytest.mark.parametrize("how", ["error", "hang", "half", "odd", "redirect"])
async def test_while_the_token_lasts_a_server_that_is_away_harms_nobody(bench: Bench, server: AuthorizationProcess, how: str) -> None:
    access = await bench.log_in()
    bench.clock.ahead_ms = 3_545_000
    await server.script(how)
    assert await bench.token() == access
    assert await bench.token() != access
    assert not [request for request in await server.requests() if request["path"] == "/elsewhere"]


@pytest.mark.parametrize("how", ["error", "hang", "half", "odd"])
async def test_after_its_end_the_failure_is_told_and_the_next_call_tries_again(
    bench: Bench, server: AuthorizationProcess, how: str
) -> None:
    await bench.log_in()
    bench.clock.ahead_ms = 3_700_000
    await server.script(how)
    failed = await bench.fails()
    assert failed.kind is ProviderErrorKind.NETWORK
    assert failed.message.startswith("the token of provider 'acme' cannot be refreshed: ")
    assert [await bench.token()] == await server.access_tokens()


async def test_a_login_that_the_server_has_ended_asks_for_a_new_one(bench: Bench, server: AuthorizationProcess) -> None:
    await bench.log_in()
    await bench.token()
    await server.revoke(refresh=True)
    bench.clock.ahead_ms = 3_700_000
    failed = await bench.fails()
    assert failed.kind is ProviderErrorKind.AUTH
    assert failed.message.endswith("run openclaw-kernel auth login acme")
    assert bench.desk.problem("acme", bench.client) == failed.message
    bench.clock.ahead_ms = 0
    access = await bench.log_in()
    assert bench.desk.problem("acme", bench.client) is None
    assert await bench.token() == access


async def test_the_words_of_the_server_hold_no_token(bench: Bench, server: AuthorizationProcess) -> None:
    await bench.log_in()
    before = bench.tokens.load()
    bench.clock.ahead_ms = 3_700_000
    await bench.token()
    assert before is not None
    assert before.refresh is not None
    bench.tokens.save(before)
    # The emulator tells back the token that was used twice.
    failed = await bench.fails()
    assert failed.kind is ProviderErrorKind.AUTH
    assert before.refresh.unwrap() not in failed.message


async def test_a_token_without_refresh_works_to_its_end(bench: Bench, server: AuthorizationProcess) -> None:
    await server.configure(refreshes=False)
    access = await bench.log_in()
    bench.clock.ahead_ms = 3_000_000
    assert await bench.token() == access
    bench.clock.ahead_ms = 3_700_000
    assert "has ended; run openclaw-kernel auth login acme" in (await bench.fails()).message


async def test_tokens_of_one_server_are_not_sent_to_another(bench: Bench, server: AuthorizationProcess) -> None:
    await bench.log_in()
    other = OAuthClient.model_validate(server.section(tokenUrl=f"{server.url}/elsewhere"))
    bench.clock.ahead_ms = 3_700_000
    with pytest.raises(ProviderError, match="is not logged in"):
        await bench.desk.token("acme", other)
    assert not [request for request in await server.requests() if request["path"] == "/elsewhere"]


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"v": 2}', '{"v": 1}', "\ud800"])
async def test_a_file_that_is_no_login_is_none(bench: Bench, text: str) -> None:
    await bench.log_in()
    bench.tokens.path.write_bytes(text.encode("utf-8", "surrogatepass"))
    assert (await bench.fails()).kind is ProviderErrorKind.AUTH


async def test_a_new_token_that_cannot_be_kept_works_all_the_same(
    bench: Bench, server: AuthorizationProcess, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.log_in()
    await bench.token()
    bench.clock.ahead_ms = 3_700_000
    text = bench.tokens.path.read_text()

    def full(_self: TokenStore, _tokens: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(TokenStore, "renew", full)
    fresh = await bench.token()
    assert [fresh] == await server.access_tokens()
    assert bench.tokens.path.read_text() == text
    assert "cannot be kept" in caplog.text
    assert fresh not in caplog.text


async def test_who_logged_in_and_out_is_written_down_once(bench: Bench) -> None:
    assert await bench.audited() == []
    await bench.log_in()
    for _ in range(2):
        await bench.token()
    bench.clock.ahead_ms = 3_700_000
    await bench.token()
    again = LoginDesk(bench.home, bench.store, bench.trail, now_ms=bench.clock)
    await again.token("acme", bench.client)
    await again.close()
    assert await bench.audited() == [("login.completed", "provider:acme")]
    assert bench.tokens.remove()
    await bench.fails()
    assert await bench.audited() == [("login.completed", "provider:acme"), ("login.removed", "provider:acme")]


async def test_the_keyring_can_keep_them(tmp_path: Path, server: AuthorizationProcess) -> None:
    chosen, before = PlaintextKeyring(), keyring.get_keyring()
    chosen.file_path = str(tmp_path / "keyring.cfg")
    keyring.set_keyring(chosen)
    try:
        await server.configure(approved=True)
        bench = Bench(tmp_path, server, store="keyring")
        await bench.store.open({})
        access = await bench.log_in()
        assert await bench.token() == access
        bench.clock.ahead_ms = 3_700_000
        fresh = await bench.token()
        assert json.loads(chosen.get_password("openclaw-kernel", "oauth/acme"))["accessToken"] == fresh
        assert not [path for path in (tmp_path / "secrets").rglob("*") if path.is_file()]
        assert bench.tokens.remove()
        assert not bench.tokens.remove()
        await bench.desk.close()
        await bench.store.close()
    finally:
        keyring.set_keyring(before)
