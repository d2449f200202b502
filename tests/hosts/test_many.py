"""The whole course on three stock hosts: the driver `generic`, from an SSH key to a table, and back to bare hosts.

Their engines are of three ages, see `lab_hosts`.
"""

from __future__ import annotations

import io
import json
import shutil
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from cloudscale.engines.certificates import authority
from cloudscale.engines.client import over_tls
from cloudscale.images.recipes import RECIPE, reference
from tests.hosts.classroom import STUDENTS, Classroom, docker, generic_tool, snapshot
from tests.hosts.conftest import STATE
from tests.lab.caddy_image import load_caddy_image
from tests.lab.engine import LabEngine
from tests.lab.hosts import LabHost, LabHosts
from tests.lab.jupyter_client import Student

PATIENCE = 120  # seconds for what happens by itself: a host that boots, a swarm that notices


def until(what: str, step: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not step():
        assert time.monotonic() < deadline, what
        time.sleep(0.5)


@pytest.fixture(scope="module")
def room(engine: LabEngine, image: str, lab_hosts: LabHosts) -> Iterator[Classroom]:
    home = STATE / "many"
    home.mkdir()
    hosts = [f"debian@{host.address}" for host in lab_hosts.hosts]
    made = Classroom(generic_tool(engine, lab_hosts, home, image, hosts), lab_hosts, home)
    yield made
    for host in lab_hosts.hosts:
        if not host.is_up():
            host.start()
    left = made.tool("driver_reset", "--yes")
    assert left.code == 0, left.err


# --- what stands after the first run ---------------------------------------------------------


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
    roles = docker(room.hosts[1], "node", "ls", "--format", "{{.ManagerStatus}}").split()
    assert sorted(roles) == ["Leader", "Reachable", "Reachable"]


def layers(host: LabHost, image: str) -> str:
    return docker(host, "image", "inspect", "--format", "{{.RootFS.Layers}}", image)


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
        assert host.run("find", "/dev/shm", "/tmp", "-name", "cloudscale.*").stdout == ""


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


# --- tasks over all machines -----------------------------------------------------------------


def test_a_command_runs_on_every_machine_in_the_order_of_the_hosts(room: Classroom) -> None:
    done = room.on("com_node", 'hostname; echo it\\\'s "$0" >&2; exit 3')
    assert done.code == 1
    assert [row["target"] for row in done.rows] == [host.address for host in room.hosts]
    assert [row["stdout"].strip() for row in done.rows] == [host.name for host in room.hosts]
    assert {row["exit_code"] for row in done.rows} == {3}


def test_a_command_that_hangs_on_one_machine_is_ended_there(room: Classroom) -> None:
    slow = room.hosts[1]
    done = room.on("com_node", f"if [ $(hostname) = {slow.name} ]; then exec sleep 4321; fi", "--timeout", "3")
    assert done.code == 1
    assert [row["exit_code"] for row in done.rows] == [0, 124, 0]
    assert slow.address in done.err
    until("it still runs", lambda: slow.run("pgrep", "-f", "sleep 4321", check=False).returncode == 1)


def test_a_machine_whose_ssh_server_hangs_is_named_and_the_rest_is_done(room: Classroom) -> None:
    stuck = room.hosts[2]
    stuck.run("pkill", "-STOP", "-x", "sshd")
    try:
        done = room.on("com_node", "true", "--timeout", "3")
    finally:
        stuck.run("pkill", "-CONT", "-x", "sshd")
    assert [row["exit_code"] for row in done.rows] == [0, 0, 255]
    assert f"{stuck.address}: no answer in 3 s" in done.err


def test_some_machines_can_be_chosen_or_left_out(room: Classroom) -> None:
    first, second, third = (host.address for host in room.hosts)
    assert [row["target"] for row in room.on("com_node", "true", "--only", second).rows] == [second]
    assert [row["target"] for row in room.on("com_node", "true", "--skip", second).rows] == [first, third]
    chosen = room.on("com_containers", "hostname", "--only", second)
    assert len(chosen.rows) == 2


def test_a_command_runs_in_every_seat_of_every_machine(room: Classroom) -> None:
    done = room.on("com_containers", "id -u; yes | head -c 300000")
    assert done.code == 0, done.err
    assert [len(row["stdout"]) for row in done.rows] == [300005] * 6


def test_behind_a_gateway_all_machines_have_one_address(room: Classroom) -> None:
    first = room.hosts[0]
    with room.lab.namespace.entered():
        files = room.authority.client_files
        engine = over_tls(first.address, first.address, 2376, ca=room.authority.ca_file, certificate=files)
        caddy = load_caddy_image(engine, STATE / "caddy")
    rows = room.launch("--gateway", "path").rows
    assert {urlsplit(row["url"]).netloc for row in rows} == {first.address}
    assert {row["node"] for row in rows} == {host.address for host in room.hosts}
    with room.lab.namespace.entered():
        trusted = str(room.tool.home / "course" / "generic" / "web-ca.pem")
        assert all(Student(row["url"], row["password"], trusted).is_let_in for row in rows)
        assert not Student(rows[0]["url"], rows[1]["password"], trusted).is_let_in
    assert room.launch("--gateway", "none").out == room.table.out
    assert docker(first, "volume", "ls", "--quiet", "--filter", "label=cloudscale.role=gateway") == ""
    with room.lab.namespace.entered():
        engine.images.remove(caddy)
    engine.close()


def test_a_host_key_that_changed_is_refused_loudly(room: Classroom) -> None:
    host, file = room.hosts[1], room.tool.home / "course" / "generic" / "known_hosts"
    host.new_host_key()
    refused = room.on("com_node", "true")
    assert refused.code == 1
    assert [row["exit_code"] for row in refused.rows] == [0, 255, 0]
    assert "its host key has changed" in refused.err
    assert str(file) in refused.err
    file.write_text("".join(line for line in file.read_text().splitlines(True) if host.address not in line))
    again = room.on("com_node", "true")
    assert again.code == 0
    assert f"{host.address}: new host key" in again.err


# --- what happens in a course ----------------------------------------------------------------


def test_a_port_that_something_holds_is_passed_over(room: Classroom) -> None:
    port = 4323
    for host in room.hosts:
        host.run("systemd-run", "--unit=squatter", "python3", "-m", "http.server", str(port))
    room.write(*STUDENTS, "7;Late;Comer;")
    try:
        late = room.launch().rows[-1]
    finally:
        for host in room.hosts:
            host.run("systemctl", "stop", "squatter")
        room.write(*STUDENTS)
    assert (late["state"], late["port"]) == ("ready", port + 1)
    gone = room.launch("--prune")
    assert len(gone.rows) == 6


def test_a_host_that_reboots_comes_back_with_its_seats_and_their_work(room: Classroom) -> None:
    row = next(row for row in room.table.rows if row["node"] == room.hosts[2].address)
    assert room.student(row).save("notes.txt", "mine") == 201
    room.hosts[2].reboot()

    def is_back() -> bool:
        now = room.on("status")
        return now.code == 0 and {seat["state"] for seat in now.rows} == {"ready"}

    until("the seats are not back", is_back)
    assert room.student(row).read("notes.txt") == "mine"
    assert room.launch().out == room.table.out


def test_a_certificate_is_renewed_when_a_host_has_another_address(room: Classroom) -> None:
    host, address = room.hosts[0], "192.0.2.77"
    host.run("ip", "address", "add", f"{address}/24", "dev", "host0")
    try:
        result = room.launch()
    finally:
        host.run("ip", "address", "del", f"{address}/24", "dev", "host0")
    assert {row["state"] for row in result.rows} == {"ready"}
    certificate = host.run("cat", "/etc/docker/cloudscale/cert.pem").stdout.encode()
    assert room.authority.fault(certificate, [host.address, address]) == ""


def test_a_machine_that_dropped_out_of_the_swarm_joins_again(room: Classroom) -> None:
    docker(room.hosts[2], "swarm", "leave", "--force")
    assert room.launch().out == room.table.out
    states = docker(room.hosts[0], "node", "ls", "--format", "{{.Status}} {{.ManagerStatus}}").splitlines()
    assert sorted(states) == ["Ready Leader", "Ready Reachable", "Ready Reachable"]


def test_a_machine_with_the_identity_of_another_gets_one_of_its_own(room: Classroom) -> None:
    original, clone = room.hosts[1], room.hosts[2]
    for host in (original, clone):
        host.run("systemctl", "stop", "docker.socket", "docker")
    shutil.rmtree(clone.docker_data / "swarm")
    shutil.copytree(original.docker_data / "swarm", clone.docker_data / "swarm")
    original.run("systemctl", "start", "docker")
    clone.run("systemctl", "start", "docker")
    assert room.launch().out == room.table.out
    ids = {docker(host, "info", "--format", "{{.Swarm.NodeID}}") for host in room.hosts}
    assert len(ids) == 3
    up = docker(room.hosts[0], "node", "ls", "--format", "{{.Status}}").split()
    assert up.count("Ready") == 3


def test_a_machine_in_a_swarm_of_somebody_else_is_refused_by_name(room: Classroom) -> None:
    theirs = room.hosts[2]
    docker(theirs, "swarm", "leave", "--force")
    docker(theirs, "swarm", "init", "--advertise-addr", theirs.address)
    try:
        refused = room.launch(code=1)
        assert docker(theirs, "node", "ls", "-q").split()  # it was left alone
    finally:
        docker(theirs, "swarm", "leave", "--force")
    assert f"{theirs.address}: it belongs to a swarm of somebody else" in refused.err
    assert [row["state"] for row in refused.rows].count("ready") == 4
    assert room.launch().out == room.table.out


def test_a_lost_machine_is_named_then_replaced_and_taken_back(room: Classroom) -> None:
    lost, others = room.hosts[0], room.hosts[1:]
    lost.kill()
    room.write(*STUDENTS, "8;New;Comer;")
    named = room.launch(code=1)
    assert lost.address in named.err
    for row in named.rows:
        assert row["state"] == ("failed" if row["node"] == lost.address else "ready")
    assert [row["node"] for row in named.rows[:6]] == [row["node"] for row in room.table.rows]
    assert named.rows[-1]["node"] in [host.address for host in others]

    commanded = room.on("com_containers", "true")
    assert commanded.code == 1
    assert sorted(row["exit_code"] for row in commanded.rows) == [0, 0, 0, 0, 0, 255, 255]

    moved = room.launch("--replace-lost", code=1)
    assert {row["state"] for row in moved.rows} == {"ready"}
    assert lost.address not in [row["node"] for row in moved.rows]
    assert [row["password"] for row in moved.rows] == [row["password"] for row in named.rows]
    stayed = [row for row in named.rows if row["state"] == "ready"]
    assert all(row in moved.rows for row in stayed)

    lost.start()
    back = room.launch()
    assert back.rows == moved.rows
    assert docker(lost, "ps", "-q") == ""

    def are_three() -> bool:  # one that is promoted needs a moment
        roles = docker(lost, "node", "ls", "--format", "{{.ManagerStatus}}").split()
        return sorted(roles) == ["Leader", "Reachable", "Reachable"]

    until("the machines are not three managers again", are_three)


def test_another_course_and_another_trainer_are_refused(room: Classroom, tmp_path: Path) -> None:
    other = room.tool("themachine", "--onlycreate", "--course", "other")
    assert other.code == 1
    assert "it is in use by course 'course'" in other.err
    stranger = room.tool("themachine", "--onlycreate", CLOUDSCALE_HOME=str(tmp_path / "empty"))
    assert stranger.code == 1
    assert "other certificates" in stranger.err


@pytest.mark.parametrize("holder", [0, 1, 2])
def test_whichever_machine_has_the_image_the_others_get_it(room: Classroom, image: str, holder: int) -> None:
    assert room.tool("containers_reset", "--yes").code == 0
    for host in room.hosts[:holder] + room.hosts[holder + 1 :]:
        docker(host, "image", "rm", "--force", *docker(host, "image", "ls", "--quiet", "--no-trunc").split())
    done = room.tool("themachine", "--onlycreate")
    assert done.code == 0, done.err
    assert "from this computer" not in done.err
    assert done.err.count(f"copying it from {room.hosts[holder].address}") >= 1
    assert len({layers(host, image) for host in room.hosts}) == 1
    assert "docker.io" not in room.lab.queries.read_text()


def test_the_machines_that_have_an_image_of_the_trainer_are_listed(
    room: Classroom, engine: LabEngine, image: str
) -> None:
    text = f"FROM {image}\nLABEL {RECIPE}=1\n"
    engine.client.images.build(fileobj=io.BytesIO(text.encode()), tag=reference("mine"))
    try:
        done = room.tool("themachine", "--onlycreate", "--image", "mine")
        assert done.code == 0, done.err
        (row,) = (row for row in room.on("image_list").rows if row["image"] == "mine")
    finally:
        engine.client.images.remove(reference("mine"))
    assert row["machines"] == [host.address for host in room.hosts]
    assert "docker.io" not in room.lab.queries.read_text()


# --- the end ---------------------------------------------------------------------------------


def test_the_hosts_are_left_as_they_were(room: Classroom) -> None:
    cleared = room.tool("containers_reset", "--yes")
    assert cleared.code == 0, cleared.err
    assert {docker(host, "ps", "-q") for host in room.hosts} == {""}
    reset = room.tool("driver_reset", "--yes")
    assert reset.code == 0, reset.err
    for host, before in zip(room.hosts, room.before, strict=True):
        after = snapshot(host)
        for what, there in before.items():
            assert after[what] == there, (host.name, what)
    assert not (room.tool.home / "course").exists()
    again = room.tool("driver_reset", "--yes")
    assert (again.code, again.out.strip()) == (0, "")
