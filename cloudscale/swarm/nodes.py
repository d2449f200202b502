"""The nodes of a course's swarm, its managers, and the part that one engine has in it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from docker.errors import APIError, NotFound

from cloudscale.course import naming
from cloudscale.engines.client import Engine, engine_errors
from cloudscale.errors import SwarmError, in_others_swarm
from cloudscale.outside import formed
from cloudscale.waiting import poll, retry

BRIDGE = "docker_gwbridge"  # the engine creates it when it joins a swarm, and does not remove it
BRIDGE_LABEL = "cloudscale.bridge"
MACHINE = "cloudscale.machine"  # a node's label: the machine's name, known even if the machine is down
ADDRESS = "cloudscale.address"  # the address that it joined with: a clone has this label, but another address

MANAGERS = 3  # from three machines on; fewer have one, because of two managers none may fail (raft's majority)
PROMOTING = 60.0  # seconds for a node to become a manager
DEMOTING = 60.0  # seconds for the managers to agree that one of them is a worker now
AGREEING = 60.0  # seconds for managers to agree on a change: an engine gives up one attempt itself after 20
# the node has just changed, the managers are electing a leader, or the leader did not answer another manager in time
UNDECIDED = re.compile("(?i)out of sequence|lost leader status|not have a leader|no leader|deadline ?exceeded")
NO_LABELS = dict.fromkeys((naming.MARK, MACHINE, ADDRESS, BRIDGE_LABEL), "")  # update_node removes them with it


# what is needed of an engine's answers
SWARM = {
    "LocalNodeState?": str,
    "NodeID?": str,
    "RemoteManagers?": [{"NodeID": str}],
    "Error?": str,
}
CLUSTER = {"Spec": {"Labels?": {"*": str}}, "CreatedAt?": str}
NODE = {"ID": str, "Spec": {"Labels?": {"*": str}, "Role": str}, "Status": {"State": str}}


@dataclass(frozen=True)
class Membership:
    """The part that an engine has in a swarm. `mark` is the swarm's, known only if the engine manages it."""

    state: str
    node_id: str = ""
    manages: bool = False
    mark: str = ""
    created: str = ""  # when the swarm was created, as text that sorts by time
    managers: frozenset[str] = frozenset()  # node ids of the managers
    problem: str = ""

    @property
    def is_active(self) -> bool:
        return self.state == "active"


def membership(engine: Engine) -> Membership:
    """Asks an engine for its membership. Raises EngineError."""
    with engine_errors(engine.name):
        swarm = formed(engine.api.info(), {"Swarm?": SWARM}).get("Swarm") or {}  # engines other than Docker's have none
        remotes = swarm.get("RemoteManagers") or []
        current = Membership(
            state=swarm.get("LocalNodeState") or "unknown",
            node_id=swarm.get("NodeID") or "",
            manages=bool(swarm.get("ControlAvailable")),
            managers=frozenset(manager["NodeID"] for manager in remotes),
            problem=swarm.get("Error") or "",
        )
        if not (current.is_active and current.manages):
            return current
        try:
            cluster = formed(engine.api.inspect_swarm(), CLUSTER)
        except APIError as error:  # quorum lost
            return replace(current, state="leaderless", problem=str(error.explanation))
    mark = (cluster["Spec"].get("Labels") or {}).get(naming.MARK, "")
    return replace(current, mark=mark, created=cluster.get("CreatedAt") or "")


def check_usable(name: str, current: Membership) -> None:
    """Raises SwarmError if an engine, the only one of its course, is in a swarm that it can't use."""
    if current.state == "inactive" or (current.is_active and current.manages):
        return
    if current.is_active:
        raise SwarmError(
            f"The Docker Engine of {name} is a worker in somebody else's swarm, so it can't be used.",
            "Set DOCKER_HOST to a manager of that swarm; or take the engine out of it: docker swarm leave.",
        )
    if current.state == "locked":
        raise SwarmError(f"The swarm of {name} is locked.", "Unlock it: docker swarm unlock.")
    raise SwarmError(
        f"The swarm of {name} is in the state {current.state!r}: {current.problem or 'no reason given'}.",
        "If you need nothing of it any more, leave it: docker swarm leave --force.",
    )


def check_ours(name: str, current: Membership, course: str, nodes: Iterable[str]) -> None:
    """Raises SwarmError if a machine belongs to a swarm of somebody else. `nodes`: the ids of the nodes in ours."""
    ours = set(nodes)
    if current.manages and current.mark == course:
        return
    if not current.is_active or (not current.manages and (current.node_id in ours or current.managers & ours)):
        return
    whose = f"of the course {current.mark!r}" if current.mark else "of somebody else"
    raise SwarmError(*in_others_swarm(name, whose))


@dataclass(frozen=True)
class SwarmNode:
    """A node as the managers see it; `machine` and `address` are its labels, empty if it has none."""

    id: str
    machine: str
    address: str
    is_up: bool
    is_manager: bool
    made_bridge: bool = False  # whether its bridge was created for the course


def swarm_nodes(manager: Engine) -> list[SwarmNode]:
    with engine_errors(manager.name):
        return [
            SwarmNode(
                id=node["ID"],
                machine=(node["Spec"].get("Labels") or {}).get(MACHINE, ""),
                address=(node["Spec"].get("Labels") or {}).get(ADDRESS, ""),
                is_up=node["Status"]["State"] == "ready",
                is_manager=node["Spec"]["Role"] == "manager",
                made_bridge=BRIDGE_LABEL in (node["Spec"].get("Labels") or {}),
            )
            for node in formed(manager.api.nodes(), [NODE])
        ]


def remove_node(manager: Engine, node_id: str) -> None:
    """Removes a node for good, unless it is gone already. If its machine comes back, it has to join again.

    Raises SwarmError, EngineError.
    """
    with engine_errors(manager.name), contextlib.suppress(NotFound):
        update_node(manager, node_id, role="worker")  # a manager can't be removed
        try:
            retry(lambda: manager.api.remove_node(node_id, force=True), when=_is_still_manager, timeout=DEMOTING)
        except APIError as error:
            if not _is_still_manager(error):
                raise
            raise SwarmError(
                f"The swarm of {manager.name} did not remove a lost manager within {DEMOTING:.0f} s.", "Run again."
            ) from None


def update_node(
    manager: Engine, node_id: str, *, labels: Mapping[str, str] | None = None, role: str | None = None
) -> None:
    """Sets labels (an empty value removes one) and role of a node. Raises docker-py's APIError."""

    def update() -> None:
        node = manager.api.inspect_node(node_id)
        spec: dict[str, Any] = node["Spec"]
        spec["Labels"] = {k: v for k, v in {**spec.get("Labels", {}), **(labels or {})}.items() if v}
        spec["Role"] = role or spec["Role"]
        manager.api.update_node(node_id, node["Version"]["Index"], spec)

    retry(update, when=_is_undecided, timeout=AGREEING)


def promote(manager: Engine, node_id: str, promoted: Engine) -> None:
    """Makes a node a manager, and waits until it takes part in decisions. Raises EngineError."""
    with engine_errors(manager.name):
        update_node(manager, node_id, role="manager")

    def decides() -> bool:
        current = membership(promoted)
        return current.is_active and current.manages

    poll(decides, timeout=PROMOTING)


def demote(manager: Engine, node_id: str) -> None:
    """Makes a node a worker, and waits until the managers decide without it. Raises docker-py's APIError.

    A node that leaves earlier takes its vote along: of two managers, the other one has no majority then, for good.
    """
    update_node(manager, node_id, role="worker")

    def is_worker() -> bool:
        return not manager.api.inspect_node(node_id).get("ManagerStatus")

    poll(lambda: retry(is_worker, when=_is_undecided, timeout=AGREEING), timeout=DEMOTING)


def _is_undecided(error: Exception) -> bool:
    return isinstance(error, APIError) and bool(UNDECIDED.search(str(error.explanation)))


def _is_still_manager(error: Exception) -> bool:
    """Whether a removal failed because the managers have not agreed yet that the node is a worker."""
    return _is_undecided(error) or (isinstance(error, APIError) and "demoted" in str(error.explanation))


def balance_managers(manager: Engine) -> None:
    """Promotes or demotes nodes until three of them are managers, or one if there are fewer than three."""
    nodes = swarm_nodes(manager)
    target = MANAGERS if len(nodes) >= MANAGERS else 1
    managers = [node for node in nodes if node.is_manager]
    workers = [node for node in nodes if not node.is_manager and node.is_up]
    own = membership(manager).node_id
    # first those that are down: they count for the quorum, but can't vote
    others = sorted((node for node in managers if node.id != own), key=lambda node: node.is_up)
    surplus = others[: max(0, len(managers) - target)]
    with engine_errors(manager.name):
        for node in workers[: max(0, target - len(managers))]:
            update_node(manager, node.id, role="manager")
        for node in surplus:
            update_node(manager, node.id, role="worker")
