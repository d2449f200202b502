"""`reap`: collects and then removes the courses whose deadline is over. Made for cron: quiet where nothing is to do."""

from __future__ import annotations

import contextlib
import io
import os
from dataclasses import replace
from pathlib import Path

from cloudscale.cli import report
from cloudscale.cli.report import Reaped, Report
from cloudscale.cluster.look import look
from cloudscale.cluster.state import Cluster
from cloudscale.course import deadline
from cloudscale.course.folder import CourseFolder
from cloudscale.course.session import Session
from cloudscale.drivers.protocols import KeepsDeadline
from cloudscale.errors import CloudscaleError, RequestError
from cloudscale.outside import home_path
from cloudscale.progress import Lines
from cloudscale.workflow import reset
from cloudscale.workflow.alone import alone


def reap(session: Session, output: str | None) -> Report:
    """A row for each course of the driver. What fails stays as it is, and the others go on.

    Raises RequestError where the request, or what the configuration says of the driver, is wrong.
    """
    folder = _folder(session, output)
    rows, errors = [], []
    for course in _courses(session):
        try:
            rows.append(_reap(_of(session, course), folder / course))
        except Exception as error:  # whatever it is, the others go on
            errors.append(error)
            rows.append(Reaped(course, session.settings.driver, "failed", cause=_cause(error)))
    if errors and len(errors) == len(rows) and len({str(error) for error in errors}) == 1:
        _raise_request(errors[0])
    if all(row.state == "kept" for row in rows) and session.common.format not in ("csv", "json"):
        return Report("")  # cron mails whatever a job prints
    problems = tuple(f"{row.course}: {row.cause}" for row in rows if row.state == "failed")
    return Report(report.reaped(rows, session.common.format), problems)


def _raise_request(error: Exception) -> None:
    """Raises what is wrong in the same way for all courses, such as the credentials."""
    if isinstance(error, RequestError):
        raise error


def _folder(session: Session, output: str | None) -> Path:
    """Where the courses' work goes. Raises RequestError."""
    if session.common.only or session.common.skip:
        raise RequestError("reap is about whole courses: --only and --skip have no meaning.", "Use --course.")
    if not output:
        raise RequestError(
            "reap collects the students' work before it removes a course, and needs a folder for it.",
            "Add --output DIR.",
        )
    if not session.common.yes:
        raise RequestError("reap removes every course whose deadline is over, and asks no question.", "Add --yes.")
    folder = home_path(output).absolute()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise RequestError(
            f"--output {folder} can't be used: {existing} is not a folder that you may write to.",
            "Choose another folder.",
        )
    return folder


def _courses(session: Session) -> list[str]:
    """The courses with a folder for the driver on this computer."""
    driver, own = session.settings.driver, session.settings.course
    # the hosts of the driver generic are those of one course: of the one in the configuration
    one_only = session.names_course or driver == "generic"
    return [name for name in CourseFolder.courses(driver) if name == own or not one_only]


def _of(session: Session, course: str) -> Session:
    return replace(session, settings=session.settings.model_copy(update={"course": course}))


def _reap(session: Session, output: Path) -> Reaped:
    quiet = replace(session, progress=Lines(io.StringIO()))
    cluster = look(quiet)
    row = _kept(cluster, session)
    if not _is_over(cluster):
        return row
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(alone(session))
        except RequestError:
            raise
        except CloudscaleError as error:  # another run has the lock; the next one of cron looks again
            return replace(row, cause=error.message)
        cluster = look(quiet)  # again: until now, the deadline could be moved
        row = _kept(cluster, session)
        return _collect_and_remove(row, session, output) if _is_over(cluster) else row


def _collect_and_remove(row: Reaped, session: Session, output: Path) -> Reaped:
    session.progress.say(
        f"{row.course}: {row.cause}. Collecting the students' work into {output}, then removing the course"
    )
    try:
        problems = reset.driver_reset(session, collect=output, unattended=True).problems
    except CloudscaleError as error:
        problems = (error.message,)  # the remedy is for who types driver_reset
    except Exception as error:
        problems = (_cause(error),)
    return replace(row, state="failed", cause="\n".join(problems)) if problems else replace(row, state="removed")


def _is_over(cluster: Cluster) -> bool:
    return cluster.until is not None and cluster.until <= deadline.now()


def _kept(cluster: Cluster, session: Session) -> Reaped:
    """The row of a course that stays. Raises CloudscaleError where it is not known whether it has a deadline."""
    until, now = cluster.until, deadline.now()
    row = Reaped(session.settings.course, session.settings.driver, "kept", deadline.in_row(until))
    if until:
        is_over = until <= now
        cause = f"its deadline was {deadline.describe(until, now)}" if is_over else f"{deadline.left(until, now)} left"
        return replace(row, cause=cause)
    is_silent = not cluster.in_swarm and not isinstance(cluster.driver, KeepsDeadline)
    if is_silent and (cluster.failures or cluster.without_quorum):
        causes = [str(error) for error in cluster.lost.values()] or [str(cluster.quorum_lost())]
        raise CloudscaleError("\n".join(["It can't be asked for its deadline, so it stays:", *causes]))
    return replace(row, cause="no deadline")


def _cause(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error) if isinstance(error, CloudscaleError) else repr(error)
