"""What the commands say where no gateway answers, or not as one should."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from openclaw_kernel.protocol.handshake import Phase
from openclaw_kernel.testing import run_gateway
from tests.kernel.cli.command import run_command
from tests.support.gateway import RunningGateway, StartGateway

ASKING = (["status"], ["health"], ["open"], ["call", "health"], ["chat", "-m", "hello"])


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def write_config(home: Path, text: str) -> None:
    (home / "openclaw.yaml").write_text(text, encoding="utf-8")


@asynccontextmanager
async def listening(talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[str]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await talk(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize("arguments", ASKING, ids=" ".join)
async def test_no_gateway_is_one_line_with_the_cure(arguments: list[str], tmp_path: Path) -> None:
    port = free_port()
    write_config(tmp_path, f"gateway: {{port: {port}, auth: {{token: abcdefgh}}}}")
    outcome = await run_command(*arguments, home=tmp_path)
    assert (outcome.status, outcome.out) == (69, "")
    assert outcome.err == f"no gateway answers on http://127.0.0.1:{port}; start it with openclaw-kernel run\n"


@pytest.mark.parametrize("arguments", [*ASKING, ["restart"], ["why", "m1"]], ids=" ".join)
async def test_where_the_system_chooses_the_port_nobody_else_is_asked(arguments: list[str], tmp_path: Path) -> None:
    """S14: whoever listens on the usual port is not offered the secret."""
    write_config(tmp_path, "gateway: {port: 0, auth: {token: abcdefgh}}")
    outcome = await run_command(*arguments, home=tmp_path)
    assert (outcome.status, outcome.out) == (69, "")
    assert outcome.err.startswith(f"no gateway runs in {tmp_path}, and gateway.port is 0")


async def test_the_cure_names_the_home_that_was_given(tmp_path: Path) -> None:
    write_config(tmp_path, f"gateway: {{port: {free_port()}}}")
    outcome = await run_command("status", "--home", str(tmp_path), home=Path("/nowhere"))
    assert outcome.err.endswith(f"; start it with openclaw-kernel run --home {tmp_path}\n")


async def test_programs_get_the_failure_as_json(tmp_path: Path) -> None:
    write_config(tmp_path, f"gateway: {{port: {free_port()}}}")
    outcome = await run_command("status", "--json", home=tmp_path)
    assert outcome.status == 69
    error = json.loads(outcome.err)["error"]
    assert error["exit"] == 69
    assert error["message"].startswith("no gateway answers on ")


async def test_a_lock_file_left_by_a_crash_is_not_believed(gateway: RunningGateway, tmp_path: Path) -> None:
    await gateway.kill()
    assert (gateway.home / "gateway.lock").exists()
    port = free_port()
    gateway.write_config({**gateway.config, "gateway": {**gateway.config["gateway"], "port": port}})
    outcome = await run_command("status", home=gateway.home)
    assert outcome.status == 69
    assert f"http://127.0.0.1:{port};" in outcome.err


async def test_a_wrong_token_is_named_by_its_place(start_gateway: StartGateway) -> None:
    # Else the edit below would be in force before it is asked.
    gateway = await start_gateway({"gateway": {"reload": {"mode": "off"}}})
    outcome = await run_command("status", "--token", "wrong", home=gateway.home)
    assert (outcome.status, outcome.out) == (1, "")
    assert outcome.err.startswith(f"{gateway.url}: unauthorized: gateway token mismatch")
    assert "sent was --token" in outcome.err
    gateway.write_config(
        {**gateway.config, "gateway": {**gateway.config["gateway"], "auth": {"mode": "token", "token": "edited-meanwhile"}}}
    )
    outcome = await run_command("status", home=gateway.home)
    assert f"sent was gateway.auth.token in {gateway.config_path}" in outcome.err
    assert "edited-meanwhile" not in outcome.err


async def test_the_local_secret_is_not_sent_to_another_url(gateway: RunningGateway) -> None:
    outcome = await run_command("status", "--url", gateway.url, home=gateway.home)
    assert outcome.status == 1
    assert "token missing" in outcome.err
    assert "OPENCLAW_GATEWAY_TOKEN" in outcome.err
    for url in (gateway.url, gateway.ws_url, gateway.url.removeprefix("http://")):
        named = await run_command("status", "--url", url, home=gateway.home, env={"OPENCLAW_GATEWAY_TOKEN": gateway.token})
        assert named.status == 0, named.err


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        ("gateway: [", "openclaw.yaml:1:11: not valid YAML: "),
        ("- gateway", "openclaw.yaml:1:1: holds a list"),
        ("gateway:\n  port: many", "openclaw.yaml:2:3: gateway.port: found 'many'; use a number"),
        ("gateway: 3", "openclaw.yaml:1:1: gateway: holds a "),
        ("gateway: {auth: {token: '${file:nosuch}'}}", "gateway.auth.token: the file "),
    ],
)
async def test_a_config_that_cannot_be_read_ends_with_78(config: str, complaint: str, tmp_path: Path) -> None:
    write_config(tmp_path, config)
    outcome = await run_command("status", home=tmp_path)
    assert outcome.status == 78
    assert complaint in outcome.err
    assert outcome.err.count("\n") == 1


async def test_another_server_on_the_port_is_told_apart(tmp_path: Path) -> None:
    async def website(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    async def mailer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example.org ESMTP\r\n\r\n")
        await writer.drain()
        await _reader.read()

    for talk in (website, mailer):
        async with listening(talk) as url:
            outcome = await run_command("status", "--url", url, home=tmp_path)
        assert outcome.status == 69
        assert "no gateway of this kind" in outcome.err


async def test_a_gateway_that_is_busy_or_gone_in_the_middle_is_temporary(tmp_path: Path) -> None:
    async def full(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    async def dying(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")

    for talk, complaint in ((full, "HTTP 503"), (dying, "was lost")):
        async with listening(talk) as url:
            outcome = await run_command("health", "--url", url, home=tmp_path)
        assert outcome.status == 75
        assert complaint in outcome.err


@pytest.mark.parametrize("phase", [Phase.STARTING, Phase.DRAINING])
async def test_a_gateway_that_starts_or_stops_is_temporary(phase: Phase, tmp_path: Path) -> None:
    async with run_gateway(tmp_path, {"models": {"providers": {"echo": {}}}}) as gateway:
        gateway.app.facts.phase = phase
        outcome = await run_command("status", home=gateway.home)
        gateway.app.facts.phase = Phase.SERVING
    assert outcome.status == 75
    assert "retry shortly" in outcome.err


async def test_a_call_that_takes_too_long_is_temporary(gateway: RunningGateway) -> None:
    params = json.dumps({"message": "!hang", "idempotencyKey": "k", "sessionKey": "main"})
    outcome = await run_command("call", "agent", params, "--final", "--timeout", "0.5", home=gateway.home)
    assert outcome.status == 75
    assert outcome.err.startswith("agent: no answer within 0.5 s")
