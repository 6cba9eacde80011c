"""Starts that die before they are ready are counted; all other ends are not."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from openclaw_kernel.generations.attempts import Attempts


def dies(home: Path, *, safe: bool = False) -> None:
    """A start that is not heard of again."""
    Attempts(home).begin(safe=safe)


def test_two_deaths_in_a_row_want_safe_mode_and_one_does_not(tmp_path: Path) -> None:
    dies(tmp_path)
    assert not Attempts(tmp_path).wants_safe_mode
    dies(tmp_path)
    assert Attempts(tmp_path).wants_safe_mode


def test_a_start_that_was_ready_ends_the_row(tmp_path: Path) -> None:
    dies(tmp_path)
    good = Attempts(tmp_path)
    good.begin(safe=False)
    good.ready(ordinary=True)
    dies(tmp_path)
    assert Attempts(tmp_path).deaths == 1


def test_a_refusal_in_words_counts_neither_way(tmp_path: Path) -> None:
    dies(tmp_path)
    for _ in range(5):
        refused = Attempts(tmp_path)
        refused.begin(safe=False)
        refused.withdraw()
    assert Attempts(tmp_path).deaths == 1
    dies(tmp_path)
    assert Attempts(tmp_path).wants_safe_mode


def test_a_process_that_never_began_withdraws_nothing_of_another(tmp_path: Path) -> None:
    dies(tmp_path)
    second = Attempts(tmp_path)
    second.withdraw()
    second.ready(ordinary=True)
    assert Attempts(tmp_path).deaths == 1


def test_safe_mode_that_dies_twice_is_hopeless_until_the_file_changes_or_time_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "openclaw.yaml"
    config.write_text("{}")
    os.utime(config, (0, 0))
    for safe in (False, False, True):
        dies(tmp_path, safe=safe)
    assert not Attempts(tmp_path).is_hopeless()
    dies(tmp_path, safe=True)
    assert Attempts(tmp_path).is_hopeless()
    with monkeypatch.context() as later:
        later.setattr("openclaw_kernel.generations.attempts.LOOP_SECONDS", -1.0)
        assert not Attempts(tmp_path).is_hopeless()
    config.unlink()
    assert Attempts(tmp_path).is_hopeless()
    config.write_text("{}")
    assert not Attempts(tmp_path).is_hopeless()


def test_safe_mode_is_hopeless_also_where_the_clock_is_behind_the_file(tmp_path: Path) -> None:
    """A machine without a clock of its own begins in the past at each start, until the network tells it."""
    config = tmp_path / "openclaw.yaml"
    config.write_text("{}")
    os.utime(config, (2**33, 2**33))
    for safe in (False, False, True, True):
        dies(tmp_path, safe=safe)
    assert Attempts(tmp_path).is_hopeless()
    config.write_text("{} # mended")
    os.utime(config, (2**32, 2**32))
    assert not Attempts(tmp_path).is_hopeless()


def test_what_a_version_before_counted_is_compared_with_the_clock(tmp_path: Path) -> None:
    config = tmp_path / "openclaw.yaml"
    config.write_text("{}")
    for safe in (False, False, True, True):
        dies(tmp_path, safe=safe)
    book = tmp_path / "generations" / "boot.json"
    counted = json.loads(book.read_text())
    del counted["pending"]["config"]
    book.write_text(json.dumps(counted))
    os.utime(config, (0, 0))
    assert Attempts(tmp_path).is_hopeless()
    os.utime(config, (2**33, 2**33))
    assert not Attempts(tmp_path).is_hopeless()


def test_somebody_who_asks_for_it_begins_anew(tmp_path: Path) -> None:
    for safe in (False, False, True, True):
        dies(tmp_path, safe=safe)
    anew = Attempts(tmp_path)
    anew.forget()
    anew.begin(safe=False)
    assert Attempts(tmp_path).deaths == 1
    assert Attempts(tmp_path).deaths_in_safe_mode == 0


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"deaths": -3, "pending": 7}', '{"deaths": true, "pending": null}', '{"safeDeaths": "many"}', "\x00"]
)
def test_a_broken_count_is_none(text: str, tmp_path: Path) -> None:
    (tmp_path / "generations").mkdir()
    (tmp_path / "generations" / "boot.json").write_text(text)
    assert Attempts(tmp_path).deaths == 0
    dies(tmp_path)
    assert Attempts(tmp_path).deaths == 1


@pytest.mark.parametrize("sign", ["", "-"])
def test_a_time_that_nobody_can_have_written_is_borne(sign: str, tmp_path: Path) -> None:
    (tmp_path / "generations").mkdir()
    file = tmp_path / "generations" / "boot.json"
    file.write_text(f'{{"pending": {{"startedMs": {sign}1{"0" * 400}, "safe": true}}, "safeDeaths": 5}}')
    assert not Attempts(tmp_path).is_hopeless()


def test_what_another_version_wrote_stays(tmp_path: Path) -> None:
    (tmp_path / "generations").mkdir()
    (tmp_path / "generations" / "boot.json").write_text('{"probes": [1]}')
    dies(tmp_path)
    assert '"probes": [1]' in (tmp_path / "generations" / "boot.json").read_text()


def test_people_are_told_once_of_the_same_and_anew_after_a_good_start(tmp_path: Path) -> None:
    assert not Attempts(tmp_path).told("a")
    assert Attempts(tmp_path).told("a")
    assert not Attempts(tmp_path).told("b")
    good = Attempts(tmp_path)
    good.begin(safe=False)
    good.ready(ordinary=True)
    assert not Attempts(tmp_path).told("b")


def test_a_count_that_cannot_be_written_keeps_nobody_from_starting(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "generations").write_text("in the way")
    dies(tmp_path)
    assert "starts that die are not counted" in caplog.text
