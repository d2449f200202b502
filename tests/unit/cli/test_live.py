from __future__ import annotations

import io
import sys
import time

import pytest
from rich.cells import cell_len
from rich.console import Console

from cloudscale.cli import live
from cloudscale.cli.live import Line, Screen, drawn, show


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def machine(name: str, state: str = "swarm worker", **words: object) -> Line:
    cells = {"machine": name, "state": state, "cores": "8", "cpu": "130 %", "memory": "3.1 / 31.3 GiB"}
    return Line({**cells, "free disk": "12.0 GiB", "seats": "10"}, **{"urgency": 1, **words})  # type: ignore[arg-type]


def seat(student: str, state: str = "ready", **words: object) -> Line:
    cells = {"student": student, "machine": "course-1", "state": state, "memory": "0.4 / 2.0 GiB", "cpu": "97 %"}
    more = {"kernels": "1", "last activity": "3 min", "restarts": "0"}
    return Line(cells | more, **{"urgency": 3, **words})  # type: ignore[arg-type]


def screen(
    machines: list[Line] | None = None, seats: list[Line] | None = None, notes: list[str] | None = None
) -> Screen:
    return Screen("bio: 1 of 1 seats ready", "14:03:22", machines or [machine("m1")], seats or [], notes or [])


def lines(shown: Screen, width: int = 100, height: int = 24) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, highlight=False, markup=False, emoji=False)
    console.print(drawn(shown, width, height))
    assert isinstance(console.file, io.StringIO)
    found = [line.rstrip() for line in console.file.getvalue().splitlines()]
    assert len(found) <= height
    assert max(map(cell_len, found)) <= width
    return found


# --- what is to be seen ----------------------------------------------------------------------


def test_machines_are_above_and_seats_below() -> None:
    title, above, m1, blank, below, ann = lines(screen(seats=[seat("Ann Lee")]))
    assert title.startswith("bio: 1 of 1 seats ready") and title.endswith("14:03:22  Ctrl-C ends")
    assert above.split() == ["machine", "state", "cores", "cpu", "memory", "free", "disk", "seats"]
    assert m1 == "m1       swarm worker  8      130 %  3.1 / 31.3 GiB  12.0 GiB   10"
    assert blank == ""
    assert below.split() == ["student", "machine", "state", "memory", "cpu", "kernels", "active", "restarts"]
    assert ann == "Ann Lee  course-1  ready  0.4 / 2.0 GiB  97 %  1        3 min   0"


def test_who_needs_help_is_shown_first() -> None:
    seats = [seat("Ann"), seat("Bob", urgency=2), seat("Cid", "failed", urgency=0), seat("Dan", "starting", urgency=1)]
    shown = lines(screen([machine("m1"), machine("m2", "no answer for 40 s", urgency=0)], seats))
    names = [line.split()[0] for line in shown if line]
    assert names == ["bio:", "machine", "m2", "m1", "student", "Cid", "Dan", "Bob", "Ann"]


def test_a_tall_class_is_cut_and_the_rest_is_counted() -> None:
    seats = [seat(f"Student {n}") for n in range(57)] + [seat(f"Bad {n}", "failed", urgency=0) for n in range(3)]
    shown = lines(screen(seats=seats), height=24)
    assert len(shown) == 24
    assert [line.split()[0] for line in shown[5:9]] == ["Bad", "Bad", "Bad", "Student"]
    assert shown[-1] == "… and 42 more seats: 42 ready"


def test_many_machines_leave_room_for_seats() -> None:
    machines = [machine(f"m{n}") for n in range(50)] + [machine("m50", "lost", urgency=0)]
    shown = lines(screen(machines, [seat(f"Student {n}") for n in range(60)], ["m50: it is lost"] * 9))
    assert len(shown) == 24
    assert shown[2].startswith("m50")
    assert "… and 47 more machines: 47 swarm worker" in shown
    assert sum(line.startswith("Student") for line in shown) >= 8
    assert shown[-3:] == ["", *["! m50: it is lost"] * 2]


@pytest.mark.parametrize(("width", "height"), [(80, 24), (200, 50), (40, 10), (20, 8), (3, 8)])
def test_any_terminal_is_filled_and_never_overfilled(width: int, height: int) -> None:
    seats = [seat(f"Wolfeschlegelsteinhausenbergerdorff {n} 王小明", urgency=0) for n in range(100)]
    shown = lines(
        screen([machine(f"a-machine-with-a-long-name-{n}") for n in range(5)], seats, ["x" * 500]), width, height
    )
    assert len(shown) == height


def test_a_narrow_terminal_keeps_name_and_state() -> None:
    shown = lines(screen(seats=[seat("Jennifer O'Parker", "failed")]), width=40)
    assert shown[-1].startswith("Jennifer") and "failed" in shown[-1]


def test_text_of_others_stays_on_its_line_and_controls_nothing() -> None:
    name = "Ann [red]\x1b[2J\r\n\u202eLee"
    shown = lines(screen(seats=[seat(name)], notes=["a\n  b\x07"]))
    assert shown[5].startswith("Ann [red]\\x1b[2J \\u202eLee  course-1")
    assert shown[6:] == ["", "! a b\\x07"]


# --- on a terminal ---------------------------------------------------------------------------


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    for name, value in {"TERM": "xterm", "COLUMNS": "100", "LINES": "24"}.items():
        monkeypatch.setenv(name, value)
    return Terminal()


def test_the_screen_is_drawn_until_ctrl_c_and_then_the_terminal_is_as_before(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(sys, "stdout", terminal)
    drawings = iter([screen(seats=[seat(name)]) for name in ("Ann", "Bob", "Cid")])
    show(lambda: next(drawings))
    text = terminal.getvalue()
    assert text.index("\x1b[?1049h") < text.index("Ann") < text.index("Bob") < text.index("Cid")
    assert text.rindex("\x1b[?1049l") > text.index("Cid")
    assert pauses == [live.INTERVAL] * 3


class OldTerminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


def test_what_the_terminals_encoding_lacks_is_replaced(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", stop)
    data = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", OldTerminal(data, encoding="ascii"))
    show(lambda: screen(seats=[seat("王小明 Wang" + 100 * "g")]))
    sys.stdout.flush()
    assert b"??? Wangggg" in data.getvalue()


@pytest.mark.parametrize(("term", "possible"), [("xterm", True), ("dumb", False), ("", False)])
def test_a_screen_needs_a_terminal_on_which_one_can_write_anywhere(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, term: str, possible: bool
) -> None:
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr(sys, "stdout", terminal)
    assert live.is_possible() is possible
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert not live.is_possible()
