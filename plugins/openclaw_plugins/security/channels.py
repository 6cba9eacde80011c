"""Who may write to agents through the chat channels, and what travels there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from openclaw_kernel.api import CheckContext, Finding, Fix, SetKey, Severity
from openclaw_plugins.security.gateway import is_local
from openclaw_plugins.security.reach import ANYONE, Account, accounts, mapping, texts
from openclaw_plugins.security.table import Table

TABLE: Final = Table()


@TABLE.add("channels.dm.open", "everybody may write in private", Severity.WARN)
def dm_open(context: CheckContext) -> Iterator[Finding]:
    for account in accounts(context.config):
        if account.open_dm:
            yield Finding(
                severity=Severity.WARN,
                where=f"{account.where}.dmPolicy",
                evidence='it is open, with "*" in allowFrom: every user of the platform talks to the agent, at your cost',
                cure="set dmPolicy to allowlist, and list ids in allowFrom",
            )


@TABLE.add("channels.dm.wildcard", "a wildcard stands where it lets nobody in", Severity.INFO, fixes=True)
def dm_wildcard(context: CheckContext) -> Iterator[Finding]:
    for account in accounts(context.config):
        listed = account.section.get("allowFrom")
        if ANYONE not in texts(listed) or account.section.get("dmPolicy") == "open":
            continue
        fix = _without_anyone(context, account.own("allowFrom"))
        yield Finding(
            severity=Severity.INFO,
            where=f"{account.where}.allowFrom",
            evidence='"*" lets nobody in under this dmPolicy, and everybody once it is open',
            cure='take "*" out of it',
            fix=fix,
        )


@TABLE.add("channels.dm.shared-session", "several people share one conversation", Severity.WARN)
def shared_session(context: CheckContext) -> Iterator[Finding]:
    if context.config.session.dm_scope != "main":
        return
    for account in accounts(context.config):
        people = set(texts(account.section.get("allowFrom"))) - {ANYONE}
        if account.open_dm or (len(people) > 1 and account.section.get("dmPolicy", "pairing") != "disabled"):
            yield Finding(
                severity=Severity.WARN,
                where="session.dmScope",
                evidence=f"it is main, and {'everybody' if account.open_dm else f'{len(people)} people'} may write by {account.where}: "
                "each reads in the answers what the others said",
                cure="set session.dmScope to per-channel-peer, or leave it where all of them are one person",
            )


@TABLE.add("channels.groups.open", "everybody in a group is heard", Severity.WARN)
def groups_open(context: CheckContext) -> Iterator[Finding]:
    for account in accounts(context.config):
        if account.open_groups:
            yield Finding(
                severity=Severity.WARN,
                where=account.where,
                evidence='groupPolicy open or "*" lets everybody in a group talk to the agent, whoever joins it',
                cure="set groupPolicy to allowlist, and list people in groupAllowFrom",
            )


@TABLE.add("channels.groups.any", "the agent answers in every group that it is put into", Severity.WARN)
def groups_any(context: CheckContext) -> Iterator[Finding]:
    for account in accounts(context.config):
        policy = account.section.get("groupPolicy", "allowlist")
        if policy == "open" or (policy == "allowlist" and ANYONE in mapping(account.section.get("groups"))):
            yield Finding(
                severity=Severity.WARN,
                where=f"{account.where}.{'groupPolicy' if policy == 'open' else 'groups.*'}",
                evidence="whoever may add the bot to a group decides where the agent speaks",
                cure="list the groups by their ids, and set groupPolicy to allowlist",
            )


@TABLE.add("channels.groups.mention", "the agent answers in a group without being asked", Severity.WARN, fixes=True)
def groups_mention(context: CheckContext) -> Iterator[Finding]:
    for account in accounts(context.config):
        groups = mapping(account.section.get("groups"))
        for name, rule in groups.items():
            if not account.hears_groups or mapping(rule).get("requireMention") is not False:
                continue
            key = (*account.own("groups"), str(name), "requireMention")
            yield Finding(
                severity=Severity.WARN,
                where=".".join(key),
                evidence="it is false: every message in the group starts a turn, with what people paste there",
                cure="set it to true",
                fix=Fix(
                    summary="answer in that group only where the agent is mentioned",
                    changes=(SetKey(key=key, value=True),),
                    consequence="after the next restart messages without a mention are not answered there",
                )
                if _stands(context, key)
                else None,
            )


@TABLE.add("channels.webhook.secret", "a webhook's secret is easily guessed", Severity.CRITICAL)
def webhook_secret(context: CheckContext) -> Iterator[Finding]:
    for slot in context.secrets:
        if slot.key[:1] == ("channels",) and slot.key[-1] == "webhookSecret" and slot.weakness is not None:
            yield Finding(
                severity=Severity.CRITICAL,
                where=".".join(map(str, slot.key)),
                evidence=f"it is {slot.weakness}: who guesses it writes messages as anybody",
                cure="remove it, so that each start makes a random one, or make a long random one",
            )


@TABLE.add("channels.webhook.plain", "a webhook is called unencrypted", Severity.CRITICAL)
def webhook_plain(context: CheckContext) -> Iterator[Finding]:
    for account in accounts(context.config):
        url = account.section.get("webhookUrl")
        if _is_plain(url):
            yield Finding(
                severity=Severity.CRITICAL,
                where=f"{account.where}.webhookUrl",
                evidence="it begins with http://: the webhook's secret and every message can be read on the way",
                cure="give the address with https://, before a proxy that does TLS",
            )


@TABLE.add("channels.plain", "a channel's connection is not encrypted", Severity.WARN)
def plain(context: CheckContext) -> Iterator[Finding]:
    for account in accounts(context.config):
        if _is_plain(account.section.get("apiRoot")):
            yield _plain_finding(
                account, "apiRoot", "it begins with http://: the bot's token can be read on the way", "give it with https://"
            )
        server = account.section.get("server")
        if account.section.get("tls") is False and isinstance(server, str) and not is_local(f"//{server}"):
            yield _plain_finding(account, "tls", f"it is false: everything between here and {server} can be read", "set it to true")


def _plain_finding(account: Account, name: str, evidence: str, cure: str) -> Finding:
    return Finding(severity=Severity.WARN, where=f"{account.where}.{name}", evidence=evidence, cure=cure)


def _is_plain(url: object) -> bool:
    return isinstance(url, str) and url.lower().startswith("http://") and not is_local(url)


def _without_anyone(context: CheckContext, key: tuple[str, ...]) -> Fix | None:
    written = _at(context, key)
    if not isinstance(written, list) or ANYONE not in texts(written):
        return None
    left = [_plain_value(item) for item in written if str(item) != ANYONE]
    return Fix(summary='take "*" out of it, which changes nothing now', changes=(SetKey(key=key, value=left),))


def _plain_value(item: Any) -> Any:
    # The YAML library keeps the spelling with the value.
    return int(item) if isinstance(item, int) and not isinstance(item, bool) else str(item)


def _stands(context: CheckContext, key: tuple[str, ...]) -> bool:
    return _at(context, key) is not None


def _at(context: CheckContext, key: tuple[str, ...]) -> Any:
    node: Any = context.document
    for part in key:
        node = next((item for name, item in mapping(node).items() if str(name) == part), None)
    return node
