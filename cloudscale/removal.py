"""What a reset removes: seats and volumes, chosen together, each with its outcome."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cloudscale import containers, naming
from cloudscale.cluster import Cluster, Session
from cloudscale.engine import Engine
from cloudscale.fanout import fan_out
from cloudscale.model import Outcome
from cloudscale.spawner import RunningSeat, Spawner


@dataclass(frozen=True)
class Removable:
    """What a reset may remove: the seats and the volumes (engine, name) that were chosen."""

    seats: tuple[RunningSeat, ...]
    volumes: tuple[tuple[Engine, str], ...]


def removable(cluster: Cluster, session: Session, *, with_volumes: bool) -> Removable:
    seat_of = {seat.student_id: seat for seat in cluster.seats}
    volumes = [
        (engine, volume["Name"], volume["Labels"][naming.STUDENT])
        for engine in cluster.engines.values()
        for volume in sorted(containers.volumes(engine, session.settings.course), key=lambda volume: volume["Name"])
        if with_volumes
    ]

    def names(target: RunningSeat | tuple[Engine, str, str]) -> tuple[str, ...]:
        if isinstance(target, RunningSeat):
            return cluster.names_of(target)
        engine, volume, student_id = target
        seat = seat_of.get(student_id)
        return (volume, student_id, engine.name, *(cluster.names_of(seat) if seat else ()))

    targets: list[RunningSeat | tuple[Engine, str, str]] = [*cluster.seats, *volumes]
    chosen = session.selection.choose(targets, names)
    return Removable(
        seats=tuple(target for target in chosen if isinstance(target, RunningSeat)),
        volumes=tuple((target[0], target[1]) for target in chosen if not isinstance(target, RunningSeat)),
    )


def remove(cluster: Cluster, session: Session, chosen: Removable) -> list[Outcome[str]]:
    outcomes: list[Outcome[str]] = []
    if cluster.in_swarm:
        spawn = Spawner(cluster.manager, session.settings.course)
        outcomes += remove_seats(cluster, chosen.seats, spawn)
        spawn.remove_unused_secrets()
    return outcomes + fan_out(lambda item: containers.remove_volume(*item), chosen.volumes, name=lambda item: item[1])


def remove_seats(cluster: Cluster, seats: Sequence[RunningSeat], spawn: Spawner) -> list[Outcome[str]]:
    """Removes services and waits until their containers are gone, so that ports and volumes are free."""
    outcomes = spawn.remove(seats)
    students = {seat.student_id: seat.name for seat in seats}
    waits = fan_out(
        lambda engine: containers.wait_gone(engine, spawn.course, students),
        cluster.engines.values(),
        name=lambda engine: engine.name,
    )
    lingering = {students[left.target]: left.error for wait in waits for left in wait.value or ()}
    return [
        Outcome(outcome.target, error=lingering[outcome.target]) if outcome.target in lingering else outcome
        for outcome in outcomes
    ] + [Outcome[str](wait.target, error=wait.error) for wait in waits if not wait.ok]
