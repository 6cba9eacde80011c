"""Hops as proxies and attackers write them (S17): what is believed, of whom, and how far."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from openclaw_kernel.protocol.limiter import FailureLimiter
from openclaw_kernel.protocol.proxy import HOPS, Arrival, Proxies, Said

PROXY = "10.0.0.5"
CLIENT = "203.0.113.9"
PROXIES = Proxies(["10.0.0.0/24", "2001:db8:aaaa::/48"])
HOST = ("Host", "127.0.0.1:18789")


def arrival(*headers: tuple[str, str], peer: str = PROXY, proxies: Proxies = PROXIES, secure: bool = False) -> Arrival:
    """What is found out about a request with these headers."""
    return proxies.arrival(peer, CIMultiDict([HOST, *headers]), secure=secure)


def x_for(text: str) -> tuple[str, str]:
    return ("X-Forwarded-For", text)


def forwarded(text: str) -> tuple[str, str]:
    return ("Forwarded", text)


@pytest.mark.parametrize(
    ("text", "client"),
    [
        (CLIENT, CLIENT),
        (f"{CLIENT}:50123", CLIENT),
        (f"  {CLIENT}  ", CLIENT),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("::ffff:203.0.113.9", CLIENT),
        ("fe80::1%eth0", "fe80::1"),
        ("1.2.3.4, 203.0.113.9", CLIENT),
        ("127.0.0.1, 203.0.113.9", CLIENT),
        ("garbage, 203.0.113.9", CLIENT),
        (", 203.0.113.9", CLIENT),
        ("1.2.3.4, 203.0.113.9, 10.0.0.7, 10.0.0.8", CLIENT),
        ("203.0.113.9, 2001:db8:aaaa::1", CLIENT),
        ("10.0.0.7", "10.0.0.7"),
        ("10.0.0.7, 10.0.0.8", "10.0.0.7"),
        ("127.0.0.1", "127.0.0.1"),
    ],
)
def test_hops_are_read_from_the_right_as_far_as_trusted_proxies_reach(text: str, client: str) -> None:
    found = arrival(x_for(text))
    assert (found.address, found.said, found.trusted) == (client, Said.CLIENT, True)
    assert not found.direct_local


def test_several_lines_of_one_header_are_one_list() -> None:
    assert arrival(x_for("1.2.3.4"), x_for(CLIENT), x_for("10.0.0.8")).address == CLIENT


@pytest.mark.parametrize(
    "text",
    [
        "for=203.0.113.9",
        'For="203.0.113.9:50123"',
        "for=203.0.113.9;proto=https;by=10.0.0.5",
        "proto=https; for=203.0.113.9 ;host=chat.example.org",
        'for=1.2.3.4, for="203.0.113.9" , for=10.0.0.7',
        r'for="\203.0.113.9"',
        'for=1.2.3.4;ext="a, for=127.0.0.1; b\\"c", for=203.0.113.9',
    ],
)
def test_the_standard_header_is_read_like_the_older_one(text: str) -> None:
    found = arrival(forwarded(text))
    assert (found.address, found.said) == (CLIENT, Said.CLIENT)


def test_the_standard_header_writes_ipv6_in_brackets_and_quotes() -> None:
    assert arrival(forwarded('for="[2001:db8::1]:443"')).address == "2001:db8::1"


@pytest.mark.parametrize(
    "hop", ["garbage", "", "203.0.113", "203.0.113.9:", "203.0.113.9:port", "[2001:db8::1", "[203.0.113.9]", "999.1.1.1", "1.2.3.4;"]
)
@pytest.mark.parametrize("behind", [False, True])
def test_a_hop_that_is_no_address_ends_the_way_at_the_last_certain_one(hop: str, *, behind: bool) -> None:
    found = arrival(x_for(f"1.2.3.4, {hop}" + (", 10.0.0.7" if behind else "")))
    assert (found.address, found.said) == ("10.0.0.7" if behind else PROXY, Said.GARBAGE)
    assert found.ignored == ("x-forwarded-for",)


@pytest.mark.parametrize(
    "text", ["for", "for=", "for=a b", 'for="203.0.113.9', "for=1.2.3.4;for=5.6.7.8", "=x", ",", "for=1.2.3.4,", "for=[2001:db8::1]"]
)
def test_a_standard_header_that_cannot_be_read_is_garbage(text: str) -> None:
    found = arrival(forwarded(text))
    assert (found.address, found.said) == (PROXY, Said.GARBAGE)


@pytest.mark.parametrize("text", ["for=unknown", "for=_hidden", 'for="_gazonk:443"', "proto=https", "by=10.0.0.5"])
def test_a_proxy_that_hides_its_client_is_counted_in_its_place(text: str) -> None:
    found = arrival(forwarded(f"for=1.2.3.4, {text}"))
    assert (found.address, found.said, found.is_crowd) == (PROXY, Said.HIDDEN, True)


def test_headers_that_contradict_each_other_are_both_not_believed() -> None:
    found = arrival(x_for(CLIENT), forwarded("for=198.51.100.1;proto=https;host=chat.example.org"))
    assert (found.address, found.said, found.host, found.secure) == (PROXY, Said.CONTRADICTION, HOST[1], False)
    assert found.ignored == ("forwarded", "x-forwarded-for")
    assert arrival(x_for(CLIENT), forwarded(f"for=1.2.3.4, for={CLIENT}")).said is Said.CLIENT
    assert arrival(x_for(CLIENT), forwarded("for=unknown")).said is Said.CONTRADICTION
    both = (x_for(CLIENT), forwarded(f"for={CLIENT};proto=https"))
    assert arrival(*both, ("X-Forwarded-Proto", "http")).said is Said.CONTRADICTION
    assert arrival(*both, ("X-Forwarded-Proto", "https")).secure


def test_a_way_without_an_end_is_not_followed() -> None:
    found = arrival(x_for(", ".join(["10.0.0.7"] * (HOPS + 1))))
    assert (found.address, found.said) == ("10.0.0.7", Said.TOO_LONG)


@pytest.mark.parametrize(("name", "junk"), [("X-Forwarded-For", "1," * 4000), ("Forwarded", "a=b;c=d," * 1000)])
def test_what_a_stranger_wrote_before_the_proxies_is_not_worked_through(name: str, junk: str) -> None:
    """S17: a proxy may hand on as many lines as we take; reading all of them would keep everybody else waiting for seconds."""
    lines = [(name, junk + "for=10.0.0.7" if name == "Forwarded" else junk + "10.0.0.7")] * 60
    started = time.process_time()
    found = arrival(*lines)
    assert time.process_time() - started < 0.25
    assert found.said is not Said.CLIENT


def test_a_standard_header_that_goes_on_and_on_is_not_read_to_its_end() -> None:
    found = arrival(forwarded(f"{'for=1.2.3.4;by=_x, ' * 8 * HOPS}for={CLIENT}"))
    assert (found.address, found.said) == (PROXY, Said.TOO_LONG)


@pytest.mark.parametrize("peer", [CLIENT, "127.0.0.1", "::1", "10.0.1.5", "unknown", ""])
@pytest.mark.parametrize("header", [x_for("127.0.0.1"), forwarded("for=127.0.0.1;proto=https"), ("X-Real-IP", "127.0.0.1")])
def test_what_somebody_says_who_is_no_trusted_proxy_is_ignored(peer: str, header: tuple[str, str]) -> None:
    found = arrival(header, ("X-Forwarded-Host", "localhost"), ("X-Forwarded-Proto", "https"), peer=peer)
    assert (found.address, found.said, found.trusted, found.direct_local) == (peer, Said.UNTRUSTED, False, False)
    assert (found.host, found.secure) == (HOST[1], False)
    assert header[0].lower() in found.ignored


@pytest.mark.parametrize("network", ["0.0.0.0/1", "64.0.0.0/2", "127.0.0.0/7", "::/1"])
def test_loopback_is_a_proxy_only_where_that_was_said_on_purpose(network: str) -> None:
    wide = Proxies([network])
    assert not wide.knows("127.0.0.1")
    assert not wide.knows("::1")
    for named in (Proxies(["127.0.0.1", "::1"]), Proxies(["127.0.0.0/8", "::1/128"]), Proxies(["10.0.0.0/8"], loopback=True)):
        assert named.knows("127.0.0.1")
        assert named.knows("::1")
        assert named.knows("::ffff:127.0.0.1")


def test_a_network_in_ipv6_spelling_covers_the_ipv4_addresses_it_means() -> None:
    assert Proxies(["::ffff:10.0.0.0/104"]).knows("10.1.2.3")
    assert Proxies(["10.0.0.0/8"]).knows("::ffff:10.1.2.3")
    assert not Proxies(["::ffff:10.0.0.0/104"]).knows("11.1.2.3")


def test_who_is_behind_a_proxy_on_this_machine_is_never_local() -> None:
    """S17: not even where the proxy itself says so."""
    here = Proxies(["127.0.0.1"])
    for text in ("127.0.0.1", "::1", CLIENT, "garbage", "unknown"):
        assert not arrival(x_for(text), peer="127.0.0.1", proxies=here).direct_local
    assert arrival(peer="127.0.0.1", proxies=here).direct_local


def test_host_and_scheme_are_those_that_the_client_used() -> None:
    said = (("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "Chat.Example.Org:8443"))
    found = arrival(x_for(CLIENT), *said)
    assert (found.host, found.secure) == ("chat.example.org:8443", True)
    found = arrival(forwarded('for=203.0.113.9;proto=https;host="chat.example.org:8443", for=10.0.0.7;proto=http;host=inner'))
    assert (found.host, found.secure) == ("chat.example.org:8443", True)
    assert arrival(x_for(CLIENT), ("X-Forwarded-Proto", "wss")).secure
    assert not arrival(x_for(CLIENT), ("X-Forwarded-Proto", "http"), secure=True).secure


@pytest.mark.parametrize(
    "host", ["", "a b", "a/b", "evil.example,chat.example.org", "user@chat.example.org", "[::1", "a" * 300, "chat.example.org:port"]
)
def test_a_host_that_is_none_is_not_taken(host: str) -> None:
    assert arrival(x_for(CLIENT), ("X-Forwarded-Host", host)).host == HOST[1]


def test_of_two_values_none_is_taken() -> None:
    twice = (
        ("X-Forwarded-Host", "a.example"),
        ("X-Forwarded-Host", "b.example"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Proto", "http"),
    )
    found = arrival(x_for(CLIENT), *twice)
    assert (found.host, found.secure) == (HOST[1], False)


@given(
    st.lists(
        st.tuples(st.sampled_from(["X-Forwarded-For", "Forwarded", "X-Forwarded-Host", "X-Forwarded-Proto"]), st.text(max_size=60)),
        max_size=6,
    )
)
def test_no_text_of_a_stranger_raises_or_makes_it_local(headers: list[tuple[str, str]]) -> None:
    for peer in (PROXY, "127.0.0.1", CLIENT):
        found = arrival(*headers, peer=peer)
        assert found.direct_local == (peer == "127.0.0.1" and not headers)


@given(st.text(max_size=60))
def test_what_the_client_wrote_itself_never_reaches_behind_what_the_proxy_appended(text: str) -> None:
    assert arrival(x_for(f"{text}, {CLIENT}")).address == CLIENT


def test_failures_of_one_client_behind_a_proxy_lock_out_nobody_else() -> None:
    limiter = FailureLimiter()
    guilty, other = arrival(x_for(CLIENT)).caller(None), arrival(x_for("198.51.100.1")).caller(None)
    for _ in range(10):
        limiter.failed("shared-secret", guilty, 0)
    assert limiter.locked_for_ms("shared-secret", guilty, 0) == 300_000
    assert limiter.locked_for_ms("shared-secret", other, 0) == 0


def test_a_success_behind_a_proxy_that_names_nobody_gives_the_others_no_new_tries() -> None:
    limiter = FailureLimiter()
    crowd = arrival(forwarded("for=unknown")).caller(None)
    for _ in range(10):
        limiter.failed("shared-secret", crowd, 0)
        limiter.succeeded("shared-secret", crowd)
    assert limiter.locked_for_ms("shared-secret", crowd, 0) == 300_000
