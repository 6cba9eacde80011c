"""Conversations: every accepted message ends once, in order, and everybody who asked is told.

The way of a message through these modules:

- in: `intake` (channels) or `methods_chat`, `methods_agent` and `submissions` (WebSocket clients); written by `ledger`
- beside: `commands`, answered at the `command_desk` between the messages before and after
- its turn: `lanes` (one at a time in a session), `turns` (begin, take up, run), `sink` (what the turn reports), `journal` (its calls),
  `chat_events` (what is seen)
- after a crash: `recovery` (decides what goes on and what ends)
- its end: `endings` (one write, then told); its answer to a channel: `outbox`, `outbox_rows`
- what stays: `transcript` (read by `history`), `sessions` (shown by `session_rows`, `session_list`; changed by `methods_changes`)

`engine` starts and stops all that, `world` is what the parts share, `runs` a run and the board of those under way, `durable` the
writes that must come to pass, `writable` what makes foreign text fit to be written.
"""
