"""What the managers of a fake swarm agree on, and the network over which its engines reach each other."""

from __future__ import annotations

import itertools
import threading
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from tests.unit.api_schema import Json, api_error

if TYPE_CHECKING:
    from tests.unit.fake_api import FakeApi

LEADERLESS = "The swarm does not have a leader. It's possible that too few managers are online."


class FakeNetwork:
    """Engines by the address that their neighbours reach them by. One call at a time is answered in all of it."""

    def __init__(self) -> None:
        self.engines: dict[str, FakeApi] = {}
        self.lock = threading.RLock()
        self._numbers: dict[str, itertools.count[int]] = {}

    def time(self) -> str:
        """A second later than the time before."""
        at = self.number("time")
        return f"2024-01-01T{at // 3600:02}:{at // 60 % 60:02}:{at % 60:02}Z"

    def number(self, kind: str) -> int:
        return next(self._numbers.setdefault(kind, itertools.count(1)))


@dataclass
class FakeNode:
    """A member as the managers have it. `api` is its engine, which may have left or gone down since.

    A manager is `in_raft`, the circle that decides, once the others have reached it.
    """

    id: str
    api: FakeApi
    role: str
    address: str
    labels: dict[str, str] = field(default_factory=dict)
    version: int = 20
    in_raft: bool = True


class FakeSwarm:
    """One swarm: services start at once, on the node that their constraint names.

    `unnoticed` are ids of nodes that are down without the managers having noticed; the next `collisions`
    updates of nodes come too late.
    """

    def __init__(self, network: FakeNetwork) -> None:
        self.number = network.number("swarm")
        self.created = network.time()
        self.nodes: dict[str, FakeNode] = {}
        self.services: dict[str, Json] = {}
        self.tasks: list[Json] = []
        self.secrets: dict[str, Json] = {}
        self.secret_data: dict[str, bytes] = {}
        self.configs: list[Json] = []
        self.overlays: list[Json] = []  # networks that somebody made in the swarm
        self.labels: dict[str, str] = {}
        self.version = 10
        self.unnoticed: set[str] = set()
        self.collisions = 0
        self._network = network

    def cloned(self, node_id: str, twin: FakeApi) -> FakeSwarm:
        """The swarm as a copy of a manager's disk has it: the copy is that manager, and the others are out of reach."""
        copy = FakeSwarm(self._network)
        copy.number, copy.created, copy.version = self.number, self.created, self.version
        copy.labels, copy.services, copy.secrets = dict(self.labels), deepcopy(self.services), deepcopy(self.secrets)
        copy.nodes = {id: replace(node, labels=dict(node.labels)) for id, node in self.nodes.items()}
        copy.nodes[node_id].api = twin
        return copy

    def id(self, kind: str) -> str:
        return f"{kind}{self._network.number('thing')}"

    def token(self, role: str) -> str:
        return f"SWMTKN-1-{self.number}-{role}"

    # --- nodes ---

    def enter(self, api: FakeApi, role: str, address: str) -> str:
        node_id = f"node{self._network.number('node')}"
        self.nodes[node_id] = FakeNode(node_id, api, role, address)
        return node_id

    def is_up(self, node: FakeNode) -> bool:
        api = node.api
        return not api.is_down and api.swarm is self and api.node_id == node.id and api.swarm_state == "active"

    @property
    def managers(self) -> list[FakeNode]:
        return [node for node in self.nodes.values() if node.role == "manager" and node.in_raft]

    @property
    def has_leader(self) -> bool:
        managers = self.managers
        return sum(map(self.is_up, managers)) > len(managers) // 2

    def node(self, node_id: str) -> FakeNode:
        if node_id not in self.nodes:
            raise api_error(404, f"node {node_id} not found")
        return self.nodes[node_id]

    def describe(self, node: FakeNode) -> Json:
        is_up = self.is_up(node)
        described: Json = {
            "ID": node.id,
            "Version": {"Index": node.version},
            "Spec": {"Role": node.role, "Availability": "active", "Labels": dict(node.labels)},
            "Description": {"Hostname": node.api.name},
            "Status": {"State": "ready" if is_up or node.id in self.unnoticed else "down", "Addr": node.api.address},
        }
        if node in self.managers:
            described["ManagerStatus"] = {
                "Leader": node is next(filter(self.is_up, self.managers), None),
                "Reachability": "reachable" if is_up else "unreachable",
                "Addr": node.address,
            }
        return described

    def change(self, node: FakeNode, version: int, spec: Json) -> None:
        assert set(spec) <= {"Name", "Role", "Availability", "Labels"}
        assert spec["Role"] in ("manager", "worker") and spec["Availability"] == "active"
        if self.collisions or version != node.version:
            self.collisions -= bool(self.collisions)
            raise api_error(500, "rpc error: code = Unknown desc = update out of sequence")
        if node in self.managers and spec["Role"] == "worker":
            rest = [other for other in self.managers if other is not node]
            if not rest:
                raise api_error(400, "attempting to demote the last manager of the swarm")
            if sum(map(self.is_up, rest)) <= len(rest) // 2:
                raise api_error(400, "can't remove member from the raft: this would result in a loss of quorum")
        node.role, node.labels, node.version = spec["Role"], dict(spec["Labels"]), node.version + 1
        if self.is_up(node):
            node.api.known_role = node.role

    def remove_node(self, node: FakeNode, force: bool) -> None:
        if node in self.managers:
            raise api_error(
                400,
                f"node {node.id} is a cluster manager and is a member of the raft cluster."
                " It must be demoted to worker before removal",
            )
        if self.describe(node)["Status"]["State"] == "ready" and not force:
            raise api_error(400, f"node {node.id} is not down and can't be removed")
        del self.nodes[node.id]
        self.tasks = [task for task in self.tasks if task["NodeID"] != node.id]

    # --- services ---

    def start(self, service_id: str) -> None:
        spec = self.services[service_id]["Spec"]
        if not spec["Mode"]["Replicated"]["Replicas"]:
            return
        (constraint,) = spec["TaskTemplate"]["Placement"]["Constraints"]
        node = self.nodes.get(constraint.removeprefix("node.id=="))
        if node is None or not (self.is_up(node) or node.id in self.unnoticed):
            self.add_task(service_id, "pending", error="no suitable node (scheduling constraints not satisfied)")
        elif not self.is_up(node):
            self.add_task(service_id, "assigned", node_id=node.id)
        else:
            container = node.api.run(service_id, spec)
            self.add_task(service_id, "running", container=container, node_id=node.id)

    def add_task(
        self,
        service_id: str,
        state: str,
        *,
        node_id: str = "",
        error: str = "",
        container: str = "",
        desired: str = "running",
    ) -> str:
        """A task as the orchestrator would have made it; each one is newer than those before."""
        task_id = self.id("task")
        status: Json = {"State": state}
        if error:
            status["Err"] = error
        if container:
            status["ContainerStatus"] = {"ContainerID": container}
        spec = self.services[service_id]["Spec"]["TaskTemplate"] if service_id in self.services else {}
        self.tasks.append(
            {
                "ID": task_id,
                "CreatedAt": self._network.time(),
                "ServiceID": service_id,
                "NodeID": node_id,
                "DesiredState": desired,
                "Spec": {key: deepcopy(value) for key, value in spec.items() if key != "Runtime"},
                "Status": status,
            }
        )
        return task_id

    def stop(self, service_id: str) -> None:
        for task in self.tasks:
            if task["ServiceID"] == service_id:
                task["DesiredState"] = "shutdown"
        for node in self.nodes.values():
            if self.is_up(node):
                node.api.end({service_id})
