from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime

import pytest

from openclaw_providers.anthropic.failures import cause_of, error_fields, retry_after

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "Thu, 01 Jan 2026 00:00:30 GMT"}, 30.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Thu, 01 Jan 2026 00:00:30 -0000"}, 30.0),
        ({"retry-after": "9" * 400}, 7 * 86_400.0),
        (
            {
                "anthropic-ratelimit-requests-reset": "2026-01-01T01:00:00Z",
                "anthropic-ratelimit-requests-remaining": "5",
                "anthropic-ratelimit-input-tokens-reset": "2026-01-01T00:00:10Z",
                "anthropic-ratelimit-input-tokens-remaining": "0",
            },
            10.0,
        ),
        ({"anthropic-ratelimit-requests-reset": "2026-01-01T01:00:00Z"}, None),
    ],
)
def test_the_end_of_a_rate_limit_is_read_from_every_form(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, NOW) == seconds


def test_an_error_body_is_read_in_the_apis_form_and_in_a_proxys() -> None:
    assert error_fields({"type": "error", "error": {"type": "api_error", "message": "m"}}) == ("api_error", "m")
    assert error_fields("<html>bad gateway</html>") == ("", "<html>bad gateway</html>")
    assert error_fields(None) == ("", "")


def test_loading_the_plugin_does_not_import_the_sdk() -> None:
    code = (
        "import sys, openclaw_providers.anthropic.plugin, openclaw_providers.anthropic.runtime\n"
        "assert not {'anthropic', 'httpx', 'httpx2'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


def test_the_reason_of_a_failed_connection_is_not_what_a_library_left_out() -> None:
    closed = ConnectionError("the connection was closed")
    closed.__context__, closed.__suppress_context__ = IndexError("pop from an empty deque"), True
    outer = OSError("no answer")
    outer.__context__ = closed
    assert cause_of(outer) == "the connection was closed"
