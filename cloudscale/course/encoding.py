"""The bytes of a CSV file → text. An encoding that is guessed is reported, with a sample."""

from __future__ import annotations

import codecs
import io
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cloudscale.course.csv_text import SHOULD_BE, clean
from cloudscale.course.headings import find_columns
from cloudscale.errors import RosterError

SAVE_AS = "Save the file as “CSV UTF-8” (in Excel: Save As, file type; in LibreOffice: character set)."
ENCODINGS = {  # what programs write that do not write Unicode; the first one that makes sense is taken
    "cp1252": "Windows-1252 (Western Europe)",
    "cp1250": "Windows-1250 (Central Europe)",
    "mac_roman": "Mac Roman",
}
SPREADSHEETS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # how .xlsx and .ods, and .xls begin
CELLS = re.compile(r'[^;,\t"\r\n]+')

# The signs that may stand next to a letter. Any other one is a letter that was read wrongly: J†rgen, £ukasz.
BEFORE_A_CAPITAL = "’´‘–—"  # and after a letter, as in O’Neill
BETWEEN_LETTERS = "°ºª"
BEFORE_A_LETTER = "’‘“„‚‹«¡"
AFTER_A_LETTER = "’´”»›ºª°…"
SELDOM = frozenset(bytes(range(0x80, 0xA0)).decode("cp1252", "ignore"))  # inside a word, more likely of a Mac
MANY = 4  # letters beyond ASCII in a row: no name in Latin letters has them, in another script all names have


@dataclass(frozen=True)
class Text:
    """What a file says; `remark` is for the user if the encoding was guessed."""

    content: str
    remark: str = ""


def decode(data: bytes, source: str) -> Text:
    """UTF-8 and UTF-16 with or without a byte-order mark, UTF-32 with one, or what Windows wrote before.

    Raises RosterError.
    """
    if data.startswith(SPREADSHEETS):
        raise RosterError(f"{source}, line 1: this is a spreadsheet's own file, not a CSV.", SAVE_AS)
    if data.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):  # the first one begins as that of UTF-16
        return Text(_read(data, "utf-32", source))
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return Text(_read(data, "utf-16", source))
    if data.count(0) > 2:  # in UTF-16, delimiters and line ends have a zero byte, whatever the script
        encoding = "utf-16-le" if data[1::2].count(0) > data[0::2].count(0) else "utf-16-be"
        text = _read(data, encoding, source)
        return Text(text, _remark(text, encoding.upper(), source))
    try:
        text = _checked(data.decode("utf-8-sig"), source)
    except UnicodeDecodeError:
        return _guess(data, source)
    for cell in CELLS.finditer(text):
        if not cell[0].isascii() and _is_damaged(cell[0]):
            raise RosterError(
                f"{source}, line {_line_of(cell)}: {clean(cell[0])!r} was damaged when the file was saved.",
                f"Export the students again. {SAVE_AS}",
            )
    return Text(text)


def _read(data: bytes, encoding: str, source: str) -> str:
    try:
        return _checked(data.decode(encoding).removeprefix("\ufeff"), source)
    except UnicodeDecodeError:
        raise RosterError(f"{source}, line 1: this is a binary file, not a CSV.", SHOULD_BE) from None


def _checked(text: str, source: str) -> str:
    for number, line in enumerate(io.StringIO(text, newline=None), start=1):
        if any(unicodedata.category(c) == "Cc" and c not in "\t\n\v\f" for c in line):
            raise RosterError(f"{source}, line {number}: a control character. Is this a binary file?", SHOULD_BE)
    return text


def _guess(data: bytes, source: str) -> Text:
    _checked(data.decode("latin-1").translate(dict.fromkeys(range(0x80, 0xA0), " ")), source)
    for number, line in enumerate(data.splitlines(), start=1):
        if not line.isascii() and _is_utf_8(line):
            raise RosterError(f"{source}, line {number}: this line is in UTF-8, and other lines are not.", SAVE_AS)
    texts = {name: data.decode(name, "replace") for name in ENCODINGS}
    sensible = {name: text for name, text in texts.items() if not _first_wrong(text, name)}
    known = {name: _known_words(text) for name, text in sensible.items()}
    best = max(sensible, key=lambda name: known[name], default="")  # of two, the header decides
    for_mac_too = best == "cp1250" and known[best] <= known.get("mac_roman", -1)
    if best in ("", "mac_roman") or for_mac_too:
        raise _senseless(texts, list(sensible), source)
    return Text(sensible[best], _remark(sensible[best], ENCODINGS[best], source))


def _is_utf_8(data: bytes) -> bool:
    try:
        return bool(data.decode())
    except UnicodeDecodeError:
        return False


def _is_damaged(cell: str) -> bool:
    """Whether a program read a cell in another encoding before it wrote it as UTF-8: MÃ¼ller, or M?ller with U+FFFD."""
    try:
        return "\ufffd" in cell or _is_utf_8(cell.encode("cp1252"))
    except UnicodeEncodeError:
        return False


def _line_of(cell: re.Match[str]) -> int:
    return len(re.findall(r"\r\n|\r|\n", cell.string[: cell.start()])) + 1


def _known_words(text: str) -> int:
    """How many columns of the first line have a known heading."""
    first = next(filter(None, map(str.strip, text.splitlines())), "")
    return len(find_columns(re.split(r"[;,\t]", first)))


def _first_wrong(text: str, encoding: str) -> re.Match[str] | None:
    """The first cell that nobody would write so."""
    cells = (cell for cell in CELLS.finditer(text) if not cell[0].isascii())
    return next((cell for cell in cells if _is_wrong(cell[0], SELDOM if encoding == "cp1252" else frozenset())), None)


def _is_wrong(cell: str, seldom: frozenset[str]) -> bool:
    in_a_row = 0
    for before, c, after in zip(f" {cell}", cell, f"{cell[1:]} ", strict=False):
        in_a_row = in_a_row + 1 if c.isalpha() and not c.isascii() else 0
        if in_a_row == MANY or c == "\ufffd":
            return True
        if c.isalpha() and not c.isascii():
            is_inside = before.isalpha() and after.isalpha()
            if "LATIN" not in unicodedata.name(c) or (before.islower() and c.isupper()) or (is_inside and c in seldom):
                return True
        elif not c.isascii() and not c.isspace() and not _may_stand(before, c, after):
            return True
    return False


def _may_stand(before: str, sign: str, after: str) -> bool:
    """Whether that sign is written between these two characters."""
    if before.isalpha() and after.isalpha():
        is_catalan = f"{before}{sign}{after}".casefold() == "l·l"
        return sign in BETWEEN_LETTERS or is_catalan or (sign in BEFORE_A_CAPITAL and after.isupper())
    return not ((before.isalpha() and sign not in AFTER_A_LETTER) or (after.isalpha() and sign not in BEFORE_A_LETTER))


def _remark(text: str, encoding: str, source: str) -> str:
    cells = [cell for cell in map(clean, CELLS.findall(text)) if cell]
    samples = [cell for cell in cells if not cell.isascii()] or cells
    sample = ", ".join(list(dict.fromkeys(samples))[:4])[:120]
    return (
        f"Warning: {source} is not in UTF-8. It was read as {encoding}, such as: {sample}. If that is wrong: {SAVE_AS}"
    )


def _senseless(texts: Mapping[str, str], sensible: Sequence[str], source: str) -> RosterError:
    wrong = _first_wrong(texts["cp1252"], "cp1252") or _first_wrong(texts["cp1250"], "cp1250")
    if not wrong:  # only the header tells that it is another one
        return RosterError(f"{source}, line 1: the file is not in UTF-8, and its encoding is not clear.", SAVE_AS)
    # these encodings have one byte for each character, so a cell has the same place in all of them
    others = dict.fromkeys(clean(texts[name][wrong.start() : wrong.end()]) for name in sensible)
    maybe = f" (is it {' or '.join(others)}?)" if others else ""
    return RosterError(
        f"{source}, line {_line_of(wrong)}: the file is not in UTF-8, and {clean(wrong[0])!r} makes no sense{maybe}.",
        SAVE_AS,
    )
