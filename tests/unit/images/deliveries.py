"""Machines that an image is delivered to."""

from __future__ import annotations

from collections.abc import Callable

from cloudscale.course import naming
from cloudscale.engines.client import Engine
from cloudscale.fanout import fan_out
from cloudscale.images.delivery import Delivery, Sources
from cloudscale.model import Outcomes, Survey
from cloudscale.units import GIB
from tests.unit.api_schema import Json
from tests.unit.fake_api import FakeApi
from tests.unit.fakes import FakeHosts, fake_apis, fake_engine

PUBLIC = "quay.io/jupyter/lab:1"
PULLED: Json = {"Id": "sha256:11", "RepoDigests": ["quay.io/jupyter/lab@sha256:aa"]}
OWN = "cloudscale/pydata:latest"
BUILT: Json = {"Id": "sha256:22", "Created": "2025-01-01", "Size": 2 * GIB, "Architecture": "amd64"}
MARK = naming.delivered_repository("bio")


class Course:
    """Three machines and, in some tests, the trainer's own engine."""

    def __init__(self) -> None:
        self.apis = fake_apis("m1", "m2", "m3")
        self.driver = FakeHosts(*self.apis)
        self.driver.bare.clear()
        self.trainer: FakeApi | None = None
        self.asked = 0
        self.counts: list[tuple[int, int]] = []
        self.messages: list[str] = []
        self.free_disk: dict[str, int | None] = {}

    def has(self, image: Json, *, reference: str = OWN) -> Course:
        """A trainer's engine with an image."""
        self.trainer = FakeApi(in_swarm=False)
        self.trainer.images_[reference] = image
        return self

    def _trainer(self) -> Engine | None:
        self.asked += 1
        return fake_engine(self.trainer, name="this computer") if self.trainer else None

    def delivery(self, reference: str, trainer: Callable[[], Engine | None] | None = None) -> Delivery:
        return Delivery(
            reference,
            "bio",
            Sources(trainer or self._trainer, copy=self.driver.copy_image),
            bytes_done=lambda done, of: self.counts.append((done, of)),
            say=self.messages.append,
        )

    def survey(self, engine: Engine) -> Survey:
        return Survey(engine.machine, "10.0.0.1", free_disk=self.free_disk.get(engine.name))

    def deliver(self, reference: str, *names: str, delivery: Delivery | None = None) -> Outcomes[str]:
        """To these machines, or to all of them, one after another."""
        way = delivery or self.delivery(reference)
        engines = [self.driver.engines[name] for name in names or ("m1", "m2", "m3")]
        return fan_out(lambda e: way.deliver(e, self.survey(e)), engines, name=lambda e: e.name, width=1)

    def changes(self) -> list[list[str]]:
        return [[change for change in api.changes if not change.startswith("tag")] for api in self.apis]
