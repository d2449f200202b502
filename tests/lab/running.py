"""Commands of the tool that are cut off: in a process group of their own, as a terminal gives each command one."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.lab.tool import PROJECT, Result, Tool

LONGEST = 900.0  # seconds for a command
LOOK = 0.02  # seconds between two looks at what it printed


@dataclass(frozen=True)
class Point:
    """When a command is cut off: after so many seconds, or once it has printed so many lines."""

    seconds: float = 0.0
    lines: int = 0

    def __str__(self) -> str:
        return f"line {self.lines}" if self.lines else f"{self.seconds:.1f} s"

    def is_reached(self, run: Running) -> bool:
        if self.lines:
            return run.printed.count("\n") >= self.lines
        return time.monotonic() - run.begun >= self.seconds


class Running:
    """One command, from its start to its end; what it prints is kept. `terminal`: its errors go to one."""

    def __init__(self, tool: Tool, *words: str, terminal: bool = False) -> None:
        self.words = words
        self.begun = time.monotonic()
        self._out, self._err = tempfile.TemporaryFile("w+"), tempfile.TemporaryFile("w+")
        self._copying: threading.Thread | None = None
        screen, errors = pty.openpty() if terminal else (-1, self._err.fileno())
        self._process = subprocess.Popen(
            tool.command(*words),
            cwd=PROJECT,
            env=tool.environment,
            stdin=subprocess.DEVNULL,
            stdout=self._out,
            stderr=errors,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a run in the background ignores it
        )
        if terminal:
            os.close(errors)
            self._copying = threading.Thread(target=self._copy, args=(screen,), daemon=True)
            self._copying.start()

    def _copy(self, screen: int) -> None:
        with contextlib.suppress(OSError):  # the last one who wrote has ended
            while piece := os.read(screen, 1 << 16):
                os.write(self._err.fileno(), piece)
        os.close(screen)

    @property
    def printed(self) -> str:
        return os.pread(self._err.fileno(), 1 << 20, 0).decode(errors="replace")

    @property
    def is_over(self) -> bool:
        return self._process.poll() is not None

    def until(self, reached: Callable[[Running], object]) -> bool:
        """Waits for a moment in it. False: it ended before."""
        while not self.is_over:
            if reached(self):
                return True
            if time.monotonic() - self.begun > LONGEST:
                self.send(signal.SIGKILL)
                raise SystemExit(f"{' '.join(self.words)}: its point does not come: {self.printed}")
            time.sleep(LOOK)
        return False

    def send(self, number: int) -> None:
        """A signal to all of its processes, as the keys of a terminal send it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def result(self, timeout: float = LONGEST) -> Result:
        """Its end. One that has none in time is killed, with exit code -9."""
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.send(signal.SIGKILL)
            code = self._process.wait()
        if self._copying:
            self._copying.join(5)
        out = os.pread(self._out.fileno(), 1 << 24, 0).decode(errors="replace")
        done = Result(code, out, self.printed)
        self._out.close()
        self._err.close()
        return done


def killed(tool: Tool, *words: str, when: Callable[[Running], object]) -> bool:
    """Kills a command, and whatever it started, at a moment. False: it ended before."""
    running = Running(tool, *words)
    came = running.until(when)
    running.send(signal.SIGKILL)
    running.result()
    return came
