"""`doctor` and hosts over SSH: it logs in as a launch does, and leaves no trace of that."""

from __future__ import annotations

import contextlib
import getpass
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paramiko
import pytest

from cloudscale.course.flags import Common, Launch, read_flags
from cloudscale.course.session import Session
from cloudscale.course.settings import read_settings
from cloudscale.drivers import generic
from cloudscale.engines import client
from cloudscale.errors import CloudscaleError, EngineError
from cloudscale.hosts import known_hosts
from cloudscale.images import registry
from cloudscale.workflow import doctor, themachine
from tests.unit.api_schema import Json
from tests.unit.classroom import Said
from tests.unit.hosts.fake_ssh import KEY, OTHER_KEY
from tests.unit.hosts.ssh_server import SshServer, serving

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # logins that are given up are left alone


class Hosts:
    """A class on hosts over SSH: the servers of a test."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.roster = home / "class.csv"
        self.roster.write_text("1;Ann;Lee\n")
        self.key_file = home / "key"
        self.key = paramiko.ECDSAKey.generate()
        self.key.write_private_key_file(str(self.key_file))
        self.said = Said()

    def session(self, *servers: SshServer | str, timeout: str = "2", **generic: Any) -> Session:
        hosts = [each if isinstance(each, str) else f"root@127.0.0.1:{each.port}" for each in servers]
        generic = {"kfile": str(self.key_file), **generic} if "pwd" not in generic else generic
        settings = read_settings(
            {
                "driver": "generic",
                "course": "bio",
                "students": str(self.roster),
                "generic": {"hosts": hosts, **generic},
            }
        )
        return Session(settings, read_flags(Common, format="json", timeout=timeout), self.said, lambda question: None)

    def examined(self, *servers: SshServer | str, **more: Any) -> list[Json]:
        before = sorted(self.home.rglob("*"))
        rows: list[Json] = json.loads(doctor.doctor(self.session(*servers, **more)).text)
        assert sorted(self.home.rglob("*")) == before  # no folder of the course, no known_hosts
        return rows

    def met_by_a_launch(self, *servers: SshServer | str, **more: Any) -> str:
        try:
            return "\n".join(themachine.themachine(self.session(*servers, **more), read_flags(Launch)).problems)
        except CloudscaleError as error:
            return str(error)


@pytest.fixture(name="hosts")
def hosts_fixture(loopback: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Hosts:
    def none(timeout: float) -> object:
        raise EngineError("No Docker Engine answers on this computer.")

    monkeypatch.setattr(client, "from_environment", none)
    monkeypatch.setattr(registry, "check_in_registry", lambda image: "")
    monkeypatch.setattr(doctor, "check_in_registry", lambda image: "")
    return Hosts(tmp_path)


@contextlib.contextmanager
def known_by(hosts: Hosts, server: SshServer, key: paramiko.PKey) -> Iterator[None]:
    """The trainer's known_hosts names this key for the server."""
    file = hosts.home / "home" / ".ssh" / "known_hosts"
    file.parent.mkdir(parents=True)
    file.write_text(f"[127.0.0.1]:{server.port} {key.get_name()} {key.get_base64()}\n")
    yield


def problem(rows: list[Json]) -> tuple[str, str]:
    (row,) = [row for row in rows if row["state"] == "wrong" and row["check"].startswith("machine ")]
    return row["finding"], row["remedy"]


def test_a_refused_key_is_met_by_a_launch_in_the_same_words(hosts: Hosts) -> None:
    with serving(OTHER_KEY) as server:
        found, remedy = problem(hosts.examined(server))
        assert "the login as root was refused" in found
        assert f"{found}\n  {remedy}" in hosts.met_by_a_launch(server)


def test_a_changed_host_key_is_met_by_a_launch_in_the_same_words(hosts: Hosts) -> None:
    with serving(hosts.key) as server, known_by(hosts, server, OTHER_KEY):
        found, remedy = problem(hosts.examined(server))
        assert "its host key has changed" in found
        assert f"{found}\n  {remedy}" in hosts.met_by_a_launch(server)


def test_a_port_where_nothing_listens_is_met_by_a_launch_in_the_same_words(hosts: Hosts) -> None:
    with serving(hosts.key) as server:
        pass
    found, remedy = problem(hosts.examined(server))
    assert "nothing listens on port" in found
    assert f"{found}\n  {remedy}" in hosts.met_by_a_launch(server)


def test_a_host_that_says_nothing_takes_as_long_as_one_answer(hosts: Hosts) -> None:
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(serving(hosts.key)) for _ in range(5)]
        for server in servers:
            server.silent.set()
        start = time.monotonic()
        rows = hosts.examined(*servers, timeout="0.5")
        assert time.monotonic() - start < 0.5 + doctor.SPEAKING + doctor.REST
    silent = [row["finding"] for row in rows if row["check"].startswith("machine ")]
    assert silent == [f"127.0.0.1:{server.port}: no answer in 0.5 s." for server in servers]


def test_a_key_of_an_unknown_host_is_shown_and_not_remembered(hosts: Hosts) -> None:
    with serving(hosts.key) as server:
        found, _ = problem(hosts.examined(server))
        assert server.logins == 1
    # it is no real host: after the login, it runs no command
    assert "the connection is lost" in found or "could not read its state" in found
    assert not (hosts.home / "bio").exists()


def test_a_password_goes_to_no_host_that_is_not_known(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_hosts, "on_terminal", lambda: True)
    monkeypatch.setattr("sys.stdin", None)  # nobody is asked
    with serving(password="secret") as server:
        found, remedy = problem(hosts.examined(server, pwd="secret"))
        assert server.offered == []
        assert "its host key is not known" in found and "the password is not sent" in found
        monkeypatch.setattr(known_hosts, "on_terminal", lambda: False)
        assert f"{found}\n  {remedy}" in hosts.met_by_a_launch(server, pwd="secret")


def test_a_password_goes_to_a_host_that_is_known(hosts: Hosts) -> None:
    with serving(password="secret", host_key=KEY) as server, known_by(hosts, server, KEY):
        hosts.examined(server, pwd="secret")
        assert server.logins == 1


def test_a_password_is_asked_for_as_by_a_launch(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generic, "on_terminal", lambda: True)
    monkeypatch.setattr(getpass, "getpass", lambda prompt: "secret")
    with serving(password="secret", host_key=KEY) as server, known_by(hosts, server, KEY):
        hosts.examined(server, pwd="-")
        assert server.logins == 1


def test_a_key_file_that_is_missing_is_met_by_a_launch_in_the_same_words(hosts: Hosts) -> None:
    kfile = str(hosts.home / "none")
    rows = hosts.examined("root@192.0.2.11", kfile=kfile)
    (row,) = [row for row in rows if row["state"] == "wrong"]
    assert row["check"] == "driver generic"
    assert hosts.met_by_a_launch("root@192.0.2.11", kfile=kfile) == f"{row['finding']}\n  {row['remedy']}"


def test_no_hosts_is_met_by_a_launch_in_the_same_words(hosts: Hosts) -> None:
    rows = hosts.examined()
    (row,) = [row for row in rows if row["state"] == "wrong"]
    assert hosts.met_by_a_launch() == f"{row['finding']}\n  {row['remedy']}"
