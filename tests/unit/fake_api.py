"""A Docker Engine of one node, as far as the package asks for it. It rejects whatever it does not know."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any

from cloudscale.plan import GIB
from tests.unit.api_schema import SERVICE, Json, api_error, check_keys


class FakeApi:
    """The API of one engine, alone in its swarm, as docker-py's low-level client gives it.

    Services start at once. `changes` are the calls that changed something, in order.
    """

    def __init__(self, *, memory: int = 16 * GIB, cpus: int = 8, in_swarm: bool = True) -> None:
        self.node_id = "node1" if in_swarm else ""
        self.memory, self.cpus = memory, cpus
        self.changes: list[str] = []
        self.services_: dict[str, Json] = {}
        self.tasks_: list[Json] = []
        self.containers_: list[Json] = []
        self.secrets_: dict[str, Json] = {}
        self.secret_data: dict[str, bytes] = {}
        self.volumes_: dict[str, Json] = {}
        self.images: dict[str, Json] = {}
        self.registry: dict[str, Json] = {}
        self.configs_: list[Json] = []
        self.overlays: list[Json] = []  # networks that somebody made in the swarm
        self.networks_: list[str] = ["docker_gwbridge"] if in_swarm else []
        self.swarm_labels: dict[str, str] = {}
        self.node_labels: dict[str, str] = {}
        self.swarm_state = "active" if in_swarm else "inactive"
        self.manages = in_swarm
        self.logs_: dict[str, bytes] = {}
        self.keeps_containers = False  # as an engine that does not get rid of them
        self._numbers = itertools.count(1)

    def _id(self, kind: str) -> str:
        return f"{kind}{next(self._numbers)}"

    def _changed(self, what: str) -> None:
        self.changes.append(what)

    # --- the engine ---

    def info(self) -> Json:
        swarm = {"LocalNodeState": self.swarm_state, "NodeID": self.node_id, "ControlAvailable": self.manages}
        return {
            "Name": "m1",
            "NCPU": self.cpus,
            "MemTotal": self.memory,
            "Architecture": "x86_64",
            "Swarm": {**swarm, "Error": "certificate expired" if self.swarm_state == "error" else ""},
        }

    def containers(self, all: bool = False, filters: Mapping[str, Any] | None = None) -> list[Json]:
        shown = [c for c in self.containers_ if all or c["State"] == "running"]
        return deepcopy(_labelled(shown, filters, lambda c: c["Labels"]))

    def logs(self, container: str, tail: int = 0) -> bytes:
        if container not in self.logs_:
            raise api_error(404, f"No such container: {container}")
        return b"\n".join(self.logs_[container].splitlines()[-tail:])

    def volumes(self, filters: Mapping[str, Any] | None = None) -> Json:
        found = _labelled(list(self.volumes_.values()), filters, lambda volume: volume["Labels"])
        return {"Volumes": deepcopy(found) or None}

    def remove_volume(self, name: str) -> None:
        if name not in self.volumes_:
            raise api_error(404, f"get {name}: no such volume")
        if any(name in container["Volumes"] for container in self.containers_):
            raise api_error(409, f"remove {name}: volume is in use")
        self._changed(f"remove volume {name}")
        del self.volumes_[name]

    def networks(self, names: Sequence[str] | None = None, filters: Mapping[str, Any] | None = None) -> list[Json]:
        """The engine's own bridge by name, and what lies in the swarm by its scope."""
        if filters is not None:
            assert filters == {"scope": "swarm"}
            return [{"Name": "ingress", "Ingress": True, "Labels": {}}, *deepcopy(self.overlays)]
        return [{"Name": name} for name in self.networks_ if names is None or name in names]

    def configs(self) -> list[Json]:
        self._manager()
        return deepcopy(self.configs_)

    def remove_container(self, container: str, force: bool, v: bool) -> None:
        assert force and v
        self.containers_ = [known for known in self.containers_ if known["Id"] != container]
        self._changed(f"remove container {container}")

    def remove_network(self, net_id: str) -> None:
        self.networks_.remove(net_id)
        self._changed(f"remove network {net_id}")

    # --- images ---

    def inspect_image(self, image: str) -> Json:
        if image != image.lower():
            raise api_error(400, "invalid reference format: repository name must be lowercase")
        tagged = image if "@" in image or ":" in image.rpartition("/")[2] else f"{image}:latest"
        if tagged not in self.images:
            raise api_error(404, f"No such image: {tagged}")
        return deepcopy(self.images[tagged])

    def pull(self, repository: str, tag: str, stream: bool, decode: bool) -> Iterator[Json]:
        assert stream and decode
        separator = "@" if tag.startswith("sha256:") else ":"
        reference = f"{repository}{separator}{tag}"
        if reference not in self.registry:
            raise api_error(404, f"manifest for {reference} not found: manifest unknown")
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
        self.images[reference] = self.registry[reference]

    # --- the swarm ---

    def _manager(self) -> None:
        if not self.manages:
            raise api_error(503, "This node is not a swarm manager.")

    def create_swarm_spec(self, labels: Mapping[str, str]) -> Json:
        return {"Labels": dict(labels)}

    def init_swarm(
        self, advertise_addr: str, listen_addr: str, default_addr_pool: Sequence[str], swarm_spec: Json
    ) -> str:
        if self.manages:
            raise api_error(503, "This node is already part of a swarm.")
        self.swarm_state, self.manages, self.node_id = "active", True, "node1"
        self.swarm_labels = dict(swarm_spec["Labels"])
        if "docker_gwbridge" not in self.networks_:
            self.networks_.append("docker_gwbridge")
        self._changed(f"init swarm on {listen_addr} with {','.join(default_addr_pool)}")
        return self.node_id

    def inspect_swarm(self) -> Json:
        self._manager()
        return {"Spec": {"Name": "default", "Labels": dict(self.swarm_labels)}, "Version": {"Index": 10}}

    def update_swarm(self, version: int, swarm_spec: Json) -> None:
        self._manager()
        assert version == 10
        self.swarm_labels = dict(swarm_spec["Labels"])
        self._changed("update swarm")

    def leave_swarm(self, force: bool) -> None:
        assert force  # the last manager does not leave otherwise
        self.swarm_state, self.manages, self.node_id = "inactive", False, ""
        self.swarm_labels, self.node_labels = {}, {}
        self._changed("leave swarm")

    def nodes(self) -> list[Json]:
        self._manager()
        return [self.inspect_node(self.node_id)]

    def inspect_node(self, node_id: str) -> Json:
        self._manager()
        if node_id != self.node_id:
            raise api_error(404, f"node {node_id} not found")
        spec = {"Role": "manager", "Availability": "active", "Labels": dict(self.node_labels)}
        return {"ID": node_id, "Version": {"Index": 20}, "Spec": spec}

    def update_node(self, node_id: str, version: int, node_spec: Json) -> None:
        assert (node_id, version) == (self.node_id, 20)
        assert node_spec["Role"] == "manager" and node_spec["Availability"] == "active"
        self.node_labels = dict(node_spec["Labels"])
        self._changed(f"label node {node_id}")

    # --- secrets ---

    def secrets(self, filters: Mapping[str, Any] | None = None) -> list[Json]:
        self._manager()
        return deepcopy(_labelled(list(self.secrets_.values()), filters, lambda secret: secret["Spec"]["Labels"]))

    def create_secret(self, name: str, data: bytes, labels: Mapping[str, str]) -> Json:
        self._manager()
        if not re.fullmatch(r"[a-zA-Z0-9]([a-zA-Z0-9._-]{0,62}[a-zA-Z0-9])?", name):
            raise api_error(400, f"invalid secret name {name}")
        if any(secret["Spec"]["Name"] == name for secret in self.secrets_.values()):
            raise api_error(409, f"secret {name} exists")
        secret_id = self._id("secret")
        self.secrets_[secret_id] = {"ID": secret_id, "Spec": {"Name": name, "Labels": dict(labels)}}
        self.secret_data[secret_id] = data
        self._changed(f"create secret {name}")
        return {"ID": secret_id}

    def remove_secret(self, id: str) -> None:
        if id not in self.secrets_:
            raise api_error(404, f"secret {id} not found")
        if any(id in str(service["Spec"]) for service in self.services_.values()):
            raise api_error(400, f"secret {id} is in use")
        self._changed(f"remove secret {self.secrets_.pop(id)['Spec']['Name']}")

    # --- services and tasks ---

    def services(self, filters: Mapping[str, Any] | None = None) -> list[Json]:
        self._manager()
        return deepcopy(_labelled(list(self.services_.values()), filters, lambda service: service["Spec"]["Labels"]))

    def tasks(self, filters: Mapping[str, Any] | None = None) -> list[Json]:
        self._manager()
        assert set(filters or ()) <= {"node", "desired-state"}
        return [
            deepcopy(task)
            for task in self.tasks_
            if (filters or {}).get("node", task["NodeID"]) == task["NodeID"]
            and (filters or {}).get("desired-state", task["DesiredState"]) == task["DesiredState"]
        ]

    def create_service(
        self, task_template: Json, name: str, labels: Mapping[str, str], mode: Json, endpoint_spec: Json
    ) -> Json:
        spec = self._checked(task_template, name, labels, mode, endpoint_spec)
        if any(service["Spec"]["Name"] == name for service in self.services_.values()):
            raise api_error(409, f"service {name} already exists")
        service_id = self._id("service")
        self.services_[service_id] = {"ID": service_id, "Version": {"Index": 100}, "Spec": spec}
        self._changed(f"create service {name}")
        self._start(service_id)
        return {"ID": service_id}

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
        present = self.services_[service]
        spec = self._checked(task_template, name, labels, mode, endpoint_spec)
        if version != present["Version"]["Index"]:
            raise api_error(500, "update out of sequence")
        if name != present["Spec"]["Name"]:
            raise api_error(501, "renaming services is not supported")
        changed = spec["TaskTemplate"] != present["Spec"]["TaskTemplate"]
        self.services_[service] = {"ID": service, "Version": {"Index": version + 1}, "Spec": spec}
        self._changed(f"update service {name}")
        if changed:
            self._stop(service)
            self._start(service)

    def remove_service(self, service: str) -> None:
        if service not in self.services_:
            raise api_error(404, f"service {service} not found")
        self._changed(f"remove service {self.services_[service]['Spec']['Name']}")
        self._stop(service)
        del self.services_[service]
        self.tasks_ = [task for task in self.tasks_ if task["ServiceID"] != service]

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
            if self.secrets_.get(secret["SecretID"], {}).get("Spec", {}).get("Name") != secret["SecretName"]:
                raise api_error(400, f"secret not found: {secret['SecretName']}")
        return deepcopy(spec)

    def _start(self, service_id: str) -> None:
        spec = self.services_[service_id]["Spec"]
        template = spec["TaskTemplate"]
        if template["Placement"]["Constraints"] != [f"node.id=={self.node_id}"]:
            self.add_task(service_id, "pending", error="no suitable node (scheduling constraints not satisfied)")
            return
        mounts = template["ContainerSpec"].get("Mounts", [])
        for mount in mounts:
            labels = dict(mount["VolumeOptions"]["Labels"])
            self.volumes_.setdefault(mount["Source"], {"Name": mount["Source"], "Labels": labels})
        container: Json = {
            "Id": self._id("container"),
            "State": "running",
            "Labels": dict(template["ContainerSpec"]["Labels"]),
            "Ports": [{"PublicPort": port["PublishedPort"]} for port in spec["EndpointSpec"]["Ports"]],
            "Volumes": [mount["Source"] for mount in mounts],
            "Service": service_id,
        }
        self.containers_.append(container)
        self.add_task(service_id, "running", container=container["Id"])

    def add_task(
        self, service_id: str, state: str, *, error: str = "", container: str = "", desired: str = "running"
    ) -> str:
        """A task as the orchestrator would have made it; each one is newer than those before."""
        at = next(self._numbers)
        status: Json = {"State": state}
        if error:
            status["Err"] = error
        if container:
            status["ContainerStatus"] = {"ContainerID": container}
        spec = self.services_[service_id]["Spec"]["TaskTemplate"] if service_id in self.services_ else {}
        self.tasks_.append(
            {
                "ID": f"task{at}",
                "CreatedAt": f"2024-01-01T{at // 3600:02}:{at // 60 % 60:02}:{at % 60:02}.000000001Z",
                "ServiceID": service_id,
                "NodeID": self.node_id,
                "DesiredState": desired,
                "Spec": deepcopy(spec),
                "Status": status,
            }
        )
        return f"task{at}"

    def _stop(self, service_id: str) -> None:
        for task in self.tasks_:
            if task["ServiceID"] == service_id:
                task["DesiredState"] = "shutdown"
        if not self.keeps_containers:
            self.containers_ = [c for c in self.containers_ if c["Service"] != service_id]

    # --- for assertions ---

    @property
    def open_ports(self) -> set[int]:
        return {port["PublicPort"] for container in self.containers_ for port in container["Ports"]}


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
