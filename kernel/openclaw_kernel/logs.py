"""The log: people read it on the terminal, programs as JSON lines; a file of the same lines serves `logs.tail`."""

from __future__ import annotations

import json
import logging
import logging.handlers
import os
import re
import sys
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from openclaw_config.redaction import spellings
from openclaw_config.secrets import REDACTED, known_secrets

FILE_BYTES: Final = 10_000_000
FILE_COUNT: Final = 3
_COLOURS: Final = {"DEBUG": "\x1b[2m", "WARNING": "\x1b[33m", "ERROR": "\x1b[31m", "CRITICAL": "\x1b[31;1m"}
_OURS: Final = ("openclaw", "openclaw_kernel", "openclaw_config", "openclaw_channels", "openclaw_providers", "openclaw_plugins")
_RESET: Final = "\x1b[0m"
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def subsystem(logger: str) -> str:
    """The name people know a part by: `openclaw_channels.telegram.runtime` is `telegram`, the kernel's own parts are `gateway`."""
    package, _, rest = logger.partition(".")
    if package == "openclaw":
        return rest
    return "gateway" if package == "openclaw_kernel" or not rest else rest.partition(".")[0]


class Redaction:
    """Replaces secret values in the finished text of a record: what was given, and every `Secret` there is by then."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._given = frozenset(secrets)
        self._seen = 0
        self._sought: list[str] = []

    def clean(self, text: str) -> str:
        """The text without any known secret, in whatever spelling."""
        known = known_secrets()
        if not self._sought or len(known) != self._seen:
            self._seen = len(known)
            self._sought = spellings(self._given | known)
        for secret in self._sought:
            if secret in text:
                text = text.replace(secret, REDACTED)
        return text


class JsonLines(logging.Formatter):
    """One JSON object a line: `time`, `level`, `subsystem`, `message`, and `error` with a traceback."""

    def __init__(self, redaction: Redaction) -> None:
        super().__init__()
        self._redaction = redaction

    def format(self, record: logging.LogRecord) -> str:
        """Encode a record."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "subsystem": subsystem(record.name),
            "message": self._redaction.clean(record.getMessage()),
        }
        error = self.formatException(record.exc_info) if record.exc_info else record.exc_text
        if error:
            line["error"] = self._redaction.clean(error)
        # Surrogates come from file names that are no UTF-8; the file could not be written with them.
        return json.dumps(line, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()


class Console(logging.Formatter):
    """`06:27:23 warning telegram: text`, in colour where asked."""

    def __init__(self, redaction: Redaction, *, colour: bool) -> None:
        super().__init__()
        self._redaction = redaction
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        """Lay out a record for people."""
        clock = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()} "
        text = f"{clock} {level}{subsystem(record.name)}: {record.getMessage()}"
        error = self.formatException(record.exc_info) if record.exc_info else record.exc_text
        if error:
            text = f"{text}\n{error}"
        text = _printable(self._redaction.clean(text))
        start = _COLOURS.get(record.levelname, "") if self._colour else ""
        return f"{start}{text}{_RESET}" if start else text


def _printable(text: str) -> str:
    # What a stranger sent may be in a message: it must not move the cursor, nor pass for a line of its own.
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text).replace("\n", "\n  ")


def log_path(home: Path) -> Path:
    """The file that `logs.tail` reads."""
    return home / "logs" / "gateway.log"


def set_up_logging(home: Path, *, level: str, as_json: bool, secrets: Iterable[str]) -> list[logging.Handler]:
    """Send all records to stderr and to the file; return the handlers, which `tear_down_logging` takes back."""
    path = log_path(home)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    redaction = Redaction(secrets)
    to_file = logging.handlers.RotatingFileHandler(path, maxBytes=FILE_BYTES, backupCount=FILE_COUNT, encoding="utf-8")
    path.chmod(0o600)
    to_file.setFormatter(JsonLines(redaction))
    to_stderr = logging.StreamHandler(sys.stderr)
    colour = sys.stderr.isatty() and "NO_COLOR" not in os.environ
    to_stderr.setFormatter(JsonLines(redaction) if as_json else Console(redaction, colour=colour))
    handlers: list[logging.Handler] = [to_file, to_stderr]
    for handler in handlers:
        logging.root.addHandler(handler)
    logging.root.setLevel(logging.WARNING)
    # It warns of what strangers send in their headers.
    logging.getLogger("aiohttp.websocket").setLevel(logging.ERROR)
    set_level(level)
    return handlers


def set_level(level: str) -> None:
    """Write records of this level and above, of the gateway's own parts."""
    for ours in _OURS:
        logging.getLogger(ours).setLevel(level.upper())


def tear_down_logging(handlers: Iterable[logging.Handler]) -> None:
    """Flush and remove what `set_up_logging` added."""
    for handler in handlers:
        logging.root.removeHandler(handler)
        handler.close()


def _read_after(path: Path, cursor: int | None, max_bytes: int) -> tuple[bytes, int, int, bool]:
    """What was written after the cursor, at most `max_bytes` from the end; the file's size, where that begins, whether it is a new file."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            reset = cursor is not None and cursor > size
            start = max(cursor if cursor is not None and not reset else 0, size - max_bytes)
            file.seek(start)
            return file.read(size - start), size, start, reset
    except FileNotFoundError:
        return b"", 0, 0, bool(cursor)


def tail(path: Path, *, cursor: int | None, limit: int, max_bytes: int) -> dict[str, Any]:
    """Read lines after `cursor` (a byte offset), or the last `limit` lines; the result of `logs.tail`.

    `reset` says that the file was rotated since, `truncated` that older lines were left out.
    """
    content, size, start, reset = _read_after(path, cursor, max_bytes)
    skipped = start - (cursor if cursor is not None and not reset else 0)
    if skipped:
        # The first line is cut off somewhere; one longer than all that may be read is left out.
        content = content[content.find(b"\n") + 1 :] if b"\n" in content else b""
    complete = content.rfind(b"\n") + 1
    end = size - (len(content) - complete)
    # Not `splitlines`: it also parts at characters that JSON leaves as they are.
    lines = [line.decode("utf-8", "replace").rstrip("\r") for line in content[:complete].split(b"\n")[:-1]]
    truncated = len(lines) > limit or skipped > 0
    result: dict[str, Any] = {"file": str(path), "cursor": end, "size": size, "lines": lines[-limit:]}
    if truncated:
        result["truncated"] = True
    if reset:
        result["reset"] = True
    if skipped and cursor is not None:
        result["skippedBytes"] = skipped
    return result
