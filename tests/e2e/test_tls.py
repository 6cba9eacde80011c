"""The gateway with TLS as its owner meets it: start, command line, page, and a certificate that is renewed meanwhile."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.kernel.cli.command import run_command
from tests.support.certificates import Issued, replace, trust
from tests.support.gateway import StartGateway
from tests.support.ws_client import connect

CONFIG: dict[str, Any] = {"gateway": {"tls": {"enabled": True, "certPath": "cert.pem", "keyPath": "key.pem"}}}
MADE: dict[str, Any] = {"gateway": {"tls": {"enabled": True}}}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A state folder with a pair in it."""
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    return folder


async def test_everything_of_ours_speaks_tls_and_pins_its_own_certificate(start_gateway: StartGateway, home: Path) -> None:
    issued = Issued.make("gateway.example.org")
    issued.write(home)
    gateway = await start_gateway(CONFIG, home=home)
    assert gateway.url.startswith("https://127.0.0.1:")
    assert gateway.link.startswith(f"{gateway.url}/#code=")
    assert gateway.ready["tlsFingerprint"] == issued.fingerprint

    status = await run_command("status", home=home)
    assert f"certificate  SHA-256 {issued.fingerprint}" in status.out
    told = (await run_command("status", "--json", home=home)).json()
    assert told["tls"]["fingerprint"] == issued.fingerprint
    assert told["tls"]["expiresAtMs"] == int(issued.certificate.not_valid_after_utc.timestamp() * 1000)
    assert told["url"] == gateway.url
    assert (await run_command("call", "health", home=home)).status == 0
    assert "hello over tls" in (await run_command("chat", "-m", "hello over tls", home=home)).out
    assert (await run_command("logs", "-n", "1", home=home)).status == 0
    assert (await run_command("open", home=home)).out.startswith(f"{gateway.url}/#code=")


async def test_from_elsewhere_the_certificate_is_pinned_or_trusted_and_nothing_is_sent_before(
    start_gateway: StartGateway, home: Path
) -> None:
    issued = Issued.make()
    issued.write(home)
    gateway = await start_gateway(CONFIG, home=home)
    elsewhere = home.parent / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    there = ("status", "--url", gateway.ws_url, "--token", gateway.token)

    unknown = await run_command(*there, home=elsewhere)
    assert unknown.status == 69
    assert "its certificate is not trusted here (self-signed certificate); give the fingerprint" in unknown.err
    assert (await run_command(*there, "--tls-fingerprint", issued.fingerprint, home=elsewhere)).status == 0
    assert (await run_command(*there, "--tls-fingerprint", issued.fingerprint.replace(":", "").lower(), home=elsewhere)).status == 0
    wrong = await run_command(*there, "--tls-fingerprint", Issued.make().fingerprint, home=elsewhere)
    assert wrong.status == 69
    assert f"shows the certificate SHA-256 {issued.fingerprint}, which is not the expected one" in wrong.err
    replace(elsewhere / "trusted.pem", issued.certificate_pem)
    trusted = await run_command(*there, home=elsewhere, env={"SSL_CERT_FILE": str(elsewhere / "trusted.pem")})
    assert trusted.status == 0

    plain = await run_command("status", "--url", gateway.ws_url.replace("wss", "ws"), "--token", gateway.token, home=elsewhere)
    assert plain.status == 75
    refused = await run_command(*there, "--tls-fingerprint", "abc", home=elsewhere)
    assert refused.status == 2
    assert "--tls-fingerprint: found 'abc'; use the 64 hexadecimal digits of SHA-256" in refused.err
    no_tls = await run_command("status", "--url", "http://127.0.0.1:1", "--tls-fingerprint", issued.fingerprint, home=elsewhere)
    assert no_tls.status == 2
    assert "shows no certificate; write --url as https:// or wss://" in no_tls.err


async def test_a_gateway_without_tls_is_told_from_one_that_is_gone(start_gateway: StartGateway, home: Path) -> None:
    gateway = await start_gateway(home=home)
    url = gateway.url.replace("http", "https")
    asked = await run_command("status", "--url", url, "--token", gateway.token, home=home)
    assert asked.status == 69
    assert f"{url}: what answers there speaks no TLS; write the address as http:// or ws://" in asked.err


async def test_a_certificate_of_our_own_making_outlives_a_restart(start_gateway: StartGateway, home: Path) -> None:
    gateway = await start_gateway(MADE, home=home)
    first = gateway.ready["tlsFingerprint"]
    await gateway.wait_line("made the certificate .*gateway-cert.pem, which nobody has signed")
    await gateway.stop()
    # A gateway that is gone left nothing that says otherwise: the file says which certificate it will show.
    asked = await run_command("status", home=home)
    assert asked.status == 69
    assert "no gateway answers on https://127.0.0.1:" in asked.err or "it has no address now" in asked.err
    await gateway.start()
    assert gateway.ready["tlsFingerprint"] == first
    async with connect(gateway.ws_url, token=gateway.token, tls=trust(None)) as client:
        assert (await client.request("status"))["tls"]["fingerprint"] == first


async def test_a_renewed_certificate_is_pinned_by_the_command_line_at_once_and_is_in_the_audit_log(
    start_gateway: StartGateway, home: Path
) -> None:
    first, second = Issued.make(), Issued.make()
    first.write(home)
    gateway = await start_gateway(CONFIG, home=home)
    async with connect(gateway.ws_url, token=gateway.token, tls=trust(first)) as open_before:
        second.write(home)
        await gateway.wait_line(f"new connections get the certificate SHA-256 {second.fingerprint}")
        told = (await run_command("status", "--json", home=home)).json()
        assert told["tls"]["fingerprint"] == second.fingerprint
        assert (await open_before.request("status"))["tls"]["fingerprint"] == second.fingerprint
        replace(home / "key.pem", first.key_pem)
        await gateway.wait_line("which is the key of another certificate; .*; the certificate of before is still served")
        status = await run_command("status", home=home)
        assert "problem: gateway.tls.keyPath: " in status.out
    await gateway.stop()
    exported = await run_command("audit", "export", home=home)
    rows = [json.loads(line) for line in exported.out.splitlines()]
    actions = [row["action"] for row in rows if row["action"].startswith("tls.")]
    assert sorted(actions) == ["tls.loaded", "tls.loaded", "tls.rejected"]


async def test_the_page_of_an_encrypted_gateway_gets_a_cookie_for_tls_alone(start_gateway: StartGateway, home: Path) -> None:
    issued = Issued.make("gateway.example.org")
    issued.write(home)
    gateway = await start_gateway(CONFIG, home=home)
    code = gateway.link.partition("#code=")[2]
    own = {"Host": "gateway.example.org", "Origin": "https://gateway.example.org"}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trust(None))) as http:
        async with http.post(f"{gateway.url}/auth/exchange", json={"code": code}, headers=own) as answer:
            assert answer.status == 200
            assert "; Secure" in answer.headers["Set-Cookie"]
            assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"
        # Its own https origin may open the WebSocket by itself, the same name without TLS may not.
        async with http.ws_connect(gateway.ws_url, headers=own) as socket:
            assert (await socket.receive_json())["event"] == "connect.challenge"
        for origin in ("http://gateway.example.org", "https://evil.example.org"):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await http.ws_connect(gateway.ws_url, headers={**own, "Origin": origin})
            assert refused.value.status == 403


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (
            "key.pem",
            r"openclaw.yaml:\d+:\d+: gateway.tls.keyPath: .*key.pem, where nothing is; put the private key there, or correct the path",
        ),
        (
            "cert.pem",
            r"openclaw.yaml:\d+:\d+: gateway.tls.certPath: .*cert.pem, where nothing is; put the certificate there, or correct the path",
        ),
    ],
)
async def test_without_a_whole_pair_it_does_not_start(start_gateway: StartGateway, home: Path, spoil: str, line: str) -> None:
    Issued.make().write(home)
    (home / spoil).unlink()
    gateway = await start_gateway(CONFIG, home=home, wait=False)
    assert await gateway.wait_ended() == 78
    await gateway.wait_line(line)


async def test_with_tls_it_may_listen_beyond_loopback(start_gateway: StartGateway, home: Path) -> None:
    """S26."""
    over = {"gateway": {"tls": {"enabled": True}, "bind": "lan", "auth": {"token": "kR2vXq8Lw0ZsT5nYb7Jd"}}}
    gateway = await start_gateway(over, home=home)
    async with connect(gateway.ws_url, token="kR2vXq8Lw0ZsT5nYb7Jd", tls=trust(None)) as client:
        assert (await client.request("health"))["ok"] is True
