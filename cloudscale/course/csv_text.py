"""The text of a CSV file → its lines, split into cells."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from cloudscale.course.headings import find_columns
from cloudscale.errors import RosterError

DELIMITERS = (";", "\t", ",")  # in case of a tie, the first one is used
SHOULD_BE = (
    "Each line is id;name;surname;email. The fields are separated by ; , or tab, and the e-mail is optional. "
    "A file with a header may have other columns, in any order."
)
EXCELS_LINE = re.compile(r'\A"?sep=(.?)"?(?:\r\n|\r|\n|\Z)', re.IGNORECASE)  # it names the delimiter

# Invisible, though not among Unicode's format characters: a joiner, fillers, variation selectors, a blank.
INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
EXCELS_TEXT = re.compile(r'\A="([^"]+)"\Z')  # ="001" keeps Excel from taking an id for a number
JOINERS = "\u200c\u200d"  # part of the spelling in the scripts of these, which join their letters
JOINED = re.compile("[\u0600-\u0dff]")


@dataclass(frozen=True)
class Line:
    """A line that is not blank: its number in the file, its cells, and which of these have a line break."""

    number: int
    cells: tuple[str, ...]
    broken: frozenset[int] = frozenset()

    def cell(self, at: int) -> str:
        return self.cells[at] if at < len(self.cells) else ""


def read_lines(text: str, source: str) -> list[Line]:
    """The lines that are not blank, split by the delimiter that makes a header, or else enough fields of most lines."""
    delimiters, first = DELIMITERS, 1
    if named := EXCELS_LINE.match(text):
        delimiters, first = tuple(named[1]) or DELIMITERS, 2
        text = text[named.end() :]

    attempts: list[list[Line]] = []
    failure: RosterError | None = None
    for delimiter in delimiters:
        try:
            attempts.append(_split(text, delimiter, source, first))
        except RosterError as error:
            failure = failure or error
    if not attempts:
        assert failure
        raise failure
    best = max(attempts, key=_fields)
    if failure and 2 * sum(len(line.cells) > 1 for line in best) <= len(best):  # rather a fault than another delimiter
        raise failure
    return best


def _fields(lines: Sequence[Line]) -> tuple[int, ...]:
    """How well a delimiter divides the lines: the columns of a header, and the lines with three or two fields."""
    headings = len(find_columns(lines[0].cells)) if lines else 0
    return (headings if headings > 1 else 0, *(sum(len(line.cells) > size for line in lines) for size in (2, 1)))


def _split(text: str, delimiter: str, source: str, first: int) -> list[Line]:
    lines, number, is_closed = [], first, False
    # with a line end at its end, a field with an unclosed quotation mark always contains a line end
    reader = csv.reader(io.StringIO(text + "\n", newline=""), delimiter=delimiter)
    try:
        for cells in reader:
            broken = frozenset(at for at, cell in enumerate(cells) if "\n" in cell or "\r" in cell)
            if broken and not is_closed and not (is_closed := _is_closed(text, delimiter)):
                raise RosterError(f"{source}, line {number}: a quotation mark is not closed.", SHOULD_BE)
            cleaned = tuple(map(clean, cells))
            if any(cleaned):
                lines.append(Line(number, cleaned, broken))
            number = reader.line_num + first
    except csv.Error as error:
        cause = "a field is too long. Is a quotation mark not closed?" if "limit" in str(error) else f"{error}."
        raise RosterError(f"{source}, line {number}: {cause}", SHOULD_BE) from None
    return lines


def _is_closed(text: str, delimiter: str) -> bool:
    """Whether each quotation mark that begins a field ends it too."""
    try:
        for _ in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True):
            pass
    except csv.Error:
        return False
    return True


def clean(cell: str) -> str:
    """A cell without what can't be seen: blanks at its ends, characters without width, changes of direction.

    An id with such a character would look like another one, and a name could turn the text around it.
    """
    if not cell.isprintable():  # as each character without width and each change of direction
        cell = "".join(c for at, c in enumerate(cell) if _is_visible(cell, at))
    text = " ".join(unicodedata.normalize("NFC", INVISIBLE.sub("", cell)).split())
    return quoted[1].strip() if (quoted := EXCELS_TEXT.match(text)) else text


def _is_visible(cell: str, at: int) -> bool:
    if cell[at] in JOINERS:
        return at > 0 and bool(JOINED.match(cell[at - 1]))
    return unicodedata.category(cell[at]) != "Cf"


def listed(names: Sequence[str], most: int = 12) -> str:
    """The names of columns, for a message."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(name if len(name) <= 60 else f"{name[:59]}…" for name in names[:most]) + more
