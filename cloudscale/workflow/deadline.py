"""The deadline of a launch, and what is left of one."""

from __future__ import annotations

import contextlib
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from cloudscale.course import deadline
from cloudscale.course.flags import Launch
from cloudscale.course.session import Session
from cloudscale.drivers.protocols import Driver, KeepsDeadline
from cloudscale.errors import CloudscaleError
from cloudscale.model import Machine

if TYPE_CHECKING:
    from cloudscale.cluster.state import Cluster

Until = datetime | Literal["none"] | None  # None: not known (yet), and not to be changed


def choose(cluster: Cluster, launch: Launch, session: Session) -> Until:
    """The deadline that the launch gives the course, or the one that it has. Says how --until was read."""
    until, now, course = launch.until or cluster.until, deadline.now(), session.settings.course
    if launch.until == deadline.NONE:
        session.progress.say(f"The course {course!r} has no deadline")
    elif launch.until:
        when = f"{deadline.describe(launch.until, now)}, in {deadline.left(launch.until, now)}"
        session.progress.say(f"The deadline of the course {course!r}: {when}")
    elif warning := deadline.warning(cluster.until, now, course):
        session.progress.say(f"Warning: {warning}")
    elif cluster.without_quorum and not isinstance(cluster.driver, KeepsDeadline):
        session.progress.say(
            "Warning: a deadline of the course, if it has one, can't be read without the quorum of its swarm; a new"
            " swarm has none: give it again with --until"
        )
    return until


def mark_cloud(driver: Driver, until: Until) -> None:
    """Before machines are made: those of a launch that is cut off have it, too. Raises CloudError."""
    if until and isinstance(driver, KeepsDeadline):
        driver.mark_deadline(None if until == deadline.NONE else until)


def mark_swarm(cluster: Cluster, until: Until, session: Session) -> tuple[str, ...]:
    """Once there is a swarm. A new one gets the deadline of the former one, if that is known. Returns problems."""
    if until is None and (warning := deadline.warning(cluster.until, deadline.now(), session.settings.course)):
        session.progress.say(f"Warning: {warning}")  # its engine had to be started first
    until = until or cluster.until
    if until and cluster.in_swarm:
        from cloudscale.swarm.deadline import write_deadline

        try:
            write_deadline(cluster.manager, session.settings.course, None if until == deadline.NONE else until)
        except CloudscaleError as error:
            return (f"The deadline was not written into the swarm: {error}",)
    return ()


def warn_without_look(driver: Driver, first: Machine, session: Session) -> None:
    """For a task that needs no engine: warns of a deadline that is over, if the engine of `first` says it."""
    course = session.settings.course
    with contextlib.suppress(CloudscaleError):
        if isinstance(driver, KeepsDeadline):
            until = driver.deadline()
        else:
            engine = driver.connect(first)
            from cloudscale.swarm.deadline import read_deadline  # what speaks to engines is loaded once one is there
            from cloudscale.swarm.nodes import membership

            until = read_deadline(engine, course) if membership(engine).manages else None
        if warning := deadline.warning(until, deadline.now(), course):
            session.progress.say(f"Warning: {warning}")


def say_left(cluster: Cluster, session: Session) -> None:
    """How much time is left. (`look` warns of a deadline that is over.)"""
    now = deadline.now()
    if cluster.until and cluster.until > now:
        left = f"until {deadline.describe(cluster.until, now)}, {deadline.left(cluster.until, now)} left"
        session.progress.say(f"The course {session.settings.course!r}: {left}")
