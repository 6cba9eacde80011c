"""The whole gateway with an issuer of tokens: who comes in with which rights, on the socket and over HTTP, and for how long."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import closing
from typing import Any

import aiohttp
import pytest

from tests.emulators.jwks_control import JwksEmulator
from tests.plugins.conversation.harness import until
from tests.support.gateway import RunningGateway, StartGateway
from tests.support.ws_client import Identity, RequestFailed, WsClient, is_chat

HEADER = "Cf-Access-Jwt-Assertion"
PAGE = Identity(id="webchat-ui", mode="webchat", scopes=("operator.admin",))


@pytest.fixture
async def issuer() -> AsyncIterator[JwksEmulator]:
    async with JwksEmulator() as started:
        yield started


@pytest.fixture
async def gateway(issuer: JwksEmulator, start_gateway: StartGateway) -> RunningGateway:
    section = {"preset": "cloudflare-access", "issuer": issuer.url, "audience": ["gateway"], "jwksUrl": f"{issuer.url}/jwks"}
    grants = [
        {"issuer": issuer.url, "email": "alice@example.org", "scopes": ["operator.read", "operator.write"]},
        {"issuer": issuer.url, "group": "owners", "scopes": ["operator.admin"]},
    ]
    config = {
        "gateway": {"auth": {"identities": grants}},
        "plugins": {"entries": {"jwt-identity": {"config": {"issuers": [section]}}}},
    }
    return await start_gateway(config)


async def token(issuer: JwksEmulator, **claims: Any) -> dict[str, str]:
    """The header of somebody who signed in."""
    return {HEADER: await issuer.token(algorithm="RS256", **claims)}


async def test_somebody_signed_in_talks_with_the_scopes_of_the_config(gateway: RunningGateway, issuer: JwksEmulator) -> None:
    headers = await token(issuer, email="alice@example.org") | {"Origin": gateway.url}
    async with WsClient.open(gateway.ws_url, headers=headers) as client:
        hello = await client.handshake(identity=PAGE)
        assert "operator.write" in hello["auth"]["scopes"]
        assert "operator.admin" not in hello["auth"]["scopes"]
        await client.request("chat.send", {"sessionKey": "main", "message": "signed in", "idempotencyKey": "k"})
        await client.expect_event(is_chat("final"))
        with pytest.raises(RequestFailed, match="missing scope"):
            await client.request("webchat.link", {})
    async with WsClient.open(gateway.ws_url, headers=await token(issuer, sub="bob", groups=["owners"])) as client:
        await client.handshake(identity=Identity(id="cli", mode="cli"))
        await client.request("webchat.link", {})
    rows = await until(lambda: admitted(gateway), "the audit of both")
    assert {row[0] for row in rows} == {f"identity:{issuer.url}#alice", f"identity:{issuer.url}#bob"}


def admitted(gateway: RunningGateway) -> list[tuple[str]]:
    """Whom the audit log says that it let in, once there are two."""
    with closing(sqlite3.connect(f"file:{gateway.home}/state.sqlite3?mode=ro", uri=True)) as connection:
        rows = connection.execute("SELECT actor FROM kernel_audit WHERE action = 'identity.admitted'").fetchall()
    return rows if len(rows) >= 2 else []


async def test_http_takes_the_same_identities(gateway: RunningGateway, issuer: JwksEmulator) -> None:
    known, unknown = await token(issuer, email="alice@example.org"), await token(issuer, sub="mallory")
    async with aiohttp.ClientSession() as http:
        for headers, status in ((known, 200), (unknown, 401), ({}, 401), ({HEADER: "x"}, 401)):
            async with http.get(f"{gateway.url}/auth/session", headers=headers) as answer:
                assert answer.status == status
            async with http.get(f"{gateway.url}/readyz", headers=headers) as answer:
                assert ("reasons" in await answer.json()) == (status == 200)


async def test_the_connection_ends_with_the_proof(gateway: RunningGateway, issuer: JwksEmulator) -> None:
    headers = await token(issuer, email="alice@example.org", exp=int(time.time()) + 2)
    async with WsClient.open(gateway.ws_url, headers=headers) as client:
        await client.handshake(identity=Identity(id="cli", mode="cli"))
        ended = await client.closed()
        assert (ended.code, ended.reason) == (4001, "client invalidated: identity-expired")
    async with WsClient.open(gateway.ws_url, headers=headers) as client:
        with pytest.raises(RequestFailed) as refused:
            await client.handshake(identity=Identity(id="cli", mode="cli"))
        # Within the leeway of the token itself, but not of the connection.
        assert refused.value.details["authReason"] == "identity_expired"


@pytest.mark.parametrize("mode", ["hang", "500", "half"])
async def test_an_issuer_that_fails_keeps_out_nobody_who_has_a_secret(gateway: RunningGateway, issuer: JwksEmulator, mode: str) -> None:
    await issuer.misbehave(mode)
    headers = await token(issuer, email="alice@example.org")
    async with WsClient.open(gateway.ws_url, headers=headers) as client:
        with pytest.raises(RequestFailed) as refused:
            await client.handshake(identity=Identity(id="cli", mode="cli"))
        assert (refused.value.code, refused.value.details["reason"]) == ("UNAVAILABLE", "identity_keys_unavailable")
        assert (await client.closed()).code == 1013
    async with WsClient.open(gateway.ws_url, headers=headers) as client:
        await client.handshake(auth={"token": gateway.token})
    async with gateway.connect() as client:
        await client.request("health")


async def test_wrong_tokens_lock_their_own_kind_out(gateway: RunningGateway, issuer: JwksEmulator) -> None:
    forged = await token(issuer, email="alice@example.org")
    forged = {HEADER: forged[HEADER][:-8] + "AAAAAAAA"}
    reasons = []
    for _ in range(11):
        async with WsClient.open(gateway.ws_url, headers=forged) as client:
            with pytest.raises(RequestFailed) as refused:
                await client.handshake(identity=Identity(id="cli", mode="cli"))
            reasons.append(refused.value.details["authReason"])
    assert reasons == ["identity_signature_invalid"] * 10 + ["rate_limited"]
    async with WsClient.open(gateway.ws_url, headers=forged) as client:
        await client.handshake(auth={"token": gateway.token})
