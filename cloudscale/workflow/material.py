"""`distribute`, and `themachine --material`: files of the trainer's into the students' work folders."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping, Sequence

from cloudscale.cli import report
from cloudscale.cli.report import Report
from cloudscale.cluster.look import look
from cloudscale.cluster.state import Cluster
from cloudscale.course.flags import Distribution, Launch
from cloudscale.course.session import Session
from cloudscale.errors import CloudscaleError, EngineError, RequestError, SeatError
from cloudscale.fanout import MACHINES_WIDTH, fan_out
from cloudscale.material import handout, sources
from cloudscale.material.handout import Distributor, Given, HandedOut, Handout
from cloudscale.material.sources import Material
from cloudscale.material.volumes import image_of
from cloudscale.model import Outcome, Outcomes
from cloudscale.plan.placing import Plan
from cloudscale.seats.services import running_seats
from cloudscale.seats.spec import SHARED, has_shared
from cloudscale.units import amount
from cloudscale.workflow.alone import alone
from cloudscale.workflow.works import Work, choose, find_works, image_on

MOST_NAMED = 40  # conflicts of the whole class that are shown


def distribute(session: Session, order: Distribution) -> Report:
    """Gives files to all students, whether or not their seats run; what a student has changed stays."""
    branch, path, timeout = order.branch or "", order.path or "", session.common.timeout
    with sources.opened(order.source, branch=branch, path=path, timeout=timeout) as material, alone(session) as driver:
        _say_what(material, session)
        cluster = look(session, driver)
        _check_is_seen(material, order.into or "", any(has_shared(seat.spec) for seat in cluster.seats))
        chosen = choose(find_works(cluster, session.settings.course), cluster, session)
        if not chosen:
            session.progress.say(f"The course {session.settings.course!r} has no seats.")
        given = _hand_out(cluster, chosen, Handout(material, order.into or "", order.force), session)
    rows = [_row(work, outcome) for work, outcome in zip(chosen, given, strict=True)]
    text = report.records(rows, ("student", "state", "files", "conflicts"), session.common.format)
    return Report(text, (*cluster.problems(session.selection), *_problems(given)))


@contextlib.contextmanager
def of_launch(session: Session, launch: Launch) -> Iterator[Material | None]:
    """What --material names, before anything is made. Raises RequestError."""
    if launch.material is None:
        yield None
        return
    if launch.onlycreate:
        raise RequestError("--material is for seats, and --onlycreate starts none.", "Leave one of them out.")
    with sources.opened(launch.material) as material:
        _say_what(material, session)
        _check_is_seen(material, "", session.settings.seat.shared is not None)
        yield material


def hand_out(material: Material | None, cluster: Cluster, plan: Plan, session: Session) -> tuple[str, ...]:
    """Gives the material of a launch to the students of its seats. Returns what failed."""
    if material is None:
        return ()
    planned = {seat.student.id for seat in plan.seats}
    machines = {host.node.id: host.name for host in cluster.hosts if host.node}
    try:
        seats = running_seats(cluster.manager, session.settings.course, machines)
    except EngineError as error:  # the table is to be shown all the same
        return (str(error),)
    works = [Work(seat.student, seat.place.machine, seat) for seat in seats if seat.student.id in planned]
    return _problems(_hand_out(cluster, works, Handout(material), session))


def _say_what(material: Material, session: Session) -> None:
    commit = f", commit {material.commit}" if material.commit else ""
    files = "1 file" if len(material.files) == 1 else f"{len(material.files)} files"
    session.progress.say(f"Material: {files}, {amount(material.size)}{commit}")


def _check_is_seen(material: Material, into: str, has_shared: bool) -> None:
    """Raises RequestError for files in the place of the shared folder, where no student would see them."""
    paths = [into] if into else [file.path for file in material.files]
    if has_shared and any(path.partition("/")[0] == SHARED for path in paths):
        raise RequestError(
            f"In the seats, {SHARED!r} is the shared folder (seat.shared), and nothing else can be put there.",
            "Choose another folder (--into FOLDER).",
        )


# --- how they get it -------------------------------------------------------------------------


def _hand_out(cluster: Cluster, works: Sequence[Work], given: Handout, session: Session) -> Outcomes[Given]:
    """What came of each student, in this order. All machines work at the same time."""
    by_machine: dict[str, list[Work]] = {}
    for work in works:
        by_machine.setdefault(work.machine, []).append(work)
    distributor = Distributor(session.settings.course, given, session.common.timeout or handout.TIMEOUT)
    counter = itertools.count(1)
    with session.progress.bar("Handing out the material", len(works)) as advance:

        def one(machine: str) -> HandedOut:
            if machine not in cluster.engines:
                raise _lost(machine, cluster)
            students = [work.student.id for work in by_machine[machine]]
            image = _image(cluster, by_machine[machine], machine, session)
            return distributor.hand_out(
                cluster.engines[machine], image, students, lambda: advance(next(counter), len(works))
            )

        results = fan_out(one, by_machine, width=MACHINES_WIDTH)
    _say_sent(results.values, session)
    outcomes = Outcomes(_outcome(work, results) for work in works)
    _say_conflicts(outcomes, session)
    return outcomes


def _lost(machine: str, cluster: Cluster) -> CloudscaleError:
    if machine in cluster.lost:
        return SeatError(f"The machine {machine} is lost. {cluster.lost[machine]}")
    return SeatError("Its machine is not among the course's any more.")


def _image(cluster: Cluster, works: Sequence[Work], machine: str, session: Session) -> str:
    """An image that the machine has: that of its seats; without seats, the one of the configuration."""
    for seat in filter(None, (work.seat for work in works)):
        return image_of(seat)
    return image_on(cluster.engines[machine], session.settings.image)


def _outcome(work: Work, results: Outcomes[HandedOut]) -> Outcome[Given]:
    """What came of a student, named as the trainer knows her; an error of her machine is that of all its students."""
    if error := results.errors.get(work.machine):
        return Outcome(work.student.full_name, error=error)
    outcome = results.values[work.machine].students[work.student.id]
    return Outcome(work.student.full_name, outcome.value, outcome.error)


# --- what is said of it ----------------------------------------------------------------------


def _say_sent(results: Mapping[str, HandedOut], session: Session) -> None:
    sent = [result.sent for result in results.values() if result.sent]
    if sent:
        session.progress.say(f"Sent {amount(sum(sent))} to {len(sent)} of {len(results)} machines")
    elif results:
        session.progress.say("The machines had the material already: nothing was sent")


def _say_conflicts(outcomes: Outcomes[Given], session: Session) -> None:
    """Names what was kept as the students have it. That is no failure."""
    given = [(outcome.target, outcome.get()) for outcome in outcomes if outcome.ok]
    lines = [f"{name}: {line}" for name, each in given for line in each.named]
    for line in lines[:MOST_NAMED]:
        session.progress.say(f"Kept: {line}")
    if left := sum(each.conflicts for _, each in given) - len(lines[:MOST_NAMED]):
        session.progress.say(f"Kept: {left} more")


def _row(work: Work, outcome: Outcome[Given]) -> dict[str, object]:
    given = outcome.get() if outcome.ok else None
    return {
        "student": work.student.full_name,
        "state": given.state if given else "failed",
        "files": given.files if given else 0,
        "conflicts": given.conflicts if given else 0,
    }


def _problems(outcomes: Outcomes[Given]) -> tuple[str, ...]:
    """Each failure; what several students of a machine have in common is named once."""
    of_students: dict[str, list[str]] = {}
    for outcome in outcomes.failed:
        of_students.setdefault(str(outcome.error), []).append(outcome.target)
    return tuple(f"{_some(names)}: {text}" for text, names in of_students.items())


def _some(names: Sequence[str], most: int = 4) -> str:
    return ", ".join(names) if len(names) <= most else f"{', '.join(names[:most])} and {len(names) - most} more"
