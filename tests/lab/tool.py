"""The tool as its user runs it: `invoke …` in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.lab.engine import LabEngine
from tests.lab.namespace import Namespace

PROJECT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Result:
    """One run of the tool, as its user sees it."""

    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = json.loads(self.out)
        return rows


class Tool:
    """`invoke …` against one engine, with a home of its own; `namespace`: in a network other than the tests'."""

    def __init__(
        self,
        engine: LabEngine | None,
        home: Path,
        settings: Mapping[str, str],
        namespace: Namespace | None = None,
    ) -> None:
        self.engine = engine
        self.home = home
        self.namespace = namespace
        self.timeout = 600.0  # seconds for one run
        self.environment = {
            **os.environ,
            "CLOUDSCALE_HOME": str(home),
            "INVOKE_CLOUDSCALE_DRIVER": "local",
            **settings,
        }
        if engine:
            self.environment["DOCKER_HOST"] = engine.url

    def command(self, *words: str) -> list[str]:
        command = [sys.executable, "-m", "invoke", *words]
        return self.namespace.wrap(*command) if self.namespace else command

    def __call__(self, *words: str, **environment: str) -> Result:
        done = subprocess.run(
            self.command(*words),
            cwd=PROJECT,
            env={**self.environment, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=self.timeout,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Result(done.returncode, done.stdout, done.stderr)

    def launch(self, *flags: str, **environment: str) -> Result:
        """`themachine`, all of it well, with its rows as JSON."""
        result = self("themachine", "--format", "json", *flags, **environment)
        assert result.code == 0, result.err
        return result
