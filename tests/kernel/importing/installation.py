"""Reference installations as two versions leave them, written by hand from what is documented of them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

BOT_TOKEN = "123456:canary-bot-AAE7wq"
SECOND_TOKEN = "654321:canary-second-BBx"
OPENAI_KEY = "sk-canary-openai-0001"
ANTHROPIC_KEY = "sk-ant-canary-0002"
GATEWAY_TOKEN = "canary-gateway-kX7v3mQ9tRz2LwYb8NcH"
ROUTER_KEY = "sk-or-canary-0003"
CANARIES = (BOT_TOKEN, SECOND_TOKEN, OPENAI_KEY, ANTHROPIC_KEY, GATEWAY_TOKEN, ROUTER_KEY)

CONFIG = f"""\
// my assistant
{{
  meta: {{ lastTouchedVersion: "2026.7.1" }},
  gateway: {{
    mode: "local",
    port: 19001,
    bind: "lan",
    auth: {{ mode: "token", token: "{GATEWAY_TOKEN}" }},
    tailscale: {{ mode: "off" }},
    reload: {{ mode: "hot", debounceMs: 500 }},
  }},
  env: {{ vars: {{ OPENROUTER_API_KEY: "{ROUTER_KEY}" }} }},
  logging: {{ level: "warn", consoleStyle: "pretty" }},
  agents: {{ $include: "./agents.json5", }},
  bindings: [
    {{ agentId: "Work", match: {{ channel: "telegram", accountId: "second", peer: {{ kind: "dm", id: 4711 }} }} }},
    {{ agentId: "main", match: {{ channel: "telegram" }}, comment: "the rest" }},
    {{ type: "acp", agentId: "main", match: {{ channel: "discord" }} }},
  ],
  session: {{ dmScope: "per-channel-peer", scope: "per-sender", reset: {{ mode: "daily" }}, identityLinks: {{ alice: ["telegram:7"] }} }},
  channels: {{
    telegram: {{
      enabled: true,
      botToken: "${{BOT_TOKEN}}",
      dmPolicy: "pairing",
      allowFrom: ["7", 8],
      groups: {{ "-100200": {{ requireMention: false, skills: ["x"] }}, "*": {{ requireMention: true }} }},
      streaming: {{ mode: "block" }},
      ackReaction: "eyes",
      accounts: {{ second: {{ botToken: "{SECOND_TOKEN}", dmPolicy: "allowlist", allowFrom: ["9"] }} }},
    }},
    whatsapp: {{ dmPolicy: "pairing", allowFrom: ["+15555550123"] }},
  }},
  models: {{
    mode: "merge",
    providers: {{
      openai: {{
        baseUrl: "https://api.openai.com/v1",
        apiKey: {{ source: "env", provider: "default", id: "MY_OPENAI" }},
        api: "openai-completions",
        models: [{{ id: "gpt-5-mini", name: "Mini", contextWindow: 400000, maxTokens: 128000, compat: {{ x: 1 }} }}],
      }},
      openrouter: {{ apiKey: "${{OPENROUTER_API_KEY}}" }},
      mistral: {{ apiKey: "${{NOT_SET_ANYWHERE}}", api: "mistral-conversations" }},
    }},
  }},
  cron: {{ enabled: true }},
}}
"""
AGENTS = """\
{
  defaults: {
    model: { primary: "openai/gpt-5-mini", fallbacks: ["anthropic/claude-sonnet-4-5"] },
    thinkingDefault: "low",
    timeoutSeconds: 900,
    heartbeat: { every: "30m" },
  },
  list: [
    { id: "main", default: true, identity: { name: "Clawd", emoji: "x", theme: "kind" } },
    { id: "work", name: "Worker", model: "anthropic/claude-sonnet-4-5", tools: { deny: ["shell"], profile: "coding" } },
  ],
}
"""
ENV = f"""\
# keys
export BOT_TOKEN="{BOT_TOKEN}"
MY_OPENAI={OPENAI_KEY} # mine
"""
MAIN_ID, WORK_ID, OLD_ID, CRON_ID = "11111111-aaaa", "22222222-bbbb", "33333333-cccc", "44444444-dddd"


def event(name: str, parent: str | None, role: str, content: Any, at: int, **more: Any) -> dict[str, Any]:
    """One message of a transcript."""
    message = {"role": role, "content": content, "timestamp": at, **more}
    return {"type": "message", "id": name, "parentId": parent, "timestamp": "2026-07-01T10:00:00.000Z", "message": message}


def transcript(session_id: str) -> list[dict[str, Any]]:
    """A conversation with a tool call, a branch that was rewound, and a summary."""
    return [
        {"type": "session", "version": 3, "id": session_id, "timestamp": "2026-07-01T10:00:00.000Z", "cwd": "/home/a/.openclaw/workspace"},
        {"type": "model_change", "id": "m0", "parentId": None, "provider": "openai", "modelId": "gpt-5-mini"},
        event("m1", "m0", "user", "what is on my list?", 1_782_900_000_000),
        event("gone", "m1", "assistant", [{"type": "text", "text": "this was rewound"}], 1_782_900_000_500),
        event(
            "m2",
            "m1",
            "assistant",
            [
                {"type": "thinking", "thinking": "look", "thinkingSignature": "proof"},
                {"type": "toolCall", "id": "c1", "name": "read", "arguments": {"path": "list.md"}},
            ],
            1_782_900_001_000,
            provider="openai",
            model="gpt-5-mini",
            stopReason="toolUse",
            usage={"input": 10},
        ),
        event(
            "m3", "m2", "toolResult", [{"type": "text", "text": "milk"}], 1_782_900_002_000, toolCallId="c1", toolName="read", isError=False
        ),
        {"type": "compaction", "id": "k1", "parentId": "m3", "summary": "milk", "tokensBefore": 9},
        event("m4", "k1", "assistant", [{"type": "text", "text": "Milk."}], 1_782_900_003_000, provider="openai", model="gpt-5-mini"),
    ]


def file_installation(folder: Path) -> Path:
    """One of a version up to 2026.7, which keeps files."""
    _write(folder / "openclaw.json", CONFIG)
    _write(folder / "agents.json5", AGENTS)
    _write(folder / ".env", ENV)
    _write(folder / "workspace" / "AGENTS.md", "be kind\n")
    _write(folder / "workspace" / "memory" / "2026-07-01.md", "milk\n")
    _write(folder / "workspace" / "node_modules" / "x" / "index.js", "x")
    (folder / "workspace" / "elsewhere").symlink_to("/etc/hostname")
    _write(folder / "workspace-work" / "SOUL.md", "work\n")
    _write(folder / "credentials" / "telegram-allowFrom.json", json.dumps({"version": 1, "allowFrom": ["8", "4242"]}))
    _write(folder / "credentials" / "telegram-pairing.json", json.dumps({"version": 1, "requests": []}))
    _write(folder / "cron" / "jobs.json", "{}")
    profiles = {
        "anthropic:default": {"type": "api_key", "provider": "anthropic", "key": ANTHROPIC_KEY},
        "openai-codex:default": {"type": "oauth", "provider": "openai-codex", "access": "x", "refresh": "y"},
    }
    _write(folder / "agents" / "main" / "agent" / "auth-profiles.json", json.dumps({"version": 1, "profiles": profiles}))
    main = folder / "agents" / "main" / "sessions"
    _write(main / f"{MAIN_ID}.jsonl", _lines(transcript(MAIN_ID)) + '{"type": "message", "id": "cut o')
    _write(main / f"{CRON_ID}.jsonl", _lines(transcript(CRON_ID)))
    index = {
        "agent:main:main": {"sessionId": MAIN_ID, "updatedAt": 1_782_900_009_000, "lastChannel": "telegram", "label": "The list"},
        "agent:main:cron:job1": {"sessionId": CRON_ID, "updatedAt": 1},
        "agent:main:telegram:dm:7": {"sessionId": "55555555-gone", "updatedAt": 1},
    }
    _write(main / "sessions.json", json.dumps(index))
    work = folder / "agents" / "work" / "sessions"
    _write(work / f"{WORK_ID}.jsonl", _lines(transcript(WORK_ID)))
    _write(work / "sessions.json", json.dumps({"agent:work:telegram:dm:4711": {"sessionId": WORK_ID, "updatedAt": 1_782_900_009_000}}))
    return folder


def database_installation(folder: Path) -> Path:
    """One of a later version, which keeps sessions and people in databases."""
    config = {
        "agents": {"entries": {"main": {"default": True}}},
        "channels": {"telegram": {"botToken": BOT_TOKEN, "allowFrom": ["7"]}},
    }
    _write(folder / "openclaw.json", json.dumps(config))
    _write(folder / "workspace" / "AGENTS.md", "be kind\n")
    agent = folder / "agents" / "main" / "agent" / "openclaw-agent.sqlite"
    _database(
        agent,
        "CREATE TABLE session_nodes (session_key TEXT PRIMARY KEY, current_session_id TEXT NOT NULL, entry_json TEXT NOT NULL) STRICT",
        "CREATE TABLE transcript_events (session_id TEXT, seq INTEGER, event_json TEXT, created_at INTEGER, event_zstd BLOB) STRICT",
    )
    with closing(sqlite3.connect(agent)) as connection:
        entry = {"sessionId": OLD_ID, "updatedAt": 1_782_900_009_000, "displayName": "Milk"}
        connection.execute("INSERT INTO session_nodes VALUES ('agent:main:main', ?, ?)", (OLD_ID, json.dumps(entry)))
        for seq, each in enumerate(transcript(OLD_ID)):
            connection.execute("INSERT INTO transcript_events VALUES (?, ?, ?, 1, NULL)", (OLD_ID, seq, json.dumps(each)))
        connection.execute("INSERT INTO transcript_events VALUES (?, 99, NULL, 1, x'00')", (OLD_ID,))
        connection.commit()
    people = (
        "CREATE TABLE channel_pairing_allow_entries (channel_key TEXT, account_id TEXT, entry TEXT, sort_order INTEGER, updated_at INTEGER)"
    )
    _database(folder / "state" / "openclaw.sqlite", people)
    with closing(sqlite3.connect(folder / "state" / "openclaw.sqlite")) as connection:
        rows = [("telegram", "default", "4242", 1, 1), ("telegram", "default", "*", 2, 1), ("whatsapp", "default", "+1", 1, 1)]
        connection.executemany("INSERT INTO channel_pairing_allow_entries VALUES (?, ?, ?, ?, ?)", rows)
        connection.commit()
    return folder


def everything(folder: Path) -> Mapping[str, bytes]:
    """Every file of a folder, to see that none was changed."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def _lines(events: Sequence[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(each) + "\n" for each in events)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _database(path: Path, *statements: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        for statement in statements:
            connection.execute(statement)
        connection.commit()
