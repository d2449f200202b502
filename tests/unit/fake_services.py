"""What lies in the swarm of a fake engine, of which its managers answer: secrets, configs, services and tasks."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, cast

from tests.unit.api_schema import SERVICE, Json, api_error, check_keys
from tests.unit.fake_calls import FakeCalls, call, labelled
from tests.unit.fake_swarm import LEADERLESS, FakeNetwork, FakeSwarm


def _of_swarm(name: str) -> Any:
    """What lies in the engine's swarm."""
    return property(lambda api: getattr(api.swarm, name), lambda api, value: setattr(api.swarm, name, value))


class FakeServices(FakeCalls):
    def __init__(self, name: str, network: FakeNetwork) -> None:
        super().__init__(name, network)
        self.swarm = FakeSwarm(network)
        self.swarm_state = "inactive"
        self.node_id = ""
        self.known_role = ""  # of which an engine that is down does not learn

    services_ = _of_swarm("services")
    tasks_ = _of_swarm("tasks")
    secrets_ = _of_swarm("secrets")
    secret_data = _of_swarm("secret_data")
    configs_ = _of_swarm("configs")
    overlays = _of_swarm("overlays")
    swarm_labels = _of_swarm("labels")

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

    # --- secrets and configs ---

    @call
    def configs(self, filters: Mapping[str, Any] | None = None) -> list[Json]:
        self._manager()
        return deepcopy(labelled(self.swarm.configs, filters, lambda config: config["Spec"].get("Labels") or {}))

    @call
    def create_config(self, name: str, data: bytes, labels: Mapping[str, str]) -> Json:
        self._manager()
        if not re.fullmatch(r"[a-zA-Z0-9]([a-zA-Z0-9._-]{0,62}[a-zA-Z0-9])?", name) or not 0 < len(data) <= 500_000:
            raise api_error(400, f"invalid config {name}")
        if any(config["Spec"].get("Name") == name for config in self.swarm.configs):
            raise api_error(409, f"config {name} exists")
        config_id = self.swarm.id("config")
        spec = {"Name": name, "Labels": dict(labels), "Data": base64.b64encode(data).decode()}
        self.swarm.configs.append({"ID": config_id, "Spec": spec})
        self._changed(f"create config {name}")
        return {"ID": config_id}

    @call
    def remove_config(self, id: str) -> None:
        self._manager()
        gone = [config for config in self.swarm.configs if config.get("ID") == id]
        if not gone:
            raise api_error(404, f"config {id} not found")
        self.swarm.configs.remove(gone[0])
        self._changed(f"remove config {gone[0]['Spec']['Name']}")

    @call
    def secrets(self, filters: Mapping[str, Any] | None = None) -> list[Json]:
        self._manager()
        return deepcopy(labelled(list(self.swarm.secrets.values()), filters, lambda secret: secret["Spec"]["Labels"]))

    @call
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

    @call
    def remove_secret(self, id: str) -> None:
        self._manager()
        if id not in self.swarm.secrets:
            raise api_error(404, f"secret {id} not found")
        if any(f"'{id}'" in str(service["Spec"]) for service in self.swarm.services.values()):
            raise api_error(400, f"secret {id} is in use")
        self._changed(f"remove secret {self.swarm.secrets.pop(id)['Spec']['Name']}")

    # --- services and tasks ---

    @call
    def services(self, filters: Mapping[str, Any] | None = None) -> list[Json]:
        self._manager()
        found = list(self.swarm.services.values())
        return deepcopy(labelled(found, filters, lambda service: service["Spec"]["Labels"]))

    @call
    def inspect_service(self, service: str) -> Json:
        self._manager()
        if service not in self.swarm.services:
            raise api_error(404, f"service {service} not found")
        return deepcopy(self.swarm.services[service])

    def _resolved(self, wanted: str | Sequence[str] | None) -> set[str] | None:
        """The ids of services that a filter names, by name or id."""
        if wanted is None:
            return None
        known = {service["Spec"].get("Name", ""): id for id, service in self.swarm.services.items()}
        known |= {id: id for id in (*self.swarm.services, *(task["ServiceID"] for task in self.swarm.tasks))}
        names = [wanted] if isinstance(wanted, str) else wanted
        if unknown := [name for name in names if name not in known]:
            raise api_error(404, f"service {unknown[0]} not found")
        return {known[name] for name in names}

    @call
    def tasks(self, filters: Mapping[str, Any] | None = None) -> list[Json]:
        self._manager()
        assert set(filters or ()) <= {"node", "desired-state", "service"}
        services = self._resolved((filters or {}).get("service"))
        return [
            deepcopy(task)
            for task in self.swarm.tasks
            if (services is None or task["ServiceID"] in services)
            and (filters or {}).get("node", task["NodeID"]) == task["NodeID"]
            and (filters or {}).get("desired-state", task["DesiredState"]) == task["DesiredState"]
        ]

    @call
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

    @call
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
        changed = any(spec[key] != present["Spec"][key] for key in ("TaskTemplate", "Mode"))
        self.swarm.services[service] = {"ID": service, "Version": {"Index": version + 1}, "Spec": spec}
        self._changed(f"update service {name}")
        if changed:
            self.swarm.stop(service)
            self.swarm.start(service)

    @call
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
        made = deepcopy(spec)
        cast(Json, made["TaskTemplate"]).setdefault("Runtime", "container")  # as the engine does
        return made
