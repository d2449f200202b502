from __future__ import annotations

import getpass
import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from cloudscale.engines import own
from cloudscale.errors import CloudscaleError, EngineError, RequestError
from cloudscale.model import CommandResult

SIMULATED = """\
NOTE: This is only a simulation!
Inst containerd (1.7.24 Debian:13/stable [amd64])
Inst docker.io (26.1.5 Debian:13/stable [amd64])
Conf containerd (1.7.24 Debian:13/stable [amd64])
"""


class Computer:
    """A fake Debian: its programs, and the commands that were run on it as root."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        self.programs = {"apt-get"}
        self.commands: list[str] = []
        self.daemons: list[list[str]] = []
        self.packages = ["docker-cli"]
        self.purges: dict[str, list[str]] = {}  # package → all that is removed with it; only itself if it is not listed
        self.answering = True
        self.systemd = True
        self.record = tmp_path / "cloudscale" / "engine.json"
        self.socket = tmp_path / "docker.sock"
        self.pid_file = tmp_path / "docker.pid"
        self.process = tmp_path / "proc" / "4242"
        self.stops = True
        self.data = (str(tmp_path / "lib-docker"), str(tmp_path / "etc-docker"))
        patch = {
            "RECORD": self.record,
            "SOCKET": self.socket,
            "PID_FILE": self.pid_file,
            "PROCESSES": tmp_path / "proc",
            "DATA": self.data,
            "STARTING": 0,
            "run_root": self.run_root,
            "run_program": self.run_program,
            "as_root": list,
            "_answers": lambda: self.answering,
            "_has_systemd": lambda: self.systemd,
        }
        for name, value in patch.items():
            monkeypatch.setattr(f"cloudscale.engines.own.{name}", value)
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        monkeypatch.setattr(getpass, "getuser", lambda: "ann")
        monkeypatch.setattr(shutil, "which", lambda name, path=None: name if name in self.programs else None)
        monkeypatch.setattr(subprocess, "Popen", self._daemon)

    def _daemon(self, command: list[str], **settings: Any) -> None:
        assert settings["start_new_session"]
        self.daemons.append(command)

    def run_program(self, command: Sequence[str], timeout: float) -> CommandResult:
        assert timeout > 0
        self.commands.append(" ".join(command))
        return CommandResult(1, "", "it fails")

    def run_root(self, command: Sequence[str], what: str, *, remedy: str = "") -> str:
        self.commands.append(" ".join(command))
        if "--simulate" in command and "purge" in command:
            purged = command[list(command).index("purge") + 1 :]
            return "".join(f"Purg {gone} [1]\n" for package in purged for gone in self.purges.get(package, [package]))
        if "--simulate" in command:
            return SIMULATED
        if command[0] == "apt-cache":
            return "".join(f"{package} - Docker\n" for package in self.packages)
        if command[-1].startswith("{"):  # the record
            self.record.parent.mkdir(exist_ok=True)
            self.record.write_text(command[-1])
        if "install" in command:
            assert self.record.exists()  # the record is written first
            self.programs.add("dockerd")
        if "purge" in command and "docker.io" in command:
            self.programs.discard("dockerd")
        if command == ["sh", "-c", "kill 4242"] and self.stops:
            shutil.rmtree(self.process)
        if command[:2] == ["rm", "-rf"] and str(self.record.parent) in command:
            shutil.rmtree(self.record.parent)
        return ""

    def start_process(self, name: str) -> None:
        """A process with the id in the engine's pid file, and the given name."""
        self.pid_file.write_text("4242\n")
        self.process.mkdir(parents=True)
        (self.process / "comm").write_text(f"{name}\n")

    def ran(self, *words: str) -> bool:
        return any(all(word in command.split() for word in words) for command in self.commands)


@pytest.fixture
def computer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Computer:
    return Computer(monkeypatch, tmp_path)


# --- installing ------------------------------------------------------------------------------


def test_an_engine_is_installed_and_started_and_the_user_added_to_its_group(computer: Computer) -> None:
    own.install_engine()
    assert computer.commands[0].split() == ["apt-get", "-qq", "update"]
    assert any("install docker.io" in command and "--simulate" not in command for command in computer.commands)
    assert computer.ran("usermod", "-aG", "docker", "ann")
    assert computer.ran("systemctl", "enable", "--now", "docker")


def test_only_what_was_added_is_recorded(computer: Computer) -> None:
    Path(computer.data[1]).mkdir()
    own.install_engine()
    record = json.loads(computer.record.read_text())
    assert record["packages"] == ["containerd", "docker.io"]
    assert record["data"] == [computer.data[0]]
    assert own.installed_packages() == ["containerd", "docker.io"]


def test_a_package_that_is_only_upgraded_is_not_recorded(computer: Computer, monkeypatch: pytest.MonkeyPatch) -> None:
    upgrade = "Inst iptables [1.8.9-1] (1.8.9-2 Debian:12/stable [amd64])\n"
    monkeypatch.setattr("tests.unit.engines.test_own.SIMULATED", SIMULATED + upgrade)
    own.install_engine()
    assert own.installed_packages() == ["containerd", "docker.io"]


def test_nothing_is_removed_to_make_room(computer: Computer) -> None:
    own.install_engine()
    assert all("--no-remove" in command for command in computer.commands if " install " in command)


@pytest.mark.parametrize(("packages", "installed"), [(["docker-cli"], True), ([], False)])
def test_the_command_line_is_installed_too_if_it_is_a_separate_package(
    computer: Computer, packages: list[str], installed: bool
) -> None:
    computer.packages = packages
    own.install_engine()
    assert computer.ran("install", "docker.io", "docker-cli") is installed


def test_an_engine_that_is_installed_is_only_started(computer: Computer) -> None:
    computer.programs.add("dockerd")
    own.install_engine()
    assert not computer.ran("install")
    assert not computer.record.exists()
    assert computer.ran("systemctl", "enable")


def test_without_systemd_the_daemon_is_started_by_itself_unless_it_runs(computer: Computer) -> None:
    computer.systemd = False
    own.install_engine()
    assert computer.daemons == []
    computer.answering = False
    with pytest.raises(EngineError, match="does not answer"):
        own.install_engine()
    assert any("dockerd" in word for word in computer.daemons[0])


def test_root_is_added_to_no_group(computer: Computer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    own.install_engine()
    assert not computer.ran("usermod")


def test_a_computer_without_apt_is_a_wrong_request(computer: Computer) -> None:
    computer.programs.clear()
    with pytest.raises(RequestError, match="no apt-get"):
        own.install_engine()
    assert computer.commands == []


@pytest.mark.parametrize(
    ("socket", "writable", "closed"), [(True, False, True), (True, True, False), (False, False, False)]
)
def test_an_engine_is_closed_if_this_user_may_not_use_its_socket(
    computer: Computer, monkeypatch: pytest.MonkeyPatch, socket: bool, writable: bool, closed: bool
) -> None:
    if socket:
        computer.socket.touch()
    monkeypatch.setattr(os, "access", lambda path, mode: writable)
    assert own.engine_closed() is closed


@pytest.mark.parametrize(
    ("error", "answers"),
    [("", True), ("permission denied on its socket", True), ("No Docker Engine answers", False)],
    ids=["open", "closed to this user", "absent"],
)
def test_an_engine_that_is_closed_to_this_user_answers_too(
    monkeypatch: pytest.MonkeyPatch, error: str, answers: bool
) -> None:
    class Client:
        def close(self) -> None:
            pass

    def connect(timeout: float) -> Client:
        if error:
            raise EngineError(error)
        return Client()

    monkeypatch.setattr("cloudscale.engines.own.from_environment", connect)
    assert own._answers() is answers


# --- removing --------------------------------------------------------------------------------


def test_what_was_added_is_removed_and_the_record_last(computer: Computer) -> None:
    own.install_engine()
    computer.commands.clear()
    assert own.remove_engine() == ["containerd", "docker.io"]
    assert computer.ran("systemctl", "stop", "docker")
    assert computer.ran("purge", "containerd", "docker.io")
    assert computer.ran("rm", computer.data[0])
    assert computer.ran("gpasswd", "-d", "ann", "docker")
    assert computer.ran("ip", "link", "delete", "docker0")
    assert str(computer.record.parent) in computer.commands[-1]
    assert not computer.record.exists()


def test_without_systemd_the_daemon_is_ended_and_waited_for(computer: Computer) -> None:
    computer.systemd = False
    own.install_engine()
    own.remove_engine()
    assert not computer.ran("kill")  # it does not run
    own.install_engine()
    computer.start_process("dockerd")
    own.remove_engine()
    assert computer.ran("kill", "4242")


def test_another_process_with_the_daemons_id_is_not_ended(computer: Computer) -> None:
    computer.systemd = False
    own.install_engine()
    computer.start_process("firefox")
    own.remove_engine()
    assert not computer.ran("kill")


@pytest.mark.usefixtures("no_waiting")
def test_a_daemon_that_does_not_end_keeps_its_packages(computer: Computer) -> None:
    computer.systemd = False
    own.install_engine()
    computer.start_process("dockerd")
    computer.stops = False
    with pytest.raises(CloudscaleError, match="does not stop"):
        own.remove_engine()
    assert not any("purge" in command and "--simulate" not in command for command in computer.commands)


def test_a_package_that_others_need_by_now_is_kept(computer: Computer) -> None:
    own.install_engine()
    computer.purges = {"containerd": ["containerd", "needed-by-others"], "docker.io": ["docker.io"]}
    assert own.remove_engine() == ["docker.io"]
    assert computer.commands[-4:] and any(c.endswith("purge docker.io") for c in computer.commands)


def test_an_interrupted_installation_is_continued_with_all_that_it_added(computer: Computer) -> None:
    own.install_engine()
    record = json.loads(computer.record.read_text())
    computer.record.write_text(json.dumps({**record, "packages": ["added-before"]}))
    own.install_engine()
    assert own.installed_packages() == ["added-before", "containerd", "docker.io"]


def test_without_installed_packages_none_is_purged(computer: Computer) -> None:
    computer.record.parent.mkdir()
    computer.record.write_text('{"packages": [], "data": []}')
    assert own.remove_engine() == []
    assert not computer.ran("purge")


def test_earlier_data_stays(computer: Computer) -> None:
    Path(computer.data[0]).mkdir()
    own.install_engine()
    computer.commands.clear()
    own.remove_engine()
    assert not any(computer.data[0] in command for command in computer.commands)


def test_an_engine_that_was_installed_otherwise_is_not_removed(computer: Computer) -> None:
    for refused in (own.installed_packages, own.remove_engine):
        with pytest.raises(RequestError, match="not installed by machine_new"):
            refused()
    assert computer.commands == []


@pytest.mark.parametrize("content", ["no json", "{}", "[]", '{"packages": []}'])
def test_a_damaged_record_is_a_wrong_request(computer: Computer, content: str) -> None:
    computer.record.parent.mkdir()
    computer.record.write_text(content)
    with pytest.raises(RequestError, match="can't be read"):
        own.remove_engine()
    assert computer.commands == []


def test_a_removal_that_fails_keeps_the_record(computer: Computer, monkeypatch: pytest.MonkeyPatch) -> None:
    own.install_engine()

    def locked(command: Sequence[str], what: str) -> str:
        raise CloudscaleError(f"{what} failed: dpkg is locked")

    monkeypatch.setattr("cloudscale.engines.own.run_root", locked)
    with pytest.raises(CloudscaleError, match="dpkg is locked"):
        own.remove_engine()
    assert computer.record.exists()


def test_the_socket_goes_with_the_engine_and_stays_where_the_engine_stays(computer: Computer) -> None:
    own.install_engine()
    own.remove_engine()
    assert str(own.SOCKET) in next(command for command in computer.commands if command.startswith("rm -rf")).split()
    computer.commands.clear()
    own.install_engine()
    computer.purges = {package: [package, "needed-by-others"] for package in own.PACKAGES}
    computer.programs.add("dockerd")
    packages = own.remove_engine()
    assert "docker.io" not in packages
    assert str(own.SOCKET) not in next(c for c in computer.commands if c.startswith("rm -rf")).split()
