"""Definitions for what the contract package leaves open, in the same JSON schema dialect.

The package of 2026.9.1 describes the params of most methods, but not every result and event. These definitions
follow the protocol's documentation: what it names without a question mark is required. They are open (further keys
pass), because the documentation lists what a client may rely on and not all that is sent.
"""

from __future__ import annotations

from typing import Any

STRING = {"type": "string"}
NONEMPTY = {"type": "string", "minLength": 1}
COUNT = {"type": "integer", "minimum": 0}
NUMBER = {"type": "number", "minimum": 0}
BOOLEAN = {"type": "boolean"}
TRUE = {"const": True}
ANYTHING: dict[str, Any] = {}
OBJECT = {"type": "object"}


def ref(name: str) -> dict[str, Any]:
    """A reference to another definition."""
    return {"$ref": f"#/definitions/{name}"}


def array(items: dict[str, Any]) -> dict[str, Any]:
    """A list of one kind."""
    return {"type": "array", "items": items}


def nullable(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema, or null."""
    return {"anyOf": [schema, {"type": "null"}]}


def one_of_words(*words: str) -> dict[str, Any]:
    """One of these strings."""
    return {"enum": list(words)}


def shape(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    """An open object."""
    return {"type": "object", "required": sorted(required), "properties": {**required, **(optional or {})}}


CONTENT_PART = {
    "type": "object",
    "required": ["type"],
    "properties": {"type": NONEMPTY},
    "if": {"properties": {"type": {"const": "text"}}},
    "then": {"required": ["text"], "properties": {"text": STRING}},
}

SUPPLEMENT: dict[str, dict[str, Any]] = {
    "PresenceListResult": array(ref("PresenceEntry")),
    "OkResult": shape({"ok": TRUE}),
    "StatusResult": OBJECT,
    "Message": shape(
        {"role": NONEMPTY, "content": {"anyOf": [STRING, array(CONTENT_PART)]}},
        {"timestamp": NUMBER, "__openclaw": shape({}, {"id": NONEMPTY, "seq": COUNT})},
    ),
    "ChatSendResult": {
        "anyOf": [
            shape(
                {"runId": NONEMPTY, "status": one_of_words("started", "in_flight", "ok", "error", "timeout")},
                {"messageSeq": COUNT, "interruptedActiveRun": BOOLEAN},
            ),
            # What a stop word answers.
            shape({"ok": TRUE, "aborted": BOOLEAN, "runIds": array(NONEMPTY)}),
        ]
    },
    "ChatHistoryPageResult": shape(
        {"sessionKey": NONEMPTY, "messages": array(ref("Message"))},
        {
            "sessionId": NONEMPTY,
            "deltaCursor": STRING,
            "offset": COUNT,
            "nextOffset": COUNT,
            "hasMore": BOOLEAN,
            "totalMessages": COUNT,
            "defaults": OBJECT,
            "sessionInfo": ANYTHING,
            "thinkingLevel": STRING,
            "verboseLevel": STRING,
            "inFlightRun": ANYTHING,
        },
    ),
    "ChatHistoryResult": {"anyOf": [ref("ChatHistoryCursorResult"), ref("ChatHistoryPageResult")]},
    "ChatAbortResult": shape({"ok": TRUE, "aborted": BOOLEAN, "runIds": array(NONEMPTY)}),
    "ChatInjectResult": shape({"ok": TRUE, "messageId": NONEMPTY}),
    "SessionsListResult": shape(
        {
            "ts": COUNT,
            "path": STRING,
            "count": COUNT,
            "defaults": shape(
                {
                    "modelProvider": nullable(STRING),
                    "model": nullable(STRING),
                    "contextTokens": nullable(COUNT),
                }
            ),
            "sessions": array(ref("SessionRow")),
        },
        {
            "totalCount": COUNT,
            "limitApplied": nullable(COUNT),
            "nextOffset": nullable(COUNT),
            "hasMore": BOOLEAN,
            "owners": ANYTHING,
        },
    ),
    "SessionsGetResult": shape({}, {"messages": array(ref("Message"))}),
    "SessionsDescribeResult": shape({"session": nullable(ref("SessionRow"))}),
    "SessionsPreviewResult": shape(
        {
            "ts": COUNT,
            "previews": array(
                shape(
                    {
                        "key": NONEMPTY,
                        "status": one_of_words("ok", "empty", "missing", "cold", "error"),
                        "items": array(shape({"role": NONEMPTY, "text": STRING})),
                    }
                )
            ),
        }
    ),
    "SessionsPatchResult": shape(
        {"ok": TRUE, "path": STRING, "key": NONEMPTY, "entry": OBJECT, "resolved": OBJECT},
    ),
    "SessionsAbortResult": shape(
        {"ok": TRUE, "status": one_of_words("aborted", "no-active-run"), "abortedRunId": nullable(NONEMPTY)}, {"runIds": array(NONEMPTY)}
    ),
    "SessionsResetResult": shape({"ok": TRUE, "key": NONEMPTY, "entry": OBJECT}, {"resolved": OBJECT}),
    "SessionsSubscribeResult": shape({"subscribed": TRUE}, {"list": ref("SessionsListResult")}),
    "SessionsUnsubscribeResult": shape({"subscribed": {"const": False}}),
    "SessionsMessagesSubscribeResult": shape({"subscribed": TRUE, "key": NONEMPTY}),
    "SessionsMessagesUnsubscribeResult": shape({"subscribed": {"const": False}, "key": NONEMPTY}),
    "AgentAcceptedResult": shape(
        {"runId": NONEMPTY, "status": {"const": "accepted"}, "acceptedAt": COUNT},
        {"sessionKey": NONEMPTY, "agentId": NONEMPTY},
    ),
    "AgentFinalResult": shape(
        {"runId": NONEMPTY, "status": one_of_words("ok", "error", "timeout"), "summary": STRING},
        {"result": ANYTHING},
    ),
    "AgentResult": {
        "anyOf": [
            ref("AgentAcceptedResult"),
            ref("AgentFinalResult"),
            shape({"runId": NONEMPTY, "status": {"const": "in_flight"}}),
        ]
    },
    "AgentWaitResult": shape(
        {"runId": NONEMPTY, "status": one_of_words("ok", "error", "timeout", "pending")},
        {"startedAt": COUNT, "endedAt": COUNT, "error": STRING, "stopReason": STRING},
    ),
    "ChannelsRestartResult": shape({"channel": NONEMPTY, "accountId": NONEMPTY, "restarted": BOOLEAN}),
    "ChannelsStartResult": shape({"channel": NONEMPTY, "accountId": NONEMPTY, "started": BOOLEAN}),
    "ChannelsStopResult": shape({"channel": NONEMPTY, "accountId": NONEMPTY, "stopped": BOOLEAN}),
    "ConfigGetResult": shape(
        {
            "path": NONEMPTY,
            "exists": BOOLEAN,
            "raw": nullable(STRING),
            "parsed": ANYTHING,
            "valid": BOOLEAN,
            "config": OBJECT,
            "hash": nullable(NONEMPTY),
            "issues": array(OBJECT),
            "warnings": array(OBJECT),
            "legacyIssues": array(OBJECT),
        },
        {
            "resolved": OBJECT,
            "sourceConfig": OBJECT,
            "runtimeConfig": OBJECT,
            "configRevisionHash": nullable(NONEMPTY),
            "appliedConfigHash": nullable(NONEMPTY),
        },
    ),
    "ConfigHistoryResult": shape({"generations": array(ref("ConfigGeneration"))}),
    "ConfigGeneration": shape(
        {
            "number": COUNT,
            "hash": NONEMPTY,
            "timeMs": COUNT,
            "actor": NONEMPTY,
            "surface": NONEMPTY,
            "reason": nullable(NONEMPTY),
            "changed": array(NONEMPTY),
        }
    ),
    "ConfigGenerationGetResult": shape({"generation": COUNT, "raw": STRING}),
    "ConfigRollbackResult": shape(
        {
            "ok": BOOLEAN,
            "noop": BOOLEAN,
            "generation": COUNT,
            "hash": NONEMPTY,
            "changedPaths": array(NONEMPTY),
            "units": array(ref("ConfigUnit")),
            "restart": nullable(OBJECT),
        }
    ),
    "ConfigPlanResult": shape(
        {"outcome": one_of_words("none", "hot", "unit", "process"), "changed": array(NONEMPTY), "units": array(ref("ConfigUnit"))}
    ),
    "ConfigReloadResult": shape({"generation": COUNT, "restart": BOOLEAN, "changed": array(NONEMPTY), "units": array(ref("ConfigUnit"))}),
    "ConfigUnit": shape(
        {"unit": NONEMPTY, "outcome": one_of_words("none", "hot", "unit", "process"), "waits": BOOLEAN},
        {"paths": array(NONEMPTY), "reason": NONEMPTY, "connections": COUNT, "error": NONEMPTY},
    ),
    "ConfigWriteResult": {
        "anyOf": [
            shape({"ok": BOOLEAN, "noop": BOOLEAN, "changedPaths": array(NONEMPTY), "path": NONEMPTY, "config": OBJECT}),
            shape(
                {"ok": BOOLEAN, "path": NONEMPTY, "hash": NONEMPTY, "config": OBJECT, "changedPaths": array(NONEMPTY)},
                {
                    "generation": COUNT,
                    "units": array(ref("ConfigUnit")),
                    "restart": nullable(OBJECT),
                    "sentinel": shape({"persisted": BOOLEAN, "payload": OBJECT}),
                },
            ),
        ]
    },
    "SendResult": shape(
        {"runId": NONEMPTY, "messageId": NONEMPTY, "channel": NONEMPTY},
        {"chatId": STRING, "channelId": STRING, "toJid": STRING, "conversationId": STRING},
    ),
    "DeviceTokenRow": shape({"role": NONEMPTY, "scopes": array(NONEMPTY), "createdAtMs": COUNT}, {"revokedAtMs": COUNT}),
    "PendingDevice": shape(
        {"requestId": NONEMPTY, "deviceId": NONEMPTY, "publicKey": NONEMPTY, "ts": COUNT},
        {"role": NONEMPTY, "roles": array(NONEMPTY), "scopes": array(NONEMPTY), "isRepair": BOOLEAN, "silent": BOOLEAN},
    ),
    "PairedDevice": shape(
        {"deviceId": NONEMPTY, "publicKey": NONEMPTY, "createdAtMs": COUNT, "approvedAtMs": COUNT},
        {
            "label": NONEMPTY,
            "roles": array(NONEMPTY),
            "scopes": array(NONEMPTY),
            "connected": BOOLEAN,
            "tokens": array(ref("DeviceTokenRow")),
        },
    ),
    "DevicePairListResult": shape({"pending": array(ref("PendingDevice")), "paired": array(ref("PairedDevice"))}),
    "DevicePairApproveResult": shape({"requestId": NONEMPTY, "device": ref("PairedDevice")}),
    "DevicePairRejectResult": shape({"requestId": NONEMPTY, "deviceId": NONEMPTY}),
    "DevicePairRenameResult": shape({"deviceId": NONEMPTY, "label": NONEMPTY}),
    "DevicePairRemoveResult": shape({"deviceId": NONEMPTY}),
    "DeviceTokenRevokeResult": shape({"deviceId": NONEMPTY, "role": NONEMPTY, "revokedAtMs": COUNT}),
    "DeviceScopesRequestUpgradeParams": ref("ScopeUpgradeRequest"),
    "DeviceScopesRequestUpgradeResult": ref("ScopeUpgradeRegistration"),
    "DeviceScopesWaitUpgradeParams": ref("ScopeUpgradeWait"),
    "DeviceScopesWaitUpgradeResult": ref("ScopeUpgradeResult"),
    "PendingNode": shape(
        {"requestId": NONEMPTY, "nodeId": NONEMPTY, "ts": COUNT, "requiredApproveScopes": array(NONEMPTY)},
        {"caps": array(NONEMPTY), "commands": array(NONEMPTY), "permissions": OBJECT, "displayName": NONEMPTY, "silent": BOOLEAN},
    ),
    "PairedNode": shape(
        {"nodeId": NONEMPTY, "createdAtMs": COUNT, "approvedAtMs": COUNT},
        {"caps": array(NONEMPTY), "commands": array(NONEMPTY), "permissions": OBJECT, "displayName": NONEMPTY},
    ),
    "NodeRow": shape(
        {"nodeId": NONEMPTY, "caps": array(NONEMPTY), "commands": array(NONEMPTY), "paired": BOOLEAN, "connected": BOOLEAN},
        {
            "approvalState": one_of_words("unapproved", "pending-approval", "pending-reapproval", "approved"),
            "pendingRequestId": NONEMPTY,
            "approvedAtMs": COUNT,
        },
    ),
    "NodePairListResult": shape({"pending": array(ref("PendingNode")), "paired": array(ref("PairedNode"))}),
    "NodePairApproveResult": shape({"requestId": NONEMPTY, "node": ref("PairedNode")}),
    "NodePairRejectResult": shape({"requestId": NONEMPTY, "nodeId": NONEMPTY}),
    "NodePairRemoveResult": shape({"nodeId": NONEMPTY}),
    "NodeRenameResult": shape({"nodeId": NONEMPTY, "displayName": NONEMPTY}),
    "NodeListResult": shape({"ts": COUNT, "nodes": array(ref("NodeRow"))}, {"activeNodeId": NONEMPTY}),
    "NodeDescribeResult": {"allOf": [ref("NodeRow"), shape({"ts": COUNT})]},
    "NodePairResolvedEvent": shape({"requestId": NONEMPTY, "nodeId": NONEMPTY, "decision": NONEMPTY, "ts": COUNT}),
    "MessagesWhyResult": {
        "anyOf": [
            shape(
                {
                    "id": NONEMPTY,
                    "kind": one_of_words("message", "delivery", "note", "swept", "request"),
                    "about": NONEMPTY,
                    "message": nullable(ref("ExplainedMessage")),
                    "turns": array(ref("ExplainedTurn")),
                    "deliveries": array(ref("ExplainedDelivery")),
                    "history": array(shape({"atMs": COUNT, "action": one_of_words("retry", "forget"), "by": NONEMPTY, "state": NONEMPTY})),
                },
                {
                    "note": nullable(OBJECT),
                    "swept": nullable(OBJECT),
                    "waitsBehind": array(NONEMPTY),
                    "loopBlocks": array(shape({"atMs": COUNT, "ms": COUNT, "plugin": nullable(NONEMPTY), "place": NONEMPTY})),
                },
            ),
            shape({"candidates": array(shape({"id": NONEMPTY, "kind": NONEMPTY, "about": NONEMPTY}))}),
        ]
    },
    "ExplainedMessage": shape(
        {
            "ledgerId": NONEMPTY,
            "messageId": NONEMPTY,
            "channel": NONEMPTY,
            "accountId": NONEMPTY,
            "sender": shape({"id": STRING, "name": STRING}),
            "text": STRING,
            "textShortened": BOOLEAN,
            "receivedMs": COUNT,
            "acceptedMs": nullable(COUNT),
            "route": shape({"agentId": nullable(STRING), "sessionKey": nullable(STRING), "reason": nullable(STRING)}),
            "admission": shape({"verdict": nullable(STRING), "reason": nullable(STRING)}),
            "queueWaitMs": nullable(COUNT),
            "state": one_of_words("accepted", "routed", "queued", "running", "answered", "suppressed", "dead_lettered", "superseded"),
            "reason": nullable(STRING),
        }
    ),
    "ExplainedTurn": shape(
        {
            "runId": NONEMPTY,
            "state": NONEMPTY,
            "steps": array(shape({"kind": one_of_words("model", "tool"), "name": NONEMPTY, "state": NONEMPTY, "inputTokens": COUNT})),
        }
    ),
    "ExplainedDelivery": shape(
        {
            "deliveryId": NONEMPTY,
            "kind": one_of_words("answer", "notice", "message"),
            "channel": NONEMPTY,
            "state": one_of_words("prepared", "sending", "sent", "unknown_after_send", "failed", "dead_lettered"),
            "attempts": COUNT,
            "attemptLog": array(
                shape(
                    {
                        "number": COUNT,
                        "startedMs": COUNT,
                        "outcome": one_of_words("sending", "sent", "refused", "unknown", "limited", "failed"),
                    }
                )
            ),
            "platformIds": array(STRING),
        }
    ),
    "MessagesDeadListResult": shape(
        {
            "items": array(
                shape(
                    {"id": NONEMPTY, "kind": one_of_words("message", "delivery"), "state": NONEMPTY, "channel": NONEMPTY, "endedMs": COUNT}
                )
            ),
            "total": COUNT,
        }
    ),
    "MessagesDeadChangedResult": shape(
        {"ok": TRUE, "id": NONEMPTY, "kind": one_of_words("message", "delivery"), "state": NONEMPTY, "changed": BOOLEAN},
        {"runId": NONEMPTY},
    ),
    "SecurityFixesRecordResult": shape({"recorded": array(NONEMPTY)}),
    "GatewayRestartRequestResult": shape(
        {
            "ok": TRUE,
            "status": one_of_words("scheduled", "coalesced", "deferred"),
            "preflight": shape({"safe": BOOLEAN, "blockers": array(OBJECT), "summary": STRING}),
            "restart": shape({"pid": COUNT, "bootId": NONEMPTY, "delayMs": COUNT}, {"reason": NONEMPTY}),
            "sentinel": shape(
                {
                    "persisted": BOOLEAN,
                    "payload": shape(
                        {"kind": NONEMPTY, "status": one_of_words("ok", "error", "skipped"), "ts": COUNT},
                        {"sessionKey": nullable(NONEMPTY), "deliveryContext": nullable(OBJECT), "message": nullable(STRING)},
                    ),
                },
            ),
        },
    ),
    "UsageStatusResult": shape({"updatedAt": COUNT, "providers": array(OBJECT)}),
    "UsageCostResult": shape({"updatedAt": COUNT, "days": COUNT, "daily": array(shape({"date": NONEMPTY})), "totals": OBJECT}),
    "WakeResult": shape({"ok": BOOLEAN}, {"reason": NONEMPTY}),
    "WebchatLinkResult": shape({"url": NONEMPTY, "expiresAtMs": COUNT}),
    "EventsSubscribeResult": shape(
        {"subscribed": TRUE, "cursor": NONEMPTY},
        {"gap": shape({"reason": one_of_words("too-old", "unknown", "crash", "lost", "paused")}, {"oldestTs": COUNT})},
    ),
    "AuditLogListResult": shape(
        {
            "rows": array(
                shape(
                    {
                        "v": COUNT,
                        "sequence": COUNT,
                        "timeMs": COUNT,
                        "details": OBJECT,
                        **dict.fromkeys(("action", "outcome", "actor", "surface", "previous", "hash"), NONEMPTY),
                        **dict.fromkeys(("address", "subject", "reason", "before", "after", "traceId"), nullable(STRING)),
                    }
                )
            )
        },
        {"cursor": COUNT},
    ),
    "AuditLogVerifyResult": shape(
        {
            "ok": BOOLEAN,
            **dict.fromkeys(("rows", "checkpoints", "signedRow"), COUNT),
            "head": NONEMPTY,
            "fault": nullable(shape({"kind": NONEMPTY, "row": COUNT, "message": NONEMPTY})),
            "brokenRows": array(COUNT),
            "key": nullable(NONEMPTY),
        }
    ),
    "EventsUnsubscribeResult": shape({"subscribed": {"const": False}}, {"cursor": NONEMPTY}),
    "EventsItemEvent": shape({"cursor": NONEMPTY, "event": NONEMPTY, "payload": OBJECT}),
    "PluginsChangeResult": shape(
        {
            "ok": {"const": True},
            "plugins": array(NONEMPTY),
            "version": {"type": ["string", "null"]},
            "units": array(
                shape(
                    {
                        "unit": NONEMPTY,
                        "outcome": one_of_words("none", "hot", "unit", "process"),
                        "error": {"type": ["string", "null"]},
                        "waits": {"type": "boolean"},
                    }
                )
            ),
            "restart": {"type": ["string", "null"]},
            "warnings": array(NONEMPTY),
        }
    ),
    "PluginsChangedEvent": {
        "type": "object",
        "required": ["plugins"],
        "properties": {"plugins": {"type": "object", "additionalProperties": {"type": "string", "minLength": 1}}},
        "additionalProperties": False,
    },
    "PluginsInstallProgressEvent": {
        "type": "object",
        "required": ["operation", "requirement", "step", "line"],
        "properties": {
            "operation": {"enum": ["install", "upgrade", "remove"]},
            "requirement": {"type": "string", "minLength": 1},
            "step": {"enum": ["pip", "load", "restore", "done", "failed"]},
            "line": {"type": "string"},
        },
        "additionalProperties": False,
    },
    "EventsGapEvent": shape(
        {"cursor": NONEMPTY, "reason": one_of_words("too-old", "unknown", "crash", "lost", "paused")}, {"oldestTs": COUNT}
    ),
    "EventsCurrentEvent": shape({"cursor": NONEMPTY}),
    "ConnectChallengeEvent": shape({"nonce": NONEMPTY, "ts": COUNT}, {"capabilities": array(NONEMPTY)}),
    "PresenceEvent": shape({"presence": array(ref("PresenceEntry"))}),
    "HeartbeatEvent": shape({"ts": COUNT, "status": one_of_words("sent", "ok-empty", "ok-token", "skipped", "failed")}),
    "SessionMessageEvent": shape(
        {"sessionKey": NONEMPTY, "message": ref("Message"), "messageId": NONEMPTY, "messageSeq": COUNT},
        {"agentId": NONEMPTY, "session": ref("SessionRow"), "runId": NONEMPTY},
    ),
    "SessionToolEvent": shape({"sessionKey": NONEMPTY, "runId": NONEMPTY, "data": OBJECT}),
    "SessionsChangedEvent": {
        **shape(
            {"ts": COUNT},
            {
                "sessionKey": NONEMPTY,
                "agentId": NONEMPTY,
                "reason": NONEMPTY,
                "phase": NONEMPTY,
                "session": ref("SessionRow"),
            },
        ),
        "anyOf": [{"required": ["reason"]}, {"required": ["phase"]}],
    },
    "ConfigChangedEvent": shape({"path": NONEMPTY, "hash": NONEMPTY, "ts": COUNT}),
}

# The definition of a result where it is not the method's name in PascalCase followed by `Result`.
RESULT_DEFINITIONS = {
    "agent.identity.get": "AgentIdentityResult",
    "chat.startup": "ChatHistoryResult",
    "config.apply": "ConfigWriteResult",
    "config.patch": "ConfigWriteResult",
    "config.schema": "ConfigSchemaResponse",
    "config.set": "ConfigWriteResult",
    "message.action": "SendResult",
    "messages.dead.forget": "MessagesDeadChangedResult",
    "messages.dead.retry": "MessagesDeadChangedResult",
    "messages.dead.show": "MessagesWhyResult",
    "plugins.package.install": "PluginsChangeResult",
    "plugins.package.remove": "PluginsChangeResult",
    "plugins.package.upgrade": "PluginsChangeResult",
    "plugins.reload": "PluginsChangeResult",
    "system-event": "OkResult",
    "system-presence": "PresenceListResult",
}

EVENT_DEFINITIONS = {
    "agent": "AgentEvent",
    "chat": "ChatEvent",
    "config.changed": "ConfigChangedEvent",
    "connect.challenge": "ConnectChallengeEvent",
    "device.pair.requested": "DevicePairRequestedEvent",
    "device.pair.resolved": "DevicePairResolvedEvent",
    "device.pair.setup.completed": "DevicePairSetupCompletedEvent",
    "node.pair.requested": "PendingNode",
    "node.pair.resolved": "NodePairResolvedEvent",
    "events.current": "EventsCurrentEvent",
    "events.gap": "EventsGapEvent",
    "plugins.changed": "PluginsChangedEvent",
    "plugins.install.progress": "PluginsInstallProgressEvent",
    "events.item": "EventsItemEvent",
    "health": "HealthResult",
    "heartbeat": "HeartbeatEvent",
    "presence": "PresenceEvent",
    "session.message": "SessionMessageEvent",
    "session.operation": "SessionOperationEvent",
    "session.tool": "SessionToolEvent",
    "sessions.changed": "SessionsChangedEvent",
    "shutdown": "ShutdownEvent",
    "tick": "TickEvent",
}
