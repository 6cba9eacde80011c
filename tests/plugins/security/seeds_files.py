"""What is put wrong on disk, and what is not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from openclaw_kernel.api import CheckContext
from tests.plugins.security.scenes import Scene
from tests.plugins.security.seeds import Seed


def mode(name: str, bits: int, *, content: str | None = None) -> Callable[[Path], None]:
    """Give a file this mode; it is made where `content` says what is in it."""

    def prepare(home: Path) -> None:
        path = home / name
        path.parent.mkdir(mode=0o700, exist_ok=True)
        if content is not None:
            path.write_text(content)
        path.chmod(bits)

    return prepare


def link(to: str, *, folder: int) -> Callable[[Path], None]:
    """Put openclaw.yaml somewhere else, into a folder of this mode, and a link in its place."""

    def prepare(home: Path) -> None:
        elsewhere = home.parent / to
        elsewhere.mkdir()
        (home / "openclaw.yaml").rename(elsewhere / "openclaw.yaml")
        (home / "openclaw.yaml").symlink_to(elsewhere / "openclaw.yaml")
        elsewhere.chmod(folder)

    return prepare


def workspace(bits: int) -> Callable[[Path], None]:
    """An agent's file of this mode."""

    def prepare(home: Path) -> None:
        (home / "workspace" / "main").mkdir(parents=True)
        mode("workspace/main/AGENTS.md", bits, content="be kind")(home)

    return prepare


def parent(bits: int) -> Callable[[Path], None]:
    """The folder around the state folder with this mode."""
    return lambda home: home.parent.chmod(bits)


def somebody_else(context: CheckContext) -> CheckContext:
    """The gateway runs as another user than the one whom the files belong to."""
    return replace(context, process=replace(context.process, user_id=54_321))


def on(file_system: str) -> Callable[[CheckContext], CheckContext]:
    """On this file system."""
    return lambda context: replace(context, machine=replace(context.machine, file_system=file_system))


SEEDS = {
    "files.home.open": Seed(Scene(prepare=mode(".", 0o755)), Scene(prepare=mode(".", 0o700))),
    "files.owner": Seed(
        Scene(context=lambda context: somebody_else(_owned(context, 1234))),
        Scene(context=lambda context: somebody_else(_owned(context, 0))),
    ),
    "files.config.open": Seed(Scene(prepare=mode("openclaw.yaml", 0o640)), Scene(prepare=mode("openclaw.yaml", 0o400))),
    "files.database.open": Seed(
        Scene(prepare=mode("state.sqlite3-wal", 0o644, content="")), Scene(prepare=mode("state.sqlite3-wal", 0o600, content=""))
    ),
    "files.token.open": Seed(Scene(prepare=mode("gateway.token", 0o604)), Scene(prepare=mode("gateway.token", 0o600))),
    "files.secrets.open": Seed(
        Scene(prepare=mode("secrets/github", 0o640, content="x")), Scene(prepare=mode("secrets/github", 0o600, content="x"))
    ),
    "files.audit-key.open": Seed(
        Scene(prepare=mode("audit.key", 0o640, content="x")), Scene(prepare=mode("audit.key", 0o600, content="x"))
    ),
    "files.log.open": Seed(
        Scene(prepare=mode("logs/gateway.log", 0o644, content="")), Scene(prepare=mode("logs/gateway.log", 0o600, content=""))
    ),
    "files.workspace.writable": Seed(Scene(prepare=workspace(0o664)), Scene(prepare=workspace(0o644))),
    "files.backups.open": Seed(
        Scene(prepare=mode("openclaw.yaml.bak", 0o644, content="x")), Scene(prepare=mode("openclaw.yaml.bak", 0o600, content="x"))
    ),
    "files.folders.writable": Seed(Scene(prepare=parent(0o777)), Scene(prepare=parent(0o1777))),
    "files.link": Seed(Scene(prepare=link("open", folder=0o777)), Scene(prepare=mode("openclaw.yaml", 0o600))),
    "files.network": Seed(Scene(context=on("nfs4")), Scene(context=on("btrfs"))),
}


def _owned(context: CheckContext, user: int) -> CheckContext:
    return replace(context, files={path: replace(entry, user_id=user) for path, entry in context.files.items()})
