"""What is written down of a message's way beside its state, so that it can be asked for, and what is kept of the dead."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sqlite_utils import Database

_STATEMENTS: Final = (
    "ALTER TABLE conversation_inbound ADD COLUMN accepted_ms INTEGER",
    "ALTER TABLE conversation_inbound ADD COLUMN queued_ms INTEGER",
    "ALTER TABLE conversation_inbound ADD COLUMN begun_ms INTEGER",
    "ALTER TABLE conversation_inbound ADD COLUMN ended_ms INTEGER",
    "ALTER TABLE conversation_inbound ADD COLUMN admission TEXT",
    "ALTER TABLE conversation_inbound ADD COLUMN admission_reason TEXT",
    "ALTER TABLE conversation_inbound ADD COLUMN superseded_by TEXT",
    "ALTER TABLE conversation_inbound ADD COLUMN forgotten_ms INTEGER",
    "ALTER TABLE conversation_outbox ADD COLUMN excused INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE conversation_outbox ADD COLUMN retried_ms INTEGER",
    "ALTER TABLE conversation_outbox ADD COLUMN place INTEGER",
    "ALTER TABLE conversation_outbox ADD COLUMN forgotten_ms INTEGER",
    """
    CREATE TABLE conversation_attempts (
        outbox INTEGER NOT NULL,
        number INTEGER NOT NULL,
        started_ms INTEGER NOT NULL,
        ended_ms INTEGER,
        outcome TEXT,
        error TEXT,
        retry_after_ms INTEGER,
        PRIMARY KEY (outbox, number)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE conversation_interventions (
        id INTEGER PRIMARY KEY,
        owner TEXT NOT NULL,
        owner_id INTEGER NOT NULL,
        at_ms INTEGER NOT NULL,
        action TEXT NOT NULL,
        by TEXT NOT NULL,
        state TEXT NOT NULL,
        reason TEXT
    )
    """,
    "CREATE INDEX conversation_interventions_owner ON conversation_interventions (owner, owner_id)",
    """
    CREATE TABLE conversation_swept (
        id INTEGER PRIMARY KEY,
        kind TEXT NOT NULL,
        channel TEXT NOT NULL,
        name TEXT NOT NULL,
        run_id TEXT,
        state TEXT NOT NULL,
        ended_ms INTEGER NOT NULL
    )
    """,
    "CREATE INDEX conversation_swept_name ON conversation_swept (name)",
    "CREATE INDEX conversation_swept_run ON conversation_swept (run_id)",
    "CREATE INDEX conversation_inbound_message ON conversation_inbound (message_id)",
    "CREATE INDEX conversation_inbound_run ON conversation_inbound (run_id)",
    "CREATE INDEX conversation_inbound_dead ON conversation_inbound (updated_ms) WHERE state = 'dead_lettered' AND forgotten_ms IS NULL",
    "CREATE INDEX conversation_outbox_run ON conversation_outbox (run_id)",
    "CREATE INDEX conversation_outbox_inbound ON conversation_outbox (inbound_id)",
    """
    CREATE INDEX conversation_outbox_dead ON conversation_outbox (updated_ms)
    WHERE state IN ('unknown_after_send', 'failed', 'dead_lettered') AND forgotten_ms IS NULL
    """,
    "CREATE INDEX IF NOT EXISTS conversation_steps_run ON conversation_steps (run_id)",
)


def keep_the_way(database: Database) -> None:
    """Add the columns and tables; those of earlier messages stay empty."""
    for statement in _STATEMENTS:
        database.execute(statement)
