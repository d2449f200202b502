"""What long runs print: a table that grows."""

from __future__ import annotations

import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One line of the table that is printed."""

    what: str
    point: str
    stood: str
    seconds: float
    problems: tuple[str, ...] = ()

    def __str__(self) -> str:
        outcome = "; ".join(self.problems) or "ok"
        return f"{self.what:<34} {self.point:<28} {self.stood:<34} {self.seconds:6.1f}  {outcome}"


class Table:
    """The rows, printed as they come."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def head(self, title: str, *columns: str) -> None:
        what, point, stood, seconds = columns
        print(f"\n{title}\n\n{what:<34} {point:<28} {stood:<34} {seconds:>6}  outcome", flush=True)

    def add(self, row: Row) -> None:
        self.rows.append(row)
        print(row, flush=True)

    @property
    def violations(self) -> int:
        return sum(bool(row.problems) for row in self.rows)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
