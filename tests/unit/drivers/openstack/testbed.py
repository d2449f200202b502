"""A course in a stand-in for a cloud, with machines that answer over SSH, and the driver for them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cloudscale.course.folder import CourseFolder
from cloudscale.course.settings import OpenStackSettings
from cloudscale.drivers.openstack import driver as module
from cloudscale.drivers.openstack import security
from cloudscale.drivers.openstack.cloud import Cloud, open_cloud
from cloudscale.drivers.openstack.driver import OpenStack
from cloudscale.drivers.openstack.inventory import ANSWERED, FINGERPRINT
from cloudscale.drivers.openstack.security import Rule
from cloudscale.engines import client
from cloudscale.errors import CloudscaleError, ConnectionFailed
from cloudscale.hosts import first_login, ssh
from cloudscale.hosts.known_hosts import KnownHosts
from cloudscale.hosts.login_key import ssh_key
from cloudscale.hosts.target import Target
from cloudscale.model import Machine, Survey
from tests.lab.stand_in.machines import Server
from tests.unit.drivers.openstack.cloud import COURSE, OwnCloud, Time, settings
from tests.unit.drivers.openstack.making import chosen
from tests.unit.fake_host import FRESH, FakeHost


class CloudTestbed:
    """`mute`: names of machines whose SSH does not answer; `refusals`: machine → the error of a login.

    Each applies to the next server with the name, or to all of them if it is in `always` too. `cloud`: an existing
    login, with which nothing is looked up by name. The security group gets only a few of its rules.
    """

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, stand_in: OwnCloud, clock: Time, cloud: Cloud | None = None
    ) -> None:
        self.stand_in = stand_in
        self.clock = clock
        self.cloud = cloud
        self.messages: list[str] = []
        self.mute: set[str] = set()
        self.always: set[str] = set()
        self.hides_inner = False
        self.refusals: dict[str, CloudscaleError] = {}
        self.hosts: dict[str, FakeHost] = {}
        self.logins: list[Target] = []
        self.clients: list[dict[str, Any]] = []
        self.sizes: dict[str, str] = {}  # facts of every host
        self._mute_ids: set[str] = set()
        self._opened: list[Cloud] = []
        self.course = CourseFolder.named(COURSE, "openstack")
        monkeypatch.setattr(module, "open_cloud", self._open)
        few = frozenset({Rule("tcp", 22, 22, "0.0.0.0/0"), Rule("tcp", 2377, 2377)})
        monkeypatch.setattr(security, "base_rules", lambda given, families=(): few)
        if cloud:
            monkeypatch.setattr(module, "choose", lambda cloud, given, say: chosen(stand_in, given))
        monkeypatch.setattr(first_login, "_answers", lambda target, over: self._serving(target) is not None)
        monkeypatch.setattr(first_login, "connect", self._connect)
        monkeypatch.setattr(ssh, "connect", self._connect)
        monkeypatch.setattr(client, "over_tls", self._over_tls)

    def driver(self, course: str = COURSE, **given: Any) -> OpenStack:
        """The driver of a new run."""
        self.course = CourseFolder.named(course, "openstack")
        return OpenStack(settings(**given), self.course, self.messages.append)

    def close(self) -> None:
        for cloud in self._opened:
            cloud.api.close()

    def _open(self, given: OpenStackSettings, patience: float | None = None) -> Cloud:
        if self.cloud:
            return self.cloud
        self._opened.append(open_cloud(given, self.clock))
        return self._opened[-1]

    # --- the machines ---

    def add_machine(self, name: str = "bio-1", *, answered: bool = True) -> Server:
        """A machine that an earlier run of the course made."""
        self.course.make_folder()
        key = ssh_key(self.course.folder, create=True)
        assert key
        tags = (ANSWERED,) if answered else ()
        return self.stand_in.add_machine(name, tags=tags, metadata={FINGERPRINT: key.fingerprint})

    def at(self, address: str) -> Server | None:
        """The server that has an address."""
        network, compute = self.stand_in.network, self.stand_in.compute
        ports = {ip["port_id"] for ip in network.floating_ips.items.values() if ip["floating_ip_address"] == address}
        for port in network.ports.items.values():
            if port["id"] in ports or address in [ip["ip_address"] for ip in port["fixed_ips"]]:
                return compute.servers.get(port["device_id"])
        return None

    def is_inner(self, address: str) -> bool:
        """Whether an address is one of a network behind a router, with floating IPs in front of it."""
        network = self.stand_in.network
        fixed = [
            port for port in network.ports.items.values() if address in [ip["ip_address"] for ip in port["fixed_ips"]]
        ]
        outer = {ip["floating_ip_address"] for ip in network.floating_ips.items.values()}
        return self.hides_inner and bool(fixed) and address not in outer

    def _serving(self, target: Target) -> Server | None:
        server = self.at(target.host)
        if server and target.via is None and self.is_inner(target.host):
            return None  # from the outside, there is no way to it
        if server is None or server.status != "ACTIVE" or server.id in self._mute_ids:
            return None
        if server.name in self.mute:
            self._mute_ids.add(server.id)
            if server.name not in self.always:
                self.mute.remove(server.name)
            return None
        return server

    def _connect(self, target: Target, *, timeout: float, known: KnownHosts, over: FakeHost | None = None) -> FakeHost:
        assert timeout > 0
        assert (over.target if over else None) == target.via
        assert known.path == self.course.known_hosts
        assert target.key_file == self.course.folder / "id_ed25519"
        self.logins.append(target)
        server = self._serving(target)
        if server is None:
            raise ConnectionFailed(f"{target.name}: no answer in {timeout:g} s.")
        assert target.alias == server.id  # the host key is stored under this name
        if refusal := self.refusals.get(server.name):
            raise refusal
        host = self.hosts.setdefault(server.id, self._host(server))
        host.target = target
        return host

    def _host(self, server: Server) -> FakeHost:
        own = self.addresses(server)
        values = {name: value.replace("192.0.2.11", own[0]) for name, value in FRESH.items()}
        kinds = {address: ("inet6", 64) if ":" in address else ("inet", 24) for address in own}
        lines = [
            f"2: ens3    {kind} {address}/{size} scope global dynamic ens3" for address, (kind, size) in kinds.items()
        ]
        return FakeHost(values={**values, "addresses": "\n".join(lines), **self.sizes})

    def addresses(self, server: Server) -> list[str]:
        """A server's own addresses; of the network that it is reached in first, and IPv4 before IPv6."""
        ports = [self.stand_in.network.ports.items[port] for port in server.ports]
        return [ip["ip_address"] for port in ports for ip in port["fixed_ips"]]

    def _over_tls(self, machine: str, host: str, port: int, *, ca: Path, certificate: tuple[Path, Path]) -> Any:
        self.clients.append({"machine": machine, "host": host, "port": port, "ca": ca, "certificate": certificate})
        return SimpleNamespace(host=host)


def boot_one(driver: OpenStack, name: str = "bio-1") -> Survey:
    """Boots a machine without a plan, for a course without machines."""
    return driver.boot(Machine(name, ""))


def boot_several(driver: OpenStack, count: int, *former: str) -> list[Survey]:
    """Makes `count` more machines, one after the other."""
    driver.machines()
    return [driver.boot(survey.machine) for survey in driver.order(count, former).surveys]


def names(machines: list[Machine]) -> list[str]:
    return [machine.name for machine in machines]
