"""The specification of a seat: the Swarm service of one student, and whether a running one matches it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from cloudscale.course import naming
from cloudscale.course.passwords import Passwords
from cloudscale.course.settings import SeatSettings
from cloudscale.images.on_engine import NotebookImage
from cloudscale.model import Node, Place, Seat
from cloudscale.seats import jupyter

Spec = dict[str, Any]

SHARED = "shared"  # in the work folder: what all seats can read
SECOND = 10**9  # the API's times are nanoseconds
OPEN_FILES = 2**20  # what engines before 29 gave to a container; new ones leave 1024, too few for Spark


@dataclass(frozen=True)
class Template:
    """What all seats of a course have in common.

    `pinned`: machine → the image's pinned name on it. `open_files`: machine → how many a container may open there.
    `has_shared`: the seats have the folder that all can read. `with_quotas`: the machines that can limit volumes.
    """

    course: str
    passwords: Passwords
    image: NotebookImage
    pinned: Mapping[str, str]
    limits: SeatSettings
    port: int
    env: Mapping[str, str]
    open_files: Mapping[str, int] = field(default_factory=dict)
    has_shared: bool = False
    with_quotas: frozenset[str] = frozenset()


@dataclass(frozen=True)
class SeatFile:
    """A file in the seat, whose content is a Swarm secret; only the server's user can read it."""

    path: str
    secret_id: str
    secret_name: str


def wanted_spec(seat: Seat, node: Node, template: Template, name: str, files: Sequence[SeatFile]) -> Spec:
    """The seat's service in the format of the Engine API (ServiceSpec)."""
    limits = template.limits
    return {
        "Name": name,
        "Labels": {
            **naming.student_labels(template.course, seat.student.id),
            naming.NAME: seat.student.full_name,
            naming.EMAIL: seat.student.email,
            naming.KEY: naming.key_id(template.passwords.key),
        },
        "TaskTemplate": {
            "ContainerSpec": _container(seat, template, files),
            "Resources": {
                "Limits": {
                    "NanoCPUs": int(limits.cpus * 10**9),
                    "MemoryBytes": limits.memory,
                    "Pids": limits.pids,
                },
                "Reservations": {"MemoryBytes": limits.reserve},
            },
            "RestartPolicy": {"Condition": "any", "Delay": 2 * SECOND},
            "Placement": {"Constraints": [f"node.id=={node.id}"]},
            # a notebook that prints forever must not fill the disk
            "LogDriver": {"Name": "json-file", "Options": {"max-size": "5m", "max-file": "2"}},
        },
        "Mode": {"Replicated": {"Replicas": 1}},
        "EndpointSpec": {
            "Mode": "dnsrr",
            "Ports": [
                {
                    "Protocol": "tcp",
                    "TargetPort": template.port,
                    "PublishedPort": seat.place.port,
                    "PublishMode": "host",
                }
            ],
        },
    }


def _container(seat: Seat, template: Template, files: Sequence[SeatFile]) -> Spec:
    course, image = template.course, template.image
    marks = naming.student_labels(course, seat.student.id)
    container: Spec = {
        "Image": template.pinned[seat.place.machine],
        "Args": ["jupyter", image.subcommand],
        "Env": [f"{key}={value}" for key, value in template.env.items()],
        "Labels": marks,
        "Mounts": [
            {
                "Type": "volume",
                "Source": naming.volume_name(course, seat.student.id),
                "Target": image.work,
                # the port is noted here, so that a student gets the same address again after a reset of the seats
                "VolumeOptions": {
                    "Labels": {**marks, naming.PORT: str(seat.place.port)},
                    **limited(template.limits.disk if seat.place.machine in template.with_quotas else 0),
                },
            },
            *([_shared(course, image.work)] if template.has_shared else []),
        ],
        "Secrets": [_secret(file, str(image.uid), str(image.gid)) for file in files],
        "Healthcheck": jupyter.healthcheck(template.port),
    }
    if image.uid != 0:
        container["CapabilityDrop"] = ["ALL"]
    if limits := _ulimits(template.open_files.get(seat.place.machine, 0)):
        container["Ulimits"] = limits
    return container


def limited(disk: int) -> Spec:
    """How a new volume is limited to so many bytes; 0: not at all."""
    return {"DriverConfig": {"Name": "local", "Options": {"size": str(disk)}}} if disk else {}


def _shared(course: str, work: str) -> Spec:
    """What all seats can read, and none can change. An empty folder of that name comes into the student's volume."""
    return {
        "Type": "volume",
        "Source": naming.shared_name(course),
        "Target": f"{work.rstrip('/')}/{SHARED}",
        "ReadOnly": True,
        "VolumeOptions": {"NoCopy": True, "Labels": naming.shared_labels(course)},
    }


def _secret(file: SeatFile, uid: str, gid: str) -> Spec:
    return {
        "SecretID": file.secret_id,
        "SecretName": file.secret_name,
        "File": {"Name": file.path, "UID": uid, "GID": gid, "Mode": 0o400},
    }


def _ulimits(open_files: int) -> list[Spec]:
    """No more than the engine has itself: it need not have the right to raise its own limit."""
    limit = min(open_files, OPEN_FILES)
    return [{"Name": "nofile", "Soft": limit, "Hard": limit}] if limit else []


# --- one that runs ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Server:
    """What a seat's server is configured with: its port, its root folder, and whether it runs as root."""

    port: int
    work: str
    as_root: bool


def server_of(spec: Spec) -> Server:
    """The server of a seat that runs."""
    container = container_of(spec)
    (port,) = spec["EndpointSpec"]["Ports"]
    return Server(port["TargetPort"], work_mount(container)["Target"], container["Secrets"][0]["File"]["UID"] == "0")


def container_of(spec: Spec) -> Spec:
    container: Spec = spec["TaskTemplate"]["ContainerSpec"]
    return container


def work_mount(container: Mapping[str, Any]) -> Spec:
    """The mount of the student's own volume, which carries the student's mark."""
    (mount,) = (each for each in container["Mounts"] if naming.STUDENT in _marks(each))
    found: Spec = mount
    return found


def has_shared(spec: Spec) -> bool:
    """Whether a seat has the folder that all can read."""
    return any(_marks(mount).get(naming.ROLE) == "shared" for mount in container_of(spec)["Mounts"])


def _marks(mount: Mapping[str, Any]) -> Mapping[str, str]:
    return (mount.get("VolumeOptions") or {}).get("Labels") or {}


def with_files(spec: Spec, files: Sequence[SeatFile]) -> Spec:
    """The same seat with other files."""
    changed = deepcopy(spec)
    container = container_of(changed)
    owner = container["Secrets"][0]["File"]
    container["Secrets"] = [_secret(file, owner["UID"], owner["GID"]) for file in files]
    return changed


def restarted(spec: Spec) -> Spec:
    """The same seat, in a new container."""
    changed = started(spec)
    changed["TaskTemplate"]["ForceUpdate"] = changed["TaskTemplate"].get("ForceUpdate", 0) + 1
    return changed


def stopped(spec: Spec) -> Spec:
    """The same seat without a container."""
    changed = deepcopy(spec)
    changed["Mode"] = {"Replicated": {"Replicas": 0}}
    return changed


def started(spec: Spec) -> Spec:
    """The same seat with a container."""
    changed = deepcopy(spec)
    changed["Mode"] = {"Replicated": {"Replicas": 1}}
    return changed


@dataclass(frozen=True)
class Target:
    """The place that a seat moves to: its node, the image's pinned name there, and how many files it may open there.

    `disk`: the limit of its volume there, in bytes; 0 where the engine can't set one.
    """

    place: Place
    node_id: str
    image: str
    open_files: int
    disk: int = 0


def moved(spec: Spec, left: str, target: Target) -> Spec:
    """The same seat at another place. A label names the machine that it leaves, where a volume of it still is."""
    changed = started(spec)
    changed["Labels"][naming.MOVED] = left
    task, container = changed["TaskTemplate"], container_of(changed)
    task["Placement"] = {"Constraints": [f"node.id=={target.node_id}"]}
    container["Image"] = target.image
    container["Ulimits"] = _ulimits(target.open_files)
    work_mount(container)["VolumeOptions"] = {
        "Labels": {**_marks(work_mount(container)), naming.PORT: str(target.place.port)},
        **limited(target.disk),
    }
    (port,) = changed["EndpointSpec"]["Ports"]
    port["PublishedPort"] = target.place.port
    return changed


def arrived(spec: Spec) -> Spec:
    """The same seat without that label: nothing is left of it elsewhere."""
    changed = deepcopy(spec)
    changed["Labels"].pop(naming.MOVED, None)
    return changed


def is_stopped(spec: Spec) -> bool:
    return not spec["Mode"]["Replicated"].get("Replicas")


def covers(actual: Any, wanted: Any) -> bool:
    """Whether an engine's object has everything that is wanted; what the engine added itself is ignored.

    Lists must be equal: one value too many is a difference. An empty value that is wanted may be missing.
    """
    if isinstance(wanted, dict):
        actual = actual or {}
        return isinstance(actual, dict) and all(covers(actual.get(key), wanted[key]) for key in wanted)
    if isinstance(wanted, list):
        actual = actual or []
        return isinstance(actual, list) and len(actual) == len(wanted) and all(map(covers, actual, wanted))
    return bool(actual == wanted or (not actual and not wanted))
