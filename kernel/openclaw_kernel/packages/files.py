"""The files of one installed distribution, kept while another version takes their place, and put back."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from openclaw_kernel.api.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class Kept:
    """Copies of a distribution's files. Whoever keeps some calls `forget`."""

    distribution: str
    version: str
    folder: Path
    places: tuple[tuple[str, Path], ...]
    """Name of the copy, and where the file was."""

    def put_back(self) -> None:
        """Write the files where they were; on a thread. Raise `OSError`."""
        for name, place in self.places:
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(self.folder / name, place)
        importlib.invalidate_caches()

    def forget(self) -> None:
        """Delete the copies."""
        shutil.rmtree(self.folder, ignore_errors=True)


def keep(distribution: str, below: Path) -> Kept:
    """Copy the files of a distribution into a folder of their own below; on a thread.

    Raises:
        InvalidRequest: it does not say which files are its own, so they could not be put back.
    """
    try:
        found = importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        raise InvalidRequest(f"{distribution} is not installed any more; look at `openclaw-kernel plugins list`") from None
    if not found.files:
        raise InvalidRequest(f"{distribution} has no list of its files (RECORD), so it could not be put back; upgrade it with pip yourself")
    below.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder = Path(tempfile.mkdtemp(prefix=f"{distribution}-", dir=below))
    places: list[tuple[str, Path]] = []
    try:
        for number, file in enumerate(found.files):
            place = Path(str(file.locate()))
            # What is made by running it is made again.
            if "__pycache__" not in place.parts and place.is_file():
                shutil.copy2(place, folder / str(number))
                places.append((str(number), place))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return Kept(distribution, found.version, folder, tuple(places))


def state_of(distribution: str) -> str | None:
    """What tells one installation of a distribution from another: the text of its RECORD; None where it is not installed."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError, OSError):
        return importlib.metadata.distribution(distribution).read_text("RECORD")
    return None
