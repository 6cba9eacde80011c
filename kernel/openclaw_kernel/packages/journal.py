"""Changes of what is installed, written down before pip begins: what a gateway that was killed amid one left can be taken back.

`replaced-plugins/<name>/change.json` says what is being changed and what was there before, beside copies of the files that pip takes away.
A folder whose name begins with a dot is no change: it is being written, or is over.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import re
import shutil
import site
import sys
import sysconfig
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from openclaw_config.whole_files import sync_folder, write_new
from openclaw_kernel.lock import is_running, read_owner
from openclaw_kernel.packages.files import Copied, copy_into, files_of

FOLDER: Final = "replaced-plugins"
"""Below the state folder."""

_FILE: Final = "change.json"
_TAKING_BACK: Final = "taking-back"
_PIP_ENDED_NS: Final = 15 * 60 * 1_000_000_000
"""Longer than pip is given."""
_REPORT: Final = "pip-report.json"
_CREDENTIALS: Final = re.compile(r"://[^/@\s]*@")

Operation: TypeAlias = Literal["install", "upgrade", "remove"]
_NOUNS: Final[Mapping[Operation, str]] = {"install": "installation", "upgrade": "upgrade", "remove": "removal"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What is being changed, and what was there before."""

    operation: Operation
    requirement: str
    """What pip is to install, or the distribution that it is to remove."""
    plugin: str | None
    distribution: str | None
    """The one that is replaced or removed; None for an installation."""
    version: str | None
    origin: str | None
    """What it was installed from, where that was no package index."""
    python: str
    prefix: str
    began_ns: int
    names: Mapping[str, frozenset[str]]
    """By each folder that pip may install into: what was in it."""
    files: tuple[Copied, ...]

    @property
    def what(self) -> str:
        """The change, in words."""
        subject = self.requirement if self.distribution is None else f"{self.distribution} {self.version}"
        return f"the {_NOUNS[self.operation]} of {subject}"

    @property
    def again(self) -> str:
        """The command that makes the change."""
        wheel = "" if self.operation == "remove" else " WHEEL"
        plugin = "" if self.plugin is None else f" {self.plugin}"
        return f"openclaw-kernel plugins {self.operation}{plugin}{wheel}"

    def by_hand(self, planned: Mapping[str, str]) -> str:
        """The command that takes the change back; `planned` is what pip was to install, versions by name."""
        if self.distribution is None:
            return f"{self.python} -m pip uninstall --yes {' '.join(sorted(planned)) or self.requirement}"
        return f"{self.python} -m pip install --force-reinstall --no-deps {self.origin or f'{self.distribution}=={self.version}'}"


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A change that was begun and is not over."""

    folder: Path
    record: Record | None
    """None where what was written down cannot be read."""

    @property
    def report(self) -> Path:
        """Where pip says what it is going to install, before it touches anything."""
        return self.folder / _REPORT

    @property
    def _mark(self) -> Path:
        return self.folder / _TAKING_BACK

    def begin_taking_back(self) -> None:
        """Write down that it is being taken back: what is changed from now on is our own. Raise `OSError`."""
        if not self._mark.exists():
            write_new(self._mark, b"")
            sync_folder(self.folder)

    @property
    def is_being_taken_back(self) -> bool:
        """Whether that was begun once."""
        return self._mark.exists()

    def until_ns(self) -> int:
        """When pip had surely ended: what was changed later was changed by somebody else."""
        began = 0 if self.record is None else self.record.began_ns
        with contextlib.suppress(OSError):
            began = self.report.stat().st_mtime_ns
        return began + _PIP_ENDED_NS

    def planned(self) -> dict[str, str] | None:
        """What pip was about to install, versions by name; None where it did not get that far."""
        try:
            items = json.loads(self.report.read_text(encoding="utf-8"))["install"]
            return {str(item["metadata"]["name"]): str(item["metadata"]["version"]) for item in items}
        except (OSError, ValueError, KeyError, TypeError):
            return None

    @property
    def found(self) -> str:
        """What was found of it, in words."""
        return f"{self.folder / _FILE} cannot be read" if self.record is None else f"{self.record.what} was cut off"

    @property
    def cure(self) -> str:
        """What is left to do while no gateway has done it."""
        if self.record is None:
            return f"see whether all plugins are installed, then delete {self.folder}"
        done = "takes it off again" if self.record.distribution is None else f"puts {self.record.version} back"
        return f"the next start of the gateway {done}: openclaw-kernel run, or openclaw-kernel restart"

    def told(self) -> str:
        """Both in a line."""
        return f"{self.found}; {self.cure}"

    def over(self) -> None:
        """Forget it; raise `OSError`."""
        gone = self.folder.with_name(f".{self.folder.name}")
        self.folder.rename(gone)
        sync_folder(gone.parent)
        shutil.rmtree(gone, ignore_errors=True)


def begin(home: Path, operation: Operation, requirement: str, *, plugin: str | None = None, distribution: str | None = None) -> Unfinished:
    """Write down durably what is about to be changed, with copies of the files of the distribution; on a thread.

    Raises:
        InvalidRequest: it is not installed, or does not say which files are its own, so they could not be put back.
        Unavailable: it cannot be written, or an earlier change is not over.
    """
    # Imported here: `plugins list` reads what was written down, and wants none of the api.
    from openclaw_kernel.api.errors import Unavailable

    below = home / FOLDER
    for left in unfinished(home):
        raise Unavailable(left.told())
    found = None if distribution is None else _installed(distribution)
    try:
        below.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder = Path(tempfile.mkdtemp(prefix=f".{distribution or operation}-", dir=below))
        try:
            files = () if found is None else tuple(copy_into(folder, files_of(found)))
            record = Record(
                operation=operation,
                requirement=_CREDENTIALS.sub("://", requirement),
                plugin=plugin,
                distribution=distribution,
                version=None if found is None else found.version,
                origin=None if found is None else _origin(found),
                python=sys.executable,
                prefix=sys.prefix,
                began_ns=time.time_ns(),
                names={str(root): frozenset(path.name for path in root.iterdir()) for root in _roots(found)},
                files=files,
            )
            write_new(folder / _FILE, json.dumps(_as_json(record), indent=1).encode())
            sync_folder(folder)
            valid = folder.rename(below / folder.name.removeprefix("."))
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        sync_folder(below)
    except OSError as error:
        reason = error.strerror or error
        raise Unavailable(f"{below}: what is about to be changed cannot be kept there ({reason}); nothing was changed") from error
    return Unfinished(valid, record)


def unfinished(home: Path) -> list[Unfinished]:
    """The changes that were begun and are not over, oldest first; one that is under way is among them."""
    below = home / FOLDER
    try:
        folders = [folder for folder in below.iterdir() if not folder.name.startswith(".") and (folder / _FILE).is_file()]
    except OSError:
        return []
    found = [Unfinished(folder, _read(folder / _FILE)) for folder in folders]
    return sorted(found, key=lambda each: (each.record is None or each.record.began_ns, each.folder.name))


def cut_off(home: Path) -> list[Unfinished]:
    """Those that are not under way in the gateway that runs on the state folder now."""
    found = unfinished(home)
    owner = read_owner(home) if found else {}
    since_ms = owner.get("startedAtMs") if is_running(owner) else None
    if not isinstance(since_ms, int):
        return found
    return [each for each in found if each.record is None or each.record.began_ns < since_ms * 1_000_000]


def _installed(distribution: str) -> importlib.metadata.Distribution:
    from openclaw_kernel.api.errors import InvalidRequest

    try:
        found = importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        raise InvalidRequest(f"{distribution} is not installed any more; look at `openclaw-kernel plugins list`") from None
    if not found.files:
        raise InvalidRequest(
            f"{distribution} has no list of its files (RECORD), so it could not be put back; upgrade or remove it with pip yourself"
        )
    return found


def _roots(found: importlib.metadata.Distribution | None) -> list[Path]:
    roots = [Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")]
    if site.ENABLE_USER_SITE:
        roots.append(Path(site.getusersitepackages()))
    if found is not None:
        roots.append(Path(str(found.locate_file(""))))
    return [root for root in dict.fromkeys(roots) if root.is_dir()]


def _origin(found: importlib.metadata.Distribution) -> str | None:
    try:
        said = json.loads(found.read_text("direct_url.json") or "null")
        return None if said is None else _CREDENTIALS.sub("://", str(said["url"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _as_json(record: Record) -> dict[str, Any]:
    return {
        "operation": record.operation,
        "requirement": record.requirement,
        "plugin": record.plugin,
        "distribution": record.distribution,
        "version": record.version,
        "origin": record.origin,
        "python": record.python,
        "prefix": record.prefix,
        "beganNs": record.began_ns,
        "names": {root: sorted(names) for root, names in record.names.items()},
        "files": [{"copy": one.name, "place": str(one.place), "sha256": one.digest} for one in record.files],
    }


def _read(path: Path) -> Record | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["operation"] not in _NOUNS:
            return None
        return Record(
            operation=found["operation"],
            requirement=str(found["requirement"]),
            plugin=found["plugin"],
            distribution=found["distribution"],
            version=found["version"],
            origin=found["origin"],
            python=str(found["python"]),
            prefix=str(found["prefix"]),
            began_ns=int(found["beganNs"]),
            names={str(root): frozenset(names) for root, names in found["names"].items()},
            files=tuple(Copied(str(one["copy"]), Path(one["place"]), str(one["sha256"])) for one in found["files"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
