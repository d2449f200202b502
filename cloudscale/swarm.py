"""The Docker Swarm of a course: made, found, left. One node for now; the first machine is its manager."""

from __future__ import annotations

import contextlib

from docker.errors import APIError, NotFound

from cloudscale import naming
from cloudscale.engine import Engine, engine_errors
from cloudscale.errors import SwarmError

# Swarm's own default, 10.0.0.0/8, collides with most private networks; this range is reserved for
# benchmarks of network devices (RFC 2544) and so is hardly ever in use.
ADDRESS_POOL = ["198.18.0.0/16"]

BRIDGE = "docker_gwbridge"  # made by the engine when it enters a swarm, and not removed by it
BRIDGE_LABEL = "cloudscale.bridge"


def is_manager(engine: Engine) -> bool:
    """Whether the engine manages a swarm already; False where it is in none.

    Raises SwarmError where it is in somebody's swarm without managing it, or its swarm is unusable.
    """
    with engine_errors(engine.name):
        swarm = engine.api.info().get("Swarm") or {}  # an engine of another make has none
    state = swarm.get("LocalNodeState", "unknown")
    if state == "inactive":
        return False
    if state == "active" and swarm.get("ControlAvailable"):
        return True
    if state == "active":
        raise SwarmError(
            f"The Docker Engine of {engine.name} is a worker in somebody else's swarm, and is not taken over.",
            "Run this against a manager of that swarm (DOCKER_HOST), or take the engine out: docker swarm leave.",
        )
    if state == "locked":
        raise SwarmError(f"The swarm of {engine.name} is locked.", "Open it with: docker swarm unlock.")
    raise SwarmError(
        f"The swarm of {engine.name} is in the state {state!r}: {swarm.get('Error') or 'no reason given'}.",
        "If nothing there is needed any more, take the engine out with: docker swarm leave --force.",
    )


def ensure_swarm(engine: Engine, course: str) -> bool:
    """Makes a swarm of one on the engine unless it manages one already; True where it was made."""
    if is_manager(engine):
        return False
    with engine_errors(engine.name):
        marks = naming.labels(course)
        if not engine.api.networks(names=[BRIDGE]):
            marks[BRIDGE_LABEL] = "made"
        # one node: the cluster's ports need not be open to anybody else
        engine.api.init_swarm(
            advertise_addr="127.0.0.1",
            listen_addr="127.0.0.1:2377",
            default_addr_pool=ADDRESS_POOL,
            swarm_spec=engine.api.create_swarm_spec(labels=marks),
        )
        _label_node(engine, course)
    return True


def leave_swarm(engine: Engine, course: str) -> str:
    """Dissolves the swarm if the course made it, and returns what was done, in words ("" for nothing).

    Where others still use it, it is handed over to them instead: to another course by changing the
    mark, else by taking the mark away.
    """
    if not is_manager(engine):
        return ""
    with engine_errors(engine.name):
        swarm = engine.api.inspect_swarm()
        marks = swarm["Spec"].get("Labels") or {}
        if marks.get(naming.MARK) != course:
            return ""
        others = _of_others(engine, course)
        if others or len(engine.api.nodes()) > 1:
            courses = sorted(set(others) - {""})
            spec = swarm["Spec"]
            spec["Labels"] = {key: value for key, value in marks.items() if key != naming.MARK}
            if courses:
                spec["Labels"][naming.MARK] = courses[0]
            engine.api.update_swarm(swarm["Version"]["Index"], swarm_spec=spec)
            _label_node(engine, courses[0] if courses else "")
            return f"The swarm of {engine.name} stays: others have {len(others)} services, networks or secrets in it."
        engine.api.leave_swarm(force=True)
        if BRIDGE_LABEL in marks:
            with contextlib.suppress(NotFound, APIError):  # in use by something else after all
                engine.api.remove_network(BRIDGE)
    return f"The swarm of {engine.name} was dissolved."


def _of_others(engine: Engine, course: str) -> list[str]:
    """The marks ("" for none) of what the swarm holds and this course did not make."""
    networks = engine.api.networks(filters={"scope": "swarm"})
    found = [network.get("Labels") or {} for network in networks if not network.get("Ingress")]
    for listed in (engine.api.services(), engine.api.secrets(), engine.api.configs()):
        found += [each["Spec"].get("Labels") or {} for each in listed]
    return [marks.get(naming.MARK, "") for marks in found if marks.get(naming.MARK) != course]


def _label_node(engine: Engine, course: str) -> None:
    """Sets the course's mark on the engine's own node; the empty course takes it away."""
    node = engine.api.inspect_node(engine.api.info()["Swarm"]["NodeID"])
    spec = node["Spec"]
    spec["Labels"] = {key: value for key, value in spec.get("Labels", {}).items() if key != naming.MARK}
    if course:
        spec["Labels"][naming.MARK] = course
    engine.api.update_node(node["ID"], node["Version"]["Index"], spec)
