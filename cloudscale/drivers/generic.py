"""The driver `generic`: hosts that already exist, with Debian or Ubuntu, listed in the configuration."""

from __future__ import annotations

import getpass
from collections.abc import Mapping
from dataclasses import replace

from cloudscale.course.folder import CourseFolder
from cloudscale.course.settings import GenericSettings
from cloudscale.drivers.over_ssh import OverSsh
from cloudscale.errors import RequestError
from cloudscale.hosts.credentials import check_key_file
from cloudscale.hosts.destinations import Destinations, Flags
from cloudscale.hosts.ssh_config import SshConfig
from cloudscale.hosts.target import Target
from cloudscale.hosts.this_computer import on_terminal
from cloudscale.model import Machine, Say


class Generic(OverSsh):
    """Hosts that stay when a course ends: this driver neither makes nor deletes machines."""

    def __init__(
        self, targets: Mapping[str, Target], course: CourseFolder, say: Say, patience: float | None = None
    ) -> None:
        super().__init__(course, say, patience)
        self._targets = targets

    def machines(self) -> list[Machine]:
        return [Machine(name, target.host) for name, target in self._targets.items()]

    def _target(self, machine: Machine) -> Target:
        return self._targets[machine.name]

    def check_nodes(self, nodes: int) -> None:
        if nodes > len(self._targets):
            raise RequestError(
                f"{nodes} machines are needed, but generic.hosts has {len(self._targets)}.",
                "Add hosts, or lower --nodes.",
            )


def load(settings: GenericSettings, course: CourseFolder, say: Say, patience: float | None = None) -> Generic:
    """The driver for the hosts in the settings. Raises RequestError if a setting is missing or wrong."""
    if not settings.hosts:
        raise RequestError(
            "The driver generic has no hosts.",
            "List them in the configuration: generic: {hosts: [debian@192.0.2.11, debian@192.0.2.12]}.",
        )
    if settings.pwd == "-" and not on_terminal():
        raise RequestError(
            "generic.pwd is '-': this asks for the password, and there is no terminal.",
            "Run it in a terminal, or use a key (generic.kfile).",
        )
    destinations = Destinations(SshConfig(say), Flags(user=settings.user, key_file=settings.kfile))
    targets: dict[str, Target] = {}
    for host in settings.hosts:
        target = destinations.find(host)
        twin = next((name for name, other in targets.items() if _is_same(target, other)), None)
        if twin:
            same = "" if twin == target.name else f", also as {twin}"
            raise RequestError(
                f"The host {target.name} is listed twice{same} (generic.hosts).", "Remove one of the two."
            )
        targets[target.name] = target
    password = getpass.getpass("Password of the hosts: ") if settings.pwd == "-" else settings.pwd
    targets = {name: replace(target, password=password) for name, target in targets.items()}
    for target in targets.values():
        check_key_file(target)
    return Generic(targets, course, say, patience)


def _is_same(one: Target, other: Target) -> bool:
    def place(target: Target) -> tuple[str, int, Target | None]:
        return target.host.lower(), target.port, target.via

    return one.name == other.name or place(one) == place(other)
