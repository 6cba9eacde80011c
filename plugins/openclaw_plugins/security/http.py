"""What the one listener shows to those who have no credential."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from openclaw_kernel.api import CheckContext, Finding, Severity
from openclaw_plugins.security.reach import plugin_settings
from openclaw_plugins.security.table import Table, writable_by_others

TABLE: Final = Table()

_MANY_PAGES: Final = 20


@TABLE.add("http.probes.exposed", "health probes answer everybody in reach", Severity.INFO)
def probes(context: CheckContext) -> Iterator[Finding]:
    gateway = context.config.gateway
    if gateway.bind != "loopback":
        yield Finding(
            severity=Severity.INFO,
            where="gateway.bind",
            evidence="/health and /ready answer whoever reaches the port, with no more than whether something is up",
            cure="let the proxy or the firewall pass on no more than it has to",
        )


@TABLE.add("http.pages.many", "many browser pages stay signed in", Severity.WARN)
def pages(context: CheckContext) -> Iterator[Finding]:
    rows = context.state.rows("SELECT value FROM kernel_key_value WHERE owner = 'kernel' AND key = 'page-sessions'")
    sessions = json.loads(rows[0][0]) if rows else {}
    live = [expires for expires in sessions.values() if expires > context.machine.now_ms]
    if len(live) > _MANY_PAGES:
        yield Finding(
            severity=Severity.WARN,
            evidence=f"{len(live)} pages are signed in, each for 30 days, and act with all rights",
            cure="make a new gateway token, which ends them all, and open links on browsers of your own only",
        )


@TABLE.add("http.control-ui.writable", "others may change the Control UI that is served", Severity.CRITICAL)
def control_ui(context: CheckContext) -> Iterator[Finding]:
    root = plugin_settings(context, "control-ui").get("root")
    if not isinstance(root, str):
        return
    folder = Path(root).expanduser()
    for path in (folder, folder / "index.html"):
        entry = context.look(path)
        if entry is not None and writable_by_others(entry):
            yield Finding(
                severity=Severity.CRITICAL,
                where=str(path),
                evidence=f"it has the mode {entry.mode:04o}: who changes it acts as whoever opens the page",
                cure=f"chmod -R go-w {folder}",
            )
            return


@TABLE.add("http.page.beyond", "the chat page is served beyond this machine", Severity.INFO)
def page(context: CheckContext) -> Iterator[Finding]:
    gateway = context.config.gateway
    if gateway.bind != "loopback" and gateway.control_ui.enabled:
        yield Finding(
            severity=Severity.INFO,
            where="gateway.controlUi.enabled",
            evidence="whoever reaches the port is shown the page, and sees what runs here",
            cure="set it to false where nobody uses the page",
        )
