from __future__ import annotations

import pytest

from openclaw_kernel.api import Target
from openclaw_plugins.control.places import target_of


@pytest.mark.parametrize(
    ("to", "kind", "peer"),
    [
        ("42", "direct", "42"),
        ("direct:42", "direct", "42"),
        ("group:-100", "group", "-100"),
        ("channel:#a:b", "channel", "#a:b"),
        ("room:7", "direct", "room:7"),
        ("group", "direct", "group"),
    ],
)
def test_a_place_is_an_id_with_or_without_its_kind(to: str, kind: str, peer: str) -> None:
    target = target_of(" Telegram ", to, account_id=None, thread_id=None)
    assert (target.channel, target.account_id, target.peer_kind, target.peer_id) == ("telegram", "default", kind, peer)


def test_a_thread_is_text_and_an_account_as_it_was_named() -> None:
    expected = Target(channel="irc", account_id="work", peer_kind="direct", peer_id="ann", thread_id="7")
    assert target_of("irc", "ann", account_id="work", thread_id=7) == expected
