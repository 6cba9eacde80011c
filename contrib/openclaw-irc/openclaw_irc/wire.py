"""IRC lines to messages and back, without I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from openclaw_kernel.api import InboundMessage, Target

CHANNEL: Final = "irc"
ACCOUNT: Final = "default"
LINE_BYTES: Final = 512
PREFIX_BYTES: Final = 107
"""`:nick!user@host ` at its longest, which the server puts before a line it passes on."""

_FORMATTING: Final = re.compile(r"\x03\d{0,2}(?:,\d{1,2})?|[\x00-\x08\x0b-\x1f\x7f]")
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_FENCE: Final = re.compile(r"^\s*(```|~~~)")
_CASE: Final = str.maketrans("[]\\~", "{}|^")


def fold(name: str) -> str:
    """Lower-case a nick or room as RFC 1459 servers compare them."""
    return name.lower().translate(_CASE)


def sender_id(mask: str, tags: Mapping[str, str]) -> str:
    """The steadiest id the server gives: the services account, else the whole mask."""
    account = tags.get("account", "")
    if account and account != "*":
        return f"account:{account.lower()}"
    nick, separator, rest = mask.partition("!")
    return fold(nick) + separator + rest.lower()


def addressed(text: str, nick: str) -> tuple[bool, str]:
    """Tell whether a room's line addresses the nick; return the line without the address."""
    match = re.match(rf"@?{re.escape(nick)}\s*[:,]?\s+(.*)$|@?{re.escape(nick)}\s*[:,]?$", text, re.IGNORECASE | re.DOTALL)
    if match:
        return True, (match.group(1) or "").strip()
    return re.search(rf"(?<!\w){re.escape(nick)}(?!\w)", text, re.IGNORECASE) is not None, text


def read_message(*, mask: str, to: str, text: str, tags: Mapping[str, str], nick: str, number: str, now_ms: int) -> InboundMessage:
    """Make a message of a PRIVMSG. `number` makes its id unique where the server sends no `msgid`."""
    plain = _FORMATTING.sub("", text).strip()
    sender = mask.partition("!")[0]
    in_room = to[:1] in "#&+!"
    mentioned, body = addressed(plain, nick) if in_room else (True, plain)
    target = Target(
        channel=CHANNEL, account_id=ACCOUNT, peer_kind="group" if in_room else "direct", peer_id=fold(to if in_room else sender)
    )
    return InboundMessage(
        target=target,
        message_id=tags.get("msgid") or number,
        sender_id=sender_id(mask, tags),
        sender_name=sender,
        text=body,
        timestamp_ms=now_ms,
        mentioned=mentioned,
    )


def room_for(target: str) -> int:
    """How many bytes of text fit into a line to this nick or room."""
    return LINE_BYTES - PREFIX_BYTES - len(f"PRIVMSG {target} :\r\n".encode())


def one_line(text: str) -> str:
    """Return what a server said as a line for people, of bounded length."""
    return " ".join(_FORMATTING.sub("", text).split())[:200]


def lines_of(markdown: str, limit: int) -> list[str]:
    """Lay Markdown out as IRC lines of at most `limit` bytes of UTF-8; code fences are dropped, empty lines too.

    Of control characters only the bold mark is ours: others would make a model's words a command to somebody's client.
    """
    lines: list[str] = []
    for raw in re.split(r"\r\n|\r|\n", markdown):
        if _FENCE.match(raw):
            continue
        plain = _CONTROLS.sub("", raw).replace("\t", "    ").rstrip()
        line = re.sub(r"\*\*(.+?)\*\*", "\x02\\1\x02", plain)
        if line.strip():
            lines.extend(_split(line, limit))
    return lines


def _split(line: str, limit: int) -> list[str]:
    parts: list[str] = []
    rest = line
    while len(rest.encode()) > limit:
        cut = len(rest.encode()[:limit].decode("utf-8", "ignore"))
        space = rest.rfind(" ", cut // 2, cut)
        at = space if space > 0 else cut
        if rest[:at].strip():
            parts.append(rest[:at].rstrip())
        rest = rest[at:].lstrip()
    return [*parts, rest] if rest else parts
