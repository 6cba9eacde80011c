"""The device flow without a network: what each answer means and when the next question is."""

from __future__ import annotations

import json
from typing import Any

import pytest

from openclaw_config.oauth import OAuthClient
from openclaw_config.secrets import Secret
from openclaw_kernel.oauth.flow import (
    DeviceCode,
    OAuthFailed,
    Polling,
    Tokens,
    device_form,
    poll_form,
    read_device_code,
    read_tokens,
    refresh_form,
)

ADDRESSES = {"deviceAuthorizationUrl": "https://id.example/device", "tokenUrl": "https://id.example/token"}
CLIENT = OAuthClient.model_validate({"clientId": "c", "scopes": ["a", "b:c"], **ADDRESSES})
BEGUN: dict[str, Any] = {
    "device_code": "value-of-the-device-code",
    "user_code": "WDJB-MJHT",
    "verification_uri": "https://id.example/activate",
    "expires_in": 100,
    "interval": 5,
}
GRANTED: dict[str, Any] = {
    "access_token": "value-of-access",
    "token_type": "bearer",
    "expires_in": 3600,
    "refresh_token": "value-of-refresh",
}


def begun(**changes: Any) -> DeviceCode:
    return read_device_code(200, json.dumps({**BEGUN, **changes}).encode())


def granted(status: int = 200, before: Tokens | None = None, **changes: Any) -> Tokens:
    answer = {key: value for key, value in {**GRANTED, **changes}.items() if value is not None}
    return read_tokens(status, json.dumps(answer).encode(), login_id="l", now_ms=1_000_000, before=before)


def failure(code: str) -> OAuthFailed:
    with pytest.raises(OAuthFailed) as failed:
        read_tokens(400, json.dumps({"error": code}).encode(), login_id="l", now_ms=0)
    return failed.value


def test_the_forms_are_those_of_the_standards() -> None:
    with_secret = OAuthClient.model_validate({"clientId": "c", "clientSecret": "value-of-the-client", **ADDRESSES})
    assert device_form(CLIENT) == {"client_id": "c", "scope": "a b:c"}
    assert poll_form(with_secret, begun()) == {
        "client_id": "c",
        "client_secret": "value-of-the-client",
        "grant_type": "urn:ietf:params:oauth:grant-type:device_code",
        "device_code": "value-of-the-device-code",
    }
    assert refresh_form(CLIENT, Secret("r")) == {"client_id": "c", "grant_type": "refresh_token", "refresh_token": "r"}


@pytest.mark.parametrize("address", ["http://id.example/token", "https://me@id.example/x", "ftp://x", "https://", "http://127.0.0.1.evil/"])
def test_an_address_that_would_carry_a_credential_in_the_clear_is_refused(address: str) -> None:
    for name in ADDRESSES:
        with pytest.raises(ValueError, match="match pattern"):
            OAuthClient.model_validate({"clientId": "c", **ADDRESSES, name: address})
    for local in ("http://127.0.0.1:80/x", "http://localhost/x", "http://[::1]:8080/x"):
        OAuthClient.model_validate({"clientId": "c", "deviceAuthorizationUrl": local, "tokenUrl": local})


def test_a_login_begins_with_what_the_person_has_to_do() -> None:
    code = begun(verification_uri_complete="https://id.example/activate?c=WDJB-MJHT")
    assert (code.user_code, code.verification_uri) == ("WDJB-MJHT", "https://id.example/activate")
    assert code.verification_uri_complete == "https://id.example/activate?c=WDJB-MJHT"
    assert "value-of" not in repr(code)
    assert read_device_code(200, json.dumps({k: v for k, v in BEGUN.items() if k != "interval"}).encode()).interval == 5.0


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"device_code": None}, "has no device_code"),
        ({"user_code": 5}, "has no device_code, user_code"),
        ({"user_code": "a\x1b[2J"}, "user_code"),
        ({"verification_uri": "javascript:alert(1)"}, "no"),
        ({"verification_uri_complete": "file:///etc/passwd"}, "none of the web"),
        ({"expires_in": None}, "when the code expires"),
        ({"expires_in": -1}, "when the code expires"),
        ({"expires_in": True}, "when the code expires"),
    ],
)
def test_a_beginning_of_another_form_is_refused(change: dict[str, Any], told: str) -> None:
    with pytest.raises(OAuthFailed, match=told) as failed:
        begun(**change)
    assert not failed.value.temporary


def test_tokens_are_taken_with_their_end() -> None:
    tokens = granted()
    assert (tokens.access, tokens.refresh, tokens.expires_ms) == (Secret("value-of-access"), Secret("value-of-refresh"), 4_600_000)
    assert granted(expires_in=None).expires_ms is None
    assert granted(expires_in="60").expires_ms == 1_060_000
    assert granted(refresh_token=None).refresh is None
    assert granted(refresh_token=None, before=tokens).refresh == Secret("value-of-refresh")
    assert granted(refresh_token="another-refresh", before=tokens).refresh == Secret("another-refresh")
    assert "value-of" not in repr(tokens)


@pytest.mark.parametrize(
    ("expires_in", "fresh_until", "over_at"), [(3600, 4_540_000, 4_600_000), (100, 1_090_000, 1_100_000), (None, None, None)]
)
def test_a_token_is_renewed_before_its_end(expires_in: int | None, fresh_until: int | None, over_at: int | None) -> None:
    tokens = granted(expires_in=expires_in)
    if fresh_until is None or over_at is None:
        assert not tokens.is_stale(10**15)
        assert not tokens.is_over(10**15)
        return
    assert [tokens.is_stale(now) for now in (fresh_until - 1, fresh_until)] == [False, True]
    assert [tokens.is_over(now) for now in (over_at - 1, over_at)] == [False, True]


@pytest.mark.parametrize(
    ("status", "body", "code", "temporary", "told"),
    [
        (400, '{"error": "access_denied"}', "access_denied", False, "was refused by the person"),
        (200, '{"error": "authorization_pending"}', "authorization_pending", False, "nobody has confirmed"),
        (400, '{"error": "odd", "error_description": "of ours"}', "odd", False, "the server answered 'odd' (of ours)"),
        (500, "", "unavailable", True, "answered 500; try again later"),
        (429, "{}", "unavailable", True, "answered 429"),
        (200, "<html>", "odd-answer", False, "is no JSON object"),
        (200, "[]", "odd-answer", False, "is no JSON object"),
        (302, "{}", "odd-answer", False, "has the status 302"),
        (404, "nothing here", "odd-answer", False, "has the status 404"),
        (200, "x" * 70_000, "odd-answer", False, "longer than 65536 bytes"),
        (200, "[" * 60_000, "odd-answer", False, "is no JSON object"),
        (200, '{"token_type": "bearer"}', "odd-answer", False, "has no access_token"),
        (200, '{"access_token": "x", "token_type": "mac"}', "odd-answer", False, "no bearer token"),
        (200, '{"access_token": "x\\r\\nHost: evil", "token_type": "bearer"}', "odd-answer", False, "has no access_token"),
    ],
)
def test_every_other_answer_is_named(status: int, body: str, code: str, temporary: bool, told: str) -> None:
    with pytest.raises(OAuthFailed) as failed:
        read_tokens(status, body.encode(), login_id="l", now_ms=0)
    assert (failed.value.code, failed.value.temporary) == (code, temporary)
    assert told in str(failed.value)
    assert len(str(failed.value)) < 300


def test_what_a_server_tells_back_is_not_shown() -> None:
    Secret("value-that-was-sent")
    body = json.dumps({"error": "invalid_grant", "error_description": "value-that-was-sent is\nold " + "x" * 500})
    with pytest.raises(OAuthFailed) as failed:
        read_tokens(400, body.encode(), login_id="l", now_ms=0)
    assert "value-that-was-sent" not in str(failed.value)
    assert "\n" not in str(failed.value)


def test_the_server_is_asked_at_its_interval() -> None:
    polling = Polling(begun(interval=7), 0.0)
    assert polling.wait(0.0) == 7
    assert polling.wait(7.0, failure("authorization_pending")) == 7


def test_slow_down_adds_five_seconds_for_good() -> None:
    polling = Polling(begun(), 0.0)
    assert polling.wait(0.0) == 5
    assert polling.wait(5.0, failure("slow_down")) == 10
    assert polling.wait(15.0, failure("authorization_pending")) == 10
    assert polling.wait(25.0, failure("slow_down")) == 15


def test_a_server_that_is_away_is_asked_less_often_and_then_as_before() -> None:
    away = OAuthFailed("unreachable", "no answer", temporary=True)
    polling = Polling(begun(expires_in=1000), 0.0)
    assert [polling.wait(1.0, away) for _ in range(5)] == [10, 20, 40, 60, 60]
    assert polling.wait(1.0, failure("authorization_pending")) == 5


@pytest.mark.parametrize("code", ["access_denied", "expired_token", "invalid_grant", "invalid_client", "never-heard-of"])
def test_what_ends_a_login_ends_it(code: str) -> None:
    with pytest.raises(OAuthFailed) as failed:
        Polling(begun(), 0.0).wait(0.0, failure(code))
    assert failed.value.code == code


def test_a_code_that_is_about_to_expire_is_not_waited_for() -> None:
    polling = Polling(begun(), 1000.0)
    assert polling.wait(1094.0) == 5
    with pytest.raises(OAuthFailed, match="nobody confirmed the code in time; begin the login again"):
        polling.wait(1095.0, failure("authorization_pending"))
