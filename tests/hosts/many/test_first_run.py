"""What stands on three hosts after the first run, and what a second one makes of it."""

from __future__ import annotations

import json
import socket
import ssl
from pathlib import Path

import pytest

from cloudscale.engines.certificates import authority
from tests.hosts.classroom import Classroom, are_three_managers, docker, layers, until


def test_everyone_has_a_seat_and_they_are_spread(room: Classroom) -> None:
    rows = room.table.rows
    assert [row["state"] for row in rows] == ["ready"] * 6
    assert sorted(row["node"] for row in rows) == sorted([host.address for host in room.hosts] * 2)
    assert [row["host"] for row in rows] == [row["node"] for row in rows]
    assert room.student(rows[0]).is_let_in
    assert not room.student(rows[0], rows[1]["password"]).is_let_in


def test_the_time_of_each_phase_is_reported_at_the_end(room: Classroom) -> None:
    line = room.table.err.splitlines()[-1]
    for phase in ("login", "engine", "swarm", "image", "seats", "in all"):
        assert phase in line


def test_three_machines_are_three_managers(room: Classroom) -> None:
    until("they are not", lambda: are_three_managers(room.hosts[1]))


def test_the_engines_are_of_three_ages_and_one_keeps_its_images_in_containerd(room: Classroom, image: str) -> None:
    versions = [docker(host, "version", "--format", "{{.Server.APIVersion}} {{.Server.MinAPIVersion}}").split()
                for host in room.hosts]  # fmt: skip
    assert [version[0] for version in versions] == ["1.45", "1.41", "1.51"]
    assert versions[2][1] == "1.44"
    ids = {docker(host, "image", "inspect", "--format", "{{.Id}}", image) for host in room.hosts}
    assert len(ids) > 1  # the same image


def test_the_image_was_sent_once_and_passed_on_and_no_registry_was_asked(room: Classroom, image: str) -> None:
    assert room.table.err.count("sending it from this computer") == 1
    assert room.table.err.count("Image: copying it from") == 2
    assert "through this computer" not in room.table.err
    assert len({layers(host, image) for host in room.hosts}) == 1
    assert "docker.io" not in room.lab.queries.read_text()


def test_nothing_of_the_way_of_an_image_is_left(room: Classroom) -> None:
    for host in room.hosts:
        assert (
            host.run("cat", "/home/debian/.ssh/authorized_keys").stdout == room.lab.key.with_suffix(".pub").read_text()
        )
        assert host.run("find", "/dev/shm", "/tmp", "/run", "-name", "cloudscale[.-]*").stdout == ""


def test_a_seat_may_open_as_many_files_as_its_machine_allows(room: Classroom) -> None:
    done = room.on("com_containers", "ulimit -Sn; ulimit -Hn")
    assert done.code == 0, done.err
    soft, hard = zip(*(row["stdout"].split() for row in done.rows), strict=True)
    assert soft == hard
    assert all(int(number) > 1024 for number in soft)


def test_a_second_run_changes_nothing(room: Classroom) -> None:
    again = room.launch()
    assert again.out == room.table.out
    assert "nothing was changed" in again.err
    assert "6 unchanged" in again.err


def test_an_engine_listens_on_its_socket_and_with_tls_and_nowhere_else(room: Classroom) -> None:
    for host in room.hosts:
        lines = host.run("ss", "-Hltnp").stdout.splitlines()
        listening = {line.split()[3] for line in lines if "dockerd" in line}
        swarm = {f"{host.address}:{port}" for port in (2377, 7946)}
        assert listening == {"*:2376", *swarm}


def handshake(room: Classroom, context: ssl.SSLContext) -> bytes:
    """What an engine answers to a ping."""
    host = room.hosts[0].address
    with room.lab.namespace.entered():
        plain = socket.create_connection((host, 2376), timeout=10)
    with plain, context.wrap_socket(plain, server_hostname=host) as line:
        line.sendall(b"GET /_ping HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n\r\n")
        return line.recv(4096)


def test_an_engine_lets_in_who_has_the_courses_certificate(room: Classroom) -> None:
    context = ssl.create_default_context(cafile=room.authority.ca_file)
    context.load_cert_chain(*room.authority.client_files)
    assert b"200 OK" in handshake(room, context)


def test_an_engine_refuses_who_has_no_certificate(room: Classroom) -> None:
    context = ssl.create_default_context(cafile=room.authority.ca_file)
    with pytest.raises(ssl.SSLError, match=r"(?i)certificate"):
        handshake(room, context)


def test_an_engine_refuses_the_certificate_of_another_course(room: Classroom, tmp_path: Path) -> None:
    other = authority(tmp_path / "other", "other")
    assert other
    context = ssl.create_default_context(cafile=room.authority.ca_file)
    context.load_cert_chain(*other.client_files)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        handshake(room, context)


def test_an_engine_without_tls_is_closed(room: Classroom) -> None:
    for host in room.hosts:
        with room.lab.namespace.entered(), pytest.raises(ConnectionRefusedError):
            socket.create_connection((host.address, 2375), timeout=10)


def test_the_authoritys_key_never_left_the_trainers_computer(room: Classroom) -> None:
    secret = (room.tool.home / "course" / "generic" / "ca-key.pem").read_text().splitlines()[1]
    for host in room.hosts:
        found = host.run("grep", "-rlF", secret, "/etc", "/var/lib/cloudscale", "/root", "/home", "/tmp", check=False)
        assert (found.returncode, found.stdout) == (1, "")


def test_an_engine_has_the_courses_settings(room: Classroom) -> None:
    settings = json.loads(room.hosts[0].run("cat", "/etc/docker/daemon.json").stdout)
    assert settings["no-new-privileges"] is True
    assert settings["icc"] is False
    assert settings["mtu"] == 1500
    assert settings["log-opts"] == {"max-size": "10m", "max-file": "3"}


def test_no_password_or_hash_can_be_read_on_a_host(room: Classroom) -> None:
    host = room.hosts[0]
    seen = host.run("ps", "axeww").stdout + docker(host, "inspect", *docker(host, "ps", "-q").split())
    seen += host.run("journalctl", "-u", "docker", "-o", "cat").stdout
    for row in room.table.rows:
        assert row["password"] not in seen
    assert "argon2" not in seen
