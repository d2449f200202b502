"""The driver `generic`: hosts that exist already, each with Debian or Ubuntu, named in the configuration."""

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
    """The hosts stay when a course ends: nothing is made or deleted here."""

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
                f"{nodes} machines are wanted, and there are {len(self._targets)}.", "Add hosts, or lower --nodes."
            )


def generic(settings: GenericSettings, course: CourseFolder, say: Say) -> Generic:
    """The driver for the hosts that the settings name. Raises RequestError where they make no sense."""
    if not settings.hosts:
        raise RequestError(
            "The driver generic has no hosts.",
            "Name them in the configuration, as generic: {hosts: [debian@192.0.2.11, debian@192.0.2.12]}.",
        )
    if settings.kfile and not settings.kfile.expanduser().is_file():
        raise RequestError(f"There is no key {settings.kfile} (generic.kfile).")
    if settings.pwd == "-" and not on_terminal():
        raise RequestError("generic.pwd is '-', which asks for the password, and nobody is there to answer.")
    password = getpass.getpass("Password of the hosts: ") if settings.pwd == "-" else settings.pwd
    targets: dict[str, Target] = {}
    for host in settings.hosts:
        target = parse_target(host, port=22, user=settings.user, password=password, key_file=settings.kfile)
        if target.name in targets:
            raise RequestError(f"The host {target.name} is named twice (generic.hosts).")
        targets[target.name] = target
    return Generic(targets, course, say)
