"""The transcript as a model may see it: paired, starting with a user message, under a ceiling of tokens. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from openclaw_kernel.api import (
    AssistantMessage,
    File,
    Image,
    Message,
    PairedMessages,
    Text,
    Thinking,
    ToolCall,
    ToolResultMessage,
    UserMessage,
    UserPart,
)
from openclaw_plugins.agents.tokens import CUT_NOTE, CUT_NOTE_TOKENS, beginning, cut_middle, estimate

MESSAGE_TOKENS: Final = 8
"""What a chat template puts around a message."""
CALL_TOKENS: Final = 16
IMAGE_TOKENS: Final = 1_600
"""The most that the known providers charge for a picture they have scaled themselves."""
MINIMUM_CEILING: Final = 64
"""Below this no ceiling is kept: it is what a note in place of the newest message needs."""
SHORT_RESULT: Final = 128
INTERRUPTED: Final = "interrupted"
EMPTY: Final = "(no text)"

_ID_TO_CLEAN: Final = re.compile(r"[^A-Za-z0-9_-]")


class PairedTranscript:
    """Messages in order, in which every tool call has exactly one result, right behind it.

    A call without a result is answered as `interrupted`; a result without a call is dropped. Call ids are made unique and
    plain. For a model without tools, calls and results vanish; for one without eyes, a picture becomes a line.
    """

    def __init__(self, messages: Iterable[Message] = (), *, tools: bool = True, images: bool = True) -> None:
        self._tools = tools
        self._images = images
        self._closed: list[Message] = []
        self._open: AssistantMessage | None = None
        self._results: dict[str, ToolResultMessage | None] = {}
        self._renamed: dict[str, str] = {}
        self._used: set[str] = set()
        for message in messages:
            self.add(message)

    def add(self, message: Message) -> None:
        """Append the next message of the conversation."""
        match message:
            case ToolResultMessage():
                self._add_result(message)
            case UserMessage():
                self._close()
                self._closed.append(self._user(message))
            case AssistantMessage():
                self._close()
                self._add_assistant(message)

    def messages(self) -> PairedMessages:
        """Return what was added so far; calls still open are answered as interrupted in it."""
        everything = [*self._closed, *self._open_block()]
        newest = max((index for index, message in enumerate(everything) if isinstance(message, UserMessage)), default=-1)
        return PairedMessages(
            message
            for index, original in enumerate(everything)
            if (message := original if index > newest else _without_thinking(original)) is not None
        )

    def _add_assistant(self, message: AssistantMessage) -> None:
        self._renamed = {}
        content: list[Text | Thinking | ToolCall] = []
        for part in message.content:
            match part:
                case ToolCall() if not self._tools or part.id in self._renamed:
                    continue
                case ToolCall():
                    self._renamed[part.id] = self._unique(part.id)
                    content.append(ToolCall(self._renamed[part.id], part.name, part.arguments))
                case Text() if not part.text.strip():
                    continue
                case _:
                    content.append(part)
        if not content:
            return
        message = replace(message, content=tuple(content))
        if message.tool_calls:
            self._open = message
            self._results = {call.id: None for call in message.tool_calls}
        else:
            self._closed.append(message)

    def _add_result(self, message: ToolResultMessage) -> None:
        call_id = self._renamed.get(message.call_id)
        if self._open is not None and call_id is not None and self._results[call_id] is None:
            self._results[call_id] = replace(message, call_id=call_id)

    def _close(self) -> None:
        self._closed.extend(self._open_block())
        self._open = None
        self._results = {}

    def _open_block(self) -> list[Message]:
        if self._open is None:
            return []
        return [
            self._open,
            *(
                self._results[call.id]
                or ToolResultMessage(
                    call_id=call.id,
                    name=call.name,
                    text=INTERRUPTED,
                    is_error=True,
                    timestamp_ms=self._open.timestamp_ms,
                )
                for call in self._open.tool_calls
            ),
        ]

    def _user(self, message: UserMessage) -> UserMessage:
        parts: list[UserPart] = []
        for part in message.content:
            if isinstance(part, Text) and not part.text.strip():
                continue
            if isinstance(part, Image) and not self._images:
                parts.append(Text(f"[a picture that this model cannot see: {part.file_name or part.mime_type}]"))
            else:
                parts.append(part)
        return replace(message, content=tuple(parts) or (Text(EMPTY),))

    def _unique(self, call_id: str) -> str:
        plain = _ID_TO_CLEAN.sub("_", call_id)[:48] or "call"
        unique, count = plain, 1
        while unique in self._used:
            count += 1
            unique = f"{plain}-{count}"
        self._used.add(unique)
        return unique


def _without_thinking(message: Message) -> Message | None:
    """Strip the reasoning of past turns; None where nothing else was said."""
    if not isinstance(message, AssistantMessage):
        return message
    content = tuple(part for part in message.content if not isinstance(part, Thinking))
    return replace(message, content=content) if content else None


def message_tokens(message: Message) -> int:
    """Return a ceiling of the tokens of one message."""
    match message:
        case ToolResultMessage():
            return MESSAGE_TOKENS + CALL_TOKENS + estimate(message.text)
        case UserMessage() | AssistantMessage():
            return MESSAGE_TOKENS + sum(map(_part_tokens, message.content))


def total_tokens(messages: Iterable[Message]) -> int:
    """Return a ceiling of the tokens of messages."""
    return sum(map(message_tokens, messages))


def _part_tokens(part: Text | Thinking | ToolCall | Image | File) -> int:
    match part:
        case Text() | Thinking():
            return estimate(part.text)
        case ToolCall():
            return CALL_TOKENS + estimate(part.name) + estimate(json.dumps(part.arguments, ensure_ascii=False))
        case Image():
            return IMAGE_TOKENS
        case File():
            return CALL_TOKENS + estimate(part.file_name) + estimate(part.text or "")


def fit_history(messages: PairedMessages, ceiling: int) -> PairedMessages:
    """Return the end of a paired transcript in at most `ceiling` tokens (or `MINIMUM_CEILING`, if that is more).

    Whole turns go, oldest first, and in steps of a quarter of the ceiling, so that a growing conversation keeps its
    beginning (and the provider's prompt cache) for many turns. The newest user message always stays; where its turn alone
    is too long, first tool results are shortened, then the message is cut with a note, then old tool rounds go.
    """
    ceiling = max(ceiling, MINIMUM_CEILING)
    turns = _turns(messages)
    if not turns:
        return PairedMessages()
    last = _fit_turn(turns[-1], ceiling)
    sizes = [total_tokens(turn) for turn in turns[:-1]]
    excess = sum(sizes) + total_tokens(last) - ceiling
    step = max(1, ceiling // 4)
    to_drop = -(-excess // step) * step if excess > 0 else 0
    first, dropped = 0, 0
    while first < len(sizes) and dropped < to_drop:
        dropped += sizes[first]
        first += 1
    return PairedMessages((*(message for turn in turns[first:-1] for message in turn), *last))


def _turns(messages: Sequence[Message]) -> list[list[Message]]:
    """Split before every user message; what stands before the first one is left out."""
    turns: list[list[Message]] = []
    for message in messages:
        if isinstance(message, UserMessage):
            turns.append([message])
        elif turns:
            turns[-1].append(message)
    return turns


def _fit_turn(turn: Sequence[Message], ceiling: int) -> list[Message]:
    user, *rest = turn
    if not isinstance(user, UserMessage) or total_tokens(turn) <= ceiling:
        return list(turn)
    room = ceiling - message_tokens(user)
    rest = _shorten_results(rest, max(room, ceiling // 2))
    user = cut_user_message(user, max(ceiling // 2, ceiling - total_tokens(rest)))
    room = ceiling - message_tokens(user)
    while total_tokens(rest) > room:
        following = (i for i, message in enumerate(rest) if i and isinstance(message, AssistantMessage))
        rest = rest[next(following, len(rest)) :]
    return [user, *rest]


def _shorten_results(messages: Sequence[Message], ceiling: int) -> list[Message]:
    """Shorten tool results, oldest first, until all fits or each is short."""
    shortened = list(messages)
    excess = total_tokens(messages) - ceiling
    for index, message in enumerate(shortened):
        if excess <= 0:
            break
        if isinstance(message, ToolResultMessage):
            size = estimate(message.text)
            shorter = replace(message, text=cut_middle(message.text, max(SHORT_RESULT, size - excess)))
            shortened[index] = shorter
            excess -= size - estimate(shorter.text)
    return shortened


def cut_user_message(message: UserMessage, ceiling: int) -> UserMessage:
    """Return the message in at most `ceiling` tokens: words first, then as many pictures as fit, with a note."""
    if message_tokens(message) <= ceiling:
        return message
    room = ceiling - MESSAGE_TOKENS - CUT_NOTE_TOKENS
    kept: dict[int, UserPart] = {}
    for index, part in sorted(enumerate(message.content), key=lambda item: isinstance(item[1], Image)):
        shorter = _cut_part(part, room)
        if shorter is not None:
            kept[index] = shorter
            room -= _part_tokens(shorter)
    return replace(message, content=(*(kept[index] for index in sorted(kept)), Text(CUT_NOTE)))


def _cut_part(part: UserPart, ceiling: int) -> UserPart | None:
    """Return the part, or the beginning of its text, in at most `ceiling` tokens; None where nothing of it fits."""
    excess = _part_tokens(part) - ceiling
    if excess <= 0:
        return part
    if isinstance(part, Image) or not part.text:
        return None
    text = beginning(part.text, estimate(part.text) - excess)
    return replace(part, text=text) if text else None
