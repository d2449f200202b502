"""The tasks of cloudscale: flags in, one workflow called, its report printed. `invoke --list` shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudscale.cli.invocation import VM_FLAGS, cloudscale_task, install

if TYPE_CHECKING:
    from cloudscale.cli.report import Report
    from cloudscale.course.session import Session

install()


@cloudscale_task(
    settings=("students", "image", *VM_FLAGS),
    nodes="how many machines; 0: as many as the students need",
    port="the port of Jupyter inside a container (8888)",
    start="the first port of a machine that seats use (4321)",
    end="the last one; 0: as far as needed",
    env="K=V for every seat's environment; may be repeated",
    onlycreate="machines, swarm and image, but no seats",
    plan="say what would be done and what it needs; make nothing",
    prune="remove the seats of students who are not in the file any more",
    replace_lost="seat the students of lost machines on the others",
    output="write the result to this file too, for your eyes only",
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
) -> Report:
    """Machines, a Docker Swarm on them, and a Jupyter server for each student."""
    from cloudscale.course.settings import Launch, read_flags
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
    )
    return themachine.themachine(session, launch)


@cloudscale_task(command='the command, in quotes: "ls -l"')
def com_node(session: Session, command: str) -> Report:
    """Run a shell command on every machine, in parallel."""
    from cloudscale.workflow import commands

    return commands.com_node(session, command)


@cloudscale_task(command='the command, in quotes: "ls -l"')
def com_containers(session: Session, command: str) -> Report:
    """Run a shell command in every running seat, in parallel."""
    from cloudscale.workflow import commands

    return commands.com_containers(session, command)


@cloudscale_task(volumes="remove the students' work, too")
def containers_reset(session: Session, volumes: bool = False) -> Report:
    """Remove the seats, keep the machines; the students' volumes stay unless --volumes."""
    from cloudscale.workflow import reset

    return reset.containers_reset(session, with_volumes=volumes)


@cloudscale_task()
def driver_reset(session: Session) -> Report:
    """Remove for good all that was made for the course with a driver."""
    from cloudscale.workflow import reset

    return reset.driver_reset(session)


@cloudscale_task(settings=VM_FLAGS, name="the name of the machine; with --driver local, any name")
def machine_new(session: Session, name: str) -> Report:
    """Add one machine with an engine: a VM on this computer (local: install the engine of this computer itself)."""
    from cloudscale.workflow import single_machine

    return single_machine.machine_new(session, name)


@cloudscale_task(name="the name of the machine, as it was given to machine_new")
def machine_rm(session: Session, name: str) -> Report:
    """Remove what machine_new brought."""
    from cloudscale.workflow import single_machine

    return single_machine.machine_rm(session, name)


@cloudscale_task()
def status(session: Session) -> Report:
    """Machines and seats as they are now, as a student would find them."""
    from cloudscale.workflow import status

    return status.status(session)


@cloudscale_task(
    hosts="the hosts: [user@]host[:port],…",
    com="the command (ls)",
    port="their port (22)",
    user="who to log in as (root)",
    pwd="the password, or the passphrase of --kfile; - asks for it",
    kfile="a private key's file",
    path="the folder to run the command in",
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
    """Run a command on any hosts over SSH, with a password or a key."""
    from cloudscale.course.settings import Remote, read_flags
    from cloudscale.workflow import commands

    remote = read_flags(Remote, hosts=hosts, com=com, port=port, user=user, pwd=pwd, kfile=kfile, path=path)
    return commands.remote_com(session, remote)


@cloudscale_task(
    name="the image to build: pydata, ml or spark; with --from, the name that your own image gets",
    from_="build your own image from this folder, which has a requirements.txt or a Dockerfile",
    on="the image that your own image extends (default: pydata)",
)
def image_build(session: Session, name: str, from_: str | None = None, on: str | None = None) -> Report:
    """Build a notebook image on this computer's engine: one of the project's, or one of your own."""
    from cloudscale.workflow import images

    return images.image_build(session, name, from_, on)


@cloudscale_task()
def image_list(session: Session) -> Report:
    """Which notebook images are built, their size, and the machines that have them."""
    from cloudscale.workflow import images

    return images.image_list(session)
