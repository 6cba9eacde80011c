"""HTML as text or Markdown, in one pass whose time is linear in the page, whatever the page. Pure.

The parser of the standard library takes quadratic time on hostile pages (and asserts on some), hence a scanner of our own:
it only ever moves forward.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urljoin

_TAG_NAME: Final = re.compile(r"/?([A-Za-z][A-Za-z0-9:-]*)")
_QUOTE_OR_END: Final = re.compile(r"""=\s{0,8}["']|>""")
_HREF: Final = re.compile(r"""\shref\s{0,8}=\s{0,8}(?:"([^"]*)"|'([^']*)'|([^\s"'>]+))""", re.IGNORECASE)

_HIDDEN: Final = frozenset({"script", "style", "noscript", "template", "svg", "iframe", "object", "nav", "textarea", "title"})
_CLOSING: Final = {name: re.compile(f"</{name}", re.IGNORECASE) for name in _HIDDEN}
_BLOCKS: Final = frozenset(
    {"p", "div", "section", "article", "main", "header", "footer", "aside", "ul", "ol", "dl", "table", "blockquote"}
    | {"form", "fieldset", "figure", "figcaption", "details", "summary", "address", "body", "hr"}
)
_LINES: Final = frozenset({"br", "tr", "dt", "dd", "option"})
_HEADINGS: Final = {f"h{level}": "#" * level for level in range(1, 7)}


@dataclass(frozen=True, slots=True)
class _Tag:
    name: str
    closing: bool
    source: str


@dataclass(slots=True)
class _Writer:
    """Collects text; `markdown` adds marks for headings, items, code and links."""

    markdown: bool
    base_url: str
    pieces: list[str] = field(default_factory=list)
    link: tuple[int, str] | None = None
    """The open link: the index of its first piece, and where it leads."""
    preformatted: int = 0

    def text(self, raw: str) -> None:
        text = html.unescape(raw)
        if self.preformatted:
            self.pieces.append(text)
            return
        words = " ".join(text.split())
        if not words:
            if text:
                self._space()
            return
        if text[0].isspace():
            self._space()
        self.pieces.append(words)
        if text[-1].isspace():
            self._space()

    def tag(self, tag: _Tag) -> None:
        name = tag.name
        if name in _HEADINGS:
            self.pieces.append("\n\n" if tag.closing or not self.markdown else f"\n\n{_HEADINGS[name]} ")
        elif name in _BLOCKS:
            self.pieces.append("\n\n")
        elif name in _LINES:
            self.pieces.append("\n")
        elif name == "li" and not tag.closing:
            self.pieces.append("\n- ")
        elif name in ("td", "th") and tag.closing:
            self.pieces.append(" | ")
        elif name == "pre":
            self._pre(closing=tag.closing)
        elif name == "code" and self.markdown and not self.preformatted:
            self.pieces.append("`")
        elif name == "a" and self.markdown:
            self._link(tag)

    def _pre(self, *, closing: bool) -> None:
        self.preformatted = max(0, self.preformatted + (-1 if closing else 1))
        self.pieces.append("\n```\n" if self.markdown else "\n\n")

    def _link(self, tag: _Tag) -> None:
        # Links do not nest: the next one ends the one before, as in browsers.
        if self.link is not None:
            start, href = self.link
            self.link = None
            if href and any(piece.strip() for piece in self.pieces[start + 1 :]):
                self.pieces.append(f"]({href})")
            else:
                self.pieces[start] = ""
        if not tag.closing:
            href = _href(tag.source, self.base_url)
            self.link = (len(self.pieces), href)
            self.pieces.append("[" if href else "")

    def _space(self) -> None:
        if self.pieces and not self.pieces[-1].endswith((" ", "\n")):
            self.pieces.append(" ")

    def result(self) -> str:
        """Return the text with at most one empty line in a row."""
        lines: list[str] = []
        for line in map(str.rstrip, "".join(self.pieces).split("\n")):
            if line or (lines and lines[-1]):
                lines.append(line)
        return "\n".join(lines).strip()


def readable(page: str, *, markdown: bool, base_url: str) -> tuple[str, str]:
    """Return the title and the visible text of a page; links are made absolute against `base_url`."""
    writer = _Writer(markdown, base_url)
    title = ""
    for item in _scan(page):
        if isinstance(item, str):
            writer.text(item)
        elif item.name == "title" and not item.closing:
            title = title or " ".join(html.unescape(item.source).split())
        else:
            writer.tag(item)
    return title, writer.result()


def _scan(page: str) -> Iterator[str | _Tag]:
    """Yield texts and tags in order. Hidden elements are one tag, whose source is what they hold."""
    position = 0
    while (opened := page.find("<", position)) >= 0:
        if opened > position:
            yield page[position:opened]
        position = opened + 1
        if page.startswith("<!--", opened):
            end = page.find("-->", opened + 4)
            position = end + 3 if end >= 0 else len(page)
        elif page.startswith(("<!", "<?"), opened):
            end = page.find(">", opened)
            position = end + 1 if end >= 0 else len(page)
        elif found := _TAG_NAME.match(page, position):
            end = _tag_end(page, found.end())
            name, closing = found[1].lower(), page[position] == "/"
            position = end + 1
            if name in _HIDDEN and not closing and page[end - 1] != "/":
                close = _CLOSING[name].search(page, position)
                stop = close.start() if close is not None else len(page)
                yield _Tag(name, closing=False, source=page[position:stop])
                position = stop
            else:
                yield _Tag(name, closing=closing, source=page[found.end() : end])
        else:
            yield "<"
    if position < len(page):
        yield page[position:]


def _tag_end(page: str, position: int) -> int:
    """Return where a tag's `>` is, skipping those in quoted values; the end of the page where there is none."""
    while found := _QUOTE_OR_END.search(page, position):
        if found[0] == ">":
            return found.start()
        closing = page.find(found[0][-1], found.end())
        if closing < 0:
            end = page.find(">", found.end())
            return end if end >= 0 else len(page)
        position = closing + 1
    return len(page)


def _href(source: str, base_url: str) -> str:
    found = _HREF.search(source)
    if found is None:
        return ""
    href = html.unescape(found[1] or found[2] or found[3] or "").strip()
    if not href or href.startswith("#"):
        return ""
    try:
        absolute = urljoin(base_url, href)
    except ValueError:
        return ""
    return absolute.replace(" ", "%20").replace(")", "%29") if absolute.startswith(("http:", "https:", "mailto:")) else ""
