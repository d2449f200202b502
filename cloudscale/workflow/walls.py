"""The walls around the seats on the trainer's own engine: they come with the first seat, and go with the last one."""

from __future__ import annotations

from collections.abc import Collection

from cloudscale.cluster.state import Cluster
from cloudscale.course.session import Session
from cloudscale.errors import CloudscaleError
from cloudscale.images.recipes import full_reference
from cloudscale.model import Outcome, Outcomes
from cloudscale.seats import walls
from cloudscale.seats.address import Placed
from cloudscale.seats.spec import container_of


def build(cluster: Cluster, session: Session) -> str:
    """The id of the seats' network; "" where machines are set up for the course, walls included. Raises EngineError.

    Says so where they do not hold.
    """
    if not cluster.driver.adopts_swarm:
        return ""
    (host,) = cluster.hosts
    if not host.engine or not host.image:
        return ""
    network, fault = walls.build(host.engine, session.settings.course, host.image, session.settings.seat.reach)
    if fault:
        session.progress.say(
            f"Warning: the seats reach what this computer reaches, its own services included ({fault}). For students"
            " whom you do not know, use VMs or a cloud."
        )
    return network


def follow(cluster: Cluster, left: Collection[Placed], session: Session) -> Outcomes[str]:
    """Removes them if no seat is left. Returns what went wrong."""
    if left or not cluster.driver.adopts_swarm or not cluster.in_swarm:
        return Outcomes()
    engine, course = cluster.manager, session.settings.course
    try:
        if walls.are_there(engine, course):
            walls.remove(engine, course, _image(cluster, session))
    except CloudscaleError as error:
        return Outcomes([Outcome(engine.name, error=error)])
    return Outcomes()


def _image(cluster: Cluster, session: Session) -> str:
    """One that the engine has: that of the seats, which may be another one by now than the settings'."""
    for seat in cluster.seats:
        return str(container_of(seat.spec)["Image"])
    return full_reference(session.settings.image, [cluster.manager])
