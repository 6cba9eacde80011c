"""What is put wrong in openclaw.yaml, and what is not."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from openclaw_kernel.api import CheckContext
from tests.plugins.security.scenes import STRONG, Scene
from tests.plugins.security.seeds import Seed
from tests.plugins.security.seeds_files import mode

TOKEN = "${file:gateway.token}"
EVERYBODY = {"dmPolicy": "open", "allowFrom": ["*"]}


def gateway(**keys: Any) -> Scene:
    """These keys of `gateway`, over the token of the first start."""
    auth = {"token": TOKEN, **keys.pop("auth", {})}
    return Scene({"gateway": {"auth": auth, **keys}})


def proxied(**keys: Any) -> Scene:
    """Mode trusted-proxy, right but for these keys of it."""
    settings = {"userHeader": "X-User", "requiredHeaders": ["X-Proof"], "allowUsers": ["ada"], **keys}
    auth = {"mode": "trusted-proxy", "trustedProxy": {key: value for key, value in settings.items() if value is not None}}
    return Scene({"gateway": {"trustedProxies": ["192.0.2.7"], "auth": auth}})


def grant(**keys: Any) -> Scene:
    """One entry of the identity map."""
    return gateway(auth={"identities": [{"issuer": "https://id.example.org", **keys}]})


def telegram(**keys: Any) -> Scene:
    """A bot with these keys."""
    return Scene({"channels": {"telegram": keys}})


def agents(channel: Mapping[str, Any], **keys: Any) -> Scene:
    """Agents with these keys, behind a bot with those."""
    return Scene({"agents": keys, "channels": {"telegram": channel}, "secrets": {"entries": {"github": "${env:HOME}"}}})


def shell(**keys: Any) -> Scene:
    """The shell tool with these settings."""
    return Scene({"plugins": {"entries": {"shell-tool": {"config": keys}}}})


def web(*places: str) -> Scene:
    """The fetch tool with these places in the own network."""
    return Scene({"plugins": {"entries": {"web-tools": {"config": {"allowPrivate": list(places)}}}}})


def claude(**keys: Any) -> Scene:
    """The claude command with these settings."""
    return Scene({"models": {"providers": {"claude-cli": keys}}})


def token(text: str) -> Callable[[Path], None]:
    """The gateway's token file with this in it."""
    return mode("gateway.token", 0o600, content=text)


def people(*names: str) -> Callable[[CheckContext], CheckContext]:
    """These may log in."""
    return lambda context: replace(context, machine=replace(context.machine, login_users=names))


def executable(name: str, bits: int) -> Callable[[Path], None]:
    """A program beside the state folder, of this mode."""
    return mode(f"../{name}", bits, content="#!/bin/sh\necho x\n")


def with_program(bits: int, config: Callable[[Path], Mapping[str, Any]]) -> Scene:
    """A configuration that names a program of this mode."""

    def prepare(home: Path) -> None:
        executable("program", bits)(home)
        (home / "openclaw.yaml").write_text(json.dumps(config(home.parent / "program")))

    return Scene(prepare=prepare)


def with_folder(bits: int, config: Callable[[Path], Mapping[str, Any]]) -> Scene:
    """A configuration that names a folder of this mode, with a page in it."""

    def prepare(home: Path) -> None:
        folder = home.parent / "folder"
        folder.mkdir()
        (folder / "index.html").write_text("<p>")
        (folder / "index.html").chmod(0o644)
        folder.chmod(bits)
        (home / "openclaw.yaml").write_text(json.dumps(config(folder)))

    return Scene(prepare=prepare)


def exec_reference(program: Path) -> dict[str, Any]:
    return {"secrets": {"entries": {"github": f"${{exec:{program}}}"}}}


def claude_command(program: Path) -> dict[str, Any]:
    return {"models": {"providers": {"claude-cli": {"command": str(program)}}}}


def search_path(folder: Path) -> dict[str, Any]:
    return {"plugins": {"entries": {"shell-tool": {"config": {"searchPath": f"/usr/bin:{folder}"}}}}}


def control_ui(folder: Path) -> dict[str, Any]:
    return {"plugins": {"entries": {"control-ui": {"config": {"root": str(folder)}}}}}


def workspaces(**where: str) -> Scene:
    """Agents with these workspaces."""
    return Scene({"agents": {"entries": {name: {"workspace": place} for name, place in where.items()}}})


SHELL = {"tools": {"allow": ["shell"]}}

GATEWAY = {
    "gateway.bind.open": Seed(gateway(bind="lan"), gateway(bind="loopback")),
    "gateway.auth.none": Seed(Scene({"gateway": {"auth": {"mode": "none"}}}), gateway()),
    "gateway.auth.weak": Seed(Scene(prepare=token("changeme")), Scene(prepare=token(STRONG))),
    "gateway.pairing.local": Seed(Scene(context=people("ada", "bob")), Scene(context=people("ada"))),
    "gateway.proxies.wide": Seed(gateway(trustedProxies=["10.0.0.0/8"]), gateway(trustedProxies=["10.1.2.0/24", "fd00::7"])),
    "gateway.proxies.loopback": Seed(gateway(trustedProxies=["127.0.0.1"]), gateway(trustedProxies=["192.0.2.7"])),
    "gateway.trusted-proxy.loopback": Seed(proxied(allowLoopback=True), proxied()),
    "gateway.trusted-proxy.headers": Seed(proxied(requiredHeaders=None), proxied()),
    "gateway.trusted-proxy.users": Seed(proxied(allowUsers=None), proxied()),
    "gateway.identities.wide": Seed(grant(subject="*", scopes=["operator.read"]), grant(subject="7", scopes=["operator.admin"])),
    "gateway.identities.email": Seed(
        grant(email="ada@example.org", scopes=["operator.admin"]), grant(email="ada@example.org", scopes=["operator.read"])
    ),
    "gateway.origins.any": Seed(gateway(controlUi={"allowedOrigins": ["*"]}), gateway(controlUi={"allowedOrigins": ["https://a.example"]})),
    "gateway.origins.plain": Seed(
        gateway(controlUi={"allowedOrigins": ["http://chat.example"]}),
        gateway(controlUi={"allowedOrigins": ["https://chat.example", "http://localhost:3000"]}),
    ),
    "gateway.tls.missing": Seed(
        gateway(bind="lan", trustedProxies=["192.0.2.7"]), gateway(bind="lan", trustedProxies=["192.0.2.7"], tls={"enabled": True})
    ),
    "gateway.tls.clients": Seed(
        gateway(tls={"caPath": "ca.pem", "clients": [{"subject": "CN=a", "scopes": ["operator.admin"]}]}),
        gateway(tls={"caPath": "ca.pem", "clients": [{"fingerprint": "ab" * 32, "scopes": ["operator.admin"]}]}),
    ),
    "http.probes.exposed": Seed(gateway(bind="lan"), gateway()),
    "http.page.beyond": Seed(gateway(bind="lan"), gateway(bind="lan", controlUi={"enabled": False})),
    "http.control-ui.writable": Seed(with_folder(0o777, control_ui), with_folder(0o755, control_ui)),
}

CHANNELS = {
    "channels.dm.open": Seed(telegram(**EVERYBODY), telegram(dmPolicy="allowlist", allowFrom=[7])),
    "channels.dm.wildcard": Seed(telegram(allowFrom=[7, "*"]), telegram(allowFrom=[7])),
    "channels.dm.shared-session": Seed(telegram(allowFrom=[7, 8]), telegram(allowFrom=[7])),
    "channels.groups.open": Seed(
        telegram(groups={"-100": {"allowFrom": ["*"]}}), telegram(groups={"-100": {"allowFrom": [7]}}, groupAllowFrom=[8])
    ),
    "channels.groups.any": Seed(telegram(groups={"*": {}}), telegram(groups={"-100": {}})),
    "channels.groups.mention": Seed(
        telegram(groups={"-100": {"requireMention": False}}), telegram(groups={"-100": {"requireMention": True}, "-200": {}})
    ),
    "channels.webhook.secret": Seed(
        telegram(webhookUrl="https://a.example", webhookSecret="hunter2"), telegram(webhookUrl="https://a.example", webhookSecret=STRONG)
    ),
    "channels.webhook.plain": Seed(telegram(webhookUrl="http://a.example"), telegram(webhookUrl="https://a.example")),
    "channels.plain": Seed(telegram(apiRoot="http://bots.example"), telegram(apiRoot="http://127.0.0.1:8081")),
}

AGENTS = {
    "agents.shell.strangers": Seed(agents(EVERYBODY, defaults=SHELL), agents({"allowFrom": [7]}, defaults=SHELL)),
    "agents.shell.unapproved": Seed(
        agents({}, entries={"main": SHELL}), agents({}, entries={"main": {"tools": {"allow": ["shell"], "deny": ["shell"]}}})
    ),
    "agents.shell.line": Seed(shell(allowShellLine=True), shell(allowShellLine=False)),
    "agents.shell.environment": Seed(shell(environment=["AWS_SECRET_ACCESS_KEY"]), shell(environment=["LANG", "SSH_AUTH_SOCK"])),
    "agents.shell.path": Seed(with_folder(0o777, search_path), with_folder(0o755, search_path)),
    "agents.secrets.strangers": Seed(
        agents(EVERYBODY, defaults={"secrets": ["github"]}),
        agents({"groupPolicy": "disabled", "allowFrom": [7]}, defaults={"secrets": ["github"]}),
    ),
    "agents.secrets.everyone": Seed(
        agents({}, defaults={"secrets": ["github"]}, entries={"a": {}, "b": {}}),
        agents({}, defaults={"secrets": ["github"]}, entries={"a": {}, "b": {"secrets": []}}),
    ),
    "agents.workspace.shared": Seed(workspaces(a="shared", b="shared"), workspaces(a="one", b="two")),
    "agents.workspace.wide": Seed(workspaces(a="."), workspaces(a="workspace/a")),
    "agents.web.private": Seed(web("169.254.169.254:80"), web()),
    "agents.claude-cli.tools": Seed(claude(tools=["Read", "Bash"]), claude(tools=["Read", "Bash(git status)"])),
    "agents.claude-cli.customizations": Seed(claude(customizations=True), claude()),
    "agents.claude-cli.environment": Seed(claude(environment=["GITHUB_TOKEN"]), claude(environment=["TOKENIZERS_PARALLELISM"])),
    "agents.claude-cli.program": Seed(with_program(0o777, claude_command), with_program(0o755, claude_command)),
    "agents.providers.plain": Seed(
        Scene({"models": {"providers": {"openai": {"baseUrl": "http://models.example/v1"}}}}),
        Scene({"models": {"providers": {"openai": {"baseUrl": "http://localhost:8000/v1"}}}}),
    ),
}

SECRETS = {
    "secrets.plain": Seed(telegram(botToken="1:canary-plain-7731"), telegram(botToken="${env:HOME}")),
    "secrets.exec.writable": Seed(with_program(0o777, exec_reference), with_program(0o755, exec_reference)),
    "secrets.exec.environment": Seed(
        Scene({"secrets": {"entries": {"a": "${exec:/bin/true}"}, "exec": {"environment": ["VAULT_TOKEN", "OP_TOKEN"]}}}),
        Scene({"secrets": {"entries": {"a": "${exec:/bin/true}"}, "exec": {"environment": ["VAULT_TOKEN", "HOME"]}}}),
    ),
    "secrets.reused": Seed(
        Scene({"gateway": {"auth": {"token": TOKEN}}, "secrets": {"entries": {"a": TOKEN}}}),
        Scene({"gateway": {"auth": {"token": TOKEN}}, "secrets": {"entries": {"a": "${env:HOME}"}}}),
    ),
    "secrets.unused": Seed(
        Scene({"secrets": {"entries": {"a": "${env:HOME}"}}}),
        Scene({"secrets": {"entries": {"a": "${env:HOME}"}}, "agents": {"defaults": {"secrets": ["a"]}}}),
    ),
    "secrets.shell": Seed(
        Scene(
            {
                "secrets": {"entries": {"a": "${env:HOME}"}},
                "plugins": {"entries": {"shell-tool": {"config": {"secretVariables": ["A_TOKEN=a"]}}}},
            }
        ),
        Scene({"secrets": {"entries": {"a": "${env:HOME}"}}, "plugins": {"entries": {"shell-tool": {"config": {"secretVariables": []}}}}}),
    ),
    "logging.debug": Seed(Scene({"logging": {"level": "debug"}}), Scene({"logging": {"level": "info"}})),
    "retention.long": Seed(
        Scene({"plugins": {"entries": {"conversation": {"config": {"ledgerDays": 3650}}}}}),
        Scene({"plugins": {"entries": {"conversation": {"config": {"ledgerDays": 365}}}}}),
    ),
}

SEEDS = {**GATEWAY, **CHANNELS, **AGENTS, **SECRETS}
