"""Conversations: the ledger of messages, lanes of turns, transcripts, delivery, and the methods and commands on them."""
