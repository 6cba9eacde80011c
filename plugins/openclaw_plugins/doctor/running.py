"""The gateway's process: who owns the state folder and the port, whether it answers, and whether its channels live."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from openclaw_kernel.api import CheckContext, Finding, Severity
from openclaw_plugins.doctor.table import Table, mapping

TABLE: Final = Table()

_SILENT_MS: Final = 300_000
"""A receive cycle takes at most a minute."""
_WAITED_MS: Final = 300_000
_WITHOUT_CYCLE: Final = frozenset({"webchat"})
"""Channels whose people come to the gateway: nothing is asked for."""


@TABLE.add("gateway.answers", "a process holds the state folder, and no gateway answers", Severity.CRITICAL)
def answers(context: CheckContext) -> Iterator[Finding]:
    owner = context.instruments.owner()
    if not owner.alive:
        return
    try:
        context.instruments.call("health")
    except OSError as error:
        yield Finding(
            severity=Severity.CRITICAL,
            where=str(context.home / "gateway.lock"),
            evidence=f"it names process {owner.pid} at {owner.url or 'no address yet'}, and that does not answer ({str(error)[:200]})",
            cure="see openclaw-kernel logs; end the process where it hangs. another program that got its id is harmless",
        )


@TABLE.add("gateway.ready", "the running gateway is not ready", Severity.CRITICAL)
def ready(context: CheckContext) -> Iterator[Finding]:
    status = _told(context, "status")
    if status and status.get("ready") is False:
        yield Finding(
            severity=Severity.CRITICAL,
            evidence="; ".join(map(str, status.get("reasons") or ["it says no reason"])),
            cure="see openclaw-kernel logs",
        )


@TABLE.add("gateway.plugins", "a plugin of the running gateway has failed, or is degraded", Severity.WARN)
def degraded(context: CheckContext) -> Iterator[Finding]:
    plugins = (_told(context, "status") or {}).get("plugins")
    for plugin in plugins if isinstance(plugins, list) else ():
        state, plugin_id = mapping(plugin).get("state"), mapping(plugin).get("id")
        if state in {"failed", "degraded"}:
            yield Finding(
                severity=Severity.WARN,
                where=f"plugin:{plugin_id}",
                evidence=f"it is {state}: {mapping(plugin).get('reason') or 'it says no reason'}",
                cure="mend what the reason names; openclaw-kernel restart tries again",
            )


@TABLE.add("gateway.port", "another program listens on the gateway's port", Severity.CRITICAL)
def port(context: CheckContext) -> Iterator[Finding]:
    wanted = context.config.gateway.port
    owner = context.instruments.owner()
    for found in context.instruments.listening(wanted) if wanted else ():
        if owner.alive and found.pid in {owner.pid, None}:
            continue
        who = f"process {found.pid} ({found.name or 'of no name'})" if found.pid is not None else "a process of somebody else"
        yield Finding(
            severity=Severity.CRITICAL,
            where="gateway.port",
            evidence=f"{who} listens on {found.address}:{wanted}",
            cure="end that program, or give the gateway another port",
        )
        return


@TABLE.add("children.left", "programs of an earlier gateway still run", Severity.WARN)
def left(context: CheckContext) -> Iterator[Finding]:
    found = context.instruments.leftovers()
    if found:
        names = ", ".join(f"{each.pid} ({each.name})" for each in found[:5])
        yield Finding(
            severity=Severity.WARN,
            evidence=f"{len(found)} processes that its agents' tools started: {names}",
            cure="start the gateway, which ends them, or end them by their ids",
        )


@TABLE.add("channels.connected", "a channel is not connected", Severity.WARN)
def connected(context: CheckContext) -> Iterator[Finding]:
    for where, account in _accounts(context):
        if account.get("enabled") is False or account.get("configured") is False:
            continue
        if not account.get("connected") and (account.get("lastError") or not account.get("running")):
            yield Finding(
                severity=Severity.WARN,
                where=where,
                evidence=str(account.get("lastError") or "it does not run"),
                cure="mend what it names; a token that is refused has to be made anew",
            )


@TABLE.add("channels.receiving", "a channel receives nothing", Severity.CRITICAL)
def receiving(context: CheckContext) -> Iterator[Finding]:
    up = (_told(context, "status") or {}).get("uptimeMs")
    for where, account in _accounts(context):
        if not account.get("connected") or where.split(".")[1] in _WITHOUT_CYCLE:
            continue
        last = account.get("lastInboundAt")
        silent = context.machine.now_ms - last if isinstance(last, int) else up
        if isinstance(silent, int) and silent > _SILENT_MS:
            yield Finding(
                severity=Severity.CRITICAL,
                where=where,
                evidence=f"it says that it is connected, and asked for messages without end {silent // 60_000} minutes ago",
                cure="openclaw-kernel restart opens it anew; see openclaw-kernel logs for what hangs",
            )


@TABLE.add("channels.sending", "a channel sends nothing", Severity.WARN)
def sending(context: CheckContext) -> Iterator[Finding]:
    statement = "SELECT channel, min(created_ms) FROM conversation_outbox WHERE state IN ('prepared', 'sending') GROUP BY channel"
    oldest = dict(context.state.rows(statement))
    for where, account in _accounts(context):
        waits = oldest.get(where.split(".")[1])
        if not account.get("connected") or not isinstance(waits, int):
            continue
        last = account.get("lastOutboundAt")
        since = max(waits, last) if isinstance(last, int) else waits
        if context.machine.now_ms - since > _WAITED_MS:
            yield Finding(
                severity=Severity.WARN,
                where=where,
                evidence=f"it receives, and answers wait since {(context.machine.now_ms - waits) // 60_000} minutes",
                cure="openclaw-kernel why ID tells what each attempt met",
            )


@TABLE.add("providers.problem", "a model provider says that it cannot answer", Severity.WARN)
def providers(context: CheckContext) -> Iterator[Finding]:
    rows = (_told(context, "usage.status") or {}).get("providers")
    for row in rows if isinstance(rows, list) else ():
        problem = mapping(row).get("error")
        if problem:
            yield Finding(
                severity=Severity.WARN,
                where=f"models.providers.{mapping(row).get('provider')}",
                evidence=str(problem),
                cure="give it a key that holds, or log it in: openclaw-kernel auth login",
            )


def _told(context: CheckContext, method: str) -> Mapping[str, Any] | None:
    """What the running gateway answers; None where none runs, or does not answer, which is told by gateway.answers."""
    try:
        return context.instruments.call(method)
    except OSError:
        return None


def _accounts(context: CheckContext) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for channel, accounts in mapping((_told(context, "channels.status") or {}).get("channelAccounts")).items():
        for account in accounts if isinstance(accounts, list) else ():
            name = mapping(account).get("accountId")
            yield f"channels.{channel}" + ("" if name in {None, "default"} else f".accounts.{name}"), mapping(account)
