"""The gateway behind the real nginx and the real Caddy, as docs/reverse-proxy.md sets them up, and what no header gets from it (S17)."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.kernel.cli.command import run_command
from tests.plugins.conversation.harness import until
from tests.plugins.pairing.device_client import Device
from tests.support.browser import Browse, ChatPage
from tests.support.gateway import RunningGateway, StartGateway
from tests.support.reverse_proxies import NAME, ReverseProxy, running_caddy, running_nginx
from tests.support.ws_client import Identity, RequestFailed, WsClient, is_chat

pytestmark = pytest.mark.requires("nginx", "caddy")

RunProxy = Callable[..., AbstractAsyncContextManager[ReverseProxy]]
PROXIES: dict[str, RunProxy] = {"nginx": running_nginx, "caddy": running_caddy}
LISTED: dict[str, Any] = {"gateway": {"trustedProxies": ["127.0.0.1"]}}
Reach = Callable[[Mapping[str, str]], AbstractAsyncContextManager[WsClient]]
ADMIN: dict[str, Any] = {"role": "operator", "scopes": ("operator.admin",)}
NODE: dict[str, Any] = {"role": "node", "scopes": ()}
PAGE = Identity(id="webchat-ui", mode="webchat")
SPOOFED: dict[str, str] = {
    "X-Forwarded-For": "127.0.0.1",
    "Forwarded": "for=127.0.0.1;proto=https;host=localhost",
    "X-Real-IP": "127.0.0.1",
    "X-Client-IP": "127.0.0.1",
    "True-Client-IP": "127.0.0.1",
    "CF-Connecting-IP": "127.0.0.1",
    "X-Original-Forwarded-For": "127.0.0.1",
    "X-Forwarded-Host": "localhost",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-User": "owner",
    "Tailscale-User-Login": "owner@example.org",
    "Via": "1.1 localhost",
}


def port_of(gateway: RunningGateway) -> int:
    """The port that it listens on."""
    return int(gateway.url.split(":")[2].partition("/")[0])


@asynccontextmanager
async def client_of(
    proxy: ReverseProxy, path: str = "/", *, source: str = "127.0.0.1", headers: Mapping[str, str] | None = None
) -> AsyncIterator[WsClient]:
    """A client that has not shaken hands yet, with an address of its own."""
    async with proxy.session(source) as http, http.ws_connect(proxy.url + path, headers=headers) as socket:
        client = WsClient(socket)
        try:
            yield client
        finally:
            await client.close()


@pytest.mark.parametrize("path", ["", "/agents"])
@pytest.mark.parametrize("name", PROXIES)
async def test_the_page_and_its_websocket_work_through_the_proxy(start_gateway: StartGateway, tmp_path: Path, name: str, path: str) -> None:
    gateway = await start_gateway({"gateway": {"trustedProxies": ["127.0.0.1"], "controlUi": {"basePath": path}}})
    async with PROXIES[name](tmp_path, port_of(gateway), path=f"{path}/") as proxy, proxy.session() as http:
        async with http.get(f"{proxy.url}{path}/") as page:
            assert page.status == 200
            assert "text/html" in page.headers["Content-Type"]
        code = gateway.link.rpartition("=")[2]
        origin = {"Origin": proxy.url}
        async with http.post(f"{proxy.url}{path}/auth/exchange", json={"code": code}, headers=origin) as exchanged:
            assert exchanged.status == 200, await exchanged.text()
            cookie = exchanged.cookies["openclaw_session"]
            assert (cookie["secure"], cookie["path"]) == (True, f"{path}/")
        signed_in = origin | {"Cookie": f"openclaw_session={cookie.value}"}
        async with client_of(proxy, f"{path}/", headers=signed_in) as client:
            await client.handshake(identity=PAGE)
            params = {"sessionKey": "main", "message": "through the proxy", "idempotencyKey": "k"}
            await client.request("chat.send", params)
            final = await client.expect_event(is_chat("final"))
            assert "through the proxy" in final["payload"]["message"]["content"][0]["text"]


@pytest.mark.parametrize("name", PROXIES)
async def test_foreign_pages_and_plain_http_origins_are_refused_through_the_proxy(
    start_gateway: StartGateway, tmp_path: Path, name: str
) -> None:
    """S2."""
    gateway = await start_gateway(LISTED)
    async with PROXIES[name](tmp_path, port_of(gateway)) as proxy:
        foreign = ["https://evil.example", proxy.url.replace("https", "http"), f"{proxy.url}1", "null", "http://localhost"]
        for origin in foreign:
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                async with client_of(proxy, headers={"Origin": origin}):
                    pass
            assert refused.value.status == 403, origin
        async with client_of(proxy, headers={"Origin": proxy.url}) as client:
            assert (await client.receive())["event"] == "connect.challenge"


async def test_a_proxy_that_is_not_listed_speaks_for_no_page(start_gateway: StartGateway, tmp_path: Path) -> None:
    gateway = await start_gateway()
    async with running_nginx(tmp_path, port_of(gateway)) as proxy:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            async with client_of(proxy, headers={"Origin": proxy.url}):
                pass
        assert refused.value.status == 403
    line = await gateway.wait_line("gateway.trustedProxies")
    assert "127.0.0.1 sends x-forwarded-for" in line.text


@pytest.mark.parametrize("name", PROXIES)
async def test_wrong_tokens_of_one_client_lock_out_nobody_else_behind_the_proxy(
    start_gateway: StartGateway, tmp_path: Path, name: str
) -> None:
    gateway = await start_gateway(LISTED)
    async with PROXIES[name](tmp_path, port_of(gateway)) as proxy:
        codes = []
        for attempt in range(11):
            async with client_of(proxy, source="127.0.0.2", headers={"X-Forwarded-For": f"198.51.100.{attempt}"}) as guesser:
                with pytest.raises(RequestFailed) as refused:
                    await guesser.handshake(auth={"token": f"guess {attempt}"})
                codes.append(refused.value.details["code"])
        assert codes == ["AUTH_TOKEN_MISMATCH"] * 10 + ["AUTH_RATE_LIMITED"]
        async with client_of(proxy, source="127.0.0.3") as other:
            await other.handshake(auth={"token": gateway.token})


@pytest.mark.parametrize("name", PROXIES)
async def test_whoever_signs_in_at_the_proxy_has_the_page_and_no_more_than_the_proxy_leaves(
    start_gateway: StartGateway, tmp_path: Path, name: str
) -> None:
    settings = {"userHeader": "X-Forwarded-User", "allowUsers": ["alice"], "allowLoopback": True}
    auth = {"mode": "trusted-proxy", "trustedProxy": settings}
    gateway = await start_gateway({"gateway": {"trustedProxies": ["127.0.0.1"], "auth": auth}})
    users = {"alice": "wonderland", "mallory": "guessed"}
    spoofed = {"X-Forwarded-User": "alice", "X-OpenClaw-Scopes": "operator.admin"}
    everything = replace(PAGE, scopes=("operator.admin",))
    async with PROXIES[name](tmp_path, port_of(gateway), users=users) as proxy:

        def headers(user: str) -> dict[str, str]:
            return spoofed | {"Origin": proxy.url, "Authorization": aiohttp.encode_basic_auth(user, users[user])}

        async with proxy.session() as http:
            for user, status in (("alice", 200), ("mallory", 401)):
                async with http.get(f"{proxy.url}/auth/session", headers=headers(user)) as session:
                    assert session.status == status
            async with http.get(f"{proxy.url}/readyz", headers=headers("alice")) as probe:
                assert "reasons" in await probe.json()
        async with client_of(proxy, headers=headers("alice")) as client:
            granted = (await client.handshake(identity=everything))["auth"]
            assert "operator.admin" not in granted["scopes"]
            assert {"operator.read", "operator.write"} <= set(granted["scopes"])
            await until(lambda: admitted(gateway), "the audit of who came in")
            with pytest.raises(RequestFailed, match="missing scope"):
                await client.request("webchat.link", {})
        async with client_of(proxy, headers=headers("mallory")) as client:
            with pytest.raises(RequestFailed) as refused:
                await client.handshake(identity=everything)
            assert refused.value.details["authReason"] == "trusted_proxy_user_not_allowed"
    # A program of this machine comes in past the proxy, with the secret.
    async with gateway.connect() as owner:
        assert "operator.admin" in owner.hello["auth"]["scopes"]


@pytest.mark.requires("chromium")
async def test_in_a_browser_the_page_of_who_signed_in_needs_neither_link_nor_device(
    start_gateway: StartGateway, tmp_path: Path, browse: Browse
) -> None:
    """S1, S2: page and WebSocket are one origin, below a path, with the name of the proxy."""
    auth = {"mode": "trusted-proxy", "trustedProxy": {"userHeader": "X-Forwarded-User", "allowLoopback": True}}
    gateway = await start_gateway({"gateway": {"trustedProxies": ["127.0.0.1"], "auth": auth, "controlUi": {"basePath": "/agents"}}})
    async with running_nginx(tmp_path, port_of(gateway), path="/agents/", users={"alice": "wonderland"}) as proxy:

        def story(page: ChatPage) -> None:
            page.open(proxy.url.replace("https://", "https://alice:wonderland@") + "/agents/")
            page.wait_connected()
            page.say("hello through the door")
            page.wait_answers(["hello through the door"])
            assert page.run("return document.cookie") == ""

        trusting = (f"--host-resolver-rules=MAP {NAME} 127.0.0.1", "--ignore-certificate-errors")
        await browse(story, more=trusting)
    assert await admitted(gateway)


async def test_the_command_line_comes_in_past_the_proxy_with_whichever_secret_there_is(start_gateway: StartGateway) -> None:
    auth = {
        "mode": "trusted-proxy",
        "token": None,
        "password": "for-programs-of-this-machine",
        "trustedProxy": {"userHeader": "X-Forwarded-User", "allowLoopback": True},
    }
    gateway = await start_gateway({"gateway": {"trustedProxies": ["127.0.0.1"], "auth": auth}})
    done = await run_command("status", home=gateway.home)
    assert done.status == 0, done.err


async def admitted(gateway: RunningGateway) -> bool:
    """Whether the audit log names the user of the proxy."""
    with closing(sqlite3.connect(f"file:{gateway.home}/state.sqlite3?mode=ro", uri=True)) as connection:
        rows = connection.execute("SELECT actor FROM kernel_audit WHERE action = 'identity.admitted'").fetchall()
    return rows == [("user:alice",)]


@asynccontextmanager
async def reached(gateway: RunningGateway, folder: Path, names: str) -> AsyncIterator[Reach]:
    """Opens sockets to the gateway through these proxies, the outermost first."""
    port, proxy = port_of(gateway), None
    async with AsyncExitStack() as stack:
        for name in reversed(names.split()):
            # What stands before another one speaks TLS; the inner one is reached as the gateway is.
            running = PROXIES[name](folder / name, port, tls=name == names.split(maxsplit=1)[0])
            proxy = await stack.enter_async_context(running)
            port = proxy.port

        @asynccontextmanager
        async def reach(headers: Mapping[str, str]) -> AsyncIterator[WsClient]:
            async with client_of(proxy, headers=headers) if proxy else WsClient.open(gateway.ws_url, headers=headers) as client:
                yield client

        yield reach


@pytest.mark.parametrize("listed", [False, True], ids=["unlisted", "listed"])
@pytest.mark.parametrize("names", ["", "nginx", "caddy", "caddy nginx"], ids=["direct", "nginx", "caddy", "caddy-nginx"])
async def test_no_header_spares_a_device_its_approval_or_changes_its_role(
    start_gateway: StartGateway, tmp_path: Path, names: str, *, listed: bool
) -> None:
    """S17."""
    gateway = await start_gateway(LISTED if listed else {})
    device, auth = Device(), {"token": gateway.token}
    requests = set()
    async with reached(gateway, tmp_path, names) as reach:

        async def hello(header: tuple[str, str], **asked: Any) -> dict[str, Any]:
            async with reach(dict([header])) as client:
                return await client.handshake(auth=auth, identity=device.identity(client, **asked) if asked else Identity())

        for header in SPOOFED.items():
            with pytest.raises(RequestFailed) as refused:
                await hello(header, role="operator", scopes=("operator.read",))
            assert refused.value.details["code"] == "PAIRING_REQUIRED", header
            requests.add(refused.value.details["requestId"])
            # What a backend of this machine keeps without a device is not given to who came through a proxy.
            assert (await hello(header))["auth"]["scopes"] == [], header
        async with gateway.connect() as owner:
            assert [len(await pending(owner)), len(requests)] == [1, 1]
            await owner.request("device.pair.approve", {"requestId": requests.pop()})
        for header in SPOOFED.items():
            granted = (await hello(header, role="operator", scopes=("operator.read",)))["auth"]
            assert (granted["role"], granted["scopes"]) == ("operator", ["operator.read"]), header
            for asked, reason in ((ADMIN, "scope-upgrade"), (NODE, "role-upgrade")):
                with pytest.raises(RequestFailed) as refused:
                    await hello(header, **asked)
                assert refused.value.details["reason"] == reason, header
        async with gateway.connect() as owner:
            (row,) = (await owner.request("device.pair.list", {}))["paired"]
            assert (row["roles"], row["scopes"]) == (["operator"], ["operator.read"])


async def pending(owner: WsClient) -> list[Any]:
    """Requests that wait for a person."""
    found: list[Any] = (await owner.request("device.pair.list", {}))["pending"]
    return found
