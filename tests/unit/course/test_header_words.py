from __future__ import annotations

from collections import Counter

import pytest

from cloudscale.course import header_words
from cloudscale.course.headings import VOCABULARY, words

LISTS = {name: text for name, text in vars(header_words).items() if name.isupper() and isinstance(text, str)}


def test_each_word_has_one_meaning_and_is_in_its_list_once() -> None:
    counts = Counter(word for text in VOCABULARY.values() for word in words(text))
    assert [word for word, count in counts.items() if count > 1] == []


def test_no_word_is_one_letter_of_ours() -> None:
    """A student may have that letter as the id, or as the name."""
    assert [word for text in VOCABULARY.values() for word in words(text) if len(word) == 1 and word.isascii()] == []


def test_each_list_is_read() -> None:
    assert set(VOCABULARY.values()) == set(LISTS.values()) - {header_words.ABOUT_COLUMNS}


@pytest.mark.parametrize("fix", [*header_words.BEFORE, *header_words.AFTER])
def test_what_stands_around_a_word_is_folded_as_the_words_are(fix: str) -> None:
    assert list(words(fix)) == [fix]
