"""The Docker Swarm of a course: who is in it, how it is left, and what a machine's membership says."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from docker.errors import APIError, NotFound

from cloudscale.course import naming
from cloudscale.engines.client import Engine, engine_errors
from cloudscale.errors import SwarmError
from cloudscale.fanout import fan_out
from cloudscale.model import Outcomes
from cloudscale.waiting import poll

BRIDGE = "docker_gwbridge"  # made by the engine when it enters a swarm, and not removed by it
BRIDGE_LABEL = "cloudscale.bridge"
MACHINE = "cloudscale.machine"  # a node's label: the machine's name, known while the machine itself is down
ADDRESS = "cloudscale.address"  # and the address that it came with: a clone has the label and another address

DEMOTING = 20.0  # seconds for the managers to agree that one is none any more
AGREEING = 20.0  # seconds for managers to agree on a change
# a node has reported something in between, or the managers are just choosing another leader
UNDECIDED = re.compile("out of sequence|lost leader status|not have a leader|no leader")
NOBODYS = dict.fromkeys((naming.MARK, MACHINE, ADDRESS, BRIDGE_LABEL), "")  # what takes all of them away


@dataclass(frozen=True)
class Membership:
    """What an engine says of its own part in a swarm. `mark` is that of the swarm, where the engine manages it."""

    state: str
    node_id: str = ""
    manages: bool = False
    mark: str = ""
    founded: str = ""  # when the swarm was, as text that sorts by time
    managers: frozenset[str] = frozenset()  # ids of the managers' nodes
    problem: str = ""

    @property
    def is_active(self) -> bool:
        return self.state == "active"


def membership(engine: Engine) -> Membership:
    """Where the engine stands now. Raises EngineError."""
    with engine_errors(engine.name):
        swarm = engine.api.info().get("Swarm") or {}  # an engine of another make has none
        remotes = swarm.get("RemoteManagers") or []
        found = Membership(
            state=swarm.get("LocalNodeState", "unknown"),
            node_id=swarm.get("NodeID", ""),
            manages=bool(swarm.get("ControlAvailable")),
            managers=frozenset(manager["NodeID"] for manager in remotes),
            problem=swarm.get("Error", ""),
        )
        if not (found.is_active and found.manages):
            return found
        try:
            cluster = engine.api.inspect_swarm()
        except APIError as error:  # too few managers are left to decide anything
            return replace(found, state="leaderless", problem=str(error.explanation))
    mark = (cluster["Spec"].get("Labels") or {}).get(naming.MARK, "")
    return replace(found, mark=mark, founded=cluster.get("CreatedAt", ""))


def check_usable(name: str, found: Membership) -> None:
    """Raises SwarmError where an engine, alone with its course, is in a swarm that it can't use."""
    if found.state == "inactive" or (found.is_active and found.manages):
        return
    if found.is_active:
        raise SwarmError(
            f"The Docker Engine of {name} is a worker in somebody else's swarm, and is not taken over.",
            "Run this against a manager of that swarm (DOCKER_HOST), or take the engine out: docker swarm leave.",
        )
    if found.state == "locked":
        raise SwarmError(f"The swarm of {name} is locked.", "Open it with: docker swarm unlock.")
    raise SwarmError(
        f"The swarm of {name} is in the state {found.state!r}: {found.problem or 'no reason given'}.",
        "If nothing there is needed any more, take the engine out with: docker swarm leave --force.",
    )


def check_ours(name: str, found: Membership, course: str, nodes: Iterable[str]) -> None:
    """Raises SwarmError where a machine belongs to a swarm of somebody else. `nodes`: the ids of those in ours."""
    ours = set(nodes)
    if found.manages and found.mark == course:
        return
    if not found.is_active or (not found.manages and (found.node_id in ours or found.managers & ours)):
        return
    whose = f"of the course {found.mark!r}" if found.mark else "of somebody else"
    raise SwarmError(
        f"{name}: it belongs to a swarm {whose}, and is left to it.",
        "Leave this machine out, or take it out of that swarm: docker swarm leave (--force on a manager).",
    )


@dataclass(frozen=True)
class SwarmNode:
    """A node as the swarm's managers see it; `machine` and `address` are its labels, empty where it has none."""

    id: str
    machine: str
    address: str
    is_up: bool
    is_manager: bool
    made_bridge: bool = False  # whether its bridge came with the course


def swarm_nodes(manager: Engine) -> list[SwarmNode]:
    with engine_errors(manager.name):
        return [
            SwarmNode(
                id=node["ID"],
                machine=node["Spec"].get("Labels", {}).get(MACHINE, ""),
                address=node["Spec"].get("Labels", {}).get(ADDRESS, ""),
                is_up=node["Status"]["State"] == "ready",
                is_manager=node["Spec"]["Role"] == "manager",
                made_bridge=BRIDGE_LABEL in node["Spec"].get("Labels", {}),
            )
            for node in manager.api.nodes()
        ]


def remove_node(manager: Engine, node_id: str) -> None:
    """Strikes a node off that does not come back. Its machine, should it come back, joins anew."""
    with engine_errors(manager.name), contextlib.suppress(NotFound):
        update_node(manager, node_id, role="worker")  # a manager can't be removed

        def step() -> bool:
            try:
                manager.api.remove_node(node_id, force=True)
            except APIError as error:
                said = str(error.explanation)
                if "demoted" not in said and not UNDECIDED.search(said):  # the managers have not agreed on it yet
                    raise
                return False
            return True

        if not poll(step, timeout=DEMOTING):
            raise SwarmError(f"A lost manager can't be struck off the swarm of {manager.name}.", "Run again.")


def update_node(
    manager: Engine, node_id: str, *, labels: Mapping[str, str] | None = None, role: str | None = None
) -> None:
    """Sets labels (an empty value takes one away) and role of a node."""
    refusals: list[APIError] = []

    def step() -> bool:
        try:
            node = manager.api.inspect_node(node_id)
            spec: dict[str, Any] = node["Spec"]
            spec["Labels"] = {k: v for k, v in {**spec.get("Labels", {}), **(labels or {})}.items() if v}
            spec["Role"] = role or spec["Role"]
            manager.api.update_node(node_id, node["Version"]["Index"], spec)
            return True
        except APIError as error:
            if not UNDECIDED.search(str(error.explanation)):
                raise
            refusals.append(error)
            return False

    if not poll(step, timeout=AGREEING):
        raise refusals[-1]


def leave_swarm(manager: Engine, engines: Sequence[Engine], course: str) -> tuple[str, Outcomes[str]]:
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
    left = fan_out(lambda engine: depart(engine, made_bridge), engines, name=lambda engine: engine.name)
    return f"The swarm of {manager.name} was dissolved.", left.failed


def depart(engine: Engine, made_bridge: Iterable[str] | None = None) -> str:
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
