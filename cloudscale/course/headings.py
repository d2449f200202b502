"""What the heading of a column means, in any of the languages and platforms of header_words."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from functools import cache

from cloudscale.course import header_words

ID, LOGIN, EMAIL, COUNT = "id", "login", "email", "count"
GIVEN, SURNAME, FULL, NAME, OTHER = "given", "surname", "full", "name", "other"
BEFORE_SURNAME, AFTER_SURNAME = "before surname", "after surname"
VOCABULARY = {
    ID: header_words.ID,
    LOGIN: header_words.LOGIN,
    EMAIL: header_words.EMAIL,
    COUNT: header_words.COUNT,
    GIVEN: header_words.GIVEN,
    SURNAME: header_words.SURNAME,
    BEFORE_SURNAME: header_words.BEFORE_SURNAME,
    AFTER_SURNAME: header_words.AFTER_SURNAME,
    FULL: header_words.FULL,
    NAME: header_words.NAME,
    OTHER: header_words.OTHER,
}
IDS = (ID, LOGIN, EMAIL, COUNT)  # what can be a student's id, the best first
NAMES = (GIVEN, SURNAME, FULL, NAME)

LETTERS = str.maketrans({"#": "no", "ı": "i", "ł": "l", "ø": "o", "đ": "d", "æ": "ae", "œ": "oe", "þ": "th", "ð": "d"})
BRACKETS = re.compile(r"[(\[{<][^()\[\]{}<>]*[)\]}>]")
LANGUAGES = re.compile(r"[/|]|\s[-–—]\s")  # `Name / Nom`
SIGNS = re.compile(rf"{BRACKETS.pattern}|{LANGUAGES.pattern}")
SHORTEST = 4  # letters of a word that is looked for inside a longer one: else Jen would be "je" and "n"

Rank = tuple[int, int, str]  # the lower, the better
Found = Mapping[int, tuple[str, Rank]]  # position of a column → meaning and rank


def fold(text: str) -> str:
    """The letters and digits of a text, without case and accents: `E-Mail *` becomes `email`."""
    plain = unicodedata.normalize("NFKD", text.casefold().translate(LETTERS))
    return "".join(filter(str.isalnum, plain))


def words(text: str) -> Iterator[str]:
    """The folded words of one list of header_words, in order."""
    yield from filter(None, map(fold, re.split(r"[|\n]", text)))


def find_columns(cells: Sequence[str]) -> Found:
    """The columns whose headings are known."""
    found = {at: meaning(cell) for at, cell in enumerate(cells)}
    return {at: known for at, known in found.items() if known}


def meaning(heading: str) -> tuple[str, Rank] | None:
    """What a column with that heading has, and how well the heading says so. None: unknown."""
    attempts = [[heading]]
    if SIGNS.search(heading):  # seldom: each line of a file is looked at, in case it is a header
        attempts += [[BRACKETS.sub(" ", heading)], LANGUAGES.split(heading)]
    for attempt, texts in enumerate(attempts):
        found = [_look_up(word) for word in map(fold, texts) if word]
        if found and found[0] and len({known and known[0] for known in found}) == 1:
            role, place, is_inside = found[0]
            return role, (place, 2 * attempt + is_inside, fold(heading))
    return None


def _look_up(word: str) -> tuple[str, int, bool] | None:
    """The meaning of a word, its place in the list, and whether it was found inside the word."""
    if word in _places():
        return *_places()[word], False
    if not (word.startswith(header_words.BEFORE) or word.endswith(header_words.AFTER)):
        return None
    starts = [word, *(word.removeprefix(prefix) for prefix in header_words.BEFORE if word.startswith(prefix))]
    for inner in (start.removesuffix(suffix) for start in starts for suffix in ("", *header_words.AFTER)):
        if len(inner) >= SHORTEST and inner in _places():
            return *_places()[inner], True
    return None


@cache
def _places() -> dict[str, tuple[str, int]]:
    """Word → its meaning and its place in the list of that meaning."""
    return {word: (role, at) for role, text in VOCABULARY.items() for at, word in enumerate(words(text))}


def is_about_columns(cell: str) -> bool:
    """Whether a first cell says that its line is about the columns and no student: `Points Possible`."""
    return fold(cell) in _about_columns()


@cache
def _about_columns() -> frozenset[str]:
    return frozenset(words(header_words.ABOUT_COLUMNS))
