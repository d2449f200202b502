"""The tasks of cloudscale. Each one translates its flags, calls one workflow and returns the workflow's report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudscale.cli.invocation import VM_FLAGS, cloudscale_task, install
from cloudscale.outside import home_path

if TYPE_CHECKING:
    from pathlib import Path

    from cloudscale.cli.report import Report
    from cloudscale.course.session import Session

install()


@cloudscale_task(
    settings=("students", "columns", "image", *VM_FLAGS),
    nodes="the number of machines (default: 0, as many as the students need)",
    port="the port of Jupyter inside each container (default: 8888)",
    start="the first port for seats on each machine (default: 4321)",
    end="the last port for seats on each machine (default: 0, as many as needed)",
    env="an environment variable for all seats, NAME=VALUE; may be repeated",
    onlycreate="prepare machines, swarm and image, but start no seats",
    plan="show what would be done and what it needs; change nothing",
    prune="remove the seats of students who are no longer in the file",
    replace_lost="give the students of lost machines seats on the other machines",
    output="also write the result to this file, which only you can read (mode 0600)",
    gateway="one HTTPS address for the whole class: path, subdomain, auto, or none",
    check="do in every seat what its student will do, as the task check, before the table is printed",
    material="files for the students: a file, a folder or a git repository, as with distribute",
    until="the deadline that all tasks warn of once it is past: 18:00, 2026-12-01, 2026-12-01 18:00; or none",
)
def themachine(
    session: Session,
    nodes: str | None = None,
    port: str | None = None,
    start: str | None = None,
    end: str | None = None,
    env: list[str] | None = None,
    onlycreate: bool = False,
    plan: bool = False,
    prune: bool = False,
    replace_lost: bool = False,
    output: str | None = None,
    gateway: str | None = None,
    check: bool = False,
    material: str | None = None,
    until: str | None = None,
) -> Report:
    """Start a Jupyter server for each student, on machines that form a Docker Swarm; safe to run again."""
    from cloudscale.course.flags import Launch, read_flags
    from cloudscale.workflow import themachine

    launch = read_flags(
        Launch,
        nodes=nodes,
        port=port,
        start=start,
        end=end,
        env=env,
        onlycreate=onlycreate,
        plan=plan,
        prune=prune,
        replace_lost=replace_lost,
        output=output,
        gateway=gateway,
        check=check,
        material=material,
        until=until,
    )
    return themachine.themachine(session, launch)


@cloudscale_task(command='the command, in quotes: "ls -l"')
def com_node(session: Session, command: str) -> Report:
    """Run a shell command on all machines, in parallel."""
    from cloudscale.workflow import commands

    return commands.com_node(session, command)


@cloudscale_task(command='the command, in quotes: "ls -l"')
def com_containers(session: Session, command: str) -> Report:
    """Run a shell command in all running seats, in parallel."""
    from cloudscale.workflow import commands

    return commands.com_containers(session, command)


@cloudscale_task(
    settings=("image",),
    volumes="also remove the volumes with the students' work",
    collect="before, collect the work into this folder; if not all of it can be, remove nothing",
)
def containers_reset(session: Session, volumes: bool = False, collect: str | None = None) -> Report:
    """Remove the seats. The machines stay, and so does the students' work unless --volumes is given."""
    from cloudscale.workflow import reset

    return reset.containers_reset(session, with_volumes=volumes, collect=_folder(collect))


@cloudscale_task(
    settings=("image",), collect="before, collect the work into this folder; if not all of it can be, remove nothing"
)
def driver_reset(session: Session, collect: str | None = None) -> Report:
    """Permanently remove all that was made for the course with this driver, including the students' work."""
    from cloudscale.workflow import reset

    return reset.driver_reset(session, collect=_folder(collect))


def _folder(path: str | None) -> Path | None:
    return home_path(path) if path else None


@cloudscale_task(
    settings=("image",),
    output="the folder for the work, on this computer (default: work-COURSE)",
    limit="the most that is collected of one student (default: 10G)",
)
def collect(session: Session, output: str | None = None, limit: str | None = None) -> Report:
    """Collect every student's work into a folder of this computer, with a manifest; run again, only what is new."""
    from cloudscale.course.flags import Collect, read_flags
    from cloudscale.workflow import collect

    flags = read_flags(Collect, output=output, limit=limit)
    return collect.collect(session, flags.output, flags.limit)


@cloudscale_task(
    settings=("image",),
    dir="the folder that collect made",
    force="overwrite files that are different in the students' work",
)
def restore(session: Session, dir: str, force: bool = False) -> Report:
    """Put collected work back into the students' work folders; what differs there is not overwritten."""
    from cloudscale.workflow import restore

    return restore.restore(session, home_path(dir), force=force)


@cloudscale_task(
    settings=("image",), output="the folder for the students' work, with a folder for each course; it has to be given"
)
def reap(session: Session, output: str | None = None) -> Report:
    """Collect and then remove the courses whose deadline is over, and only those; made for cron. Needs --yes."""
    from cloudscale.workflow import reap

    return reap.reap(session, output)


@cloudscale_task(settings=VM_FLAGS, name="the name of the new machine; with --driver local, any name")
def machine_new(session: Session, name: str) -> Report:
    """Add one VM on this computer, with a Docker Engine; with --driver local, install the engine here instead."""
    from cloudscale.workflow import single_machine

    return single_machine.machine_new(session, name)


@cloudscale_task(name="the name that was given to machine_new")
def machine_rm(session: Session, name: str) -> Report:
    """Remove a machine that machine_new added; with --driver local, the Docker Engine that it installed."""
    from cloudscale.workflow import single_machine

    return single_machine.machine_rm(session, name)


@cloudscale_task(
    details="also show memory, CPU, kernels, the last activity and restarts of each seat, and the machines' free disk",
    watch="show all of that on the terminal until Ctrl-C, and refresh it",
)
def status(session: Session, details: bool = False, watch: bool = False) -> Report:
    """Show the machines and seats as they are now, each seat as its student would find it."""
    if watch:
        from cloudscale.workflow import watch as watching

        return watching.watch(session)
    from cloudscale.workflow import status

    return status.status(session, with_details=details)


@cloudscale_task()
def check(session: Session) -> Report:
    """Log in to all seats at once as their students will, run a cell and save a file; leave nothing behind."""
    from cloudscale.workflow import check

    return check.check(session)


@cloudscale_task(
    output="the file with all cards, an HTML page to print; only you can read it (default: cards.html)",
    per_student="a folder for a file with each student's own card; without --output, these are the only ones",
    title="the title on each card (default: the course's name)",
    note="the line of help on each card, in place of the usual one",
    logo="a picture for each card: a PNG, JPEG, WebP or SVG file of at most 1 MiB",
)
def cards(
    session: Session,
    output: str | None = None,
    per_student: str | None = None,
    title: str | None = None,
    note: str | None = None,
    logo: str | None = None,
) -> Report:
    """Make a card with address, password and QR code for each student's seat, in alphabetical order, to print."""
    from cloudscale.course.flags import CardFlags, read_flags
    from cloudscale.workflow import cards

    flags = read_flags(CardFlags, output=output, per_student=per_student, title=title, note=note, logo=logo)
    return cards.cards(session, flags)


@cloudscale_task(settings=("students", "columns", "image", *VM_FLAGS), tolerant=True)
def doctor(session: Session) -> Report:
    """Show what this computer, the configuration, the account and the machines lack; changes nothing."""
    from cloudscale.workflow import doctor

    return doctor.doctor(session)


@cloudscale_task(student="the student: id, full name, or a part of it that no other student has")
def seat_restart(session: Session, student: str) -> Report:
    """Restart one student's server. Address, password and work stay."""
    from cloudscale.workflow import one_seat

    return one_seat.seat_restart(session, student)


@cloudscale_task(student="the student: id, full name, or a part of it that no other student has")
def seat_password(session: Session, student: str) -> Report:
    """Give one student another password, and show it. The student's server restarts; nobody else's does."""
    from cloudscale.workflow import one_seat

    return one_seat.seat_password(session, student)


@cloudscale_task(
    student="the student: id, full name, or a part of it that no other student has",
    to="the name of the machine, as in status",
)
def seat_move(session: Session, student: str, to: str | None = None) -> Report:
    """Move one student's server to another machine, with the work."""
    from cloudscale.workflow import seat_move

    return seat_move.seat_move(session, student, to)


@cloudscale_task(
    source="what to distribute: a file, a folder, or the address of a git repository",
    branch="the branch or tag of the repository (default: its own default)",
    path="the file or folder in the repository (default: all of it)",
    into="the folder in the work folder (default: the work folder itself)",
    force="overwrite files that students have changed",
)
def distribute(
    session: Session,
    source: str,
    branch: str | None = None,
    path: str | None = None,
    into: str | None = None,
    force: bool = False,
) -> Report:
    """Copy files into every student's work folder. What a student has changed is not overwritten."""
    from cloudscale.course.flags import Distribution, read_flags
    from cloudscale.workflow import material

    order = read_flags(Distribution, source=source, branch=branch, path=path, into=into, force=force)
    return material.distribute(session, order)


@cloudscale_task(
    hosts="the hosts, separated by commas: [user@]host[:port], or names in ~/.ssh/config",
    com="the command, in quotes (default: ls)",
    port="the SSH port of hosts that are given without a port (default: that of ~/.ssh/config, else 22)",
    user="the user for hosts that are given without a user (default: that of ~/.ssh/config, else root)",
    pwd="the password, or the passphrase of the key in --kfile; with - you are asked for it",
    kfile="the file with the private key",
    path="the folder in which the command runs",
)
def remote_com(
    session: Session,
    hosts: str | None = None,
    com: str = "ls",
    port: str | None = None,
    user: str | None = None,
    pwd: str | None = None,
    kfile: str | None = None,
    path: str | None = None,
) -> Report:
    """Run a shell command on any hosts over SSH, in parallel, with a password or a key."""
    from cloudscale.course.flags import Remote, read_flags
    from cloudscale.workflow import commands

    remote = read_flags(Remote, hosts=hosts, com=com, port=port, user=user, pwd=pwd, kfile=kfile, path=path)
    return commands.remote_com(session, remote)


@cloudscale_task(
    name="the image to build: pydata, ml or spark; with --from, the name that your own image gets",
    from_="build your own image from this folder, which has a requirements.txt or a Dockerfile",
    on="the image that your own image extends (default: pydata)",
)
def image_build(session: Session, name: str, from_: str | None = None, on: str | None = None) -> Report:
    """Build a notebook image on this computer's Docker Engine: pydata, ml, spark or, with --from, your own."""
    from cloudscale.workflow import images

    return images.image_build(session, name, from_, on)


@cloudscale_task()
def image_list(session: Session) -> Report:
    """List the notebook images that are built here, with their sizes and the machines that have them."""
    from cloudscale.workflow import images

    return images.image_list(session)
