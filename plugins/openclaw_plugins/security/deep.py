"""The running gateway as a stranger meets it: what it answers, lets in and tells without any credential."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Any, Final, Literal

from openclaw_kernel.api import CheckContext, Finding, Probe, Severity
from openclaw_plugins.security.table import Table

TABLE: Final = Table()

_TELLING: Final = re.compile(r"openclaw|aiohttp|python", re.IGNORECASE)
_PRIVATE: Final = (
    *("/metrics", "/debug", "/config", "/logs", "/status", "/tools/invoke", "/v1/models", "/v1/chat/completions", "/openapi.json"),
    *(
        "/openclaw.yaml",
        "/gateway.token",
        "/state.sqlite3",
        "/audit.key",
        "/.env",
        "/..%2fopenclaw.yaml",
        "/static/..%2f..%2fgateway.token",
    ),
)
"""Where gateways of this kind, and others, had something that was nobody's business."""
_ASKED: Final = ("status", "config.get", "device.pair.list", "chat.send", "audit.log.list")
_FOREIGN: Final = ("https://stranger.example", "null", "http://localhost.stranger.example")
_OK: Final = 200
_UPGRADED: Final = 101
_OLD: Final[tuple[Literal["TLSv1", "TLSv1_1"], ...]] = ("TLSv1", "TLSv1_1")


@TABLE.add("deep.routes.open", "a route answers without a credential", Severity.CRITICAL, deep=True)
def routes_open(context: CheckContext) -> Iterator[Finding]:
    probe = _probe(context)
    for path in _PRIVATE:
        answer = probe.get(path)
        if answer.status == _OK:
            yield Finding(
                severity=Severity.CRITICAL,
                where=path,
                evidence=f"it answers {len(answer.body)} bytes of {answer.headers.get('content-type', 'something')} to whoever asks",
                cure="see which plugin has the route (openclaw-kernel plugins list), and disable it",
            )


@TABLE.add("deep.methods.open", "a method is carried out before the handshake", Severity.CRITICAL, deep=True)
def methods_open(context: CheckContext) -> Iterator[Finding]:
    for method in _ASKED:
        frames = _probe(context).frames({"type": "req", "id": "1", "method": method, "params": {}})
        if any(_is_success(frame) for frame in frames):
            yield Finding(
                severity=Severity.CRITICAL,
                where=method,
                evidence="it was answered to somebody who had proved nothing",
                cure="stop the gateway, and update it",
            )


@TABLE.add("deep.credential.empty", "an empty credential is taken", Severity.CRITICAL, deep=True)
def credential_empty(context: CheckContext) -> Iterator[Finding]:
    for auth, what in ((None, "no credential at all"), ({"token": "", "password": ""}, "an empty token")):
        client = {"id": "gateway-client", "mode": "backend", "version": "0", "platform": "probe"}
        params: dict[str, Any] = {"minProtocol": 4, "maxProtocol": 4, "client": client, "role": "operator", "scopes": ["operator.admin"]}
        if auth is not None:
            params["auth"] = auth
        if any(_is_success(frame) for frame in _probe(context).frames({"type": "req", "id": "1", "method": "connect", "params": params})):
            yield Finding(
                severity=Severity.CRITICAL,
                where="gateway.auth",
                evidence=f"a program of this machine was let in with {what}",
                cure="set gateway.auth.mode to token",
            )
            return


@TABLE.add("deep.origin.foreign", "pages of strangers may open the WebSocket", Severity.CRITICAL, deep=True)
def origin_foreign(context: CheckContext) -> Iterator[Finding]:
    for origin in _FOREIGN:
        if _probe(context).upgrade({"Origin": origin}) == _UPGRADED:
            yield Finding(
                severity=Severity.CRITICAL,
                where="gateway.controlUi.allowedOrigins",
                evidence=f"a page of {origin} was given a WebSocket",
                cure="list the exact origins of your own pages there, and no *",
            )


@TABLE.add("deep.host.rebinding", "a name that is bound to this machine opens the WebSocket", Severity.CRITICAL, deep=True)
def host_rebinding(context: CheckContext) -> Iterator[Finding]:
    host = "rebound.stranger.example"
    if _probe(context).upgrade({"Host": host, "Origin": f"http://{host}"}) == _UPGRADED:
        yield Finding(
            severity=Severity.CRITICAL,
            where="gateway.controlUi.allowedOrigins",
            evidence=f"a page of {host}, whose name leads to this machine, was given a WebSocket",
            cure="list the exact origins of your own pages there; update the gateway",
        )


@TABLE.add("deep.cors", "pages of strangers may read answers", Severity.CRITICAL, deep=True)
def cors(context: CheckContext) -> Iterator[Finding]:
    for path in ("/", "/health"):
        allowed = _probe(context).get(path, {"Origin": _FOREIGN[0]}).headers.get("access-control-allow-origin")
        if allowed in {"*", _FOREIGN[0]}:
            yield Finding(
                severity=Severity.CRITICAL,
                where=path,
                evidence=f"its answer has Access-Control-Allow-Origin: {allowed}",
                cure="see which plugin or proxy adds the header, and have it list your own origins",
            )


@TABLE.add("deep.frames", "the page may be framed, or its content guessed at", Severity.WARN, deep=True)
def framing(context: CheckContext) -> Iterator[Finding]:
    answer = _probe(context).get("/")
    if answer.status != _OK:
        return
    policy = answer.headers.get("content-security-policy", "")
    missing = [
        name
        for name, there in (
            ("Content-Security-Policy with frame-ancestors", "frame-ancestors" in policy),
            ("X-Content-Type-Options: nosniff", answer.headers.get("x-content-type-options") == "nosniff"),
        )
        if not there
    ]
    if missing:
        yield Finding(
            severity=Severity.WARN,
            where="/",
            evidence=f"its answer lacks {' and '.join(missing)}",
            cure="see that no proxy before the gateway takes headers away",
        )


@TABLE.add("deep.names", "answers tell which program this is", Severity.WARN, deep=True)
def names(context: CheckContext) -> Iterator[Finding]:
    for path in ("/health", "/ready", "/nothing-is-here"):
        answer = _probe(context).get(path)
        told = " ".join((*answer.headers.values(), answer.body.decode("utf-8", "replace")))
        found = _TELLING.search(told)
        if found is not None:
            yield Finding(
                severity=Severity.WARN,
                where=path,
                evidence=f"its answer has the word {found[0]!r}: who looks for gateways of this kind finds it",
                cure="update the gateway, or the plugin whose route it is",
            )


@TABLE.add("deep.tls.old", "old versions of TLS are spoken", Severity.CRITICAL, deep=True)
def tls_old(context: CheckContext) -> Iterator[Finding]:
    probe = _probe(context)
    if not probe.url.startswith("https://"):
        return
    for version in _OLD:
        if probe.tls(version):
            yield Finding(
                severity=Severity.CRITICAL,
                where="gateway.tls",
                evidence=f"{version.replace('_', '.')} is spoken, which can be broken",
                cure="update the gateway and its TLS library",
            )


@TABLE.add("deep.sockets", "the gateway listens where its configuration does not say", Severity.CRITICAL, deep=True)
def sockets(context: CheckContext) -> Iterator[Finding]:
    probe = _probe(context)
    own = int(probe.url.rpartition(":")[2].partition("/")[0])
    for address, port in probe.listening() or ():
        local = ipaddress.ip_address(address).is_loopback
        if port == own and (local or context.config.gateway.bind != "loopback"):
            continue
        yield Finding(
            severity=Severity.WARN if local else Severity.CRITICAL,
            where=f"{address}:{port}",
            evidence=f"the gateway listens there, {'on this machine alone' if local else 'open to others'}, beside its own port {own}",
            cure="see which plugin opens it (openclaw-kernel plugins list), and disable it",
        )


def _probe(context: CheckContext) -> Probe:
    if context.probe is None:
        raise LookupError("there is no probe; run it with --deep")
    return context.probe


def _is_success(frame: Any) -> bool:
    return frame.get("type") == "res" and frame.get("ok") is True
