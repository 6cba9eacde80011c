"""The tables of conversations, as numbered migrations.

A message's way is written down so that a later start can tell at each point what was done and what was not:
`inbound.state` is accepted, routed, queued or running until it ends as answered, suppressed, dead_lettered or superseded;
`outbox.state` is prepared or sending until it ends as sent, unknown_after_send, failed or dead_lettered; `steps.state` is running,
with `ended_ms` 0, until it ends as done, failed or interrupted, and empty in rows from before there was a journal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from openclaw_kernel.api import Migration
from openclaw_plugins.conversation.tables_why import keep_the_way

if TYPE_CHECKING:
    from sqlite_utils import Database

_FIRST: Final = (
    """
    CREATE TABLE conversation_inbound (
        id INTEGER PRIMARY KEY,
        channel TEXT NOT NULL,
        account_id TEXT NOT NULL,
        message_id TEXT NOT NULL,
        received_ms INTEGER NOT NULL,
        updated_ms INTEGER NOT NULL,
        state TEXT NOT NULL,
        reason TEXT,
        attempts INTEGER NOT NULL DEFAULT 0,
        agent_id TEXT,
        session_key TEXT,
        route_reason TEXT,
        run_id TEXT,
        body TEXT NOT NULL,
        request_hash TEXT,
        reply TEXT,
        UNIQUE (channel, account_id, message_id)
    )
    """,
    """
    CREATE INDEX conversation_inbound_open ON conversation_inbound (id)
    WHERE state IN ('accepted', 'routed', 'queued', 'running')
    """,
    """
    CREATE TABLE conversation_attachments (
        owner TEXT NOT NULL,
        owner_id INTEGER NOT NULL,
        position INTEGER NOT NULL,
        kind TEXT NOT NULL,
        mime_type TEXT NOT NULL,
        file_name TEXT NOT NULL,
        content BLOB NOT NULL,
        PRIMARY KEY (owner, owner_id, position)
    )
    """,
    """
    CREATE TABLE conversation_hints (
        channel TEXT NOT NULL,
        account_id TEXT NOT NULL,
        sender_id TEXT NOT NULL,
        hinted_ms INTEGER NOT NULL,
        PRIMARY KEY (channel, account_id, sender_id)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE conversation_outbox (
        id INTEGER PRIMARY KEY,
        outbox_id TEXT NOT NULL UNIQUE,
        channel TEXT NOT NULL,
        account_id TEXT NOT NULL,
        peer_kind TEXT NOT NULL,
        peer_id TEXT NOT NULL,
        thread_id TEXT,
        text TEXT NOT NULL,
        reply_to_id TEXT,
        run_id TEXT,
        inbound_id INTEGER,
        silent INTEGER NOT NULL DEFAULT 0,
        attachments INTEGER NOT NULL DEFAULT 0,
        state TEXT NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0,
        next_attempt_ms INTEGER NOT NULL,
        created_ms INTEGER NOT NULL,
        updated_ms INTEGER NOT NULL,
        receipt TEXT,
        error TEXT,
        request_key TEXT UNIQUE,
        request_hash TEXT
    )
    """,
    "CREATE INDEX conversation_outbox_open ON conversation_outbox (id) WHERE state IN ('prepared', 'sending')",
    """
    CREATE TABLE conversation_sessions (
        key TEXT PRIMARY KEY,
        agent_id TEXT NOT NULL,
        session_id TEXT NOT NULL,
        kind TEXT NOT NULL,
        chat_type TEXT NOT NULL,
        created_ms INTEGER NOT NULL,
        updated_ms INTEGER NOT NULL,
        interaction_ms INTEGER,
        label TEXT,
        display_name TEXT,
        title TEXT,
        preview TEXT,
        channel TEXT,
        account_id TEXT,
        peer_kind TEXT,
        peer_id TEXT,
        thread_id TEXT,
        archived INTEGER NOT NULL DEFAULT 0,
        pinned INTEGER NOT NULL DEFAULT 0,
        spawned_by TEXT,
        model TEXT,
        thinking_level TEXT,
        settings TEXT NOT NULL DEFAULT '{}',
        status TEXT,
        last_run_id TEXT,
        last_run_error TEXT,
        run_model TEXT,
        input_tokens INTEGER NOT NULL DEFAULT 0,
        output_tokens INTEGER NOT NULL DEFAULT 0,
        total_tokens INTEGER NOT NULL DEFAULT 0,
        cost_usd REAL
    )
    """,
    """
    CREATE INDEX conversation_sessions_newest
    ON conversation_sessions (archived, updated_ms DESC, kind)
    """,
    """
    CREATE INDEX conversation_sessions_agent
    ON conversation_sessions (agent_id, archived, updated_ms DESC, kind)
    """,
    """
    CREATE INDEX conversation_sessions_interaction
    ON conversation_sessions (archived, interaction_ms DESC, kind)
    """,
    "CREATE INDEX conversation_sessions_label ON conversation_sessions (label) WHERE label IS NOT NULL",
    "CREATE INDEX conversation_sessions_id ON conversation_sessions (session_id)",
    """
    CREATE TABLE conversation_transcripts (
        session_id TEXT PRIMARY KEY,
        session_key TEXT NOT NULL,
        agent_id TEXT NOT NULL,
        created_ms INTEGER NOT NULL,
        ended_ms INTEGER
    )
    """,
    "CREATE INDEX conversation_transcripts_key ON conversation_transcripts (session_key)",
    """
    CREATE TABLE conversation_messages (
        id INTEGER PRIMARY KEY,
        session_id TEXT NOT NULL,
        seq INTEGER NOT NULL,
        role TEXT NOT NULL,
        run_id TEXT,
        created_ms INTEGER NOT NULL,
        size INTEGER NOT NULL,
        body TEXT NOT NULL,
        UNIQUE (session_id, seq)
    )
    """,
    """
    CREATE TABLE conversation_runs (
        id INTEGER PRIMARY KEY,
        run_id TEXT NOT NULL,
        session_key TEXT NOT NULL,
        session_id TEXT NOT NULL,
        agent_id TEXT NOT NULL,
        inbound_id INTEGER,
        state TEXT NOT NULL,
        started_ms INTEGER,
        ended_ms INTEGER,
        text TEXT,
        error TEXT,
        error_kind TEXT,
        stop_reason TEXT,
        model TEXT,
        input_tokens INTEGER NOT NULL DEFAULT 0,
        output_tokens INTEGER NOT NULL DEFAULT 0,
        cache_read_tokens INTEGER NOT NULL DEFAULT 0,
        cache_write_tokens INTEGER NOT NULL DEFAULT 0,
        cost_usd REAL
    )
    """,
    "CREATE INDEX conversation_runs_run ON conversation_runs (run_id)",
    "CREATE INDEX conversation_runs_inbound ON conversation_runs (inbound_id)",
    """
    CREATE TABLE conversation_steps (
        id INTEGER PRIMARY KEY,
        run_id TEXT NOT NULL,
        session_key TEXT NOT NULL,
        agent_id TEXT NOT NULL,
        kind TEXT NOT NULL,
        name TEXT NOT NULL,
        started_ms INTEGER NOT NULL,
        ended_ms INTEGER NOT NULL,
        input_tokens INTEGER NOT NULL,
        output_tokens INTEGER NOT NULL,
        cache_read_tokens INTEGER NOT NULL,
        cache_write_tokens INTEGER NOT NULL,
        cost_usd REAL,
        error TEXT,
        retry_class TEXT
    )
    """,
    "CREATE INDEX conversation_steps_time ON conversation_steps (kind, started_ms)",
)


_JOURNAL: Final = (
    "ALTER TABLE conversation_inbound ADD COLUMN stop_ms INTEGER",
    "ALTER TABLE conversation_runs ADD COLUMN resumes INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE conversation_steps ADD COLUMN run INTEGER",
    "ALTER TABLE conversation_steps ADD COLUMN number INTEGER",
    "ALTER TABLE conversation_steps ADD COLUMN call_id TEXT",
    "ALTER TABLE conversation_steps ADD COLUMN state TEXT",
    "ALTER TABLE conversation_steps ADD COLUMN attempt INTEGER NOT NULL DEFAULT 1",
    "ALTER TABLE conversation_steps ADD COLUMN digest TEXT",
    "CREATE UNIQUE INDEX conversation_steps_journal ON conversation_steps (run, number) WHERE run IS NOT NULL",
)


def _create(database: Database) -> None:
    for statement in _FIRST:
        database.execute(statement)


def _index_hints(database: Database) -> None:
    database.execute("CREATE INDEX conversation_hints_time ON conversation_hints (channel, account_id, hinted_ms)")


def _keep_journal(database: Database) -> None:
    for statement in _JOURNAL:
        database.execute(statement)


MIGRATIONS: Final = (
    Migration(number=1, name="create the tables of conversations", apply=_create),
    Migration(number=2, name="find the hints of the last hour", apply=_index_hints),
    Migration(number=3, name="keep the journal of a turn", apply=_keep_journal),
    Migration(number=4, name="keep what is asked of a message's way", apply=keep_the_way),
)
