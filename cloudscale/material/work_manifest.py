"""The manifest of collected work: `manifest.csv`, a line for each file, with its size and its SHA-256.

It may be as long as all students' files are many, so it is read and written line by line.
"""

from __future__ import annotations

import csv
import io
import re
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import IO

from cloudscale.errors import RequestError
from cloudscale.terminal import visible

NAME = "manifest.csv"
KEYS = ("student", "id", "path", "bytes", "sha256")
LONGEST_LINE = 64 * 1024  # bytes
FORMULA = ("=", "+", "-", "@")  # a spreadsheet takes such a cell for a formula (owasp.org, CSV Injection)
SUM = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Row:
    """A file that was collected. `path`: below the manifest's folder; its first part is the student's folder."""

    student: str
    id: str
    path: str
    bytes: int
    sha256: str

    @property
    def folder(self) -> str:
        return self.path.partition("/")[0]

    @property
    def inner(self) -> str:
        """The path below the student's folder."""
        return self.path.partition("/")[2]


@dataclass(frozen=True)
class Listed:
    """What a manifest has of one student. `lines`: where, as offsets of their first bytes."""

    student: str
    folder: str
    lines: array[int] = field(default_factory=lambda: array("Q"), repr=False)


def line(row: Row) -> str:
    """A line of the manifest."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([_harmless(row.student), _harmless(row.id), row.path, row.bytes, row.sha256])
    return out.getvalue()


def heading() -> str:
    return ",".join(KEYS) + "\n"


def _harmless(cell: str) -> str:
    text = visible(cell).replace("\n", " ").replace("\t", " ")
    return f"'{text}" if text.startswith(FORMULA) else text


def _plain(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(FORMULA) else cell


class Manifest:
    """A manifest that is open for reading. Raises RequestError, with the line, where it is none."""

    def __init__(self, file: IO[bytes], where: object) -> None:
        self._file = file
        self._where = where
        self.students: dict[str, Listed] = {}  # by id
        for number, (at, row) in enumerate(self._numbered(), start=2):
            listed = self.students.setdefault(row.id, Listed(row.student, row.folder))
            if listed.folder != row.folder:
                raise self._wrong(number, f"the student {row.id!r} has two folders, {listed.folder} and {row.folder}")
            listed.lines.append(at)

    def rows(self, student_id: str) -> Iterator[Row]:
        """The files of a student."""
        for at in self.students[student_id].lines if student_id in self.students else []:
            self._file.seek(at)
            yield _row(self._file.readline(LONGEST_LINE))

    def others(self, student_ids: Iterable[str]) -> Iterator[str]:
        """The lines of all students but these."""
        left_out = {*student_ids}
        for student_id in self.students:
            if student_id not in left_out:
                yield from map(line, self.rows(student_id))

    def _numbered(self) -> Iterator[tuple[int, Row]]:
        self._file.seek(0)
        first = self._file.readline(LONGEST_LINE).decode(errors="replace").lstrip("\ufeff").strip()
        if first != heading().strip():
            raise self._wrong(1, f"it should be {heading().strip()}")
        number = 1
        while data := self._file.readline(LONGEST_LINE):
            number += 1
            at = self._file.tell() - len(data)
            try:
                yield at, _row(data)
            except ValueError as error:
                raise self._wrong(number, str(error)) from None

    def _wrong(self, number: int, problem: str) -> RequestError:
        return RequestError(
            f"{self._where}, line {number}: {problem}.",
            "Give the folder that invoke collect made, with its manifest as it was written.",
        )


def _row(data: bytes) -> Row:
    """Raises ValueError if this is no line of a manifest."""
    try:
        ((student, id, path, size, sha256),) = csv.reader([data.decode("utf-8")], strict=True)
    except (ValueError, csv.Error):
        raise ValueError(f"it should have {len(KEYS)} columns, in UTF-8") from None
    if not size.isdecimal() or not SUM.fullmatch(sha256):
        raise ValueError("it should end in a number of bytes and a SHA-256")
    if "/" not in path or "\0" in path or {"", ".", ".."} & {*path.split("/")}:
        raise ValueError("its path should be that of a file in a student's folder")
    return Row(_plain(student), _plain(id), path, int(size), sha256)
