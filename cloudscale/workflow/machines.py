"""From machines to a swarm with the image on each: every machine goes through it on its own, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cloudscale.cluster.state import Cluster
from cloudscale.course.session import Session
from cloudscale.drivers.protocols import MakesMachines, SetsUpEngines
from cloudscale.engines.client import Engine, trainers_engine
from cloudscale.fanout import MACHINES_WIDTH, fan_out
from cloudscale.images.delivery import Delivery
from cloudscale.images.on_engine import BytesDone
from cloudscale.images.recipes import is_ours
from cloudscale.model import Outcomes, Survey
from cloudscale.networks import SWARM_NETWORKS, spare_network
from cloudscale.phases import Phases
from cloudscale.swarm.joining import Member, SwarmJoin


@dataclass(frozen=True)
class Ready:
    """A machine that is ready for seats: what it is, its engine, and the image's name there."""

    survey: Survey
    engine: Engine
    pinned: str


def bring_up(
    cluster: Cluster, surveys: Mapping[str, Survey], session: Session, phases: Phases, bytes_done: BytesDone
) -> Outcomes[Ready]:
    """Engine, swarm and image of each machine, without one waiting for another but to join the first one's swarm.

    Every machine's outcome is kept; the others go on.
    """
    driver, settings = cluster.driver, session.settings
    # a machine that was set up before, and is stopped, may be a manager of the course's swarm already
    order = sorted(surveys, key=lambda name: not (surveys[name].state.is_asleep or cluster.managers))
    swarm_join = SwarmJoin(
        settings.course,
        order,
        pool=spare_network({network for survey in surveys.values() for network in survey.networks}, SWARM_NETWORKS),
        manager=cluster.managers[0] if cluster.managers else None,
        adopts=driver.adopts_swarm,
    )
    distribution = Delivery(
        settings.image,
        settings.course,
        copy=driver.copy_image if isinstance(driver, SetsUpEngines) else None,
        # there, the engine of this computer is the machine
        engines=cluster.engines.values(),
        trainer=lambda: None if driver.adopts_swarm else trainers_engine(),
        is_own=is_ours(settings.image),
        bytes_done=bytes_done,
        say=session.progress.say,
    )

    def one(survey: Survey) -> Ready:
        name = survey.machine.name
        try:
            if survey.state.needs_boot:
                assert isinstance(driver, MakesMachines)
                with phases.timed("boot", name):
                    survey = driver.boot(survey.machine)
            with phases.timed("engine", name):
                engine = driver.prepare(survey.machine)
            member = Member(engine, survey.address)
            if name == order[0]:  # the others wait for its swarm, not for its image
                with phases.timed("swarm", name):
                    swarm_join.enter(member)
            with phases.timed("image", name):
                pinned = distribution.deliver(engine, survey)
            if name != order[0]:
                with phases.timed("swarm", name):
                    swarm_join.enter(member)
            return Ready(survey, engine, pinned)
        except BaseException:
            swarm_join.give_up(name)
            raise

    return fan_out(one, surveys.values(), name=lambda survey: survey.machine.name, width=MACHINES_WIDTH)
