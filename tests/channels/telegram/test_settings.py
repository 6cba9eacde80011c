"""The section `channels.telegram`: what is refused, and what an account takes from the top level."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from openclaw_channels.telegram.settings import TelegramSettings, account_key, webhook_path


def read(section: dict[str, Any]) -> TelegramSettings:
    return TelegramSettings.model_validate(section)


@pytest.mark.parametrize(
    ("section", "complaint"),
    [
        ({"allowFrom": ["@ada"]}, "'@ada' is not a numeric Telegram id; a name can be taken over by others"),
        ({"allowFrom": ["ada"]}, "'ada' is not a numeric Telegram id"),
        ({"allowFrom": ["telegram:7"]}, "'telegram:7' is not a numeric Telegram id"),
        ({"allowFrom": ["\N{ARABIC-INDIC DIGIT SEVEN}"]}, "is not a numeric Telegram id"),
        ({"allowFrom": [""]}, "'' is not a numeric Telegram id"),
        ({"allowFrom": [-1001]}, "-1001 is the id of a group, not of a person"),
        ({"groups": {"My group": {}}}, "'My group' is not a numeric Telegram chat id"),
        ({"groups": {"-1001": {"allowFrom": ["bob"]}}}, "'bob' is not a numeric Telegram id"),
        ({"bottoken": "1:a"}, "Extra inputs are not permitted"),
        ({"botToken": ""}, "at least 1 character"),
        ({"botToken": "1:a", "accounts": {"b": {"botToken": "1:a"}}}, "accounts.b.botToken is that of account default"),
        ({"botToken": "1:a", "defaultAccount": "c"}, "defaultAccount c is not one of: default"),
        ({"textChunkLimit": 5000}, "less than or equal to 4096"),
    ],
)
def test_what_cannot_work_is_refused_with_the_reason(section: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        read(section)


def test_no_error_shows_a_token() -> None:
    with pytest.raises(ValidationError) as refused:
        read({"botToken": "1:canary", "accounts": {"b": {"botToken": "1:canary"}}})
    assert "canary" not in str([error["msg"] for error in refused.value.errors()])


def test_ids_may_be_numbers_or_text() -> None:
    settings = read({"botToken": "1:a", "allowFrom": [7, "8", "*"], "groups": {"-1001": {}, "*": {}}})
    assert settings.allow_from == ["7", "8", "*"]


def test_an_account_takes_from_the_top_level_what_it_leaves_out() -> None:
    settings = read(
        {
            "botToken": "1:a",
            "webhookUrl": "https://example.org/a",
            "allowFrom": [7],
            "streaming": "off",
            "accounts": {"work": {"botToken": "2:b", "allowFrom": [8]}, "old": {"enabled": False, "botToken": "3:c"}},
        }
    )
    accounts = settings.effective()
    assert list(accounts) == ["default", "work", "old"]
    work = accounts["work"]
    assert (work.allow_from, work.streaming, work.webhook_url) == (["8"], "off", None)
    assert accounts["default"].allow_from == ["7"]
    assert not accounts["old"].enabled
    assert account_key(settings, "work") == "channels.telegram.accounts.work"
    assert account_key(settings, "default") == "channels.telegram"
    assert webhook_path(work, "work") == "/telegram-webhook/work"


def test_the_default_account_comes_first_and_a_disabled_channel_disables_all() -> None:
    settings = read({"enabled": False, "defaultAccount": "b", "accounts": {"a": {"botToken": "1:a"}, "b": {"botToken": "2:b"}}})
    assert list(settings.effective()) == ["b", "a"]
    assert not any(account.enabled for account in settings.effective().values())
