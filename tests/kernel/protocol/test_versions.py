"""Versions, the optional keys of a request, and the closes that only a socket can show; the table of all is refusals.py."""

from __future__ import annotations

import json
from typing import Any

import pytest

from openclaw_kernel.protocol.frames import BadFrame, cut_reason, read_request
from openclaw_kernel.protocol.handshake import Close, Phase
from openclaw_kernel.protocol.limits import Limits
from tests.kernel.protocol.test_server import call, client_of, closed, next_frame, serving, socket_to
from tests.kernel.protocol.transcript import Gate, accepted, connect_params, refused, request

pytestmark = pytest.mark.payloads_not_judged("a bare server: its hello and its methods are the test's own")

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize(
    ("mode", "role", "lowest"),
    [
        ("cli", "operator", 4),
        ("ui", "operator", 4),
        ("backend", "operator", 4),
        ("node", "operator", 4),
        ("cli", "node", 4),
        ("node", "node", 3),
        ("probe", "operator", 3),
        ("probe", "node", 3),
    ],
)
def test_only_probes_and_nodes_may_be_one_version_behind(mode: str, role: str, lowest: int) -> None:
    for highest in (1, 2, 3, 4, 5):
        actions = Gate().connect(connect_params("cli", mode, minProtocol=1, maxProtocol=highest, role=role))
        if role == "operator" and highest >= lowest:
            accepted(actions)
            continue
        error, close = refused(actions)
        mismatch = error.get("details", {}).get("code") == "PROTOCOL_MISMATCH"
        assert mismatch is (highest < lowest), (highest, error)
        assert (close == Close(1002, "protocol mismatch")) is mismatch


def test_a_client_that_is_too_new_is_refused_whatever_its_mode() -> None:
    for mode, role in (("cli", "operator"), ("probe", "operator"), ("node", "node")):
        error, close = refused(Gate().connect(connect_params("cli", mode, minProtocol=5, maxProtocol=9, role=role)))
        assert error["message"] == "protocol mismatch"
        assert error["code"] == "INVALID_REQUEST"
        assert close.code == 1002


@pytest.mark.parametrize("key", ["minProtocol", "maxProtocol"])
@pytest.mark.parametrize("value", [0, -1, "4", 4.5, None])
def test_a_version_is_an_integer_from_one(key: str, value: Any) -> None:
    error, close = refused(Gate().connect(connect_params(**{key: value})))
    assert key in error["message"]
    assert close.code == 1008


def test_the_phase_is_told_before_the_version_and_the_version_before_the_role() -> None:
    params = connect_params(minProtocol=1, maxProtocol=1, role="emperor", auth={})
    assert refused(Gate(phase=Phase.STARTING).connect(params))[1].code == 1013
    assert refused(Gate().connect(params))[1].code == 1002
    assert refused(Gate().connect(params | {"maxProtocol": 4}))[1].reason == "invalid role"


def test_traceparent_and_profile_are_taken_up_to_128_characters() -> None:
    cases: tuple[tuple[str, list[str], list[Any]], ...] = (
        ("traceparent", ["", TRACE, "t" * 128], ["t" * 129, 7, {}]),
        ("expectedProfileId", ["p", "p" * 128], ["", "p" * 129, 7, []]),
    )
    for key, good, bad in cases:
        for value in good:
            read = read_request(json.dumps({"type": "req", "id": "1", "method": "health", key: value}))
            assert read.traceparent == (value if key == "traceparent" else None)
        for wrong in bad:
            with pytest.raises(BadFrame, match=key) as refusal:
                read_request(json.dumps({"type": "req", "id": "1", "method": "health", key: wrong}))
            assert refusal.value.request_id == "1"


async def test_a_traceparent_stands_in_the_log_beside_the_fault(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as served, client_of(served, "operator.admin") as ws:
        frame = {"type": "req", "id": "1", "method": "broken", "traceparent": TRACE, "expectedProfileId": "anybody"}
        await ws.send_str(json.dumps(frame))
        assert (await next_frame(ws))["error"]["code"] == "UNAVAILABLE"
    assert TRACE in caplog.text


def test_a_long_reason_is_cut_at_120_bytes() -> None:
    error, close = refused(Gate().connect(connect_params(**{"k" * 400: 1, "j" * 400: 2})))
    assert "k" * 60 in error["message"]
    assert len(cut_reason(close.reason, Limits().close_reason_bytes)) == 120
    assert cut_reason("é" * 100, 119).decode() == "é" * 59


async def test_a_mismatch_on_a_socket_is_an_error_and_1002() -> None:
    async with serving() as served, socket_to(served) as ws:
        await next_frame(ws)
        await ws.send_str(request("connect", connect_params(minProtocol=3, maxProtocol=3)))
        assert (await next_frame(ws))["error"]["details"]["expectedProtocol"] == 4
        assert await closed(ws) == (1002, "protocol mismatch")


@pytest.mark.parametrize(
    ("phase", "reason", "retry"),
    [(Phase.STARTING, "gateway starting", 500), (Phase.DRAINING, "gateway restart in progress", 1000)],
)
async def test_a_gateway_that_does_not_serve_closes_with_1013(phase: Phase, reason: str, retry: int) -> None:
    async with serving() as served, socket_to(served) as ws:
        served.phase = phase
        await next_frame(ws)
        await ws.send_str(request("connect", connect_params()))
        error = (await next_frame(ws))["error"]
        assert (error["code"], error["retryable"], error["retryAfterMs"]) == ("UNAVAILABLE", True, retry)
        assert await closed(ws) == (1013, reason)


async def test_more_than_ten_calls_of_another_role_close_the_socket() -> None:
    async with serving() as served, client_of(served, "operator.admin") as ws:
        for number in range(10):
            assert (await call(ws, "for.nodes"))["error"]["message"] == "unauthorized role: operator", number
        assert (await call(ws, "quick"))["ok"]
        await ws.send_str(request("for.nodes", request_id="last"))
        assert (await next_frame(ws))["error"]["message"] == "unauthorized role: operator"
        assert await closed(ws) == (1008, "repeated unauthorized calls")


async def test_a_fault_of_the_gateway_itself_is_1011(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as served:
        monkeypatch.setattr(served.server, "_hello", lambda _connection: 1 // 0)
        async with socket_to(served) as ws:
            await next_frame(ws)
            await ws.send_str(request("connect", connect_params()))
            assert await closed(ws) == (1011, "internal error")
        monkeypatch.undo()
        async with client_of(served, "operator.read") as ws:
            assert (await call(ws, "quick"))["ok"]
    assert "ZeroDivisionError" in caplog.text
