"""Hosts of one course, and the driver that reaches them over SSH."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cloudscale.course.folder import CourseFolder
from cloudscale.drivers import over_ssh
from cloudscale.drivers.generic import Generic
from cloudscale.engines import client
from cloudscale.errors import ConnectionFailed
from cloudscale.hosts import ssh
from cloudscale.hosts.known_hosts import KnownHosts
from cloudscale.hosts.target import Target
from tests.unit.fake_host import FRESH, FakeHost


class Lab:
    """Some hosts, the ways to them, and the driver for a course on them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, hosts: int = 2) -> None:
        self.hosts = {f"192.0.2.{at}": self._host(f"192.0.2.{at}") for at in range(11, 11 + hosts)}
        self.logins: list[Target] = []
        self.clients: list[dict[str, Any]] = []
        self.said: list[str] = []
        self.course = CourseFolder.named("bio", "generic")
        monkeypatch.setattr(ssh, "connect", self._connect)
        monkeypatch.setattr(client, "over_tls", self._over_tls)

    @staticmethod
    def _host(address: str) -> FakeHost:
        values = {name: value.replace("192.0.2.11", address) for name, value in FRESH.items()}
        return FakeHost(Target(address, user="debian"), values)

    def _connect(self, target: Target, *, timeout: float, known: KnownHosts) -> FakeHost:
        assert 0 < timeout <= over_ssh.LOGIN
        assert known.path == self.course.known_hosts
        self.logins.append(target)
        host = self.hosts[target.host]
        if host.is_lost:
            raise ConnectionFailed(f"{target.name}: no answer in {timeout:g} s.")
        return host

    def _over_tls(self, machine: str, host: str, port: int, *, ca: Path, certificate: tuple[Path, Path]) -> Any:
        self.clients.append({"machine": machine, "host": host, "port": port, "ca": ca, "certificate": certificate})
        return SimpleNamespace(host=host)

    def driver(self, course: str = "bio") -> Generic:
        """As the next run has it."""
        self.course = CourseFolder.named(course, "generic")
        return Generic({host.target.name: host.target for host in self.hosts.values()}, self.course, self.said.append)

    @property
    def first(self) -> FakeHost:
        return next(iter(self.hosts.values()))

    @property
    def changes(self) -> list[tuple[str, ...]]:
        return [change for host in self.hosts.values() for change in host.changes]


def prepared(lab: Lab) -> None:
    driver = lab.driver()
    for machine in driver.machines():
        driver.survey(machine)
        driver.prepare(machine)
    for host in lab.hosts.values():
        host.calls.clear()
