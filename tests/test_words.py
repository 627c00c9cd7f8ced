"""Words: both tokenizers, the count of words, and the key of same wording."""

# ruff: noqa: RUF001 (look-alikes of ASCII letters are what is tested)

from __future__ import annotations

import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score import tokenize as rouge_tokenize

from selfinstruct.steps.words import (
    _SIGNS,
    TOKENIZERS,
    _patterns,
    alpaca_words,
    count_words,
    folded,
    normal,
    same_wording,
    unicode_words,
)

ANY_TEXT = st.text(st.characters(), max_size=60)  # lone surrogates included
ASCII = st.text(st.characters(max_codepoint=127), max_size=60)
# Characters whose lower-casing is more than a table of letters.
TRICKY = st.text(st.sampled_from("aZ9 _-'İıſKßΣσςǅﬁé\u0301\u212b①½\ud800\0\n"), max_size=30)


@given(ANY_TEXT | TRICKY)
def test_alpaca_gives_the_words_of_rouge_score(text: str) -> None:
    """The alpaca tokenizer is rouge_score's default one without stemming, on any text."""
    assert alpaca_words(text) == rouge_tokenize.tokenize(text, None)


@given(ASCII)
def test_both_agree_on_ascii(text: str) -> None:
    """On ASCII text the unicode tokenizer gives what the alpaca tokenizer gives."""
    assert unicode_words(text) == alpaca_words(text)


@given(ASCII)
def test_ascii_takes_no_short_cut_to_another_answer(text: str) -> None:
    """An accent elsewhere in the text does not change the words of its ASCII part."""
    assert unicode_words(f"{text} é") == [*alpaca_words(text), "é"]


@given(
    ANY_TEXT
    | TRICKY
    | st.text(st.sampled_from("aB é\u0301\u200b\u3000\u0e01\u1100\u1161\u00b4"), max_size=60)
)
def test_words_piece_by_piece_are_those_of_the_whole(text: str) -> None:
    """Splitting at spaces first, and keeping pieces that come again, changes no word."""
    assert unicode_words(text) == _patterns().word.findall(folded(text))


@given(
    st.text(
        st.sampled_from("aB3 _-'\u2019\u201c\u2013\u2026\u00b0\u00d7\u2192\u2044\u00a0"),
        max_size=30,
    )
)
def test_typographic_signs_take_no_short_cut_to_another_answer(text: str) -> None:
    """Quotes, dashes, arrows and the like do not change the words of the ASCII around them."""
    assert unicode_words(f"{text} é") == [*unicode_words(text), "é"]


def test_no_sign_of_the_short_cut_is_part_of_a_word() -> None:
    """Each of them separates words, also in the long way, which it is there to save."""
    signs = [chr(point) for point in range(0x3000) if _SIGNS.fullmatch(chr(point))]
    assert len(signs) > 400
    for sign in signs:
        assert unicode_words(f"a{sign}b{sign} é") == ["a", "b", "é"], hex(ord(sign))


@given(ANY_TEXT | TRICKY)
def test_words_are_stable(text: str) -> None:
    """Words joined by spaces have the same words again, unless a script has no spaces."""
    words = unicode_words(text)
    assert unicode_words(" ".join(words)) == words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Café, naïve!", ["café", "naïve"]),
        ("Cafe\u0301", ["café"]),  # decomposed
        ("don’t", ["don", "t"]),  # as "don't"
        ("snake_case", ["snake", "case"]),
        ("１２ ＡＢＣ ﬁn", ["12", "abc", "fin"]),  # compatibility forms
        ("STRASSE Straße", ["strasse", "strasse"]),
        ("Привет, МИР", ["привет", "мир"]),
        ("한국어 문장", ["한국어", "문장"]),
        ("हिन्दी में लिखो", ["हिन्दी", "में", "लिखो"]),  # vowel signs and virama stay
        ("翻译这个 sentence。", ["翻", "译", "这", "个", "sentence"]),
        ("カタカナ・です", ["カ", "タ", "カ", "ナ", "で", "す"]),
        ("ที่นี่", ["ที่", "นี่"]),  # Thai: one word a letter, with its vowel and tone
        ("ខ្មែរ", ["ខ្", "មែ", "រ"]),
        ("မြန်မာ", ["မြ", "န်", "မာ"]),
        ("ພາສາ", ["ພ", "າ", "ສ", "າ"]),
        ("می\u200cخواهم", ["میخواهم"]),  # a joiner is no space
        ("שָׁלוֹם", [unicodedata.normalize("NFKC", "שָׁלוֹם")]),
        ("👍🏽 😀", []),
        ("", []),
    ],
)
def test_unicode_words_of_scripts(text: str, words: list[str]) -> None:
    """Every script gets words; marks stay with their letter, look-alikes are folded."""
    assert unicode_words(text) == words


@given(ANY_TEXT | TRICKY)
def test_spaced_text_is_counted_as_alpaca_counts(text: str) -> None:
    """Without a script that has no spaces, the count is that of `str.split`."""
    if not any(character >= "\u0e00" for character in normal(text)):
        assert count_words(text) == len(normal(text).split())


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("Write - a poem", 4),
        ("翻译这个句子。", 3),
        ("翻译 this sentence 成中文", 5),
        ("ที่นี่", 1),
        ("Schreib’s auf", 2),
        ("", 0),
    ],
)
def test_characters_count_half_where_there_are_no_spaces(text: str, count: int) -> None:
    """Two characters of a script without spaces count as a word, marks and punctuation not."""
    assert count_words(text) == count


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Name three  colours.", "name three colours"),
        ("“Why?” he asked", '"why" he asked'),
        ("Cafe\u0301!", "café"),
        ("翻译。", "翻译"),
    ],
)
def test_same_wording(one: str, other: str) -> None:
    """Case, spacing and punctuation at the ends of words make no other wording."""
    assert same_wording(one) == same_wording(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("What is 2+2?", "What is 2-2?"), ("Round 3.14", "Round 314"), ("?", "!"), ("😀", "😃")],
)
def test_other_wording(one: str, other: str) -> None:
    """Symbols inside words, and text without words, are told apart."""
    assert same_wording(one) != same_wording(other)


@pytest.mark.parametrize(
    "text",
    [
        "a" + "\u0301\u0316" * 500_000,  # marks that normalisation has to sort
        "é" * 1_000_000,
        "字" * 1_000_000,
        "\ud800" * 1_000_000,
        "\ufdfa" * 50_000,  # grows eighteenfold under NFKC
        "a-" * 500_000,
        "\u200b" * 1_000_000,
    ],
    ids=["marks", "accents", "Chinese", "surrogates", "ligatures", "hyphens", "invisible"],
)
def test_a_megabyte_of_anything_is_quick(text: str) -> None:
    """Each function takes time linear in the text: seconds for a megabyte would be quadratic."""
    begin = time.process_time()
    for function in (*TOKENIZERS.values(), folded, count_words, same_wording):
        function(text)
    assert time.process_time() - begin < 10
