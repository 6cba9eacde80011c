"""What a start makes of a change of plugins that was cut off, and what it leaves alone."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from openclaw_kernel.api.errors import InvalidRequest, Unavailable
from openclaw_kernel.packages.files import copy_into
from openclaw_kernel.packages.journal import FOLDER, Record, Unfinished, _as_json, begin, cut_off, unfinished
from openclaw_kernel.packages.undoing import take_back, take_back_all
from tests.support.gateway import RunningGateway

INSTALLED = "iniconfig"
"""A distribution that is here whenever tests run, and is only looked at."""


def lay(site: Path, name: str, version: str, files: dict[str, str], *, whole: bool = True) -> list[Path]:
    """A distribution as pip lays it down; without its RECORD where pip was cut off."""
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    content = {**files, f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"}
    if whole:
        content[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*content, f"{info}/RECORD"])
    places = []
    for path, text in content.items():
        place = site / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        places.append(place)
    return places


def upgrading(home: Path, site: Path, places: list[Path], planned: dict[str, str]) -> Unfinished:
    """An upgrade of acme-one that has begun, in a `site-packages` of the test's own."""
    folder = home / FOLDER / "acme-one-x"
    folder.mkdir(parents=True)
    record = Record(
        operation="upgrade",
        requirement="acme-one",
        plugin="one",
        distribution="acme-one",
        version="1.0",
        origin=None,
        python=sys.executable,
        prefix=str(site),
        began_ns=time.time_ns(),
        names={str(site): frozenset(path.name for path in site.iterdir())},
        files=tuple(copy_into(folder, places)),
    )
    metadata = [{"metadata": {"name": name, "version": version}} for name, version in planned.items()]
    change = Unfinished(folder, record)
    change.report.write_text(json.dumps({"install": metadata}))
    return change


def tree(site: Path) -> dict[str, str]:
    """All files."""
    return {str(path.relative_to(site)): path.read_text() for path in site.rglob("*") if path.is_file()}


def test_what_was_half_written_goes_and_what_others_installed_stays(tmp_path: Path) -> None:
    site = tmp_path / "site"
    places = lay(site, "acme-one", "1.0", {"acme/one.py": "1", "acme/only_old.py": "1"})
    lay(site, "acme-two", "1.0", {"acme/two.py": "2"})
    before = tree(site)
    change = upgrading(tmp_path, site, places, {"acme_one": "2.0", "acme-helper": "1.0"})
    for path in places:
        path.unlink()
    lay(site, "acme-one", "2.0", {"acme/one.py": "new", "acme/far/below/new.py": "new", "acme_more/__init__.py": ""}, whole=False)
    lay(site, "acme-helper", "1.0", {"acme_helper.py": ""})
    (site / "~cme").mkdir()
    (site / "~cme" / "one.py").write_text("1")
    # Somebody else's pip was at work meanwhile; its files are in a package that is shared, and in one of their own.
    lay(site, "acme-three", "1.0", {"acme/three.py": "3", "acme_three.py": "3"})
    theirs = {path: text for path, text in tree(site).items() if "three" in path}

    take_back(change)

    assert tree(site) == before | theirs
    assert not (site / "acme_more").exists()
    assert not (site / "acme" / "far").exists()
    assert unfinished(tmp_path) == []


def ended_before_now(change: Unfinished, site: Path) -> None:
    """Have it as where pip ended after all that lies there, and before all that comes."""
    latest = max(path.lstat().st_ctime_ns for path in [site, *site.rglob("*")])
    pip_is_given = change.until_ns() - change.report.stat().st_mtime_ns
    os.utime(change.report, ns=(latest - pip_is_given, latest - pip_is_given))
    probe = change.folder / "probe"
    probe.touch()
    while probe.lstat().st_ctime_ns <= latest:
        # The clock of files goes in steps.
        probe.touch()


def test_what_came_long_after_pip_is_not_taken_away(tmp_path: Path) -> None:
    site = tmp_path / "site"
    places = lay(site, "acme-one", "1.0", {"acme/one.py": "1"})
    before = tree(site)
    change = upgrading(tmp_path, site, places, {"acme_one": "2.0"})
    lay(site, "acme-one", "2.0", {"acme/new.py": "new", "acme_more/__init__.py": ""}, whole=False)
    ended_before_now(change, site)
    (site / "by_hand.py").write_text("x = 1")
    (site / "acme" / "kept.json").write_text("{}")

    take_back(change)

    assert tree(site) == before | {"by_hand.py": "x = 1", "acme/kept.json": "{}"}


def test_what_somebody_has_installed_anew_since_is_left_alone(tmp_path: Path) -> None:
    site = tmp_path / "site"
    places = lay(site, "acme-one", "1.0", {"acme/one.py": "1"})
    change = upgrading(tmp_path, site, places, {"acme_one": "2.0"})
    ended_before_now(change, site)
    for path in places:
        path.unlink()
    lay(site, "acme-one", "2.0", {"acme/one.py": "new"})
    after = tree(site)

    take_back(change)

    assert tree(site) == after
    assert unfinished(tmp_path) == []


def test_what_the_taking_back_itself_has_written_is_not_taken_for_somebody_elses(tmp_path: Path) -> None:
    site = tmp_path / "site"
    places = lay(site, "acme-one", "1.0", {"acme/one.py": "1", "acme/two.py": "2"})
    before = tree(site)
    change = upgrading(tmp_path, site, places, {"acme_one": "2.0"})
    ended_before_now(change, site)
    change.begin_taking_back()
    # It was killed when it had put back all but one.
    places[1].unlink()
    for path in places[2:]:
        path.write_text(path.read_text())
        path.rename(path.with_suffix(".moved")).rename(path)

    take_back(change)

    assert tree(site) == before


def test_a_list_of_files_in_no_order_keeps_no_gateway_from_starting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    places = lay(site, "acme-one", "1.0", {"acme/one.py": "1"})
    change = upgrading(tmp_path, site, places, {"acme_one": "2.0"})
    assert change.record is not None
    lay(site, "odd", "1.0", {"odd.py": ""})
    (site / "odd-1.0.dist-info" / "RECORD").write_bytes(b"\n,,\n\xff,,\n")
    monkeypatch.setattr(sys, "prefix", str(site))
    (change.folder / "change.json").write_text(json.dumps(_as_json(change.record)))

    (told,) = take_back_all(tmp_path)

    assert told.startswith("the upgrade of acme-one 1.0 was cut off and could not be taken back (")
    assert [left.folder for left in unfinished(tmp_path)] == [change.folder]


def test_pip_that_touched_nothing_yet_has_nothing_taken_back(tmp_path: Path) -> None:
    site = tmp_path / "site"
    places = lay(site, "acme-one", "1.0", {"acme/one.py": "1"})
    change = upgrading(tmp_path, site, places, {})
    change.report.write_text('{"install": [')
    (site / "of_a_person.py").write_text("x = 1")
    before = tree(site)

    take_back(change)

    assert tree(site) == before


def test_a_copy_that_is_gone_is_told_with_the_command_and_the_change_stays(tmp_path: Path) -> None:
    begun = begin(tmp_path, "upgrade", INSTALLED, plugin="x", distribution=INSTALLED)
    assert begun.record is not None
    one = begun.record.files[0]
    away = replace(begun.record, files=(replace(one, place=tmp_path / "place"), *begun.record.files[1:]))
    (begun.folder / one.name).unlink()
    with pytest.raises(OSError, match=one.name):
        take_back(Unfinished(begun.folder, away))
    assert [change.folder for change in unfinished(tmp_path)] == [begun.folder]


def test_a_change_in_another_python_is_told_and_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = begin(tmp_path, "remove", INSTALLED, plugin="x", distribution=INSTALLED)
    monkeypatch.setattr(sys, "prefix", "/another/python")

    (told,) = take_back_all(tmp_path)

    assert told.startswith(f"the removal of {INSTALLED} ")
    assert f"start the gateway once with {sys.executable} -m openclaw_kernel run" in told
    assert unfinished(tmp_path)[0].folder == begun.folder


def test_a_record_that_cannot_be_read_is_told_and_left(tmp_path: Path) -> None:
    begun = begin(tmp_path, "install", "acme.whl")
    (begun.folder / "change.json").write_text("{")

    (told,) = take_back_all(tmp_path)

    assert told.endswith(f"change.json cannot be read; see whether all plugins are installed, then delete {begun.folder}")
    assert begun.folder.is_dir()


def test_nothing_is_changed_while_an_earlier_change_is_not_over(tmp_path: Path) -> None:
    begin(tmp_path, "install", "https://me:hidden@index.example/acme.whl")
    with pytest.raises(Unavailable, match="the next start of the gateway takes it off again") as refused:
        begin(tmp_path, "remove", INSTALLED, distribution=INSTALLED)
    assert "hidden" not in refused.value.message
    assert "hidden" not in next((tmp_path / FOLDER).rglob("change.json")).read_text()


def test_what_was_being_written_down_when_the_gateway_died_is_cleared_away(tmp_path: Path) -> None:
    (tmp_path / FOLDER / ".acme-one-x").mkdir(parents=True)
    (tmp_path / FOLDER / ".acme-one-x" / "0").write_text("a copy")
    assert take_back_all(tmp_path) == []
    assert list((tmp_path / FOLDER).iterdir()) == []


def test_one_that_does_not_say_which_files_are_its_own_is_not_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    lay(site, "acme-bare", "1.0", {}, whole=False)
    monkeypatch.syspath_prepend(str(site))
    with pytest.raises(InvalidRequest, match="has no list of its files"):
        begin(tmp_path, "remove", "acme-bare", distribution="acme-bare")
    assert not (tmp_path / FOLDER).exists()


async def test_a_change_that_is_under_way_in_the_running_gateway_is_not_cut_off(gateway: RunningGateway) -> None:
    begin(gateway.home, "install", "acme.whl")
    assert len(unfinished(gateway.home)) == 1
    assert cut_off(gateway.home) == []
    await gateway.stop()
    assert [change.record and change.record.what for change in cut_off(gateway.home)] == ["the installation of acme.whl"]
