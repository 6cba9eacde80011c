"""Markdown to Telegram: styled text, split to the platform's limit, rendered as Telegram HTML or plain. Pure.

The answer is parsed once into spans of text with styles. Splitting cuts the text and never a tag, so a code block, a
quote or a link that goes over a cut is opened again in the next part by construction.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from html import escape
from itertools import groupby, pairwise
from operator import itemgetter
from typing import Final

from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode

Style = tuple[str, str]
"""Tag of Telegram HTML and its argument: language of `pre`, address of `a`, else empty."""
Styles = tuple[Style, ...]
BOLD: Final[Style] = ("b", "")
QUOTE: Final[Style] = ("blockquote", "")
CODE: Final[Style] = ("code", "")
BULLET: Final = "\N{BULLET} "
RULE: Final = "\N{EM DASH}" * 3
INLINE_STYLES: Final = {"strong": BOLD, "em": ("i", ""), "s": ("s", "")}
LINKED_SCHEMES: Final = ("http://", "https://", "tg://", "mailto:", "tel:")
JOINERS: Final = frozenset("\u200d\ufe0e\ufe0f\u20e3")
SKIN_TONES: Final = range(0x1F3FB, 0x1F400)


@dataclass(frozen=True, slots=True)
class Span:
    text: str
    styles: Styles = ()


def utf16_length(text: str) -> int:
    """Return the length in UTF-16 code units, Telegram's measure."""
    return len(text) + sum(character > "\uffff" for character in text)


def to_parts(markdown: str, limit: int) -> list[list[Span]]:
    """Parse Markdown and split it into parts of at most `limit` UTF-16 units; whitespace alone gives no part."""
    try:
        spans = parse(markdown)
    except RecursionError:
        # Styles within styles by the thousand are no text a person would write: it is shown as it stands.
        spans = [Span(markdown)]
    return split(spans, limit)


# --- parsing ---------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _parser() -> MarkdownIt:
    return MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])


def parse(markdown: str) -> list[Span]:
    """Return the styled text of a Markdown document; unfinished Markdown is shown as far as it goes."""
    writer = _Writer()
    _blocks(SyntaxTreeNode(_parser().parse(markdown)).children, writer, styles=(), indent="")
    return writer.spans


class _Writer:
    def __init__(self) -> None:
        self._pieces: list[tuple[str, Styles]] = []

    @property
    def spans(self) -> list[Span]:
        """What was written, neighbours of one style joined."""
        return [Span("".join(text for text, _ in group), styles) for styles, group in groupby(self._pieces, key=itemgetter(1))]

    def put(self, text: str, styles: Styles) -> None:
        if text:
            self._pieces.append((text, styles))

    def gap(self, newlines: int, styles: Styles) -> None:
        """Go to a new line; 2 leaves an empty one. Nothing at the very start."""
        if self._pieces:
            ending = "".join(text for text, _ in self._pieces[-2:])
            present = len(ending) - len(ending.rstrip("\n"))
            self.put("\n" * (newlines - present), styles)


def _blocks(nodes: Sequence[SyntaxTreeNode], writer: _Writer, *, styles: Styles, indent: str) -> None:
    for position, node in enumerate(nodes):
        if position:
            writer.gap(1 if indent else 2, styles)
        _block(node, writer, styles=styles, indent=indent)


def _block(node: SyntaxTreeNode, writer: _Writer, *, styles: Styles, indent: str) -> None:
    match node.type:
        case "heading":
            _inlines(node, writer, styles=_with(styles, BOLD), indent=indent)
        case "fence" | "code_block":
            language = node.info.split(maxsplit=1)[0] if node.info.strip() else ""
            writer.put(node.content.removesuffix("\n") or " ", _with(styles, ("pre", language)))
        case "blockquote":
            _blocks(node.children, writer, styles=_with(styles, QUOTE), indent=indent)
        case "bullet_list" | "ordered_list":
            _list(node, writer, styles=styles, indent=indent)
        case "table":
            writer.put(_table(node), _with(styles, ("pre", "")))
        case "hr":
            writer.put(RULE, styles)
        case _ if node.children:
            _inlines(node, writer, styles=styles, indent=indent)
        case _:
            writer.put(node.content, styles)


def _list(node: SyntaxTreeNode, writer: _Writer, *, styles: Styles, indent: str) -> None:
    start = int(node.attrs.get("start", 1))
    for position, item in enumerate(node.children):
        if position:
            writer.gap(1, styles)
        marker = f"{start + position}. " if node.type == "ordered_list" else BULLET
        writer.put(indent + marker, styles)
        for number, child in enumerate(item.children):
            if number or child.type not in ("paragraph", "heading"):
                writer.gap(1, styles)
            if number and child.type == "paragraph":
                writer.put(indent + "  ", styles)
            _block(child, writer, styles=styles, indent=indent + "  ")


def _table(node: SyntaxTreeNode) -> str:
    rows = [
        ["".join(_plain(cell)) for cell in row.children]
        for section in node.children
        for row in section.children
    ]  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "-+-".join("-" * width for width in widths))
    return "\n".join(lines)


def _plain(node: SyntaxTreeNode) -> str:
    writer = _Writer()
    _inlines(node, writer, styles=(), indent="")
    return "".join(span.text for span in writer.spans)


def _inlines(node: SyntaxTreeNode, writer: _Writer, *, styles: Styles, indent: str) -> None:
    for child in node.children:
        match child.type:
            case "text":
                writer.put(child.content, styles)
            case "softbreak" | "hardbreak":
                writer.put("\n" + indent, styles)
            case "code_inline":
                # Telegram lets nothing else stand around or in code but a quote.
                writer.put(child.content, (*(style for style in styles if style == QUOTE), CODE))
            case "strong" | "em" | "s":
                _inlines(child, writer, styles=_with(styles, INLINE_STYLES[child.type]), indent=indent)
            case "link":
                _link(child, writer, href=str(child.attrs.get("href", "")), styles=styles, indent=indent)
            case "image":
                source = str(child.attrs.get("src", ""))
                _linked(child.content or source, writer, href=source, styles=styles)
            case _:
                _inlines(child, writer, styles=styles, indent=indent)


def _link(node: SyntaxTreeNode, writer: _Writer, *, href: str, styles: Styles, indent: str) -> None:
    if href.startswith(LINKED_SCHEMES):
        _inlines(node, writer, styles=_with(styles, ("a", href)), indent=indent)
    else:
        _inlines(node, writer, styles=styles, indent=indent)
        writer.put(f" ({href})" if href else "", styles)


def _linked(text: str, writer: _Writer, *, href: str, styles: Styles) -> None:
    if href.startswith(LINKED_SCHEMES):
        writer.put(text, _with(styles, ("a", href)))
    else:
        writer.put(f"{text} ({href})" if href and href != text else text, styles)


def _with(styles: Styles, style: Style) -> Styles:
    return styles if any(style[0] == present[0] for present in styles) else (*styles, style)


# --- splitting -------------------------------------------------------------------------------------------------------


def split(spans: Sequence[Span], limit: int) -> list[list[Span]]:
    """Cut styled text into parts of at most `limit` UTF-16 units, best between paragraphs, then lines, then words."""
    text = "".join(span.text for span in spans)
    code = _code_ranges(spans)
    cuts: list[tuple[int, int]] = []
    start = 0
    while start < len(text):
        end = _end_of_part(text, start, limit)
        if end < len(text):
            end = _good_cut(text, start, end, code)
        cuts.append((start, end))
        start = end
        while start < len(text) and text[start] == "\n":
            start += 1
    parts = (_slice(spans, begin, end) for begin, end in cuts)
    return [part for part in parts if "".join(span.text for span in part).strip()]


def _code_ranges(spans: Sequence[Span]) -> list[tuple[int, int]]:
    ranges: list[tuple[int, int]] = []
    position = 0
    for span in spans:
        if any(tag == "pre" for tag, _ in span.styles):
            ranges.append((position, position + len(span.text)))
        position += len(span.text)
    return ranges


def _end_of_part(text: str, start: int, limit: int) -> int:
    end = min(len(text), start + limit)
    while (excess := utf16_length(text[start:end]) - limit) > 0:
        end -= max(1, excess // 2)
    return end


def _good_cut(text: str, start: int, end: int, code: Sequence[tuple[int, int]]) -> int:
    """Return the best place to cut in the second half of [start, end)."""
    earliest = start + max(1, (end - start) // 2)
    for separator, in_code in (("\n\n", False), ("\n", False), ("\n", True), (" ", False)):
        # The separator itself may lie at the limit: it is dropped, or trimmed by Telegram.
        position = text.rfind(separator, earliest, end + len(separator))
        while position != -1:
            if in_code or not any(begin < position < finish for begin, finish in code):
                return position + (separator == " ") if position < end else end
            position = text.rfind(separator, earliest, position)
    while end > earliest and _joins(text, end):
        end -= 1
    return end


def _joins(text: str, index: int) -> bool:
    """Whether the character at `index` belongs to the one before it, as accents and emoji sequences do."""
    following = text[index]
    return following in JOINERS or text[index - 1] == "\u200d" or unicodedata.combining(following) != 0 or ord(following) in SKIN_TONES


def _slice(spans: Sequence[Span], start: int, end: int) -> list[Span]:
    part: list[Span] = []
    position = 0
    for span in spans:
        text = span.text[max(0, start - position) : max(0, end - position)]
        if text:
            part.append(Span(text, span.styles))
        position += len(span.text)
    return part


# --- rendering -------------------------------------------------------------------------------------------------------


def to_plain(part: Sequence[Span]) -> str:
    """Return the text without any markup."""
    return "".join(span.text for span in part).strip()


def to_html(part: Sequence[Span]) -> str:
    """Return Telegram HTML in which every tag that opens also closes."""
    pieces: list[str] = []
    bounded = [Span(""), *part, Span("")]
    for before, span in pairwise(bounded):
        common = 0
        for one, other in zip(before.styles, span.styles, strict=False):
            if one != other:
                break
            common += 1
        pieces.extend(_closing(style) for style in reversed(before.styles[common:]))
        pieces.extend(_opening(style) for style in span.styles[common:])
        pieces.append(escape(span.text, quote=False))
    return "".join(pieces)


def _opening(style: Style) -> str:
    tag, argument = style
    if tag == "pre" and argument:
        return f'<pre><code class="language-{escape(argument)}">'
    if tag == "a":
        return f'<a href="{escape(argument)}">'
    return f"<{tag}>"


def _closing(style: Style) -> str:
    tag, argument = style
    return "</code></pre>" if tag == "pre" and argument else f"</{tag}>"
