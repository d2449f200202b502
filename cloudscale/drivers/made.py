"""Machines that are made for the course, and then reached over SSH: what the drivers openstack and vm share."""

from __future__ import annotations

import contextlib
import itertools
import threading
from abc import abstractmethod
from collections.abc import Collection

from slugify import slugify

from cloudscale.course.folder import CourseFolder
from cloudscale.course.naming import natural
from cloudscale.course.settings import USUAL_SEAT, SeatSettings
from cloudscale.drivers.over_ssh import OverSsh
from cloudscale.engines.client import Engine
from cloudscale.engines.disk_limits import make_room
from cloudscale.errors import RequestError
from cloudscale.hosts.first_login import Booting, NoLogin, log_in
from cloudscale.hosts.login_key import KEY_FILE, SshKey, ssh_key
from cloudscale.hosts.target import Target
from cloudscale.model import Machine, MachineState, Say, Survey

INSTALLING = 1800.0  # seconds to install the packages of the first boot
# the script of the first boot holds this lock until it has ended
BOOTED = "[ ! -e /var/lib/cloudscale/course/begun ] || flock -w 1800 /var/lib/cloudscale/course/lock true"


class MadeMachines(OverSsh):
    """`user`: the account for logins; `boot_timeout`: seconds for a machine to answer after it was started."""

    def __init__(
        self, course: CourseFolder, say: Say, *, user: str, boot_timeout: float, patience: float | None = None
    ) -> None:
        super().__init__(course, say, patience)
        self._user = user
        self._boot_timeout = boot_timeout
        self._key_lock = threading.Lock()

    # --- the SSH key of the course -----------------------------------------------------------

    def _key(self) -> SshKey:
        """The course's SSH key, made on first use. Raises RequestError."""
        with self._key_lock:
            self._course.make_folder()
            key = ssh_key(self._course.folder, create=True)
        assert key
        return key

    def _check_key(self, name: str, fingerprint: str, remedy: str) -> None:
        """Raises RequestError if the machine was made with another SSH key than the course's."""
        with self._key_lock:
            key = ssh_key(self._course.folder, create=False)
        if fingerprint and (key is None or key.fingerprint != fingerprint):
            raise RequestError(
                f"{name} was made with another SSH key ({fingerprint}) than the one in {self._course.folder}.", remedy
            )

    def _login_target(self, host: str, name: str, id: str, port: int = 22, user: str = "") -> Target:
        key_file = self._course.folder / KEY_FILE
        # the alias is the id: another machine may have had the same address, with another host key
        return Target(host, port, user or self._user, key_file=key_file, label=name, alias=id)

    # --- new machines ------------------------------------------------------------------------

    def _new_names(self, count: int, taken: Collection[str], former: Collection[str], prefix: str = "") -> list[str]:
        """Names for `count` more machines: those of former machines, then new ones with the next numbers."""
        free = sorted({*former} - {*taken}, key=natural)
        stem = prefix + (slugify(self._course.name) or "course")
        new = (name for number in itertools.count(1) if (name := f"{stem}-{number}") not in {*taken, *free})
        return list(itertools.islice(itertools.chain(free, new), count))

    # --- booting a machine -------------------------------------------------------------------

    def boot(self, machine: Machine) -> Survey:
        booted = self._start(machine.name)
        with self._watched(booted):
            connection = self._connection(booted)
            connection.run_root(BOOTED, timeout=INSTALLING)
            if obstacle := make_room(connection):
                self._say(f"Warning: {booted.name}: the disk of its seats is not limited, since {obstacle}")
            return self._survey_running(booted)

    def prepare(self, machine: Machine, seat: SeatSettings = USUAL_SEAT) -> Engine:
        with self._watched(machine):
            return super().prepare(machine, seat)

    def _watched(self, machine: Machine) -> contextlib.AbstractContextManager[None]:
        """Ends what waits for a machine that has crashed meanwhile, where that is seen before its silence is."""
        return contextlib.nullcontext()

    @abstractmethod
    def _start(self, name: str) -> Machine:
        """Makes the machine if necessary, starts it, and logs in. Raises CloudscaleError."""

    def _first_login(self, booting: Booting, target: Target) -> None:
        """Waits until a login works, and keeps the connection. Raises NoLogin, with the end of the console."""
        try:
            connection = log_in(booting, target, self._known, self._boot_timeout, self._say)
        except NoLogin as error:
            raise NoLogin(f"{target.name}: it runs, but {error}.\n{booting.console_end()}") from None
        self._login.keep(connection)

    def _survey_running(self, machine: Machine) -> Survey:
        return OverSsh.survey(self, machine)


def survey_not_up(
    machine: Machine,
    *,
    cpus: int,
    memory: int,
    networks: frozenset[str],
    held_ports: frozenset[int] = frozenset(),
    has_answered: bool = False,
) -> Survey:
    """The survey of a machine that will be made or started; `memory`: bytes that it will have for seats."""
    return Survey(
        machine,
        address="",
        cpus=cpus,
        memory=memory,
        networks=networks,
        held_ports=held_ports,
        state=MachineState.OFF if has_answered else MachineState.COMING,
    )
