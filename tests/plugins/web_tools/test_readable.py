"""Pages as text."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openclaw_plugins.web_tools.readable import readable

PAGE = """<!DOCTYPE html>
<html><head><title>A &amp; B
 page</title><style>p > b { color: red }</style><script>if (a < b) { document.write("</p>") }</script></head>
<body><nav><a href="/menu">Menu</a></nav><!-- <p>hidden</p> -->
<h1>Head<b>line</b></h1><p>One  two
three &lt;four&gt;.</p><ul><li>first</li><li><a href="/x?a=1&amp;b=2" title="a > b">second</a></li></ul>
<pre>  keep
    this</pre><p>Use <code>ls</code>, <a href="#top">top</a><a href="javascript:evil()"> bad</a>.<br>Next</p>
<table><tr><td>1</td><td>2</td></tr></table><a href="/img"><img src=x></a></body></html>"""


def test_markdown_keeps_headings_links_items_and_code() -> None:
    title, text = readable(PAGE, markdown=True, base_url="https://example.org/dir/page")
    assert title == "A & B page"
    assert text == (
        "# Headline\n\nOne two three <four>.\n\n- first\n- [second](https://example.org/x?a=1&b=2)\n\n"
        "```\n  keep\n    this\n```\n\nUse `ls`, top bad.\nNext\n\n1 | 2 |"
    )


def test_text_keeps_the_words_only() -> None:
    _, text = readable(PAGE, markdown=False, base_url="https://example.org/")
    assert text.startswith("Headline\n\nOne two three <four>.\n\n- first\n- second\n\n")
    assert "](" not in text


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("plain", "plain"),
        ("a < b and c > d", "a < b and c > d"),
        ("<p>never closed", "never closed"),
        ("<p title='>'>x</p>", "x"),
        ("<p title='open>x</p>", "x"),
        ("x<!-- never closed", "x"),
        ("x<script>never closed", "x"),
        ("x<b", "x"),
        ("a<br/>b", "a\nb"),
        ("</p></a></pre>x", "x"),
        ("<SCRIPT>no</SCRIPT >yes", "yes"),
        ("&#x41;&bogus;&amp", "A&bogus;&"),
        ("", ""),
    ],
)
def test_broken_pages_still_read(page: str, text: str) -> None:
    assert readable(page, markdown=False, base_url="https://example.org/")[1] == text


HOSTILE = ["<", "<!", "<!--", "<!-- -", "<a ", "<a b='", '<a b="', "<a b=", "</", "<?", "<![", "&", "&#", "<script>", "</a>"]
HOSTILE += ["<a href=x>", "<pre>", "<li>", "<title>", "<a href='x' ", " href=", "<p>x", "<td></td>", "\n", " "]


@pytest.mark.parametrize("piece", HOSTILE)
def test_time_grows_with_the_page_and_not_with_its_square(piece: str) -> None:
    def seconds(length: int) -> float:
        page = piece * (length // len(piece))
        started = time.process_time()
        readable(page, markdown=True, base_url="https://example.org/")
        return time.process_time() - started

    seconds(10_000)
    # Eight times the page; a square would take sixty-four times as long.
    assert seconds(800_000) < 25 * max(seconds(100_000), 0.01)


tags = st.sampled_from(
    [
        "<p>",
        "</p>",
        "<a href='x'>",
        "</a>",
        "<pre>",
        "</pre>",
        "<script>",
        "</script>",
        "<!--",
        "-->",
        "<h1>",
        "</h1>",
        "<li>",
        '"',
        "'",
        ">",
        "<",
        "</",
        "&amp;",
        "word",
        " ",
        "\n",
    ]
)


@settings(max_examples=200, deadline=None)
@given(st.lists(tags, max_size=30).map("".join), st.booleans())
def test_any_page_reads_without_hidden_parts_or_wide_gaps(page: str, markdown: bool) -> None:
    _, text = readable(page, markdown=markdown, base_url="https://example.org/")
    assert "\n\n\n" not in text
    assert text == text.strip()
