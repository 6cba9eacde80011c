"""The pure decision on a message, from the access policy in its channel's config section.

Principals are the platform's immutable ids, compared whole: names, prefixes and letter case never match, and an empty
id matches nothing, not even `*`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from openclaw_kernel.api import Admission, InboundMessage, Verdict

ANYONE: Final = "*"
WEBCHAT: Final = "webchat"


def _as_text(value: object) -> object:
    """Take the numbers that YAML makes of numeric ids."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


PlatformId: TypeAlias = Annotated[str, BeforeValidator(_as_text), Field(min_length=1)]


class _Section(BaseModel):
    # The channel's other keys belong to the channel.
    model_config = ConfigDict(extra="ignore", frozen=True, alias_generator=to_camel, validate_by_alias=True, validate_by_name=False)


class GroupRule(_Section):
    """`channels.<id>.groups.<group>`; what is unset is taken from the group `*`."""

    require_mention: bool | None = None
    allow_from: list[PlatformId] | None = None


class AccessRules(_Section):
    """The access keys of a channel, or of one of its accounts."""

    dm_policy: Literal["pairing", "allowlist", "open", "disabled"] = "pairing"
    allow_from: list[PlatformId] = []
    group_policy: Literal["allowlist", "open", "disabled"] = "allowlist"
    group_allow_from: list[PlatformId] | None = None
    groups: dict[PlatformId, GroupRule] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """The rules of one account, and the config key that lists its direct senders.

    Rules that could not be read let nobody in; `faults` says why, a line each with the cure.
    """

    allow_key: str
    rules: AccessRules | None
    faults: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The access of a channel's default account and of those with rules of their own."""

    default: Access
    accounts: Mapping[str, Access] = field(default_factory=dict)

    def faults(self) -> list[str]:
        """Return what in this section cannot work, each fault once."""
        return list(dict.fromkeys(line for access in (self.default, *self.accounts.values()) for line in access.faults))


def read_policy(channel: str, section: Mapping[str, Any]) -> Policy:
    """Read the access keys of `channels.<id>`; a part that is not valid is closed and reported, never guessed."""
    place = f"channels.{channel}"
    default = _read_access(place, section, allow_key=f"{place}.allowFrom")
    accounts = section.get("accounts")
    if not isinstance(accounts, Mapping):
        return Policy(default=default)
    return Policy(
        default=default,
        accounts={
            str(name): _read_access(
                f"{place}.accounts.{name}",
                {**section, **own},
                allow_key=f"{place}.accounts.{name}.allowFrom" if "allowFrom" in own else default.allow_key,
            )
            for name, own in accounts.items()
            if isinstance(own, Mapping)
        },
    )


def admit(message: InboundMessage, policy: Policy) -> Admission:
    """Decide on one message; only a rule that names the sender or opens the door lets it in."""
    if message.target.channel == WEBCHAT:
        return _allow("webchat clients have proved who they are")
    access = policy.accounts.get(message.target.account_id, policy.default)
    if access.rules is None:
        return _drop(f"the access rules cannot be read: {'; '.join(access.faults)}")
    if not message.sender_id:
        return _drop("the message has no sender id")
    if message.target.peer_kind == "direct":
        return _admit_direct(message, access.rules, access.allow_key)
    return _admit_group(message, access.rules)


def _admit_direct(message: InboundMessage, rules: AccessRules, allow_key: str) -> Admission:
    sender = message.sender_id
    if rules.dm_policy == "disabled":
        return _drop("dmPolicy is disabled")
    if rules.dm_policy == "open" and ANYONE in rules.allow_from:
        return _allow("dmPolicy is open")
    if sender in rules.allow_from and sender != ANYONE:
        return _allow(f"{allow_key} names the sender")
    return Admission(
        verdict=Verdict.HINT,
        reason=f"{allow_key} does not name the sender {sender}",
        hint=f"this bot answers only people it knows; your id is {sender}. its owner can add it under {allow_key}",
    )


def _admit_group(message: InboundMessage, rules: AccessRules) -> Admission:
    if rules.group_policy == "disabled":
        return _drop("groupPolicy is disabled")
    group_id = message.target.peer_id
    named = rules.groups.get(group_id) if group_id != ANYONE else None
    general = rules.groups.get(ANYONE)
    if rules.group_policy == "allowlist" and named is None and general is None:
        return _drop(f"groupPolicy is allowlist and groups does not list {group_id}")
    rule = _merged(named, general)
    senders, key = _group_senders(rules, rule)
    if senders is not None and not _names(senders, message.sender_id):
        return _drop(f"{key} does not name the sender {message.sender_id}")
    if rule.require_mention is not False and not message.mentioned:
        return _drop("the message does not mention the agent")
    return _allow("groupPolicy is open" if senders is None else f"{key} names the sender")


def _merged(named: GroupRule | None, general: GroupRule | None) -> GroupRule:
    fields = {
        **(general.model_dump(exclude_none=True) if general else {}),
        **(named.model_dump(exclude_none=True) if named else {}),
    }
    return GroupRule.model_construct(**fields)


def _group_senders(rules: AccessRules, rule: GroupRule) -> tuple[Sequence[str] | None, str]:
    """Return who may speak in the group (None: everybody in it) and the key that says so."""
    if rule.allow_from is not None:
        return rule.allow_from, "groups.allowFrom"
    if rules.group_allow_from is not None:
        return rules.group_allow_from, "groupAllowFrom"
    if rules.group_policy == "open":
        return None, "groupPolicy"
    # That everybody may write directly does not open the groups.
    return [sender for sender in rules.allow_from if sender != ANYONE], "allowFrom"


def _names(senders: Sequence[str], sender: str) -> bool:
    return ANYONE in senders or sender in senders


def _allow(reason: str) -> Admission:
    return Admission(verdict=Verdict.ALLOW, reason=reason)


def _drop(reason: str) -> Admission:
    return Admission(verdict=Verdict.DROP, reason=reason)


def _read_access(place: str, section: Mapping[str, Any], *, allow_key: str) -> Access:
    try:
        rules = AccessRules.model_validate(dict(section))
    except ValidationError as error:
        faults = tuple(
            f"{place}.{'.'.join(map(str, item['loc']))}: {item['msg'].lower()}; nobody is let in until it is corrected"
            for item in error.errors()
        )
        return Access(allow_key=allow_key, rules=None, faults=faults)
    return Access(allow_key=allow_key, rules=rules, faults=tuple(_contradictions(place, rules, allow_key)))


def _contradictions(place: str, rules: AccessRules, allow_key: str) -> list[str]:
    faults: list[str] = []
    if rules.dm_policy == "open" and ANYONE not in rules.allow_from:
        faults.append(f'{place}.dmPolicy: is open but {allow_key} lacks "*"; add "*" to let everybody in, or use allowlist')
    if rules.dm_policy in ("pairing", "allowlist") and ANYONE in rules.allow_from:
        faults.append(f'{allow_key}: "*" lets nobody in under dmPolicy {rules.dm_policy}; set dmPolicy to open, or list ids')
    return faults
