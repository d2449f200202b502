"""The tasks of cloudscale. Each one translates its flags, calls one workflow and returns the workflow's report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudscale.cli.invocation import VM_FLAGS, cloudscale_task, install

if TYPE_CHECKING:
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
) -> Report:
    """Start a Jupyter server for each student, on machines that form a Docker Swarm; safe to run again."""
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
        gateway=gateway,
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


@cloudscale_task(volumes="also remove the volumes with the students' work")
def containers_reset(session: Session, volumes: bool = False) -> Report:
    """Remove the seats. The machines stay, and so does the students' work unless --volumes is given."""
    from cloudscale.workflow import reset

    return reset.containers_reset(session, with_volumes=volumes)


@cloudscale_task()
def driver_reset(session: Session) -> Report:
    """Permanently remove all that was made for the course with this driver, including the students' work."""
    from cloudscale.workflow import reset

    return reset.driver_reset(session)


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


@cloudscale_task()
def status(session: Session) -> Report:
    """Show the machines and seats as they are now, each seat as its student would find it."""
    from cloudscale.workflow import status

    return status.status(session)


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
    """Build a notebook image on this computer's Docker Engine: pydata, ml, spark or, with --from, your own."""
    from cloudscale.workflow import images

    return images.image_build(session, name, from_, on)


@cloudscale_task()
def image_list(session: Session) -> Report:
    """List the notebook images that are built here, with their sizes and the machines that have them."""
    from cloudscale.workflow import images

    return images.image_list(session)
