"""Session keys: every spelling has one stored form."""

from __future__ import annotations

import pytest

from openclaw_kernel.api import InvalidRequest
from openclaw_plugins.conversation.keys import KeyRules, chat_type_of, kind_of

RULES = KeyRules("home", "main")


@pytest.mark.parametrize(
    ("raw", "agent", "canonical"),
    [
        ("main", None, "agent:home:main"),
        (" Main ", None, "agent:home:main"),
        ("main", "Work", "agent:work:main"),
        ("side", None, "agent:home:side"),
        ("agent:work:Side", None, "agent:work:side"),
        ("agent:work:side", "work", "agent:work:side"),
        ("AGENT:WORK:MAIN", None, "agent:work:main"),
        ("telegram:group:-100", None, "agent:home:telegram:group:-100"),
        ("hook:1-2", None, "agent:home:hook:1-2"),
        ("global", None, "global"),
        ("unknown", "work", "unknown"),
    ],
)
def test_a_key_has_one_stored_form(raw: str, agent: str | None, canonical: str) -> None:
    assert RULES.canonical(raw, agent) == canonical
    assert RULES.canonical(canonical) == canonical


def test_main_is_an_alias_of_the_configured_main_key() -> None:
    rules = KeyRules("home", "lobby")
    assert rules.canonical("main") == rules.canonical("lobby") == rules.canonical("agent:home:main") == "agent:home:lobby"
    assert rules.is_main("agent:home:lobby")
    assert rules.is_main("agent:work:lobby")
    assert not rules.is_main("agent:home:main2")


@pytest.mark.parametrize(
    ("raw", "agent"),
    [
        ("", None),
        ("  ", None),
        ("x" * 513, None),
        ("a\nb", None),
        ("agent:", None),
        ("agent:work", None),
        ("agent::x", None),
        ("agent:-bad:x", None),
        ("agent:work:x", "home"),
        ("x", "bad id"),
    ],
)
def test_what_cannot_be_a_key_is_refused(raw: str, agent: str | None) -> None:
    with pytest.raises(InvalidRequest):
        RULES.canonical(raw, agent)


@pytest.mark.parametrize(
    ("key", "kind", "chat_type"),
    [
        ("agent:a:main", "direct", "direct"),
        ("agent:a:telegram:direct:7", "direct", "direct"),
        ("agent:a:telegram:group:-1", "group", "group"),
        ("agent:a:discord:channel:9:thread:2", "group", "channel"),
        ("agent:a:group", "direct", "direct"),
        ("global", "global", "direct"),
        ("unknown", "unknown", "direct"),
    ],
)
def test_a_key_tells_who_talks(key: str, kind: str, chat_type: str) -> None:
    assert (kind_of(key), chat_type_of(key)) == (kind, chat_type)
