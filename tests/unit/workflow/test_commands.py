from __future__ import annotations

import contextlib
import getpass
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloudscale.cli import report
from cloudscale.cluster.look import look
from cloudscale.course.flags import Remote, read_flags
from cloudscale.errors import ConnectionFailed, RequestError
from cloudscale.hosts import ssh
from cloudscale.hosts.known_hosts import KnownHosts
from cloudscale.hosts.target import Target
from cloudscale.model import CommandResult, Machine, Outcome, Outcomes
from cloudscale.workflow import commands as workflow
from tests.unit.classroom import Class

# --- commands --------------------------------------------------------------------------------


def test_a_command_runs_on_every_machine(bio: Class) -> None:
    report = workflow.com_node(bio.session(timeout=7), "uptime")
    assert bio.rows(report) == [
        {"target": "m1", "exit_code": 0, "stdout": "m1: uptime within 7\n", "stderr": ""},
    ]
    assert report.problems == ()


def test_a_command_that_no_machine_can_run_is_a_wrong_request(bio: Class, monkeypatch: pytest.MonkeyPatch) -> None:
    def elsewhere(machine: Machine, command: str, timeout: float) -> CommandResult:
        raise RequestError("DOCKER_HOST names an engine elsewhere.")

    monkeypatch.setattr(bio.driver, "run", elsewhere)
    with pytest.raises(RequestError, match="elsewhere"):
        workflow.com_node(bio.session(), "uptime")


def test_a_machine_that_is_not_there_is_a_wrong_request(bio: Class) -> None:
    with pytest.raises(RequestError, match="m2"):
        workflow.com_node(bio.session(only="m2"), "uptime")


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, float]]:
    """The commands that ran in containers; `false` fails."""
    commands: list[tuple[str, str, float]] = []

    def execute(engine: object, container: str, command: str, timeout: float) -> CommandResult:
        commands.append((container, command, timeout))
        return CommandResult(int(command == "false"), f"{command}\n", "")

    monkeypatch.setattr("cloudscale.seats.containers.execute", execute)
    return commands


def test_a_command_runs_in_every_seat(bio: Class, executed: list[tuple[str, str, float]]) -> None:
    bio.launch()
    rows = bio.rows(workflow.com_containers(bio.session(timeout=9), "pip list"))
    assert [row["stdout"] for row in rows] == ["pip list\n"] * 2
    assert {container for container, _, _ in executed} == {c["Id"] for c in bio.api.containers_}
    assert {timeout for _, _, timeout in executed} == {9}


@pytest.mark.usefixtures("executed")
def test_a_command_that_fails_somewhere_is_named_with_its_exit_code(bio: Class) -> None:
    bio.launch()
    report = workflow.com_containers(bio.session(only="1"), "false")
    (row,) = bio.rows(report)
    assert row["exit_code"] == 1
    assert report.problems == (f"{row['target']}: exit code 1",)


def test_a_seat_that_does_not_run_is_a_target_not_reached(bio: Class, executed: list[tuple[str, str, float]]) -> None:
    bio.launch()
    bio.api.containers_ = [c for c in bio.api.containers_ if c["Labels"]["cloudscale.student"] == "2"]
    report = workflow.com_containers(bio.session(), "ls")
    assert [row["exit_code"] for row in bio.rows(report)] == [255, 0]
    assert len(executed) == 1
    assert "does not run" in report.problems[0]


def test_a_course_without_seats_is_reported(bio: Class) -> None:
    assert bio.rows(workflow.com_containers(bio.session(), "ls")) == []
    assert any("no seats" in line for line in bio.said.lines)


def test_what_could_not_be_done_is_named_once() -> None:
    outcomes = Outcomes([Outcome[CommandResult]("host", error=ConnectionFailed("host: no answer in 5 s."))])
    assert report.command_report(outcomes, "json").problems == ("host: no answer in 5 s.",)


def test_a_command_runs_in_the_seats_of_every_machine(lab: Class, executed: list[tuple[str, str, float]]) -> None:
    lab.enrol(6)
    lab.launch()
    report = workflow.com_containers(lab.session(), "ls")
    assert report.problems == ()
    assert {container for container, _, _ in executed} == {c["Id"] for api in lab.apis for c in api.containers_}
    executed.clear()
    workflow.com_containers(lab.session(only="m2"), "ls")
    assert {container for container, _, _ in executed} == {c["Id"] for c in lab.apis[1].containers_}


def test_seats_of_a_lost_machine_are_targets_not_reached(lab: Class, executed: list[tuple[str, str, float]]) -> None:
    lab.enrol(6)
    lab.launch()
    lab.driver.lose("m1")
    report = workflow.com_containers(lab.session(), "ls")
    assert [row["exit_code"] for row in lab.rows(report)].count(255) == 2
    assert len(executed) == 4
    assert report.problems[0].startswith("m1: ")
    assert sum("machine is lost" in problem for problem in report.problems) == 2


def test_where_the_swarms_managers_are_lost_the_seats_that_run_are_reached(
    lab: Class, executed: list[tuple[str, str, float]]
) -> None:
    lab.enrol(6)
    lab.launch()
    names = {seat["Spec"]["Name"] for seat in lab.api.services_.values()}
    lab.driver.lose("m1", "m2")
    report = workflow.com_containers(lab.session(), "ls")
    assert len(executed) == 2
    assert {row["target"] for row in lab.rows(report)} < names
    assert [problem[:3] for problem in report.problems] == ["m1:", "m2:"]
    workflow.com_containers(lab.session(only="m3"), "ls")
    assert len(executed) == 4


def test_a_machine_that_goes_down_meanwhile_does_not_stop_the_others(
    lab: Class, executed: list[tuple[str, str, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.enrol(6)
    lab.launch()

    def look_and_lose(*given: Any) -> Any:
        cluster = look(*given)
        lab.driver.lose("m3")
        return cluster

    monkeypatch.setattr("cloudscale.cluster.look.look", look_and_lose)
    report = workflow.com_containers(lab.session(), "ls")
    assert len(executed) == 4
    assert any("m3" in problem for problem in report.problems)


def test_a_command_on_a_lost_machine_is_named_and_runs_on_the_others(lab: Class) -> None:
    lab.driver.lose("m2")
    report = workflow.com_node(lab.session(), "uptime")
    assert [row["exit_code"] for row in lab.rows(report)] == [0, 255, 0]
    assert report.problems == ("m2: no answer in 15 s.",)


# --- remote_com ------------------------------------------------------------------------------


class Hosts:
    """Hosts over SSH: `closed` ones let nobody in."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.closed: set[str] = set()
        self.targets: list[Target] = []
        self.known_hosts: set[Path] = set()
        monkeypatch.setattr(ssh, "connect", self._connect)

    @contextlib.contextmanager
    def _connect(self, target: Target, *, timeout: float, known: KnownHosts) -> Iterator[Login]:
        self.targets.append(target)
        self.known_hosts.add(known.path)
        if target.host in self.closed:
            raise ConnectionFailed(f"{target.name}: no answer in {timeout:g} s.")
        yield Login(target.name)


class Login:
    """A connection to one of the hosts."""

    def __init__(self, name: str) -> None:
        self._name = name

    def run(self, command: str, *, folder: str | None, timeout: float) -> CommandResult:
        return CommandResult(0, f"{self._name}: {command} in {folder} within {timeout:g}\n", "")


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch) -> Hosts:
    return Hosts(monkeypatch)


def remote(**flags: Any) -> Remote:
    return read_flags(Remote, **{"hosts": "a,ann@b:2222,c", "com": "ls", **flags})


def test_a_remote_command_runs_on_every_host_in_their_order(bio: Class, hosts: Hosts, tmp_path: Path) -> None:
    hosts.closed = {"a"}
    report = workflow.remote_com(bio.session(timeout=5), remote(path="/srv", user="root"))
    rows = bio.rows(report)
    assert [(row["target"], row["exit_code"]) for row in rows] == [("a", 255), ("b:2222", 0), ("c", 0)]
    assert rows[2]["stdout"] == "c: ls in /srv within 5\n"
    assert report.problems == ("a: no answer in 5 s.",)
    assert {target.host: target.user for target in hosts.targets} == {"a": "root", "b": "ann", "c": "root"}
    assert hosts.known_hosts == {tmp_path / "bio" / "known_hosts"}


def test_a_remote_command_has_five_seconds_unless_it_is_given_others(bio: Class, hosts: Hosts) -> None:
    assert "within 5\n" in bio.rows(workflow.remote_com(bio.session(), remote(hosts="a")))[0]["stdout"]
    assert "within 60\n" in bio.rows(workflow.remote_com(bio.session(timeout=60), remote(hosts="a")))[0]["stdout"]


def test_hosts_can_be_chosen_and_left_out(bio: Class, hosts: Hosts) -> None:
    assert [row["target"] for row in bio.rows(workflow.remote_com(bio.session(only="b"), remote()))] == ["b:2222"]
    assert [row["target"] for row in bio.rows(workflow.remote_com(bio.session(skip="b"), remote()))] == ["a", "c"]


def test_one_wrong_host_stops_all(bio: Class, hosts: Hosts) -> None:
    with pytest.raises(RequestError):
        workflow.remote_com(bio.session(), remote(hosts="a,b:http"))
    assert hosts.targets == []


def test_where_nobody_can_type_a_password_none_is_asked_for(
    bio: Class, hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workflow, "on_terminal", lambda: False)
    with pytest.raises(RequestError, match="there is no terminal"):
        workflow.remote_com(bio.session(), remote(hosts="a", pwd="-"))
    assert hosts.targets == []


def test_a_dash_for_a_password_asks_for_it(bio: Class, hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(getpass, "getpass", lambda prompt: "typed")
    monkeypatch.setattr(workflow, "on_terminal", lambda: True)
    workflow.remote_com(bio.session(), remote(hosts="a", pwd="-"))
    workflow.remote_com(bio.session(), remote(hosts="a", pwd="given"))
    workflow.remote_com(bio.session(), remote(hosts="a"))
    assert [target.password for target in hosts.targets] == ["typed", "given", None]
