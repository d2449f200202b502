"""The driver `generic`: hosts that already exist, with Debian or Ubuntu, listed in the configuration."""

from __future__ import annotations

import getpass
from collections.abc import Mapping

from cloudscale.course.folder import CourseFolder
from cloudscale.course.settings import GenericSettings
from cloudscale.drivers.over_ssh import OverSsh
from cloudscale.errors import RequestError
from cloudscale.hosts.ssh import Target, parse_target
from cloudscale.hosts.this_computer import on_terminal
from cloudscale.model import Machine, Say


class Generic(OverSsh):
    """Hosts that stay when a course ends: this driver neither makes nor deletes machines."""

    def __init__(self, targets: Mapping[str, Target], course: CourseFolder, say: Say) -> None:
        super().__init__(course, say)
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


def load(settings: GenericSettings, course: CourseFolder, say: Say) -> Generic:
    """The driver for the hosts in the settings. Raises RequestError if a setting is missing or wrong."""
    if not settings.hosts:
        raise RequestError(
            "The driver generic has no hosts.",
            "List them in the configuration: generic: {hosts: [debian@192.0.2.11, debian@192.0.2.12]}.",
        )
    if settings.kfile and not settings.kfile.expanduser().is_file():
        raise RequestError(f"The key file {settings.kfile} does not exist (generic.kfile).", "Check its path.")
    if settings.pwd == "-" and not on_terminal():
        raise RequestError(
            "generic.pwd is '-': this asks for the password, and there is no terminal.",
            "Run it in a terminal, or use a key (generic.kfile).",
        )
    password = getpass.getpass("Password of the hosts: ") if settings.pwd == "-" else settings.pwd
    targets: dict[str, Target] = {}
    for host in settings.hosts:
        target = parse_target(host, port=22, user=settings.user, password=password, key_file=settings.kfile)
        if target.name in targets:
            raise RequestError(f"The host {target.name} is listed twice (generic.hosts).", "Remove one of the two.")
        targets[target.name] = target
    return Generic(targets, course, say)
