"""The way out of a swarm: of some machines, or of all of them."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Mapping, Sequence

from docker.errors import APIError, NotFound

from cloudscale.course import naming
from cloudscale.engines.client import Engine, engine_errors
from cloudscale.errors import EngineError, SwarmError
from cloudscale.fanout import fan_out
from cloudscale.model import Outcome, Outcomes
from cloudscale.swarm.nodes import (
    BRIDGE,
    BRIDGE_LABEL,
    NOBODYS,
    SwarmNode,
    balance_managers,
    membership,
    remove_node,
    update_node,
)
from cloudscale.waiting import poll

PROMOTING = 30.0  # seconds for a node to become a manager


def shrink(
    managers: Sequence[Engine], engines: Mapping[str, Engine], nodes: Collection[SwarmNode], leaving: Sequence[Engine]
) -> Outcomes[str]:
    """Takes some machines out of a swarm that others stay in, and returns those that did not leave.

    One of those that stay is a manager before the first one leaves. `engines`: those of the swarm's machines that
    answer, by name. Raises EngineError.
    """
    names = {engine.name for engine in leaving}
    staying = [node for node in nodes if node.machine not in names]
    manager = next((engine for engine in managers if engine.name not in names), None)
    if manager is None:
        if not staying:
            return Outcomes()
        successor = next((node for node in staying if node.is_up and node.machine in engines), None)
        if successor is None:
            names_left = ", ".join(node.machine for node in staying)
            error = SwarmError(
                f"Of what stays in the swarm ({names_left}) nothing can manage it now.", "Bring it back first."
            )
            return Outcomes(Outcome[str](engine.name, error=error) for engine in leaving)
        with engine_errors(managers[0].name):
            update_node(managers[0], successor.id, role="manager")
        manager = promoted = engines[successor.machine]
        poll(lambda: membership(promoted).manages, timeout=PROMOTING)
    ids = {node.machine: node.id for node in nodes}
    made_bridge = {node.id for node in nodes if node.made_bridge}

    def take_out(engine: Engine) -> str:
        with engine_errors(manager.name):
            update_node(manager, ids[engine.name], role="worker")
        leave(engine, made_bridge)
        remove_node(manager, ids[engine.name])
        return "left the swarm"

    # one by one: each change needs a majority of the managers that are left
    left = fan_out(take_out, [engine for engine in leaving if engine.name in ids], name=lambda e: e.name, width=1)
    with contextlib.suppress(EngineError):  # the next run of themachine does it, if not this
        balance_managers(manager)
    return left.failed


def dissolve(manager: Engine, engines: Sequence[Engine], course: str) -> tuple[str, Outcomes[str]]:
    """Dissolves the swarm if the course made it: what was done, in words ("" for nothing), and who did not leave.

    Where others still use it, it is handed over to them instead: to another course by changing the
    mark, else by taking the mark away.
    """
    if not membership(manager).manages:
        return "", Outcomes()
    with engine_errors(manager.name):
        swarm = manager.api.inspect_swarm()
        marks = swarm["Spec"].get("Labels") or {}
        if marks.get(naming.MARK) != course:
            return "", Outcomes()
        nodes = {node["ID"]: node for node in manager.api.nodes()}
        others = _of_others(manager, course)
        if others or any(node["Spec"].get("Labels", {}).get(naming.MARK) != course for node in nodes.values()):
            courses = sorted(set(others) - {""})
            spec = swarm["Spec"]
            spec["Labels"] = {key: value for key, value in marks.items() if key != naming.MARK}
            if courses:
                spec["Labels"][naming.MARK] = courses[0]
            manager.api.update_swarm(swarm["Version"]["Index"], swarm_spec=spec)
            for node in nodes:
                if nodes[node]["Spec"].get("Labels", {}).get(naming.MARK) == course:
                    update_node(manager, node, labels={naming.MARK: courses[0]} if courses else NOBODYS)
            return (
                f"The swarm of {manager.name} stays: others have {len(others)} services, networks or secrets in it.",
                Outcomes(),
            )
    made_bridge = {node_id for node_id, node in nodes.items() if BRIDGE_LABEL in node["Spec"].get("Labels", {})}
    left = fan_out(lambda engine: leave(engine, made_bridge), engines, name=lambda engine: engine.name)
    return f"The swarm of {manager.name} was dissolved.", left.failed


def leave(engine: Engine, made_bridge: Iterable[str] | None = None) -> str:
    """Takes one engine out of whatever swarm it is in. `made_bridge`: nodes whose bridge came with the course."""
    with engine_errors(engine.name):
        swarm = engine.api.info().get("Swarm") or {}
        if swarm.get("LocalNodeState") == "inactive":  # it never came into it
            return "in no swarm"
        node_id = swarm.get("NodeID", "")
        engine.api.leave_swarm(force=True)
        if made_bridge is None or node_id in made_bridge:
            with contextlib.suppress(NotFound, APIError):  # in use by something else after all
                engine.api.remove_network(BRIDGE)
    return "left the swarm"


def _of_others(engine: Engine, course: str) -> list[str]:
    """The marks ("" for none) of what the swarm holds and this course did not make."""
    networks = engine.api.networks(filters={"scope": "swarm"})
    found = [network.get("Labels") or {} for network in networks if not network.get("Ingress")]
    for listed in (engine.api.services(), engine.api.secrets(), engine.api.configs()):
        found += [each["Spec"].get("Labels") or {} for each in listed]
    return [marks.get(naming.MARK, "") for marks in found if marks.get(naming.MARK) != course]
