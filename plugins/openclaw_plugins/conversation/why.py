"""What the ledger knows of one message: where it came from, what was decided, what was done, what was sent. Inside a read."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from openclaw_plugins.conversation import attempts
from openclaw_plugins.conversation.finding import Found, ledger_id

TEXT_CHARACTERS: Final = 280
MOST_STEPS: Final = 200
MOST_DELIVERIES: Final = 50


def explain(connection: sqlite3.Connection, found: Found) -> dict[str, Any]:
    """Return the way of a message or delivery; what has not happened is None or empty."""
    answer: dict[str, Any] = {**found.to_json(), "message": None, "turns": [], "deliveries": [], "history": []}
    match found.kind:
        case "message":
            _tell_message(connection, found.row, answer)
        case "delivery":
            row = connection.execute("SELECT inbound_id FROM conversation_outbox WHERE id = ?", (found.row,)).fetchone()
            owner = None if row is None else row[0]
            if owner is not None:
                _tell_message(connection, owner, answer)
            if answer["message"] is None:
                answer["deliveries"] = _deliveries(connection, "id = ?", found.row)
                answer["history"] = _history(connection, "outbox", [found.row])
        case "note":
            answer["note"] = _note(connection, found.row)
        case "swept":
            answer["swept"] = _swept(connection, found.row)
    return answer


def explain_requests(query: str, seen: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return what is known of requests that made no message, None where there are none."""
    if not seen:
        return None
    requests = [
        {
            "method": request["method"],
            "principal": request["principal"],
            "state": request["state"],
            "createdMs": request["created_ms"],
            "error": request["error"],
        }
        for request in seen
    ]
    about = f"request {seen[0]['method']}, which made no message"
    nothing: dict[str, Any] = {"message": None, "turns": [], "deliveries": [], "history": []}
    return {"id": query, "kind": "request", "about": about, **nothing, "requests": requests}


def ledger_begins(connection: sqlite3.Connection) -> int | None:
    """Return when the oldest message or delivery of the ledger was taken in, None where it is empty."""
    times = [
        row[0]
        for table, column in (("inbound", "coalesce(accepted_ms, received_ms)"), ("outbox", "created_ms"))
        if (row := connection.execute(f"SELECT {column} FROM conversation_{table} ORDER BY id LIMIT 1").fetchone()) is not None  # noqa: S608 - words of this file
    ]
    return min(times, default=None)


def _tell_message(connection: sqlite3.Connection, row_id: int, answer: dict[str, Any]) -> None:
    message = _message(connection, row_id)
    if message is None:
        return
    deliveries = connection.execute(
        "SELECT id FROM conversation_outbox WHERE inbound_id = ? ORDER BY id LIMIT ?", (row_id, MOST_DELIVERIES)
    ).fetchall()
    answer["message"] = message
    answer["turns"] = _turns(connection, row_id)
    answer["deliveries"] = _deliveries(connection, "inbound_id = ?", row_id)
    answer["history"] = sorted(
        _history(connection, "inbound", [row_id]) + _history(connection, "outbox", [row[0] for row in deliveries]),
        key=lambda entry: int(entry["atMs"]),
    )


def _message(connection: sqlite3.Connection, row_id: int) -> dict[str, Any] | None:
    row = _one(connection, "SELECT * FROM conversation_inbound WHERE id = ?", row_id)
    if row is None:
        return None
    body = _body(row["body"])
    target = body.get("target") or {}
    begun, since = row["begun_ms"], _waiting_since(connection, row)
    return {
        "ledgerId": ledger_id(row["id"]),
        "messageId": row["message_id"],
        "runId": row["run_id"],
        "channel": row["channel"],
        "accountId": row["account_id"],
        "fromClient": row["request_hash"] is not None,
        "sender": {"id": body.get("senderId", ""), "name": body.get("senderName", "")},
        "place": {key: target.get(key) for key in ("peerKind", "peerId", "threadId")},
        **_shortened(body.get("text", "")),
        "receivedMs": row["received_ms"],
        "acceptedMs": row["accepted_ms"],
        "route": {"agentId": row["agent_id"], "sessionKey": row["session_key"], "reason": row["route_reason"]},
        "admission": {"verdict": row["admission"], "reason": row["admission_reason"]},
        "queuedMs": row["queued_ms"],
        "begunMs": begun,
        # The clock may have been set back meanwhile.
        "queueWaitMs": None if begun is None else max(0, begun - since),
        "endedMs": row["ended_ms"],
        "state": row["state"],
        "reason": row["reason"],
        "supersededBy": row["superseded_by"],
        "stopAskedMs": row["stop_ms"],
        "forgottenMs": row["forgotten_ms"],
    }


def _waiting_since(connection: sqlite3.Connection, row: dict[str, Any]) -> int:
    (retried_ms,) = connection.execute(
        "SELECT max(at_ms) FROM conversation_interventions WHERE owner = 'inbound' AND owner_id = ? AND action = 'retry'", (row["id"],)
    ).fetchone()
    return int(retried_ms or row["accepted_ms"] or row["received_ms"])


def _turns(connection: sqlite3.Connection, row_id: int) -> list[dict[str, Any]]:
    rows = _all(connection, "SELECT * FROM conversation_runs WHERE inbound_id = ? ORDER BY id", row_id)
    return [
        {
            "runId": row["run_id"],
            "sessionId": row["session_id"],
            "state": row["state"],
            "startedMs": row["started_ms"],
            "endedMs": row["ended_ms"],
            "resumes": row["resumes"],
            "error": row["error"],
            "errorKind": row["error_kind"],
            "stopReason": row["stop_reason"],
            "model": row["model"],
            **_usage(row),
            **_steps(connection, row),
        }
        for row in rows
    ]


def _steps(connection: sqlite3.Connection, run: dict[str, Any]) -> dict[str, Any]:
    # Clients choose run ids, so that two sessions may have the same one; the first steps of all did not say whose they are.
    rows = _all(
        connection,
        "SELECT * FROM conversation_steps WHERE run_id = ? AND session_key = ? AND coalesce(run, ?) = ? ORDER BY id LIMIT ?",
        run["run_id"],
        run["session_key"],
        run["id"],
        run["id"],
        MOST_STEPS + 1,
    )
    steps = [
        {
            "kind": row["kind"],
            "name": row["name"],
            "callId": row["call_id"],
            "attempt": row["attempt"],
            "state": row["state"] or ("failed" if row["error"] else "done"),
            "retryClass": row["retry_class"],
            "startedMs": row["started_ms"],
            "endedMs": row["ended_ms"] or None,
            "error": row["error"],
            **_usage(row),
        }
        for row in rows[:MOST_STEPS]
    ]
    return {"steps": steps, "moreSteps": len(rows) > MOST_STEPS}


def _deliveries(connection: sqlite3.Connection, condition: str, value: int) -> list[dict[str, Any]]:
    rows = _all(
        connection,
        f"SELECT * FROM conversation_outbox WHERE {condition} ORDER BY id LIMIT ?",  # noqa: S608 - words of this file
        value,
        MOST_DELIVERIES,
    )
    return [
        {
            "deliveryId": row["outbox_id"],
            "kind": _delivery_kind(row),
            "runId": row["run_id"],
            "channel": row["channel"],
            "accountId": row["account_id"],
            "place": {"peerKind": row["peer_kind"], "peerId": row["peer_id"], "threadId": row["thread_id"]},
            **_shortened(row["text"]),
            "files": row["attachments"],
            "createdMs": row["created_ms"],
            "updatedMs": row["updated_ms"],
            "nextAttemptMs": row["next_attempt_ms"] if row["state"] == "prepared" else None,
            "state": row["state"],
            "error": row["error"],
            "attempts": row["attempts"],
            "attemptLog": attempts.read(connection, row["id"]),
            "platformIds": orjson.loads(row["receipt"] or "[]"),
            "forgottenMs": row["forgotten_ms"],
        }
        for row in rows
    ]


def _delivery_kind(row: dict[str, Any]) -> str:
    """Tell an answer from a notice about a message, and both from what was sent without one."""
    if row["inbound_id"] is None:
        return "message"
    return "answer" if row["run_id"] else "notice"


def _history(connection: sqlite3.Connection, owner: str, rows: list[int]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for row_id in rows:
        entries = _all(connection, "SELECT * FROM conversation_interventions WHERE owner = ? AND owner_id = ? ORDER BY id", owner, row_id)
        found += [
            {
                "atMs": entry["at_ms"],
                "action": entry["action"],
                "by": entry["by"],
                "what": "message" if owner == "inbound" else "delivery",
                "state": entry["state"],
                "reason": entry["reason"],
            }
            for entry in entries
        ]
    return found


def _note(connection: sqlite3.Connection, row_id: int) -> dict[str, Any] | None:
    row = _one(
        connection,
        "SELECT messages.role, messages.run_id, messages.created_ms, messages.session_id, transcripts.session_key, messages.body"
        " FROM conversation_messages AS messages LEFT JOIN conversation_transcripts AS transcripts USING (session_id)"
        " WHERE messages.id = ?",
        row_id,
    )
    if row is None:
        return None
    content = _body(row["body"]).get("content")
    parts = content if isinstance(content, list) else []
    text = "".join(str(part.get("text", "")) for part in parts if isinstance(part, dict) and part.get("type") == "text")
    return {
        "role": row["role"],
        "runId": row["run_id"],
        "sessionId": row["session_id"],
        "sessionKey": row["session_key"],
        "createdMs": row["created_ms"],
        **_shortened(text),
    }


def _swept(connection: sqlite3.Connection, row_id: int) -> dict[str, Any] | None:
    row = _one(connection, "SELECT * FROM conversation_swept WHERE id = ?", row_id)
    if row is None:
        return None
    return {
        "what": "message" if row["kind"] == "inbound" else "delivery",
        "channel": row["channel"],
        "name": row["name"],
        "runId": row["run_id"],
        "state": row["state"],
        "endedMs": row["ended_ms"],
    }


def _usage(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "inputTokens": row["input_tokens"],
        "outputTokens": row["output_tokens"],
        "cacheReadTokens": row["cache_read_tokens"],
        "cacheWriteTokens": row["cache_write_tokens"],
        "costUsd": row["cost_usd"],
    }


def _shortened(text: str) -> dict[str, Any]:
    return {"text": text[:TEXT_CHARACTERS], "textShortened": len(text) > TEXT_CHARACTERS}


def _body(raw: str) -> dict[str, Any]:
    try:
        body = orjson.loads(raw)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _one(connection: sqlite3.Connection, statement: str, *values: object) -> dict[str, Any] | None:
    found = _all(connection, statement, *values)
    return found[0] if found else None


def _all(connection: sqlite3.Connection, statement: str, *values: object) -> list[dict[str, Any]]:
    cursor = connection.execute(statement, values)
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]
