from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence

import pytest

from cloudscale.course import naming
from cloudscale.errors import CloudscaleError
from cloudscale.seats import visit
from cloudscale.seats.visit import Door, Visit
from cloudscale.workflow import check
from tests.unit.classroom import Class

WELL = Visit("", 1.5, "")


class Visits:
    """In place of visits over the network: `made` by the number of the seat; else all is well."""

    def __init__(self) -> None:
        self.made: dict[int, Visit] = {}
        self.doors: list[Door] = []
        self.timeout = 0.0
        self.trust: ssl.SSLContext | None = None

    def __call__(
        self, doors: Sequence[Door], trust: ssl.SSLContext | None, timeout: float, advance: Callable[[int], None]
    ) -> list[Visit]:
        self.doors, self.trust, self.timeout = list(doors), trust, timeout
        advance(len(doors))
        return [self.made.get(number, WELL) for number in range(len(doors))]


@pytest.fixture
def visits(monkeypatch: pytest.MonkeyPatch) -> Visits:
    made = Visits()
    monkeypatch.setattr(visit, "visit_all", made)
    return made


def test_every_seat_has_a_row_and_nothing_is_changed(bio: Class, visits: Visits) -> None:
    launched = bio.rows(bio.launch())
    report = check.check(bio.session())
    assert report.problems == ()
    assert bio.rows(report) == [
        {"student": name, "url": row["url"], "state": "ok", "step": "", "seconds": 1.5, "cause": ""}
        for name, row in zip(("Ann Lee", "Bob Ray"), launched, strict=True)
    ]
    assert [(door.url, door.password) for door in visits.doors] == [(row["url"], row["password"]) for row in launched]
    assert bio.changes == []
    assert visits.timeout == check.VISIT_TIMEOUT
    assert visits.trust is None
    assert any("Check: 2 of 2 seats work" in line for line in bio.said.lines)


def test_a_failure_is_named_with_step_cause_and_remedy(bio: Class, visits: Visits) -> None:
    bio.launch()
    visits.made[1] = Visit("kernel", 3.0, "the kernel died")
    report = check.check(bio.session())
    assert [(row["state"], row["step"], row["cause"]) for row in bio.rows(report)] == [
        ("ok", "", ""),
        ("failed", "kernel", "the kernel died"),
    ]
    (problem,) = report.problems
    assert problem.startswith("Bob Ray: kernel: the kernel died\n") and "docker service logs bio-bob-ray" in problem


@pytest.mark.parametrize("step", ["open", "login", "kernel", "run", "save"])
def test_every_step_has_a_remedy(bio: Class, visits: Visits, step: str) -> None:
    bio.launch()
    visits.made[0] = Visit(step, 3.0, "no")
    (problem,) = check.check(bio.session()).problems
    assert problem.startswith(f"Ann Lee: {step}: no\n  ") and "{" not in problem


def test_where_no_server_is_there_the_cause_is_that_of_status(bio: Class, visits: Visits) -> None:
    bio.launch()
    bio.mute = {4322}
    visits.made[1] = Visit("open", 0.1, "it does not answer", is_absent=True)
    report = check.check(bio.session())
    assert bio.rows(report)[1]["cause"] == "Bob Ray (m1:4322): the server does not answer. Look at its log."
    assert report.problems == ("Bob Ray (m1:4322): the server does not answer. Look at its log.",)


def test_a_seat_that_answers_by_now_keeps_the_visits_own_cause(bio: Class, visits: Visits) -> None:
    bio.launch()
    visits.made[1] = Visit("open", 0.1, "it does not answer", is_absent=True)
    assert bio.rows(check.check(bio.session()))[1]["cause"] == "it does not answer"


@pytest.mark.parametrize(("flag", "names"), [("only", ["Bob Ray"]), ("skip", ["Ann Lee"])])
def test_only_those_who_are_chosen_are_visited(bio: Class, visits: Visits, flag: str, names: list[str]) -> None:
    bio.launch()
    report = check.check(bio.session(**{flag: "2"}))
    assert [row["student"] for row in bio.rows(report)] == names


def test_the_timeout_is_that_of_each_visit(bio: Class, visits: Visits) -> None:
    bio.launch()
    check.check(bio.session(timeout="7"))
    assert visits.timeout == 7


def test_of_a_course_without_seats_there_is_nothing_to_check(bio: Class, visits: Visits) -> None:
    report = check.check(bio.session())
    assert (bio.rows(report), report.problems, visits.doors) == ([], (), [])
    assert any("no seats to check" in line for line in bio.said.lines)


def test_a_lost_machine_is_named_with_its_seats(lab: Class, visits: Visits) -> None:
    lab.enrol(3)
    lab.launch()
    lab.driver.lose("m2")
    visits.made[1] = Visit("open", 0.1, "it does not answer", is_absent=True)
    report = check.check(lab.session())
    assert report.problems[0].startswith("m2: ")
    assert "its machine is lost" in report.problems[-1]


def test_without_a_quorum_the_seats_are_not_known_and_that_is_a_problem(lab: Class, visits: Visits) -> None:
    lab.enrol(3)
    lab.launch()
    lab.driver.lose("m1", "m2")
    report = check.check(lab.session())
    assert any("lost its quorum" in problem for problem in report.problems)
    assert visits.doors == []


def test_behind_a_gateway_the_password_is_typed_there(
    bio: Class, visits: Visits, monkeypatch: pytest.MonkeyPatch
) -> None:
    bio.launch()
    trusted = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    cluster_addresses = check._addresses

    def behind(cluster: object, session: object) -> object:
        from dataclasses import replace

        from cloudscale.seats.address import Entrance

        found = cluster_addresses(cluster, session)  # type: ignore[arg-type]
        return replace(found, entrance=Entrance("class.example.org"), gateway="192.0.2.1", names=b"n" * 32)

    monkeypatch.setattr(check, "_addresses", behind)
    monkeypatch.setattr(check, "browsers_trust", lambda settings, entrance, folder: trusted)
    monkeypatch.setattr(check, "own_stands_in", lambda settings, entrance, address: address == "192.0.2.1")
    check.check(bio.session())
    assert any(
        "every browser warns of the certificate of https://class.example.org/" in line for line in bio.said.lines
    )
    assert {door.home for door in visits.doors} == {"https://class.example.org/"}
    assert {door.login for door in visits.doors} == {"https://class.example.org/login"}
    assert visits.trust is trusted


def test_a_certificate_that_browsers_refuse_has_a_remedy_of_its_own(bio: Class, visits: Visits) -> None:
    bio.launch()
    visits.made[0] = Visit("open", 0.2, "browsers do not trust the certificate of https://a.example (expired)")
    (problem,) = check.check(bio.session()).problems
    assert "gateway.tls" in problem and "firewall" not in problem


# --- themachine --check ----------------------------------------------------------------------


def test_a_launch_checks_its_seats_if_it_is_asked_to(bio: Class, visits: Visits) -> None:
    plain = bio.launch()
    assert visits.doors == []
    report = bio.launch(check=True)
    assert report == plain
    assert len(visits.doors) == 2


def test_what_a_launchs_check_finds_is_a_problem_and_the_table_is_as_ever(bio: Class, visits: Visits) -> None:
    visits.made[0] = Visit("run", 3.0, "the cell did not end within 120 s")
    report = bio.launch(check=True)
    assert [(row["student"], row["state"]) for row in bio.rows(report)] == [("Ann Lee", "ready"), ("Bob Ray", "ready")]
    assert set(bio.rows(report)[0]) == {"student", "email", "url", "host", "port", "password", "node", "state"}
    (problem,) = report.problems
    assert problem.startswith("Ann Lee: run: the cell did not end")


def test_a_seat_that_is_not_ready_is_not_visited(bio: Class, visits: Visits) -> None:
    bio.mute = {4321}
    report = bio.launch(check=True, common={"timeout": "5"})
    assert [door.password for door in visits.doors] == [bio.rows(report)[1]["password"]]
    assert len(report.problems) == 1


def test_a_check_that_is_not_possible_costs_no_table(bio: Class, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*given: object) -> list[Visit]:
        raise CloudscaleError("The authority can't be read.")

    monkeypatch.setattr(check, "_visit", broken)
    report = bio.launch(check=True)
    assert len(bio.rows(report)) == 2
    assert report.problems == ("The authority can't be read.",)


def test_no_password_is_in_what_is_reported(bio: Class, visits: Visits) -> None:
    bio.launch()
    visits.made = {0: Visit("login", 0.1, "no"), 1: Visit("save", 0.1, "no")}
    report = check.check(bio.session())
    key = bio.session().course.key()
    assert key
    for student in ("1", "2"):
        assert naming.password(key, student) not in report.text + "".join([*report.problems, *bio.said.lines])
