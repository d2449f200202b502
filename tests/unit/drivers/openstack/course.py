"""A whole course with the real driver `openstack` at a stand-in for a cloud: only SSH and the engines are fakes."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cloudscale.course.flags import Common, read_flags
from cloudscale.course.session import Session
from cloudscale.course.settings import read_settings
from cloudscale.drivers.openstack.cloud import Cloud
from cloudscale.drivers.openstack.driver import OpenStack
from cloudscale.engines import client
from cloudscale.seats import jupyter
from cloudscale.workflow import reset
from tests.unit.api_schema import Json
from tests.unit.classroom import Class
from tests.unit.drivers.openstack.cloud import OwnCloud, Time
from tests.unit.drivers.openstack.testbed import CloudTestbed
from tests.unit.fake_api import FakeApi
from tests.unit.fake_swarm import FakeNetwork
from tests.unit.fakes import FakeContainers, place_of


class RealDriverClass(Class):
    """A course `bio` in a cloud; `openstack` is that section of the configuration. Two seats fit on a machine."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stand_in: OwnCloud, clock: Time, cloud: Cloud
    ) -> None:
        super().__init__(monkeypatch, tmp_path)
        self.apis = []
        self.kind = "openstack"
        self.stand_in = stand_in
        self.openstack: Json = {"cloud": "course"}
        self.testbed = CloudTestbed(monkeypatch, stand_in, clock)
        self.testbed.cloud = cloud
        self.testbed.sizes = {"cores": "1\n", "memory": f"MemTotal: {2**20} kB\n"}  # as the engines say below
        self._network = FakeNetwork()
        self._engines: dict[str, FakeApi] = {}  # by the ids of their servers
        self._disks: dict[str, Json] = {}  # what engines have on work volumes, by the ids of these
        monkeypatch.setattr(
            "cloudscale.cluster.driver.load_driver", lambda given, *rest: OpenStack(given.openstack, *rest)
        )
        monkeypatch.setattr(client, "over_tls", self._over_tls)
        monkeypatch.setattr(jupyter, "hash_password", lambda password, salt: "argon2:$argon2id$x")

    def session(self, **common: Any) -> Session:
        settings = read_settings(
            {
                "driver": self.kind,
                "course": self.course,
                "image": self.image,
                "students": str(self.roster),
                "seat": {"reserve": "512M"},
                "openstack": self.openstack,
                "gateway": self.gateway,
            }
        )
        self.said.lines.clear()
        return Session(settings, read_flags(Common, **{"format": "json", **common}), self.said, self._ask)

    def plan(self, **flags: Any) -> Json:
        plan: Json = json.loads(self.launch(plan=True, **flags).text)
        return plan

    def reset(self) -> None:
        reset.driver_reset(self.session(yes=True))

    def lose(self, name: str) -> None:
        """The machine's server is deleted by somebody else."""
        server = self.stand_in.compute.server(name)
        self.stand_in.compute.remove(server)
        lost = self._engines.pop(server.id)
        lost.go_down()
        self.apis.remove(lost)
        for address in [address for address, api in self._network.engines.items() if api is lost]:
            del self._network.engines[address]  # another machine will have it

    @property
    def notes(self) -> str:
        """What was said in the last run."""
        return "\n".join(self.said.lines)

    def _over_tls(self, machine: str, host: str, port: int, *, ca: Path, certificate: tuple[Path, Path]) -> Any:
        # a tunnel of this computer leads to a machine that is reached through another one
        server = self.stand_in.compute.server(machine) if host == "127.0.0.1" else self.testbed.at(host)
        assert server, f"{machine}: no server at {host}"
        if server.id not in self._engines:
            inner = self.testbed.addresses(server)[0]
            api = FakeApi(name=machine, address=inner, network=self._network, in_swarm=False, cpus=1, memory=2**30)
            api.registry = self.registry
            for disk in [id for id, goes in server.volumes.items() if not goes]:
                api.volumes_ = self._disks.setdefault(disk, api.volumes_)
            self._engines[server.id] = api
            self.apis.append(api)
        return SimpleNamespace(api=self._engines[server.id], containers=FakeContainers())

    def _answers(self, url: str, *, at: str = "", probe: str = "") -> bool:
        host, port = self._behind(url) if at and probe else place_of(url)
        server = self.testbed.at(host)
        return server is not None and port in self._engines[server.id].open_ports


def bare(stand_in: OwnCloud, *images: str, **more: Any) -> None:
    """A cloud with these images, and without networks."""
    for kind in (stand_in.network.networks, stand_in.network.subnets, stand_in.network.routers, stand_in.network.ports):
        kind.items.clear()
    stand_in.images.images.clear()
    for number, name in enumerate(images, start=1):
        stand_in.images.add_image(name, created_at=f"2026-01-{number:02}T00:00:00Z", **more)


def network(stand_in: OwnCloud, name: str, *cidrs: str, router: str = "", **kind: bool) -> Json:
    """A network with subnets; `router`: the name of the external network to which a router connects it."""
    net = stand_in.network.networks.add(name, **kind)
    for number, cidr in enumerate(cidrs):
        stand_in.network.subnets.add(f"{name}-{number}", net, cidr)
    if router:
        (outside,) = (net for net in stand_in.network.networks.items.values() if net["name"] == router)
        stand_in.network.routers.add(f"{name}-router", outside, net)
    return net
