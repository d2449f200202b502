from __future__ import annotations

import io
import re

import pytest

from cloudscale.progress import Lines, Live, progress_on


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_without_a_terminal_each_stage_is_one_line() -> None:
    stream = io.StringIO()
    progress = progress_on(stream)
    progress.say("Swarm: made")
    with progress.bar("Seats ready", 30) as advance:
        for done in range(30):
            advance(done, 30)
    lines = [re.sub(r"^\[ *\d+\.\d s\] ", "", line) for line in stream.getvalue().splitlines()]
    assert lines == ["Swarm: made", "Seats ready …"]
    assert "\x1b" not in stream.getvalue()
    assert "\r" not in stream.getvalue()


def test_every_line_is_written_at_once() -> None:
    class Flushed(io.StringIO):
        shown = ""

        def flush(self) -> None:
            self.shown = self.getvalue()

    stream = Flushed()
    Lines(stream).say("Swarm: made")
    assert "Swarm: made" in stream.shown


def test_only_a_terminal_has_a_bar() -> None:
    assert type(progress_on(io.StringIO())) is Lines
    assert type(progress_on(Terminal())) is Live


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    return Terminal()


def test_a_line_on_a_terminal_is_the_same_as_without_one(terminal: Terminal) -> None:
    text = "Warning: [bold]Ann[/bold] 'x' 12 " + "long " * 30
    progress = progress_on(terminal)
    with progress.bar("Working on [red]it", 0):
        progress.say(text)
    assert text.strip() in terminal.getvalue()
    assert "Working on [red]it" in terminal.getvalue()


@pytest.mark.parametrize(
    ("done", "of", "shown"), [(3, 30, "3/30"), (300 << 20, 900 << 20, "300/900 MiB")], ids=["seats", "bytes"]
)
def test_a_bar_on_a_terminal_shows_how_much_is_done(terminal: Terminal, done: int, of: int, shown: str) -> None:
    progress = progress_on(terminal)
    with progress.bar("Working", of) as advance:
        advance(done, of)
    progress.say("Done")
    assert shown in terminal.getvalue()
    assert terminal.getvalue().endswith("Done\n")
