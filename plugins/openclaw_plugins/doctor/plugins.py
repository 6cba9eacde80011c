"""The installed plugins: those that cannot run as they are installed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from openclaw_kernel.api import CheckContext, Finding, Severity
from openclaw_plugins.doctor.table import Table

TABLE: Final = Table()

_SEVERAL: Final = " comes from "


@TABLE.add("plugins.failed", "a plugin cannot be used as it is installed", Severity.WARN)
def failed(context: CheckContext) -> Iterator[Finding]:
    for plugin in context.plugins:
        if plugin.state == "failed":
            yield Finding(
                severity=Severity.WARN,
                where=f"plugin:{plugin.id}",
                evidence=f"{plugin.distribution} {plugin.version}: {plugin.reason or 'no reason is known'}",
                cure=f"pip install --force-reinstall {plugin.distribution}, or pip uninstall {plugin.distribution}",
            )


@TABLE.add("plugins.unavailable", "a plugin is configured, and what it needs is not installed", Severity.WARN)
def unavailable(context: CheckContext) -> Iterator[Finding]:
    for plugin in context.plugins:
        if plugin.state == "unavailable" and plugin.runs and _is_configured(context, plugin.id, plugin.kind):
            yield Finding(
                severity=Severity.WARN,
                where=f"plugin:{plugin.id}",
                evidence="a library that it needs is missing: it does not run",
                cure=plugin.reason or "install what it needs",
            )


@TABLE.add("plugins.several", "several distributions bring the same plugin", Severity.WARN)
def several(context: CheckContext) -> Iterator[Finding]:
    for problem in context.plugin_problems:
        if _SEVERAL in problem:
            yield Finding(severity=Severity.WARN, evidence=problem, cure="uninstall all but the one that you mean")


@TABLE.add("plugins.entry-points", "a distribution's entry points cannot be used", Severity.WARN)
def entry_points(context: CheckContext) -> Iterator[Finding]:
    for problem in context.plugin_problems:
        if _SEVERAL not in problem:
            yield Finding(severity=Severity.WARN, evidence=problem, cure="reinstall that distribution, or uninstall it")


@TABLE.add("plugins.cut-off", "a change of what is installed was cut off", Severity.WARN)
def cut_off(context: CheckContext) -> Iterator[Finding]:
    for evidence, cure in context.cut_off_changes:
        yield Finding(severity=Severity.WARN, evidence=evidence, cure=cure)


@TABLE.add("plugins.editable", "a plugin is read from a folder that is gone", Severity.WARN)
def editable(context: CheckContext) -> Iterator[Finding]:
    for plugin in context.plugins:
        if plugin.editable and (plugin.folder is None or not plugin.folder.exists()):
            yield Finding(
                severity=Severity.WARN,
                where=f"plugin:{plugin.id}",
                evidence=f"{plugin.distribution} was installed to be edited, and its code is not there any more",
                cure=f"pip uninstall {plugin.distribution}, or install it again",
            )


def _is_configured(context: CheckContext, plugin_id: str, kind: str) -> bool:
    """Whether somebody asked for it: other plugins than channels and providers run by themselves."""
    return kind != "plugin" or plugin_id in context.config.plugins.entries
