"""The specification of a seat: the Swarm service of one student, and whether a running one matches it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cloudscale.course import naming
from cloudscale.course.settings import SeatSettings
from cloudscale.images.on_engine import NotebookImage
from cloudscale.model import Node, Seat
from cloudscale.seats import jupyter

Spec = dict[str, Any]

SECOND = 10**9  # the API's times are nanoseconds
OPEN_FILES = 2**20  # what engines before 29 gave to a container; new ones leave 1024, too few for Spark


@dataclass(frozen=True)
class Template:
    """What all seats of a course have in common.

    `pinned`: machine → the image's pinned name on it. `open_files`: machine → how many a container may open there.
    """

    course: str
    key: bytes = field(repr=False)
    image: NotebookImage
    pinned: Mapping[str, str]
    limits: SeatSettings
    port: int
    env: Mapping[str, str]
    open_files: Mapping[str, int] = field(default_factory=dict)


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
            naming.KEY: naming.key_id(template.key),
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
                "VolumeOptions": {"Labels": {**marks, naming.PORT: str(seat.place.port)}},
            }
        ],
        "Secrets": [
            {
                "SecretID": file.secret_id,
                "SecretName": file.secret_name,
                "File": {"Name": file.path, "UID": str(image.uid), "GID": str(image.gid), "Mode": 0o400},
            }
            for file in files
        ],
        "Healthcheck": jupyter.healthcheck(template.port),
    }
    if image.uid != 0:
        container["CapabilityDrop"] = ["ALL"]
    # no more than the engine has itself: it need not have the right to raise its own limit
    if limit := min(template.open_files.get(seat.place.machine, 0), OPEN_FILES):
        container["Ulimits"] = [{"Name": "nofile", "Soft": limit, "Hard": limit}]
    return container


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
