"""One conversation that calls every method of the gateway, and what each method has to refuse.

The gateway needs the echo model and a Telegram bot whose chat `CHAT` is known. `GOOD` is meant to be called in its order:
what comes late (reset, delete) ends what comes early.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

KEY = "agent:main:calls"
RUN = "run-calls-1"
CHAT = 42


@dataclass(frozen=True, slots=True)
class Good:
    """A call that has to succeed."""

    method: str
    params: dict[str, Any] = field(default_factory=dict)
    expect_final: bool = False


@dataclass(frozen=True, slots=True)
class Bad:
    """A call that has to be refused by an error whose text has `named` in it."""

    method: str
    params: Any
    named: str


OF_DEVICES = frozenset(
    {
        "device.pair.approve",
        "device.pair.reject",
        "device.pair.rename",
        "device.pair.remove",
        "device.token.rotate",
        "device.token.revoke",
        "device.scopes.requestUpgrade",
        "device.scopes.waitUpgrade",
        "node.describe",
        "node.pair.approve",
        "node.pair.reject",
        "node.pair.remove",
        "node.rename",
    }
)
"""Methods that succeed only with a device that is there; tests/conformance/test_devices.py calls them, with devices of its own."""

OF_PLUGINS = frozenset(
    {
        "plugins.package.install",
        "plugins.package.remove",
        "plugins.package.upgrade",
        "plugins.reload",
        "plugins.setEnabled",
    }
)
"""Methods that succeed only with a plugin of a stranger; tests/e2e/test_plugins_at_run_time.py calls them, in a venv of its own."""

OF_CONFIG = frozenset({"config.set", "config.apply", "config.patch"})
"""Methods that succeed only with the hash of the file that is there; tests/conformance/test_config.py calls them."""

GOOD = (
    Good("health"),
    Good("health", {"probe": True}),
    Good("status"),
    Good("system-presence"),
    Good("system-event", {"text": "a laptop", "instanceId": "calls", "lastInputSeconds": 3}),
    Good("config.get"),
    Good("config.schema"),
    Good("config.schema.lookup", {"path": "gateway.port"}),
    Good("config.schema.lookup", {"path": "agents.entries.*"}),
    Good("config.reload"),
    Good("config.plan", {"patch": "{logging: {level: 'debug'}}"}),
    Good("config.history", {"limit": 1}),
    Good("config.generation.get", {"generation": 1}),
    Good("config.rollback", {"generation": 1, "reason": "as it was"}),
    Good("logs.tail"),
    Good("logs.tail", {"cursor": 0, "limit": 3, "maxBytes": 1000}),
    Good("commands.list"),
    Good("device.pair.list"),
    Good("node.pair.list"),
    Good("node.list"),
    Good("device.pair.setupCode", {"bootstrapProfile": "node"}),
    Good("device.pair.setupStatus", {"setupId": "unknown"}),
    Good("audit.log.list"),
    Good("audit.log.list", {"action": "config", "outcome": "done", "actor": "gateway", "order": "oldest", "limit": 1, "sinceMs": 1}),
    Good("audit.log.verify"),
    Good("security.fixes.record"),
    Good("plugins.list"),
    Good("plugins.refresh"),
    Good("channels.status"),
    Good("channels.status", {"channel": "telegram", "probe": True}),
    Good("channels.stop", {"channel": "telegram"}),
    Good("channels.start", {"channel": "telegram"}),
    Good("channels.restart", {"channel": "telegram"}),
    Good("agents.list"),
    Good("agent.identity.get"),
    Good("agent.identity.get", {"agentId": "main"}),
    Good("models.list"),
    Good("models.list", {"view": "configured"}),
    Good("models.list", {"view": "all", "provider": "echo", "includeDetails": True}),
    Good("tools.catalog"),
    Good("usage.status"),
    Good("usage.cost", {"days": 3}),
    Good("sessions.subscribe"),
    Good("sessions.messages.subscribe", {"key": KEY}),
    Good("events.subscribe"),
    Good("events.subscribe", {"since": "0123456789abcdef.7", "events": ["chat", "sessions.changed"]}),
    Good("events.unsubscribe"),
    Good("chat.send", {"sessionKey": KEY, "message": "hello there", "idempotencyKey": RUN}),
    Good("agent.wait", {"runId": RUN, "timeoutMs": 10_000}),
    Good("chat.history", {"sessionKey": KEY, "limit": 10}),
    Good("chat.startup", {"sessionKey": KEY, "limit": 80, "maxBytes": 262_144}),
    Good("agent", {"message": "and again", "sessionKey": KEY, "idempotencyKey": "run-calls-2"}, expect_final=True),
    Good("chat.inject", {"sessionKey": KEY, "message": "a note", "label": "note"}),
    Good("chat.abort", {"sessionKey": KEY}),
    Good("sessions.abort", {"key": KEY, "clearQueued": True}),
    Good(
        "message.action",
        {"channel": "telegram", "action": "send", "params": {"target": str(CHAT), "message": "an action"}, "idempotencyKey": "action-1"},
    ),
    Good("wake", {"mode": "now", "text": "the build is done", "sessionKey": "agent:main:woken"}),
    Good("send", {"channel": "telegram", "to": str(CHAT), "message": "from a program", "idempotencyKey": "send-calls-1"}),
    Good("messages.why", {"id": RUN}),
    Good("messages.why", {"id": "send-calls-1"}),
    Good("chat.send", {"sessionKey": KEY, "message": "!fail auth", "idempotencyKey": "run-calls-3"}),
    Good("chat.send", {"sessionKey": KEY, "message": "!fail auth", "idempotencyKey": "run-calls-4"}),
    Good("agent.wait", {"runId": "run-calls-4", "timeoutMs": 10_000}),
    Good("messages.dead.list"),
    Good("messages.dead.list", {"kind": "message", "limit": 1}),
    Good("messages.dead.show", {"id": "run-calls-3"}),
    Good("messages.dead.retry", {"id": "run-calls-3", "idempotencyKey": "retry-calls-1"}),
    Good("messages.dead.forget", {"id": "run-calls-4"}),
    Good("sessions.list", {"includeDerivedTitles": True, "includeLastMessage": True}),
    Good("sessions.describe", {"key": KEY}),
    Good("sessions.get", {"key": KEY, "limit": 5}),
    Good("sessions.resolve", {"key": KEY}),
    Good("sessions.preview", {"keys": [KEY, "agent:main:nobody"]}),
    Good("sessions.patch", {"key": KEY, "label": "calls", "pinned": True, "verboseLevel": "on"}),
    Good("sessions.messages.unsubscribe", {"key": KEY}),
    Good("usage.cost"),
    Good("sessions.reset", {"key": KEY, "reason": "reset"}),
    Good("sessions.delete", {"key": KEY}),
    Good("webchat.link"),
    Good("gateway.restart.request", {"reason": "calls", "sessionKey": KEY, "restartDelayMs": 3_600_000}),
)

OPEN = frozenset({"gateway.restart.request", "wake"})
"""Methods that do not heed keys they do not know."""

BAD = (
    *(Bad(call.method, {**call.params, "unheardOf": 1}, "unheardOf") for call in GOOD if call.method not in OPEN),
    *(Bad(call.method, ["a list"], "params") for call in GOOD),
    Bad("health", {"probe": "perhaps"}, "probe"),
    Bad("status", {"timeoutMs": -1}, "timeoutMs"),
    Bad("system-event", {}, "text"),
    Bad("logs.tail", {"limit": 5001}, "limit"),
    Bad("config.schema.lookup", {"path": "no.such"}, "no.such"),
    Bad("config.schema.lookup", {"path": "a b"}, "path"),
    Bad("config.plan", {}, "raw or patch"),
    Bad("config.history", {"limit": 0}, "limit"),
    Bad("config.generation.get", {"generation": 99}, "there is none of this number"),
    Bad("config.rollback", {"generation": 99}, "there is none of this number"),
    Bad("config.plan", {"raw": "gateway: {port: x}"}, "gateway.port"),
    Bad("config.set", {}, "raw"),
    Bad("config.set", {"raw": "{}"}, "base hash required"),
    Bad("config.set", {"raw": "{}", "baseHash": "another"}, "config changed since last load"),
    Bad("config.apply", {"raw": ""}, "raw"),
    Bad("config.apply", {"raw": "{}", "restartDelayMs": -1}, "restartDelayMs"),
    Bad("config.patch", {"raw": "[1]", "baseHash": "any"}, "holds no object"),
    Bad("config.patch", {"raw": "{", "baseHash": "any"}, "cannot be read as JSON5"),
    Bad("config.patch", {"raw": "{}", "replacePaths": [""]}, "replacePaths"),
    Bad("commands.list", {"scope": "all"}, "scope"),
    Bad("gateway.restart.request", {"restartDelayMs": -1}, "restartDelayMs"),
    Bad("gateway.restart.request", {"deliveryContext": {"channel": "telegram"}}, "deliveryContext"),
    Bad("device.pair.approve", {"requestId": "nobody"}, "nobody"),
    Bad("device.pair.approve", {"requestId": "nobody", "scopes": []}, "scopes"),
    Bad("device.pair.reject", {}, "requestId"),
    Bad("device.pair.remove", {"deviceId": "nobody"}, "nobody"),
    Bad("device.pair.setupCode", {"publicUrl": "nowhere"}, "publicUrl"),
    Bad("device.pair.setupCode", {"joinUrl": True}, "joinUrl"),
    Bad("device.pair.setupStatus", {"setupId": ""}, "setupId"),
    Bad("device.scopes.requestUpgrade", {"scopes": []}, "scopes"),
    Bad("device.scopes.waitUpgrade", {"requestId": "nobody"}, "only a paired device"),
    Bad("node.pair.list", {"all": True}, "all"),
    Bad("node.pair.approve", {"requestId": "nobody"}, "nobody"),
    Bad("node.pair.reject", {"requestId": "nobody"}, "nobody"),
    Bad("node.pair.remove", {"nodeId": "nobody"}, "nobody"),
    Bad("node.rename", {"nodeId": "nobody", "displayName": "a name"}, "nobody"),
    Bad("node.list", {"all": True}, "all"),
    Bad("node.describe", {"nodeId": "nobody"}, "nobody"),
    Bad("device.pair.rename", {"deviceId": "nobody", "label": "a name"}, "nobody"),
    Bad("device.token.rotate", {"deviceId": "nobody", "role": "operator"}, "nobody"),
    Bad("device.token.rotate", {"deviceId": "nobody", "role": "operator", "scopes": ["operator.all"]}, "operator.all"),
    Bad("device.token.revoke", {"deviceId": "nobody", "role": ""}, "role"),
    Bad("audit.log.list", {"limit": 501}, "limit"),
    Bad("audit.log.list", {"outcome": "perhaps"}, "outcome"),
    Bad("audit.log.verify", {"deep": True}, "deep"),
    Bad("channels.status", {"channel": "carrier-pigeon"}, "carrier-pigeon"),
    Bad("channels.stop", {}, "channel"),
    Bad("channels.restart", {}, "channel"),
    Bad("plugins.list", {"surprise": 1}, "surprise"),
    Bad("plugins.refresh", {"surprise": 1}, "surprise"),
    Bad("plugins.setEnabled", {"pluginId": "no-such-plugin", "enabled": True}, "no-such-plugin"),
    Bad("plugins.reload", {"pluginId": "no-such-plugin"}, "no-such-plugin"),
    Bad("plugins.package.install", {"requirement": "/no/such.whl"}, "/no/such.whl"),
    Bad("plugins.package.upgrade", {"pluginId": "no-such-plugin"}, "no-such-plugin"),
    Bad("plugins.package.remove", {"pluginId": "telegram"}, "part of openclaw-kernel"),
    Bad("channels.start", {"channel": "carrier-pigeon"}, "carrier-pigeon"),
    Bad("agent.identity.get", {"agentId": "nobody"}, "nobody"),
    Bad("models.list", {"view": "pretty"}, "view"),
    Bad("tools.catalog", {"agentId": "nobody"}, "nobody"),
    Bad("usage.cost", {"days": 0}, "days"),
    Bad("usage.cost", {"startDate": "yesterday"}, "startDate"),
    Bad("sessions.messages.subscribe", {}, "key"),
    Bad("sessions.messages.unsubscribe", {"key": ""}, "key"),
    Bad("events.subscribe", {"since": "yesterday"}, "since"),
    Bad("events.subscribe", {"since": 7}, "since"),
    Bad("events.subscribe", {"events": ["tick"]}, "tick"),
    Bad("events.subscribe", {"events": []}, "events"),
    Bad("chat.send", {"sessionKey": KEY, "message": "hi"}, "idempotencyKey"),
    Bad("chat.send", {"sessionKey": "k" * 513, "message": "hi", "idempotencyKey": "a"}, "sessionKey"),
    Bad("chat.send", {"sessionKey": KEY, "message": 7, "idempotencyKey": "a"}, "message"),
    Bad("chat.send", {"sessionKey": KEY, "message": "hi", "idempotencyKey": "a", "agentId": "nobody"}, "nobody"),
    Bad("chat.send", {"sessionKey": KEY, "message": "", "idempotencyKey": "a", "attachments": [{"content": "%"}]}, "attachments"),
    Bad("agent.wait", {"runId": RUN, "timeoutMs": "soon"}, "timeoutMs"),
    Bad("chat.history", {"sessionKey": KEY, "limit": 1001}, "limit"),
    Bad("agent", {"message": "", "idempotencyKey": "a"}, "message"),
    Bad("agent", {"message": "hi", "idempotencyKey": "a", "thinking": "very hard"}, "thinking"),
    Bad("agent", {"message": "hi", "idempotencyKey": "a", "model": "echo/other"}, "echo/other"),
    Bad("chat.inject", {"sessionKey": KEY, "message": "a", "label": "l" * 101}, "label"),
    Bad("chat.abort", {}, "sessionKey"),
    Bad("sessions.abort", {}, "key"),
    Bad("sessions.abort", {"key": KEY, "runId": ""}, "runId"),
    Bad("send", {"to": "42", "message": "hi"}, "idempotencyKey"),
    Bad("send", {"to": "42", "message": "hi", "channel": "carrier-pigeon", "idempotencyKey": "b"}, "carrier-pigeon"),
    Bad("messages.why", {"id": "never-heard-of"}, "never-heard-of"),
    Bad("messages.why", {"id": ""}, "id"),
    Bad("messages.dead.list", {"kind": "letter"}, "kind"),
    Bad("messages.dead.show", {"id": "never-heard-of"}, "never-heard-of"),
    Bad("messages.dead.retry", {"id": "never-heard-of"}, "never-heard-of"),
    Bad("messages.dead.forget", {"id": "never-heard-of"}, "never-heard-of"),
    Bad("sessions.list", {"limit": 0}, "limit"),
    Bad("sessions.describe", {}, "key"),
    Bad("sessions.get", {"limit": 0}, "limit"),
    Bad("sessions.resolve", {"key": "agent:main:nobody"}, "agent:main:nobody"),
    Bad("sessions.preview", {"keys": []}, "keys"),
    Bad("sessions.patch", {"key": KEY, "sendPolicy": "perhaps"}, "sendPolicy"),
    Bad("sessions.patch", {"key": KEY, "model": "echo/other"}, "echo/other"),
    Bad("sessions.reset", {"key": KEY, "reason": "boredom"}, "reason"),
    Bad("sessions.delete", {"key": "agent:main:main"}, "agent:main:main"),
)
