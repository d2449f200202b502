"""The first line of a students' file: is it a header, and which of its columns has what.

Two faults are avoided: a header that becomes a student, and a first student who is taken for a header. A line that
could be either is refused, and the message says how to make it clear.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cloudscale.course.csv_text import Line, listed
from cloudscale.course.headings import (
    AFTER_SURNAME,
    BEFORE_SURNAME,
    EMAIL,
    FULL,
    GIVEN,
    IDS,
    NAME,
    NAMES,
    SURNAME,
    find_columns,
    fold,
)
from cloudscale.errors import RosterError

OWN = ("id", "name", "surname", "email")  # the columns of a file without a header
ADDRESS = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s.]+\.?")


@dataclass(frozen=True)
class Columns:
    """The positions of the columns. `is_full`: `name` has the whole name. Without a header, no headings."""

    id: int
    name: int | None
    surnames: tuple[int, ...] = ()
    email: int | None = None
    is_full: bool = False
    headings: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[int, ...]:
        return (*(() if self.name is None else (self.name,)), *self.surnames)

    @property
    def used(self) -> tuple[int, ...]:
        return (self.id, *self.names, *(() if self.email is None else (self.email,)))

    def heading(self, *positions: int) -> str:
        return " + ".join(self.headings[at] for at in positions)

    def __str__(self) -> str:
        """How the header was read."""
        parts = [f"id: {self.heading(self.id)}"]
        if self.name is not None:
            parts.append(f"name: {self.heading(self.name)}")
        if self.surnames:
            parts.append(f"surname: {self.heading(*self.surnames)}")
        if self.email is not None:
            parts.append(f"email: {self.heading(self.email)}")
        unused = [name for at, name in enumerate(self.headings) if name and at not in self.used]
        return f"{'; '.join(parts)}.{f' Not used: {listed(unused)}.' if unused else ''}"


WITHOUT_HEADER = Columns(id=0, name=1, surnames=(2,), email=3)


def parse_columns(text: str) -> dict[str, str]:
    """What --columns says: `id=Matrikel,name=Vorname`. A heading may have commas. Raises ValueError."""
    first, *parts = re.split(rf"(?:^|,)\s*({'|'.join(OWN)})\s*=", text)
    columns = dict(zip(parts[::2], map(str.strip, parts[1::2]), strict=True))
    if first.strip() or not columns or 2 * len(columns) < len(parts):
        raise ValueError(f"should say which columns are {', '.join(OWN)}, such as id=Matrikel,name=Vorname")
    return columns


def is_address(cell: str) -> bool:
    return bool(ADDRESS.fullmatch(cell))


def is_header(cells: Sequence[str], body: Sequence[Line]) -> bool:
    """Whether a line is a header, and says which column is the id (or the e-mail) and which one the name."""
    if not has_id_and_name(cells) or any(map(is_address, cells)):
        return False
    found = find_columns(cells)
    if 0 in found:
        return True
    if _has_digit(cells[0]):  # `s7;Sid;Nom` may be a student; `Quiz 1;Student;ID` is none
        return bool(re.search(r"[\s(]", cells[0]))
    return len(found) > 2 or any(_is_headed(at, cells, body) for at in found)


def check_is_student(first: Line, body: Sequence[Line], source: str) -> None:
    """Raises RosterError if the first line, which says too little for a header, may be one all the same."""
    if _may_be_header(first.cells, body):
        id_, name, surnames, _ = _identity(_Choice(first.cells, body, {}))
        raise _not_understood(first, id_, name if name is not None else next(iter(surnames), None), source)


def _may_be_header(cells: Sequence[str], body: Sequence[Line]) -> bool:
    if any(map(is_address, cells)):
        return False
    found = find_columns(cells)
    if 0 not in found and _has_digit(cells[0]) and {_form(line.cell(0)) for line in body} <= {_form(cells[0])}:
        # an id like those below it, and after it whatever a name may be, but not three names of columns
        return len(found) > 2 or any(_is_headed(at, cells, body) for at in found)
    if 0 in found or len({fold(cells[at]) for at in found}) > 1:
        return True
    if any(re.search(r"\w[\s_-]+\w", cells[at]) for at in found):  # `Full name`, which is nobody's
        return True
    return any(_is_headed(at, cells, body) for at in range(len(cells)))


def _form(cell: str) -> str:
    """What an id consists of: `k0011` is `a0`."""
    return re.sub(r"\d+", "0", re.sub(r"[^\W\d_]+", "a", cell))


def has_id_and_name(cells: Sequence[str]) -> bool:
    """Whether a line has a heading of an id (or an e-mail) and one of a name."""
    roles = {role for role, _ in find_columns(cells).values()}
    return not roles.isdisjoint(IDS) and not roles.isdisjoint(NAMES)


def _has_digit(cell: str) -> bool:
    return any(c.isdigit() or c == "@" for c in cell)


def _is_headed(at: int, cells: Sequence[str], body: Sequence[Line]) -> bool:
    """Whether a cell is of another kind than most of those below it: these have digits or an @, or are numbers."""
    below = [line.cell(at) for line in body if line.cell(at)]
    if not below or not fold(cells[at]):
        return False
    if _has_digit(cells[at]):
        is_text = not cells[at].isdecimal() and (at > 0 or " " in cells[at])  # `a1` may be the first id of a1, 2, 3
        return is_text and 2 * sum(map(str.isdecimal, below)) >= len(below)
    if 2 * sum(map(_has_digit, below)) < len(below):
        return False
    # logins that are made of names, some of them with a digit: the first one is a login too
    return at > 0 or not (_is_login(cells) and any(_is_login(line.cells) for line in body))


def _is_login(cells: Sequence[str]) -> bool:
    """Whether the first cell is made of the names in the next two: `mmcfly;Marty;McFly`."""
    parts = [fold(part) for cell in cells[1:3] for part in cell.split()]
    return any(len(part) > 2 and part in fold(cells[0]) for part in parts)


def read_header(header: Line, body: Sequence[Line], wanted: Mapping[str, str], source: str) -> Columns:
    """The columns of a header. `wanted` is what the user says with --columns. Raises RosterError."""
    cells = header.cells
    given = {role: _position(heading, header, source) for role, heading in wanted.items()}
    choice = _Choice(cells, body, given)
    id_, name, surnames, is_full = _identity(choice)
    if id_ is None or (name is None and not surnames):
        raise _not_understood(header, id_, name if name is not None else next(iter(surnames), None), source)
    email = choice.of("email", EMAIL)
    if email is None and choice.meaning("id") == EMAIL:
        email = id_
    columns = Columns(id_, name, surnames, email, is_full, cells)
    folded = [fold(cell) for cell in cells]
    for at in columns.used:
        if at not in given.values() and folded.count(folded[at]) > 1:
            raise RosterError(
                f"{source}, line {header.number}: the header has the column {cells[at]!r} twice.",
                f"Rename one of them. {_columns(cells)}",
            )
    return columns


@dataclass(frozen=True)
class _Choice:
    """Which of several columns is taken. `given`: role → the position that the user named."""

    cells: Sequence[str]
    body: Sequence[Line]
    given: Mapping[str, int]

    def of(self, role: str, *meanings: str) -> int | None:
        """The column that the user named, or the best one of the first of these meanings that has any."""
        if role in self.given:
            return self.given[role]
        for wanted in meanings:
            found = find_columns(self.cells).items()
            ranked = sorted((rank, at) for at, (meaning, rank) in found if meaning == wanted)
            for _, at in ranked:
                if at not in self.given.values() and not (role == "id" and self._is_empty(at)):
                    return at
        return None

    def _is_empty(self, at: int) -> bool:
        """Whether a column is empty on each line, as ids often are. Our own `id` was meant to be filled in."""
        return fold(self.cells[at]) != "id" and bool(self.body) and not any(line.cell(at) for line in self.body)

    def meaning(self, role: str) -> str:
        """The meaning of the heading that the user named, or empty."""
        known = find_columns(self.cells).get(self.given.get(role, -1))
        return known[0] if known else ""


def _identity(choice: _Choice) -> tuple[int | None, int | None, tuple[int, ...], bool]:
    """The columns of the id, the name and the surnames, and whether the name is the whole one."""
    return choice.of("id", *IDS), *_names(choice)


def _names(choice: _Choice) -> tuple[int | None, tuple[int, ...], bool]:
    """The columns of the name and of the surnames, and whether the name is the whole one."""
    if "name" in choice.given and "surname" not in choice.given and choice.meaning("name") not in (GIVEN, NAME):
        return choice.given["name"], (), True
    name, surname = choice.of("name", GIVEN), choice.of("surname", SURNAME)
    either, full = choice.of("", NAME), choice.of("", FULL)
    if surname is None and (name is None or (either is None and full is not None and "name" not in choice.given)):
        return (either if full is None else full), (), True
    if name is None and either is None and full is not None and "surname" not in choice.given:
        return full, (), True
    # beside a given name, `Name` is the surname, and beside a surname the given name
    name, surname = (either if name is None else name), (either if surname is None else surname)
    parts = [surname]
    if "surname" not in choice.given:
        parts = [choice.of("", BEFORE_SURNAME), surname, choice.of("", AFTER_SURNAME)]
    return name, tuple(at for at in parts if at is not None), surname is None and choice.meaning("name") == NAME


def _position(heading: str, header: Line, source: str) -> int:
    """The position of a column that the user named: exactly, or without regard to case, accents and punctuation."""
    same = [at for at, cell in enumerate(header.cells) if cell == heading]
    alike = [at for at, cell in enumerate(header.cells) if cell and fold(cell) == fold(heading)]
    found = same or alike
    if len(found) != 1:
        what = "no column is" if not found else f"{len(found)} columns are"
        raise RosterError(
            f"{source}, line {header.number}: {what} named {heading!r}, as --columns or the setting columns says.",
            f"{'Rename one of them. ' if found else ''}{_columns(header.cells)}",
        )
    return found[0]


def _not_understood(header: Line, id_: int | None, name: int | None, source: str) -> RosterError:
    """The refusal of a line that may be a header. `id_` and `name` are the columns that are known, if any."""
    where, cells = f"{source}, line {header.number}", [cell for cell in header.cells if cell]
    if len(cells) == 1 and id_ is None and name is None and (sign := re.search(r"\w[;,|]\s*\w", cells[0])):
        in_quotes = sign[0][1] != "|"
        cause = "in quotation marks as a whole" if in_quotes else "separated by |"
        return RosterError(
            f"{where}: the fields are {cause}, and not separated by ; , or tab.", "Export the file again."
        )
    known = {"id": id_, "name": name}
    lacking = " and ".join(f"the {role}" for role, at in known.items() if at is None)
    what = f"a header, and no column is known to be {lacking}" if lacking else "a header, and like a student"
    only = cells[0] if len(cells) == 1 and lacking in ("the id", "the name") else "…"  # one column may be both
    example = ",".join(f"{role}={only if at is None else header.cells[at]}" for role, at in known.items())
    return RosterError(
        f"{where}: this looks like {what}.",
        f'{_columns(header.cells)} Say which they are: --columns "{example}".'
        f" If line {header.number} is a student, put the line {';'.join(OWN)} above it.",
    )


def _columns(cells: Sequence[str]) -> str:
    return f"The columns are: {listed([cell for cell in cells if cell])}."
