"""Who may start a turn."""

from __future__ import annotations

from typing import Any

import pytest

from openclaw_kernel.api import InboundMessage, PeerKind, Target, Verdict
from openclaw_plugins.admission.rules import admit, read_policy

ALLOW, DROP, HINT = Verdict.ALLOW, Verdict.DROP, Verdict.HINT


def message(
    sender: str = "123",
    *,
    kind: PeerKind = "direct",
    peer: str | None = None,
    account: str = "default",
    channel: str = "telegram",
    mentioned: bool = True,
    name: str = "",
) -> InboundMessage:
    target = Target(channel=channel, account_id=account, peer_kind=kind, peer_id=peer if peer is not None else sender)
    return InboundMessage(target=target, message_id="1", sender_id=sender, sender_name=name, mentioned=mentioned)


def verdict(section: dict[str, Any], incoming: InboundMessage) -> Verdict:
    return admit(incoming, read_policy("telegram", section)).verdict


@pytest.mark.parametrize(
    ("section", "sender", "expected"),
    [
        ({}, "123", HINT),
        ({"allowFrom": ["123"]}, "123", ALLOW),
        ({"allowFrom": [123]}, "123", ALLOW),
        ({"allowFrom": [123]}, "1234", HINT),
        ({"allowFrom": ["123"]}, "12", HINT),
        ({"allowFrom": ["123"]}, "", DROP),
        ({"allowFrom": ["Alice"]}, "alice", HINT),
        ({"allowFrom": ["alice"]}, "al\u0456ce", HINT),
        ({"allowFrom": ["-5"]}, "5", HINT),
        ({"dmPolicy": "pairing", "allowFrom": ["123"]}, "123", ALLOW),
        ({"dmPolicy": "pairing"}, "123", HINT),
        ({"dmPolicy": "allowlist", "allowFrom": ["*"]}, "123", HINT),
        ({"dmPolicy": "allowlist", "allowFrom": ["*"]}, "*", HINT),
        ({"dmPolicy": "open", "allowFrom": ["*"]}, "123", ALLOW),
        ({"dmPolicy": "open", "allowFrom": ["*"]}, "", DROP),
        ({"dmPolicy": "open", "allowFrom": ["9"]}, "123", HINT),
        ({"dmPolicy": "disabled", "allowFrom": ["123"]}, "123", DROP),
        ({"allowFrom": ["123"], "botToken": "x", "streaming": {"mode": "draft"}}, "123", ALLOW),
    ],
)
def test_direct_messages_are_admitted_by_exact_id(section: dict[str, Any], sender: str, expected: Verdict) -> None:
    assert verdict(section, message(sender)) is expected


def test_a_name_never_admits() -> None:
    assert verdict({"allowFrom": ["alice"]}, message("9", name="alice")) is HINT


def test_the_hint_tells_the_sender_its_id_and_where_the_owner_adds_it() -> None:
    decided = admit(message("123"), read_policy("telegram", {}))
    assert decided.hint == ("this bot answers only people it knows; your id is 123. its owner can add it under channels.telegram.allowFrom")
    assert "\n" not in decided.hint


LISTED = {"groups": {"-5": {}}, "allowFrom": ["123"]}


@pytest.mark.parametrize(
    ("section", "incoming", "expected"),
    [
        ({}, message("123", kind="group", peer="-5"), DROP),
        (LISTED, message("123", kind="group", peer="-5"), ALLOW),
        (LISTED, message("123", kind="channel", peer="-5"), ALLOW),
        (LISTED, message("9", kind="group", peer="-5"), DROP),
        (LISTED, message("", kind="group", peer="-5"), DROP),
        (LISTED, message("123", kind="group", peer="-6"), DROP),
        (LISTED, message("123", kind="group", peer="-5", mentioned=False), DROP),
        ({"allowFrom": ["123"]}, message("123", kind="group", peer="-5"), DROP),
        ({"allowFrom": ["123"], "groups": {"*": {}}}, message("123", kind="group", peer="-5"), ALLOW),
        ({"groups": {"-5": {"allowFrom": ["*"]}}}, message("9", kind="group", peer="-5"), ALLOW),
        ({"groups": {"-5": {"allowFrom": ["*"]}}}, message("", kind="group", peer="-5"), DROP),
        ({"allowFrom": ["-5"], "groups": {"-5": {}}}, message("9", kind="group", peer="-5"), DROP),
        (
            {"groups": {-5: {"requireMention": False}}, "allowFrom": [123]},
            message("123", kind="group", peer="-5", mentioned=False),
            ALLOW,
        ),
        (
            {"groups": {"*": {"requireMention": False}}, "allowFrom": ["123"]},
            message("123", kind="group", peer="-7", mentioned=False),
            ALLOW,
        ),
        (
            {"groups": {"*": {"requireMention": False}, "-5": {"requireMention": True}}, "allowFrom": ["123"]},
            message("123", kind="group", peer="-5", mentioned=False),
            DROP,
        ),
        ({**LISTED, "groupAllowFrom": ["9"]}, message("123", kind="group", peer="-5"), DROP),
        ({**LISTED, "groupAllowFrom": ["9"]}, message("9", kind="group", peer="-5"), ALLOW),
        ({**LISTED, "groupAllowFrom": ["*"]}, message("9", kind="group", peer="-5"), ALLOW),
        (
            {"groups": {"-5": {"allowFrom": ["8"]}}, "groupAllowFrom": ["9"]},
            message("9", kind="group", peer="-5"),
            DROP,
        ),
        (
            {"groups": {"-5": {"allowFrom": ["8"]}}, "groupAllowFrom": ["9"]},
            message("8", kind="group", peer="-5"),
            ALLOW,
        ),
        ({"groups": {"-5": {"allowFrom": ["8"]}}, "groupPolicy": "open"}, message("9", kind="group", peer="-5"), DROP),
        ({"groupPolicy": "open"}, message("9", kind="group", peer="-5"), ALLOW),
        ({"groupPolicy": "open"}, message("9", kind="group", peer="-5", mentioned=False), DROP),
        ({"groupPolicy": "open", "groups": {"-6": {}}}, message("9", kind="group", peer="-5"), ALLOW),
        ({"groupPolicy": "open", "groupAllowFrom": ["8"]}, message("9", kind="group", peer="-5"), DROP),
        ({"groupPolicy": "disabled", **LISTED}, message("123", kind="group", peer="-5"), DROP),
        ({"dmPolicy": "open", "allowFrom": ["*"], "groups": {"-5": {}}}, message("9", kind="group", peer="-5"), DROP),
    ],
)
def test_groups_are_admitted_by_policy_group_sender_and_mention(
    section: dict[str, Any], incoming: InboundMessage, expected: Verdict
) -> None:
    assert verdict(section, incoming) is expected


ACCOUNTS = {
    "allowFrom": ["1"],
    "accounts": {
        "work": {"botToken": "x", "allowFrom": [2]},
        "shut": {"dmPolicy": "disabled"},
        "broken": {"allowFrom": "3"},
    },
}


@pytest.mark.parametrize(
    ("account", "sender", "expected"),
    [
        ("default", "1", ALLOW),
        ("other", "1", ALLOW),
        ("work", "2", ALLOW),
        ("work", "1", HINT),
        ("shut", "1", DROP),
        ("broken", "1", DROP),
        ("broken", "3", DROP),
    ],
)
def test_an_account_may_have_rules_of_its_own(account: str, sender: str, expected: Verdict) -> None:
    assert verdict(ACCOUNTS, message(sender, account=account)) is expected


def test_the_hint_names_the_list_that_decides_for_the_account() -> None:
    policy = read_policy("telegram", ACCOUNTS)
    assert "channels.telegram.accounts.work.allowFrom" in admit(message("9", account="work"), policy).hint
    assert "channels.telegram.allowFrom" in admit(message("9"), policy).hint


def test_webchat_is_admitted_whatever_its_section_says() -> None:
    assert verdict({"dmPolicy": "disabled"}, message("anyone", channel="webchat")) is ALLOW


@pytest.mark.parametrize(
    ("section", "part"),
    [
        ({"allowFrom": "123"}, "channels.telegram.allowFrom"),
        ({"dmPolicy": "opne"}, "channels.telegram.dmPolicy"),
        ({"allowFrom": [True]}, "channels.telegram.allowFrom.0"),
        ({"dmPolicy": "open"}, 'add "*"'),
        ({"allowFrom": ["*"]}, "set dmPolicy to open"),
        (ACCOUNTS, "channels.telegram.accounts.broken.allowFrom"),
    ],
)
def test_rules_that_cannot_work_are_reported_with_their_place(section: dict[str, Any], part: str) -> None:
    assert any(part in fault for fault in read_policy("telegram", section).faults())


def test_rules_that_cannot_be_read_let_nobody_in() -> None:
    assert verdict({"allowFrom": ["123"], "dmPolicy": "opne"}, message("123")) is DROP
