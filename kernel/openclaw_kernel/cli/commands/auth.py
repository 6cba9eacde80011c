"""`openclaw-kernel auth login|status|logout`: logins of providers at their authorization servers (RFC 8628); needs no gateway."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from openclaw_kernel.cli.errors import BadConfig, CommandFailed
from openclaw_kernel.cli.exits import FAILED, OK
from openclaw_kernel.cli.parsing import Commands
from openclaw_kernel.cli.terminal import duration, emit, emit_json, note, printable, table

if TYPE_CHECKING:
    from openclaw_config.layers import Layered
    from openclaw_config.oauth import OAuthClient
    from openclaw_kernel.oauth.flow import DeviceCode, Tokens
    from openclaw_kernel.oauth.tokens import TokenStore


def add(commands: Commands) -> None:
    """Add the commands."""
    group = commands.group("auth", "log providers in that take a person's login in place of a key", run=show_all)
    details = """\
Prints an address and a code: open the one on any device and enter the other there. The command ends when that is done.
The provider's section oauth names clientId, deviceAuthorizationUrl and tokenUrl."""
    login = group.add("login", "log a provider in", run=log_in, details=details)
    login.add_argument("provider", metavar="PROVIDER", help="its id in models.providers")
    state = group.add("status", "tell which providers are logged in, and for how long", run=show_all)
    state.add_argument("provider", metavar="PROVIDER", nargs="?", help="this one alone; ends with 1 where it is not", default=None)
    logout = group.add("logout", "forget the token of a provider", run=log_out)
    logout.add_argument("provider", metavar="PROVIDER", help="its id in models.providers")


def log_in(options: argparse.Namespace) -> int:
    """Log in."""
    from openclaw_kernel.oauth import login
    from openclaw_kernel.oauth.flow import OAuthFailed

    client, store = _one(options)
    try:
        tokens = login.log_in(client, lambda code: _show_code(code, as_json=options.json))
    except OAuthFailed as error:
        raise CommandFailed(f"auth login: {options.provider}: {printable(str(error))}") from error
    _on_store(store, lambda: store.save(tokens))
    row = _row(options.provider, client, tokens)
    if options.json:
        emit_json({"event": "done", **row})
    else:
        emit(f"{options.provider} is logged in{_lasting(row)}")
    return OK


def show_all(options: argparse.Namespace) -> int:
    """Show a table."""
    wanted: str | None = getattr(options, "provider", None)
    rows = []
    for provider, client in _clients(options).items():
        if wanted in {None, provider}:
            store = _store(options, provider, client)
            rows.append(_row(provider, client, _on_store(store, store.load)))
    if wanted is not None and not rows:
        _one(options)
    if options.json:
        emit_json({"providers": rows})
    elif rows:
        emit(table([(row["provider"], _state(row), row["store"]) for row in rows], head=("PROVIDER", "STATE", "KEPT IN")))
    else:
        emit("no provider has a section oauth")
    return FAILED if wanted is not None and not all(row["loggedIn"] for row in rows) else OK


def log_out(options: argparse.Namespace) -> int:
    """Log out."""
    _, store = _one(options)
    removed = _on_store(store, store.remove)
    if options.json:
        emit_json({"provider": options.provider, "removed": removed})
    else:
        emit(f"{options.provider} is logged out" if removed else f"{options.provider} was not logged in")
    return OK


def _show_code(code: DeviceCode, *, as_json: bool) -> None:
    if as_json:
        shown = {
            "event": "authorize",
            "verificationUri": code.verification_uri,
            "verificationUriComplete": code.verification_uri_complete,
            "userCode": code.user_code,
            "expiresInSeconds": code.expires_in,
        }
        emit_json({key: value for key, value in shown.items() if value is not None})
    else:
        emit(f"open  {code.verification_uri}\ncode  {code.user_code}")
        if code.verification_uri_complete is not None:
            emit(f"or open  {code.verification_uri_complete}")
        note(f"the code holds for {duration(code.expires_in * 1000)}; waiting for it to be entered. stop with Ctrl+C")
    # Whoever drives this reads it before it ends.
    sys.stdout.flush()


def _one(options: argparse.Namespace) -> tuple[OAuthClient, TokenStore]:
    clients = _clients(options)
    if options.provider not in clients:
        known = ", ".join(sorted(clients)) or "none"
        section = f"models.providers.{options.provider}.oauth"
        raise CommandFailed(f"auth: provider {options.provider!r} has no section {section}; with one: {known}")
    client = clients[options.provider]
    return client, _store(options, options.provider, client)


def _store(options: argparse.Namespace, provider: str, client: OAuthClient) -> TokenStore:
    from openclaw_config.home import find_home
    from openclaw_kernel.oauth.tokens import TokenStore

    return TokenStore(find_home(options.home), provider, client)


def _on_store(store: TokenStore, work: Any) -> Any:
    from openclaw_config.keyrings import KeyringFailed

    try:
        return work()
    except (OSError, KeyringFailed) as error:
        reason = (error.strerror or str(error)).lower() if isinstance(error, OSError) else str(error)
        raise CommandFailed(f"auth: {store.place} cannot be used ({reason}); mend that, or set oauth.store") from error


def _clients(options: argparse.Namespace) -> dict[str, OAuthClient]:
    """Every provider with a section oauth; raise `BadConfig`. References elsewhere in the file are left alone."""
    from openclaw_config.home import config_path, find_home
    from openclaw_config.issues import ConfigError
    from openclaw_config.layers import read_layers
    from openclaw_config.source import Resolver

    path = config_path(find_home(options.home))
    try:
        layers = read_layers(path, os.environ)
        resolver = Resolver(path.name, path.parent, os.environ, layers.document)
        resolver.stands = layers.stands
        models = layers.document.get("models")
        providers = models.get("providers") if isinstance(models, Mapping) else None
        found = {}
        for provider, section in (providers if isinstance(providers, Mapping) else {}).items():
            if isinstance(section, Mapping) and section.get("oauth") is not None:
                where = ("models", "providers", str(provider), "oauth")
                found[str(provider)] = _client(layers, where, resolver.resolve(section["oauth"], where))
        if resolver.issues:
            raise ConfigError(resolver.issues)
    except ConfigError as error:
        raise BadConfig(str(error), error.issues) from error
    return found


def _client(layers: Layered, where: tuple[str, ...], resolved: Any) -> OAuthClient:
    from pydantic import ValidationError

    from openclaw_config.issues import ConfigError, Issue, dotted
    from openclaw_config.load import explain
    from openclaw_config.oauth import OAuthClient
    from openclaw_config.redaction import is_secret_place

    try:
        return OAuthClient.model_validate(resolved)
    except ValidationError as error:
        issues = []
        for item in error.errors(include_url=False):
            place = (*where, *item["loc"])
            found, cure = explain(item, OAuthClient, is_secret=is_secret_place(place))
            file, line, column = layers.stands(place)
            issues.append(Issue(file, line, dotted(place), found, cure, column=column, where=place))
        raise ConfigError(issues) from None


def _row(provider: str, client: OAuthClient, tokens: Tokens | None) -> dict[str, Any]:
    now_ms = time.time_ns() // 1_000_000
    row: dict[str, Any] = {"provider": provider, "loggedIn": False, "store": client.store}
    if tokens is None:
        return row
    can_refresh = tokens.refresh is not None
    return row | {
        "loggedIn": can_refresh or not tokens.is_over(now_ms),
        "refreshes": can_refresh,
        "expiresMs": tokens.expires_ms,
        "expiresInMs": None if tokens.expires_ms is None else tokens.expires_ms - now_ms,
    }


def _state(row: Mapping[str, Any]) -> str:
    if "refreshes" not in row:
        return "not logged in"
    return f"logged in{_lasting(row)}" if row["loggedIn"] else "expired; log in again"


def _lasting(row: Mapping[str, Any]) -> str:
    if row["refreshes"]:
        return "; the gateway refreshes its token"
    return "" if row["expiresInMs"] is None else f" for {duration(row['expiresInMs'])}"
