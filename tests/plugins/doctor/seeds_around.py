"""What is put wrong around the state folder: the running gateway, its channels, services, plugins, agents and the network."""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from typing import Any

from openclaw_kernel.api import CheckContext, ProbeAnswer
from openclaw_kernel.api.doctor import Leftover, Listening, Owner, ServiceUnit
from openclaw_kernel.packages.journal import begin
from tests.plugins.doctor.scenes import Context, Scene, Seed, told, tools
from tests.plugins.doctor.seeds_here import NOW, answers, written
from tests.support.certificates import Issued

SAFE = Scene()
OURS = Owner(pid=os.getpid(), alive=True, url="http://127.0.0.1:18789")
UNIT = """\
[Unit]
Description=openclaw-kernel
[Service]
Type=notify
ExecStart={program} run --home {home}
Restart=always
RestartPreventExitStatus=78
"""
PLIST = """\
<?xml version="1.0" encoding="UTF-8"?>
<plist version="1.0"><dict><key>Label</key><string>openclaw-kernel</string>
<key>ProgramArguments</key><array><string>/not/there</string><string>run</string></array></dict></plist>
"""
HOUR_MS = 3_600_000


def refused(_host: str) -> Sequence[str]:
    raise socket.gaierror(-2, "Name or service not known")


def silent(_url: str) -> ProbeAnswer:
    raise ConnectionRefusedError(111, "Connection refused")


def answering(status: int = 404, **headers: str) -> Callable[[str], ProbeAnswer]:
    """A server that answers so."""
    return lambda _url: ProbeAnswer(status=status, headers=headers, body=b"")


def at_time(seconds: float) -> Context:
    """A server whose clock is this far behind ours."""
    return lambda context: tools(web=answering(date=formatdate(context.machine.now_ms / 1000 - seconds, usegmt=True)))(context)


def openai(**keys: Any) -> Mapping[str, Any]:
    """One provider."""
    return {"models": {"providers": {"openai": {"apiKey": "sk-x", **keys}}}}


def telegram(**keys: Any) -> Mapping[str, Any]:
    """One bot."""
    return {"channels": {"telegram": {"botToken": "1:x", **keys}}}


def account(**keys: Any) -> Context:
    """A running gateway with this account of a bot."""
    row = {"accountId": "default", "enabled": True, "configured": True, "running": True, "connected": True, **keys}
    return told(channels__status={"channelAccounts": {"telegram": [row]}}, status={"uptimeMs": HOUR_MS})


def heard(ago_ms: int) -> Context:
    """One whose last receive cycle ended so long ago."""
    return lambda context: account(lastInboundAt=context.machine.now_ms - ago_ms)(context)


def services(*units: ServiceUnit) -> Context:
    """These definitions."""
    return tools(services=units)


def unit(text: str = UNIT, *, program: str = "/bin/sh", home: str = "/srv/a", name: str = "openclaw-kernel", **states: str) -> ServiceUnit:
    """A definition of systemd."""
    filled = text.replace("{program}", program).replace("{home}", home)
    return ServiceUnit(path=Path(f"/etc/systemd/system/{name}.service"), manager="systemd", text=filled, states=states)


def plugin(plugin_id: str, **changes: Any) -> Context:
    """An installed plugin of which this is told."""

    def changed(context: CheckContext) -> CheckContext:
        plugins = [replace(each, **changes) if each.id == plugin_id else each for each in context.plugins]
        return replace(context, plugins=plugins)

    return changed


def problems(*lines: str) -> Context:
    """What is wrong with what is installed."""
    return lambda context: replace(context, plugin_problems=lines)


def half_removed(home: Path) -> None:
    """What a gateway leaves that is killed while it removes a plugin."""
    begin(home, "remove", "pytest", plugin="acme", distribution="iniconfig")


def kept(*, whole: bool) -> Callable[[Path], None]:
    """Generations as a gateway leaves them, or with one that was changed."""

    def prepare(home: Path) -> None:
        folder = home / "generations"
        folder.mkdir(mode=0o700)
        content = (home / "openclaw.yaml").read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        (folder / f"{digest}.yaml").write_bytes(content if whole else content + b"#")
        (folder / "last-good").write_text(json.dumps({"number": 1, "files": {"openclaw.yaml": digest}}))

    return prepare


def died(deaths: int, *, pid: int | None) -> Callable[[Path], None]:
    """So many starts died, and one was begun of which nothing more is heard."""

    def prepare(home: Path) -> None:
        (home / "generations").mkdir()
        (home / "generations" / "boot.json").write_text(
            json.dumps({"deaths": deaths, "pending": {"pid": pid, "startedMs": 1, "safe": False}})
        )

    return prepare


def login(*, expires_ms: int, renewable: bool) -> Callable[[Path], None]:
    """A login of the provider openai."""

    def prepare(home: Path) -> None:
        path = home / "secrets" / "oauth" / "openai.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"expiresMs": expires_ms, "refreshToken": "r" if renewable else None, "accessToken": "a"}))

    return prepare


OAUTH = {"clientId": "c", "deviceAuthorizationUrl": "https://id.example.org/d", "tokenUrl": "https://id.example.org/t"}
LOGGED_IN = {"models": {"providers": {"openai": {"oauth": OAUTH}}}}
ENCRYPTED = {"gateway": {"tls": {"enabled": True, "certPath": "cert.pem", "keyPath": "key.pem"}}}


def pair(days: float) -> Callable[[Path], None]:
    """A certificate that holds for so many days."""

    def prepare(home: Path) -> None:
        issued = Issued.make(days=(-90, days))
        (home / "cert.pem").write_bytes(issued.certificate_pem)
        (home / "key.pem").write_bytes(issued.key_pem)

    return prepare


def file_in_place_of_a_folder(home: Path) -> None:
    (home / "workspace").mkdir()
    (home / "workspace" / "main").write_text("x")


def folder(home: Path) -> None:
    (home / "workspace" / "main").mkdir(parents=True)


def sent(context: CheckContext) -> CheckContext:
    """A bot that receives."""
    return heard(1000)(context)


def waiting_since_long(home: Path) -> None:
    answers("prepared", "1")(home)


def waiting_since_now(home: Path) -> None:
    answers("prepared", NOW)(home)


def agents(*names: str, **defaults: Any) -> Mapping[str, Any]:
    """These agents, each the default."""
    return {"agents": {"defaults": defaults, "entries": {name: {"default": True} for name in names}}}


def bound(agent: str, channel: str = "webchat") -> Scene:
    """A binding."""
    return Scene({"bindings": [{"agentId": agent, "match": {"channel": channel}}]})


HELD = tools(holder=OURS, told={"health": {"ok": True}})
SILENT = tools(holder=OURS, told={"health": OSError("timed out")})
NGINX = Listening(address="127.0.0.1", pid=1, name="nginx")
HERE = Listening(address="127.0.0.1", pid=OURS.pid, name="python")
NO_BOT = {"state": "unavailable", "reason": 'pip install "openclaw-kernel[telegram]"'}
MODELS = {"models": [{"id": "gpt-5-mini", "provider": "openai", "name": "x"}]}

SEEDS: Mapping[str, Seed] = {
    "generations.last-good": Seed(Scene(prepare=kept(whole=False)), Scene(prepare=kept(whole=True))),
    "boot.deaths": Seed(Scene(prepare=died(1, pid=OURS.pid)), Scene(prepare=died(0, pid=OURS.pid), context=tools(holder=OURS))),
    "generations.rejected": Seed(Scene(prepare=written("generations/rejected/x.yaml")), Scene(prepare=written("generations/x.yaml"))),
    "generations.size": Seed(
        Scene(prepare=written("generations/x.yaml", size=600_000_000)), Scene(prepare=written("generations/x.yaml", size=60_000))
    ),
    "network.dns": Seed(
        Scene(openai(), context=tools(names=refused)),
        Scene(openai(baseUrl="http://127.0.0.1:9/v1"), context=tools(names=refused)),
    ),
    "network.reachable": Seed(Scene(openai(), context=tools(web=silent)), Scene(openai(), context=tools(web=answering(401)))),
    "clock.skew": Seed(Scene(openai(), context=at_time(600)), Scene(openai(), context=at_time(-20))),
    "channels.webhook.address": Seed(
        Scene(telegram(webhookUrl="https://bot.example.org:9443/elsewhere")),
        Scene(telegram(webhookUrl="https://bot.example.org/gateway/telegram-webhook")),
    ),
    "tls.expiry": Seed(Scene(ENCRYPTED, prepare=pair(3)), Scene(ENCRYPTED, prepare=pair(80))),
    "tls.missing": Seed(Scene(ENCRYPTED), Scene(ENCRYPTED, prepare=pair(80))),
    "logins.valid": Seed(
        Scene(LOGGED_IN, prepare=login(expires_ms=1, renewable=False)), Scene(LOGGED_IN, prepare=login(expires_ms=1, renewable=True))
    ),
    "gateway.answers": Seed(Scene(context=SILENT), Scene(context=HELD)),
    "gateway.ready": Seed(
        Scene(context=told(status={"ready": False, "reasons": ["the disk is full"]})), Scene(context=told(status={"ready": True}))
    ),
    "gateway.plugins": Seed(
        Scene(context=told(status={"plugins": [{"id": "telegram", "state": "failed", "reason": "no token"}]})),
        Scene(context=told(status={"plugins": [{"id": "telegram", "state": "started", "reason": None}]})),
    ),
    "gateway.port": Seed(Scene(context=tools(port=[NGINX])), Scene(context=tools(port=[HERE], holder=OURS))),
    "children.left": Seed(Scene(context=tools(left=[Leftover(pid=4711, name="sleep")])), SAFE),
    "channels.connected": Seed(Scene(context=account(connected=False, lastError="401 Unauthorized")), Scene(context=account())),
    "channels.receiving": Seed(Scene(context=heard(HOUR_MS)), Scene(context=heard(20_000))),
    "channels.sending": Seed(
        Scene(database=True, prepare=waiting_since_long, context=sent), Scene(database=True, prepare=waiting_since_now, context=sent)
    ),
    "providers.problem": Seed(
        Scene(context=told(usage__status={"providers": [{"provider": "openai", "error": "the key is refused"}]})),
        Scene(context=told(usage__status={"providers": [{"provider": "openai"}]})),
    ),
    "service.program": Seed(Scene(context=services(unit(program="/not/there"))), Scene(context=services(unit()))),
    "service.settings": Seed(
        Scene(context=services(unit(UNIT.replace("RestartPreventExitStatus=78\n", "")))), Scene(context=services(unit()))
    ),
    "service.failed": Seed(
        Scene(context=services(unit(ActiveState="failed", Result="exit-code", ExecMainStatus="78"))),
        Scene(context=services(unit(ActiveState="active", NRestarts="1"))),
    ),
    "service.stale": Seed(Scene(context=services(unit(NeedDaemonReload="yes"))), Scene(context=services(unit(NeedDaemonReload="no")))),
    "service.several": Seed(
        Scene(context=services(unit(), unit(name="openclaw-kernel-old"))),
        Scene(context=services(unit(), unit(home="/srv/b", name="openclaw-kernel-b"))),
    ),
    "plugins.failed": Seed(Scene(context=plugin("echo", state="failed", reason="there is no manifest")), SAFE),
    "plugins.unavailable": Seed(Scene(telegram(), context=plugin("telegram", **NO_BOT)), Scene(context=plugin("telegram", **NO_BOT))),
    "plugins.several": Seed(
        Scene(context=problems("plugin 'x' comes from a 1 and b 2, none is used; uninstall all but one")),
        Scene(context=problems("a: the plugin id 'X' is not usable")),
    ),
    "plugins.cut-off": Seed(
        Scene(prepare=half_removed),
        SAFE,
    ),
    "plugins.entry-points": Seed(
        Scene(context=problems("a: the plugin id 'X' is not usable")),
        Scene(context=problems("plugin 'x' comes from a 1 and b 2, none is used; uninstall all but one")),
    ),
    "plugins.editable": Seed(
        Scene(context=plugin("echo", editable=True, folder=Path("/not/there"))),
        Scene(context=plugin("echo", editable=True, folder=Path("/"))),
    ),
    "agents.model": Seed(Scene(agents("main", model="opnai/gpt-5")), Scene({**agents("main", model="openai/gpt-5"), **openai()})),
    "agents.model.unknown": Seed(
        Scene(agents("main", model="openai/gpt-4711"), context=told(models__list=MODELS)),
        Scene(agents("main", model="openai/gpt-5-mini"), context=told(models__list=MODELS)),
    ),
    "agents.bindings": Seed(bound("nobody"), bound("main")),
    "agents.default": Seed(Scene(agents("a", "b")), Scene(agents("a"))),
    "agents.workspace": Seed(Scene(prepare=file_in_place_of_a_folder), Scene(prepare=folder)),
    "channels.nobody": Seed(Scene(telegram(dmPolicy="allowlist")), Scene(telegram(dmPolicy="allowlist", allowFrom=[7]))),
    "channels.groups.nobody": Seed(
        Scene(telegram(groups={"-100": {}})), Scene(telegram(groups={"-100": {"allowFrom": [7]}, "-200": {}}, groupAllowFrom=[8]))
    ),
}
