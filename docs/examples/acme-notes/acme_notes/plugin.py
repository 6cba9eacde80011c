"""Notes in a file, and a check that nobody else reads them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from openclaw_kernel.api import Check, CheckContext, Finding, Fix, PluginContext, Registrar, SetMode, Severity, hookimpl


class NotesSettings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str = Field(default="notes.txt", pattern=r"^[a-z0-9.-]+$")
    """Name of the file in the state folder."""


class NotesPlugin:
    settings: ClassVar[type[BaseModel] | None] = NotesSettings

    def __init__(self, context: PluginContext) -> None:
        self._name = context.settings(NotesSettings).name

    @hookimpl
    def openclaw_register_checks(self, registrar: Registrar) -> None:
        registrar.add_check(
            Check(id="acme.notes.public", title="others may read the notes", worst=Severity.WARN, fixes=True, run=self._look)
        )

    def _look(self, context: CheckContext) -> Iterator[Finding]:
        notes = context.files.get(context.home / self._name)
        if notes is None or not notes.mode & 0o077:
            return
        yield Finding(
            severity=Severity.WARN,
            where=str(notes.path),
            evidence=f"the notes have the mode {notes.mode:04o}",
            cure=f"chmod 0600 {notes.path}",
            fix=Fix(summary="close the notes to others", changes=(SetMode(path=notes.path, mode=0o600),)),
        )
