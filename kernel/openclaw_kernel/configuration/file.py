"""The config file as it is written: whole or not at all, its mode kept, a link left a link, and never over what somebody else wrote."""

from __future__ import annotations

import contextlib
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from openclaw_config.source import read_text
from openclaw_config.whole_files import beside, sync_folder, write_new
from openclaw_kernel.api.errors import InvalidRequest, Unavailable

REJECTED_KEPT: Final = 20
"""So many of the newest texts that were not written stay."""
_NEW_MODE: Final = 0o600


class FileChanged(Exception):
    """The file is not what it was when the change began."""


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """The file at a path, which may be a link to it."""

    path: Path

    def text(self) -> str | None:
        """What it says; None where there is none. Raise `ConfigError` for what is no text."""
        try:
            self.path.stat()
        except FileNotFoundError:
            return None
        except OSError:
            # A link in a circle, a folder that is closed: reading it says so.
            pass
        return read_text(self.path)

    def replace(self, text: str, *, expected: str | None) -> None:
        """Write it durably, if it still says what is expected.

        Raises:
            FileChanged: it says something else by now.
            Unavailable: the disk refuses.
        """
        target = self._target()
        temporary = beside(target)
        try:
            write_new(temporary, text.encode(), mode=_mode_of(target))
            # As late as can be: between here and the rename nobody else can be kept out.
            if self.text() != expected:
                raise FileChanged
            temporary.replace(target)
            sync_folder(target.parent)
        except OSError as error:
            raise Unavailable(f"{target}: cannot be written ({(error.strerror or str(error)).lower()}); nothing was changed") from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)

    def remove(self, *, expected: str) -> None:
        """Remove it, if it still says what is expected; raise as `replace` does."""
        if self.text() != expected:
            raise FileChanged
        try:
            self._target().unlink()
        except OSError as error:
            raise Unavailable(f"{self.path}: cannot be removed ({(error.strerror or str(error)).lower()})") from error

    def keep_rejected(self, text: str, now_ms: int) -> Path:
        """Keep a text that was not written beside the file, for its author to look at; raise `Unavailable`."""
        target = self._target()
        place = target.with_name(f"{target.name}.rejected.{now_ms}")
        try:
            write_new(place, text.encode(), mode=_NEW_MODE)
        except FileExistsError:
            return place
        except OSError as error:
            raise Unavailable(f"{place}: cannot be written ({(error.strerror or str(error)).lower()})") from error
        kept = sorted(path for path in target.parent.iterdir() if path.name.startswith(f"{target.name}.rejected."))
        for path in kept[:-REJECTED_KEPT]:
            path.unlink(missing_ok=True)
        return place

    def _target(self) -> Path:
        try:
            return self.path.resolve()
        except (OSError, RuntimeError) as error:
            raise InvalidRequest(f"{self.path}: its link leads nowhere ({error}); mend the link") from error


def _mode_of(path: Path) -> int:
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        return _NEW_MODE
