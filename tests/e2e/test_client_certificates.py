"""Clients that show a certificate to a real gateway: what it gives them, and what it does not."""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.kernel.cli.command import run_command
from tests.plugins.pairing.device_client import Device
from tests.support.certificates import CLIENT, SERVER, Issued, replace, trust
from tests.support.gateway import RunningGateway, StartGateway
from tests.support.ws_client import ConnectionEnded, Identity, RequestFailed, WsClient, connect

SERVING: Mapping[str, Any] = {"enabled": True, "certPath": "cert.pem", "keyPath": "key.pem", "caPath": "ca.pem"}
ALICE = {"san": "DNS:alice.test", "scopes": ["operator.read", "operator.write"]}
ALL = ("operator.admin", "operator.read", "operator.write")
PROGRAM = Identity(id="cli", mode="cli", scopes=ALL)


class Party:
    """A gateway's state folder with an authority of clients, and certificates of clients."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "state"
        self.server = Issued.make("gateway.test")
        self.server.write(self.home)
        self.authority = Issued.make("authority", authority=True)
        replace(self.home / "ca.pem", self.authority.certificate_pem)

    def client(self, name: str, signer: Issued | None = None, *, days: tuple[float, float] = (-1, 9)) -> ssl.SSLContext:
        """What the client of this name connects with."""
        issued = Issued.make(name, signer=signer or self.authority, use=CLIENT, days=days)
        return self.show(issued)

    def show(self, issued: Issued) -> ssl.SSLContext:
        """What connects with this very certificate."""
        return issued.context(self.folder / issued.fingerprint.replace(":", "")[:16], self.server)


@pytest.fixture
def party(tmp_path: Path) -> Party:
    """Everything but the gateway."""
    return Party(tmp_path)


async def start(start_gateway: StartGateway, party: Party, *clients: Mapping[str, Any], **gateway: Any) -> RunningGateway:
    """A gateway that gives these clients something."""
    return await start_gateway({"gateway": {"tls": {**SERVING, "clients": list(clients)}, **gateway}}, home=party.home)


async def test_a_mapped_certificate_is_all_that_its_client_needs_and_gives_no_more_than_its_entry(
    start_gateway: StartGateway, party: Party
) -> None:
    gateway = await start(start_gateway, party, ALICE)
    issued = Issued.make("alice.test", signer=party.authority, use=CLIENT)
    async with connect(gateway.ws_url, identity=PROGRAM, tls=party.show(issued)) as client:
        assert client.hello["auth"]["role"] == "operator"
        assert set(client.hello["auth"]["scopes"]) <= {"operator.read", "operator.write"} | {
            "operator.talk",
            "operator.sessions.read",
            "operator.sessions.write",
        }
        assert "operator.read" in client.hello["auth"]["scopes"]
        assert (await client.request("status"))["ready"] is True
        with pytest.raises(RequestFailed, match=r"missing scope: operator\.admin"):
            await client.request("gateway.restart.request", {})
    # A local backend keeps the scopes that it asks for, but not past its certificate.
    async with connect(gateway.ws_url, tls=party.show(issued)) as client:
        assert "operator.admin" not in client.hello["auth"]["scopes"]
    await gateway.stop()
    exported = await run_command("audit", "export", home=party.home)
    rows = [json.loads(line) for line in exported.out.splitlines()]
    admitted = [row for row in rows if row["action"] == "identity.admitted"]
    assert {row["subject"] for row in admitted} == {f"cert:{issued.fingerprint.replace(':', '').lower()}"}


async def test_a_certificate_that_is_not_mapped_grants_nothing_and_stands_in_nobody_s_way(
    start_gateway: StartGateway, party: Party
) -> None:
    gateway = await start(start_gateway, party, ALICE)
    bob = party.client("bob.test")
    with pytest.raises(RequestFailed, match=r"this client certificate may do nothing here; add it to gateway\.tls\.clients") as refused:
        async with connect(gateway.ws_url, identity=PROGRAM, tls=bob):
            pass
    assert refused.value.details["code"] == "AUTH_UNAUTHORIZED"
    async with connect(gateway.ws_url, token=gateway.token, tls=bob) as client:
        assert "operator.admin" in client.hello["auth"]["scopes"]
    async with connect(gateway.ws_url, token=gateway.token, tls=trust(party.server)) as client:
        assert "operator.admin" in client.hello["auth"]["scopes"]
    with pytest.raises(RequestFailed, match="gateway token missing"):
        async with connect(gateway.ws_url, identity=PROGRAM, tls=trust(party.server)):
            pass
    # Who brings a wrong secret is judged by that.
    with pytest.raises(RequestFailed, match="gateway token mismatch"):
        async with connect(gateway.ws_url, token="wrong", tls=party.client("alice.test")):
            pass


@pytest.mark.parametrize("kind", ["another authority", "nobody", "expired", "a server"])
async def test_a_certificate_that_is_not_believed_ends_the_connection_before_http(
    start_gateway: StartGateway, party: Party, kind: str
) -> None:
    gateway = await start(start_gateway, party, ALICE)
    issued = {
        "another authority": lambda: Issued.make("alice.test", signer=Issued.make("authority", authority=True), use=CLIENT),
        "nobody": lambda: Issued.make("alice.test", use=CLIENT),
        "expired": lambda: Issued.make("alice.test", signer=party.authority, use=CLIENT, days=(-9, -1)),
        "a server": lambda: Issued.make("alice.test", signer=party.authority, use=SERVER),
    }[kind]()
    async with aiohttp.ClientSession() as http:
        with pytest.raises((aiohttp.ClientError, ssl.SSLError, ConnectionError)):
            await http.get(f"{gateway.url}/healthz", ssl=party.show(issued))
        async with http.get(f"{gateway.url}/healthz", ssl=party.client("alice.test")) as answer:
            assert answer.status == 200


async def test_a_certificate_opens_only_the_role_that_it_is_mapped_to(start_gateway: StartGateway, party: Party) -> None:
    gateway = await start(start_gateway, party, ALICE, {"san": "DNS:kitchen.test", "role": "node"})
    node = Identity(id="node-host", mode="node", role="node", scopes=())
    for name, identity in (("alice.test", node), ("kitchen.test", PROGRAM)):
        with pytest.raises(RequestFailed, match="this client certificate is for another role"):
            async with connect(gateway.ws_url, identity=identity, tls=party.client(name)):
                pass
    # A node is a device whatever it shows: it waits for somebody's approval as any other.
    with pytest.raises(RequestFailed, match="device identity required"):
        async with connect(gateway.ws_url, identity=node, tls=party.client("kitchen.test")):
            pass


async def test_a_certificate_behind_a_proxy_is_the_proxy_s_and_speaks_for_nobody(start_gateway: StartGateway, party: Party) -> None:
    """S17."""
    gateway = await start(start_gateway, party, ALICE)
    alice = party.client("alice.test")
    async with aiohttp.ClientSession(headers={"Authorization": ""}) as http:
        async with http.get(f"{gateway.url}/readyz", ssl=alice) as answer:
            assert "reasons" in await answer.json()
        for header in ({"X-Forwarded-For": "203.0.113.7"}, {"Forwarded": "for=203.0.113.7"}, {"Via": "1.1 proxy"}):
            async with http.get(f"{gateway.url}/readyz", ssl=alice, headers=header) as answer:
                assert "reasons" not in await answer.json()


async def test_other_authorities_end_the_connections_that_came_in_by_a_certificate(start_gateway: StartGateway, party: Party) -> None:
    """S20."""
    gateway = await start(start_gateway, party, ALICE)
    async with (
        connect(gateway.ws_url, identity=PROGRAM, tls=party.client("alice.test")) as by_certificate,
        connect(gateway.ws_url, token=gateway.token, tls=trust(party.server)) as by_token,
    ):
        new = Issued.make("new authority", authority=True)
        replace(party.home / "ca.pem", new.certificate_pem)
        ended = await by_certificate.closed()
        assert (ended.code, ended.reason) == (4001, "client invalidated: authorities-changed")
        assert (await by_token.request("health"))["ok"] is True
        async with connect(gateway.ws_url, identity=PROGRAM, tls=party.client("alice.test", new)) as again:
            assert (await again.request("health"))["ok"] is True
    async with aiohttp.ClientSession() as http:
        with pytest.raises((aiohttp.ClientError, ssl.SSLError, ConnectionError)):
            await http.get(f"{gateway.url}/healthz", ssl=party.client("alice.test"))


async def test_what_was_encrypted_before_proves_nothing_once_there_are_other_authorities(start_gateway: StartGateway, party: Party) -> None:
    """S20: neither a connection that HTTP keeps open nor a WebSocket that has not shaken hands yet."""
    gateway = await start(start_gateway, party, ALICE)
    alice = party.client("alice.test")
    async with (
        aiohttp.ClientSession() as http,
        WsClient.open(gateway.ws_url, tls=alice) as waiting,
        connect(gateway.ws_url, identity=PROGRAM, tls=alice) as open_already,
    ):
        async with http.get(f"{gateway.url}/readyz", ssl=alice) as answer:
            assert "reasons" in await answer.json()
        replace(party.home / "ca.pem", Issued.make("new authority", authority=True).certificate_pem)
        await open_already.closed()
        # Answered at all, for it comes by the connection of before.
        async with http.get(f"{gateway.url}/readyz", ssl=alice) as answer:
            assert "reasons" not in await answer.json()
        with pytest.raises(ConnectionEnded, match="client invalidated: authorities-changed"):
            await waiting.handshake(auth={}, identity=PROGRAM)


async def test_a_connection_ends_with_its_certificate(start_gateway: StartGateway, party: Party) -> None:
    gateway = await start(start_gateway, party, ALICE)
    seconds = 8 / 86_400
    async with connect(gateway.ws_url, identity=PROGRAM, tls=party.client("alice.test", days=(-1, seconds))) as client:
        ended = await client.closed(deadline=20)
        assert ended.code == 4001
        assert "expired" in ended.reason


async def test_where_nobody_is_asked_for_anything_a_certificate_bounds_its_client_and_an_unmapped_one_changes_nothing(
    start_gateway: StartGateway, party: Party
) -> None:
    gateway = await start(start_gateway, party, ALICE, auth={"mode": "none", "token": None})
    async with connect(gateway.ws_url, tls=party.client("alice.test")) as client:
        assert "operator.admin" not in client.hello["auth"]["scopes"]
    async with connect(gateway.ws_url, tls=party.client("bob.test")) as client:
        assert "operator.admin" in client.hello["auth"]["scopes"]


async def test_a_device_with_a_certificate_is_in_as_operator_and_is_paired_as_a_node_like_any_other(
    start_gateway: StartGateway, party: Party
) -> None:
    gateway = await start(start_gateway, party, ALICE, {"san": "DNS:alice.test", "role": "node"})
    alice, device = party.client("alice.test"), Device(client=("node-host", "node"))
    async with WsClient.open(gateway.ws_url, tls=alice) as client:
        hello = await client.handshake(identity=Device().identity(client, scopes=ALL))
        assert "operator.read" in hello["auth"]["scopes"]
        assert "operator.admin" not in hello["auth"]["scopes"]
        assert "deviceToken" not in hello["auth"]
    async with WsClient.open(gateway.ws_url, tls=alice) as client:
        with pytest.raises(RequestFailed, match="pairing required") as refused:
            await client.handshake(identity=device.identity(client, role="node", scopes=()))
    async with connect(gateway.ws_url, token=gateway.token, tls=trust(party.server)) as owner:
        await owner.request("device.pair.approve", {"requestId": refused.value.details["requestId"]})
    async with WsClient.open(gateway.ws_url, tls=alice) as client:
        hello = await client.handshake(identity=device.identity(client, role="node", scopes=()))
        assert hello["auth"]["role"] == "node"
        assert hello["auth"]["scopes"] == []
        assert hello["auth"]["deviceToken"]
