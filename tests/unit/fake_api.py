"""Docker Engines, alone or in one network, as far as the package asks for them. They reject what they do not know."""

from __future__ import annotations

import functools
import json
import re
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any, Concatenate, ParamSpec, TypeVar

import requests

from cloudscale.plan import GIB
from tests.unit.api_schema import SERVICE, Json, api_error, check_keys
from tests.unit.fake_swarm import LEADERLESS, FakeNetwork, FakeSwarm

P = ParamSpec("P")
R = TypeVar("R")

BRIDGE = "docker_gwbridge"
LATE = (
    "Timeout was reached before node joined. The attempt to join the swarm will continue in the background."
    ' Use the "docker info" command to see the current swarm status of your node.'
)


def _call(method: Callable[Concatenate[FakeApi, P], R]) -> Callable[Concatenate[FakeApi, P], R]:
    """A call of the Engine API: an engine that is down does not answer it."""

    @functools.wraps(method)
    def answered(api: FakeApi, /, *args: P.args, **kwargs: P.kwargs) -> R:
        if api.is_down:
            raise requests.ConnectionError(f"connection to {api.name}: no route to host")
        with api.network.lock:
            return method(api, *args, **kwargs)

    return answered


def _of_swarm(name: str) -> Any:
    """What lies in the engine's swarm."""
    return property(lambda api: getattr(api.swarm, name), lambda api, value: setattr(api.swarm, name, value))


class FakeApi:
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
        self.name, self.address = name, address
        self.memory, self.cpus = memory, cpus
        self.network = network or FakeNetwork()
        self.network.engines.setdefault(address, self)
        self.is_down = False
        self.changes: list[str] = []
        self.containers_: list[Json] = []
        self.volumes_: dict[str, Json] = {}
        self.images_: dict[str, Json] = {}  # by name
        self.registry: dict[str, Json] = {}
        self.networks_: list[str] = []
        self.logs_: dict[str, bytes] = {}
        self.keeps_containers = False  # as an engine that does not get rid of them
        self.loading_fails = ""
        self.swarm = FakeSwarm(self.network)
        self.swarm_state = "inactive"
        self.node_id = ""
        self.known_role = ""  # of which an engine that is down does not learn
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

    def _changed(self, what: str) -> None:
        self.changes.append(what)

    services_ = _of_swarm("services")
    tasks_ = _of_swarm("tasks")
    secrets_ = _of_swarm("secrets")
    secret_data = _of_swarm("secret_data")
    configs_ = _of_swarm("configs")
    overlays = _of_swarm("overlays")
    swarm_labels = _of_swarm("labels")

    # --- the engine ---

    @_call
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

    @_call
    def version(self, api_version: bool = True) -> Json:
        return {"Version": "20.10.24", "ApiVersion": "1.41", "Arch": "amd64", "Os": "linux"}

    @_call
    def containers(self, all: bool = False, filters: Mapping[str, Any] | None = None) -> list[Json]:
        shown = [c for c in self.containers_ if all or c["State"] == "running"]
        return deepcopy(_labelled(shown, filters, lambda c: c["Labels"]))

    @_call
    def logs(self, container: str, tail: int = 0) -> bytes:
        if container not in self.logs_:
            raise api_error(404, f"No such container: {container}")
        return b"\n".join(self.logs_[container].splitlines()[-tail:])

    @_call
    def volumes(self, filters: Mapping[str, Any] | None = None) -> Json:
        found = _labelled(list(self.volumes_.values()), filters, lambda volume: volume["Labels"])
        return {"Volumes": deepcopy(found) or None}

    @_call
    def remove_volume(self, name: str) -> None:
        if name not in self.volumes_:
            raise api_error(404, f"get {name}: no such volume")
        if any(name in container["Volumes"] for container in self.containers_):
            raise api_error(409, f"remove {name}: volume is in use")
        self._changed(f"remove volume {name}")
        del self.volumes_[name]

    @_call
    def networks(self, names: Sequence[str] | None = None, filters: Mapping[str, Any] | None = None) -> list[Json]:
        """The engine's own bridge by name, and what lies in the swarm by its scope."""
        if filters is not None:
            assert filters == {"scope": "swarm"}
            return [{"Name": "ingress", "Ingress": True, "Labels": {}}, *deepcopy(self.overlays)]
        return [{"Name": name} for name in self.networks_ if names is None or name in names]

    @_call
    def remove_network(self, net_id: str) -> None:
        if net_id not in self.networks_:
            raise api_error(404, f"network {net_id} not found")
        if self.node_id:
            raise api_error(403, f"error while removing network: network {net_id} has active endpoints")
        self.networks_.remove(net_id)
        self._changed(f"remove network {net_id}")

    @_call
    def remove_container(self, container: str, force: bool, v: bool) -> None:
        assert force and v
        self.containers_ = [known for known in self.containers_ if known["Id"] != container]
        self._changed(f"remove container {container}")

    # --- images ---

    @_call
    def inspect_image(self, image: str) -> Json:
        return {**deepcopy(self._image(image)), "RepoTags": self._tags(self._image(image)["Id"])}

    def _image(self, image: str) -> Json:
        if image != image.lower():
            raise api_error(400, "invalid reference format: repository name must be lowercase")
        tagged = image if "@" in image or ":" in image.rpartition("/")[2] else f"{image}:latest"
        for name, found in self.images_.items():
            if tagged in (name, found["Id"], *(found.get("RepoDigests") or [])):
                return found
        raise api_error(404, f"No such image: {tagged}")

    def _tags(self, id: str) -> list[str]:
        return [name for name, image in self.images_.items() if image["Id"] == id and "@" not in name]

    @_call
    def images(self, filters: Mapping[str, Any]) -> list[Json]:
        """Those that a filter `reference` matches, each with just the names that it matches, as the engine does it."""
        (pattern,) = filters.values()
        assert set(filters) == {"reference"} and "*" not in pattern
        ids = dict.fromkeys(image["Id"] for image in self.images_.values())
        matching = {id: [tag for tag in self._tags(id) if tag in (pattern, f"{pattern}:{_tag(tag)}")] for id in ids}
        return [{"Id": id, "RepoTags": tags, "RepoDigests": []} for id, tags in matching.items() if tags]

    @_call
    def tag(self, image: str, repository: str, tag: str | None = None, force: bool = False) -> bool:
        self.images_[f"{repository}:{tag or 'latest'}"] = self._image(image)
        self._changed(f"tag {repository}:{tag or 'latest'}")
        return True

    @_call
    def remove_image(self, image: str) -> None:
        if image not in self.images_:
            raise api_error(404, f"No such image: {image}")
        found = self.images_[image]
        names = {found["Id"], *(found.get("RepoDigests") or [])}
        if len(self._tags(found["Id"])) == 1 and any(c.get("Image") in names for c in self.containers_):
            raise api_error(409, f"conflict: unable to remove repository reference {image!r}: a container is using it")
        del self.images_[image]
        self._changed(f"remove image {image}")

    @_call
    def get_image(self, image: str) -> Iterator[bytes]:
        saved = json.dumps({image: self._image(image)}).encode()
        return iter([saved[:10], saved[10:]])

    @_call
    def load_image(self, data: Iterable[bytes], quiet: bool | None = None) -> Iterator[Json]:
        """An image comes without the digests that its registry knows it by."""
        saved: Json = json.loads(zlib.decompress(b"".join(data), wbits=16 + zlib.MAX_WBITS))
        if self.loading_fails:
            return iter([{"error": self.loading_fails}])
        for name, image in saved.items():
            self.receive(name, image)
            self._changed(f"load {name}")
        return iter([{"stream": f"Loaded image: {name}\n"} for name in saved])

    def receive(self, name: str, image: Json) -> None:
        self.images_[name] = {**deepcopy(image), "RepoDigests": []}

    @_call
    def pull(self, repository: str, tag: str, stream: bool, decode: bool) -> Iterator[Json]:
        assert stream and decode
        separator = "@" if tag.startswith("sha256:") else ":"
        reference = f"{repository}{separator}{tag}"
        if reference not in self.registry:
            raise api_error(404, f"manifest for {reference} not found: manifest unknown")
        return self._pulled(reference, tag)

    def _pulled(self, reference: str, tag: str) -> Iterator[Json]:
        yield {"status": "Pulling from somewhere", "id": tag}
        yield {"status": "Downloading", "id": "layer0", "progressDetail": {}}
        yield {"status": "Extracting", "id": "layer0", "progressDetail": {"current": 1, "total": 1}}
        for have in (50, 100):
            yield {"status": "Downloading", "id": "layer1", "progressDetail": {"current": have, "total": 100}}
        yield {"status": "Downloading", "id": "layer2", "progressDetail": {"current": 10, "total": 20}}
        if error := self.registry[reference].get("error"):
            yield {"error": error}
            return
        self._changed(f"pull {reference}")
        self.images_[reference] = self.registry[reference]

    # --- the swarm ---

    @property
    def manages(self) -> bool:
        return self.swarm_state == "active" and self.known_role == "manager"

    @property
    def _can_decide(self) -> bool:
        return self.node_id in self.swarm.nodes and self.swarm.has_leader

    def _manager(self) -> None:
        if not self.manages:
            raise api_error(503, "This node is not a swarm manager.")
        if not self._can_decide:
            raise api_error(503, LEADERLESS)

    def _outside(self) -> None:
        if self.swarm_state != "inactive":
            raise api_error(503, 'This node is already part of a swarm. Use "docker swarm leave" to leave this swarm.')

    def _own_addresses(self, *addresses: str) -> None:
        for address in addresses:
            if address.removesuffix(":2377").strip("[]") not in (self.address, "127.0.0.1"):
                raise api_error(400, f"must specify a listening address: {address} is none of this host")

    @_call
    def create_swarm_spec(self, labels: Mapping[str, str]) -> Json:
        return {"Labels": dict(labels)}

    @_call
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

    @_call
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

    @_call
    def inspect_swarm(self) -> Json:
        self._manager()
        return {
            "ID": f"swarm{self.swarm.number}",
            "CreatedAt": self.swarm.created,
            "Spec": {"Name": "default", "Labels": dict(self.swarm.labels)},
            "Version": {"Index": self.swarm.version},
            "JoinTokens": {role: self.swarm.token(role) for role in ("Manager", "Worker")},
        }

    @_call
    def update_swarm(self, version: int, swarm_spec: Json) -> None:
        self._manager()
        if version != self.swarm.version:
            raise api_error(500, "rpc error: code = Unknown desc = update out of sequence")
        self.swarm.version += 1
        self.swarm.labels = dict(swarm_spec["Labels"])
        self._changed("update swarm")

    @_call
    def leave_swarm(self, force: bool) -> None:
        assert force  # the last manager does not leave otherwise
        if self.swarm_state == "inactive":
            raise api_error(503, "This node is not part of a swarm")
        self.end(set(self.swarm.services) | {container["Service"] for container in self.containers_} - {""})
        self.swarm, self.swarm_state, self.node_id, self.known_role = FakeSwarm(self.network), "inactive", "", ""
        self._known_managers, self._still_joining = None, 0
        self._changed("leave swarm")

    @_call
    def nodes(self) -> list[Json]:
        self._manager()
        return [self.swarm.describe(node) for node in self.swarm.nodes.values()]

    @_call
    def inspect_node(self, node_id: str) -> Json:
        self._manager()
        return self.swarm.describe(self.swarm.node(node_id))

    @_call
    def update_node(self, node_id: str, version: int, node_spec: Json) -> None:
        self._manager()
        self.swarm.change(self.swarm.node(node_id), version, node_spec)
        self._changed(f"update node {node_id}")

    @_call
    def remove_node(self, node_id: str, force: bool = False) -> None:
        self._manager()
        self.swarm.strike_off(self.swarm.node(node_id), force)
        self._changed(f"remove node {node_id}")

    # --- secrets and configs ---

    @_call
    def configs(self) -> list[Json]:
        self._manager()
        return deepcopy(self.swarm.configs)

    @_call
    def secrets(self, filters: Mapping[str, Any] | None = None) -> list[Json]:
        self._manager()
        return deepcopy(_labelled(list(self.swarm.secrets.values()), filters, lambda secret: secret["Spec"]["Labels"]))

    @_call
    def create_secret(self, name: str, data: bytes, labels: Mapping[str, str]) -> Json:
        self._manager()
        if not re.fullmatch(r"[a-zA-Z0-9]([a-zA-Z0-9._-]{0,62}[a-zA-Z0-9])?", name):
            raise api_error(400, f"invalid secret name {name}")
        if any(secret["Spec"]["Name"] == name for secret in self.swarm.secrets.values()):
            raise api_error(409, f"secret {name} exists")
        secret_id = self.swarm.id("secret")
        self.swarm.secrets[secret_id] = {"ID": secret_id, "Spec": {"Name": name, "Labels": dict(labels)}}
        self.swarm.secret_data[secret_id] = data
        self._changed(f"create secret {name}")
        return {"ID": secret_id}

    @_call
    def remove_secret(self, id: str) -> None:
        self._manager()
        if id not in self.swarm.secrets:
            raise api_error(404, f"secret {id} not found")
        if any(id in str(service["Spec"]) for service in self.swarm.services.values()):
            raise api_error(400, f"secret {id} is in use")
        self._changed(f"remove secret {self.swarm.secrets.pop(id)['Spec']['Name']}")

    # --- services and tasks ---

    @_call
    def services(self, filters: Mapping[str, Any] | None = None) -> list[Json]:
        self._manager()
        found = list(self.swarm.services.values())
        return deepcopy(_labelled(found, filters, lambda service: service["Spec"]["Labels"]))

    @_call
    def tasks(self, filters: Mapping[str, Any] | None = None) -> list[Json]:
        self._manager()
        assert set(filters or ()) <= {"node", "desired-state"}
        return [
            deepcopy(task)
            for task in self.swarm.tasks
            if (filters or {}).get("node", task["NodeID"]) == task["NodeID"]
            and (filters or {}).get("desired-state", task["DesiredState"]) == task["DesiredState"]
        ]

    @_call
    def create_service(
        self, task_template: Json, name: str, labels: Mapping[str, str], mode: Json, endpoint_spec: Json
    ) -> Json:
        spec = self._checked(task_template, name, labels, mode, endpoint_spec)
        if any(service["Spec"]["Name"] == name for service in self.swarm.services.values()):
            raise api_error(409, f"service {name} already exists")
        service_id = self.swarm.id("service")
        self.swarm.services[service_id] = {"ID": service_id, "Version": {"Index": 100}, "Spec": spec}
        self._changed(f"create service {name}")
        self.swarm.start(service_id)
        return {"ID": service_id}

    @_call
    def update_service(
        self,
        service: str,
        version: int,
        task_template: Json,
        name: str,
        labels: Mapping[str, str],
        mode: Json,
        endpoint_spec: Json,
    ) -> None:
        present = self.swarm.services[service]
        spec = self._checked(task_template, name, labels, mode, endpoint_spec)
        if version != present["Version"]["Index"]:
            raise api_error(500, "update out of sequence")
        if name != present["Spec"]["Name"]:
            raise api_error(501, "renaming services is not supported")
        changed = spec["TaskTemplate"] != present["Spec"]["TaskTemplate"]
        self.swarm.services[service] = {"ID": service, "Version": {"Index": version + 1}, "Spec": spec}
        self._changed(f"update service {name}")
        if changed:
            self.swarm.stop(service)
            self.swarm.start(service)

    @_call
    def remove_service(self, service: str) -> None:
        self._manager()
        if service not in self.swarm.services:
            raise api_error(404, f"service {service} not found")
        self._changed(f"remove service {self.swarm.services[service]['Spec']['Name']}")
        self.swarm.stop(service)
        del self.swarm.services[service]
        self.swarm.tasks = [task for task in self.swarm.tasks if task["ServiceID"] != service]

    def _checked(self, template: Json, name: str, labels: Mapping[str, str], mode: Json, endpoint: Json) -> Json:
        self._manager()
        spec = {
            "Name": name,
            "Labels": dict(labels),
            "TaskTemplate": template,
            "Mode": mode,
            "EndpointSpec": endpoint,
        }
        check_keys(spec, SERVICE)
        if not re.fullmatch(r"[a-zA-Z0-9]([a-zA-Z0-9_-]{0,61}[a-zA-Z0-9])?", name):
            raise api_error(400, f"invalid service name {name}")
        for secret in template["ContainerSpec"].get("Secrets", []):
            if self.swarm.secrets.get(secret["SecretID"], {}).get("Spec", {}).get("Name") != secret["SecretName"]:
                raise api_error(400, f"secret not found: {secret['SecretName']}")
        return deepcopy(spec)

    # --- what the swarm has the engine do ---

    def run(self, service_id: str, spec: Json) -> str:
        """The container of a service, with its volumes."""
        template = spec["TaskTemplate"]
        mounts = template["ContainerSpec"].get("Mounts", [])
        for mount in mounts:
            labels = dict(mount["VolumeOptions"]["Labels"])
            made = {"Name": mount["Source"], "Labels": labels, "CreatedAt": self.network.time()}
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


def _tag(name: str) -> str:
    return name.rpartition(":")[2]


def _labelled(items: list[Json], filters: Mapping[str, Any] | None, labels: Callable[[Json], Json]) -> list[Json]:
    """The items that carry the labels of a filter: `key`, `key=value`, or a list of such."""
    assert set(filters or ()) <= {"label"}
    wanted = (filters or {}).get("label", [])
    wanted = [wanted] if isinstance(wanted, str) else wanted
    pairs = [label.partition("=") for label in wanted]
    return [
        item
        for item in items
        if all(key in labels(item) and (not equals or labels(item)[key] == value) for key, equals, value in pairs)
    ]
