"""Output of any length in bounded memory."""

from __future__ import annotations

from collections import deque


class HeadAndTail:
    """Keeps the beginning and the end of a stream of bytes, half of `limit` each."""

    def __init__(self, limit: int) -> None:
        self._head_room = limit - limit // 2
        self._tail_room = limit // 2
        self._head = bytearray()
        self._tail: deque[bytes] = deque()
        self._tail_size = 0
        self._dropped = 0

    def add(self, data: bytes) -> None:
        """Take the next piece."""
        room = self._head_room - len(self._head)
        self._head += data[:room]
        rest = data[room:]
        if not rest:
            return
        self._tail.append(rest)
        self._tail_size += len(rest)
        while self._tail_size - len(self._tail[0]) >= self._tail_room:
            gone = len(self._tail.popleft())
            self._tail_size -= gone
            self._dropped += gone
        surplus = self._tail_size - self._tail_room
        if surplus > 0:
            self._tail[0] = self._tail[0][surplus:]
            self._tail_size -= surplus
            self._dropped += surplus

    def text(self) -> str:
        """Return what was kept, with a line in place of what was not."""
        gap = f"\n[{self._dropped} bytes left out]\n".encode() if self._dropped else b""
        return (bytes(self._head) + gap + b"".join(self._tail)).decode("utf-8", "replace")
