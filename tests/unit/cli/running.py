"""Runs a command line in this process, with a stand-in for the workflows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from invoke.program import Program

from cloudscale.cli.report import Report
from cloudscale.course.session import Session

PROJECT = Path(__file__).parents[3]
TASKS = {  # and the modules of their workflows
    "themachine": "themachine",
    "com_node": "commands",
    "com_containers": "commands",
    "containers_reset": "reset",
    "driver_reset": "reset",
    "reap": "reap",
    "machine_new": "single_machine",
    "machine_rm": "single_machine",
    "remote_com": "commands",
    "status": "status",
    "cards": "cards",
    "image_build": "images",
    "image_list": "images",
    "doctor": "doctor",
}


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


@dataclass
class Workflow:
    """Stands in for all workflows: remembers its arguments, and returns or raises what a test sets."""

    report: Report = field(default_factory=lambda: Report("done"))
    error: BaseException | None = None
    session: Session | None = None
    given: Mapping[str, Any] = field(default_factory=dict)
    question: str = ""

    def __call__(self, session: Session, *args: Any, **flags: Any) -> Report:
        self.session, self.given = session, {"args": args, **flags}
        if self.question:
            session.ask(self.question)
        if self.error:
            raise self.error
        return self.report

    @property
    def asked(self) -> Session:
        assert self.session
        return self.session


def run(words: str, capsys: pytest.CaptureFixture[str]) -> Result:
    code = 0
    try:
        Program(version="0").run(["invoke", "--search-root", str(PROJECT), *words.split()])
    except SystemExit as ended:
        code = int(ended.code or 0)
    written = capsys.readouterr()
    return Result(code, written.out, written.err)
