from __future__ import annotations

import time
from pathlib import Path

import paramiko
import pytest

from cloudscale.errors import ConnectionFailed
from cloudscale.hosts import signs_of_life
from cloudscale.hosts.known_hosts import KnownHosts
from cloudscale.hosts.ssh import Connection, connect
from cloudscale.hosts.target import Target
from cloudscale.waiting import poll
from tests.unit.hosts.fake_ssh import known_hosts
from tests.unit.hosts.ssh_server import SshServer, serving

USER_KEY = paramiko.ECDSAKey.generate()


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signs_of_life, "INTERVAL", 0.05)


def log_in(server: SshServer, folder: Path, known: KnownHosts) -> Connection:
    key_file = folder / "key"
    USER_KEY.write_private_key_file(str(key_file))
    return connect(Target("127.0.0.1", server.port, "ann", key_file=key_file, label="m1"), timeout=5, known=known)


def test_a_host_that_falls_silent_is_lost_and_what_waits_for_it_says_so(
    loopback: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(signs_of_life, "SILENCE", 0.4)
    with serving(USER_KEY) as server, log_in(server, tmp_path, known_hosts(tmp_path)) as connection:
        server.fall_silent()
        begun = time.monotonic()
        with pytest.raises(ConnectionFailed, match=r"m1: the connection is lost \(no sign of life") as raised:
            connection.run("true", timeout=60)
        assert time.monotonic() - begun < 20
        assert "Check that the machine is up" in str(raised.value)
        assert not connection.is_alive


def test_a_host_that_does_not_know_the_question_has_answered_it(
    loopback: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(signs_of_life, "SILENCE", 5)
    with serving(USER_KEY) as server, log_in(server, tmp_path, known_hosts(tmp_path)) as connection:
        assert poll(lambda: len(server.asked) > 3, timeout=20)
        assert connection.is_alive
        assert {*server.asked} == {"keepalive@openssh.com"}


def test_a_connection_that_is_closed_asks_no_more(loopback: str, tmp_path: Path) -> None:
    with serving(USER_KEY) as server:
        log_in(server, tmp_path, known_hosts(tmp_path)).close()
        before = len(server.asked)
        time.sleep(0.2)
        assert len(server.asked) == before
