"""Where secrets come from, and who sees them on the way."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from openclaw_kernel.api import CheckContext, Finding, Fix, SecretSlot, SetKey, Severity, WriteFile
from openclaw_plugins.security.names import looks_secret
from openclaw_plugins.security.table import Table, writable_by_others

TABLE: Final = Table()

_PASSWORD_IN_URL: Final = re.compile(r"://[^/?#\s:@]*:[^/?#\s]+@")
_OWN_VARIABLES: Final = frozenset({"OPENCLAW_GATEWAY_TOKEN"})


@TABLE.add("secrets.plain", "a secret stands in openclaw.yaml", Severity.WARN, fixes=True)
def plain(context: CheckContext) -> Iterator[Finding]:
    taken = {entry.path.name for entry in context.files.values() if entry.path.parent == context.home / "secrets"}
    for slot in context.secrets:
        if slot.kind == "literal":
            yield Finding(
                severity=Severity.WARN,
                where=_key(slot),
                evidence="it is written out: who is shown the file, or a copy of it, has the secret",
                cure="put it away with openclaw-kernel secrets set NAME, and write the reference in its place",
                fix=_moved(context, slot, taken),
            )
    written = {slot.key for slot in context.secrets}
    for where, text in _strings(context.document):
        if where not in written and _PASSWORD_IN_URL.search(text):
            yield Finding(
                severity=Severity.WARN,
                where=".".join(map(str, where)),
                evidence="a password is written out in its URL: who is shown the file, or a copy of it, has the secret",
                cure="take it out of the URL, withdraw it, and give it where it can be a reference, e.g. as apiKey",
            )


def _strings(value: object, where: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _strings(item, (*where, str(name)))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _strings(item, (*where, index))


def _moved(context: CheckContext, slot: SecretSlot, taken: set[str]) -> Fix | None:
    if slot.text is None or "\n" in slot.text or slot.text.strip() != slot.text:
        return None
    base = re.sub(r"[^a-z0-9]+", "-", _key(slot).lower()).strip("-")[-60:].strip("-") or "secret"
    name = next(name for number in range(1, 1000) if (name := base if number == 1 else f"{base}-{number}") not in taken)
    taken.add(name)
    return Fix(
        summary=f"move it to secrets/{name}",
        changes=(
            WriteFile(
                path=context.home / "secrets" / name, text=f"{slot.text}\n", told="the secret that stands in openclaw.yaml (not shown)"
            ),
            SetKey(key=slot.key, value=f"${{file:secrets/{name}}}", secret=True),
        ),
        consequence="the backup below fixes/ has the old file with the secret: delete it once the fix is not to be undone",
    )


@TABLE.add("secrets.environment", "secrets are in the gateway's environment", Severity.INFO)
def environment(context: CheckContext) -> Iterator[Finding]:
    named = {slot.target for slot in context.secrets if slot.kind == "env"}
    found = [name for name in context.process.variables if looks_secret(name) and name not in _OWN_VARIABLES]
    idle = [name for name in found if name not in named]
    if not found:
        return
    words = f"{', '.join(found[:8])} can be read by every program of the same user"
    yield Finding(
        severity=Severity.INFO,
        evidence=words + (f"; {', '.join(idle[:8])} is used by nothing in openclaw.yaml" if idle else ""),
        cure="start the gateway without them, and use ${file:...} or ${keyring:...} for those that it needs",
    )


@TABLE.add("secrets.exec.writable", "others may change a program that hands out a secret", Severity.CRITICAL)
def exec_writable(context: CheckContext) -> Iterator[Finding]:
    for slot in context.secrets:
        if slot.kind != "exec" or not slot.target:
            continue
        try:
            program = Path(shlex.split(slot.target)[0])
        except (ValueError, IndexError):
            continue
        path = program.resolve()
        exposed = [entry for each in (path, path.parent) if (entry := context.look(each)) is not None and writable_by_others(entry)]
        if exposed:
            yield Finding(
                severity=Severity.CRITICAL,
                where=_key(slot),
                evidence=f"{exposed[0].path} has the mode {exposed[0].mode:04o}: others decide what the gateway runs at its start",
                cure=f"chmod go-w {exposed[0].path}",
            )


@TABLE.add("secrets.exec.environment", "programs of references are handed secrets of the environment", Severity.WARN)
def exec_environment(context: CheckContext) -> Iterator[Finding]:
    used = any(slot.kind == "exec" for slot in context.secrets)
    found = [name for name in context.config.secrets.exec.environment if looks_secret(name)]
    if used and len(found) > 1:
        yield Finding(
            severity=Severity.WARN,
            where="secrets.exec.environment",
            evidence=f"every program of an ${{exec:...}} reference sees all of {', '.join(found)}",
            cure="leave the one that the programs need to unlock their store",
        )


@TABLE.add("secrets.reused", "one secret stands in several places", Severity.WARN)
def reused(context: CheckContext) -> Iterator[Finding]:
    places: dict[str, list[SecretSlot]] = {}
    for slot in context.secrets:
        if slot.digest is not None:
            places.setdefault(slot.digest, []).append(slot)
    for slots in places.values():
        sources = {(slot.kind, slot.target) for slot in slots}
        # A reference that is written twice is one secret by intent, but the gateway's own is nobody else's.
        own = [slot for slot in slots if slot.key[:2] == ("gateway", "auth")]
        if len(slots) > 1 and (len(sources) > 1 or None in {slot.target for slot in slots} or 0 < len(own) < len(slots)):
            yield Finding(
                severity=Severity.WARN,
                where=_key(slots[0]),
                evidence=f"the same secret is that of {', '.join(_key(slot) for slot in slots[1:])}: who gets one has all",
                cure="make a secret of its own for each",
            )


@TABLE.add("secrets.unused", "a secret is kept that nobody uses", Severity.INFO)
def unused(context: CheckContext) -> Iterator[Finding]:
    for slot in context.secrets:
        if slot.name is not None and not slot.used_by:
            yield Finding(
                severity=Severity.INFO,
                where=_key(slot),
                evidence="no agent's secrets name it",
                cure="remove it, and withdraw it where it was issued",
            )


@TABLE.add("secrets.shell", "commands of agents see secrets", Severity.INFO)
def shell(context: CheckContext) -> Iterator[Finding]:
    for slot in context.secrets:
        ways = [user for user in slot.used_by if user.startswith("shell-tool as ")]
        if ways:
            yield Finding(
                severity=Severity.INFO,
                where=_key(slot),
                evidence=f"every program that an agent runs with it in its scope can read it ({ways[0]})",
                cure="let a tool of its own use the secret, where there is one",
            )


def _key(slot: SecretSlot) -> str:
    return ".".join(map(str, slot.key))
