"""Some machines leave a swarm, or all of them."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from docker.errors import APIError, NotFound

from cloudscale.course import naming
from cloudscale.engines.client import Engine, engine_errors
from cloudscale.errors import EngineError, SwarmError
from cloudscale.fanout import fan_out
from cloudscale.model import Outcome, Outcomes
from cloudscale.swarm.nodes import (
    BRIDGE,
    BRIDGE_LABEL,
    NO_LABELS,
    SwarmNode,
    balance_managers,
    demote,
    membership,
    promote,
    remove_node,
    update_node,
)


def shrink(
    managers: Sequence[Engine], engines: Mapping[str, Engine], nodes: Collection[SwarmNode], leaving: Sequence[Engine]
) -> Outcomes[str]:
    """Takes some machines out of a swarm in which others stay, and returns a failure for each that did not leave.

    Before the first one leaves, one of those that stay becomes a manager. `engines`: the engines of the swarm's
    machines that answer, by name. Raises EngineError.
    """
    names = {engine.name for engine in leaving}
    staying = [node for node in nodes if node.machine not in names]
    manager = next((engine for engine in managers if engine.name not in names), None)
    if manager is None:
        if not staying:
            return Outcomes()
        successor = next((node for node in staying if node.is_up and node.machine in engines), None)
        if successor is None:
            machines = ", ".join(node.machine for node in staying)
            error = SwarmError(
                f"None of the machines that stay in the swarm ({machines}) can manage it now.",
                "Start one of them, then run again.",
            )
            return Outcomes(Outcome[str](engine.name, error=error) for engine in leaving)
        manager = engines[successor.machine]
        promote(managers[0], successor.id, manager)
    ids = {node.machine: node.id for node in nodes}
    made_bridge = {node.id for node in nodes if node.made_bridge}

    def take_out(engine: Engine) -> str:
        with engine_errors(manager.name):
            demote(manager, ids[engine.name])
        leave(engine, made_bridge)
        remove_node(manager, ids[engine.name])
        return "left the swarm"

    # one by one: each change needs a majority of the remaining managers
    left = fan_out(take_out, [engine for engine in leaving if engine.name in ids], name=lambda e: e.name, width=1)
    with contextlib.suppress(EngineError):  # if it fails, the next run of themachine does it
        balance_managers(manager)
    return left.failed


def dissolve(manager: Engine, engines: Sequence[Engine], course: str) -> tuple[str, Outcomes[str]]:
    """Dissolves the swarm if the course created it; if others still use it, hands it over to them.

    Returns what was done as a sentence ("" for nothing), and a failure for each engine that did not leave.
    """
    if not membership(manager).manages:
        return "", Outcomes()
    with engine_errors(manager.name):
        swarm = manager.api.inspect_swarm()
        if (swarm["Spec"].get("Labels") or {}).get(naming.MARK) != course:
            return "", Outcomes()
        labels = {node["ID"]: node["Spec"].get("Labels", {}) for node in manager.api.nodes()}
        others = _marks_of_others(manager, course)
        if others or any(own.get(naming.MARK) != course for own in labels.values()):
            nodes = [node for node, own in labels.items() if own.get(naming.MARK) == course]
            _hand_over(manager, swarm, nodes, min(filter(None, others), default=""))
            used = f"{len(others)} services, networks, secrets or configs"
            return f"The swarm of {manager.name} stays: others use it ({used}).", Outcomes()
    made_bridge = {node for node, own in labels.items() if BRIDGE_LABEL in own}
    left = fan_out(lambda engine: leave(engine, made_bridge), engines, name=lambda engine: engine.name)
    return f"The swarm of {manager.name} was dissolved.", left.failed


def _hand_over(manager: Engine, swarm: Any, nodes: Collection[str], course: str) -> None:
    """Marks the swarm and these nodes for another course; or removes the marks if `course` is empty."""
    spec = swarm["Spec"]
    del spec["Labels"][naming.MARK]
    if course:
        spec["Labels"][naming.MARK] = course
    manager.api.update_swarm(swarm["Version"]["Index"], swarm_spec=spec)
    for node in nodes:
        update_node(manager, node, labels={naming.MARK: course} if course else NO_LABELS)


def leave(engine: Engine, made_bridge: Iterable[str] | None = None) -> str:
    """Takes one engine out of any swarm. `made_bridge`: ids of the nodes whose bridge was created for the course."""
    with engine_errors(engine.name):
        swarm = engine.api.info().get("Swarm") or {}
        if swarm.get("LocalNodeState") == "inactive":  # it never joined
            return "in no swarm"
        node_id = swarm.get("NodeID", "")
        engine.api.leave_swarm(force=True)
        if made_bridge is None or node_id in made_bridge:
            with contextlib.suppress(NotFound, APIError):  # something else uses it
                engine.api.remove_network(BRIDGE)
    return "left the swarm"


def _marks_of_others(engine: Engine, course: str) -> list[str]:
    """The marks ("" for none) of everything in the swarm that this course did not create."""
    networks = engine.api.networks(filters={"scope": "swarm"})
    labels = [network.get("Labels") or {} for network in networks if not network.get("Ingress")]
    for listed in (engine.api.services(), engine.api.secrets(), engine.api.configs()):
        labels += [each["Spec"].get("Labels") or {} for each in listed]
    return [marks.get(naming.MARK, "") for marks in labels if marks.get(naming.MARK) != course]
