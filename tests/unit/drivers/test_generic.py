from __future__ import annotations

import getpass
from pathlib import Path
from typing import Any

import paramiko
import pytest

from cloudscale.course.folder import CourseFolder
from cloudscale.course.settings import GenericSettings
from cloudscale.drivers import generic as module
from cloudscale.drivers.generic import Generic
from cloudscale.errors import RequestError
from cloudscale.hosts.target import Target
from cloudscale.model import Machine

KEY = paramiko.ECDSAKey.generate()


def load(**settings: Any) -> Generic:
    return module.load(GenericSettings(**settings), CourseFolder.named("bio", "generic"), pytest.fail)


def targets(driver: Generic) -> list[Target]:
    return [*driver._targets.values()]


def refusal(**settings: Any) -> str:
    with pytest.raises(RequestError) as raised:
        load(**settings)
    return str(raised.value)


def test_the_hosts_of_the_configuration_are_the_machines_in_its_order() -> None:
    driver = load(hosts=("debian@192.0.2.12", "192.0.2.11:2222", "[2001:db8::1]:2222", "host.example"))
    assert driver.machines() == [
        Machine("192.0.2.12", "192.0.2.12"),
        Machine("192.0.2.11:2222", "192.0.2.11"),
        Machine("2001:db8::1:2222", "2001:db8::1"),
        Machine("host.example", "host.example"),
    ]


def test_what_a_host_leaves_out_is_the_configurations(tmp_path: Path) -> None:
    key = tmp_path / "key"
    KEY.write_private_key_file(str(key), password="secret")
    hosts = targets(load(hosts=("a", "ann@b:2222"), user="debian", kfile=key, pwd="secret"))
    assert hosts == [Target("a", 22, "debian", "secret", key), Target("b", 2222, "ann", "secret", key)]


def test_without_a_user_it_is_root_with_the_users_own_keys() -> None:
    assert targets(load(hosts=("a",))) == [Target("a", 22, "root")]


def test_a_key_may_lie_in_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    KEY.write_private_key_file(str(tmp_path / "key"))
    assert targets(load(hosts=("a",), kfile="~/key"))[0].key_file == tmp_path / "key"


def test_hosts_have_to_be_named() -> None:
    message = refusal()
    assert "has no hosts" in message
    assert "generic: {hosts: [" in message


@pytest.mark.parametrize("host", ["@a", "a:ssh", "a:0", ""])
def test_a_host_that_can_not_be_parsed_is_refused(host: str) -> None:
    assert f"{host!r} is not a host" in refusal(hosts=("b", host))


@pytest.mark.parametrize("again", ["a", "ann@a", "a:22"])
def test_a_host_that_is_listed_twice_is_refused(again: str) -> None:
    assert "The host a is listed twice" in refusal(hosts=("a", "b", again))
    assert len(load(hosts=("a", "a:2222")).machines()) == 2


def test_a_key_file_that_can_not_be_used_is_refused_before_anything_is_connected(tmp_path: Path) -> None:
    assert f"The key file {tmp_path / 'key'} does not exist" in refusal(hosts=("a",), kfile=tmp_path / "key")
    assert "is a folder" in refusal(hosts=("a",), kfile=tmp_path)
    (tmp_path / "key.ppk").write_text("PuTTY-User-Key-File-3: ssh-ed25519\n")
    assert "is a key of PuTTY" in refusal(hosts=("a",), kfile=tmp_path / "key.ppk")


CONFIG = """
Host lab1
  HostName 192.0.2.1
  Port 6922
  User ann
Host node1
  HostName 192.0.2.11
  ProxyJump lab1
"""


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    file = tmp_path / ".ssh" / "config"
    file.parent.mkdir()
    file.write_text(CONFIG)
    file.chmod(0o600)
    return file


def test_hosts_may_be_names_in_the_configuration_of_ssh(config: Path) -> None:
    driver = load(hosts=("lab1", "node1"))
    assert driver.machines() == [Machine("lab1", "192.0.2.1"), Machine("node1", "192.0.2.11")]
    lab1, node1 = targets(driver)
    assert (lab1.port, lab1.user) == (6922, "ann")
    assert node1.user == "root"
    assert node1.via
    assert (node1.via.host, node1.via.port, node1.via.user) == ("192.0.2.1", 6922, "ann")


def test_the_configuration_of_the_course_goes_before_that_of_ssh(config: Path) -> None:
    assert targets(load(hosts=("lab1",), user="bob"))[0].user == "bob"
    assert targets(load(hosts=("carl@lab1:22",), user="bob"))[0] == Target("192.0.2.1", 22, "carl", label="lab1")


def test_a_host_that_is_listed_under_two_names_is_refused(config: Path) -> None:
    assert "The host 192.0.2.1:6922 is listed twice, also as lab1" in refusal(hosts=("lab1", "192.0.2.1:6922"))


def test_a_configuration_of_ssh_that_is_wrong_is_refused_with_its_line(config: Path) -> None:
    config.write_text("Host lab1\n  Port abc\n")
    assert f"{config}, line 2: 'abc' is not a port" in refusal(hosts=("lab1",))


def test_a_password_is_asked_for_once_for_all_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def ask(prompt: str) -> str:
        asked.append(prompt)
        return "secret"

    monkeypatch.setattr(getpass, "getpass", ask)
    monkeypatch.setattr(module, "on_terminal", lambda: True)
    assert {target.password for target in targets(load(hosts=("a", "b"), pwd="-"))} == {"secret"}
    assert len(asked) == 1


def test_a_password_is_not_asked_for_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "on_terminal", lambda: False)
    assert "there is no terminal" in refusal(hosts=("a",), pwd="-")


def test_a_wrong_request_is_refused_before_a_password_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "on_terminal", lambda: True)
    monkeypatch.setattr(getpass, "getpass", pytest.fail)
    assert "has no hosts" in refusal(pwd="-")


def test_a_password_is_in_no_representation() -> None:
    driver = load(hosts=("a",), pwd="secret")
    assert "secret" not in repr((driver, targets(driver)))
