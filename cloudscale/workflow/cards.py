"""`cards`: what each student needs to log in, on paper."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cloudscale.cli import cards as paper
from cloudscale.cli import report
from cloudscale.cli.cards import Card, Design
from cloudscale.cli.output import check_folder, check_writable
from cloudscale.cli.report import Report
from cloudscale.cluster.look import look
from cloudscale.cluster.state import Cluster
from cloudscale.course import naming
from cloudscale.course.flags import CardFlags
from cloudscale.course.session import Session
from cloudscale.errors import CloudscaleError, RequestError
from cloudscale.files import replace_file
from cloudscale.model import Machine, Student
from cloudscale.seats import services
from cloudscale.seats.services import RunningSeat


@dataclass(frozen=True)
class CardOf:
    """A student's card."""

    student: Student
    card: Card


def cards(session: Session, flags: CardFlags) -> Report:
    """A card for each student who has a seat, in alphabetical order: in one file, or in a file each."""
    if flags.file:
        check_writable(flags.file)
    if flags.per_student:
        check_folder(flags.per_student, "--per-student")
    logo = _logo(flags.logo) if flags.logo else ""
    design = Design(flags.title or session.settings.course, flags.note or paper.HELP, logo)

    cluster = look(session)
    made, problems = _cards(cluster, _chosen(cluster, session), session)
    rows: list[dict[str, object]] = []
    for path, on_it in _files(made, flags):
        try:
            if path.parent == flags.per_student:
                path.parent.mkdir(mode=0o700, exist_ok=True)
            replace_file(path, paper.document([each.card for each in on_it], design).encode())
        except OSError as error:
            problems.append(f"{path} was not written: {error.strerror}.")
        else:
            rows += [
                {"student": each.student.full_name, "email": each.student.email, "file": str(path)} for each in on_it
            ]
    if rows:
        session.progress.say("Whoever has a card can log in with it: only you can read the files (mode 0600).")
    return Report(_text(rows, flags, session.common.format), tuple(problems))


def _logo(path: Path) -> str:
    """Raises RequestError where there is no such picture."""
    try:
        with path.open("rb") as file:
            data = file.read(paper.LARGEST_LOGO + 1)
    except OSError as error:
        raise RequestError(f"--logo: {path} can't be read: {error.strerror}.", "Check the file's name.") from None
    return paper.logo_uri(data, str(path))


def _chosen(cluster: Cluster, session: Session) -> list[RunningSeat]:
    """The seats that --only and --skip leave. Raises CloudscaleError where they are not known, or where there are none.

    RequestError: there are none to be known.
    """
    cluster.check_quorum(
        "Bring those machines back (invoke themachine): only a swarm with a quorum says who has a seat."
    )
    targets: list[RunningSeat | Machine] = [*cluster.seats, *cluster.machines]
    chosen = session.selection.choose(targets, lambda t: (t.name,) if isinstance(t, Machine) else cluster.names_of(t))
    if seats := [target for target in chosen if not isinstance(target, Machine)]:
        return seats
    if problems := () if cluster.in_swarm else cluster.problems(session.selection):
        raise CloudscaleError("\n".join(problems))
    if cluster.seats:
        raise RequestError(
            "No seat is left for a card.", "Name other seats, students or machines in --only and --skip."
        )
    raise RequestError(
        f"The course {session.settings.course!r} has no seats, so there are no cards to make.",
        "Make the seats first: invoke themachine. Is it another --course or --driver?",
    )


def _cards(cluster: Cluster, seats: Sequence[RunningSeat], session: Session) -> tuple[list[CardOf], list[str]]:
    """The cards in alphabetical order, and why there are none for some."""
    key = session.course.key(create=False)
    services.check_key(seats, key, session.course.folder)
    addresses = cluster.seat_addresses(key or b"", session.course.names_key(create=False) or b"")
    passwords = cluster.passwords(addresses.key)
    names = Counter(seat.student.full_name for seat in cluster.seats)
    made, problems = [], []
    for seat in seats:
        student = seat.student
        name = student.full_name if names[student.full_name] == 1 else f"{student.full_name} ({student.id})"
        if address := addresses.to_type(seat):
            made.append(CardOf(student, Card(name, address, passwords.of(student.id))))
        else:
            problems.append(
                f"{name}: no card, since the seat has no address: its machine is not among the course's any more."
                "\n  Run invoke themachine."
            )
    return sorted(made, key=lambda each: naming.alphabetical(each.card.name)), problems


def _files(made: Sequence[CardOf], flags: CardFlags) -> Iterator[tuple[Path, Sequence[CardOf]]]:
    """Each file to write, with the cards on it."""
    if flags.file and made:
        yield flags.file, made
    if flags.per_student:
        for each in made:
            yield flags.per_student / f"{naming.card_name(each.student)}.html", [each]


def _text(rows: Sequence[dict[str, object]], flags: CardFlags, format: str) -> str:
    """Which card is in which file; as a table, in short."""
    if format in ("csv", "json"):
        return report.records(rows, ("student", "email", "file"), format)
    counts = Counter(str(row["file"]) for row in rows)
    lines = [f"{path}: {_counted(counts.pop(path))}" for path in [str(flags.file)] if path in counts]
    if counts:
        lines.append(f"{flags.per_student}: {len(counts)} files, one for each student")
    return "\n".join(lines)


def _counted(count: int) -> str:
    pages = paper.page_count(count)
    return f"{count} cards on {pages} pages" if pages > 1 else f"{count} cards on 1 page" if count > 1 else "1 card"
