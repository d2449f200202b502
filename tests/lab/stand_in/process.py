"""The stand-in in a process of its own, so that a benchmark's process measures nothing but what it is about."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.lab.stand_in.wire import Recorded

PROJECT = Path(__file__).parents[3]
ENDING = 10  # seconds


class StandInProcess:
    """Runs while it is entered; `arguments` are those of `python -m tests.lab.stand_in`."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.clouds_yaml = folder / "clouds.yaml"
        command = [sys.executable, "-m", "tests.lab.stand_in", "--clouds-yaml", str(folder), *arguments]
        self._process = subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout
        self.url = self._process.stdout.readline().strip()
        if not self.url:
            self.close()
            raise RuntimeError(f"The stand-in does not start: {' '.join(command)}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._process.terminate()
        self._process.communicate(timeout=ENDING)

    def requests(self, *, forget: bool = False) -> list[Recorded]:
        """All that were made, since the last time that they were forgotten."""
        return [Recorded(*made) for made in self._ask("/_requests", "DELETE" if forget else "GET")]

    def violations(self) -> list[str]:
        return list(self._ask("/_violations"))

    def _ask(self, path: str, method: str = "GET") -> Any:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(urllib.request.Request(f"{self.url}{path}", method=method), timeout=ENDING) as answer:
            return json.load(answer)
