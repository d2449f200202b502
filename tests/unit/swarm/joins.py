"""How the tests let fake engines join a swarm."""

from __future__ import annotations

from collections.abc import Sequence

from cloudscale.fanout import fan_out
from cloudscale.model import Outcomes
from cloudscale.swarm.joining import SwarmJoin
from cloudscale.swarm.nodes import swarm_nodes
from tests.unit.fake_api import FakeApi
from tests.unit.fakes import fake_engine

POOL = "198.18.0.0/16"


def swarm_join(*apis: FakeApi, manager: FakeApi | None = None, adopts: bool = False, course: str = "bio") -> SwarmJoin:
    engine = fake_engine(manager, name=manager.name) if manager else None
    return SwarmJoin(course, [api.name for api in apis], pool=POOL, manager=engine, adopts=adopts)


def join(way: SwarmJoin, api: FakeApi) -> str:
    return way.join(fake_engine(api, name=api.name), api.address)


def join_all(way: SwarmJoin, apis: Sequence[FakeApi]) -> Outcomes[str]:
    """All at once; one that fails gives up."""

    def one(api: FakeApi) -> str:
        try:
            return join(way, api)
        except BaseException:
            way.give_up(api.name)
            raise

    return fan_out(one, apis, name=lambda api: api.name)


def together(*apis: FakeApi, manager: FakeApi | None = None) -> list[str]:
    """The result of each: created, joined, unchanged."""
    return [outcome.get() for outcome in join_all(swarm_join(*apis, manager=manager), apis)]


def roles(api: FakeApi) -> list[tuple[str, str]]:
    return [(node.machine, "manager" if node.is_manager else "worker") for node in swarm_nodes(fake_engine(api))]
