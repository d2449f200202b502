"""A whole course on fake machines, for the tests of what a task does from end to end."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from cloudscale import waiting
from cloudscale.cli.report import Report
from cloudscale.course.flags import Common, Launch, read_flags
from cloudscale.course.session import Session
from cloudscale.course.settings import read_settings
from cloudscale.engines import client
from cloudscale.errors import Declined, EngineError
from cloudscale.progress import Advance
from cloudscale.seats import jupyter, readiness
from cloudscale.workflow import themachine
from tests.unit.api_schema import Json
from tests.unit.fake_api import FakeApi
from tests.unit.fakes import FakeClock, fake_apis, fake_driver, fake_engine, place_of

IMAGE = "quay.io/jupyter/lab:1"
ANN, BOB, CID = "1;Ann;Lee;ann@example.org\n", "2;Bob;Ray\n", "3;Cid;Kim\n"


class Said:
    """A progress that remembers."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.advances: list[tuple[int, int]] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    @contextlib.contextmanager
    def bar(self, what: str, total: int) -> Iterator[Advance]:
        yield lambda done, of: self.advances.append((done, of))


class Class:
    """A course `bio` with Ann and Bob, whose servers answer at once.

    On one machine with an engine, as with `local`; or on several, as with `generic`: m1, m2, …, which are
    as yet not set up. `trainer` is the engine of the trainer's own computer, if there is one.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, machines: int = 1) -> None:
        self.registry: Json = {IMAGE: {"Id": "sha256:11", "RepoDigests": ["quay.io/jupyter/lab@sha256:aa"]}}
        self.apis = [FakeApi(in_swarm=False)] if machines == 1 else fake_apis(*(f"m{n + 1}" for n in range(machines)))
        for api in self.apis:
            api.registry = self.registry
        self.api = self.apis[0]
        self.driver = fake_driver(*self.apis)
        self.trainer: FakeApi | None = None
        self.roster = tmp_path / "class.csv"
        self.roster.write_text(ANN + BOB)
        self.said = Said()
        self.questions: list[str] = []
        self.agrees = True
        self.mute: set[int] = set()
        self.activity = jupyter.Activity(2, datetime(2026, 11, 27, 7, 0, 0, tzinfo=UTC))  # of each server
        self.course = "bio"
        self.kind = "local" if machines == 1 else "generic"
        self.image = IMAGE
        self.columns: dict[str, str] = {}
        self.gateway: Json = {}
        self.seat: Json = {}
        monkeypatch.setattr("cloudscale.cluster.driver.load_driver", lambda *given: self.driver(*given))
        monkeypatch.setattr(client, "from_environment", self._trainers_client)
        monkeypatch.setattr(jupyter, "answers", self._answers)
        monkeypatch.setattr(jupyter, "activity", self._activity)
        for module in (waiting, readiness):
            monkeypatch.setattr(module, "SystemClock", FakeClock)

    def machines(self, *apis: FakeApi) -> None:
        """From now on, the course's machines are others; what became of them stays known."""
        before, self.apis, self.api = self.driver, list(apis), apis[0]
        self.driver = fake_driver(*apis)
        self.driver.adopts_swarm = before.adopts_swarm
        self.driver.lost = before.lost
        self.driver.bare = before.bare | set(self.driver.apis) - set(before.apis)
        for api in apis:
            api.registry = self.registry

    def add_machines(self, *names: str) -> None:
        network = self.api.network
        new = [FakeApi(name=n, address=f"10.0.1.{n[1:]}", network=network, in_swarm=False) for n in names]
        self.machines(*self.apis, *new)

    def _trainers_client(self, timeout: float) -> object:
        if self.trainer is None:
            raise EngineError("No Docker Engine answers on this computer.")
        return fake_engine(self.trainer).client

    def _answers(self, url: str, *, at: str = "", probe: str = "") -> bool:
        if at and probe:
            host, port = self._behind(url)
            (api,) = [api for api in self.apis if host in (api.address, "127.0.0.1")]
        else:
            host, port = place_of(url)
            (api,) = [self.driver.apis[machine.name] for machine in self.driver.machines() if machine.address == host]
        return not api.is_down and port in api.open_ports - self.mute

    def _activity(self, url: str, *, at: str = "", probe: str = "", status: str) -> jupyter.Activity:
        assert len(status) == 64
        return self.activity if self._answers(url, at=at, probe=probe) else jupyter.Activity()

    def _behind(self, url: str) -> tuple[str, int]:
        """The seat that the gateway leads to from an address."""
        (files,) = [files for api in self.apis for files in api.files.values() if "caddy.json" in files]
        ways = json.loads(files["caddy.json"])["apps"]["http"]["servers"]["gateway"]["routes"][0]["handle"][0]
        address = urlsplit(url)
        (upstream,) = [
            way["outputs"][0]
            for way in ways["mappings"]
            if way["input"] in (address.path, f"{address.netloc}{address.path}")
        ]
        host, _, port = upstream.rpartition(":")
        return host, int(port)

    def session(self, **common: Any) -> Session:
        settings = read_settings(
            {
                "driver": self.kind,
                "course": self.course,
                "image": self.image,
                "students": str(self.roster),
                "columns": self.columns,
                "gateway": self.gateway,
                "seat": self.seat,
            }
        )
        self.said.lines.clear()
        self.driver.done.clear()
        for api in self.apis:
            api.changes.clear()
        return Session(settings, read_flags(Common, **{"format": "json", **common}), self.said, self._ask)

    def enrol(self, count: int) -> None:
        """A class of that many, with the ids 1, 2, …"""
        self.roster.write_text("".join(f"{number};Student;{number}\n" for number in range(1, count + 1)))

    def _ask(self, question: str) -> None:
        self.questions.append(question)
        if not self.agrees:
            raise Declined("Nothing was removed.")

    def launch(self, *, common: Json | None = None, **flags: Any) -> Report:
        return themachine.themachine(self.session(**(common or {})), read_flags(Launch, **flags))

    def rows(self, report: Report) -> list[Json]:
        rows: list[Json] = json.loads(report.text)
        return rows

    @property
    def changes(self) -> list[str]:
        """What was changed, without what it was changed to: `create service`, …"""
        return [" ".join(change.split()[:2]) for api in self.apis for change in api.changes]

    def members(self) -> dict[str, str]:
        """Role in the first machine's swarm, by machine, of those nodes that are up; the others have a `?` too."""
        swarm = next(api.swarm for api in self.apis if api.manages and not api.is_down)
        return {
            node.labels.get("cloudscale.machine", node.id): node.role + ("" if swarm.is_up(node) else "?")
            for node in swarm.nodes.values()
        }

    def nodes_of(self, report: Report) -> list[str]:
        return [row["node"] for row in self.rows(report)]


def states(lab: Class, report: Report) -> dict[str, list[str]]:
    """The states of the seats, by machine."""
    found: dict[str, list[str]] = {}
    for row in lab.rows(report):
        found.setdefault(row["node"], []).append(row["state"])
    return found


def messages(report: Report) -> str:
    return "\n".join(report.problems)
