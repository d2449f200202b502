"""Walls around the seats on an engine that is not the course's alone: the trainer's own.

The seats have a network of their own, in which the engine passes nothing from one to another. Where it leads, rules of
the course's own say (hosts/scripts/firewall.sh). A container that enters the computer for a moment sets them and takes
them away: whoever may use the engine may do so, and needs no password for sudo.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence

import requests
from docker.errors import APIError, NotFound, NullResource

from cloudscale.course import naming
from cloudscale.engines.client import Engine, engine_errors
from cloudscale.engines.networks import ensure_network, has_network, remove_network
from cloudscale.errors import EngineError
from cloudscale.hosts.firewall import firewall
from cloudscale.model import last_lines
from cloudscale.units import MIB

INSIDE = "/host"  # where the container has the computer's files, for the program that sets rules
RIGHTS = ("NET_ADMIN", "NET_RAW", "SYS_CHROOT")
SETTING = 60  # seconds for the container to end

# an engine whose rules are of another kind, or that makes none, would not follow ours
FOLLOWED = "iptables -w -C FORWARD -j DOCKER-USER 2>&- || { echo its engine has no rules of iptables; exit 1; }\n"


def build(engine: Engine, course: str, image: str, reach: Iterable[str] = ()) -> tuple[str, str]:
    """Makes or renews them. Returns the id of the seats' network, and why its rules are not in force ("" if they are).

    Idempotent. `engine`: it manages the swarm. `image`: any with a chroot(8). `reach`: the setting `seat.reach`. Raises
    EngineError.
    """
    network = ensure_network(engine, naming.network_name(course), naming.walls_labels(course), _device(course))
    return network, _on_computer(engine, course, image, FOLLOWED + _rules(course, reach), "up")


def are_there(engine: Engine, course: str) -> bool:
    """Whether a course has them. Raises EngineError."""
    return has_network(engine, naming.network_name(course), naming.walls_labels(course))


def remove(engine: Engine, course: str, image: str) -> None:
    """Removes them, once the last seat is gone. Raises EngineError. `image`: any with a chroot(8)."""
    fault = _on_computer(engine, course, image, _rules(course), "down")
    remove_network(engine, naming.network_name(course), naming.walls_labels(course))
    if fault:
        raise EngineError(
            f"{engine.name}: the rules for the seats' network could not be removed ({fault}).",
            f"Their network is gone. To see them: sudo iptables -S | grep {naming.network_digest(course)}",
        )


def _device(course: str) -> str:
    """What Linux calls the network's bridge."""
    return f"cs-{naming.network_digest(course)}"


def _rules(course: str, reach: Iterable[str] = ()) -> str:
    return firewall(reach, bridge=_device(course), of=naming.network_digest(course))


def _on_computer(engine: Engine, course: str, image: str, script: str, word: str) -> str:
    """Runs a script on the computer, with the right to change its rules alone. Returns why it failed, or ""."""
    api, container = engine.api, ""
    with engine_errors(engine.name):
        for left in api.containers(all=True, filters=naming.walls_filter(course)):  # of a run that was killed
            api.remove_container(left["Id"], force=True, v=True)
        try:
            container = _create(engine, course, image, [script, "walls", word])
            api.start(container)
            if api.wait(container, timeout=SETTING)["StatusCode"] == 0:
                return ""
            return last_lines(api.logs(container, tail=3).decode(errors="replace"), 3) or "no reason given"
        # there is no such image, it has no chroot, or the engine's computer no such files
        except (APIError, requests.RequestException) as error:
            return str(getattr(error, "explanation", error))
        finally:
            with contextlib.suppress(NotFound, NullResource):
                api.remove_container(container, force=True, v=True)


def _create(engine: Engine, course: str, image: str, words: Sequence[str]) -> str:
    api = engine.api
    created = api.create_container(
        image,
        entrypoint=["chroot", INSIDE, "/bin/sh", "-c", *words],
        command=[],
        user="0:0",
        environment=["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        labels=naming.walls_labels(course),
        host_config=api.create_host_config(
            network_mode="host",
            binds=[f"/:{INSIDE}:ro", f"/run:{INSIDE}/run"],  # the lock of iptables is in the second
            read_only=True,
            cap_drop=["ALL"],
            cap_add=list(RIGHTS),
            security_opt=["no-new-privileges", "label=disable"],
            mem_limit=64 * MIB,
            pids_limit=64,
        ),
    )
    return str(created["Id"])
