"""The section `channels.telegram`: one bot at its top level, further ones under `accounts`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, model_validator

from openclaw_kernel.api import PluginSettings, Secret

SECTION: Final = "channels.telegram"
DEFAULT_ACCOUNT: Final = "default"
TELEGRAM_TEXT_LIMIT: Final = 4096
ACCOUNT_ID_PATTERN: Final = r"^[a-z0-9][a-z0-9_-]{0,63}$"


def _person(found: object) -> str:
    """Accept a person's numeric id as number or text, and `*`."""
    text = str(found).strip()
    if text == "*" or (text.isascii() and text.isdigit()):
        return text
    if text.startswith("-"):
        raise ValueError(f"{text} is the id of a group, not of a person; list groups under `groups`")
    raise ValueError(
        f"{text!r} is not a numeric Telegram id; a name can be taken over by others, so write the number, "
        "which the bot tells a person who writes to it"
    )


def _chat(found: object) -> str:
    text = str(found).strip()
    digits = text.removeprefix("-")
    if text == "*" or (digits.isascii() and digits.isdigit()):
        return text
    raise ValueError(f"{text!r} is not a numeric Telegram chat id such as -1001234567890, nor `*` for every group")


PersonId = Annotated[str, BeforeValidator(_person)]
ChatId = Annotated[str, BeforeValidator(_chat)]


class GroupSettings(PluginSettings):
    require_mention: bool | None = None
    """Answer only when the bot is mentioned or replied to; unset means as under `*`, else yes."""
    allow_from: list[PersonId] | None = None
    """Numeric ids of the people heard in this group; unset means as under `*`, else `groupAllowFrom`."""


class AccountSettings(PluginSettings):
    enabled: bool = True
    """Whether this bot runs."""
    name: str | None = None
    """A name for people, shown in the status."""
    bot_token: Secret | None = None
    """The bot's token from @BotFather."""
    dm_policy: Literal["pairing", "allowlist", "open", "disabled"] = "pairing"
    """Who may talk to the bot in private: the people in `allowFrom` (allowlist, pairing), all (open) or nobody."""
    allow_from: list[PersonId] = []
    """Numeric Telegram ids of the people who may talk to the bot; `*` with dmPolicy open."""
    group_policy: Literal["open", "allowlist", "disabled"] = "allowlist"
    """In which groups the bot answers: those under `groups` (allowlist), any (open), none (disabled)."""
    group_allow_from: list[PersonId] | None = None
    """Numeric ids of the people heard in groups; unset means `allowFrom`."""
    groups: dict[ChatId, GroupSettings] = {}
    """Groups by numeric chat id; `*` for every group."""
    streaming: Literal["off", "partial"] = "partial"
    """Show an answer while it is written, by editing a draft (partial), or only when it is finished (off)."""
    text_chunk_limit: Annotated[int, Field(ge=64, le=TELEGRAM_TEXT_LIMIT)] = TELEGRAM_TEXT_LIMIT
    """Longest message in UTF-16 units; longer answers are split."""
    link_preview: bool = True
    """Let Telegram show a preview of the first link."""
    media_max_mb: Annotated[float, Field(gt=0, le=2000)] = 20.0
    """Largest file that is loaded, in megabytes; Telegram's own servers hand out at most 20."""
    poll_timeout_seconds: Annotated[float, Field(ge=1, le=50)] = 30.0
    """How long one request for updates waits at Telegram."""
    api_root: Annotated[str, Field(pattern=r"^https?://[^\s]+$")] = "https://api.telegram.org"
    """Address of the Bot API, for one's own Bot API server."""
    proxy: str | None = None
    """Proxy for all requests to Telegram, e.g. `http://127.0.0.1:3128`."""
    webhook_url: Annotated[str, Field(pattern=r"^https?://[^\s]+$")] | None = None
    """Public address at which Telegram reaches the gateway; set, it replaces polling."""
    webhook_path: Annotated[str, Field(pattern=r"^(/[A-Za-z0-9._~-]+)+$")] | None = None
    """Path of the webhook at the gateway; unset, `/telegram-webhook`, for further accounts with `/<account>` behind it."""
    webhook_secret: Secret | None = None
    """What Telegram sends with each webhook call; unset, a random one for each start."""


class TelegramSettings(AccountSettings):
    default_account: Annotated[str, Field(pattern=ACCOUNT_ID_PATTERN)] | None = None
    """The account used where none is named; unset, the bot at the top level, else the first of `accounts`."""
    accounts: dict[Annotated[str, Field(pattern=ACCOUNT_ID_PATTERN)], AccountSettings] = {}
    """Further bots by account id; what one leaves out is taken from the top level, except its token and webhook."""

    @model_validator(mode="after")
    def _consistent(self) -> TelegramSettings:
        effective = self.effective()
        owners: dict[str, str] = {}
        paths: dict[str, str] = {}
        for account_id, account in effective.items():
            where = account_key(self, account_id)
            token = account.bot_token.unwrap() if account.bot_token else None
            if token is not None and owners.setdefault(token, account_id) != account_id:
                raise ValueError(f"{where}.botToken is that of account {owners[token]}; a bot belongs to one account only")
            path = webhook_path(account, account_id)
            if account.webhook_url and paths.setdefault(path, account_id) != account_id:
                raise ValueError(f"{where}.webhookPath {path} is that of account {paths[path]}; give each account its own")
        if self.default_account is not None and self.default_account not in effective:
            raise ValueError(f"defaultAccount {self.default_account} is not one of: {', '.join(effective)}")
        return self

    def effective(self) -> Mapping[str, AccountSettings]:
        """Return each account's settings with the top level's filled in, the default account first."""
        own = {name: getattr(self, name) for name in self.model_fields_set & set(AccountSettings.model_fields)}
        private = {"name", "bot_token", "webhook_url", "webhook_path", "webhook_secret"}
        shared = {name: value for name, value in own.items() if name not in private}
        accounts: dict[str, AccountSettings] = {}
        if self.bot_token is not None or not self.accounts:
            accounts[DEFAULT_ACCOUNT] = AccountSettings().model_copy(update=own)
        for account_id, account in self.accounts.items():
            given = {name: getattr(account, name) for name in account.model_fields_set}
            inherited = own if account_id == DEFAULT_ACCOUNT else shared
            enabled = self.enabled and account.enabled
            accounts[account_id] = AccountSettings().model_copy(update={**inherited, **given, "enabled": enabled})
        first = self.default_account
        if first in accounts:
            return {first: accounts[first], **accounts}
        return accounts


def account_key(settings: TelegramSettings, account_id: str) -> str:
    """Return where an account stands in the config: `channels.telegram` or `channels.telegram.accounts.<id>`."""
    return f"{SECTION}.accounts.{account_id}" if account_id in settings.accounts else SECTION


def webhook_path(account: AccountSettings, account_id: str) -> str:
    """Return the path at the gateway that takes this account's updates."""
    if account.webhook_path is not None:
        return account.webhook_path
    return "/telegram-webhook" if account_id == DEFAULT_ACCOUNT else f"/telegram-webhook/{account_id}"
