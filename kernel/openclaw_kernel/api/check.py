"""What looks for mistakes in how a gateway is set up: `security audit` and `doctor` run the checks of every plugin.

A check is pure: it reads the context that it is given, and changes nothing. What it would change it says as a `Fix`, which the kernel
shows, backs up, carries out as a whole, and can take back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

from openclaw_config.models import Config
from openclaw_kernel.api.audit import AuditOrigin
from openclaw_kernel.api.doctor import Instruments
from openclaw_kernel.api.probe import Probe

CheckKind: TypeAlias = Literal["security", "doctor"]
"""Which command runs it: `security` by `security audit`, `doctor` by `doctor`, also where openclaw.yaml is broken."""


class Severity(StrEnum):
    """How bad a finding is. From `WARN` on the command ends with 1."""

    INFO = "info"
    """Worth knowing; a default installation may have it."""
    WARN = "warn"
    """Weaker than it should be."""
    CRITICAL = "critical"
    """Somebody else can get in, or can get at a secret; of kind `doctor`: the gateway does not start, does not serve, or loses data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetMode:
    """Give a file or folder another mode. It is told as `path: mode 0644 -> 0600`."""

    path: Path
    mode: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteFile:
    """Write a whole text file below the state folder, 0600; `told` is what is said of a content that is not to be seen."""

    path: Path
    text: str = field(repr=False)
    told: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SetKey:
    """Give a key of openclaw.yaml that is there another value, and leave every other byte as it is.

    A list can lose items; one that is written with a line for each keeps the lines of the others.
    """

    key: tuple[str | int, ...]
    value: Any = field(repr=False)
    secret: bool = False
    """Whether the value that is there is not to be seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RenameKey:
    """Give a key of openclaw.yaml another name, and leave its value and every other byte as they are."""

    key: tuple[str | int, ...]
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DisableKey:
    """Make a key of openclaw.yaml, with all below it, a comment where it stands; one within brackets is taken out."""

    key: tuple[str | int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Migrate:
    """Bring openclaw.yaml to the form of this version, by the numbered steps of `openclaw_config.migrating`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveFile:
    """Take a file below the state folder away; its backup holds it."""

    path: Path


Change: TypeAlias = SetMode | WriteFile | SetKey | RenameKey | DisableKey | Migrate | RemoveFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Fix:
    """What a finding's cure would change: all of `changes`, or none. `consequence` is who or what is affected by it, in one line."""

    summary: str
    changes: Sequence[Change]
    consequence: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong. `evidence` is what was found, in one line without any secret, `cure` what to do about it.

    `where` is the key of openclaw.yaml, or the path, that it is about.
    """

    severity: Severity
    evidence: str
    cure: str
    where: str | None = None
    fix: Fix | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """What the file system says of one file, folder or link (which is not followed)."""

    path: Path
    mode: int
    """The permission bits."""
    user_id: int
    group_id: int
    kind: Literal["file", "folder", "link", "other"]
    modified_ms: int
    links: int = 1
    size: int = 0
    """In bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretSlot:
    """A place of openclaw.yaml that holds a secret; `target` is what a reference names, None for what stands in the file itself."""

    key: tuple[str | int, ...]
    kind: Literal["env", "file", "keyring", "exec", "variable", "literal"]
    used_by: Sequence[str]
    target: str | None = None
    digest: str | None = None
    """To find the same secret in two places: a hash that is another in each run; None where it was not read."""
    weakness: str | None = None
    """Why it is easily guessed, with nothing of it; None where nothing is seen against it, or it was not read."""
    name: str | None = None
    """Its name in `secrets.entries`."""
    text: str | None = field(default=None, repr=False)
    """The secret, where it stands in the file itself: to move it somewhere else, never to show it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigFault:
    """One reason why the configuration, or one section of it, cannot be used as it is."""

    check: str
    """The id of the check of doctor that tells it."""
    key: tuple[str | int, ...]
    """Where in the configuration; empty where it is about a whole file."""
    place: str
    """File, line and column as far as they are known: `openclaw.yaml:12:5`."""
    found: str
    cure: str
    near: str | None = None
    """Of an unknown key: the known one that is spelt most like it."""
    here: bool = True
    """Whether it stands in openclaw.yaml itself, where a fix can reach it."""
    is_section: bool = False
    """A fault in a plugin's own section disables that plugin alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstalledPlugin:
    """A plugin that is installed, whether it runs or not. Nothing of it was imported."""

    id: str
    kind: Literal["channel", "provider", "plugin"]
    distribution: str
    version: str
    bundled: bool
    runs: bool
    """Whether the configuration wants it."""
    source: Literal["index", "folder", "archive", "vcs", "unknown"]
    """Where its distribution was installed from; `index` is a package index, by name and version."""
    editable: bool
    requires: Sequence[str]
    """The distributions that its own says it needs."""
    folder: Path | None
    """Its code: a folder, or one file."""
    manifest: Mapping[str, Any]
    state: Literal["discovered", "unavailable", "failed"] = "discovered"
    """`unavailable`: what it needs is not installed; `failed`: it cannot be used as it is installed."""
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessFacts:
    """The process of the running gateway; where none runs, that of the command, which would start one like itself.

    What could not be found out is None.
    """

    is_gateway: bool
    user_id: int | None = None
    umask: int | None = None
    core_bytes: int | None = None
    """How large a dump of its memory may become, -1 for any size."""
    variables: Sequence[str] = ()
    """The names of its environment variables."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineFacts:
    """The machine. What could not be found out is None."""

    now_ms: int
    clock_synchronised: bool | None = None
    login_users: Sequence[str] = ()
    """People who can log in, root not counted."""
    file_system: str | None = None
    """The type of the file system that the state folder is on."""


class StateReader(Protocol):
    """The gateway's database, which is only read."""

    def rows(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Return the rows; none where a table that it names is not there, or no database."""
        ...

    def verify_audit(self) -> Mapping[str, Any]:
        """Check the whole audit log: `ok`, `rows`, `checkpoints`, and `fault` with its message."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckContext:
    """What a check may look at."""

    home: Path
    """The state folder."""
    config: Config
    """The configuration. Where a reference leads nowhere, or to a keyring or a program, there is a random secret in its place."""
    document: Mapping[str, Any]
    """openclaw.yaml as it is written."""
    config_path: Path
    files: Mapping[Path, FileEntry]
    """Everything in the state folder and below, and the folder itself; of the files of agents only those at the top."""
    look: Callable[[Path], FileEntry | None]
    """Look at a file elsewhere."""
    secrets: Sequence[SecretSlot]
    plugins: Sequence[InstalledPlugin]
    plugin_problems: Sequence[str]
    """What is wrong with what is installed, a line each."""
    cut_off_changes: Sequence[tuple[str, str]] = ()
    """Installations, upgrades and removals of plugins that a gateway that was killed left half done: what was found, and the cure."""
    state: StateReader
    process: ProcessFacts
    machine: MachineFacts
    probe: Probe | None = None
    """The running gateway from outside; None but for `--deep`."""
    instruments: Instruments
    """What else may be asked."""
    faults: Sequence[ConfigFault] = ()
    """Why openclaw.yaml cannot be used; of what cannot, `config` has the defaults."""
    old_forms: Mapping[str, Sequence[tuple[str | int, ...]]] = field(default_factory=dict)
    """What openclaw.yaml says as an earlier version did: the keys, by what becomes of them."""
    config_hash: str | None = None
    """The hash by which a gateway calls this configuration; None where it cannot be used."""
    text: str | None = field(default=None, repr=False)
    """The text of openclaw.yaml; None where it cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that is looked for. `id` is dotted lower-case words (`acme.notes.public`), `worst` the highest severity of its findings.

    `run` is called on a helper thread, for `timeout_seconds` at most, of which there may be 300; one that raises or
    hangs is a finding of its own and stops no other.
    A `deep` check needs `context.probe`, and runs with `--deep` alone.
    """

    id: str
    title: str
    worst: Severity
    run: Callable[[CheckContext], Iterable[Finding]]
    kind: CheckKind = "security"
    fixes: bool = False
    """Whether its findings may come with a fix."""
    deep: bool = False
    timeout_seconds: float = 10.0


class Fixes(Protocol):
    """The service of a running gateway: fixes are made by a command, on the files, and written down here."""

    async def record(self, origin: AuditOrigin) -> Sequence[str]:
        """Write a row of the audit log for each fix that has none yet, as it is on disk; return their ids."""
        ...
