"""How the tests of gathering have engines gather."""

from __future__ import annotations

from collections.abc import Sequence

from cloudscale.fanout import fan_out
from cloudscale.model import Outcomes
from cloudscale.swarm.joining import Member, SwarmJoin
from cloudscale.swarm.nodes import swarm_nodes
from tests.unit.fake_api import FakeApi
from tests.unit.fakes import fake_engine

POOL = "198.18.0.0/16"


def member(api: FakeApi) -> Member:
    return Member(fake_engine(api, name=api.name), api.address)


def gather(*apis: FakeApi, manager: FakeApi | None = None, adopts: bool = False, course: str = "bio") -> SwarmJoin:
    gate = fake_engine(manager, name=manager.name) if manager else None
    return SwarmJoin(course, [api.name for api in apis], pool=POOL, manager=gate, adopts=adopts)


def enter_all(way: SwarmJoin, apis: Sequence[FakeApi]) -> Outcomes[str]:
    """All at once; one that fails gives up."""

    def one(api: FakeApi) -> str:
        try:
            return way.enter(member(api))
        except BaseException:
            way.give_up(api.name)
            raise

    return fan_out(one, apis, name=lambda api: api.name)


def together(*apis: FakeApi, manager: FakeApi | None = None) -> list[str]:
    """What came of each: founded, joined, there."""
    return [outcome.get() for outcome in enter_all(gather(*apis, manager=manager), apis)]


def roles(api: FakeApi) -> list[tuple[str, str]]:
    return [(node.machine, "manager" if node.is_manager else "worker") for node in swarm_nodes(fake_engine(api))]
