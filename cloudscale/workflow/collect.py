"""`collect`: every student's work, to this computer."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from threading import Lock

from cloudscale.cli import report
from cloudscale.cli.report import Report
from cloudscale.cluster.look import look
from cloudscale.cluster.state import Cluster
from cloudscale.course import naming
from cloudscale.course.session import Session
from cloudscale.errors import CloudscaleError, RequestError
from cloudscale.material import work_manifest
from cloudscale.material.collecting import MOST_BYTES, Collected, Limits, collect_work
from cloudscale.material.marks import read_marks, write_marks
from cloudscale.material.volumes import Helper, Mount
from cloudscale.material.work_folder import WorkFolder
from cloudscale.material.work_manifest import Manifest
from cloudscale.model import Outcome, Outcomes, Student
from cloudscale.units import mib
from cloudscale.workflow.alone import alone
from cloudscale.workflow.works import Rooms, Work, cause, choose, find_works

TIMEOUT = 3600.0  # seconds for one student's work
MARGIN = 20 * 10**6  # nanoseconds that the times of files may lag behind the clock (a tick of the kernel)


@dataclass(frozen=True)
class Collection:
    """What came of it. `failed`: students whose work could not be read; `refused`: some of whose files were refused."""

    report: Report
    failed: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()


def collect(session: Session, output: Path | None = None, limit: int | None = None) -> Report:
    """Brings every student's work into a folder of this computer, with a manifest. `limit`: bytes of one student.

    What is there already is not sent again. Raises RequestError if the folder can't be used.
    """
    with alone(session) as driver:
        return collect_from(look(session, driver), session, output, limit).report


def collect_from(
    cluster: Cluster, session: Session, output: Path | None = None, limit: int | None = None
) -> Collection:
    """The same for a course that was read back already, whose lock is held."""
    course = session.settings.course
    path = output or Path(f"work-{course}")
    # a seat that never started has no volume
    works = [work for work in choose(find_works(cluster, course), cluster, session) if work.may_exist(cluster)]
    problems = cluster.problems(session.selection)
    if not works:
        session.progress.say(f"The course {course!r} has no work to collect")
        return Collection(Report(report.work([], session.common.format), problems))
    limits = Limits(session.common.timeout or TIMEOUT, bytes=limit or MOST_BYTES)
    with WorkFolder.to_fill(path) as folder:
        outcomes = _into(folder, works, cluster, session, limits)
    _mark(cluster, course, outcomes, session)
    for line in _notes(outcomes, path):
        session.progress.say(line)
    rows = [_row(work, outcome) for work, outcome in zip(works, outcomes, strict=True)]
    named = zip(works, outcomes, strict=True)
    problems = (*problems, *chain.from_iterable(_problems(work, outcome) for work, outcome in named))
    return Collection(
        Report(report.work(rows, session.common.format), problems),
        failed=tuple(outcomes.errors),
        refused=tuple(id for id, collected in outcomes.values.items() if collected.left_out.is_work),
    )


def _into(
    folder: WorkFolder, works: list[Work], cluster: Cluster, session: Session, limits: Limits
) -> Outcomes[Collected]:
    course = session.settings.course
    with folder.manifest() as manifest:
        _check_course(manifest, works, session)
        reading = Lock()

        def one(work: Work, helper: Helper, mount: Mount) -> Collected:
            listed = manifest.students.get(work.student.id)
            student = work.student
            if listed and not work.seat:  # a volume knows the id alone
                student = Student(student.id, listed.student)
            own = listed.folder if listed else naming.work_folder(course, student)
            with reading:
                before = {row.path: row.sha256 for row in manifest.rows(student.id)}
            return collect_work(helper, mount.folder, folder, student, own, before, limits)

        outcomes = Rooms(cluster, session).each(works, one, writable=False, what="Collecting the work")
        _write_manifest(folder, manifest, outcomes)
    return outcomes


def _check_course(manifest: Manifest, works: list[Work], session: Session) -> None:
    """Raises RequestError where a folder is that of another course: of its students, some have the same ids."""
    for work in works:
        listed = manifest.students.get(work.student.id)
        if listed and not naming.owns_work_folder(session.settings.course, work.student.id, listed.folder):
            raise RequestError(
                f"The folder has the work of another course: {listed.folder} of the student {work.student.id!r}.",
                "Choose another one (--output DIR).",
            )


def _write_manifest(folder: WorkFolder, manifest: Manifest, outcomes: Outcomes[Collected]) -> None:
    """What was collected now, and of all others what was collected before. Raises CloudscaleError."""

    def lines() -> Iterator[str]:
        yield work_manifest.heading()
        yield from manifest.others(outcomes.values)
        for collected in outcomes.values.values():
            collected.lines.seek(0)
            yield from collected.lines
            collected.lines.close()

    try:
        if any(collected.dropped for collected in outcomes.values.values()):
            folder.keep_copy(work_manifest.NAME)
        folder.write_manifest(lines())
    except OSError as error:
        raise CloudscaleError(
            f"{folder.path / work_manifest.NAME} can't be written: {error.strerror}.",
            "Free some space there, then run again.",
        ) from None


def _mark(cluster: Cluster, course: str, outcomes: Outcomes[Collected], session: Session) -> None:
    """Leaves in the swarm until when all work of a student is collected. A reset looks at it."""
    new = {id: each.since - MARGIN for id, each in outcomes.values.items() if not each.left_out.is_work}
    if not new or not cluster.in_swarm:
        return
    try:
        write_marks(cluster.manager, course, read_marks(cluster.manager, course) | new)
    except CloudscaleError as error:
        session.progress.say(f"A reset will not know that the work was collected. {error}")


def _notes(outcomes: Outcomes[Collected], path: Path) -> Iterator[str]:
    """What is worth to be known, and is no problem."""
    all_ = outcomes.values.values()
    sent, size = sum(each.sent_files for each in all_), sum(each.sent_bytes for each in all_)
    files = sum(each.files for each in all_)
    yield (
        f"Collected: {files} files of {len(all_)} students in {path}; {sent} of them are new or changed ({mib(size)})"
    )
    for each in all_:
        name = each.student.full_name
        if each.left_out and not each.left_out.is_work:
            yield f"{name}: left out: {each.left_out}"
        if each.coded:
            yield f"{name}: files whose names are coded here: {_first(each.coded)}"
        if each.aside:
            yield f"{name}: what you had changed here is kept: {_first(each.aside)}"
        if each.earlier:
            yield f"{name}: {each.earlier} files in {each.folder} are not in the student's work (any more); they stay"


def _first(names: list[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _row(work: Work, outcome: Outcome[Collected]) -> report.WorkRow:
    if outcome.error:
        return report.WorkRow(work.student.full_name, "failed", 0, 0, cause(outcome.error))
    done = outcome.get()
    left_out = f"left out: {done.left_out}" if done.left_out else ""
    return report.WorkRow(done.student.full_name, done.state, done.files, done.bytes, left_out)


def _problems(work: Work, outcome: Outcome[Collected]) -> Iterator[str]:
    name = work.student.full_name
    if outcome.error:
        yield f"{name}: {outcome.error}"
    elif outcome.get().left_out.is_work:
        yield f"{name}: not collected: {outcome.get().left_out}"
    if work.others:
        yield (
            f"{name}: an older volume with work is on {', '.join(work.others)}; it was not collected."
            f"\n  It is the volume {work.mount(writable=False).volume} there."
        )


def collected_first(cluster: Cluster, session: Session, output: Path, *, unattended: bool = False) -> None:
    """Collects before a reset. Raises CloudscaleError if not all of it could be, so that nothing is removed.

    `unattended`: files that are refused are reported and lost, or any student could keep a course for ever.
    """
    collection = collect_from(cluster, session, output)
    if unattended and not collection.failed:
        for problem in collection.report.problems:
            session.progress.say(f"Warning: {problem}")
    elif collection.report.problems:
        raise CloudscaleError(
            "\n".join(("Not all of the work was collected, so nothing was removed:", *collection.report.problems)),
            f"Fix that and run again. Or run again without --collect: then what is not in {output} is lost.",
        )
    with contextlib.suppress(OSError):
        session.progress.say(f"The work was collected in {output.resolve()}")
