"""A class with a gateway, from end to end on fake machines."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest

from cloudscale.cli.report import Report
from cloudscale.cluster.state import Host
from cloudscale.course.settings import SeatSettings
from cloudscale.errors import CloudscaleError, RequestError
from cloudscale.gateway import certificates, program
from cloudscale.gateway.setup import GatewaySetup
from cloudscale.model import Machine
from cloudscale.workflow import gateway, reset, status
from tests.unit.api_schema import Json
from tests.unit.classroom import Class, messages

CADDY: Json = {"Id": "sha256:cadd", "RepoDigests": ["caddy@sha256:cadd"]}


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Class:
    return _class(monkeypatch, tmp_path)


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Class:
    return _class(monkeypatch, tmp_path, machines=2)


def _class(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, **machines: int) -> Class:
    made = Class(monkeypatch, tmp_path, **machines)
    made.registry[program.IMAGE] = CADDY
    made.gateway = {"tls": "internal"}
    monkeypatch.setattr(certificates, "shown", lambda address, entrance: object())
    monkeypatch.setattr(gateway, "addresses_of", lambda name: {name} if name[0].isdigit() else set())
    return made


def urls(lab: Class, report: Report) -> dict[str, str]:
    return {row["student"]: row["url"] for row in lab.rows(report)}


def gateways(lab: Class) -> list[Json]:
    return [
        each for each in lab.api.swarm.services.values() if each["Spec"]["Labels"].get("cloudscale.role") == "gateway"
    ]


def config(lab: Class, name: str = "caddy") -> Any:
    (files,) = [files for api in lab.apis for volume, files in api.files.items() if volume in api.volumes_]
    return json.loads(files[f"{name}.json"])


def is_said(lab: Class, text: str) -> bool:
    return any(text in line for line in lab.said.lines)


# --- up and down -----------------------------------------------------------------------------


def test_all_seats_are_at_its_address(lab: Class) -> None:
    report = lab.launch(gateway="path")
    assert not report.problems
    host = lab.rows(report)[0]["host"]
    assert {f"{urlsplit(url).scheme}://{urlsplit(url).netloc}" for url in urls(lab, report).values()} == {
        f"https://{host}"
    }
    assert len(set(urls(lab, report).values())) == 2
    assert is_said(lab, "one HTTPS address for all seats")
    assert is_said(lab, "web-ca.pem")  # who signed, and what to trust
    (service,) = gateways(lab)
    assert service["Spec"]["TaskTemplate"]["Placement"]["Constraints"] == [f"node.id=={lab.api.node_id}"]
    assert {row["state"] for row in lab.rows(status.status(lab.session()))} == {"ready"}


def test_again_nothing_changes_and_it_need_not_be_asked_for(lab: Class) -> None:
    first = lab.launch(gateway="path")
    again = lab.launch()
    assert urls(lab, again) == urls(lab, first)
    assert lab.changes == []
    assert is_said(lab, "Gateway: unchanged") and not is_said(lab, "No seat restarts")
    assert is_said(lab, "nothing was changed")


def test_a_new_gateway_is_a_change_though_all_seats_are_as_they_were(lab: Class) -> None:
    lab.launch()
    lab.launch(gateway="path")
    assert is_said(lab, "2 unchanged") and is_said(lab, "Gateway: created") and not is_said(lab, "nothing was changed")


def test_it_comes_and_goes_without_a_restart_of_a_seat(lab: Class) -> None:
    before = urls(lab, lab.launch())
    lab.launch(gateway="path")
    assert "update service" not in lab.changes
    after = lab.launch(gateway="none")
    assert urls(lab, after) == before
    assert is_said(lab, "each seat is reached at its machine's address again")
    assert lab.changes == ["remove service", "remove volume"]
    assert gateways(lab) == []


def test_the_configuration_takes_it_away_again_only_in_so_many_words(lab: Class) -> None:
    lab.gateway = {"mode": "path", "tls": "internal"}
    lab.launch()
    lab.gateway = {"tls": "internal"}
    lab.launch()
    assert len(gateways(lab)) == 1
    lab.gateway = {"mode": "none"}
    lab.launch()
    assert gateways(lab) == []


def test_a_seat_that_comes_or_goes_changes_no_container(lab: Class) -> None:
    lab.launch(gateway="path")
    (before,) = gateways(lab)
    lab.enrol(4)
    lab.launch()
    assert gateways(lab) == [before]
    assert len(config(lab, "login")["seats"]) == 4
    lab.enrol(2)
    lab.launch(prune=True)
    assert gateways(lab) == [before]
    assert len(config(lab, "login")["seats"]) == 2
    assert "HUP" in lab.api.signals


def test_a_name_for_each_seat(lab: Class) -> None:
    lab.gateway = {"domain": "class.example.org", "tls": "internal"}
    lab.launch(gateway="path")
    report = lab.launch(gateway="subdomain")
    hosts = {urlsplit(url).netloc for url in urls(lab, report).values()}
    assert len(hosts) == 2
    assert all(host.endswith(".class.example.org") and "ann" not in host and "bob" not in host for host in hosts)
    assert is_said(lab, "from path to subdomain. No seat restarts")
    assert "remove service" not in lab.changes


def test_seats_of_all_machines_are_reached_through_the_first(two: Class) -> None:
    two.enrol(8)
    report = two.launch(gateway="path")
    assert len(set(two.nodes_of(report))) == 2
    assert len({urlsplit(url).netloc for url in urls(two, report).values()}) == 1
    ways = config(two)["apps"]["http"]["servers"]["gateway"]["routes"][0]["handle"][0]["mappings"]
    assert {way["outputs"][0].rpartition(":")[0] for way in ways} == {api.address for api in two.apis}


def test_machines_that_get_an_address_of_their_own_keep_what_their_seats_may_reach() -> None:
    seat, prepared = SeatSettings(reach=["192.0.2.7:5432"]), []
    cluster: Any = SimpleNamespace(
        gateway=None,
        hosts=[Host(Machine("m1", ""))],
        maker=SimpleNamespace(settle_addresses=lambda: {"m1": "192.0.2.4"}),
        driver=SimpleNamespace(prepare=lambda *given: prepared.append(given)),
        with_gateway=lambda gateway: cluster,
        with_hosts=lambda hosts: hosts,
    )
    session: Any = SimpleNamespace(settings=SimpleNamespace(seat=seat))
    brought: Any = gateway.bring_up(cluster, gateway.Wish("none", spreads=True), [], session)
    (host,) = brought
    assert prepared == [(Machine("m1", "192.0.2.4"), seat)] and host.machine.address == "192.0.2.4"


# --- resets ----------------------------------------------------------------------------------


def test_it_leads_only_to_the_seats_that_are_left_and_goes_with_the_last(lab: Class) -> None:
    lab.launch(gateway="path")
    reset.containers_reset(lab.session(only=("1",)), with_volumes=False)
    assert [seat["path"] for seat in config(lab, "login")["seats"]] and len(config(lab, "login")["seats"]) == 1
    done = reset.containers_reset(lab.session(), with_volumes=False)
    assert not done.problems
    assert gateways(lab) == []
    assert not any("gateway" in name for name in lab.api.volumes_)


def test_a_reset_of_the_course_leaves_nothing_of_it(lab: Class) -> None:
    lab.launch(gateway="path")
    done = reset.driver_reset(lab.session())
    assert not done.problems
    assert lab.api.volumes_ == {} and lab.api.containers_ == []


def test_a_gateway_that_fails_to_follow_is_reported_with_the_reset(lab: Class) -> None:
    lab.launch(gateway="path")
    lab.api.gateway_error = "no such module"
    done = reset.containers_reset(lab.session(only=("1",)), with_volumes=False)
    assert "no such module" in messages(done)
    assert len(lab.api.open_ports) == 2 + 1  # Bob's and the gateway's


# --- what can't be ---------------------------------------------------------------------------


def test_a_name_for_each_seat_needs_a_domain(lab: Class) -> None:
    with pytest.raises(RequestError, match="domain"):
        lab.launch(gateway="subdomain")
    assert lab.changes == []


def test_a_port_that_is_taken_is_named_before_anything_is_made(lab: Class) -> None:
    lab.driver.held = frozenset({443})
    with pytest.raises(RequestError, match="443") as refused:
        lab.launch(gateway="path")
    assert "gateway.port" in str(refused.value)
    assert lab.changes == []


def test_a_configuration_that_it_refuses_is_an_error_with_its_words(lab: Class) -> None:
    lab.api.gateway_error = "listen tcp :443: bind: address already in use"
    with pytest.raises(CloudscaleError, match=r"can't listen: listen tcp :443") as refused:
        lab.launch(gateway="path")
    assert "gateway.port" in (refused.value.remedy or "")


def test_one_that_does_not_run_is_reported_with_the_status(lab: Class) -> None:
    lab.launch(gateway="path")
    assert not status.status(lab.session()).problems
    (service,) = gateways(lab)
    for task in lab.api.swarm.tasks:
        if task["ServiceID"] == service["ID"]:
            task["Status"]["State"] = "failed"
    assert "The gateway on m1 does not run" in messages(status.status(lab.session()))


def test_the_port_for_http_is_needed_too(lab: Class) -> None:
    lab.driver.held = frozenset({80})
    with pytest.raises(RequestError, match="Port 80"):
        lab.launch(gateway="path")
    lab.gateway = {"tls": "internal", "port": 8443}
    assert not lab.launch(gateway="path").problems


def test_the_table_is_shown_whatever_happens_after_the_seats_are_ready(
    lab: Class, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: object) -> None:
        raise CloudscaleError("The cloud is away.")

    monkeypatch.setattr(GatewaySetup, "settle", fail)
    report = lab.launch(gateway="path")
    assert {row["state"] for row in lab.rows(report)} == {"ready"}
    assert "The cloud is away." in messages(report)


def test_what_nobody_would_sign_is_refused_before_anything_is_made(lab: Class) -> None:
    lab.gateway = {"tls": "acme", "domain": "10.0.0.7"}
    with pytest.raises(RequestError, match="no address of the internet"):
        lab.launch(gateway="path")
    assert lab.changes == []


def test_auto_says_no_change_where_there_is_none(lab: Class) -> None:
    lab.launch(gateway="auto")
    assert is_said(lab, "one HTTPS address for all seats")
    lab.launch(gateway="auto")
    assert not is_said(lab, "from path") and is_said(lab, "no wildcard name leads to it")


def test_one_that_a_reset_left_behind_goes_with_the_next(lab: Class) -> None:
    lab.launch(gateway="path")
    (gateway_,) = gateways(lab)
    for service in [each for each in lab.api.swarm.services.values() if each is not gateway_]:
        lab.api.remove_service(service["ID"])
    done = reset.containers_reset(lab.session(), with_volumes=False)
    assert not done.problems and is_said(lab, "nothing to remove")
    assert gateways(lab) == []
    assert lab.questions == []
