"""Progress while a task runs: a live bar on a terminal, otherwise one line for each stage."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Protocol, TextIO

from cloudscale.terminal import visible, write

Advance = Callable[[int, int], None]  # arguments: how much is done, and how much it is in all


class Progress(Protocol):
    def say(self, text: str) -> None:
        """Shows a message: a stage that ended, or a warning."""

    def bar(self, what: str, total: int) -> contextlib.AbstractContextManager[Advance]:
        """Shows that something takes a while; on a terminal, with a bar."""


class Lines:
    """One line for each stage, with the seconds since the start."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._start = time.monotonic()

    def say(self, text: str) -> None:
        self._write(f"[{time.monotonic() - self._start:6.1f} s] {visible(text)}")

    def _write(self, line: str) -> None:
        write(self._stream, line)

    @contextlib.contextmanager
    def bar(self, what: str, total: int) -> Iterator[Advance]:
        self.say(f"{what} …")
        yield lambda done, of: None


class Live(Lines):
    """The same lines, with a bar below them for the current stage."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console

        super().__init__(stream)
        self._console = Console(file=stream, highlight=False, markup=False, soft_wrap=True)

    def _write(self, line: str) -> None:
        self._console.print(line)

    @contextlib.contextmanager
    def bar(self, what: str, total: int) -> Iterator[Advance]:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[count]}"),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self._console, transient=True) as progress:
            task = progress.add_task(what, total=total or None, count="")

            def advance(done: int, of: int) -> None:
                count = f"{done}/{of}" if of < 1_000_000 else f"{done >> 20}/{of >> 20} MiB"
                progress.update(task, completed=done, total=of, count=count)

            if total:
                advance(0, total)
            yield advance


def progress_on(stream: TextIO) -> Progress:
    return Live(stream) if stream.isatty() else Lines(stream)
