"""What VirtualBox stores between commands: a JSON file in the stand-in's folder, used by one command at a time."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Json = dict[str, Any]
VERSION = "7.1.4r165100"


class Store:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file, self._lock, self._calls = folder / "state.json", folder / "lock", folder / "calls"

    def create(self, version: str, hook: int) -> None:
        """`hook`: the port to which starts and stops of machines are reported; 0: none."""
        folders = {"machine_folder": str(self.folder / "VirtualBox VMs")}
        fresh: Json = {"version": version, "hook": hook, **folders, "extra": {}, "machines": [], "media": []}
        self._file.write_text(json.dumps({**fresh, "faults": [], "behaviours": {}}), encoding="utf-8")
        self._calls.write_text("", encoding="utf-8")

    @contextmanager
    def opened(self) -> Iterator[Json]:
        """The state, which is written back; no other command can use it meanwhile."""
        with self._lock.open("a", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            state: Json = json.loads(self._file.read_text(encoding="utf-8"))
            yield state
            self._file.write_text(json.dumps(state), encoding="utf-8")

    def note(self, arguments: list[str]) -> None:
        with self._calls.open("a", encoding="utf-8") as calls:
            calls.write(f"{json.dumps(arguments)}\n")

    @property
    def calls(self) -> list[list[str]]:
        return [json.loads(line) for line in self._calls.read_text(encoding="utf-8").splitlines()]
