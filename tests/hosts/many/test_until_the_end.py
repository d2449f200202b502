"""What happens to the machines of a course: changed, rebooted, lost, found again; and in the end left as they were."""

from __future__ import annotations

import io
import re
import shutil
from pathlib import Path

import pytest

from cloudscale.course.folder import CourseFolder
from cloudscale.drivers.generic import Generic
from cloudscale.fanout import fan_out
from cloudscale.hosts.target import Target
from cloudscale.images import chains
from cloudscale.images.delivery import Delivery, Sources
from cloudscale.images.recipes import RECIPE, reference
from tests.hosts.classroom import STUDENTS, Classroom, are_three_managers, docker, layers, snapshot, until
from tests.lab.engine import LabEngine
from tests.lab.hosts import LabHost


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


def test_an_address_that_a_host_gives_itself_is_not_signed(room: Classroom) -> None:
    host = room.hosts[0]
    host.run("ip", "address", "add", "192.0.2.77/24", "dev", "host0")
    host.run("rm", "/etc/docker/cloudscale/cert.pem")  # so that it needs another one
    try:
        launched = room.launch()
    finally:
        host.run("ip", "address", "del", "192.0.2.77/24", "dev", "host0")
    assert {row["state"] for row in launched.rows} == {"ready"}
    assert room.authority.names(certificate_of(host)) == {host.address, "127.0.0.1"}


def certificate_of(host: LabHost) -> bytes:
    return host.run("cat", "/etc/docker/cloudscale/cert.pem").stdout.encode()


def test_a_machine_that_dropped_out_of_the_swarm_joins_again(room: Classroom) -> None:
    docker(room.hosts[2], "swarm", "leave", "--force")
    assert room.launch().out == room.table.out
    until("the machines are not three managers again", lambda: are_three_managers(room.hosts[0]))


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

    def all_ready() -> bool:  # a new leader knows a node only after its next heartbeat
        return docker(room.hosts[0], "node", "ls", "--format", "{{.Status}}").split().count("Ready") == 3

    until("not all nodes are ready", all_ready)


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
    until("the machines are not three managers again", lambda: are_three_managers(lost))


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


@pytest.mark.parametrize("is_broken", [False, True])
def test_an_image_goes_through_the_machines_in_a_chain_and_round_a_link_that_is_broken(
    room: Classroom, image: str, is_broken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stage of a launch alone, so that both machines wait for it at the same time."""
    monkeypatch.setattr(chains, "GATHERING", 5.0)
    name = "cloudscale/chain:1"  # which no registry is asked for
    first, *others = room.hosts
    docker(first, "tag", image, name)
    for host, other in (others, others[::-1]):
        docker(host, "image", "rm", "--force", *docker(host, "image", "ls", "--quiet", "--no-trunc").split())
        if is_broken:
            host.run("iptables", "-I", "INPUT", "-s", other.address, "-p", "tcp", "--dport", "22", "-j", "REJECT")
    messages: list[str] = []
    try:
        with room.lab.namespace.entered():
            deliver(room, name, messages)
    finally:
        for host, other in (others, others[::-1]) if is_broken else ():
            host.run("iptables", "-D", "INPUT", "-s", other.address, "-p", "tcp", "--dport", "22", "-j", "REJECT")
    assert len({layers(host, name) for host in room.hosts}) == 1
    links = re.findall(r"copying it from (\S+) to (\S+)", "\n".join(messages))
    assert links[0][0] == first.address
    assert links[1] == (links[0][1], ({host.address for host in others} - {links[0][1]}).pop())
    assert links[2:] == ([(first.address, links[1][1])] if is_broken else [])
    assert not any("this computer" in message for message in messages)
    for host in room.hosts:
        docker(host, "tag", name, image)
        docker(host, "image", "rm", name)
        assert "cloudscale-" not in host.run("cat", "/home/debian/.ssh/authorized_keys").stdout
        assert host.run("find", "/dev/shm", "/run", "-name", "cloudscale[.-]*").stdout == ""


def deliver(room: Classroom, name: str, messages: list[str]) -> None:
    targets = {host.address: Target(host.address, user="debian", key_file=room.lab.key) for host in room.hosts}
    driver = Generic(targets, CourseFolder("course", room.tool.home / "course" / "generic"), messages.append)
    surveys = fan_out(driver.survey, driver.machines(), name=lambda machine: machine.name).get()
    engines = [driver.connect(survey.machine) for survey in surveys]
    sources = Sources(lambda: None, engines=engines[:1], copy=driver.copy_image)
    delivery = Delivery(name, "course", sources, bytes_done=lambda done, of: None, say=messages.append)
    fan_out(lambda pair: delivery.deliver(*pair), zip(engines, surveys, strict=True)).get()


def test_the_machines_that_have_an_image_of_the_trainer_are_listed(
    room: Classroom, engine: LabEngine, image: str
) -> None:
    text = f"FROM {image}\nLABEL {RECIPE}=1\n"
    engine.client.images.build(fileobj=io.BytesIO(text.encode()), tag=reference("mine"), rm=True)
    try:
        done = room.tool("themachine", "--onlycreate", "--image", "mine")
        assert done.code == 0, done.err
        (row,) = (row for row in room.on("image_list").rows if row["image"] == "mine")
    finally:
        engine.client.images.remove(reference("mine"))
    assert row["machines"] == [host.address for host in room.hosts]
    assert "docker.io" not in room.lab.queries.read_text()


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
