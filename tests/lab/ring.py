"""What a ring of tests with real parts has to itself: a folder, network namespaces, and what it left the last time.

Two rings can run side by side, and one in several processes of pytest-xdist, but not one ring twice: the second run
would remove what the first works with.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock, Timeout

from tests.lab.engine import clear
from tests.lab.namespace import PREFIX, WORKERS, remove_all

PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Ring:
    """`programs`: what it starts, and the package that each comes from."""

    name: str
    programs: Mapping[str, str]

    @property
    def folder(self) -> Path:
        return Path(tempfile.gettempdir()) / PREFIX / self.name

    def require(self) -> None:
        """Ends the run, in one line, where the machine can't run the ring, or runs it already."""
        lacking = [package for program, package in self.programs.items() if not shutil.which(program, path=PATH)]
        if os.geteuid() != 0:
            lacking.insert(0, "root")
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # what was started is taken away then, too
        if lacking:
            pytest.exit(f"The {self.name} ring needs {', '.join(lacking)}: sudo script/test {self.name}", 3)
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(blocking=False)
        except Timeout:
            pytest.exit(f"The {self.name} ring is running on this machine already: wait until it has ended.", 3)

    @property
    def is_held(self) -> bool:
        """Whether this process runs it."""
        return self._lock.is_locked

    @property
    def _lock(self) -> FileLock:
        return _lock(self.folder.with_suffix(".lock"))

    @contextlib.contextmanager
    def cleared(self) -> Iterator[None]:
        """The folder is there and empty, and no namespace of an earlier run is left."""
        self._clear()
        self.folder.mkdir(parents=True, mode=0o755)
        yield
        self._clear()

    def clear_workers(self) -> None:
        """Takes away what processes of pytest-xdist made that were killed. For the process that starts them."""
        remove_all(self.name, f"{WORKERS}*")
        for folder in self.folder.parents[1].glob(f"{WORKERS}*/{self.name}"):
            _clear(folder)

    def _clear(self) -> None:
        remove_all(self.name)
        _clear(self.folder)


def _clear(folder: Path) -> None:
    for part in folder.glob("*"):  # in each an engine may still run
        clear(part)
    clear(folder)


@functools.cache
def _lock(path: Path) -> FileLock:
    """A lock that is held until this process ends, however it ends."""
    return FileLock(path)
