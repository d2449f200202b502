"""What a seat should be: the Swarm service of one student, and how it differs from what is there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cloudscale.course import naming
from cloudscale.course.settings import SeatSettings
from cloudscale.images.on_engine import NotebookImage
from cloudscale.model import Node, Seat
from cloudscale.seats import jupyter

Spec = dict[str, Any]

SECOND = 10**9  # the API's times are nanoseconds


@dataclass(frozen=True)
class Template:
    """What all seats of a course have in common. `pinned`: machine → the image's name there, which asks no registry."""

    course: str
    key: bytes = field(repr=False)
    image: NotebookImage
    pinned: Mapping[str, str]
    limits: SeatSettings
    port: int
    env: Mapping[str, str]


def wanted_spec(seat: Seat, node: Node, template: Template, name: str, secret_id: str, secret_name: str) -> Spec:
    """The seat's service, as the Engine API has it (ServiceSpec)."""
    course, limits, image = template.course, template.limits, template.image
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
                # the port, so that a student finds the address again after the seats were cleared
                "VolumeOptions": {"Labels": {**marks, naming.PORT: str(seat.place.port)}},
            }
        ],
        "Secrets": [
            {
                "SecretID": secret_id,
                "SecretName": secret_name,
                "File": {"Name": jupyter.CONFIG_PATH, "UID": str(image.uid), "GID": str(image.gid), "Mode": 0o400},
            }
        ],
        "Healthcheck": jupyter.healthcheck(template.port),
    }
    if image.uid != 0:
        container["CapabilityDrop"] = ["ALL"]
    return {
        "Name": name,
        "Labels": {
            **marks,
            naming.NAME: seat.student.full_name,
            naming.EMAIL: seat.student.email,
            naming.KEY: naming.key_id(template.key),
        },
        "TaskTemplate": {
            "ContainerSpec": container,
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
            # a notebook that prints for ever does not fill the disk
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


def covers(actual: Any, wanted: Any) -> bool:
    """Whether what the engine has says the same as what is wanted, leaving aside what it added by itself.

    Lists are compared whole, since a value too many is a difference. What is wanted empty may be absent.
    """
    if isinstance(wanted, dict):
        actual = actual or {}
        return isinstance(actual, dict) and all(covers(actual.get(key), wanted[key]) for key in wanted)
    if isinstance(wanted, list):
        actual = actual or []
        return isinstance(actual, list) and len(actual) == len(wanted) and all(map(covers, actual, wanted))
    return bool(actual == wanted or (not actual and not wanted))
