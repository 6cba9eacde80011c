"""The log: no secret, no forged line, and a tail that can be followed."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from openclaw_config.secrets import REDACTED, Secret
from openclaw_kernel.logs import Console, Redaction, log_path, set_up_logging, tail, tear_down_logging

SECRET = 'se"cr/et-ä\\value'
logger = logging.getLogger("openclaw.test")


@contextmanager
def logging_to(home: Path, monkeypatch: pytest.MonkeyPatch, *, as_json: bool = False) -> Iterator[io.StringIO]:
    """The log as `run` sets it up; what stderr gets."""
    stderr = io.StringIO()
    monkeypatch.setattr("sys.stderr", stderr)
    level = logging.root.level
    handlers = set_up_logging(home, level="debug", as_json=as_json, secrets=[SECRET])
    try:
        yield stderr
    finally:
        tear_down_logging(handlers)
        logging.root.setLevel(level)


def lines_of(home: Path) -> list[dict[str, str]]:
    """The records in the file."""
    return [json.loads(line) for line in log_path(home).read_text(encoding="utf-8").split("\n") if line]


@pytest.mark.parametrize("as_json", [True, False])
def test_a_secret_reaches_neither_file_nor_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, as_json: bool) -> None:
    with logging_to(tmp_path, monkeypatch, as_json=as_json) as stderr:
        logger.info("plain %s", SECRET)
        logger.info("quoted %r in %s", SECRET, {"a": [SECRET]})
        logger.info("GET https://host/se%22cr%2Fet-%C3%A4%5Cvalue/x")
        late = Secret("made-after-the-log")
        logger.info("late %s", late.unwrap())
        try:
            raise ValueError(SECRET)
        except ValueError:
            logger.exception("failed with %s", SECRET)
    shown = log_path(tmp_path).read_text(encoding="utf-8") + stderr.getvalue()
    for piece in ("value", "made-after", "cr/et", "cr%2Fet"):
        assert piece not in shown.replace("ValueError", "")
    assert shown.count(REDACTED) >= 12


def test_a_call_whose_arguments_do_not_fit_does_not_raise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)
    with logging_to(tmp_path, monkeypatch):
        logger.info("%d things", "many")
        logger.info("after")
    assert [line["message"] for line in lines_of(tmp_path)] == ["after"]


def test_a_message_cannot_forge_a_line_or_move_the_cursor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = "a\u2028b\u0085c\x0bd\re\x1b[2Jf\x9bg\u202eh\nforged line\udce9"
    with logging_to(tmp_path, monkeypatch) as stderr:
        logger.info("%s", odd)
    assert len(lines_of(tmp_path)) == 1
    assert len(tail(log_path(tmp_path), cursor=None, limit=10, max_bytes=10_000)["lines"]) == 1
    shown = stderr.getvalue()
    assert not set("\u2028\u0085\x0b\r\x1b\x9b\u202e\udce9") & set(shown)
    assert shown.count("\n") == 2
    assert "\n  forged line" in shown


def test_colour_is_ours_alone() -> None:
    record = logging.LogRecord("openclaw.x", logging.ERROR, "", 0, "\x1b[32mgreen", (), None)
    text = Console(Redaction([]), colour=True).format(record)
    assert text.startswith("\x1b[31m")
    assert text.endswith("\x1b[0m")
    assert text.count("\x1b") == 2
    assert "\x1b" not in Console(Redaction([]), colour=False).format(record)


def test_a_line_has_time_level_subsystem_and_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with logging_to(tmp_path, monkeypatch):
        try:
            raise KeyError("x")
        except KeyError:
            logger.exception("failed")
    (line,) = lines_of(tmp_path)
    assert (line["level"], line["subsystem"], line["message"]) == ("error", "test", "failed")
    assert "Traceback" in line["error"]
    assert "T" in line["time"]
    assert log_path(tmp_path).stat().st_mode & 0o077 == 0
    assert log_path(tmp_path).parent.stat().st_mode & 0o077 == 0


def test_headers_of_strangers_are_no_warnings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with logging_to(tmp_path, monkeypatch):
        logging.getLogger("aiohttp.websocket").warning("protocols do not overlap")
    assert lines_of(tmp_path) == []


# --- tail ---------------------------------------------------------------------------------------------------------------


def tailed(path: Path, cursor: int | None = None, limit: int = 100, max_bytes: int = 100_000) -> dict[str, object]:
    """The result of `logs.tail`, without the file's name."""
    result = tail(path, cursor=cursor, limit=limit, max_bytes=max_bytes)
    assert result.pop("file") == str(path)
    return result


def test_following_a_file_gives_each_line_once(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"one\ntwo\nhalf")
    assert tailed(path) == {"cursor": 8, "size": 12, "lines": ["one", "two"]}
    assert tailed(path, 8) == {"cursor": 8, "size": 12, "lines": []}
    with path.open("ab") as file:
        file.write(b" done\nthree\n")
    assert tailed(path, 8) == {"cursor": 24, "size": 24, "lines": ["half done", "three"]}
    assert tailed(path, 24) == {"cursor": 24, "size": 24, "lines": []}


def test_a_rotated_file_is_read_from_its_start(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"new\n")
    assert tailed(path, 1000) == {"cursor": 4, "size": 4, "lines": ["new"], "reset": True}


def test_no_file_is_no_lines(tmp_path: Path) -> None:
    assert tailed(tmp_path / "none") == {"cursor": 0, "size": 0, "lines": []}
    assert tailed(tmp_path / "none", 7) == {"cursor": 0, "size": 0, "lines": [], "reset": True}


def test_more_than_asked_for_is_left_out_and_said(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"".join(b"line %d\n" % number for number in range(1000)))
    size = path.stat().st_size
    assert tailed(path, limit=2) == {"cursor": size, "size": size, "lines": ["line 998", "line 999"], "truncated": True}
    assert tailed(path, max_bytes=20)["lines"] == ["line 998", "line 999"]
    behind = tailed(path, 0, max_bytes=20)
    assert (behind["skippedBytes"], behind["truncated"]) == (size - 20, True)


def test_a_line_longer_than_may_be_read_does_not_stop_the_tail(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"x" * 1000)
    stuck = tailed(path, 0, max_bytes=10)
    assert stuck["lines"] == []
    with path.open("ab") as file:
        file.write(b"\nnext\n")
    cursor = stuck["cursor"]
    assert isinstance(cursor, int)
    assert tailed(path, cursor, max_bytes=10)["lines"] == ["", "next"]


def test_bytes_that_are_no_text_are_replaced(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"\xff\x00\xfe\nok\r\n\n")
    assert tailed(path)["lines"] == ["\ufffd\x00\ufffd", "ok", ""]


def test_a_large_file_is_read_from_its_end_only(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("wb") as file:
        file.truncate(10_000_000_000)
        file.seek(0, 2)
        file.write(b"\nlast\n")
    assert tailed(path, max_bytes=1000)["lines"] == ["last"]
