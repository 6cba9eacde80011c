from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime

import pytest

from openclaw_providers.anthropic.failures import error_fields, reset_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
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
def test_the_end_of_a_rate_limit_is_read_from_the_limits_headers(headers: dict[str, str], seconds: float | None) -> None:
    assert reset_of(headers, NOW) == seconds


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
