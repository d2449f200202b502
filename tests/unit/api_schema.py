"""What the Engine API knows of a service, and its errors as docker-py raises them."""

from __future__ import annotations

from typing import Any

import requests
from docker.errors import APIError, ImageNotFound, NotFound

Json = dict[str, Any]

# {} stands for any keys, None for a value, a list for a list of such.
PORT = {"Name": None, "Protocol": None, "TargetPort": None, "PublishedPort": None, "PublishMode": None}
FILE = {"Name": None, "UID": None, "GID": None, "Mode": None}
TASK_TEMPLATE: Json = {
    "ContainerSpec": {
        **dict.fromkeys(("Image", "Hostname", "Dir", "User", "Groups", "TTY", "OpenStdin", "ReadOnly", "Isolation")),
        **dict.fromkeys(("Init", "StopSignal", "StopGracePeriod", "OomScoreAdj", "Hosts", "Command", "Args", "Env")),
        **dict.fromkeys(("CapabilityAdd", "CapabilityDrop", "Ulimits", "Privileges", "DNSConfig", "Configs")),
        "Labels": {},
        "Sysctls": {},
        "Mounts": [
            {
                **dict.fromkeys(("Type", "Source", "Target", "ReadOnly", "Consistency", "BindOptions", "TmpfsOptions")),
                "VolumeOptions": {"NoCopy": None, "Labels": {}, "DriverConfig": None, "Subpath": None},
            }
        ],
        "Secrets": [{"SecretID": None, "SecretName": None, "File": FILE}],
        "Healthcheck": dict.fromkeys(("Test", "Interval", "Timeout", "Retries", "StartPeriod", "StartInterval")),
    },
    "Resources": {
        "Limits": dict.fromkeys(("NanoCPUs", "MemoryBytes", "Pids")),
        "Reservations": dict.fromkeys(("NanoCPUs", "MemoryBytes", "GenericResources")),
    },
    "RestartPolicy": dict.fromkeys(("Condition", "Delay", "MaxAttempts", "Window")),
    "Placement": dict.fromkeys(("Constraints", "Preferences", "MaxReplicas", "Platforms")),
    "LogDriver": {"Name": None, "Options": {}},
    "Networks": None,
    "ForceUpdate": None,
    "Runtime": None,
}
SERVICE: Json = {
    "Name": None,
    "Labels": {},
    "TaskTemplate": TASK_TEMPLATE,
    "Mode": {"Replicated": {"Replicas": None}},
    "EndpointSpec": {"Mode": None, "Ports": [PORT]},
}


def check_keys(value: Any, known: Any, path: str = "service") -> None:
    """Refuses a key that the API does not know, as the engine does not: it ignores it in silence."""
    if isinstance(known, list):
        for at, item in enumerate(value):
            check_keys(item, known[0], f"{path}[{at}]")
    elif known:
        for key in value:
            if key not in known:
                raise api_error(400, f"unknown key {path}.{key}")
            check_keys(value[key], known[key], f"{path}.{key}")


def api_error(status: int, explanation: str) -> APIError:
    response = requests.Response()
    response.status_code = status
    kind = {404: ImageNotFound if "No such image" in explanation else NotFound}.get(status, APIError)
    return kind(explanation, response=response, explanation=explanation)
