from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime

import pytest

from openclaw_kernel.api import ProviderErrorKind
from openclaw_providers.openai.failures import error_fields, kind_of, reset_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"x-ratelimit-reset-requests": "1m30s"}, 90.0),
        ({"x-ratelimit-reset-requests": "1h0m0.5s", "x-ratelimit-reset-tokens": "20ms"}, 3600.5),
        (
            {
                "x-ratelimit-reset-requests": "1h",
                "x-ratelimit-remaining-requests": "9",
                "x-ratelimit-reset-tokens": "20ms",
                "x-ratelimit-remaining-tokens": "0",
            },
            0.02,
        ),
        ({"x-ratelimit-reset-requests": "later"}, None),
    ],
)
def test_the_end_of_a_rate_limit_is_read_from_the_limits_headers(headers: dict[str, str], seconds: float | None) -> None:
    assert reset_of(headers, NOW) == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("This model's maximum context length is 8192 tokens", ProviderErrorKind.CONTEXT_LENGTH),
        ("the request exceeds the available context size", ProviderErrorKind.CONTEXT_LENGTH),
        ("input too long for this model", ProviderErrorKind.CONTEXT_LENGTH),
        ("unknown field x", ProviderErrorKind.BAD_REQUEST),
    ],
)
def test_a_prompt_that_is_too_long_is_known_by_the_words_of_each_server(message: str, kind: ProviderErrorKind) -> None:
    assert kind_of(400, "", message) is kind


@pytest.mark.parametrize(
    ("code", "message", "kind"),
    [
        ("502", "provider returned an error", ProviderErrorKind.UNAVAILABLE),
        ("429", "slow down", ProviderErrorKind.RATE_LIMIT),
        ("rate_limit_exceeded", "slow down", ProviderErrorKind.RATE_LIMIT),
        ("server_error", "the engine is overloaded", ProviderErrorKind.OVERLOADED),
        ("", "context size has been exceeded", ProviderErrorKind.CONTEXT_LENGTH),
        ("server_error", "oops", ProviderErrorKind.UNAVAILABLE),
    ],
)
def test_an_error_inside_a_stream_is_judged_by_its_code_or_words(code: str, message: str, kind: ProviderErrorKind) -> None:
    assert kind_of(None, code, message) is kind


def test_an_error_body_is_read_in_each_form_that_servers_use() -> None:
    assert error_fields({"error": {"code": None, "type": "server_error", "message": "m"}}) == ("server_error", "m")
    assert error_fields({"code": 429, "message": "m"}) == ("429", "m")
    assert error_fields({"error": "model not loaded"}) == ("", "model not loaded")
    assert error_fields("<html>bad gateway</html>") == ("", "<html>bad gateway</html>")
    assert error_fields(None) == ("", "")


def test_loading_the_plugin_does_not_import_the_sdk() -> None:
    code = (
        "import sys, openclaw_providers.openai.plugin, openclaw_providers.openai.runtime\n"
        "assert not {'openai', 'httpx', 'httpx2'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
