"""The Docker Swarm of a course: who is in it, how it is left, and what a machine's membership says."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from docker.errors import APIError, NotFound

from cloudscale.course import naming
from cloudscale.engines.client import Engine, engine_errors
from cloudscale.errors import SwarmError
from cloudscale.waiting import poll

BRIDGE = "docker_gwbridge"  # made by the engine when it enters a swarm, and not removed by it
BRIDGE_LABEL = "cloudscale.bridge"
MACHINE = "cloudscale.machine"  # a node's label: the machine's name, known while the machine itself is down
ADDRESS = "cloudscale.address"  # and the address that it came with: a clone has the label and another address

MANAGERS = 3  # from three machines on; fewer have one, since of two none may be lost (raft's majority)
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
    created: str = ""  # when the swarm was, as text that sorts by time
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
    return replace(found, mark=mark, created=cluster.get("CreatedAt", ""))


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


def balance_managers(manager: Engine) -> None:
    """Three managers from three nodes on, one of fewer: promotes where some are missing, demotes one of two."""
    nodes = swarm_nodes(manager)
    wanted = MANAGERS if len(nodes) >= MANAGERS else 1
    managers = [node for node in nodes if node.is_manager]
    workers = [node for node in nodes if not node.is_manager and node.is_up]
    own = membership(manager).node_id
    # those that are down first: they only weigh against a majority
    others = sorted((node for node in managers if node.id != own), key=lambda node: node.is_up)
    surplus = others[: max(0, len(managers) - wanted)]
    with engine_errors(manager.name):
        for node in workers[: max(0, wanted - len(managers))]:
            update_node(manager, node.id, role="manager")
        for node in surplus:
            update_node(manager, node.id, role="worker")
