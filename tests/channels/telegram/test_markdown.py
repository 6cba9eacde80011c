"""Markdown for Telegram: valid for its parser whatever comes in, split by its measure, nothing lost."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openclaw_channels.telegram.markdown import parse, split, to_html, to_parts, to_plain
from tests.emulators.telegram_text import parse_html, utf16_length

FRAGMENTS = ["**", "*", "_", "`", "```", "```python\n", "~~", "> ", "- ", "1. ", "# ", "\n", "\n\n", "[a](https://x.org)", "|", "---",
             "| a | b |\n|---|---|\n", "<b>", "&amp;", "&", "<", "😀", "👨‍👩‍👧", "é", "word ", "    ", "\\", "![i](u)", "\t"]  # fmt: skip
MARKDOWN = st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=8), max_size=60).map("".join)


def html_of(markdown: str) -> str:
    return "\n---\n".join(to_html(part) for part in to_parts(markdown, 4096))


@pytest.mark.parametrize(
    ("markdown", "expected"),
    [
        ("**bold** *it* ~~gone~~ `a < b`", "<b>bold</b> <i>it</i> <s>gone</s> <code>a &lt; b</code>"),
        ("***both***", "<i><b>both</b></i>"),
        ("**a `code` b**", "<b>a </b><code>code</code><b> b</b>"),
        ("# Title\ntext", "<b>Title</b>\n\ntext"),
        ("line\nbreak", "line\nbreak"),
        ('[x](https://x.org/?b="2")', '<a href="https://x.org/?b=%222%22">x</a>'),
        ("[x](https://x.org/?a=1&b=2)", '<a href="https://x.org/?a=1&amp;b=2">x</a>'),
        ("[x](./local)", "x (./local)"),
        ("[x](javascript:alert)", "[x](javascript:alert)"),
        ("![cat](https://x.org/c.png)", '<a href="https://x.org/c.png">cat</a>'),
        ("- a\n- b\n  1. c\n  2. d", "• a\n• b\n  1. c\n  2. d"),
        ("3. a\n4. b", "3. a\n4. b"),
        ("> a\n> b\n>\n> > c", "<blockquote>a\nb\n\nc</blockquote>"),
        ("```js\nif (a<b) {}\n```", '<pre><code class="language-js">if (a&lt;b) {}</code></pre>'),
        ("```\nplain\n```", "<pre>plain</pre>"),
        ("```js\nunfinished", '<pre><code class="language-js">unfinished</code></pre>'),
        ("- item\n\n  ```\n  code\n  ```\n", "• item\n<pre>code</pre>"),
        ("| a | b |\n|---|---|\n| 1 | **22** |", "<pre>a | b\n--+---\n1 | 22</pre>"),
        ("<script>x</script>", "&lt;script&gt;x&lt;/script&gt;"),
        ("a\n\n---\n\nb", "a\n\n———\n\nb"),
        ("2 * 3 * 4 and snake_case_name", "2 * 3 * 4 and snake_case_name"),
        ("  \n\n ", ""),
    ],
)  # fmt: skip
def test_markdown_becomes_telegram_html(markdown: str, expected: str) -> None:
    assert html_of(markdown) == expected


@given(MARKDOWN, st.integers(min_value=16, max_value=200))
@settings(max_examples=300, deadline=None)
def test_every_part_is_valid_html_within_the_limit_and_nothing_is_lost(markdown: str, limit: int) -> None:
    spans = parse(markdown)
    parts = split(spans, limit)
    whole = "".join(span.text for span in spans)
    for part in parts:
        text, _ = parse_html(to_html(part))
        assert text == to_plain(part)
        assert 0 < utf16_length(text) <= limit
    assert "".join("".join(to_plain(part).split()) for part in parts) == "".join(whole.split())


def test_a_code_block_over_a_cut_is_opened_again_with_its_language() -> None:
    code = "\n".join(f"x{number} = {number}" for number in range(30))
    parts = to_parts(f"```python\n{code}\n```", 100)
    assert len(parts) > 2
    for part in parts:
        assert to_html(part).startswith('<pre><code class="language-python">')
        assert to_html(part).endswith("</code></pre>")
    assert "\n".join(to_plain(part) for part in parts) == code


def test_a_cut_is_made_between_paragraphs_rather_than_in_code_or_lines() -> None:
    text = "a" * 60 + "\n\nshort line\n\n```\n" + "\n".join(["code"] * 10) + "\n```"
    first, second = to_parts(text, 100)
    assert to_plain(first).endswith("short line")
    assert to_html(second).startswith("<pre>code")


def test_words_and_emoji_are_not_cut_in_two() -> None:
    words = to_parts("word " * 50, 64)
    assert all(set(to_plain(part).split()) == {"word"} for part in words)
    families = to_parts("👨‍👩‍👧" * 20, 50)
    assert all(to_plain(part).startswith("👨") and to_plain(part).endswith("👧") for part in families)


def test_the_limit_counts_utf16_units() -> None:
    assert [utf16_length(to_plain(part)) for part in to_parts("😀" * 3000, 4096)] == [4096, 1904]


def test_styles_within_styles_by_the_thousand_are_shown_as_they_stand() -> None:
    text = "**" * 20_000 + "a" + "**" * 20_000
    assert "".join(to_plain(part) for part in to_parts(text, 4096)) == text
