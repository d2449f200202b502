from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cloudscale.course.folder import CourseFolder
from cloudscale.course.settings import LocalSettings
from cloudscale.drivers.local import Local, load, own_address
from cloudscale.engines.client import REQUEST_TIMEOUT
from cloudscale.engines.endpoint import Endpoint, own_endpoint
from cloudscale.errors import EngineError, RequestError
from cloudscale.model import CommandResult, Machine, MachineState
from tests.unit.engines.contexts import use_context
from tests.unit.fake_api import FakeApi

HERE = Machine("m1", "192.0.2.1")

# In the format of Linux: sockets listen on 22 and, on one address only, 631; on 4321, two connections, one closed.
TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 21547 1 0000 100 0 0 10 0
   1: 0100007F:0277 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 22891 1 0000 100 0 0 10 0
   2: 0F02000A:10E1 0202000A:D2C4 01 00000000:00000000 02:000A7214 00000000     0        0 31337 2 0000 20 4 30 10 -1
   3: 0F02000A:10E1 0202000A:D2C6 06 00000000:00000000 03:00001770 00000000     0        0 0 3 0000
"""
TCP6 = """\
  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when
   0: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000
   1: 00000000000000000000000000000000:FFFF 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000
"""


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeApi:
    """An engine on this computer."""
    api = FakeApi()
    client = SimpleNamespace(api=api, info=api.info)
    monkeypatch.setattr("cloudscale.drivers.local.from_environment", lambda timeout, endpoint: client)
    return api


@pytest.fixture
def no_engine_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(timeout: float, endpoint: Endpoint) -> None:
        raise EngineError("No Docker Engine answers on this computer.")

    monkeypatch.setattr("cloudscale.drivers.local.from_environment", nobody)


def local(address: str | None = "192.0.2.1") -> Local:
    return Local(LocalSettings(address=address))


# --- surveys ------------------------------------------------------------------------------


def test_ports_that_something_on_this_computer_listens_on_are_held(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, table in (("tcp", TCP), ("tcp6", TCP6)):
        (tmp_path / name).write_text(table)
    monkeypatch.setattr("cloudscale.hosts.facts.Path", lambda path: tmp_path / path.removeprefix("/proc/net/"))
    assert local().survey(HERE).held_ports == {22, 631, 80, 65535}
    (tmp_path / "tcp6").unlink()  # a kernel without IPv6
    assert local().survey(HERE).held_ports == {22, 631}
    (tmp_path / "tcp").unlink()  # not Linux
    assert local().survey(HERE).held_ports == frozenset()


def test_free_disk_is_that_of_the_engines_data_root(engine: FakeApi, tmp_path: Path) -> None:
    driver = local()
    engine.data_root = str(tmp_path)
    driver.machines()
    free = driver.survey(HERE).free_disk
    assert free is not None and abs(free - shutil.disk_usage(tmp_path).free) < 1 << 30
    elsewhere = local()
    engine.data_root = str(tmp_path / "in a VM")
    elsewhere.machines()
    assert elsewhere.survey(HERE).free_disk is None


def test_a_port_of_this_computer_that_listens_is_held() -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        assert listening.getsockname()[1] in local().survey(HERE).held_ports


def test_of_an_engine_elsewhere_this_computers_ports_say_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://192.0.2.9:2376")
    assert local().survey(HERE).held_ports == frozenset()


def test_a_swarm_of_one_node_needs_no_open_ports() -> None:
    survey = local().survey(HERE)
    assert (survey.machine, survey.address, survey.state) == (HERE, "127.0.0.1", MachineState.SERVING)
    assert (survey.cpus, survey.memory, survey.free_disk) == (None, None, None)  # the engine reports them


def test_an_existing_swarm_is_used() -> None:
    assert local().adopts_swarm


# --- the machine -----------------------------------------------------------------------------


@pytest.mark.usefixtures("engine")
def test_this_computers_engine_is_the_one_machine() -> None:
    driver = local()
    assert driver.machines() == [HERE]
    assert driver.connect(HERE).machine == HERE


def test_it_is_asked_who_it_is_once(engine: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = local()
    driver.machines()
    monkeypatch.delattr(FakeApi, "info")
    assert driver.machines() == [HERE]
    assert driver.connect(HERE) is driver.connect(HERE)


@pytest.mark.usefixtures("engine")
def test_there_is_nothing_to_prepare() -> None:
    driver = local()
    assert driver.prepare(HERE) is driver.connect(HERE)


@pytest.mark.usefixtures("no_engine_here")
def test_without_an_engine_there_is_no_machine() -> None:
    with pytest.raises(EngineError, match="No Docker Engine answers"):
        local().machines()


@pytest.mark.parametrize("nodes", [0, 1])
def test_one_machine_can_be_had(nodes: int) -> None:
    local().check_nodes(nodes)


def test_more_than_one_can_not() -> None:
    with pytest.raises(RequestError, match="one machine, this computer, but 2 are needed"):
        local().check_nodes(2)


@pytest.mark.usefixtures("engine")
def test_live_restore_is_named_before_anything_changes(engine: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    info = {**engine.info(), "LiveRestoreEnabled": True, "Swarm": {"LocalNodeState": "inactive"}}
    monkeypatch.setattr(FakeApi, "info", lambda self: info)
    monkeypatch.setattr(
        "cloudscale.drivers.local.from_environment",
        lambda timeout, endpoint: SimpleNamespace(api=engine, info=engine.info),
    )
    driver = local()
    (machine,) = driver.machines()
    with pytest.raises(RequestError, match="live-restore") as raised:
        driver.survey(machine)
    assert "/etc/docker/daemon.json" in raised.value.remedy
    info["Swarm"] = {"LocalNodeState": "active"}
    driver = local()
    assert driver.survey(*driver.machines()).address == "127.0.0.1"


@pytest.fixture
def context(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """`docker context use server`."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    use_context(tmp_path, "server", "ssh://ann@server.example")
    return "server.example"


@pytest.mark.usefixtures("engine")
def test_the_context_in_use_is_used_for_everything_and_said(context: str) -> None:
    said: list[str] = []
    driver = load(LocalSettings(), CourseFolder.named("bio", "local"), said.append)
    assert said == ["The Docker Engine is that of the Docker context 'server': ssh://ann@server.example"]
    (machine,) = driver.machines()
    assert machine.address == context
    assert driver.survey(machine).held_ports == frozenset()
    with pytest.raises(RequestError, match=r"remote_com --hosts server\.example"):
        driver.run(machine, "ls", 20)


@pytest.mark.usefixtures("no_engine_here", "context")
def test_where_a_context_names_another_none_is_installed(debian: Debian) -> None:
    with pytest.raises(EngineError):
        local().add("local")
    assert debian.installed == 0


# --- its address -----------------------------------------------------------------------------


class Route:
    """A datagram socket of a computer with this address, or with no network."""

    def __init__(self, address: str | None) -> None:
        self._address = address

    def __enter__(self) -> Route:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def connect(self, address: tuple[str, int]) -> None:
        assert address[0].startswith("203.0.113.")  # an address for documentation: no host is contacted
        if self._address is None:
            raise OSError(101, "Network is unreachable")

    def getsockname(self) -> tuple[str | None, int]:
        return self._address, 40000


@pytest.mark.parametrize(("way_out", "address"), [("192.0.2.7", "192.0.2.7"), (None, "127.0.0.1")])
def test_the_address_is_that_of_the_way_out_or_loopback(
    monkeypatch: pytest.MonkeyPatch, way_out: str | None, address: str
) -> None:
    def datagrams(family: int, kind: int) -> Route:
        assert kind == socket.SOCK_DGRAM
        return Route(way_out)

    monkeypatch.setattr(socket, "socket", datagrams)
    assert own_address(Endpoint()) == address


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("tcp://192.0.2.9:2376", "192.0.2.9"),
        ("ssh://ann@lab.example", "lab.example"),
        ("https://[2001:db8::1]:2376", "2001:db8::1"),
    ],
)
def test_the_address_of_an_engine_elsewhere_is_its_own(
    monkeypatch: pytest.MonkeyPatch, host: str, address: str
) -> None:
    monkeypatch.setenv("DOCKER_HOST", host)
    assert own_address(own_endpoint()) == address


@pytest.mark.usefixtures("engine")
def test_an_address_that_is_configured_goes_before_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://192.0.2.9:2376")
    assert local("class.example").machines()[0].address == "class.example"


# --- commands --------------------------------------------------------------------------------


@pytest.mark.usefixtures("processes")
@pytest.mark.parametrize("host", ["", "unix:///run/docker.sock", "http+unix://run/docker.sock", "tcp://localhost:2375"])
def test_a_command_runs_on_this_computer(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("DOCKER_HOST", host)
    assert local().run(HERE, "echo $((6*7))", 20) == CommandResult(0, "42\n", "")


def test_a_command_can_not_run_where_only_the_engine_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://192.0.2.9:2376")
    with pytest.raises(RequestError, match=r"remote_com --hosts 192\.0\.2\.9"):
        local().run(HERE, "ls", 20)


# --- the engine itself -----------------------------------------------------------------------


class Debian:
    """Records what the driver asks of the operating system."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.installed = 0
        self.closed = False
        for name in ("install_engine", "remove_engine", "installed_packages", "engine_closed"):
            monkeypatch.setattr(f"cloudscale.engines.own.{name}", getattr(self, name))
        monkeypatch.setattr("cloudscale.engines.own.SOCKET", Path("/nowhere/docker.sock"))

    def install_engine(self) -> None:
        self.installed += 1

    def remove_engine(self) -> list[str]:
        return self.installed_packages()

    def installed_packages(self) -> list[str]:
        return ["docker.io", "containerd"]

    def engine_closed(self) -> bool:
        return self.closed


@pytest.fixture
def debian(monkeypatch: pytest.MonkeyPatch) -> Debian:
    return Debian(monkeypatch)


@pytest.mark.usefixtures("engine")
def test_where_an_engine_answers_none_is_installed(debian: Debian) -> None:
    assert "Nothing to do" in local().add("local")
    assert debian.installed == 0


@pytest.mark.usefixtures("no_engine_here")
def test_where_none_answers_one_is_installed(debian: Debian) -> None:
    assert "installed" in local().add("local")
    assert debian.installed == 1


@pytest.mark.usefixtures("no_engine_here")
def test_it_is_reported_if_the_engine_can_be_used_after_the_next_login_only(
    debian: Debian, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "next login" in local().add("local")
    monkeypatch.setattr(os, "access", lambda path, mode: True)
    assert "next login" not in local().add("local")


@pytest.mark.usefixtures("no_engine_here")
def test_an_engine_without_access_is_not_replaced(debian: Debian) -> None:
    debian.closed = True
    with pytest.raises(EngineError):
        local().add("local")
    assert debian.installed == 0


@pytest.mark.usefixtures("no_engine_here")
def test_where_docker_host_names_another_none_is_installed(debian: Debian, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://192.0.2.9:2376")
    with pytest.raises(EngineError):
        local().add("local")
    assert debian.installed == 0


@pytest.mark.usefixtures("debian")
def test_what_is_removed_with_the_engine_is_reported_before_and_after() -> None:
    question: Any = local().describe_removal("local")
    assert "docker.io containerd" in question
    assert "volumes" in question
    assert "2 packages" in local().remove("local")


def test_who_is_in_a_hurry_gives_an_engine_up_sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    patiences: list[float] = []

    def connect(timeout: float, endpoint: Endpoint) -> object:
        patiences.append(timeout)
        raise EngineError("It took too long.")

    monkeypatch.setattr("cloudscale.drivers.local.from_environment", connect)
    for patience in (None, 5, 0.2):
        with pytest.raises(EngineError):
            Local(LocalSettings(), Endpoint(), patience).machines()
    assert patiences == [REQUEST_TIMEOUT, 5, 1]
