from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import pytest

from openclaw_kernel.api import File, ProviderErrorKind
from openclaw_kernel.api.remote import (
    LONGEST_WAIT_SECONDS,
    cause_of,
    file_text,
    kind_of_status,
    one_line,
    parse_arguments,
    retry_after,
    without_password,
    without_secrets,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, None),
        (401, ProviderErrorKind.AUTH),
        (402, ProviderErrorKind.AUTH),
        (404, ProviderErrorKind.NOT_FOUND),
        (408, ProviderErrorKind.TIMEOUT),
        (413, ProviderErrorKind.CONTEXT_LENGTH),
        (422, None),
        (429, ProviderErrorKind.RATE_LIMIT),
        (500, ProviderErrorKind.UNAVAILABLE),
        (502, ProviderErrorKind.UNAVAILABLE),
        (503, ProviderErrorKind.OVERLOADED),
        (504, ProviderErrorKind.TIMEOUT),
        (529, ProviderErrorKind.OVERLOADED),
        (599, ProviderErrorKind.UNAVAILABLE),
    ],
)
def test_a_status_says_the_kind_of_a_failure_or_leaves_it_to_the_words(status: int, kind: ProviderErrorKind | None) -> None:
    assert kind_of_status(status) is kind


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after": "Thu, 01 Jan 2026 00:00:30 GMT"}, 30.0),
        ({"retry-after": "Wed, 31 Dec 2025 00:00:30 GMT"}, 0.0),
        ({"retry-after": "Thu, 01 Jan 2026 00:00:30 -0000"}, 30.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "9" * 400}, LONGEST_WAIT_SECONDS),
        ({"retry-after": "Fri, 31 Dec 9999 23:59:59 GMT"}, LONGEST_WAIT_SECONDS),
        ({"retry-after-ms": "nan"}, None),
    ],
)
def test_the_end_of_a_rate_limit_is_read_from_every_form(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, now=NOW) == (None if seconds is None else pytest.approx(seconds))


def test_a_servers_own_headers_are_asked_where_the_usual_one_is_missing_and_bounded_too() -> None:
    def otherwise(headers: Mapping[str, str], now: datetime) -> float | None:
        assert now == NOW
        return float(headers["x-reset"])

    assert retry_after({"x-reset": "3"}, otherwise=otherwise, now=NOW) == 3.0
    assert retry_after({"x-reset": "9e9"}, otherwise=otherwise, now=NOW) == LONGEST_WAIT_SECONDS
    assert retry_after({"x-reset": "3", "retry-after": "7"}, otherwise=otherwise, now=NOW) == 7.0
    assert retry_after({"x-reset": "3", "retry-after": "soon"}, otherwise=otherwise, now=NOW) is None


def test_the_reason_of_a_failed_connection_is_not_what_a_library_left_out() -> None:
    closed = ConnectionError("the connection was closed")
    closed.__context__, closed.__suppress_context__ = IndexError("pop from an empty deque"), True
    outer = OSError("no answer")
    outer.__context__ = closed
    assert cause_of(outer) == "the connection was closed"


def test_a_reason_without_words_is_named_by_its_type() -> None:
    assert cause_of(TimeoutError()) == "TimeoutError"


def test_what_a_server_said_is_one_line_of_bounded_length() -> None:
    assert one_line("a\n  b\tc") == "a b c"
    assert one_line("x" * 401) == "x" * 400 + " …"
    assert one_line(" <!doctype html>\n<title>502\nBad Gateway</title>" + "<p>x</p>" * 1000) == "a page, '502 Bad Gateway'"
    assert one_line("<html>hello") == "a page"


def test_no_secret_is_left_in_a_message() -> None:
    assert without_secrets("the key abcdef of ab", ["abcdef", "ab", ""]) == "the key <secret> of ab"


def test_a_url_is_shown_without_name_and_password() -> None:
    assert without_password("https://bob:hunter22@host:1/v1") == "https://host:1/v1"
    assert without_password("https://host/v1@2") == "https://host/v1@2"


@pytest.mark.parametrize("text", ['{"city": ', "[1]", "null"])
def test_arguments_that_are_no_object_are_kept_whole(text: str) -> None:
    assert parse_arguments(text) == {"unparsed_arguments": text}


def test_arguments_are_an_object_and_none_are_an_empty_one() -> None:
    assert parse_arguments('{"city": "Paris"}') == {"city": "Paris"}
    assert parse_arguments("") == {}


def test_a_file_is_told_by_its_text_or_as_one_that_cannot_be_read() -> None:
    assert file_text(File("text/plain", "a.txt", "hello")) == "[attached file a.txt (text/plain)]\nhello"
    assert file_text(File("x/y", "a.bin", None)) == "[attached file a.bin (x/y), which cannot be read here]"
