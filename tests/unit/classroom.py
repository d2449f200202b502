"""A whole course on a fake machine, for the tests of what a task does from end to end."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloudscale import jupyter, workflow
from cloudscale.cluster import Session
from cloudscale.errors import RequestError
from cloudscale.progress import Advance
from cloudscale.report import Report
from cloudscale.settings import Common, Launch, read_flags, read_settings
from tests.unit.api_schema import Json
from tests.unit.fake_api import FakeApi
from tests.unit.fakes import FakeDriver

IMAGE = "quay.io/jupyter/lab:1"
ANN, BOB, CID = "1;Ann;Lee;ann@example.org\n", "2;Bob;Ray\n", "3;Cid;Kim\n"


class Said:
    """A progress that remembers."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    @contextlib.contextmanager
    def bar(self, what: str, total: int) -> Iterator[Advance]:
        yield lambda done, of: None


class Class:
    """A course `bio` with Ann and Bob, on one fake machine whose servers answer at once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        self.api = FakeApi(in_swarm=False)
        self.api.registry[IMAGE] = {"Id": "sha256:11", "RepoDigests": ["quay.io/jupyter/lab@sha256:aa"]}
        self.driver = FakeDriver(self.api)
        self.roster = tmp_path / "class.csv"
        self.roster.write_text(ANN + BOB)
        self.said = Said()
        self.questions: list[str] = []
        self.agrees = True
        self.mute: set[int] = set()
        self.course = "bio"
        monkeypatch.setattr(workflow, "load_driver", self.driver)
        monkeypatch.setattr(jupyter, "answers", lambda host, port: port in self.api.open_ports - self.mute)

    def session(self, **common: Any) -> Session:
        settings = read_settings(
            {"driver": "local", "course": self.course, "image": IMAGE, "students": str(self.roster)}
        )
        self.said.lines.clear()
        self.api.changes.clear()
        return Session(settings, read_flags(Common, **{"format": "json", **common}), self.said, self._ask)

    def _ask(self, question: str) -> None:
        self.questions.append(question)
        if not self.agrees:
            raise RequestError("Nothing was removed.")

    def launch(self, *, common: Json | None = None, **flags: Any) -> Report:
        return workflow.themachine(self.session(**(common or {})), read_flags(Launch, **flags))

    def rows(self, report: Report) -> list[Json]:
        rows: list[Json] = json.loads(report.text)
        return rows

    @property
    def changes(self) -> list[str]:
        """What was changed, without what it was changed to: `create service`, …"""
        return [" ".join(change.split()[:2]) for change in self.api.changes]
