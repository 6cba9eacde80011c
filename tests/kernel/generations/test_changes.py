"""What differs between two configs, by key."""

from __future__ import annotations

from openclaw_kernel.generations.changes import MOST_KEYS, bounded, changed_keys, touches, unified


def test_keys_that_came_went_or_differ_are_named_to_the_leaf() -> None:
    before = {"a": {"b": 1, "c": 2}, "d": [1, 2], "gone": {"x": {"y": 1}}}
    after = {"a": {"b": 1, "c": 3}, "d": [1, 2, 3], "new": {}}
    assert changed_keys(before, after) == ["a.c", "d", "gone.x.y", "new"]
    assert changed_keys(before, before) == []


def test_true_is_not_one() -> None:
    assert changed_keys({"a": 1, "b": [0]}, {"a": True, "b": [False]}) == ["a", "b"]


def test_too_many_keys_are_told_by_what_they_stand_below() -> None:
    keys = [f"models.providers.p{number}.apiKey" for number in range(MOST_KEYS + 1)]
    assert bounded(keys) == ["models.providers"]
    assert bounded(["b", "a", "b"]) == ["a", "b"]
    assert len(bounded(f"k{number}" for number in range(2 * MOST_KEYS))) == MOST_KEYS


def test_a_key_is_touched_by_what_is_above_and_below_it() -> None:
    assert touches(["gateway.auth"], "gateway.auth.token")
    assert touches(["gateway.auth.token"], "gateway")
    assert not touches(["gateway.authority"], "gateway.auth")


def test_a_diff_names_both_sides() -> None:
    assert list(unified("a: 1\nb: 2\n", "a: 1\nb: 3\n", names=("4", "file")))[:2] == ["--- 4", "+++ file"]
