"""Origins and hosts as an attacker writes them."""

from __future__ import annotations

import pytest

from openclaw_kernel.protocol.origin import is_direct_local, is_loopback, origin_allowed
from openclaw_kernel.protocol.pages import same_origin

HOST = "127.0.0.1:18789"


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "null",
        "http://[",
        "http://[::1",
        "http://localhost:99999",
        "http://localhost:port",
        "http://localhost@evil.example",
        "http://evil.example#localhost",
        "http://evil.example/localhost",
        "http://localhost.",
        "http://xn--localhost-9za",
        "http://127.0.0.1.evil.example",
        "http://2130706433",
        "http://0x7f.1",
        "javascript://localhost",
        "chrome-extension://localhost",
        "http://localhost/",
        "http://localhost?x",
        "http://user@localhost",
        "\x00",
    ],
)
def test_no_odd_origin_is_let_in(origin: str) -> None:
    assert not origin_allowed(origin, HOST, [], local_peer=True)


@pytest.mark.parametrize("host", [None, "", "[", "[::1", ":", "evil.example", "127.0.0.1.evil.example:18789", "localhost@evil.example"])
def test_a_loopback_page_needs_a_loopback_host(host: str | None) -> None:
    assert not origin_allowed("http://localhost:3000", host, [], local_peer=True)


def test_pages_of_this_machine_and_of_private_hosts_come_in() -> None:
    assert origin_allowed("http://localhost:3000", HOST, [], local_peer=True)
    assert origin_allowed("http://[::1]:18789", "[::1]:18789", [], local_peer=True)
    assert origin_allowed("http://192.168.1.5:18789", "192.168.1.5:18789", [], local_peer=False)
    assert origin_allowed("https://box.tail1234.ts.net", "box.tail1234.ts.net", [], local_peer=False)
    assert not origin_allowed("http://localhost:3000", HOST, [], local_peer=False)
    assert not origin_allowed("http://192.168.1.5:18789", "192.168.1.6:18789", [], local_peer=False)
    assert not origin_allowed("http://chat.example.org", "chat.example.org", [], local_peer=False)


def test_a_public_name_is_let_in_by_itself_only_where_its_certificate_was_seen() -> None:
    """S2: over plain HTTP a name that was made to point here looks the same as the gateway's own."""

    def allowed(origin: str, host: str, *, secure: bool = True) -> bool:
        return origin_allowed(origin, host, [], local_peer=False, secure=secure)

    assert allowed("https://chat.example.org", "chat.example.org")
    assert allowed("https://chat.example.org", "Chat.Example.Org:443")
    assert allowed("https://chat.example.org:8443", "chat.example.org:8443")
    assert not allowed("https://chat.example.org", "chat.example.org", secure=False)
    assert not allowed("http://chat.example.org", "chat.example.org")
    assert not allowed("https://evil.example", "chat.example.org")
    assert not allowed("https://chat.example.org", "chat.example.org:8443")
    assert not allowed("https://chat.example.org:8443", "chat.example.org")


def test_where_the_gateway_is_reached_over_tls_a_page_without_tls_is_nobody_s_own() -> None:
    """Whoever is on the way can serve such a page under any name."""
    for host in ("192.168.1.5:18789", "box.local:18789", "127.0.0.1:18789"):
        assert origin_allowed(f"https://{host}", host, [], local_peer=False, secure=True)
        assert not origin_allowed(f"http://{host}", host, [], local_peer=False, secure=True)


@pytest.mark.parametrize(
    "origin", ["http://[", "null", "", "http://127.0.0.1:1", "https://", "ws://127.0.0.1:18789", "http://x@127.0.0.1:18789"]
)
def test_a_page_of_another_origin_is_not_ours(origin: str) -> None:
    assert not same_origin(origin, HOST)
    assert same_origin(f"http://{HOST}", HOST)


@pytest.mark.parametrize(
    "name",
    [
        "Forwarded",
        "X-Forwarded",
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "X-Forwarded-Proto",
        "x-forwarded-port",
        "X-Forwarded-Server",
        "X-Original-Forwarded-For",
        "X-Real-IP",
        "X-Client-IP",
        "CF-Connecting-IP",
        "True-Client-IP",
        "Fly-Client-IP",
        "Tailscale-User-Login",
        "VIA",
        "X-Vercel-Forwarded-For",
        "X_Forwarded_For",
        "X-HTTP-Forwarded-Host",
        "Client-IP",
        "WL-Proxy-Client-IP",
        "X-ProxyUser-IP",
        "X-Azure-ClientIP",
        "X-Remote-Addr",
        "X-Originating-IP",
        "Ngrok-Auth-User-Email",
        "X-ARR-LOG-ID",
    ],
)
def test_who_is_forwarded_is_not_local(name: str) -> None:
    """S17."""
    assert is_direct_local("127.0.0.1", {"Host": HOST})
    assert not is_direct_local("127.0.0.1", {"Host": HOST, name: "127.0.0.1"})
    assert not is_direct_local("203.0.113.9", {"Host": HOST, "X-Forwarded-For": "127.0.0.1"})


@pytest.mark.parametrize("host", ["127.0.0.1:18789", "localhost:18789", "LOCALHOST", "[::1]:18789", "127.0.1.1"])
def test_who_asks_for_this_machine_is_local(host: str) -> None:
    assert is_direct_local("::1", {"Host": host})


@pytest.mark.parametrize(
    "host", [None, "", "[", "gateway.example.org", "box.tail1234.ts.net:443", "192.168.1.5:18789", "localhost.evil.example"]
)
def test_who_asks_for_another_host_came_through_a_proxy_that_says_nothing(host: str | None) -> None:
    """S17."""
    assert not is_direct_local("127.0.0.1", {} if host is None else {"Host": host})


def test_loopback_in_all_its_spellings() -> None:
    assert all(map(is_loopback, ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"]))
    assert not any(map(is_loopback, ["10.0.0.1", "::", "0.0.0.0", "localhost", "", "::ffff:10.0.0.1"]))
