"""A key gets another name, or becomes a comment, and every other byte of the file stays."""

from __future__ import annotations

import difflib
from typing import Any

import pytest

from openclaw_config.edit import CannotEdit
from openclaw_config.mending import with_key_disabled, with_key_renamed
from openclaw_config.source import parse

NAME = "openclaw.yaml"
FILE = """\
# the house
gateway:   # the door
  prot: 18789     # as ever
  "colour": blue
  list:
    - a   # first

    - b
  text: |
    several
    lines

logging: {level: info, lvel: debug, x: [1, 2]}
agents:
  entries:
    main: {default: true}
bindings:
  - agentId: main
    mtch: {channel: telegram}
last: 1
"""


def changed(before: str, after: str) -> list[str]:
    """The lines that differ."""
    return [line for line in difflib.ndiff(before.splitlines(), after.splitlines()) if line[0] in "+-"]


@pytest.mark.parametrize(
    ("where", "new", "lines"),
    [
        (("gateway", "prot"), "port", ["-   prot: 18789     # as ever", "+   port: 18789     # as ever"]),
        (("gateway", "colour"), "color", ['-   "colour": blue', '+   "color": blue']),
        (("gateway", "text"), "yes", ["-   text: |", '+   "yes": |']),
        (("bindings", 0, "mtch"), "match", ["-     mtch: {channel: telegram}", "+     match: {channel: telegram}"]),
    ],
)
def test_a_key_is_renamed_where_it_stands(where: tuple[str | int, ...], new: str, lines: list[str]) -> None:
    edited = with_key_renamed(NAME, FILE, where, new)
    assert changed(FILE, edited) == lines
    assert with_key_renamed(NAME, edited, (*where[:-1], new), str(where[-1])).replace('"text"', "text") == FILE


def test_a_name_that_is_taken_is_refused() -> None:
    with pytest.raises(CannotEdit, match=r"logging\.level: is there too"):
        with_key_renamed(NAME, FILE, ("logging", "lvel"), "level")


@pytest.mark.parametrize(
    ("where", "lines"),
    [
        (("gateway", "prot"), ["-   prot: 18789     # as ever", "+   # prot: 18789     # as ever"]),
        (
            ("gateway", "list"),
            ["-   list:", "+   # list:", "-     - a   # first", "+   #   - a   # first", "-     - b", "+   #   - b"],
        ),
        (
            ("gateway", "text"),
            ["-   text: |", "+   # text: |", "-     several", "+   #   several", "-     lines", "+   #   lines"],
        ),
        (
            ("logging", "lvel"),
            ["- logging: {level: info, lvel: debug, x: [1, 2]}", "+ logging: {level: info, x: [1, 2]}"],
        ),
        (("logging", "x"), ["- logging: {level: info, lvel: debug, x: [1, 2]}", "+ logging: {level: info, lvel: debug}"]),
        (("agents", "entries", "main", "default"), ["-     main: {default: true}", "+     main: {}"]),
        (("last",), ["- last: 1", "+ # last: 1"]),
    ],
)
def test_a_key_becomes_a_comment_with_all_below_it(where: tuple[str | int, ...], lines: list[str]) -> None:
    edited = with_key_disabled(NAME, FILE, where)
    found = changed(FILE, edited)
    assert sorted(found) == sorted(lines)
    holder: Any = parse(NAME, edited)
    for part in where[:-1]:
        holder = holder[part]
    assert where[-1] not in holder


def test_the_last_key_of_a_mapping_leaves_nothing_there() -> None:
    edited = with_key_disabled(NAME, "gateway:\n  prot: 1\nlogging: {}\n", ("gateway", "prot"))
    assert edited == "gateway:\n  # prot: 1\nlogging: {}\n"
    assert parse(NAME, edited)["gateway"] is None


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("bindings:\n  - agentId: main\n    x: 1\n", ("bindings", 0, "agentId")),
        ("a: &here {b: 1}\nc: *here\n", ("a",)),
        ("a: {\n  b: 1, # why\n  c: 2}\n", ("a", "b")),
        ("a: 1\n", ("b",)),
        ("a: [1]\n", ("a", 0)),
    ],
)
def test_what_cannot_be_done_with_all_else_as_it_is_is_refused(text: str, where: tuple[str | int, ...]) -> None:
    with pytest.raises(CannotEdit, match="edit it by hand"):
        with_key_disabled(NAME, text, where)


def test_ends_of_lines_and_a_missing_last_one_stay() -> None:
    text = "gateway:\r\n  prot: 1\r\n  x: 2"
    assert with_key_disabled(NAME, text, ("gateway", "x")) == "gateway:\r\n  prot: 1\r\n  # x: 2"
    assert with_key_renamed(NAME, text, ("gateway", "prot"), "port") == "gateway:\r\n  port: 1\r\n  x: 2"
