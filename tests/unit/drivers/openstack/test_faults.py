"""The result of a course is the same, whichever of its requests fails once."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cloudscale.drivers.openstack.cloud import TRANSIENT
from tests.lab.stand_in import Fault
from tests.lab.stand_in.wire import Request
from tests.unit.drivers.openstack.cloud import MARKS, OwnCloud, Time, only_these, quicker
from tests.unit.drivers.openstack.testbed import CloudTestbed, boot_several, names

pytestmark = MARKS
Json = dict[str, Any]
GIVEN = {
    "boot_volume": "5G",
    "work_volume": "2G",
    "volume_type": "ssd",
    "key_pair": "mine",
    "availability_zone": "nova",
}
DROPS: dict[str, Json] = {"dropped before it": {"drop": "before"}, "dropped after it": {"drop": "after"}}
STATUSES: dict[str, Json] = {str(code): {"status": code} for code in sorted(TRANSIENT)}
# the library makes two attempts for one request
VERSIONS = {"GET /identity/v3", "GET /compute/v2.1", "GET /image", "GET /volume/v3/"}


def life(testbed: CloudTestbed, between: Callable[[], None] = lambda: None) -> list[Any]:
    """A course that uses every method of the driver: its state in between, and at the end.

    bio-1 gets a second server for one in ERROR, bio-2 is shut off and loses its work volume later, and one floating IP
    is not in use.
    """
    stand_in, network = testbed.stand_in, testbed.stand_in.network
    stand_in.compute.add_keypair("mine", "ssh-ed25519 AAAA me")
    stand_in.compute.outcomes |= {"bio-1": ["ERROR: No valid host was found."], "bio-2": ["SHUTOFF"]}
    stand_in.add_ip()
    stand_in.add_port("theirs", marked="")
    driver = testbed.driver(**GIVEN)
    between()
    surveys = boot_several(driver, 2)
    between()
    for ports in ({4321}, {4322}):
        driver.open_ports({"bio-1": ports})
    (lost,) = (id for id, goes in stand_in.compute.server("bio-2").volumes.items() if not goes)
    del stand_in.compute.server("bio-2").volumes[lost]
    stand_in.volumes.detach(lost, goes=False)
    later = testbed.driver(**GIVEN)
    between()
    machines = later.machines()
    states = [later.survey(machine).state for machine in machines]
    between()
    again = [later.boot(machine) for machine in machines]
    seen: list[Any] = [
        names(machines),
        states,
        [survey.address for survey in again] == [survey.address for survey in surveys],
    ]
    servers = stand_in.compute.servers.values()
    seen += [sorted((made.name, made.status, *made.tags, len(made.volumes)) for made in servers)]
    marked = (network.ports, network.floating_ips, network.groups)
    seen += [sorted((item["description"], *item["tags"]) for item in kind.items.values()) for kind in marked]
    names_of_rules = ("protocol", "port_range_min", "port_range_max", "remote_ip_prefix", "description")
    seen += [sorted([str(rule[name]) for name in names_of_rules] for rule in network.rules.items.values())]
    seen += [stand_in.totals(), sorted(made["name"] for made in stand_in.volumes.volumes.values())]
    between()
    outcomes = [*later.sweep(), *later.sweep_work()]
    seen += [sorted(re.sub("[0-9a-f.-]{8,}", "…", outcome.target) for outcome in outcomes)]
    seen += [[str(outcome.error) for outcome in outcomes if not outcome.ok], stand_in.totals()]
    return seen


@dataclass
class FirstTime(Fault):
    """A request fails in all these ways before it is served: the first one of its kind, or `every` one."""

    ways: tuple[Json, ...] = ()
    every: bool = True

    def applies(self, request: Request) -> bool:
        if request.method != self.method or not self._path.search(request.target):
            return False
        way, self.seen = self.seen, self.seen + 1
        if self.every:
            way %= len(self.ways) + 1
        if way >= len(self.ways):
            return False
        self.used += 1
        self.status, self.drop = self.ways[way].get("status", 0), self.ways[way].get("drop", "")
        return True


def pattern(call: str) -> tuple[str, str]:
    """Method and path of a recorded call."""
    method, path = call.split(" ")
    return method, "^" + re.escape(path).replace(r"\{id\}", "[0-9a-f-]{32,36}") + r"(\?|$)"


@dataclass
class Lives:
    """Courses, each in a cloud of its own."""

    monkeypatch: pytest.MonkeyPatch
    folder: Path

    def live(
        self,
        prepare: Callable[[OwnCloud], None] = lambda stand_in: None,
        between: Callable[[OwnCloud], None] = lambda stand_in: None,
        **top: Any,
    ) -> tuple[list[Any], OwnCloud]:
        with OwnCloud() as stand_in, self.monkeypatch.context() as patched:
            quicker(patched)
            file = stand_in.clouds_yaml(self.folder)
            clouds = json.loads(file.read_text())
            clouds["clouds"]["course"] |= top
            file.write_text(json.dumps(clouds))
            prepare(stand_in)
            testbed = CloudTestbed(patched, stand_in, Time())
            try:
                seen = life(testbed, lambda: between(stand_in))
            finally:
                testbed.close()
                shutil.rmtree(testbed.course.folder, ignore_errors=True)
        assert stand_in.violations == []
        return seen, stand_in


@pytest.fixture
def lives(loopback: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Lives:
    only_these(monkeypatch, tmp_path / "clouds.yaml")
    return Lives(monkeypatch, tmp_path)


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Any], list[str]]:
    """The result of a course without failures, and each kind of call that it makes."""
    folder = tmp_path_factory.mktemp("record")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("CLOUDSCALE_HOME", str(folder))
        only_these(patched, folder / "clouds.yaml")
        seen, stand_in = Lives(patched, folder).live()
    return seen, sorted(stand_in.counts)


def test_a_course_makes_every_kind_of_request(record: tuple[list[Any], list[str]]) -> None:
    """Or the tests below would miss some requests."""
    _, calls = record
    kinds = (
        "servers",
        "ports",
        "floatingips",
        "security-groups",
        "security-group-rules",
        "os-server-groups",
        "volumes",
        "os-volume_attachments",
    )
    for kind in kinds:
        for method in ("POST", *(["DELETE"] if kind != "os-volume_attachments" else [])):
            assert [call for call in calls if call.startswith(method) and f"/{kind}" in call], (method, kind)
    assert {call.split("/")[1] for call in calls} == {"identity", "compute", "image", "network", "volume"}
    assert len(calls) > 40


def test_a_course_leaves_nothing_of_its_own_and_all_that_is_others(record: tuple[list[Any], list[str]]) -> None:
    *_, failed, totals = record[0]
    assert failed == []
    assert totals == {
        "servers": 0,
        "server groups": 0,
        "ports": 1,
        "floating IPs": 0,
        "security groups": 0,
        "volumes": 0,
    }


# as many statuses as fit into the patience for a console; other tests have all of them
WAYS: dict[str, tuple[Json, ...]] = {
    "in several ways": (STATUSES["429"], STATUSES["500"], STATUSES["503"], DROPS["dropped before it"]),
    "by a gateway": (STATUSES["502"], STATUSES["504"]),
    "after it was carried out": (DROPS["dropped after it"],),
}


@pytest.mark.parametrize("ways", WAYS.values(), ids=WAYS)
def test_every_request_may_go_wrong_at_first(
    lives: Lives, record: tuple[list[Any], list[str]], ways: tuple[Json, ...]
) -> None:
    expected, calls = record
    faults = [
        # the patience for a login covers two requests
        FirstTime(
            *pattern(call),
            **ways[0],
            ways=ways[:1] if "/identity/" in call else ways,
            every=len(ways) == 1 and call not in VERSIONS,
        )
        for call in calls
    ]
    assert set(calls) > VERSIONS
    seen, _ = lives.live(lambda stand_in: stand_in.faults.extend(faults))
    assert seen == expected
    assert [call for call, fault in zip(calls, faults, strict=True) if not fault.used] == []


def test_answers_may_come_too_late_and_tokens_run_out_in_between(
    lives: Lives, record: tuple[list[Any], list[str]]
) -> None:
    expected, calls = record
    # a login is asked for within another request's time; of what is only read, all is read in the same way
    read = ("GET /compute/v2.1/servers/detail", "GET /network/v2.0/ports")
    late = [call for call in calls if call in read or not call.startswith(("GET", "POST /identity/"))]
    faults = [Fault(*pattern(call), seconds=60) for call in late]
    seen, stand_in = lives.live(
        lambda stand_in: stand_in.faults.extend(faults),
        between=lambda stand_in: stand_in.identity.expire_all(),
        api_timeout=0.2,
    )
    assert seen == expected
    assert {fault.used for fault in faults} == {1}
    assert len(faults) > 20 and {*read} < {*late}
    assert stand_in.count("POST", "/auth/tokens$") > 5


def _has(fault: Fault, stand_in: OwnCloud) -> None:
    stand_in.faults.append(fault)


if os.environ.get("HYPOTHESIS_PROFILE") == "search":  # it takes minutes

    @pytest.mark.parametrize("kind", STATUSES | DROPS)
    def test_each_fault_may_befall_each_kind_of_request_alone(
        lives: Lives, record: tuple[list[Any], list[str]], subtests: pytest.Subtests, kind: str
    ) -> None:
        expected, calls = record
        for call in calls:
            fault = Fault(*pattern(call), **(STATUSES | DROPS)[kind])
            with subtests.test(call=call):
                seen, _ = lives.live(partial(_has, fault))
                assert seen == expected
                assert fault.used
