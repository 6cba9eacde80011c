"""Files that take the place of others as a whole, and what is left of them where somebody was killed in between."""

from __future__ import annotations

import os
import time
from pathlib import Path

from openclaw_config.whole_files import UNFINISHED_SECONDS, beside, remove_unfinished, replace_whole


def left(path: Path, *, seconds: float = 2 * UNFINISHED_SECONDS) -> Path:
    """As somebody leaves it who was killed so long ago before the file took the place of this one."""
    path = beside(path)
    path.write_text("half")
    then = time.time() - seconds
    os.utime(path, (then, then))
    return path


def test_what_was_left_half_written_is_removed_and_nothing_else(tmp_path: Path) -> None:
    file, further = tmp_path / "openclaw.yaml", tmp_path / "further"
    further.mkdir()
    replace_whole(file, b"whole")
    others = [tmp_path / name for name in (".openclaw.yaml.new", "openclaw.yaml.0123456789ab.new", ".openclaw.yaml.0123456789ab.new.bak")]
    for path in others:
        path.write_text("somebody else's")
        os.utime(path, (0, 0))
    gone = [left(file), left(further / "last-good")]
    assert remove_unfinished([tmp_path, further, tmp_path / "not there", file]) == len(gone)
    assert [path for path in gone if path.exists()] == []
    assert sorted(path for path in tmp_path.iterdir() if path.is_file()) == sorted([file, *others])


def test_what_may_still_be_at_work_and_what_is_no_file_stay(tmp_path: Path) -> None:
    young, link, folder = left(tmp_path / "a", seconds=0), beside(tmp_path / "b"), beside(tmp_path / "c")
    link.symlink_to("nowhere")
    folder.mkdir()
    os.utime(folder, (0, 0))
    os.utime(link, (0, 0), follow_symlinks=False)
    assert remove_unfinished([tmp_path]) == 0
    assert sorted(tmp_path.iterdir()) == sorted([young, link, folder])


def test_in_a_folder_of_somebody_elses_only_what_is_of_the_one_file_is_removed(tmp_path: Path) -> None:
    mine, other = left(tmp_path / "openclaw.yaml"), left(tmp_path / "other.yaml")
    assert remove_unfinished([tmp_path], name="openclaw.yaml") == 1
    assert (mine.exists(), other.exists()) == (False, True)
