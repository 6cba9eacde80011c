"""Which gateway a command talks to, and with which secret."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from openclaw_config.fingerprints import fingerprint_of_pem, read_fingerprint
from openclaw_config.home import config_path, find_home
from openclaw_config.issues import ConfigError, Fix, Issue
from openclaw_config.layers import read_layers
from openclaw_config.secrets import Secret
from openclaw_config.source import Resolver
from openclaw_kernel.cli.errors import BadConfig, BadUsage, Unreachable
from openclaw_kernel.cli.parsing import TOKEN_VARIABLE
from openclaw_kernel.lock import read_owner

DEFAULT_PORT: Final = 18789
GENERATED: Final = "tls/gateway-cert.pem"
"""The certificate of a gateway that is given none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A gateway's address (http or https) and what opens it."""

    url: str
    cure: str
    """What to do where nothing answers there."""
    secret: str | None = field(default=None, repr=False)
    secret_from: str = ""
    """Where the secret was found, in words."""
    client: tuple[str, str] = ("cli", "cli")
    """Id and mode to connect as."""
    fingerprint: str | None = None
    """SHA-256 of the certificate that it has to show; None where it has to be one that the system trusts."""


@dataclass(frozen=True, slots=True)
class _FromFile:
    url: str | None
    """None where the system chooses the port."""
    secret: str | None
    secret_from: str
    is_open: bool
    """Whether the gateway asks for no secret."""
    fingerprint: str | None = None
    """Of the certificate that the file names."""


def find_target(options: argparse.Namespace) -> Target:
    """The gateway of `--url`, else the one of the state folder.

    Raise `BadConfig` where openclaw.yaml cannot say, `Unreachable` where that gateway has no address.
    """
    given, pin = _given_secret(options), _given_pin(options)
    if options.url is not None:
        # The secret of the local gateway is not for others.
        secret, secret_from = given or (None, "")
        address, cure = _as_http(options.url), "check --url, or start the gateway there"
        _refuse_plain(address, pin)
        return Target(url=address, cure=cure, secret=secret, secret_from=secret_from, fingerprint=pin)
    home = find_home(options.home)
    try:
        file = _read_file(home, wants_secret=given is None)
    except ConfigError as error:
        raise BadConfig(str(error), error.issues) from error
    secret, secret_from = given or (file.secret, file.secret_from)
    cure = f"start it with openclaw-kernel run{'' if options.home is None else f' --home {options.home}'}"
    running = running_at(home)
    url = running or file.url
    shown = None if running is None else _shown_by_owner(home)
    if url is None:
        # Who listens on another port must not be offered the secret.
        raise Unreachable(f"no gateway runs in {home}, and gateway.port is 0, so it has no address now; {cure}")
    _refuse_plain(url, pin)
    return Target(
        url=url,
        cure=cure,
        secret=secret,
        secret_from=secret_from,
        # The protocol lets a command line in with a secret only; programs on this machine need none where none is asked for.
        client=("gateway-client", "backend") if file.is_open else ("cli", "cli"),
        # What it shows is for other names than 127.0.0.1, and often signed by nobody.
        fingerprint=pin or shown or file.fingerprint,
    )


def _given_secret(options: argparse.Namespace) -> tuple[str, str] | None:
    if options.token is not None:
        return options.token, "--token"
    from_environment = os.environ.get(TOKEN_VARIABLE)
    return (from_environment, TOKEN_VARIABLE) if from_environment else None


def _given_pin(options: argparse.Namespace) -> str | None:
    if options.tls_fingerprint is None:
        return None
    try:
        return read_fingerprint(options.tls_fingerprint)
    except ValueError as error:
        raise BadUsage(f"--tls-fingerprint: found {options.tls_fingerprint!r}; {error}") from error


def _refuse_plain(url: str, pin: str | None) -> None:
    if pin is not None and not url.startswith("https://"):
        raise BadUsage(f"--tls-fingerprint: {url} shows no certificate; write --url as https:// or wss://, or turn gateway.tls on")


def _shown_by_owner(home: Path) -> str | None:
    try:
        return read_fingerprint(str(read_owner(home).get("tlsFingerprint")))
    except ValueError:
        return None


def _as_http(url: str) -> str:
    scheme, found, rest = url.partition("://")
    if not found:
        scheme, rest = "http", url
    scheme = {"ws": "http", "wss": "https"}.get(scheme, scheme)
    return f"{scheme}://{rest}".rstrip("/")


def running_at(home: Path) -> str | None:
    """The address of the gateway that says it runs on a state folder; None where its process is gone."""
    owner = read_owner(home)
    url, pid = owner.get("url"), owner.get("pid")
    if not isinstance(url, str) or not isinstance(pid, int) or pid <= 0:
        return None
    # The file outlives a crash; another program may have the port by now, and must not be offered the secret.
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return url


def _read_file(home: Path, *, wants_secret: bool) -> _FromFile:
    path = config_path(home)
    if not path.exists():
        return _FromFile(f"http://127.0.0.1:{DEFAULT_PORT}", None, "", is_open=False)
    keys = _Keys(path)
    auth = keys.mapping("gateway", "auth")
    mode = keys.resolve(auth.get("mode", "token"), "gateway", "auth", "mode")
    # Where a proxy names the users, the gateway takes from programs on its machine whichever there is.
    name = "password" if mode == "password" or (mode == "trusted-proxy" and not auth.get("token")) else "token"
    secret = keys.resolve(auth[name], "gateway", "auth", name) if wants_secret and mode != "none" and auth.get(name) else None
    return _FromFile(
        keys.url(),
        secret.unwrap() if isinstance(secret, Secret) else None if secret is None else str(secret),
        f"gateway.auth.{name} in {path}",
        is_open=mode == "none",
        fingerprint=keys.fingerprint(home) if keys.encrypts else None,
    )


class _Keys:
    """The few keys of the file that a client needs."""

    def __init__(self, path: Path) -> None:
        self._layers = read_layers(path, os.environ)
        self._resolver = Resolver(path.name, path.parent, os.environ, self._layers.document)
        self._resolver.stands = self._layers.stands

    def url(self) -> str | None:
        """The address the file gives the gateway; None where the system chooses its port."""
        port = self.resolve(self.mapping("gateway").get("port", DEFAULT_PORT), "gateway", "port")
        try:
            number = int(port)
        except (TypeError, ValueError):
            raise ConfigError([self._issue(f"found {port!r}", "use a number from 0 to 65535", "gateway", "port")]) from None
        base = self.resolve(self.mapping("gateway", "controlUi").get("basePath") or "", "gateway", "controlUi", "basePath")
        return f"{'https' if self.encrypts else 'http'}://127.0.0.1:{number}{base}" if number else None

    @property
    def encrypts(self) -> bool:
        """Whether the file has the gateway speak TLS."""
        enabled = self.resolve(self.mapping("gateway", "tls").get("enabled", False), "gateway", "tls", "enabled")
        return str(enabled).lower() in {"true", "yes", "on", "1"}

    def fingerprint(self, home: Path) -> str | None:
        """That of the certificate which the file names; None where it cannot be read, for the gateway says why better."""
        named = self.resolve(self.mapping("gateway", "tls").get("certPath") or GENERATED, "gateway", "tls", "certPath")
        try:
            pem = (home / Path(str(named)).expanduser()).read_text(encoding="ascii", errors="replace")
        except OSError:
            return None
        return fingerprint_of_pem(pem)

    def mapping(self, *where: str) -> Mapping[str, Any]:
        """A mapping of the file, empty where it is not there."""
        node: Any = self._layers.document
        for depth, key in enumerate(where):
            node = node.get(key)
            if node is None:
                return {}
            if not isinstance(node, Mapping):
                raise ConfigError([self._issue(f"holds a {type(node).__name__}", "write it as a mapping", *where[: depth + 1])])
        return node  # type: ignore[no-any-return]  # seen to be a mapping

    def resolve(self, value: Any, *where: str) -> Any:
        """A value with its references replaced."""
        resolved = self._resolver.resolve(value, where)
        if self._resolver.issues:
            raise ConfigError(self._resolver.issues)
        return resolved

    def _issue(self, found: str, cure: str, *where: str) -> Issue:
        file, line, column = self._layers.stands(where)
        return Issue(file, line, ".".join(where), found, cure, column=column, fix=Fix.BAD_VALUE, where=where)
