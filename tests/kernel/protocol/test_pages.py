"""Sessions of the chat page: opened by a code once, ended by time and by a changed credential, never more than reading and writing."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from openclaw_kernel.api import AuditEntry, InvalidRequest, effective_scopes
from openclaw_kernel.protocol.auth import PageGrant
from openclaw_kernel.protocol.handshake import PAGE_SCOPES, Accept, Handshake, Peer
from openclaw_kernel.protocol.limiter import FailureLimiter
from openclaw_kernel.protocol.pages import SESSION_SECONDS, PageSessions
from tests.kernel.protocol.transcript import Clock, Gate, connect_params, refused, request

HOST = "127.0.0.1:18789"
ORIGIN = f"http://{HOST}"


class Standing:
    """Page sessions with a store that keeps one text."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.saved: str | None = None
        self.signed_in: list[str] = []
        self.pages = self.started(b"token:first")

    def started(self, key: bytes) -> PageSessions:
        """The sessions after a start with this credential."""
        pages = PageSessions(limiter=FailureLimiter(), now_ms=self.clock, save=self._save, key=key)
        pages.load(self.saved)
        return pages

    async def _save(self, text: str, entry: AuditEntry) -> None:
        self.saved = text
        self.signed_in.append(entry.origin.actor)

    async def open(self) -> str:
        """A cookie."""
        code, _ = self.pages.mint_code()
        cookie = await self.pages.exchange(asking(), code)
        assert cookie is not None
        return cookie


def asking(origin: str | None = ORIGIN) -> web.Request:
    """A request as the listener would see it."""
    headers = {"Host": HOST} | ({} if origin is None else {"Origin": origin})
    return make_mocked_request("POST", "/auth/exchange", headers=headers)


def let_in(pages: PageSessions, cookie: str) -> bool:
    """Whether a page with this cookie is known."""
    return pages.grant({"openclaw_session": cookie}, ORIGIN, HOST) is not None


async def test_a_session_survives_a_restart_and_its_cookie_is_not_kept() -> None:
    standing = Standing()
    cookie = await standing.open()
    assert standing.saved is not None
    assert cookie not in standing.saved
    assert let_in(standing.started(b"token:first"), cookie)


async def test_a_changed_credential_ends_every_session() -> None:
    standing = Standing()
    cookie = await standing.open()
    assert not let_in(standing.started(b"token:second"), cookie)
    assert not let_in(standing.started(b"password:first"), cookie)


@pytest.mark.parametrize("kept", ["[", "5", "[5]", '{"x": "soon"}', '{"x": 1e999}'])
async def test_of_damaged_sessions_none_is_taken_and_a_new_one_opens(kept: str) -> None:
    standing = Standing()
    standing.saved = kept
    standing.pages = standing.started(b"token:first")
    assert let_in(standing.pages, await standing.open())


async def test_a_session_ends_after_thirty_days() -> None:
    standing = Standing()
    cookie = await standing.open()
    standing.clock.now += SESSION_SECONDS * 1000 - 1
    assert let_in(standing.pages, cookie)
    standing.clock.now += 1
    assert not let_in(standing.pages, cookie)


async def test_codes_and_sessions_are_bounded_the_oldest_give_way() -> None:
    standing = Standing()
    first, _ = standing.pages.mint_code()
    for _ in range(32):
        standing.pages.mint_code()
    assert await standing.pages.exchange(asking(), first) is None
    oldest = await standing.open()
    for _ in range(100):
        await standing.open()
    assert not let_in(standing.pages, oldest)


async def test_wrong_codes_lock_out_and_say_for_how_long() -> None:
    standing = Standing()
    for _ in range(10):
        assert await standing.pages.exchange(asking(), "wrong") is None
    code, _ = standing.pages.mint_code()
    with pytest.raises(InvalidRequest) as refusal:
        await standing.pages.exchange(asking(), code)
    assert refusal.value.retry_after_ms == 300_000


@pytest.mark.parametrize("origin", [None, "null", "http://[", "http://127.0.0.1:1", "http://evil.example"])
async def test_a_code_is_not_used_up_by_a_foreign_page(origin: str | None) -> None:
    standing = Standing()
    code, _ = standing.pages.mint_code()
    with pytest.raises(InvalidRequest):
        await standing.pages.exchange(asking(origin), code)
    assert await standing.pages.exchange(asking(), code)


def page_handshake(**params: Any) -> list[Any]:
    """A handshake of a page with a live session."""
    gate = Gate()
    peer = Peer(address="127.0.0.1", direct_local=True, origin=ORIGIN, page=PageGrant("a"))
    handshake = Handshake(peer=peer, verifier=gate.verifier, phase=lambda: gate.phase, now_ms=gate.clock)
    return handshake.receive(request("connect", connect_params("webchat-ui", "webchat", auth={}, **params)))


def test_a_page_is_no_node() -> None:
    error, _ = refused(page_handshake(role="node", scopes=["operator.write"]))
    assert error["code"] == "NOT_PAIRED"


@pytest.mark.parametrize(
    ("asked", "granted"),
    [
        (None, ("operator.read", "operator.write")),
        ([], ()),
        (["operator.admin"], PAGE_SCOPES),
        (["operator.write", "nonsense"], ("operator.write",)),
        (["operator.approvals", "operator.pairing"], ()),
    ],
)
def test_a_page_never_gets_more_than_reading_and_writing(asked: list[str] | None, granted: tuple[str, ...]) -> None:
    (action,) = page_handshake(**({"scopes": asked} if asked is not None else {"scopes": None}))
    assert isinstance(action, Accept)
    assert effective_scopes(action.scopes) == effective_scopes(granted)
