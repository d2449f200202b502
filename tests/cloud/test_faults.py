"""Each kind of call that makes, reads or deletes something goes wrong, between the driver and the real cloud.

Every fault at every kind of call is the unit ring's, on the stand-in.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from cloudscale.course.settings import OpenStackSettings
from cloudscale.drivers.openstack import inventory, quota, security, sweep
from cloudscale.drivers.openstack.choices import choose
from cloudscale.drivers.openstack.cloud import open_cloud
from cloudscale.drivers.openstack.making import Blueprint, Maker
from cloudscale.hosts.login_key import ssh_key
from cloudscale.model import Outcomes
from tests.cloud.classroom import Project
from tests.cloud.conftest import STATE
from tests.lab.cloud import LabCloud
from tests.lab.cloud_seed import BLANK
from tests.lab.faults import Fault, FaultyCloud

CALLS = [
    ("POST", r"/v3/auth/tokens$"),
    ("GET", r"/servers/detail$"),
    ("GET", r"/limits$"),
    ("GET", r"/flavors"),
    ("GET", r"/os-server-groups$"),
    ("GET", r"/v2.0/networks"),
    ("GET", r"/v2.0/subnets$"),
    ("GET", r"/v2.0/ports$"),
    ("GET", r"/v2.0/floatingips$"),
    ("GET", r"/v2.0/security-groups$"),
    ("GET", r"/v2.0/security-group-rules$"),
    ("GET", r"/v2.0/quotas/"),
    ("GET", r"/v2/images"),
    ("POST", r"/v2.0/security-groups$"),
    ("POST", r"/v2.0/security-group-rules$"),
    ("POST", r"/v2.0/ports$"),
    ("POST", r"/v2.0/floatingips$"),
    ("POST", r"/os-server-groups$"),
    ("POST", r"/servers$"),
    ("PUT", r"/v2.0/ports/.*/tags/"),
    ("PUT", r"/v2.0/floatingips/.*/tags/"),
    ("PUT", r"/v2.0/security-groups/.*/tags/"),
    ("DELETE", r"/servers/"),
    ("DELETE", r"/v2.0/floatingips/"),
    ("DELETE", r"/v2.0/ports/"),
    ("DELETE", r"/v2.0/security-group-rules/"),
    ("DELETE", r"/v2.0/security-groups/"),
    ("DELETE", r"/os-server-groups/"),
]
REFUSALS = ("500", "502", "503", "429")
WAITING = 15  # seconds that a client waits for an answer where it gets none
SWALLOWED = ("/servers/detail$", "/servers$", "/v2.0/ports$", "/servers/")
LOST = {True: "timeout", False: "drop_before"}


def refused() -> list[Fault]:
    """Each call is refused as with a token that has run out, then in one of the ways in which a cloud is busy."""
    busy = [Fault(method, path, REFUSALS[at % len(REFUSALS)], retry_after=1) for at, (method, path) in enumerate(CALLS)]
    # what answers that to a login means it, and there is no asking again
    return [Fault(method, path, "401") for method, path in CALLS if "auth" not in path] + busy


def unanswered() -> list[Fault]:
    """Each call does not arrive, then it is carried out without an answer that arrives."""
    lost = [Fault(method, path, LOST[path.endswith(SWALLOWED)], seconds=30) for method, path in CALLS]
    return lost + [Fault(method, path, "drop_after") for method, path in CALLS]


KINDS = {"refused": refused, "unanswered": unanswered}


@dataclass(frozen=True)
class Life:
    """What became of a machine that was asked for, its ports opened and closed, and all of it deleted.

    How many there were of each kind of thing, which faults never happened, and what was left.
    """

    made: dict[str, int]
    unharmed: list[Fault]
    removed: Outcomes[str]
    left: dict[str, int]


class Laboratory:
    """Lives of all kinds, side by side: each in a course of its own, through a proxy of its own."""

    def __init__(self, cloud: LabCloud, folder: Path) -> None:
        self._project = Project(cloud)
        self._folder = folder
        self._proxies = {kind: FaultyCloud(cloud.clouds_yaml, cloud.namespace) for kind in KINDS}
        clouds = {}
        for kind, proxy in self._proxies.items():
            account = json.loads(proxy.clouds_yaml.read_text())["clouds"]["course"]
            clouds[kind] = {**account, "api_timeout": WAITING} if kind == "unanswered" else account
            proxy.add(*KINDS[kind]())
        self.clouds_yaml = folder / "clouds.yaml"
        self.clouds_yaml.write_text(json.dumps({"clouds": clouds}))

    def close(self) -> None:
        for proxy in self._proxies.values():
            proxy.close()

    def live(self, kind: str) -> Life:
        settings = OpenStackSettings(cloud=kind, image=BLANK, flavor="m1.tiny")
        mark = inventory.mark(f"fault-{kind}")
        key = ssh_key(self._folder, create=True)
        assert key
        cloud = open_cloud(settings)
        choices = choose(cloud, settings, lambda text: None)
        quota.read_allowances(cloud, settings, lambda text: None)
        there = inventory.read_inventory(cloud, mark)
        maker = Maker(cloud, Blueprint(mark, settings, choices, key), there, group_size=10, say=lambda text: None)
        port = maker.port("machine-1")
        assert port
        assert maker.floating_ip("machine-1", port)
        maker.server("machine-1", port, inventory.FLOATING)
        group = security.ensure_group(cloud, mark)
        base = security.base_rules(settings)
        security.add_rules(cloud, mark, group, base | security.seat_rules([4321], settings.student_cidr))
        security.remove_others(cloud, mark, group, base)
        made = {what: len(things) for what, things in self._project.marked(mark).items()}
        removed = sweep.sweep(cloud, mark)
        left = {what: len(things) for what, things in self._project.marked(mark).items()}
        faults = self._proxies[kind].faults
        return Life(made, [fault for fault, fired in faults.items() if not fired], removed, left)


@pytest.fixture(scope="module")
def lives(cloud: LabCloud) -> Iterator[dict[str, Life]]:
    folder = STATE / "cloud-faults"
    folder.mkdir()
    laboratory = Laboratory(cloud, folder)
    with pytest.MonkeyPatch.context() as patch, cloud.namespace.entered(), ThreadPoolExecutor(len(KINDS)) as pool:
        patch.setenv("OS_CLIENT_CONFIG_FILE", str(laboratory.clouds_yaml))
        yield dict(zip(KINDS, pool.map(laboratory.live, KINDS), strict=True))
    laboratory.close()


@pytest.mark.parametrize("kind", KINDS)
def test_everything_is_made_once_and_removed_whatever_goes_wrong(lives: dict[str, Life], kind: str) -> None:
    life = lives[kind]
    assert life.unharmed == []
    once = dict.fromkeys(("servers", "ports", "floating IPs", "security groups", "server groups"), 1)
    assert life.made == once
    assert [outcome.error for outcome in life.removed if not outcome.ok] == []
    assert len(life.removed) >= len(once)  # what was given up on may have come late, on a slow machine
    assert life.left == {}
