"""`restore`: collected work, back into the students' volumes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Lock

from cloudscale.cli import report
from cloudscale.cli.report import Report, WorkRow
from cloudscale.cluster.look import look
from cloudscale.cluster.state import Cluster
from cloudscale.course.session import Session
from cloudscale.errors import RequestError
from cloudscale.material.restoring import Restored, restore_work
from cloudscale.material.volumes import Helper, Mount
from cloudscale.material.work_folder import WorkFolder
from cloudscale.material.work_manifest import Manifest
from cloudscale.model import Outcome, Outcomes, Student
from cloudscale.units import mib
from cloudscale.workflow.alone import alone
from cloudscale.workflow.works import Rooms, Work, cause, choose, find_works

TIMEOUT = 3600.0  # seconds for one student's work
SHOWN = 8  # students who are not in the class


def restore(session: Session, folder: Path, *, force: bool = False) -> Report:
    """Puts the work that `collect` brought into a folder back, for the students of this class who have the same ids.

    Nothing that differs is overwritten, unless `force`. Raises RequestError if the folder has no collected work.
    """
    with alone(session) as driver, WorkFolder.to_read(folder) as opened, opened.manifest() as manifest:
        cluster = look(session, driver)
        works = choose(find_works(cluster, session.settings.course), cluster, session)
        listed = [_named(work, manifest) for work in works if work.student.id in manifest.students]
        if not listed:
            raise RequestError(
                f"{folder} has no work of these students: they are known by their ids.",
                "If the class has no seats yet, start them first (invoke themachine), with the ids that it had.",
            )
        outcomes = _from(opened, manifest, listed, cluster, session, force=force)
    done = outcomes.values.values()
    files, same = sum(each.files for each in done), sum(each.same for each in done)
    session.progress.say(
        f"Restored: {files} files ({mib(sum(each.bytes for each in done))}); {same} were there already"
    )
    pairs = list(zip(listed, outcomes, strict=True))
    problems = [*cluster.problems(session.selection)]
    problems += [problem for work, outcome in pairs for problem in _problems(work, outcome)]
    problems += _strangers(works, manifest, session)
    rows = [_row(work, outcome) for work, outcome in pairs]
    return Report(report.work(rows, session.common.format), tuple(problems))


def _from(
    folder: WorkFolder, manifest: Manifest, works: list[Work], cluster: Cluster, session: Session, *, force: bool
) -> Outcomes[Restored]:
    reading = Lock()
    timeout = session.common.timeout or TIMEOUT

    def one(work: Work, helper: Helper, mount: Mount) -> Restored:
        with reading:
            rows = [*manifest.rows(work.student.id)]
        return restore_work(helper, mount.folder, folder, rows, force=force, timeout=timeout)

    return Rooms(cluster, session).each(works, one, writable=True, what="Restoring the work")


def _named(work: Work, manifest: Manifest) -> Work:
    """A volume without a seat knows only the student's id."""
    student = Student(work.student.id, manifest.students[work.student.id].student)
    return work if work.seat else replace(work, student=student)


def _row(work: Work, outcome: Outcome[Restored]) -> WorkRow:
    name = work.student.full_name
    if outcome.error:
        return WorkRow(name, "failed", 0, 0, cause(outcome.error))
    done = outcome.get()
    return WorkRow(name, done.state, done.files, done.bytes, str(done.left_out))


def _problems(work: Work, outcome: Outcome[Restored]) -> Iterator[str]:
    name = work.student.full_name
    if outcome.error:
        yield f"{name}: {outcome.error}"
    elif left_out := outcome.get().left_out:
        remedy = "\n  --force overwrites them." if outcome.get().conflicts else ""
        yield f"{name}: not restored: {left_out}.{remedy}"


def _strangers(works: list[Work], manifest: Manifest, session: Session) -> list[str]:
    """Students who have collected work and are not in the class."""
    if session.common.only or session.common.skip:  # not all of the class were asked for
        return []
    here = {work.student.id for work in works}
    missing = [f"{each.student} ({id})" for id, each in manifest.students.items() if id not in here]
    if not missing:
        return []
    more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
    return [f"Not in this class, so not restored: {', '.join(missing[:SHOWN])}{more}."]
