"""The students' CSV file → students. Every error names the line."""

from __future__ import annotations

import codecs
import csv
import io
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from cloudscale.errors import RosterError
from cloudscale.model import Student

DELIMITERS = (";", "\t", ",")  # in case of a tie, the first one is used
COLUMNS = ("id", "name", "surname", "email")
SYNONYMS = {
    "id": "id",
    "student id": "id",
    "name": "name",
    "first name": "name",
    "firstname": "name",
    "given name": "name",
    "surname": "surname",
    "last name": "surname",
    "lastname": "surname",
    "family name": "surname",
    "email": "email",
    "e-mail": "email",
    "mail": "email",
}
LARGEST = 16 * 1024 * 1024  # bytes; a larger file is not the file of a class
SHOULD_BE = "Each line is id;name;surname;email. The fields are separated by ; , or tab, and the e-mail is optional."

Record = tuple[int, list[str]]  # line number, cells


def read_roster(path: Path) -> list[Student]:
    """The students of a file, in its order. Raises RosterError."""
    try:
        if path.stat().st_size > LARGEST:
            raise RosterError(f"{path} is larger than {LARGEST >> 20} MiB. It can't be a students' file.", SHOULD_BE)
        data = path.read_bytes()
    except FileNotFoundError:
        raise RosterError(
            f"The students' file {path} does not exist.",
            "Give its name with --students FILE. students.csv.example is an example.",
        ) from None
    except OSError as error:
        raise RosterError(
            f"The students' file {path} can't be read: {error.strerror}.", "Check the file and its permissions."
        ) from None
    return parse_roster(data, str(path))


def parse_roster(data: bytes, source: str) -> list[Student]:
    """The students in the content of a file. `source` is the file's name for messages. Raises RosterError."""
    records = _records(_decode(data, source), source)
    if not records:
        raise RosterError(f"{source}, line 1: the file is empty.", SHOULD_BE)
    columns = _header(records[0], source)
    body = records[1:] if columns else records
    if not body:
        raise RosterError(f"{source}, line {records[0][0]}: after the header, there are no students.", SHOULD_BE)
    positions = columns or {name: at for at, name in enumerate(COLUMNS)}

    students: list[Student] = []
    lines: dict[str, int] = {}
    for line, cells in body:
        student = _student(cells, positions, source, line)
        if student.id in lines:
            raise RosterError(
                f"{source}, line {line}: the id {student.id!r} is already on line {lines[student.id]}.",
                "Give each student a different id. Password and volume depend on it.",
            )
        lines[student.id] = line
        students.append(student)
    return students


def _decode(data: bytes, source: str) -> str:
    """Decodes UTF-8 and UTF-16, with or without a byte-order mark, and otherwise Windows' variant of Latin-1."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        candidates = ["utf-16"]
    elif data.count(0) > 2:  # in UTF-16, delimiters and line ends have a zero byte, whatever the script
        candidates = ["utf-16-le" if data[1::2].count(0) > data[0::2].count(0) else "utf-16-be"]
    else:
        candidates = ["utf-8-sig", "cp1252", "latin-1"]
    for encoding in candidates:
        try:
            text = data.decode(encoding)
            break
        except UnicodeDecodeError:
            continue
    else:
        raise RosterError(f"{source}, line 1: this is a binary file, not a CSV.", SHOULD_BE)
    for line, content in enumerate(io.StringIO(text, newline=None), start=1):
        if any(unicodedata.category(c) == "Cc" and c not in "\t\n\v\f" for c in content):
            raise RosterError(f"{source}, line {line}: a control character. Is this a binary file?", SHOULD_BE)
    return text


def _records(text: str, source: str) -> list[Record]:
    """The lines that are not blank, split by the delimiter with which most lines have enough fields."""
    skipped = 0
    first, _, rest = text.partition("\n")
    if first.strip().lower().startswith("sep=") and len(first.strip()) <= 5:  # for Excel, the delimiter
        text, skipped = rest, 1

    attempts: list[list[Record]] = []
    failure: RosterError | None = None
    for delimiter in DELIMITERS:
        try:
            attempts.append(_split(text, delimiter, source, 1 + skipped))
        except RosterError as error:
            failure = failure or error
    if not attempts:
        assert failure
        raise failure
    best = max(attempts, key=lambda records: [sum(len(cells) > size for _, cells in records) for size in (2, 1)])
    if failure and not any(len(cells) > 2 for _, cells in best):
        raise failure
    return best


def _split(text: str, delimiter: str, source: str, first_line: int) -> list[Record]:
    records, line = [], first_line
    # with a line end at its end, a field with an unclosed quotation mark always contains a line end
    reader = csv.reader(io.StringIO(text + "\n", newline=""), delimiter=delimiter)
    try:
        for cells in reader:
            if any("\n" in cell or "\r" in cell for cell in cells):
                raise RosterError(f"{source}, line {line}: a quotation mark is not closed.", SHOULD_BE)
            cleaned = [" ".join(unicodedata.normalize("NFC", cell).split()) for cell in cells]
            if any(cleaned):
                records.append((line, cleaned))
            line = reader.line_num + first_line
    except csv.Error as error:
        raise RosterError(f"{source}, line {line}: {error}.", SHOULD_BE) from None
    return records


def _header(record: Record, source: str) -> dict[str, int] | None:
    """Column name → position, or None if the first line is not a header but a student."""
    line, cells = record
    names = [SYNONYMS.get(cell.lower()) for cell in cells]
    known = [name for name in names if name]
    if "id" not in known:
        if len(known) < 2:
            return None
        raise RosterError(
            f"{source}, line {line}: this looks like a header without a column named id.",
            "Give each student an id that stays the same for the whole course. Password and volume depend on it.",
        )
    if "name" not in known and "surname" not in known:
        if names[0] != "id":  # a student whose name is Id
            return None
        raise RosterError(
            f"{source}, line {line}: this looks like a header without a column named name or surname.",
            f"The columns are {', '.join(COLUMNS)}, in any order.",
        )
    if len(known) != len(set(known)):
        raise RosterError(f"{source}, line {line}: the header has the same column twice.", "Rename one of them.")
    return {name: at for at, name in enumerate(names) if name}


def _student(cells: Sequence[str], positions: dict[str, int], source: str, line: int) -> Student:
    needed = max(at for name, at in positions.items() if name != "email") + 1
    if len(cells) < needed:
        raise RosterError(
            f"{source}, line {line}: {len(cells)} field{'s' if len(cells) > 1 else ''}, and {needed} are needed.",
            SHOULD_BE,
        )
    values = {name: cells[at] if at < len(cells) else "" for name, at in positions.items()}
    student = Student(**{"name": "", **values})
    if not student.id:
        raise RosterError(f"{source}, line {line}: the id is missing.", SHOULD_BE)
    if not student.full_name:
        raise RosterError(f"{source}, line {line}: the student {student.id!r} has no name.", SHOULD_BE)
    return student
