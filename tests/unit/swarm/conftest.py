from __future__ import annotations

import pytest

from tests.unit.fake_api import FakeApi
from tests.unit.fakes import fake_apis

MINE = {"cloudscale.course": "bio"}


@pytest.fixture
def api() -> FakeApi:
    """An engine in a swarm that the course created, with the bridge of that swarm."""
    api = FakeApi()
    api.swarm_labels = dict(MINE)
    api.node_labels = {**MINE, "cloudscale.machine": "m1", "cloudscale.bridge": "made"}
    return api


@pytest.fixture
def three() -> list[FakeApi]:
    """Three managers of a swarm that the course created."""
    apis = fake_apis("m1", "m2", "m3", in_swarm=True)
    apis[0].swarm_labels = dict(MINE)
    for api in apis:
        api.node_labels = {**MINE, "cloudscale.machine": api.name, "cloudscale.address": api.address}
    return apis
