from __future__ import annotations

import contextlib
import getpass
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloudscale import jupyter, ssh, workflow
from cloudscale.cluster import Session
from cloudscale.errors import CapacityError, CloudscaleError, ConnectionFailed, RequestError, RosterError
from cloudscale.model import CommandResult, Machine, Outcome
from cloudscale.plan import GIB
from cloudscale.progress import Advance
from cloudscale.report import Report
from cloudscale.settings import Common, Launch, Remote, read_flags, read_settings
from tests.unit.fake_api import FakeApi, Json, api_error
from tests.unit.fakes import FakeDriver

IMAGE = "quay.io/jupyter/lab:1"
ANN, BOB, CID = "1;Ann;Lee;ann@example.org\n", "2;Bob;Ray\n", "3;Cid;Kim\n"


class Said:
    """A progress that remembers."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    @contextlib.contextmanager
    def bar(self, what: str, total: int) -> Iterator[Advance]:
        yield lambda done, of: None


class Class:
    """A course `bio` with Ann and Bob, on one fake machine whose servers answer at once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        self.api = FakeApi(in_swarm=False)
        self.api.registry[IMAGE] = {"Id": "sha256:11", "RepoDigests": ["quay.io/jupyter/lab@sha256:aa"]}
        self.driver = FakeDriver(self.api)
        self.roster = tmp_path / "class.csv"
        self.roster.write_text(ANN + BOB)
        self.said = Said()
        self.questions: list[str] = []
        self.agrees = True
        self.mute: set[int] = set()
        self.course = "bio"
        monkeypatch.setattr(workflow, "load_driver", self.driver)
        monkeypatch.setattr(jupyter, "answers", lambda host, port: port in self.api.open_ports - self.mute)

    def session(self, **common: Any) -> Session:
        settings = read_settings(
            {"driver": "local", "course": self.course, "image": IMAGE, "students": str(self.roster)}
        )
        self.said.lines.clear()
        self.api.changes.clear()
        return Session(settings, read_flags(Common, **{"format": "json", **common}), self.said, self._ask)

    def _ask(self, question: str) -> None:
        self.questions.append(question)
        if not self.agrees:
            raise RequestError("Nothing was removed.")

    def launch(self, *, common: Json | None = None, **flags: Any) -> Report:
        return workflow.themachine(self.session(**(common or {})), read_flags(Launch, **flags))

    def rows(self, report: Report) -> list[Json]:
        rows: list[Json] = json.loads(report.text)
        return rows

    @property
    def changes(self) -> list[str]:
        """What was changed, without what it was changed to: `create service`, …"""
        return [" ".join(change.split()[:2]) for change in self.api.changes]


@pytest.fixture
def bio(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Class:
    return Class(monkeypatch, tmp_path)


# --- themachine ------------------------------------------------------------------------------


def test_every_student_gets_a_seat_that_answers(bio: Class) -> None:
    report = bio.launch()
    ann, bob = bio.rows(report)
    assert report.problems == ()
    assert ann == {
        "student": "Ann Lee",
        "email": "ann@example.org",
        "url": "http://192.0.2.1:4321",
        "host": "192.0.2.1",
        "port": 4321,
        "password": ann["password"],
        "node": "m1",
        "state": "ready",
    }
    assert (bob["student"], bob["port"], bob["state"]) == ("Bob Ray", 4322, "ready")
    assert len({ann["password"], bob["password"]}) == 2


def test_the_image_is_there_before_any_seat_starts(bio: Class) -> None:
    bio.launch()
    assert bio.changes.index(f"pull {IMAGE}") < bio.changes.index("create service")


def test_a_second_run_changes_nothing_and_says_the_same(bio: Class) -> None:
    first = bio.launch()
    second = bio.launch()
    assert second == first
    assert bio.changes == []
    assert "nothing was changed" in bio.said.lines[-1]


def test_who_stays_keeps_address_and_password_when_others_come_and_go(bio: Class) -> None:
    bio.roster.write_text(BOB)
    (before,) = bio.rows(bio.launch())
    bio.roster.write_text(CID + BOB + ANN)
    rows = bio.rows(bio.launch())
    assert [row["student"] for row in rows] == ["Cid Kim", "Bob Ray", "Ann Lee"]
    assert rows[1] == before


def test_who_left_keeps_the_seat_unless_it_is_pruned(bio: Class) -> None:
    bio.launch()
    bio.roster.write_text(BOB)
    assert [row["student"] for row in bio.rows(bio.launch())] == ["Bob Ray"]
    assert any("Ann Lee" in line and "--prune" in line for line in bio.said.lines)
    assert bio.changes == []
    bio.launch(prune=True)
    assert bio.changes == ["remove service", "remove secret"]
    assert len(bio.api.volumes_) == 2  # the work of who left stays


def test_a_place_is_given_back_after_the_seats_were_cleared(bio: Class) -> None:
    first = bio.rows(bio.launch())
    workflow.containers_reset(bio.session(), with_volumes=False)
    bio.roster.write_text(CID + BOB + ANN)
    again = {row["student"]: row for row in bio.rows(bio.launch())}
    assert [again["Ann Lee"], again["Bob Ray"]] == first


def test_only_those_who_are_chosen_are_seated(bio: Class) -> None:
    assert [row["student"] for row in bio.rows(bio.launch(common={"only": "Bob Ray"}))] == ["Bob Ray"]
    assert bio.changes.count("create service") == 1
    assert [row["student"] for row in bio.rows(bio.launch(common={"skip": "2"}))] == ["Ann Lee"]


def test_a_plan_makes_nothing(bio: Class, tmp_path: Path) -> None:
    plan = json.loads(bio.launch(plan=True).text)
    assert [seat["student"] for seat in plan["seats"]] == ["Ann Lee", "Bob Ray"]
    assert plan["machines"][0]["seats"] == 2
    assert bio.api.changes == []
    assert list(tmp_path.iterdir()) == [bio.roster]


def test_a_plan_warns_of_what_the_run_would_warn_of(bio: Class) -> None:
    bio.driver.held = frozenset({4321})
    bio.launch(plan=True)
    assert any(line.startswith("Warning: Port 4321") for line in bio.said.lines)


def test_onlycreate_makes_the_swarm_and_no_seats_and_needs_no_students(bio: Class) -> None:
    bio.roster.unlink()
    (row,) = bio.rows(bio.launch(onlycreate=True))
    assert (row["machine"], row["seats"]) == ("m1", 0)
    assert bio.api.manages
    assert bio.api.services_ == {}
    assert f"pull {IMAGE}" in bio.api.changes


def test_onlycreate_can_be_for_chosen_machines(bio: Class) -> None:
    (row,) = bio.rows(bio.launch(onlycreate=True, common={"only": "m1"}))
    assert row["machine"] == "m1"


def test_ports_that_something_listens_on_are_passed_over_on_every_run(bio: Class) -> None:
    bio.driver.held = frozenset({4321, 4322})
    assert [row["port"] for row in bio.rows(bio.launch())] == [4323, 4324]
    assert any(line.startswith("Warning: Port 4321") for line in bio.said.lines)
    bio.driver.held = frozenset({4321, 4322, 4323, 4324})  # the seats themselves listen now
    assert [row["port"] for row in bio.rows(bio.launch())] == [4323, 4324]


def test_the_port_range_and_the_environment_are_those_of_the_flags(bio: Class) -> None:
    rows = bio.rows(bio.launch(start="5000", end="5001", port="80", env=["TZ=Europe/Madrid"]))
    assert [row["port"] for row in rows] == [5000, 5001]
    for service in bio.api.services_.values():
        assert service["Spec"]["EndpointSpec"]["Ports"][0]["TargetPort"] == 80
        assert "TZ=Europe/Madrid" in service["Spec"]["TaskTemplate"]["ContainerSpec"]["Env"]


def test_one_seat_that_does_not_come_up_is_named_and_the_others_are_ready(bio: Class) -> None:
    bio.mute = {4321}
    report = bio.launch(common={"timeout": 0.01})
    assert [row["state"] for row in bio.rows(report)] == ["starting", "ready"]
    (problem,) = report.problems
    assert problem.startswith("Ann Lee")


def test_one_seat_that_can_not_be_made_is_named_and_the_others_are_ready(
    bio: Class, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = bio.api.create_service

    def not_for_ann(**spec: Any) -> object:
        if spec["labels"]["cloudscale.student"] == "1":
            raise api_error(500, "rpc error: context deadline exceeded")
        return create(**spec)

    monkeypatch.setattr(bio.api, "create_service", not_for_ann)
    report = bio.launch()
    assert [row["state"] for row in bio.rows(report)] == ["failed", "ready"]
    (problem,) = report.problems
    assert problem.startswith("Ann Lee")
    assert "deadline exceeded" in problem


def test_the_result_is_also_written_for_the_owners_eyes_only(bio: Class, tmp_path: Path) -> None:
    report = bio.launch(output=tmp_path / "out.json")
    assert (tmp_path / "out.json").read_text() == report.text + "\n"
    assert (tmp_path / "out.json").stat().st_mode & 0o777 == 0o600


def test_a_wrong_request_changes_nothing(bio: Class, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def wrong(error: type[CloudscaleError], **flags: Any) -> None:
        with pytest.raises(error):
            bio.launch(**flags)
        assert bio.api.changes == []

    wrong(RequestError, output=tmp_path / "missing" / "out.csv")
    wrong(RequestError, nodes="3")
    wrong(CapacityError, start="4321", end="4321")
    bio.api.memory = GIB // 2
    wrong(CapacityError)
    bio.roster.write_text("1;Ann;Lee\n1;Bob;Ray\n")
    wrong(RosterError)


@pytest.mark.parametrize("flag", ["only", "skip"])
def test_a_choice_of_nobody_is_a_wrong_request_and_changes_nothing(bio: Class, flag: str) -> None:
    with pytest.raises(RequestError, match="Biff"):
        bio.launch(common={flag: "Biff"})
    assert bio.api.changes == []


def test_seats_of_another_key_are_not_touched(bio: Class, tmp_path: Path) -> None:
    bio.launch()
    (tmp_path / "bio" / "local" / "key").write_text("ab" * 32)
    with pytest.raises(RequestError, match="another key"):
        bio.launch()
    assert bio.api.changes == []


def test_a_second_run_at_once_is_refused(bio: Class) -> None:
    with bio.session().course.locked(), pytest.raises(CloudscaleError, match="Another run"):
        bio.launch()


def test_no_password_is_said_aloud(bio: Class) -> None:
    rows = bio.rows(bio.launch())
    assert not any(row["password"] in line for row in rows for line in bio.said.lines)


@pytest.mark.parametrize(
    ("host", "url"), [("192.0.2.1", "http://192.0.2.1:4321"), ("2001:db8::1", "http://[2001:db8::1]:4321")]
)
def test_an_address_can_be_clicked(bio: Class, host: str, url: str) -> None:
    engine = bio.driver.engine
    bio.driver.engine = type(engine)(Machine("m1", host), engine.client)
    assert bio.rows(bio.launch())[0]["url"] == url


# --- commands --------------------------------------------------------------------------------


def test_a_command_runs_on_every_machine(bio: Class) -> None:
    report = workflow.com_node(bio.session(timeout=7), "uptime")
    assert bio.rows(report) == [
        {"target": "m1", "exit_code": 0, "stdout": "m1: uptime within 7\n", "stderr": ""},
    ]
    assert report.problems == ()


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

    monkeypatch.setattr("cloudscale.containers.execute", execute)
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


def test_a_course_without_seats_is_told(bio: Class) -> None:
    assert bio.rows(workflow.com_containers(bio.session(), "ls")) == []
    assert any("no seats" in line for line in bio.said.lines)


def test_what_could_not_be_done_is_named_once() -> None:
    outcomes = [Outcome[CommandResult]("host", error=ConnectionFailed("host: no answer in 5 s."))]
    assert workflow.command_report(outcomes, "json").problems == ("host: no answer in 5 s.",)


# --- remote_com ------------------------------------------------------------------------------


class Hosts:
    """Hosts over SSH: `closed` ones let nobody in."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.closed: set[str] = set()
        self.targets: list[ssh.Target] = []
        self.known_hosts: set[Path] = set()
        monkeypatch.setattr(ssh, "connect", self._connect)
        monkeypatch.setattr(ssh, "run", self._run)

    @contextlib.contextmanager
    def _connect(self, target: ssh.Target, *, timeout: float, known_hosts: Path, new_key: object) -> Iterator[str]:
        self.targets.append(target)
        self.known_hosts.add(known_hosts)
        if target.host in self.closed:
            raise ConnectionFailed(f"{target.name}: no answer in {timeout:g} s.")
        yield target.name

    def _run(self, client: str, command: str, *, folder: str | None, timeout: float) -> CommandResult:
        return CommandResult(0, f"{client}: {command} in {folder} within {timeout:g}\n", "")


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


def test_a_dash_for_a_password_asks_for_it(bio: Class, hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(getpass, "getpass", lambda prompt: "typed")
    monkeypatch.setattr(workflow, "on_terminal", lambda: True)
    workflow.remote_com(bio.session(), remote(hosts="a", pwd="-"))
    workflow.remote_com(bio.session(), remote(hosts="a", pwd="given"))
    workflow.remote_com(bio.session(), remote(hosts="a"))
    assert [target.password for target in hosts.targets] == ["typed", "given", None]


# --- status ----------------------------------------------------------------------------------


def test_status_tells_each_seats_state_and_no_password(bio: Class) -> None:
    launched = bio.rows(bio.launch())
    bio.mute = {4322}
    report = workflow.status(bio.session())
    rows = bio.rows(report)
    assert [row["state"] for row in rows] == ["ready", "failed"]
    assert rows[0] == {key: value for key, value in launched[0].items() if key != "password"}
    (problem,) = report.problems
    assert problem.startswith("Bob Ray")
    assert bio.api.changes == []


def test_status_as_a_table_shows_the_machines_too(bio: Class) -> None:
    bio.launch()
    text = workflow.status(bio.session(format="table")).text
    assert "swarm manager" in text
    assert text.index("swarm manager") < text.index("Ann Lee")


def test_status_of_nothing_is_an_empty_list(bio: Class) -> None:
    report = workflow.status(bio.session())
    assert (bio.rows(report), report.problems) == ([], ())
    assert "in no swarm" in workflow.status(bio.session(format="table")).text


# --- removing --------------------------------------------------------------------------------


def test_a_reset_of_the_seats_keeps_machine_and_work(bio: Class) -> None:
    bio.launch()
    report = workflow.containers_reset(bio.session(), with_volumes=False)
    assert report.problems == ()
    assert bio.api.services_ == bio.api.secrets_ == {}
    assert len(bio.api.volumes_) == 2
    assert bio.api.manages
    assert "2 seats" in bio.questions[0]


def test_a_reset_with_volumes_takes_the_work_too(bio: Class) -> None:
    bio.launch()
    workflow.containers_reset(bio.session(), with_volumes=True)
    assert bio.api.volumes_ == {}
    assert "2 volumes" in bio.questions[0]


def test_a_reset_of_one_seat_touches_no_other(bio: Class) -> None:
    bio.launch()
    workflow.containers_reset(bio.session(only="1"), with_volumes=True)
    assert [row["student"] for row in bio.rows(workflow.status(bio.session()))] == ["Bob Ray"]
    (volume,) = bio.api.volumes_.values()
    assert volume["Labels"]["cloudscale.student"] == "2"


def test_who_does_not_agree_loses_nothing(bio: Class) -> None:
    bio.launch()
    bio.agrees = False
    resets: list[Callable[[], Report]] = [
        lambda: workflow.containers_reset(bio.session(), with_volumes=True),
        lambda: workflow.driver_reset(bio.session()),
        lambda: workflow.machine_rm(bio.session(), "m1"),
    ]
    for reset in resets:
        with pytest.raises(RequestError, match="Nothing was removed"):
            reset()
        assert bio.api.changes == bio.driver.done == []
    assert len(bio.questions) == 3


def test_where_there_is_nothing_nobody_is_asked(bio: Class) -> None:
    assert workflow.containers_reset(bio.session(), with_volumes=True).text == "[]"
    assert any("nothing to remove" in line for line in bio.said.lines)
    assert bio.questions == []


def test_a_reset_of_the_driver_leaves_nothing_of_the_course(bio: Class, tmp_path: Path) -> None:
    bio.launch()
    report = workflow.driver_reset(bio.session())
    assert report.problems == ()
    assert not bio.api.manages
    assert bio.api.volumes_ == bio.api.services_ == bio.api.secrets_ == {}
    assert list(tmp_path.iterdir()) == [bio.roster]
    assert workflow.driver_reset(bio.session()).text == "[]"
    assert any("nothing of the course 'bio' is left" in line for line in bio.said.lines)


def test_a_reset_of_the_driver_touches_nothing_of_another_course(bio: Class, tmp_path: Path) -> None:
    bio.launch()
    bio.course = "geo"
    bio.roster.write_text("1;Ann;Lee\n")
    geo = bio.launch(start="5000")
    bio.course = "bio"
    workflow.driver_reset(bio.session())
    bio.course = "geo"
    assert bio.launch(start="5000") == geo
    assert bio.changes == []
    assert len(bio.api.volumes_) == 1


def test_a_reset_of_the_driver_for_one_seat_keeps_swarm_and_key(bio: Class, tmp_path: Path) -> None:
    bio.launch()
    workflow.driver_reset(bio.session(only="1"))
    assert bio.api.manages
    assert (tmp_path / "bio" / "local" / "key").exists()
    assert len(bio.api.services_) == len(bio.api.volumes_) == 1


def test_what_could_not_be_removed_is_named_and_the_key_stays(
    bio: Class, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bio.launch()
    bio.api.keeps_containers = True
    monkeypatch.setattr("cloudscale.containers.poll", lambda step, timeout: step())
    report = workflow.driver_reset(bio.session())
    assert any("still on m1" in problem for problem in report.problems)
    assert any("in use" in problem for problem in report.problems)
    assert (tmp_path / "bio" / "local" / "key").exists()
    assert bio.api.manages


# --- machines and images ---------------------------------------------------------------------


def test_machines_are_added_and_removed_by_the_driver(bio: Class) -> None:
    assert workflow.machine_new(bio.session(), "m2").text == "added m2"
    assert workflow.machine_rm(bio.session(), "m2").text == "removed m2"
    assert bio.questions == ["The machine m2 will be removed. Go on?"]


def test_an_image_is_built_on_this_computers_engine(bio: Class, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workflow, "from_environment", lambda timeout: f"client of {timeout > 600}")
    monkeypatch.setattr("cloudscale.recipes.build", lambda engine, name, say: f"{name} by {engine.client}")
    assert workflow.image_build(bio.session(), "pydata").text == "pydata by client of True"
