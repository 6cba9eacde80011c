"""openclaw.yaml: whether it can be used, and what in it is not meant as it is written."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

from openclaw_kernel.api import CheckContext, ConfigFault, DisableKey, Finding, Fix, Migrate, RenameKey, Severity
from openclaw_plugins.doctor.table import Table, dotted, mapping

TABLE: Final = Table()

RETIRED: Final[Mapping[tuple[str, ...], str]] = {
    ("agent",): "agents.defaults, or agents.entries.<id> for one agent",
    ("agents", "list"): "agents.entries, a mapping by agent id",
    ("identity",): "agents.entries.<id>.identity",
    ("routing",): "bindings, and channels.<channel>.allowFrom",
    ("routes",): "bindings",
    ("telegram",): "channels.telegram",
    ("whatsapp",): "channels.whatsapp",
    ("discord",): "channels.discord",
    ("slack",): "channels.slack",
    ("providers",): "models.providers",
    ("gateway", "token"): "gateway.auth.token",
    ("gateway", "password"): "gateway.auth.password",
    ("gateway", "host"): "gateway.bind",
    ("session", "scope"): "session.dmScope",
    ("session", "mainSessionKey"): "session.mainKey",
}
"""Keys of the reference gateway, of now or of before, which have another place here."""


@TABLE.add("config.missing", "there is no openclaw.yaml", Severity.WARN)
def missing(context: CheckContext) -> Iterator[Finding]:
    if context.look(context.config_path) is None:
        yield Finding(
            severity=Severity.WARN,
            where=str(context.config_path),
            evidence="the file is not there: the next start writes one with the defaults, and with a token of its own",
            cure="start the gateway once, or put the file back from a backup",
        )


@TABLE.add("config.unknown-key", "there is a key that nobody knows", Severity.CRITICAL, fixes=True)
def unknown_key(context: CheckContext) -> Iterator[Finding]:
    for fault in _faults(context, "config.unknown-key"):
        if _retired(fault) is None:
            yield _finding(fault, _cure_of(context, fault))


@TABLE.add("config.retired", "there is a key of the reference that has another place here", Severity.CRITICAL, fixes=True)
def retired(context: CheckContext) -> Iterator[Finding]:
    for fault in _faults(context, "config.unknown-key"):
        place = _retired(fault)
        if place is not None:
            yield Finding(
                severity=Severity.CRITICAL,
                where=fault.place,
                evidence=f"{dotted(fault.key)} is a key of the reference gateway that this one does not read",
                cure=f"its place is {place}; move it, or have doctor --fix make it a comment",
                fix=_disable(fault),
            )


@TABLE.add("config.unknown-plugin", "there is a section of a plugin that is not installed", Severity.WARN, fixes=True)
def unknown_plugin(context: CheckContext) -> Iterator[Finding]:
    for fault in _faults(context, "config.unknown-plugin"):
        yield _finding(fault, _disable(fault))


@TABLE.add("config.section", "a plugin's section is wrong, so that it does not run", Severity.WARN)
def section(context: CheckContext) -> Iterator[Finding]:
    for fault in _faults(context, "config.section"):
        yield _finding(fault)


def _told(check_id: str, title: str) -> None:
    """A check that tells what cannot be mended without knowing what was meant."""

    @TABLE.add(check_id, title, Severity.CRITICAL)
    def tell(context: CheckContext) -> Iterator[Finding]:
        for fault in _faults(context, check_id):
            yield _finding(fault)


_told("config.unreadable-file", "a file of the configuration cannot be read")
_told("config.duplicate-key", "a key is there twice")
_told("config.missing-key", "a key is missing")
_told("config.bad-value", "a value cannot be used")
_told("config.unknown-name", "a name stands for nothing")
_told("config.bad-include", "an include cannot be read")
_told("config.bad-profile", "the profile cannot be used")
_told("config.bad-variable", "an environment variable that sets a key cannot be used")


@TABLE.add("config.old-form", "openclaw.yaml has the form of an earlier version", Severity.WARN, fixes=True)
def old_form(context: CheckContext) -> Iterator[Finding]:
    if context.old_forms:
        keys = ", ".join(dotted(key) for found in context.old_forms.values() for key in found)
        yield Finding(
            severity=Severity.WARN,
            where=str(context.config_path),
            evidence=f"{keys}: written as an earlier version did; a later one will not read it any more",
            cure="have doctor --fix write it anew: " + "; ".join(context.old_forms),
            fix=Fix(summary="bring openclaw.yaml to the form of this version", changes=(Migrate(),)),
        )


@TABLE.add("config.unresolved-reference", "a reference in openclaw.yaml leads nowhere", Severity.CRITICAL)
def reference(context: CheckContext) -> Iterator[Finding]:
    for fault in _faults(context, "config.unresolved-reference"):
        yield _finding(fault)
    for slot in context.secrets:
        if slot.digest is not None or slot.kind not in {"env", "file", "variable"}:
            continue
        # The service may have variables that this shell has not.
        unsure = slot.kind != "file" and not context.process.is_gateway
        name = slot.target or "the variable"
        yield Finding(
            severity=Severity.WARN if unsure else Severity.CRITICAL,
            where=dotted(slot.key),
            evidence=f"there is no {'file' if slot.kind == 'file' else 'environment variable'} {name}"
            + (" here; a gateway that is started with the same environment does not start" if unsure else ""),
            cure="write the secret into that file" if slot.kind == "file" else "set it where the gateway starts, or name a file instead",
        )


@TABLE.add("config.link", "openclaw.yaml is a link that cannot be written through", Severity.CRITICAL)
def link(context: CheckContext) -> Iterator[Finding]:
    entry = context.look(context.config_path)
    if entry is None or entry.kind != "link":
        return
    target = context.config_path.resolve()
    found, folder = context.look(target), context.look(target.parent)
    if found is None:
        yield Finding(
            severity=Severity.CRITICAL,
            where=str(context.config_path),
            evidence=f"it is a link to {target}, which is not there",
            cure="put the file back, or remove the link",
        )
    elif folder is not None and not _may_write(context, folder.user_id, folder.mode):
        yield Finding(
            severity=Severity.WARN,
            where=str(context.config_path),
            evidence=f"it is a link to {target}, in a folder in which the gateway may not write, so that it cannot change it",
            cure=f"let the gateway's user write in {target.parent}, or edit the file by hand alone",
        )


@TABLE.add("config.not-in-force", "the running gateway has another configuration than openclaw.yaml", Severity.WARN)
def not_in_force(context: CheckContext) -> Iterator[Finding]:
    if context.text is None:
        return
    try:
        told = context.instruments.call("config.get")
    except OSError:
        # That it does not answer is told by gateway.answers.
        return
    hashed = mapping(told).get("appliedConfigHash")
    if isinstance(hashed, str) and hashed not in {context.config_hash, hashlib.sha256(context.text.encode()).hexdigest()}:
        yield Finding(
            severity=Severity.WARN,
            where=str(context.config_path),
            evidence="the file was changed since, and the change is not in force",
            cure="openclaw-kernel config validate says whether it can be used; openclaw-kernel restart takes it",
        )


def _faults(context: CheckContext, check_id: str) -> list[ConfigFault]:
    """The faults that a check tells; of a file that is not there yet, none."""
    if context.look(context.config_path) is None:
        return []
    return [fault for fault in context.faults if fault.check == check_id]


def _retired(fault: ConfigFault) -> str | None:
    return None if fault.is_section else RETIRED.get(tuple(map(str, fault.key)))


def _finding(fault: ConfigFault, fix: Fix | None = None) -> Finding:
    about = f"{dotted(fault.key)}: " if fault.key else ""
    severity = Severity.WARN if fault.is_section else Severity.CRITICAL
    return Finding(severity=severity, where=fault.place, evidence=f"{about}{fault.found}", cure=fault.cure, fix=fix)


def _cure_of(context: CheckContext, fault: ConfigFault) -> Fix | None:
    holder: Any = context.document
    for part in fault.key[:-1]:
        holder = holder[part] if isinstance(holder, list) and isinstance(part, int) else mapping(holder).get(str(part))
    if fault.near is None or fault.near in mapping(holder) or not fault.here:
        return _disable(fault)
    new = dotted((*fault.key[:-1], fault.near))
    return Fix(summary=f"rename {dotted(fault.key)} to {new}", changes=(RenameKey(key=fault.key, name=fault.near),))


def _disable(fault: ConfigFault) -> Fix | None:
    if not fault.here:
        return None
    return Fix(
        summary=f"make {dotted(fault.key)} a comment",
        changes=(DisableKey(key=fault.key),),
        consequence="what it says is not in force; it was not before either",
    )


def _may_write(context: CheckContext, owner: int, mode: int) -> bool:
    user = context.process.user_id
    return user in {0, None} or bool(mode & (0o200 if owner == user else 0o022))
