"""The token estimate and its cuts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from openclaw_plugins.agents.tokens import CUT_NOTE, CUT_NOTE_TOKENS, beginning, cut, cut_middle, estimate

texts = st.one_of(
    st.text(max_size=200),
    st.text(alphabet="ab \n\t1,.\u4e16\U0001f600", max_size=200),
    st.text(alphabet=st.characters(), max_size=50),
)


@given(texts, texts)
def test_an_estimate_never_shrinks_by_appending_and_parts_are_never_less(head: str, tail: str) -> None:
    assert estimate(head) <= estimate(head + tail) <= estimate(head) + estimate(tail)


def test_what_tokenizers_split_finely_counts_by_the_byte() -> None:
    assert estimate("0123456789") == 10
    assert estimate("{}[]();") == 7
    assert estimate("\u4e16\u754c") == 6
    assert estimate("\n\n\n") == 3
    assert estimate("") == 0


def test_plain_words_count_less_than_their_bytes_and_no_less_than_themselves() -> None:
    sentence = "the quick brown fox jumps over the lazy dog"
    assert len(sentence.split()) <= estimate(sentence) < len(sentence)


@given(texts, st.integers(0, 120))
def test_cuts_keep_the_ceiling(text: str, ceiling: int) -> None:
    for shorter in (beginning(text, ceiling), cut(text, ceiling), cut_middle(text, ceiling)):
        assert estimate(shorter) <= ceiling
        if estimate(text) <= ceiling:
            assert shorter == text


@given(st.text(alphabet="ab ", min_size=400, max_size=600), st.integers(CUT_NOTE_TOKENS + 10, 60))
def test_cuts_keep_the_beginning_or_both_ends_and_say_so(text: str, ceiling: int) -> None:
    assert CUT_NOTE in cut(text, ceiling)
    assert text.startswith(cut(text, ceiling).removesuffix(CUT_NOTE))
    head, note, tail = cut_middle(text, ceiling).partition(CUT_NOTE)
    assert note
    assert text.startswith(head)
    assert text.endswith(tail[1:])
    assert head
    assert len(tail) > 1
