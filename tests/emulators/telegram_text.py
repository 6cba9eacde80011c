"""Text as the Bot API reads it: HTML and MarkdownV2 to plain text with entities, lengths in UTF-16 units.

The rules and the wording of the errors follow Telegram's own parser closely enough that markup Telegram would
refuse is refused here.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass, field
from typing import Any

Entity = dict[str, Any]

HTML_TYPES = {
    "b": "bold", "strong": "bold", "i": "italic", "em": "italic", "u": "underline", "ins": "underline",
    "s": "strikethrough", "strike": "strikethrough", "del": "strikethrough", "tg-spoiler": "spoiler",
    "span": "spoiler", "a": "text_link", "tg-emoji": "custom_emoji", "code": "code", "pre": "pre",
    "blockquote": "blockquote",
}  # fmt: skip
TAG = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9-]*)((?:\s+[a-zA-Z-]+(?:\s*=\s*(?:\"[^\"]*\"|'[^']*'|[^\s\"'<>]+))?)*)\s*>")
ATTRIBUTE = re.compile(r"([a-zA-Z-]+)(?:\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s\"'<>]+)))?")
CHARACTER_REFERENCE = re.compile(r"&(?:lt|gt|amp|quot|#\d{1,7}|#x[0-9a-fA-F]{1,6});")
MARKDOWN_RESERVED = "_*[]()~`>#+-=|{}.!"


class EntityError(ValueError):
    """Markup that Telegram would refuse; the text is what follows `Bad Request: can't parse entities: `."""


def utf16_length(text: str) -> int:
    """Length of `text` in UTF-16 code units, the unit of every limit and offset of the Bot API."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def byte_offset(text: str, index: int) -> int:
    return len(text[:index].encode("utf-8", "surrogatepass"))


@dataclass
class Builder:
    """Plain text under construction, with the entities that have been closed so far."""

    parts: list[str] = field(default_factory=list)
    length: int = 0
    entities: list[Entity] = field(default_factory=list)

    def add(self, text: str) -> None:
        self.parts.append(text)
        self.length += utf16_length(text)

    def close(self, kind: str, start: int, **extra: Any) -> None:
        if self.length > start:
            self.entities.append({"type": kind, "offset": start, "length": self.length - start, **extra})

    def result(self) -> tuple[str, list[Entity]]:
        text = "".join(self.parts)
        stripped = text.rstrip()
        leading = len(stripped) - len(stripped.lstrip())
        stripped = stripped.lstrip()
        shift, limit = utf16_length(text[:leading]), utf16_length(stripped)
        kept: list[Entity] = []
        for entity in self.entities:
            start = max(entity["offset"] - shift, 0)
            end = min(entity["offset"] - shift + entity["length"], limit)
            if end > start:
                kept.append({**entity, "offset": start, "length": end - start})
        kept.sort(key=lambda entity: (entity["offset"], -entity["length"], entity["type"]))
        return stripped, kept


def parse_html(source: str) -> tuple[str, list[Entity]]:
    """Plain text and entities of Telegram HTML. Raises EntityError where Telegram answers 400."""
    builder = Builder()
    stack: list[tuple[str, int, dict[str, str], int]] = []
    position = 0
    while position < len(source):
        character = source[position]
        if character == "&":
            reference = CHARACTER_REFERENCE.match(source, position)
            builder.add(html.unescape(reference.group()) if reference else "&")
            position = reference.end() if reference else position + 1
            continue
        if character != "<":
            following = re.compile(r"[<&]").search(source, position)
            end = following.start() if following else len(source)
            builder.add(source[position:end])
            position = end
            continue
        tag = TAG.match(source, position)
        offset = byte_offset(source, position)
        if tag is None:
            unclosed = re.match(r"</?([^\s<>]*)", source[position:])
            raise EntityError(f'Unsupported start tag "{unclosed.group(1) if unclosed else ""}" at byte offset {offset}')
        name = tag.group(2).lower()
        if tag.group(1):
            _close_tag(builder, stack, name=name, offset=offset)
        else:
            _open_tag(builder, stack, name=name, attributes=tag.group(3), offset=offset)
        position = tag.end()
    if stack:
        raise EntityError(f'Can\'t find end tag corresponding to start tag "{stack[-1][0]}"')
    return builder.result()


def _open_tag(builder: Builder, stack: list[tuple[str, int, dict[str, str], int]], *, name: str, attributes: str, offset: int) -> None:
    if name not in HTML_TYPES:
        raise EntityError(f'Unsupported start tag "{name}" at byte offset {offset}')
    values: dict[str, str] = {}
    for attribute in ATTRIBUTE.finditer(attributes):
        value = attribute.group(2) or attribute.group(3) or attribute.group(4) or ""
        values[attribute.group(1).lower()] = html.unescape(value)
    if name == "span" and values.get("class") != "tg-spoiler":
        raise EntityError(f'Tag "span" must have class "tg-spoiler" at byte offset {offset}')
    stack.append((name, builder.length, values, offset))


def _close_tag(builder: Builder, stack: list[tuple[str, int, dict[str, str], int]], *, name: str, offset: int) -> None:
    if not stack:
        raise EntityError(f"Unexpected end tag at byte offset {offset}")
    opened, start, values, _ = stack.pop()
    if opened != name:
        raise EntityError(f'Unmatched end tag at byte offset {offset}, expected "</{opened}>", found "</{name}>"')
    kind = HTML_TYPES[name]
    if name == "a":
        if values.get("href"):
            builder.close(kind, start, url=values["href"])
        return
    if name == "tg-emoji":
        builder.close(kind, start, custom_emoji_id=values.get("emoji-id", ""))
        return
    if name == "blockquote" and "expandable" in values:
        kind = "expandable_blockquote"
    if name == "code":
        language = values.get("class", "").removeprefix("language-") if "class" in values else ""
        if stack and stack[-1][0] == "pre" and stack[-1][1] == start:
            stack[-1][2]["language"] = language
            return
    if name == "pre" and values.get("language"):
        builder.close(kind, start, language=values["language"])
        return
    builder.close(kind, start)


@dataclass
class OpenMarkdown:
    kind: str
    start: int
    offset: int
    mark: str
    language: str = ""


def parse_markdown_v2(source: str) -> tuple[str, list[Entity]]:
    """Plain text and entities of MarkdownV2. Raises EntityError where Telegram answers 400."""
    builder = Builder()
    stack: list[OpenMarkdown] = []
    position = 0
    while position < len(source):
        character = source[position]
        if character == "\\" and position + 1 < len(source) and 0 < ord(source[position + 1]) < 127:
            builder.add(source[position + 1])
            position += 2
            continue
        in_code = bool(stack) and stack[-1].kind in ("code", "pre")
        if character not in ("`" if in_code else MARKDOWN_RESERVED + "\n"):
            builder.add(character)
            position += 1
            continue
        if (
            stack
            and source.startswith(stack[-1].mark, position)
            and not (stack[-1].kind == "italic" and source.startswith("__", position) and not _underline_open(stack))
        ):
            position = _close_markdown(builder, stack, source=source, position=position)
            continue
        if character == "\n":
            builder.add(character)
            position += 1
            continue
        if in_code:
            builder.add(character)
            position += 1
            continue
        position = _open_markdown(builder, stack, source=source, position=position)
    while stack and stack[-1].kind == "blockquote":
        builder.close("blockquote", stack.pop().start)
    if stack:
        names = {"text_link": "TextUrl", "pre": "Pre", "code": "Code"}
        name = names.get(stack[-1].kind, stack[-1].kind.capitalize())
        raise EntityError(f"Can't find end of {name} entity at byte offset {stack[-1].offset}")
    return builder.result()


def _underline_open(stack: list[OpenMarkdown]) -> bool:
    return any(entry.kind == "underline" for entry in stack)


# What opens an entity, longest first, with the mark that closes it.
MARKDOWN_OPENERS = (
    ("__", "underline", "__"),
    ("||", "spoiler", "||"),
    ("![", "custom_emoji", "]"),
    ("_", "italic", "_"),
    ("*", "bold", "*"),
    ("~", "strikethrough", "~"),
    ("[", "text_link", "]"),
    ("`", "code", "`"),
)
FENCE = re.compile(r"```(?:([^\s`]*)\n)?")


def _open_markdown(builder: Builder, stack: list[OpenMarkdown], *, source: str, position: int) -> int:
    offset = byte_offset(source, position)
    character = source[position]
    fence = FENCE.match(source, position)
    if fence is not None:
        stack.append(OpenMarkdown("pre", builder.length, offset, "```", fence.group(1) or ""))
        return fence.end()
    for opener, kind, mark in MARKDOWN_OPENERS:
        if source.startswith(opener, position):
            stack.append(OpenMarkdown(kind, builder.length, offset, mark))
            return position + len(opener)
    if character == ">" and (position == 0 or source[position - 1] == "\n"):
        if not stack or stack[-1].kind != "blockquote":
            stack.append(OpenMarkdown("blockquote", builder.length, offset, "\n"))
        return position + 1
    raise EntityError(f"Character '{character}' is reserved and must be escaped with the preceding '\\'")


def _close_markdown(builder: Builder, stack: list[OpenMarkdown], *, source: str, position: int) -> int:
    entry = stack.pop()
    position += len(entry.mark)
    if entry.kind == "blockquote":
        builder.add("\n")
        if source.startswith(">", position):
            stack.append(entry)
            return position + 1
        builder.close(entry.kind, entry.start)
        return position
    if entry.kind in ("text_link", "custom_emoji"):
        target = re.compile(r"\(((?:\\.|[^)\\])*)\)").match(source, position)
        if target is None:
            return position
        url = re.sub(r"\\(.)", r"\1", target.group(1))
        builder.close(entry.kind, entry.start, **({"url": url} if entry.kind == "text_link" else {"custom_emoji_id": url}))
        return target.end()
    if entry.kind == "pre" and entry.language:
        builder.close("pre", entry.start, language=entry.language)
    else:
        builder.close(entry.kind, entry.start)
    return position
