"""What a URL means and which addresses are public."""

from __future__ import annotations

import pytest

from openclaw_kernel.api import ToolError
from openclaw_plugins.web_tools.egress import read_url, refusal


@pytest.mark.parametrize(
    ("url", "host", "port", "address"),
    [
        ("https://Example.ORG/a?b=c#frag", "example.org", 443, None),
        ("http://example.org:8080/", "example.org", 8080, None),
        ("http://example.org./", "example.org", 80, None),
        ("http://@example.org/", "example.org", 80, None),
        ("http://localhost./", "localhost", 80, None),
        ("http://b\u00fccher.example/", "xn--bcher-kva.example", 80, None),
        ("http://127.1/", "127.0.0.1", 80, "127.0.0.1"),
        ("http://0x7f.1/", "127.0.0.1", 80, "127.0.0.1"),
        ("http://2130706433/", "127.0.0.1", 80, "127.0.0.1"),
        ("http://0177.0.0.1/", "127.0.0.1", 80, "127.0.0.1"),
        ("http://0/", "0.0.0.0", 80, "0.0.0.0"),
        ("http://127.0.0.1./", "127.0.0.1", 80, "127.0.0.1"),
        ("http://\uff11\uff12\uff17.0.0.1/", "127.0.0.1", 80, "127.0.0.1"),
        ("http://127\u30020\u30020\u30021/", "127.0.0.1", 80, "127.0.0.1"),
        ("http://[::1]:81/", "::1", 81, "::1"),
        ("http://[::ffff:127.0.0.1]/", None, 80, None),
    ],
)
def test_a_host_has_one_form(url: str, host: str | None, port: int, address: str | None) -> None:
    place = read_url(url)
    assert place.port == port
    assert place.url.fragment == ""
    if host is None:
        assert place.address is not None
        assert refusal(place.address)
    else:
        assert (place.host, place.address) == (host, address)
        assert place.url.raw_host == host


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("ftp://example.org/", "only http and https"),
        ("file:///etc/passwd", "only http and https"),
        ("example.org/page", "only http and https"),
        ("//example.org/", "only http and https"),
        ("http:///page", "names no host"),
        ("http://user@example.org/", "user name or password"),
        ("http://user:secret@example.org/", "user name or password"),
        ("http://example.org\\@127.0.0.1/", "backslash"),
        ("http://exa mple.org/", "space"),
        ("http://example.org/\x00", "control character"),
        ("http://1.2.3.4.5/", "not an address"),
        ("http://256.1.1.1/", "not an address"),
        ("http://example.999/", "not an address"),
        ("http://%31%32%37.0.0.1/", "not"),
        ("http://[fe80::1%25eth0]/", "not"),
        ("http://[::1/", "cannot be read"),
        ("http://example.org:0/", "port"),
        ("http://example.org:99999/", "out of range"),
        ("", "only http and https"),
    ],
)
def test_a_url_that_means_nothing_safe_is_refused(url: str, part: str) -> None:
    with pytest.raises(ToolError, match=part):
        read_url(url)


def test_only_the_exact_host_and_port_are_trusted() -> None:
    trusted = {"127.0.0.1:8080"}
    assert read_url("http://127.1:8080/", trusted=trusted).trusted
    assert not read_url("http://127.0.0.1:8081/", trusted=trusted).trusted
    assert not read_url("http://127.0.0.2:8080/", trusted=trusted).trusted
    assert not read_url("http://127.0.0.1.example.org:8080/", trusted=trusted).trusted


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.0", "10.0.0.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.255.254", "169.254.169.254"),
        *("172.16.0.1", "172.31.255.255", "192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1"),
        *("203.0.113.5", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255", "168.63.129.16"),
        *("::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe"),
        *("64:ff9b:1::1", "2002:7f00:1::", "2002:a9fe:a9fe::1", "2001::1", "2001:db8::1", "fe80::1", "fe80::1%eth0"),
        *("fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "100::1", "2606:4700::5efe:127.0.0.1", "3fff::1", "4000::1"),
    ],
)
def test_an_address_that_is_not_public_is_refused(address: str) -> None:
    assert refusal(address) is not None


@pytest.mark.parametrize(
    "address",
    ["1.1.1.1", "93.184.215.14", "172.32.0.1", "100.63.255.255", "2606:4700::1111", "64:ff9b::101:101", "2002:101:101::1"],
)
def test_a_public_address_is_not(address: str) -> None:
    assert refusal(address) is None
