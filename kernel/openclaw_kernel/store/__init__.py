"""Durable state: SQLite with one writing connection, group commit and numbered migrations."""
