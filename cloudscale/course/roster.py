"""The students' CSV file → students. Every error names the line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cloudscale.course.csv_text import SHOULD_BE, Line, listed, read_lines
from cloudscale.course.encoding import decode
from cloudscale.course.header import (
    OWN,
    WITHOUT_HEADER,
    Columns,
    check_is_student,
    has_id_and_name,
    is_address,
    is_header,
    read_header,
)
from cloudscale.course.headings import find_columns, fold, is_about_columns
from cloudscale.errors import RosterError
from cloudscale.model import Student

LARGEST = 16 * 1024 * 1024  # bytes; a larger file is not the file of a class
SUFFIXES = {
    "jr",
    "sr",
    "junior",
    "senior",
    "ii",
    "iii",
    "iv",
    "phd",
    "md",
    "dr",
    "msc",
    "bsc",
    "ba",
    "ma",
    "esq",
    "csc",
}
ROUNDED = re.compile(r"\d[.,]\d+E\+\d+", re.IGNORECASE)  # 1.23457E+11, as Excel shows a long number
SUMS = {"total", "totals", "sum", "count", "gesamt", "summe", "anzahl", "somme", "totale", "somma", "suma", "summa"}


@dataclass(frozen=True)
class Roster:
    """The students, in the order of the file, and what the user should know about how it was read."""

    students: tuple[Student, ...]
    remarks: tuple[str, ...] = ()


def read_roster(path: Path, columns: Mapping[str, str] | None = None) -> Roster:
    """The students of a file. `columns`: id, name, surname or email → the heading of its column. Raises RosterError."""
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
    return parse_roster(data, str(path), columns)


def parse_roster(data: bytes, source: str, columns: Mapping[str, str] | None = None) -> Roster:
    """The students in the content of a file. `source` is the file's name for messages. Raises RosterError."""
    text = decode(data, source)
    lines = read_lines(text.content, source)
    if not lines:
        raise RosterError(f"{source}, line 1: the file is empty.", SHOULD_BE)
    places, body, remarks = _columns_and_body(lines, columns or {}, source)
    if not body:
        raise RosterError(f"{source}, line {lines[0].number}: after the header, there are no students.", SHOULD_BE)

    students: list[Student] = []
    numbers: dict[str, int] = {}
    for line in body:
        student = _student(line, places, source)
        if student.id in numbers:
            raise RosterError(
                f"{source}, line {line.number}: the id {student.id!r} is already on line {numbers[student.id]}.",
                "Give each student a different id. Password and volume depend on it.",
            )
        numbers[student.id] = line.number
        students.append(student)
    more = [f"Warning: {source}, {remark}" for remark in _remarks(students, numbers, places)]
    return Roster(tuple(students), tuple(filter(None, [text.remark, *remarks, *more])))


def _columns_and_body(
    lines: Sequence[Line], wanted: Mapping[str, str], source: str
) -> tuple[Columns, Sequence[Line], list[str]]:
    """The columns, the students' lines, and how they were found. Raises RosterError."""
    first, body = lines[0], lines[1:]
    headers = (line for at, line in enumerate(lines) if _is_header(lines, at, wanted))
    header = next(headers, first if wanted else None)
    if header is None and not _is_title(first, body):
        check_is_student(first, body, source)
        has_more = any(any(line.cells[len(OWN) :]) for line in lines)
        unused = f"{source} has no header: the columns are {';'.join(OWN)}, and further ones are not used."
        return WITHOUT_HEADER, lines, [unused] if has_more else []
    if header is not first:
        raise _not_first(header, first, body, source)

    columns = read_header(first, body, wanted, source)
    remarks = [f"{source}, line {first.number} is the header. {columns}"]
    while body and _is_about_columns(body[0], columns):
        remarks.append(f"{source}, line {body[0].number} is about the columns, not a student. It was skipped.")
        body = body[1:]
    if again := next((line for line in body if _is_another_header(line, first)), None):
        raise RosterError(f"{source}, line {again.number}: this is a header again.", "Remove the line.")
    return columns, body, remarks


def _is_header(lines: Sequence[Line], at: int, wanted: Mapping[str, str]) -> bool:
    """Whether a line is a header: one with the columns that the user named, or one in known words."""
    if wanted:
        return set(map(fold, wanted.values())) <= set(_folded(lines[at]))
    return has_id_and_name(lines[at].cells) and is_header(lines[at].cells, lines[at + 1 :])


def _is_another_header(line: Line, first: Line) -> bool:
    """Whether a line below the header is one too. A person can have two names of columns, but not three."""
    return _folded(line) == _folded(first) or (is_header(line.cells, []) and len(find_columns(line.cells)) > 2)


def _folded(line: Line) -> list[str]:
    return [fold(cell) for cell in line.cells]


def _is_title(first: Line, body: Sequence[Line]) -> bool:
    """Whether the first line has one cell, and the others have more."""
    return len(list(filter(None, first.cells))) == 1 and any(len(list(filter(None, line.cells))) > 1 for line in body)


def _not_first(header: Line | None, first: Line, body: Sequence[Line], source: str) -> RosterError:
    if header and not _is_title(first, body) and any(map(str.isdigit, first.cells[0])):
        return RosterError(
            f"{source}, line {header.number}: this is a header, and there are students above it.", "Remove the line."
        )
    where = f"The header seems to be line {header.number}." if header else SHOULD_BE
    return RosterError(
        f"{source}, line {first.number} is neither a student nor a header: remove the lines above the header.", where
    )


def _is_about_columns(line: Line, columns: Columns) -> bool:
    """Whether a line below the header is no student: `Points Possible` of Canvas, or the points without the words."""
    if line.cell(columns.id) or (columns.email is not None and line.cell(columns.email)):
        return False
    names = [line.cell(at) for at in columns.names if line.cell(at)]
    return is_about_columns(names[0]) if names else True


def _student(line: Line, columns: Columns, source: str) -> Student:
    where, needed = f"{source}, line {line.number}", max(columns.id, *columns.names) + 1
    if len(line.cells) < needed:
        fields = "1 field" if len(line.cells) == 1 else f"{len(line.cells)} fields"
        raise RosterError(
            f"{where}: {fields}, and {needed} are needed.", SHOULD_BE if columns.headings else _hint(line)
        )
    if columns.headings and any(line.cells[len(columns.headings) :]):
        raise RosterError(
            f"{where}: {len(line.cells)} fields, and the header has {len(columns.headings)} columns.",
            "Put a field that contains the delimiter into quotation marks.",
        )
    if line.broken.intersection(columns.used):
        raise RosterError(f"{where}: a line break inside a field. Is a quotation mark not closed?", SHOULD_BE)
    if not columns.headings and (address := next(filter(is_address, line.cells[1:3]), None)):
        raise RosterError(f"{where}: {address} is where a name should be.", _hint(line))
    student = _person(line, columns)
    if not student.id:
        raise RosterError(f"{where}: the id is missing.", _remedy("id", columns))
    if not student.full_name:
        raise RosterError(f"{where}: the student {student.id!r} has no name.", _remedy("name", columns))
    if ROUNDED.fullmatch(student.id):
        raise RosterError(
            f"{where}: the id {student.id} was rounded by a spreadsheet.",
            "Export the students again. In the spreadsheet, format the column as text before you put the ids in.",
        )
    return student


def _hint(line: Line) -> str:
    """What to do about a line without a header that is not id;name;surname;email."""
    cells = [cell for cell in line.cells if cell]
    if all(map(is_address, cells)):
        return (
            "For e-mail addresses only, write one on each line, with the line email above them, "
            'and add --columns "id=email,name=email": the address is then the name, too.'
        )
    if len(cells) == 1:
        return f'{SHOULD_BE} For names only, put the line name above them, and add --columns "id=name,name=name".'
    header = ";".join("email" if is_address(cell) else "…" for cell in line.cells)
    return f"{SHOULD_BE} Put a header above the first line, such as {header}, where … is id, name or surname."


def _person(line: Line, columns: Columns) -> Student:
    id_ = line.cell(columns.id)
    email = "" if columns.email is None else line.cell(columns.email)
    if columns.id == columns.email:
        id_ = id_.lower()  # an address is the same in capitals, and so is its student
    name = "" if columns.name is None else line.cell(columns.name)
    surname = " ".join(filter(None, (line.cell(at) for at in columns.surnames)))
    return Student(id_, *(_split(name) if columns.is_full else (name, surname)), email)


def _split(full: str) -> tuple[str, str]:
    """Name and surname of `Müller, Anna`. A name without such a comma stays whole: `Anna Müller`, `Ada King, PhD`."""
    parts = [part.strip() for part in full.split(",")]
    people = [part for part in parts if fold(part) not in SUFFIXES]
    if len(people) != 2 or not all(people):
        return full, ""
    return people[1], " ".join([people[0], *(part for part in parts if part not in people)])


def _remedy(role: str, columns: Columns) -> str:
    """What to do about a line without an id or a name."""
    if not columns.headings:
        return SHOULD_BE
    taken = columns.heading(columns.id) if role == "id" else columns.heading(*columns.names)
    others = f"The columns are: {listed([heading for heading in columns.headings if heading])}."
    return f'It is in the column {taken}. Fill it in, or take another one for all: --columns "{role}=…". {others}'


def _remarks(students: Sequence[Student], numbers: Mapping[str, int], columns: Columns) -> Iterator[str]:
    """What is no error, and may still not be what the user wants."""
    by_email: dict[str, Student] = {}
    for student in students:
        first = by_email.setdefault(student.email.casefold(), student)
        if student.email and first is not student:
            where = f"lines {numbers[first.id]} and {numbers[student.id]}"
            yield f"{where} have the same e-mail {student.email}, and each gets a seat."
        if columns.is_full and student.full_name == "Test Student":
            where, remedy = f"line {numbers[student.id]}", f"To leave it out: --skip {student.id}"
            yield f"{where}: Test Student may be the platform's own, and gets a seat. {remedy}"
    last = students[-1]
    if fold(last.id) in SUMS and not any(map(str.isalpha, last.full_name)):
        where, remedy = f"line {numbers[last.id]}", f"To leave it out: --skip {last.id}"
        yield f"{where}: {last.id} may be a sum, and gets a seat. {remedy}"
