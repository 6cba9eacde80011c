"""The log: people read it on the terminal, programs as JSON lines; a file of the same lines serves `logs.tail`."""

from __future__ import annotations

import json
import logging
import logging.handlers
import os
import sys
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from openclaw_config.secrets import REDACTED

FILE_BYTES: Final = 10_000_000
FILE_COUNT: Final = 3
_COLOURS: Final = {"DEBUG": "\x1b[2m", "WARNING": "\x1b[33m", "ERROR": "\x1b[31m", "CRITICAL": "\x1b[31;1m"}
_RESET: Final = "\x1b[0m"
_SHORTEST_SECRET: Final = 6


def subsystem(logger: str) -> str:
    """The name people know a part by: `openclaw_channels.telegram.runtime` is `telegram`, the kernel's own parts are `gateway`."""
    package, _, rest = logger.partition(".")
    if package == "openclaw":
        return rest
    return "gateway" if package == "openclaw_kernel" or not rest else rest.partition(".")[0]


class Redaction(logging.Filter):
    """Replaces known secret values in every record, whatever wrote them."""

    def __init__(self, secrets: Iterable[str]) -> None:
        super().__init__()
        self._secrets = sorted({secret for secret in secrets if len(secret) >= _SHORTEST_SECRET}, key=len, reverse=True)

    def clean(self, text: str) -> str:
        """The text without any known secret."""
        for secret in self._secrets:
            if secret in text:
                text = text.replace(secret, REDACTED)
        return text

    def filter(self, record: logging.LogRecord) -> bool:
        """Clean the message and the traceback of a record."""
        if self._secrets:
            record.msg = self.clean(record.getMessage())
            record.args = None
            if record.exc_info and not record.exc_text:
                record.exc_text = logging.Formatter().formatException(record.exc_info)
            if record.exc_text:
                record.exc_text = self.clean(record.exc_text)
        return True


class JsonLines(logging.Formatter):
    """One JSON object a line: `time`, `level`, `subsystem`, `message`, and `error` with a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """Encode a record."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "subsystem": subsystem(record.name),
            "message": record.getMessage(),
        }
        error = record.exc_text or (self.formatException(record.exc_info) if record.exc_info else None)
        if error:
            line["error"] = error
        return json.dumps(line, ensure_ascii=False)


class Console(logging.Formatter):
    """`06:27:23 warning telegram: text`, in colour where asked."""

    def __init__(self, *, colour: bool) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        """Lay out a record for people."""
        clock = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()} "
        text = f"{clock} {level}{subsystem(record.name)}: {record.getMessage()}"
        error = record.exc_text or (self.formatException(record.exc_info) if record.exc_info else None)
        if error:
            text = f"{text}\n{error}"
        start = _COLOURS.get(record.levelname, "") if self._colour else ""
        return f"{start}{text}{_RESET}" if start else text


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
    to_file.setFormatter(JsonLines())
    to_stderr = logging.StreamHandler(sys.stderr)
    colour = sys.stderr.isatty() and "NO_COLOR" not in os.environ
    to_stderr.setFormatter(JsonLines() if as_json else Console(colour=colour))
    handlers: list[logging.Handler] = [to_file, to_stderr]
    for handler in handlers:
        handler.addFilter(redaction)
        logging.root.addHandler(handler)
    logging.root.setLevel(logging.WARNING)
    logging.getLogger("openclaw").setLevel(level.upper())
    for ours in ("openclaw_kernel", "openclaw_config", "openclaw_channels", "openclaw_providers", "openclaw_plugins"):
        logging.getLogger(ours).setLevel(level.upper())
    return handlers


def tear_down_logging(handlers: Iterable[logging.Handler]) -> None:
    """Flush and remove what `set_up_logging` added."""
    for handler in handlers:
        logging.root.removeHandler(handler)
        handler.close()


def tail(path: Path, *, cursor: int | None, limit: int, max_bytes: int) -> dict[str, Any]:
    """Read lines after `cursor` (a byte offset), or the last `limit` lines; the result of `logs.tail`.

    `reset` says that the file was rotated since, `truncated` that older lines were left out.
    """
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        size = 0
    reset = cursor is not None and cursor > size
    start = cursor if cursor is not None and not reset else 0
    skipped = max(0, size - start - max_bytes)
    start += skipped
    content = b""
    if size > start:
        with path.open("rb") as file:
            file.seek(start)
            content = file.read(size - start)
    if skipped:
        content = content[content.find(b"\n") + 1 :]
    complete = content.rfind(b"\n") + 1
    end = size - (len(content) - complete)
    lines = content[:complete].decode("utf-8", "replace").splitlines()
    truncated = len(lines) > limit or skipped > 0
    result: dict[str, Any] = {"file": str(path), "cursor": end, "size": size, "lines": lines[-limit:]}
    if truncated:
        result["truncated"] = True
    if reset:
        result["reset"] = True
    if skipped and cursor is not None:
        result["skippedBytes"] = skipped
    return result
