"""Editing a config's text: it says what is wanted, and every line that is not about it stays as it was, byte for byte."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from openclaw_config.issues import KeyPath
from openclaw_config.merging import CannotMerge, merged, same
from openclaw_config.patching import CannotEdit, patched, rewritten, tree_of
from tests.config.commented_files import CommentedFile, changes_of, commented_files

NAME = "openclaw.yaml"


@st.composite
def edits(draw: Any) -> tuple[CommentedFile, dict[str, Any]]:
    """A file, and a tree that it is to say."""
    file = draw(commented_files())
    return file, draw(changes_of(file.tree))


# What fails is not made smaller: with files drawn line by line that takes minutes.
_QUICK = (Phase.explicit, Phase.reuse, Phase.generate)


@settings(max_examples=200, deadline=None, phases=_QUICK, suppress_health_check=[HealthCheck.too_slow])
@given(edits())
def test_whatever_is_changed_in_whatever_file_all_other_lines_stay(drawn: tuple[CommentedFile, dict[str, Any]]) -> None:
    file, wanted = drawn
    assume(same(tree_of(NAME, file.text), file.tree))
    edited = rewritten(NAME, file.text, wanted)
    assert same(tree_of(NAME, edited), wanted)
    places = _changed(file.tree, wanted)
    kept = [line.text for line in file.lines if not any(_touches(line.place, where, is_comment=line.is_comment) for where in places)]
    assert _missing(kept, edited.removeprefix("\ufeff").split(file.newline)) == []
    assert edited.startswith("\ufeff") == file.bom
    assert file.newline == "\n" or "\n" not in edited.replace("\r\n", "")


def _changed(before: Any, wanted: Any, where: KeyPath = ()) -> list[KeyPath]:
    """The places that an edit may touch: values, whole lists, and keys that come or go with all beneath them."""
    if not isinstance(before, dict) or not isinstance(wanted, dict):
        return [] if same(before, wanted) else [where]
    found: list[KeyPath] = [(*where, key) for key in before.keys() ^ wanted.keys()]
    for key in before.keys() & wanted.keys():
        found += _changed(before[key], wanted[key], (*where, key))
    return found


def _touches(line: KeyPath, changed: KeyPath, *, is_comment: bool) -> bool:
    inside = line[: len(changed)] == changed
    return inside or (not is_comment and changed[: len(line)] == line)


def _missing(kept: list[str], lines: list[str]) -> list[str]:
    left = iter(lines)
    return [line for line in kept if line not in left]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(commented_files())
def test_a_file_that_says_what_is_wanted_is_left_alone(file: CommentedFile) -> None:
    assume(same(tree_of(NAME, file.text), file.tree))
    assert rewritten(NAME, file.text, file.tree) == file.text


FILE = """\
# first line
gateway:
  port: 18789                 # one port
  auth: {mode: token, token: 'plain-text'}   # here
channels:
  # telegram:
  #   botToken: x
agents:
  entries:
    main: &main
      default: true
    other: *main
    third:
      <<: *main
      name: "Third"
bindings:
  - id: a
    agentId: main   # a's
  # about b
  - id: b
    agentId: 'other'
people: [1, 2,
  # about three
  3]
notes: |
  two
  lines

logging:
  level: debug"""


@pytest.mark.parametrize(
    ("patch", "before", "after"),
    [
        ({"logging": {"level": "info"}}, "level: debug", "level: info"),
        ({"gateway": {"port": 1}}, "port: 18789                 # one", "port: 1                 # one"),
        ({"gateway": {"auth": {"token": "new"}}}, "'plain-text'", "'new'"),
        ({"gateway": {"auth": {"token": "${env:TOKEN}"}}}, "'plain-text'", "'${env:TOKEN}'"),
        ({"gateway": {"auth": {"token": None}}}, "{mode: token, token: 'plain-text'}", "{mode: token}"),
        ({"gateway": {"auth": {"password": "a: b"}}}, "'plain-text'}", "'plain-text', password: \"a: b\"}"),
        ({"gateway": {"bind": "lan"}}, "# here\n", "# here\n  bind: lan\n"),
        (
            {"channels": {"telegram": {"botToken": "${env:BOT}", "allowFrom": [7, "*"]}}},
            "channels:\n",
            'channels:\n  telegram:\n    botToken: "${env:BOT}"\n    allowFrom:\n      - 7\n      - "*"\n',
        ),
        ({"bindings": [{"id": "b", "agentId": "x"}]}, "'other'", "'x'"),
        ({"bindings": [{"id": "c", "agentId": "x"}]}, "'other'\n", "'other'\n  - id: c\n    agentId: x\n"),
        ({"people": [0, 1, 2, 3]}, "[1, 2,", "[0, 1, 2,"),
        ({"people": [1, 2, 3, 4]}, "  3]", "  3,\n  4]"),
        ({"notes": "one"}, "|\n  two\n  lines\n", '"one"\n'),
        ({"notes": None}, "notes: |\n  two\n  lines\n", ""),
        ({"agents": {"entries": {"other": 5}}}, "*main\n    third", "5\n    third"),
        ({"agents": {"entries": {"third": {"default": False}}}}, '"Third"\n', '"Third"\n      default: false\n'),
        ({"session": {"mainKey": "m"}}, "level: debug", "level: debug\nsession:\n  mainKey: m"),
        ({"logging": None}, "\nlogging:\n  level: debug", ""),
        ({"logging": {"level": None}}, "logging:\n  level: debug", "logging: {}"),
    ],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_patch_is_written_in_the_file_s_own_style(patch: dict[str, Any], before: str, after: str, newline: str) -> None:
    assert FILE.count(before) == 1
    text = FILE.replace("\n", newline)
    assert patched(NAME, text, patch) == FILE.replace(before, after).replace("\n", newline)


@pytest.mark.parametrize(
    ("patch", "message"),
    [
        (
            {"agents": {"entries": {"main": {"default": False}}}},
            "agents.entries.other.default: cannot be written with all else left as it is",
        ),
        ({"agents": {"entries": {"other": {"name": "x"}}}}, "agents.entries.other: is what the anchor &main says; change it there"),
        ({"agents": {"entries": {"third": {"default": None}}}}, "agents.entries.third.default: comes from an alias"),
        ({"agents": {"entries": {"main": 5}}}, "agents.entries.main: has an anchor or a tag"),
    ],
)
def test_what_would_change_more_than_asked_is_refused_by_its_key(patch: dict[str, Any], message: str) -> None:
    with pytest.raises(CannotEdit) as refused:
        patched(NAME, FILE, patch)
    assert str(refused.value).startswith(message)
    assert "by hand" in str(refused.value)


def test_a_comment_about_what_follows_is_never_taken_along() -> None:
    with pytest.raises(CannotEdit, match=r"people\.1: a comment about what follows would be lost"):
        patched(NAME, FILE, {"people": [1, 3]}, ["people"])


@pytest.mark.parametrize(
    ("text", "patch", "after"),
    [
        ("", {"a": {"b": 1}}, "a:\n  b: 1\n"),
        ("# only a comment", {"a": 1}, "# only a comment\na: 1"),
        ("{}\n", {"a": {"b": [1]}}, "{a: {b: [1]}}\n"),
        ('{\n  "a": 1\n}\n', {"b": {"c": "d"}}, '{\n  "a": 1,\n  "b": {"c": "d"}\n}\n'),
        ("a: 1\n", {"a": None}, ""),
        ("a:\n    b: 1\n", {"c": {"d": 1}}, "a:\n    b: 1\nc:\n    d: 1\n"),
        ("\ufeffa: 1\r\nb: 2", {"a": None, "c": 3}, "\ufeffb: 2\r\nc: 3"),
        ("a: null # none\n", {"a": {"b": 1}}, "a: # none\n  b: 1\n"),
    ],
)
def test_files_that_say_little_or_are_json_are_written_too(text: str, patch: dict[str, Any], after: str) -> None:
    assert patched(NAME, text, patch) == after


def test_lists_of_things_with_ids_are_merged_by_it_and_lose_nothing() -> None:
    source = {"list": [{"id": "a", "x": 1, "y": 2}, {"id": "b"}]}
    patch = {"list": [{"id": "a", "y": None, "z": [1]}, {"id": "c", "x": None}]}
    assert merged(source, patch) == {"list": [{"id": "a", "x": 1, "z": [1]}, {"id": "b"}, {"id": "c"}]}
    assert merged(source, patch, ["list"]) == patch


@pytest.mark.parametrize("wanted", [[], [1], [2, 1], [1, 3, 3], [{"id": "a"}]])
def test_a_list_loses_entries_only_where_that_was_asked_for(wanted: list[Any]) -> None:
    source = {"a": {"list": [1, 2, 2]}}
    with pytest.raises(
        CannotMerge, match=r"a\.list: would lose [123] of its 3 entries; send the whole list, or name a\.list in replacePaths"
    ):
        merged(source, {"a": {"list": wanted}})
    assert merged(source, {"a": {"list": wanted}}, ["a.list"]) == {"a": {"list": wanted}}
    assert merged(source, {"a": {"list": [2, 0, 1, 2]}}) == {"a": {"list": [2, 0, 1, 2]}}


def test_null_deletes_objects_recurse_and_the_source_stays_as_it_was() -> None:
    source = {"a": {"b": 1, "c": {"d": 2}}, "e": 5}
    assert merged(source, {"a": {"b": None, "c": {"f": 3}}, "e": {"g": None, "h": 1}}) == {"a": {"c": {"d": 2, "f": 3}}, "e": {"h": 1}}
    assert source == {"a": {"b": 1, "c": {"d": 2}}, "e": 5}
