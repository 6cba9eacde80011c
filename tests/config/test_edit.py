"""Giving one key another value: every other byte stays, and what cannot be done so is refused."""

from __future__ import annotations

from typing import Any

import pytest

from openclaw_config.edit import CannotEdit, changed_lines, with_value
from openclaw_config.issues import KeyPath
from openclaw_config.source import parse

FILE = """\
# first line
gateway:
  port: 18789                 # one port
  auth: {mode: token, token: 'plain-text'}   # here
channels:
  telegram:
    allowFrom: [1, "*", 3]    # people
    groupAllowFrom:
      - 7   # ada
      # the next is everybody
      - "*"
      - 9
    groups:
      "-100": {requireMention: false}
notes: |
  two
  lines
logging:
  level: debug
"""


@pytest.mark.parametrize(
    ("where", "value", "before", "after"),
    [
        (("logging", "level"), "info", "level: debug", 'level: "info"'),
        (("gateway", "port"), 1, "port: 18789                 # one", "port: 1                 # one"),
        (("gateway", "auth", "token"), "${file:x}", "'plain-text'", '"${file:x}"'),
        (("channels", "telegram", "allowFrom"), [1, 3], '[1, "*", 3]    #', "[1, 3]    #"),
        (("channels", "telegram", "groupAllowFrom"), [7, 9], '      - "*"\n', ""),
        (("channels", "telegram", "groups", "-100", "requireMention"), True, "requireMention: false", "requireMention: true"),
        (("notes",), "one", "|\n  two\n  lines\n", '"one"\n'),
    ],
)
def test_only_the_value_changes(where: KeyPath, value: Any, before: str, after: str) -> None:
    assert with_value("x.yaml", FILE, where, value) == FILE.replace(before, after)


@pytest.mark.parametrize(
    ("text", "edited"),
    [
        ("a: |-\r\n  key\r\nb: 1\r\n", 'a: "new"\r\nb: 1\r\n'),
        ("x:\n  a: |-\n    key\n\n\n  # next\n  b: 1\n", 'x:\n  a: "new"\n\n\n  # next\n  b: 1\n'),
        ("a: |-\n  key", 'a: "new"'),
        ("\ufeffa: key\r\nb: 1", '\ufeffa: "new"\r\nb: 1'),
    ],
)
def test_ends_of_lines_and_empty_lines_stay(text: str, edited: str) -> None:
    where = ("x", "a") if text.startswith("x") else ("a",)
    assert with_value("x.yaml", text, where, "new") == edited


@pytest.mark.parametrize("text", ["a: |- # of work\n  key\n", "a: [\n  1, # ada\n  2]\n", "a: [ # ada\n  1]\n"])
def test_a_comment_within_what_would_be_replaced_is_not_lost(text: str) -> None:
    with pytest.raises(CannotEdit, match="a: a comment stands within it; edit it by hand"):
        with_value("x.yaml", text, ("a",), [1])


def test_the_last_item_leaves_an_empty_list_and_the_comments() -> None:
    text = "a:\n  list:   # of people\n    # everybody\n    - '*'\nb: 1\n"
    edited = with_value("x.yaml", text, ("a", "list"), [])
    assert edited == "a:\n  list: []   # of people\n    # everybody\nb: 1\n"
    assert parse("x.yaml", edited) == {"a": {"list": []}, "b": 1}


@pytest.mark.parametrize(
    ("text", "where", "value"),
    [
        ("a: 1\n", ("b",), 2),
        ("a:\n  b: 1\n", ("a",), {"b": 2}),
        ("a:\n  - 1\n", ("a",), [1, 2]),
        ("a:\n  - {b: 1}\n", ("a",), []),
        ("a: &x debug\nb: *x\n", ("b",), "info"),
        ("a: [1]\n", ("a", 3), 2),
    ],
)
def test_what_would_change_more_than_that_is_left_to_people(text: str, where: KeyPath, value: Any) -> None:
    with pytest.raises(CannotEdit, match="edit it by hand"):
        with_value("x.yaml", text, where, value)


def test_the_lines_that_changed_are_told_with_their_numbers() -> None:
    edited = with_value("x.yaml", FILE, ("logging", "level"), "info")
    assert list(changed_lines(FILE, edited)) == [(19, "-", "  level: debug"), (19, "+", '  level: "info"')]
