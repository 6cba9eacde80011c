"""Where a folder really is: on a network's file system others write without our system telling."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

_MOUNTS: Final = Path("/proc/self/mountinfo")
_FAR: Final = frozenset(
    "9p afs beegfs ceph cifs coda davfs davfs2 drvfs fakeowner gfs2 glusterfs gpfs lustre ncpfs nfs nfs4 ocfs2 orangefs osxfs prl_fs"
    " smb2 smb3 smbfs vboxsf virtiofs vmhgfs".split()
)
_ESCAPED: Final = re.compile(r"\\([0-7]{3})")


def far_type(folder: Path, mounts: Path = _MOUNTS) -> str | None:
    """The type of the network's or host's file system that a folder is on; None for our own machine's, or where it is not said."""
    try:
        lines = mounts.read_text("utf-8", "surrogateescape").splitlines()
        real = folder.resolve()
    except (OSError, RuntimeError):
        return None
    best, kind = -1, None
    for line in lines:
        before, separator, after = line.partition(" - ")
        fields = before.split(" ")
        if not separator or len(fields) < 5:  # noqa: PLR2004 - the fifth is where it is mounted
            continue
        point = Path(_ESCAPED.sub(lambda match: chr(int(match[1], 8)), fields[4]))
        # Of two that are mounted at the same place, the later one is seen.
        if real.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), after.split(" ")[0]
    return kind if kind is not None and (kind in _FAR or kind.startswith("fuse.")) else None
