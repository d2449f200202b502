"""The gateway's Swarm service: what is wanted, what runs, and telling it that its files have changed."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from docker.errors import APIError, NotFound

from cloudscale.course import naming
from cloudscale.engines.client import Engine, engine_errors
from cloudscale.errors import CloudscaleError, EngineError
from cloudscale.gateway.routes import FOLDER, HTTP
from cloudscale.gateway.volume import STATE, GatewayVolume, OpenVolume
from cloudscale.outside import formed, parse_object, port_text
from cloudscale.seats.address import HTTPS, Entrance
from cloudscale.seats.spec import SECOND, Spec, covers
from cloudscale.units import MIB
from cloudscale.waiting import poll

STARTING = 120.0  # seconds for the gateway to work with its files
ENOUGH = 3  # starts that failed: one more would too
MEMORY = 1024 * MIB  # bytes: a thousand WebSockets take a hundred megabytes
PROCESSES = 512


# what is needed of an engine's answers
SERVICE = {
    "ID": str,
    "Version": {"Index": int},
    "Spec": {
        "Name": str,
        "Labels": {"*": str, f"{naming.PORT}?": port_text},
        "TaskTemplate": {"Placement?": {"Constraints?": [str]}, "ContainerSpec": {"Image": str}},
    },
}
TASK = {"ID": str, "CreatedAt": str, "Status": {"State": str, "Err?": str}}


@dataclass(frozen=True)
class Gateway:
    """The gateway's service as the swarm has it."""

    entrance: Entrance
    service_id: str
    node_id: str
    version: int = field(compare=False)  # the swarm counts its own bookkeeping, too
    spec: Spec = field(repr=False)

    @property
    def mode(self) -> Literal["path", "subdomain"]:
        return "subdomain" if self.entrance.by_name else "path"

    @property
    def ports(self) -> list[int]:
        """The ports of its machine that it listens on."""
        return listening(self.entrance)

    @property
    def image(self) -> str:
        return str(self.spec["TaskTemplate"]["ContainerSpec"]["Image"])


def listening(entrance: Entrance) -> list[int]:
    """The port for HTTP is its own too, to lead to HTTPS, if that one's is the usual one."""
    return [entrance.port, HTTP] if entrance.port == HTTPS else [entrance.port]


def running_gateway(manager: Engine, course: str) -> Gateway | None:
    """The gateway of the course, read back from the swarm; None if there is none."""
    with engine_errors(manager.name):
        for service in formed(manager.api.services(filters=naming.gateway_filter(course)), [SERVICE]):
            spec, labels_of = service["Spec"], service["Spec"]["Labels"]
            pins = (spec["TaskTemplate"].get("Placement") or {}).get("Constraints") or []
            return Gateway(
                Entrance(
                    labels_of.get(naming.HOST, ""),
                    port_text(labels_of.get(naming.PORT, str(HTTPS))),
                    labels_of.get(naming.MODE) == "subdomain",
                ),
                service["ID"],
                next((pin.removeprefix("node.id==") for pin in pins), ""),
                service["Version"]["Index"],
                spec,
            )
    return None


def wanted_spec(course: str, entrance: Entrance, node_id: str, image: str, program: str) -> Spec:
    """The gateway's service in the format of the Engine API (ServiceSpec).

    It is on the machine's own network: so it reaches the seats, and sees who asks. Its only right is to listen on
    ports below 1024. `program`: identifies the code that it runs.
    """
    marks = naming.gateway_labels(course)
    return {
        "Name": naming.gateway_name(course),
        "Labels": {
            **marks,
            naming.MODE: "subdomain" if entrance.by_name else "path",
            naming.HOST: entrance.host,
            naming.PORT: str(entrance.port),
        },
        "TaskTemplate": {
            "ContainerSpec": {
                "Image": image,
                "Command": ["python3", f"{FOLDER}/serve.py"],
                "Labels": {**marks, naming.PROGRAM: program},
                "User": "0:0",
                "Dir": "/",
                "Env": ["PYTHONDONTWRITEBYTECODE=1"],
                "ReadOnly": True,
                "CapabilityDrop": ["ALL"],
                "CapabilityAdd": ["CAP_NET_BIND_SERVICE"],
                "Mounts": [
                    {"Type": "tmpfs", "Target": "/tmp", "TmpfsOptions": {"SizeBytes": 64 * MIB}},
                    {
                        "Type": "volume",
                        "Source": naming.gateway_name(course),
                        "Target": FOLDER,
                        "VolumeOptions": {"Labels": marks},
                    },
                ],
                "Healthcheck": {"Test": ["NONE"]},  # the image's own is about Jupyter
            },
            "Resources": {"Limits": {"MemoryBytes": MEMORY, "Pids": PROCESSES}},
            "RestartPolicy": {"Condition": "any", "Delay": 2 * SECOND},
            "Placement": {"Constraints": [f"node.id=={node_id}"]},
            "Networks": [{"Target": "host"}],
            "LogDriver": {"Name": "json-file", "Options": {"max-size": "5m", "max-file": "2"}},
        },
        "Mode": {"Replicated": {"Replicas": 1}},
        # on the machine's own network they count for the scheduler alone: nothing else gets them
        "EndpointSpec": {
            "Mode": "dnsrr",
            "Ports": [
                {"Protocol": "tcp", "TargetPort": port, "PublishedPort": port, "PublishMode": "host"}
                for port in listening(entrance)
            ],
        },
    }


def ensure(manager: Engine, present: Gateway | None, wanted: Spec) -> str:
    """`created`, `updated` or `unchanged`: the service is as it is wanted. Raises EngineError."""
    with engine_errors(manager.name):
        settings = {
            "name": wanted["Name"],
            "task_template": wanted["TaskTemplate"],
            "labels": wanted["Labels"],
            "mode": wanted["Mode"],
            "endpoint_spec": wanted["EndpointSpec"],
        }
        # the engine has replaced the network's name with an id that is found nowhere else
        task = {key: value for key, value in wanted["TaskTemplate"].items() if key != "Networks"}
        if present and covers(present.spec, {**wanted, "TaskTemplate": task}):
            return "unchanged"
        if present:
            manager.api.update_service(present.service_id, present.version, **settings)
            return "updated"
        try:
            manager.api.create_service(**settings)
        except APIError as error:
            if error.status_code != 409:
                raise
            raise EngineError(
                f"A service {wanted['Name']} exists that does not carry this course's mark.",
                f"Remove it (docker service rm {wanted['Name']}) or choose another --course.",
            ) from None
        return "created"


def remove(manager: Engine, gateway: Gateway) -> None:
    """Removes the service. Raises EngineError."""
    with engine_errors(manager.name), contextlib.suppress(NotFound):
        manager.api.remove_service(gateway.service_id)


def take_effect(
    manager: Engine,
    files: OpenVolume,
    volume: GatewayVolume,
    digests: Mapping[str, str],
    program: str,
    timeout: float = STARTING,
) -> None:
    """Tells the gateway to read its files again, and waits until those of these digests are in effect.

    `program`: as in `wanted_spec`; a container that runs an earlier one is ending. Raises EngineError with what is
    wrong.
    """
    signalled: set[str] = set()
    earlier = {task["ID"] for task in _failed(manager, volume.name)}

    def look() -> Mapping[str, Any]:
        """What the gateway says of itself, if it is about these files; or that it does not stay up."""
        running = _containers(volume.engine, volume.course)
        for container in [each["Id"] for each in running if each["Labels"].get(naming.PROGRAM) == program]:
            if container not in signalled:
                with contextlib.suppress(APIError):  # it may be just ending
                    volume.engine.api.kill(container, signal="HUP")
                    signalled.add(container)
        state = _decoded(files.read(STATE))
        if state.get("error") or all(state.get(name) == digest for name, digest in digests.items()):
            return state
        failed = [task for task in _failed(manager, volume.name) if task["ID"] not in earlier]
        return {"failed": _error(failed[0])} if len(failed) >= ENOUGH else {}

    with engine_errors(volume.engine.name):
        state = poll(look, timeout=timeout)
    if state.get("error"):
        raise _refused(str(state["error"]), volume)
    if not state or "failed" in state:
        words = state.get("failed") or _waits_for(manager, volume.name) or _last_words(volume)
        raise EngineError(
            f"{volume.engine.name}: the gateway does not start{f' ({words})' if words else ''}.",
            f"Its log: docker service logs {volume.name}.",
        )


def _tasks(manager: Engine, name: str) -> list[dict[str, Any]]:
    """The tasks of the service, the newest first."""
    with engine_errors(manager.name):
        tasks = formed(manager.api.tasks(filters={"service": name}), [TASK])
    return sorted(tasks, key=lambda task: str(task["CreatedAt"]), reverse=True)


def _failed(manager: Engine, name: str) -> list[dict[str, Any]]:
    return [task for task in _tasks(manager, name) if task["Status"]["State"] in ("failed", "rejected")]


def is_running(manager: Engine, gateway: Gateway) -> bool:
    """Whether a container of the gateway runs, as far as the swarm knows. Raises EngineError."""
    return any(task["Status"]["State"] == "running" for task in _tasks(manager, gateway.spec["Name"]))


def _waits_for(manager: Engine, name: str) -> str:
    return next((_error(task) for task in _tasks(manager, name)), "")


def _error(task: Mapping[str, Any]) -> str:
    return str(task["Status"].get("Err") or "").rstrip(".")


def _containers(engine: Engine, course: str) -> list[Any]:
    return list(engine.api.containers(filters=naming.gateway_filter(course)))


def _decoded(data: bytes | None) -> dict[str, Any]:
    with contextlib.suppress(ValueError):
        return parse_object(data or b"{}")
    return {}


def _refused(error: str, volume: GatewayVolume) -> EngineError:
    if "address already in use" in error:
        return EngineError(
            f"{volume.engine.name}: the gateway can't listen: {error}.",
            "Stop what holds the port (ss -ltnp shows it), or choose another: gateway.port in the configuration.",
        )
    return EngineError(
        f"{volume.engine.name}: the gateway refuses its configuration: {error}.",
        f"Its log: docker service logs {volume.name}.",
    )


def _last_words(volume: GatewayVolume) -> str:
    with contextlib.suppress(CloudscaleError), engine_errors(volume.engine.name):
        for container in _containers(volume.engine, volume.course):
            log: bytes = volume.engine.api.logs(container["Id"], tail=2)
            return " ".join(log.decode(errors="replace").split())[:500]
    return ""
