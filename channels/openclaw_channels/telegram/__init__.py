"""Telegram bots as a channel."""
