"""A screen of the terminal that is drawn again and again: machines above, seats below, those first who need help."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cloudscale.cli import interrupt
from cloudscale.terminal import visible

INTERVAL = 1.0  # seconds between two drawings: ages go on while nobody answers
HEADINGS = 4  # lines: the title, a blank line, and the headings of two tables
SMALLEST = 8  # lines of a screen that has something of both; of NOTES more, one is for what is wrong
NOTES = 6
NARROWEST = 12  # columns that a name is given at least
GAP = 2  # columns between two cells
MACHINE_KEYS = ("machine", "state", "cores", "cpu", "memory", "free disk", "seats")
SEAT_KEYS = ("student", "machine", "state", "memory", "cpu", "kernels", "last activity", "restarts")
SHORT = {"last activity": "active"}
# what goes first where a terminal is narrow
LEAST = ("machine", "kernels", "restarts", "cpu", "last activity", "free disk", "cores", "seats", "memory", "state")
STYLES = {"failed": "bold red", "starting": "yellow", "ready": "green"}


@dataclass(frozen=True)
class Line:
    """A machine or a seat. `cells`: by heading. `urgency`: 0 is the first.

    `warns`: the headings of the cells that are a reason to help. `is_old`: its machine has not answered for a while.
    """

    cells: Mapping[str, str]
    urgency: int = 0
    warns: frozenset[str] = frozenset()
    is_old: bool = False


@dataclass(frozen=True)
class Screen:
    """What is to be seen."""

    title: str
    time: str
    machines: Sequence[Line]
    seats: Sequence[Line]
    notes: Sequence[str]


def is_possible() -> bool:
    """Whether standard output is a terminal on which one can write anywhere."""
    return sys.stdout.isatty() and os.environ.get("TERM", "") not in ("", "dumb", "unknown")


def show(screen: Callable[[], Screen]) -> None:
    """Draws the screen until Ctrl-C; then the terminal is as before."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # what the terminal's encoding lacks, as a character: lines stay lines
    console = Console(file=sys.stdout, highlight=False, markup=False, emoji=False)
    interrupt.is_the_end()
    with contextlib.suppress(KeyboardInterrupt), Live(console=console, screen=True, auto_refresh=False) as display:
        while True:
            display.update(drawn(screen(), console.width, console.height), refresh=True)
            time.sleep(INTERVAL)


def drawn(screen: Screen, width: int, height: int) -> RenderableType:
    """The screen in as many lines as there are; what has no room is counted."""
    most = max(0, height - SMALLEST) // NOTES
    notes = [Text(f"! {_on_one_line(note)}", no_wrap=True, overflow="ellipsis") for note in screen.notes[:most]]
    notes = [Text(), *notes] if notes else []
    room = height - HEADINGS - len(notes)
    machines, hidden_machines = _cut(_by_urgency(screen.machines), max(2, room // 3))
    room -= len(machines) + bool(hidden_machines)
    seats, hidden_seats = _cut(_by_urgency(screen.seats), max(1, room))
    return Group(
        _title(screen, width),
        _table(MACHINE_KEYS, machines, width),
        *_more(hidden_machines, "machines"),
        Text(),
        _table(SEAT_KEYS, seats, width),
        *_more(hidden_seats, "seats"),
        *notes,
    )


def _title(screen: Screen, width: int) -> Text:
    right = f"{screen.time}  Ctrl-C ends"
    left = Text(_on_one_line(screen.title), style="bold", no_wrap=True)
    left.truncate(max(0, width - len(right) - GAP), overflow="ellipsis", pad=True)
    return left.append(" " * GAP + right, style="not bold")


def _by_urgency(lines: Sequence[Line]) -> list[Line]:
    return sorted(lines, key=lambda line: line.urgency)


def _cut(lines: Sequence[Line], room: int) -> tuple[list[Line], list[Line]]:
    """The lines that have room, and the others, which need a line for their number."""
    if len(lines) <= room:
        return list(lines), []
    return list(lines[: room - 1]), list(lines[room - 1 :])


def _more(hidden: Sequence[Line], what: str) -> list[Text]:
    if not hidden:
        return []
    states = Counter(line.cells.get("state") or "not asked yet" for line in hidden)
    counts = ", ".join(f"{count} {state}" for state, count in states.most_common(4))
    return [Text(f"… and {len(hidden)} more {what}: {counts}", style="italic", no_wrap=True, overflow="ellipsis")]


def _table(keys: Sequence[str], lines: Sequence[Line], width: int) -> Table:
    rows = [{key: _on_one_line(line.cells.get(key, "")) for key in keys} for line in lines]
    widths = {key: max(map(cell_len, (SHORT.get(key, key), *(row[key] for row in rows)))) for key in keys}
    widths = _fitting(widths, width)
    table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="bold underline")
    for key, columns in widths.items():
        table.add_column(SHORT.get(key, key), width=columns, no_wrap=True, overflow="ellipsis")
    for line, row in zip(lines, rows, strict=True):
        table.add_row(*(_cell(line, key, row[key]) for key in widths), style="dim" if line.is_old else "")
    return table


def _fitting(widths: Mapping[str, int], width: int) -> dict[str, int]:
    """The columns that have room, with their widths: the first one gives way, then others are left out."""
    first, *others = widths
    for least in (None, *LEAST):
        others = [key for key in others if key != least]
        room = width - sum(widths[key] + GAP for key in others)
        if room >= min(widths[first], NARROWEST):
            break
    return {first: max(1, min(widths[first], room)), **{key: widths[key] for key in others}}


def _cell(line: Line, key: str, text: str) -> Text:
    return Text(text, style="bold yellow" if key in line.warns else STYLES.get(text, "") if key == "state" else "")


def _on_one_line(text: str) -> str:
    return " ".join(visible(text).split())
