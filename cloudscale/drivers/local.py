"""The driver `local`: this computer's Docker Engine is the one machine."""

from __future__ import annotations

import os
import shutil
import socket

from cloudscale.course.folder import CourseFolder
from cloudscale.course.settings import USUAL_SEAT, LocalSettings, SeatSettings
from cloudscale.engines import own
from cloudscale.engines.client import REQUEST_TIMEOUT, Engine, engine_errors, from_environment
from cloudscale.engines.endpoint import Endpoint, own_endpoint
from cloudscale.errors import EngineError, RequestError
from cloudscale.hosts.facts import listening_here
from cloudscale.hosts.this_computer import run_shell
from cloudscale.model import CommandResult, Machine, Say, Survey

LOOPBACK = "127.0.0.1"


def load(settings: LocalSettings, course: CourseFolder, say: Say, patience: float | None = None) -> Local:
    endpoint = own_endpoint()
    if endpoint.note:
        say(endpoint.note)
    return Local(settings, endpoint, patience)


class Local:
    adopts_swarm = True

    def __init__(
        self, settings: LocalSettings, endpoint: Endpoint | None = None, patience: float | None = None
    ) -> None:
        self._settings = settings
        self._endpoint = endpoint or own_endpoint()
        self._patience = max(patience or REQUEST_TIMEOUT, 1.0)
        self._engine: Engine | None = None
        self._restores_live = False
        self._data_root = ""

    def machines(self) -> list[Machine]:
        return [self._connected().machine]

    def connect(self, machine: Machine) -> Engine:
        return self._connected()

    def survey(self, machine: Machine) -> Survey:
        if self._restores_live:
            raise RequestError(
                f"The Docker Engine of {self._connected().name} has the setting live-restore, with which there is no"
                " swarm.",
                'Switch it off: set "live-restore": false in /etc/docker/daemon.json, or remove --live-restore from the'
                " command line of dockerd; then: sudo systemctl reload docker.",
            )
        # a swarm of one node: no other machine has to reach its ports
        held_ports = frozenset[int]() if self._endpoint.host else listening_here()
        return Survey(machine, LOOPBACK, held_ports=held_ports, free_disk=self._free_disk())

    def _free_disk(self) -> int | None:
        """Where the engine keeps its data, if that is on this computer."""
        if self._endpoint.host or not self._data_root:
            return None
        try:
            return shutil.disk_usage(self._data_root).free
        except OSError:  # the engine runs in a VM, as Docker Desktop's does
            return None

    def prepare(self, machine: Machine, seat: SeatSettings = USUAL_SEAT) -> Engine:
        return self._connected()

    def run(self, machine: Machine, command: str, timeout: float) -> CommandResult:
        if host := self._endpoint.host:
            raise RequestError(
                f"{self._endpoint.source} points to an engine on {host}. The driver local can't run commands there.",
                f"Use: invoke remote_com --hosts {host} --com …",
            )
        return run_shell(command, timeout)

    def check_nodes(self, nodes: int) -> None:
        if nodes > 1:
            raise RequestError(
                f"The driver local has one machine, this computer, but {nodes} are needed.", "Leave out --nodes."
            )

    def add(self, name: str) -> str:
        try:
            return f"A Docker Engine already runs on {self._connected().name}. Nothing to do."
        except EngineError:
            # never install over an engine that this user has no access to, or that runs elsewhere
            if self._endpoint.source or own.engine_closed():
                raise
        own.install_engine()
        login = "" if os.access(own.SOCKET, os.W_OK) else " You can use it after your next login (group docker)."
        return f"A Docker Engine was installed and started.{login}"

    def remove(self, name: str) -> str:
        packages = own.remove_engine()
        return f"The Docker Engine was removed: {len(packages)} packages, and its containers, images and volumes."

    def describe_removal(self, name: str) -> str:
        packages = own.installed_packages()
        return f"The Docker Engine of this computer ({' '.join(packages)}) with all its containers, images and volumes"

    def _connected(self) -> Engine:
        if self._engine is None:
            client = from_environment(timeout=self._patience, endpoint=self._endpoint)
            with engine_errors("this computer"):
                info = client.info()
            # a swarm that is there already shows that it is not in effect
            is_in_swarm = (info.get("Swarm") or {}).get("LocalNodeState", "inactive") != "inactive"
            self._restores_live = bool(info.get("LiveRestoreEnabled")) and not is_in_swarm
            self._data_root = str(info.get("DockerRootDir") or "")
            address = self._settings.address or own_address(self._endpoint)
            self._engine = Engine(Machine(info["Name"], address), client)
        return self._engine


def own_address(endpoint: Endpoint) -> str:
    """The address at which others reach the engine's computer; loopback if it is in no network."""
    if host := endpoint.host:
        return host
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # only chooses a route and sends nothing; the address is one for documentation (RFC 5737)
            probe.connect(("203.0.113.1", 9))
            return str(probe.getsockname()[0])
        except OSError:
            return LOOPBACK
