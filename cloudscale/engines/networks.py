"""A network of an engine of its own: containers in it reach the internet, and not each other."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from functools import partial
from typing import Any

from docker.errors import APIError, NotFound

from cloudscale.engines.client import Engine, engine_errors
from cloudscale.errors import EngineError
from cloudscale.outside import formed
from cloudscale.waiting import retry

MTU = "com.docker.network.driver.mtu"
NETWORK = {"Name": str, "Id": str, "Labels?": {"*": str}}  # what is needed of an engine's answers
BRIDGE = {"Options?": {f"{MTU}?": str}}
LEAVING = 30.0  # seconds for the last container to have left


def ensure_network(manager: Engine, name: str, labels: Mapping[str, str], device: str) -> str:
    """The id of the network of that name for Swarm services, on this machine; made if it is missing. Idempotent.

    A network in a swarm takes its options from a second one on the machine, which carries the labels: it can have none
    itself (docs.docker.com, `docker network create`, "config-only"). `device`: what Linux calls its bridge. Raises
    EngineError.
    """
    configuration = _configuration(name)
    with engine_errors(manager.name):
        found = _named(manager, configuration)
        if found and not labels.items() <= (found.get("Labels") or {}).items():
            raise EngineError(
                f"{manager.name}: a network {configuration} exists that does not carry this course's mark.",
                f"Remove it (docker network rm {configuration}) or choose another --course.",
            )
        if not found:
            options = {"com.docker.network.bridge.enable_icc": "false", "com.docker.network.bridge.name": device}
            body = {"ConfigOnly": True, "Options": {**options, **_mtu(manager)}, "Labels": dict(labels)}
            _create(manager, {"Name": configuration, **body})
        if present := _named(manager, name):
            return str(present["Id"])
        body = {"Driver": "bridge", "Scope": "swarm", "ConfigFrom": {"Network": configuration}}
        return str(_create(manager, {"Name": name, **body})["Id"])


def has_network(manager: Engine, name: str, labels: Mapping[str, str]) -> bool:
    """Whether `ensure_network` made it, or has begun to. Raises EngineError."""
    with engine_errors(manager.name):
        found = _named(manager, _configuration(name))
    return bool(found) and labels.items() <= (found.get("Labels") or {}).items()


def remove_network(manager: Engine, name: str, labels: Mapping[str, str]) -> None:
    """Removes what `ensure_network` made; one that does not carry the labels stays. Raises EngineError."""
    if not has_network(manager, name, labels):
        return
    with engine_errors(manager.name):
        for each in (name, _configuration(name)):
            retry(partial(_remove, manager, each), when=lambda error: isinstance(error, APIError), timeout=LEAVING)


def _create(engine: Engine, body: Mapping[str, Any]) -> Any:
    """NetworkCreate of the Engine API: docker-py's own call knows no configurations."""
    api = engine.api
    return api._result(api._post_json(api._url("/networks/create"), data=body), True)


def _configuration(name: str) -> str:
    return f"{name}-options"


def _named(manager: Engine, name: str) -> Any:
    """The API finds names that only begin like it, too."""
    found = formed(manager.api.networks(names=[name]), [NETWORK])
    return next((each for each in found if each["Name"] == name), None)


def _mtu(manager: Engine) -> dict[str, str]:
    """The largest packet on the engine's own bridge, which its owner may have chosen for a network around it."""
    with contextlib.suppress(NotFound):
        options = formed(manager.api.inspect_network("bridge"), BRIDGE).get("Options") or {}
        return {MTU: options[MTU]} if MTU in options else {}
    return {}


def _remove(manager: Engine, name: str) -> None:
    with contextlib.suppress(NotFound):
        manager.api.remove_network(name)
