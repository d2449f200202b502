"""Docker Engines, alone or in one network, as far as the package asks for them. They reject what they do not know."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from copy import deepcopy
from typing import Any

from cloudscale.units import GIB
from tests.unit.api_schema import Json, api_error
from tests.unit.fake_calls import call, labelled
from tests.unit.fake_helpers import FakeHelpers
from tests.unit.fake_services import FakeServices
from tests.unit.fake_stats import look
from tests.unit.fake_swarm import LEADERLESS, FakeNetwork, FakeSwarm
from tests.unit.fake_volumes import FakeVolumes
from tests.unit.images.fake_images import FakeImages

BRIDGE = "docker_gwbridge"
LATE = (
    "Timeout was reached before node joined. The attempt to join the swarm will continue in the background."
    ' Use the "docker info" command to see the current swarm status of your node.'
)


class FakeApi(FakeImages, FakeVolumes, FakeHelpers, FakeServices):
    """The API of one engine as docker-py's low-level client gives it; alone in its swarm, or in none.

    `changes` are the calls that changed something, in order. `joining` says what comes of the next attempts
    to join: `late` (it goes on in the background, and succeeds), `stuck` (it never ends), `error`.
    """

    def __init__(
        self,
        *,
        memory: int = 16 * GIB,
        cpus: int = 8,
        in_swarm: bool = True,
        name: str = "m1",
        address: str = "192.0.2.1",
        network: FakeNetwork | None = None,
    ) -> None:
        super().__init__(name, network or FakeNetwork())
        self.address = address
        self.memory, self.cpus = memory, cpus
        self.data_root = ""
        self.labels: list[str] = []
        self.network.engines.setdefault(address, self)
        self.networks_: list[str] = []
        self.logs_: dict[str, bytes] = {}
        self.looks: dict[str, int] = {}
        self.used_memory = GIB // 2  # of each container
        self.keeps_containers = False  # as an engine that does not get rid of them
        self.joining: list[str] = []
        self._known_managers: list[Json] | None = None
        self._still_joining = 0  # looks for which it is pending
        if in_swarm:
            self._become_member(FakeSwarm(self.network), "manager", f"{address}:2377")

    def _become_member(self, swarm: FakeSwarm, role: str, address: str) -> None:
        self.swarm, self.node_id = swarm, swarm.enter(self, role, address)
        self.swarm_state, self.known_role = "active", role
        if BRIDGE not in self.networks_:
            self.networks_.append(BRIDGE)

    # --- the engine ---

    @call
    def info(self) -> Json:
        state = self.swarm_state
        if self._still_joining:
            self._still_joining -= 1
            state = "pending"
        problem = "certificate expired" if state == "error" else ""
        if self.manages and not self._can_decide:
            problem = LEADERLESS
        return {
            "Name": self.name,
            "NCPU": self.cpus,
            "MemTotal": self.memory,
            "Architecture": "x86_64",
            "DockerRootDir": self.data_root,
            "Labels": list(self.labels),
            "Swarm": {
                "LocalNodeState": state,
                "NodeID": self.node_id,
                "NodeAddr": self.address if self.node_id else "",
                "ControlAvailable": self.manages and state == "active",
                "RemoteManagers": self._remote_managers() or None,
                "Error": problem,
            },
        }

    def _remote_managers(self) -> list[Json]:
        if self._known_managers is not None:
            return self._known_managers
        return [{"NodeID": node.id, "Addr": node.address} for node in self.swarm.managers if self.node_id]

    @call
    def version(self, api_version: bool = True) -> Json:
        return {"Version": "20.10.24", "ApiVersion": "1.41", "Arch": "amd64", "Os": "linux"}

    @call
    def containers(self, all: bool = False, filters: Mapping[str, Any] | None = None) -> list[Json]:
        shown = [c for c in self.containers_ if all or c["State"] == "running"]
        if filters and (volumes := filters.get("volume")):  # one of these
            assert {*filters} == {"volume"}
            return deepcopy([c for c in shown if {*volumes} & {*c["Volumes"]}])
        return deepcopy(labelled(shown, filters, lambda c: c["Labels"]))

    @call
    def stats(self, container: str, stream: bool, one_shot: bool) -> Json:
        """Each look is a second after the one before."""
        assert one_shot and not stream
        if container not in {each["Id"] for each in self.containers_}:
            raise api_error(404, f"No such container: {container}")
        self.looks[container] = self.looks.get(container, 0) + 1
        return look(self.looks[container], cores=0.5, memory=self.used_memory, limit=2 * GIB)

    @call
    def logs(self, container: str, tail: int = 0) -> bytes:
        if container not in self.logs_:
            raise api_error(404, f"No such container: {container}")
        return b"\n".join(self.logs_[container].splitlines()[-tail:])

    @call
    def networks(self, names: Sequence[str] | None = None, filters: Mapping[str, Any] | None = None) -> list[Json]:
        """The engine's own bridge by name, and what lies in the swarm by its scope."""
        if filters is not None:
            assert filters == {"scope": "swarm"}
            return [{"Name": "ingress", "Ingress": True, "Labels": {}}, *deepcopy(self.overlays)]
        return [{"Name": name} for name in self.networks_ if names is None or name in names]

    @call
    def remove_network(self, net_id: str) -> None:
        if net_id not in self.networks_:
            raise api_error(404, f"network {net_id} not found")
        if self.node_id:
            raise api_error(403, f"error while removing network: network {net_id} has active endpoints")
        self.networks_.remove(net_id)
        self._changed(f"remove network {net_id}")

    # --- the swarm ---

    def _outside(self) -> None:
        if self.swarm_state != "inactive":
            raise api_error(503, 'This node is already part of a swarm. Use "docker swarm leave" to leave this swarm.')

    def _own_addresses(self, *addresses: str) -> None:
        for address in addresses:
            if address.removesuffix(":2377").strip("[]") not in (self.address, "127.0.0.1"):
                raise api_error(400, f"must specify a listening address: {address} is none of this host")

    @call
    def create_swarm_spec(self, labels: Mapping[str, str], task_history_retention_limit: int) -> Json:
        assert task_history_retention_limit == 3  # so that few dead containers stay
        return {"Labels": dict(labels)}

    @call
    def init_swarm(
        self,
        advertise_addr: str,
        listen_addr: str,
        data_path_addr: str,
        default_addr_pool: Sequence[str],
        swarm_spec: Json,
    ) -> str:
        self._outside()
        self._own_addresses(advertise_addr, listen_addr, data_path_addr)
        self._become_member(FakeSwarm(self.network), "manager", f"{advertise_addr}:2377")
        self.swarm.labels = dict(swarm_spec["Labels"])
        self._changed(f"init swarm on {listen_addr} with {','.join(default_addr_pool)}")
        return self.node_id

    @call
    def join_swarm(
        self, remote_addrs: Sequence[str], join_token: str, listen_addr: str, advertise_addr: str, data_path_addr: str
    ) -> bool:
        self._outside()
        self._own_addresses(advertise_addr, listen_addr, data_path_addr)
        remotes = [self.network.engines.get(address.removesuffix(":2377")) for address in remote_addrs]
        gates = [api for api in remotes if api and not api.is_down and api.manages and api._can_decide]
        fate = self.joining.pop(0) if self.joining else ""
        if not gates or fate == "stuck":
            self.swarm_state = "pending"
            raise api_error(503, LATE)
        swarm = gates[0].swarm
        roles = {swarm.token(role): role.lower() for role in ("Manager", "Worker")}
        if join_token not in roles:
            raise api_error(400, "A valid join token is necessary to join this cluster")
        self._become_member(swarm, roles[join_token], f"{advertise_addr}:2377")
        self._changed(f"join swarm as {roles[join_token]}")
        if fate == "error":
            self.swarm_state = "error"
            self.swarm.nodes[self.node_id].in_raft = False
            raise api_error(500, "context deadline exceeded")
        if fate == "late":
            self._still_joining = 3
            raise api_error(503, LATE)
        assert not fate
        return True

    @call
    def inspect_swarm(self) -> Json:
        self._manager()
        return {
            "ID": f"swarm{self.swarm.number}",
            "CreatedAt": self.swarm.created,
            "Spec": {"Name": "default", "Labels": dict(self.swarm.labels)},
            "Version": {"Index": self.swarm.version},
            "JoinTokens": {role: self.swarm.token(role) for role in ("Manager", "Worker")},
        }

    @call
    def update_swarm(self, version: int, swarm_spec: Json) -> None:
        self._manager()
        if version != self.swarm.version:
            raise api_error(500, "rpc error: code = Unknown desc = update out of sequence")
        self.swarm.version += 1
        self.swarm.labels = dict(swarm_spec["Labels"])
        self._changed("update swarm")

    @call
    def leave_swarm(self, force: bool) -> None:
        assert force  # the last manager does not leave otherwise
        if self.swarm_state == "inactive":
            raise api_error(503, "This node is not part of a swarm")
        self.end(set(self.swarm.services) | {container["Service"] for container in self.containers_} - {""})
        self.swarm, self.swarm_state, self.node_id, self.known_role = FakeSwarm(self.network), "inactive", "", ""
        self._known_managers, self._still_joining = None, 0
        self._changed("leave swarm")

    @call
    def nodes(self, filters: Json | None = None) -> list[Json]:
        self._manager()
        nodes = self.swarm.nodes.values()
        return [self.swarm.describe(node) for node in nodes if not filters or filters == {"role": node.role}]

    @call
    def inspect_node(self, node_id: str) -> Json:
        self._manager()
        return self.swarm.describe(self.swarm.node(node_id))

    @call
    def update_node(self, node_id: str, version: int, node_spec: Json) -> None:
        self._manager()
        self.swarm.change(self.swarm.node(node_id), version, node_spec)
        self._changed(f"update node {node_id}")

    @call
    def remove_node(self, node_id: str, force: bool = False) -> None:
        self._manager()
        self.swarm.remove_node(self.swarm.node(node_id), force)
        self._changed(f"remove node {node_id}")

    # --- what the swarm has the engine do ---

    def run(self, service_id: str, spec: Json) -> str:
        """The container of a service, with its volumes."""
        template = spec["TaskTemplate"]
        mounts = [each for each in template["ContainerSpec"].get("Mounts", []) if each["Type"] == "volume"]
        for mount in mounts:
            given = mount["VolumeOptions"]
            options = given.get("DriverConfig", {}).get("Options")
            made = {
                "Name": mount["Source"],
                "Labels": dict(given["Labels"]),
                "Options": options,
                "CreatedAt": self.network.time(),
            }
            self.volumes_.setdefault(mount["Source"], made)
        container: Json = {
            "Id": self.swarm.id("container"),
            "State": "running",
            "Image": template["ContainerSpec"]["Image"],
            "Labels": {**template["ContainerSpec"]["Labels"], "com.docker.swarm.service.name": spec["Name"]},
            "Ports": [{"PublicPort": port["PublishedPort"]} for port in spec["EndpointSpec"]["Ports"]],
            "Volumes": [mount["Source"] for mount in mounts],
            "Service": service_id,
        }
        self.containers_.append(container)
        if "cloudscale.program" in container["Labels"]:
            self.read_gateway(self.files.setdefault(mounts[0]["Source"], {}))
        return str(container["Id"])

    def end(self, services: Collection[str]) -> None:
        if not self.keeps_containers:
            self.containers_ = [c for c in self.containers_ if c.get("Service") not in services]

    # --- for tests ---

    def add_task(self, service_id: str, state: str, *, error: str = "", container: str = "") -> str:
        """A task on this very node."""
        return self.swarm.add_task(service_id, state, node_id=self.node_id, error=error, container=container)

    def go_down(self) -> None:
        """Does not answer any more, to nobody, and does not learn what becomes of its swarm."""
        self._known_managers = self._remote_managers()
        self.is_down = True

    def come_back(self) -> None:
        """Answers again. What its swarm has ended meanwhile, it ends, unless that has no leader or struck it off."""
        self.is_down = False
        if (node := self.swarm.nodes.get(self.node_id)) and self.swarm.has_leader:
            self.known_role, self._known_managers = node.role, None
            here = [f"node.id=={self.node_id}"]
            services = self.swarm.services.items()
            wanted = {id for id, each in services if each["Spec"]["TaskTemplate"]["Placement"]["Constraints"] == here}
            self.end({container.get("Service", "") for container in self.containers_} - wanted - {""})

    def become_worker(self) -> None:
        """As one whose swarm is managed by an engine that is none of the course."""
        elsewhere = FakeApi(in_swarm=False, name="elsewhere", address="203.0.113.9", network=self.network)
        elsewhere._become_member(self.swarm, "manager", "203.0.113.9:2377")
        self.swarm.nodes[self.node_id].role = self.known_role = "worker"

    def rename_node(self, node_id: str) -> None:
        """As if the node that was there had gone, and another come in its place."""
        node = self.swarm.nodes.pop(self.node_id)
        self.node_id = node.id = node_id
        self.swarm.nodes[node_id] = node

    def clone(self, name: str, address: str) -> FakeApi:
        """Another host, made from a copy of this one's disk."""
        twin = FakeApi(in_swarm=False, name=name, address=address, network=self.network, memory=self.memory)
        twin.images_, twin.registry = dict(self.images_), self.registry
        twin.volumes_, twin.networks_ = deepcopy(self.volumes_), list(self.networks_)
        twin.swarm = self.swarm.cloned(self.node_id, twin) if self.manages else self.swarm
        twin.node_id, twin.swarm_state, twin.known_role = self.node_id, self.swarm_state, self.known_role
        return twin

    @property
    def node_labels(self) -> dict[str, str]:
        return self.swarm.nodes[self.node_id].labels if self.node_id else {}

    @node_labels.setter
    def node_labels(self, labels: dict[str, str]) -> None:
        self.swarm.nodes[self.node_id].labels = labels

    @property
    def open_ports(self) -> set[int]:
        return {port["PublicPort"] for container in self.containers_ for port in container["Ports"]}
