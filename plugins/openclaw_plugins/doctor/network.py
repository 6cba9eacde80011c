"""Names, addresses and certificates: what is reached from here, and what reaches the gateway. Only addresses of the configuration."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import urlsplit

from openclaw_kernel.api import CheckContext, Finding, ProbeAnswer, Severity
from openclaw_plugins.doctor.table import Table, mapping, reason

TABLE: Final = Table()

AnswerT = TypeVar("AnswerT")

_KNOWN: Final = {
    "openai": "https://api.openai.com/v1",
    "openrouter": "https://openrouter.ai/api/v1",
    "anthropic": "https://api.anthropic.com",
    "ollama": "http://127.0.0.1:11434/v1",
    "vllm": "http://127.0.0.1:8000/v1",
    "lmstudio": "http://127.0.0.1:1234/v1",
}
"""Where providers are that need no address in the configuration."""
_TELEGRAM: Final = "https://api.telegram.org"
_WEBHOOK_PORTS: Final = frozenset({443, 80, 88, 8443})
"""The ports that Telegram calls; others it refuses."""
_MOST: Final = 16
_SKEW_SECONDS: Final = 60.0
_FAR_SECONDS: Final = 300.0
_SOON_MS: Final = 14 * 86_400_000
_GENERATED: Final = "tls/gateway-cert.pem"


@TABLE.add("network.dns", "a name of the configuration has no address", Severity.WARN, seconds=60.0)
def dns(context: CheckContext) -> Iterator[Finding]:
    by_host: dict[str, str] = {}
    for where, url in addresses(context):
        host = urlsplit(url).hostname
        if host and not _is_address(host):
            by_host.setdefault(host, where)
    for host, fault in _each(by_host, lambda host: _resolved(context, host)):
        if fault is not None:
            yield Finding(
                severity=Severity.WARN,
                where=by_host[host],
                evidence=f"{host} cannot be resolved ({fault})",
                cure="see that this machine has a network and a name server (resolvectl status), and that the name is right",
            )


@TABLE.add("network.reachable", "an address of the configuration does not answer", Severity.WARN, seconds=60.0)
def reachable(context: CheckContext) -> Iterator[Finding]:
    places = {url: where for where, url in addresses(context)}
    for url, answer in _each(places, lambda url: _asked(context, url)):
        if isinstance(answer, str):
            yield Finding(
                severity=Severity.WARN,
                where=places[url],
                evidence=f"{_shown(url)} does not answer ({answer})",
                cure="see that the server runs, and that a firewall or proxy lets this machine reach it (HTTPS_PROXY)",
            )
        elif answer.status >= 500:  # noqa: PLR2004 - what HTTP calls a fault of the server
            yield Finding(
                severity=Severity.WARN,
                where=places[url],
                evidence=f"{_shown(url)} answers with {answer.status}",
                cure="its operators have a fault; wait, or name a fallback in agents.defaults.model",
            )


@TABLE.add("clock.skew", "the clock is not that of the servers which are asked", Severity.CRITICAL, seconds=60.0)
def skew(context: CheckContext) -> Iterator[Finding]:
    for where, url in addresses(context):
        if _is_here(url):
            continue
        answer = _asked(context, url)
        said = None if isinstance(answer, str) else answer.headers.get("date")
        if said is None:
            continue
        try:
            theirs = parsedate_to_datetime(said).timestamp()
        except ValueError:
            continue
        off = context.machine.now_ms / 1000 - theirs
        # One that is asked first is as good as the next: they are all kept right.
        if abs(off) > _SKEW_SECONDS:
            yield Finding(
                severity=Severity.CRITICAL if abs(off) > _FAR_SECONDS else Severity.WARN,
                where=where,
                evidence=f"this clock is {abs(off):.0f} s {'ahead of' if off > 0 else 'behind'} that of {urlsplit(url).hostname}",
                cure="set it right, and let NTP keep it: tokens and certificates are refused by the wrong time",
            )
        return


@TABLE.add("channels.webhook.address", "a webhook cannot be reached by the platform", Severity.WARN)
def webhook(context: CheckContext) -> Iterator[Finding]:
    section = mapping(context.config.channels.get("telegram"))
    for where, account, name in (
        ("channels.telegram", section, None),
        *((f"channels.telegram.accounts.{name}", mapping(each), str(name)) for name, each in mapping(section.get("accounts")).items()),
    ):
        url = account.get("webhookUrl")
        if not isinstance(url, str) or account.get("enabled") is False:
            continue
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
        path = account.get("webhookPath") or ("/telegram-webhook" if name in {None, "default"} else f"/telegram-webhook/{name}")
        faults = []
        if port not in _WEBHOOK_PORTS:
            faults.append((f"its port is {port}", "Telegram calls 443, 80, 88 and 8443 alone: use one of them"))
        if _is_here(url) or (parts.hostname and _is_private(parts.hostname)):
            faults.append((f"{parts.hostname} is an address of the own network", "name one that Telegram reaches from the internet"))
        if parts.path.rstrip("/").rpartition("/")[2] != str(path).rpartition("/")[2]:
            faults.append((f"its path is {parts.path or '/'}, and the gateway listens on {path}", f"end it with {path}"))
        for evidence, cure in faults:
            yield Finding(severity=Severity.WARN, where=f"{where}.webhookUrl", evidence=evidence, cure=cure)


@TABLE.add("tls.expiry", "the port's certificate ends soon", Severity.CRITICAL)
def certificate(context: CheckContext) -> Iterator[Finding]:
    tls = context.config.gateway.tls
    if not tls.enabled:
        return
    path = context.home / Path(tls.cert_path or _GENERATED).expanduser()
    ends = context.instruments.certificate_ends_ms(path)
    if ends is None or ends > context.machine.now_ms + _SOON_MS:
        return
    left = (ends - context.machine.now_ms) / 86_400_000
    yield Finding(
        severity=Severity.CRITICAL if left <= 0 else Severity.WARN,
        where=str(path),
        evidence=f"it {'ended' if left <= 0 else 'ends'} {'' if left <= 0 else 'in '}{abs(left):.0f} days{' ago' if left <= 0 else ''}",
        cure="renew it; the gateway takes the new file without a restart",
    )


@TABLE.add("tls.missing", "the port's certificate is not there", Severity.CRITICAL)
def certificate_missing(context: CheckContext) -> Iterator[Finding]:
    tls = context.config.gateway.tls
    for key, named in (("certPath", tls.cert_path), ("keyPath", tls.key_path), ("caPath", tls.ca_path)):
        if not tls.enabled or named is None:
            continue
        path = context.home / Path(named).expanduser()
        if context.look(path.resolve()) is None:
            yield Finding(
                severity=Severity.CRITICAL,
                where=f"gateway.tls.{key}",
                evidence=f"there is no file {path}: the gateway does not start",
                cure="put it there, or correct the path",
            )


@TABLE.add("logins.valid", "a provider's login is over", Severity.CRITICAL)
def logins(context: CheckContext) -> Iterator[Finding]:
    wanted = {name for name, section in context.config.models.providers.items() if mapping(section.get("oauth"))}
    in_files = {name for name in wanted if mapping(context.config.models.providers[name].get("oauth")).get("store", "file") == "file"}
    kept = {login.provider: login for login in context.instruments.logins()}
    for name in sorted(in_files):
        login = kept.get(name)
        if login is None:
            fault = "nobody has logged it in"
        elif not login.readable:
            fault = "what is kept of it cannot be read"
        elif login.expires_ms is not None and not login.renewable and login.expires_ms < context.machine.now_ms:
            fault = "it ended, and its server gave nothing to renew it with"
        else:
            continue
        yield Finding(
            severity=Severity.CRITICAL,
            where=f"models.providers.{name}.oauth",
            evidence=f"{fault}: the provider cannot answer",
            cure=f"openclaw-kernel auth login {name}",
        )


def addresses(context: CheckContext) -> list[tuple[str, str]]:
    """The addresses that the gateway asks: the key of the configuration that brings each, and its URL; at most 16."""
    found: list[tuple[str, str]] = []
    for name, section in context.config.models.providers.items():
        url = section.get("baseUrl") or _KNOWN.get(str(section.get("api", name))) or _KNOWN.get(name)
        if isinstance(url, str):
            found.append((f"models.providers.{name}", url))
    telegram = context.config.channels.get("telegram")
    if telegram is not None and mapping(telegram).get("enabled") is not False:
        url = mapping(telegram).get("apiRoot") or _TELEGRAM
        if isinstance(url, str):
            found.append(("channels.telegram", url))
    return found[:_MOST]


def _each(keys: Iterable[str], ask: Callable[[str], AnswerT]) -> list[tuple[str, AnswerT]]:
    """Ask for all at once: one that does not answer holds up no other."""
    wanted = list(keys)
    if not wanted:
        return []
    with ThreadPoolExecutor(max_workers=len(wanted), thread_name_prefix="doctor") as pool:
        return list(zip(wanted, pool.map(ask, wanted), strict=True))


def _resolved(context: CheckContext, host: str) -> str | None:
    try:
        return None if context.instruments.resolve(host) else "no address"
    except (OSError, UnicodeError) as error:
        return reason(error) if isinstance(error, OSError) else "is no name"


def _asked(context: CheckContext, url: str) -> ProbeAnswer | str:
    try:
        return context.instruments.ask(url)
    except OSError as error:
        # Of urllib's own error the reason says more.
        inner = getattr(error, "reason", error)
        return reason(inner) if isinstance(inner, OSError) else str(inner).lower()


def _shown(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}"


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return host == "localhost"
    return True


def _is_private(host: str) -> bool:
    try:
        return ip_address(host).is_private
    except ValueError:
        return host == "localhost" or host.endswith((".local", ".lan", ".internal"))


def _is_here(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
