"""What `status` tells beside our own facts: the summary that clients of the reference print. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_TASK_STATUSES: Final = ("queued", "running", "succeeded", "failed", "timed_out", "cancelled", "lost")
_TASK_RUNTIMES: Final = ("subagent", "acp", "cli", "cron")
_AUDIT_CODES: Final = ("stale_queued", "stale_running", "lost", "delivery_failed", "missing_cleanup", "inconsistent_timestamps")


def session_summary(health: Mapping[str, Any], model: str | None, context_tokens: int | None) -> dict[str, Any]:
    """The sessions of all agents and of each, the newest of them with what is known without reading them."""
    everything = health["sessions"]
    return {
        **everything,
        "paths": [everything["path"]] if everything["path"] else [],
        "defaults": {"model": model, "contextTokens": context_tokens},
        "recent": everything["recent"],
        "byAgent": [
            {
                "agentId": agent["agentId"],
                "path": agent["sessions"]["path"],
                "count": agent["sessions"]["count"],
                "recent": agent["sessions"]["recent"],
            }
            for agent in health["agents"]
        ],
    }


def background_summary(health: Mapping[str, Any]) -> dict[str, Any]:
    """Heartbeats, queued events and tasks: this gateway runs none, and says so in the words that clients count."""
    return {
        "heartbeat": {
            "defaultAgentId": health["defaultAgentId"],
            "agents": [
                {"agentId": agent["agentId"], "enabled": False, "every": "off", "everyMs": None, "waitingForRoute": False}
                for agent in health["agents"]
            ],
        },
        "channelSummary": [],
        "queuedSystemEvents": [],
        "degradedSecretOwners": [],
        "tasks": {
            "total": 0,
            "active": 0,
            "terminal": 0,
            "failures": 0,
            "byStatus": dict.fromkeys(_TASK_STATUSES, 0),
            "byRuntime": dict.fromkeys(_TASK_RUNTIMES, 0),
        },
        "taskAudit": {"total": 0, "warnings": 0, "errors": 0, "byCode": dict.fromkeys(_AUDIT_CODES, 0)},
    }


def cli_projection(health: Mapping[str, Any]) -> dict[str, Any]:
    """What a command line elsewhere shows of this gateway's configuration."""
    return {
        "agents": {
            "defaultId": health["defaultAgentId"],
            "ownership": "sole" if len(health["agents"]) == 1 else "explicit",
            "selectionRequired": False,
            "rows": [{"id": agent["agentId"], "name": agent["name"]} for agent in health["agents"]],
        },
        "updateChannel": None,
        "memoryPlugin": {"enabled": False, "slot": None, "reason": "this gateway has no memory plugin"},
    }
