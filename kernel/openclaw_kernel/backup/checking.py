"""Whether a backup is whole: every byte as it was written, the database sound, the configuration one that a gateway can read."""

from __future__ import annotations

import hashlib
import io
import json
import sqlite3
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from openclaw_kernel.backup.contents import DATABASE, FORMAT, MANIFEST, BackupError

_CHUNK: Final = 1 << 20
_MANIFEST_LIMIT: Final = 256 << 20
_SHOWN: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A backup that is whole. `problems` are faults of what was backed up (a broken config), not of the backup."""

    version: str
    made_ms: int
    files: int
    left_out: Mapping[str, str]
    problems: tuple[str, ...]


def verify(path: Path) -> Checked:
    """Read all of it, and start up what can be without a gateway; raise `BackupError` where it is not whole."""
    with tempfile.TemporaryDirectory(prefix="openclaw-backup-") as folder:
        home = Path(folder) / "home"
        manifest = unpack(path, home)
        return Checked(
            version=str(manifest["version"]),
            made_ms=int(manifest["madeAtMs"]),
            files=len(manifest["files"]),
            left_out=manifest["leftOut"],
            problems=tuple(problems_of(home)),
        )


def unpack(path: Path, home: Path) -> Mapping[str, Any]:
    """Unpack into a folder that is not there yet, checking every byte; return the manifest. Raise `BackupError`, and leave nothing."""
    found: dict[str, str] = {}
    try:
        with tarfile.open(path, mode="r:gz") as archive:
            with _unpacking(home):
                home.mkdir(mode=0o700)
            manifest: Mapping[str, Any] | None = None
            for entry in archive:
                if entry.name == MANIFEST:
                    manifest = _manifest(path, archive, entry)
                elif manifest is not None or entry.name in found:
                    raise BackupError(f"{path}: {entry.name!r} is there twice or too late; it was changed, take another backup")
                else:
                    found[entry.name] = _unpack_one(archive, entry, home)
            # The archive ends before the compression does, whose last bytes are the sum of all.
            while archive.fileobj.read(_CHUNK):
                pass
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        reason = error.strerror.lower() if isinstance(error, OSError) and error.strerror else str(error)
        raise BackupError(f"{path}: cannot be read ({reason}); it is no backup or not whole, take another") from error
    if manifest is None:
        raise BackupError(f"{path}: its end is missing, it was cut off; take another backup")
    _compare(path, manifest["files"], found)
    return manifest


def problems_of(home: Path) -> list[str]:
    """What is wrong with an unpacked state folder, a line each."""
    return [*_database_problems(home / DATABASE), *_config_problems(home)]


def _manifest(path: Path, archive: tarfile.TarFile, entry: tarfile.TarInfo) -> Mapping[str, Any]:
    file = archive.extractfile(entry) if entry.size <= _MANIFEST_LIMIT else None
    try:
        manifest: dict[str, Any] = json.loads(file.read() if file is not None else "null")
        number = manifest["format"]
        shapes = isinstance(manifest["files"], dict) and isinstance(manifest["leftOut"], dict) and int(manifest["madeAtMs"]) >= 0
        shapes = shapes and "version" in manifest and all(isinstance(row, dict) for row in manifest["files"].values())
    except (KeyError, TypeError, ValueError):
        raise BackupError(f"{path}: its list of files cannot be read; it was changed, take another backup") from None
    if number != FORMAT or not shapes:
        raise BackupError(f"{path}: is of format {number}, this version reads {FORMAT}; use openclaw-kernel {manifest.get('version')}")
    return manifest


def _unpack_one(archive: tarfile.TarFile, entry: tarfile.TarInfo, home: Path) -> str:
    # The filter refuses what would leave the folder, and devices.
    checked = tarfile.data_filter(entry, str(home))
    target = home / checked.name
    with _unpacking(home):
        (target if checked.isdir() else target.parent).mkdir(mode=0o700, parents=True, exist_ok=True)
        if checked.isdir():
            return "folder"
        if checked.issym():
            target.symlink_to(checked.linkname)
            return f"link {checked.linkname}"
    source = archive.extractfile(entry)
    if source is None:
        raise tarfile.ExtractError(f"{entry.name}: is no file")
    digest = hashlib.sha256()
    with _unpacking(home):
        # Without a buffer, whose rest would be written, and fail, at the end of the block.
        file = target.open("xb", buffering=0)
    with file:
        with _unpacking(home):
            target.chmod((entry.mode & 0o700) | 0o600)
        while chunk := source.read(_CHUNK):
            digest.update(chunk)
            with _unpacking(home):
                _write(file, chunk)
    return f"file {digest.hexdigest()}"


def _write(file: io.FileIO, chunk: bytes) -> None:
    left = memoryview(chunk)
    while left:
        left = left[file.write(left) :]


@contextmanager
def _unpacking(home: Path) -> Iterator[None]:
    """Tell a fault of the place from one of the backup, which another backup would not mend."""
    try:
        yield
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        cure = "see to room and rights there, or name another folder: --home, for verify TMPDIR"
        raise BackupError(f"{home}: the backup cannot be unpacked there ({reason}); {cure}") from error


def _compare(path: Path, wanted: Mapping[str, Mapping[str, Any]], found: Mapping[str, str]) -> None:
    expected = {
        name: "folder" if "folder" in row else f"link {row['link']}" if "link" in row else f"file {row.get('sha256')}"
        for name, row in wanted.items()
    }
    wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if wrong:
        more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise BackupError(f"{path}: not as it was written: {', '.join(wrong[:_SHOWN])}{more}; take another backup")


def _database_problems(path: Path) -> list[str]:
    if not path.exists():
        return [f"there is no {DATABASE}: the gateway had not been started"]
    try:
        connection = sqlite3.connect(path)
        try:
            found = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(3)")]
        finally:
            connection.close()
    except sqlite3.Error as error:
        found = [str(error)]
    return [] if found == ["ok"] else [f"{DATABASE} is not sound: {'; '.join(found)}"]


def _config_problems(home: Path) -> list[str]:
    from openclaw_config.home import config_path
    from openclaw_config.load import ConfigError, load
    from openclaw_kernel.checks.scene import SurveyResolver

    try:
        # Nothing runs for its references, and those of another machine lead nowhere here.
        load(config_path(home), resolve_by=SurveyResolver)
    except ConfigError as error:
        return [str(issue) for issue in error.issues]
    return []
