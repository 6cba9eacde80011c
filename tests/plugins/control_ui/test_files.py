"""Nothing outside of the folder is ever opened (S15)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_plugins.control_ui.files import is_plain, open_below

SECRET = b"the gateway's token"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with a page and an asset; beside it lies what nobody may read."""
    (tmp_path / "secret.txt").write_bytes(SECRET)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "secret.txt").write_bytes(SECRET)
    root = tmp_path / "ui"
    (root / "assets").mkdir(parents=True)
    (root / "index.html").write_bytes(b"<html></html>")
    (root / "assets" / "app.js").write_bytes(b"let a = 1;")
    return root


def content(root: Path, name: str) -> bytes | None:
    """What is read under this name; None where nothing is opened."""
    file = open_below(root, name)
    if file is None:
        return None
    try:
        return file.read(1 << 20)
    finally:
        file.close()


def test_files_of_the_folder_are_opened(root: Path) -> None:
    assert content(root, "index.html") == b"<html></html>"
    assert content(root, "assets/app.js") == b"let a = 1;"


@pytest.mark.parametrize(
    "name",
    [
        "../secret.txt",
        "assets/../../secret.txt",
        "assets/../index.html",
        "./index.html",
        "assets//app.js",
        "/etc/passwd",
        "",
        ".",
        "..",
        "assets",
        "assets/",
        "index.html/",
        "index.html/x",
        "assets\\app.js",
        "..\\secret.txt",
        "C:\\windows",
        "index.html\0.js",
        "\udcff",
        "x" * 5000,
        "a/" * 3000 + "b",
    ],
)
def test_what_is_no_plain_name_of_a_file_in_it_is_not(root: Path, name: str) -> None:
    assert content(root, name) is None


def test_no_link_leads_out_of_it_or_around_in_it(root: Path) -> None:
    (root / "file.txt").symlink_to(root.parent / "secret.txt")
    (root / "inner.html").symlink_to("index.html")
    (root / "folder").symlink_to(root.parent / "elsewhere")
    for name in ("file.txt", "inner.html", "folder/secret.txt", "folder"):
        assert content(root, name) is None
    # The folder itself may be reached over one: a person named it.
    (root.parent / "current").symlink_to(root)
    assert content(root.parent / "current", "assets/app.js") == b"let a = 1;"


def test_a_folder_swapped_for_a_link_is_not_followed(root: Path) -> None:
    assert content(root, "assets/app.js") == b"let a = 1;"
    (root / "assets").rename(root / "before")
    (root / "assets").symlink_to(root.parent / "elsewhere")
    assert content(root, "assets/secret.txt") is None


def test_what_is_no_regular_file_does_not_hold_us_up(root: Path) -> None:
    os.mkfifo(root / "pipe.js")
    assert content(root, "pipe.js") is None


def test_a_file_that_is_closed_reads_nothing_and_gives_its_descriptor_back(root: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(50):
        file = open_below(root, "assets/app.js")
        assert file is not None
        file.close()
        file.close()
        assert file.read(10) == b""
        assert open_below(root, "assets") is None
        assert open_below(root, "nothing/at/all") is None
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_the_tag_changes_with_the_file(root: Path) -> None:
    def tag() -> str:
        file = open_below(root, "assets/app.js")
        assert file is not None
        file.close()
        return file.tag

    first = tag()
    assert tag() == first
    (root / "assets" / "app.js").write_bytes(b"let b = 22;")
    assert tag() != first


@given(st.lists(st.sampled_from(["..", ".", "", "a", "é", "\u202e", "%2e%2e", "~", "\\", "\0", "C:", "/"]), max_size=8).map("/".join))
def test_a_plain_name_stays_below_any_folder(name: str) -> None:
    if is_plain(name):
        assert os.path.normpath(f"/root/{name}") == f"/root/{name}"
