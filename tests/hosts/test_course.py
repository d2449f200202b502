"""A whole course on this computer: launched, used, changed, broken, continued, and removed."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import docker
import pytest

from tests.hosts.conftest import EMMETT, JENNIFER, MARTY, Roster, seat_containers, services
from tests.lab.jupyter_client import Student
from tests.lab.tool import Tool


def test_the_next_run_puts_right_just_what_is_wrong(tool: Tool, roster: Roster, client: docker.DockerClient) -> None:
    first = tool.launch(*roster(MARTY, EMMETT, JENNIFER)).rows
    before = seat_containers(client)
    client.containers.get(before["1"]).kill()
    services(client)["2"].remove()
    again = tool.launch(*roster(MARTY, EMMETT, JENNIFER, "4;Biff;Tannen;"))
    assert again.rows[:3] == first
    assert again.rows[3]["port"] == 4324
    assert "2 created, 0 updated, 2 unchanged" in again.err
    after = seat_containers(client)
    assert after["3"] == before["3"]
    assert after["1"] != before["1"] and after["2"] != before["2"]


@pytest.mark.parametrize("drift", ["stopped", "limit"])
def test_a_seat_that_somebody_changed_is_put_right(
    tool: Tool, roster: Roster, client: docker.DockerClient, drift: str
) -> None:
    file = roster(MARTY, EMMETT)
    tool.launch(*file)
    service = services(client)["2"]
    if drift == "stopped":
        service.scale(0)
    else:
        service.update(resources=docker.types.Resources(mem_limit=300 << 20))
    again = tool.launch(*file)
    assert "0 created, 1 updated, 1 unchanged" in again.err
    resources = services(client)["2"].attrs["Spec"]["TaskTemplate"]["Resources"]
    assert resources["Limits"]["MemoryBytes"] == 2 << 30


def test_a_changed_limit_or_environment_reaches_every_seat(tool: Tool, roster: Roster) -> None:
    file = roster(MARTY, EMMETT)
    first = tool.launch(*file).rows
    again = tool.launch(*file, "--env", "LECTURE=one two", INVOKE_CLOUDSCALE_SEAT_PIDS="77")
    assert again.rows == first
    assert "0 created, 2 updated, 0 unchanged" in again.err
    done = tool(
        "com_containers", 'echo "$LECTURE"; cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/pids/pids.max', "--only", "1"
    )
    assert done.out.splitlines()[1:3] == ["one two", "77"]


def test_students_keep_port_and_password_when_others_come_and_go(tool: Tool, roster: Roster) -> None:
    first = {row["student"]: row for row in tool.launch(*roster(MARTY, EMMETT, JENNIFER)).rows}
    kept = tool.launch(*roster("0;Early;Bird", JENNIFER))
    assert "Marty McFly, Emmett Brown (--prune" in kept.err
    assert [row["port"] for row in kept.rows] == [4324, 4323]
    pruned = tool.launch(*roster(JENNIFER, "0;Early;Bird"), "--prune")
    assert pruned.rows[0] == first["Jennifer O'Parker"]
    assert [row["student"] for row in json.loads(tool("status", "--format", "json").out)] == [
        "Jennifer O'Parker",
        "Early Bird",
    ]
    back = tool.launch(*roster(MARTY, EMMETT, JENNIFER)).rows
    assert {row["student"]: row for row in back} == first


def test_work_survives_a_reset_and_only_volumes_takes_it(tool: Tool, roster: Roster) -> None:
    file = roster(MARTY, EMMETT)
    first = tool.launch(*file).rows
    marty = Student(first[0]["url"], first[0]["password"])
    assert marty.save("work.txt", "flux") == 201

    assert tool("containers_reset").code == 2, "there is no terminal to ask on"
    assert tool("containers_reset", "--yes").code == 0
    assert json.loads(tool("status", "--format", "json").out) == []
    second = tool.launch(*roster(EMMETT, MARTY)).rows
    assert sorted(second, key=str) == sorted(first, key=str), "the same ports, whatever the order"
    marty = Student(first[0]["url"], first[0]["password"])
    assert marty.read("work.txt") == "flux"

    assert tool("containers_reset", "--yes", "--volumes", "--only", "Marty McFly").code == 0
    third = tool.launch(*roster(MARTY, EMMETT)).rows
    assert third == first
    assert Student(first[0]["url"], first[0]["password"]).read("work.txt") is None


def test_driver_reset_leaves_no_trace(tool: Tool, roster: Roster, client: docker.DockerClient) -> None:
    networks = {network.name for network in client.networks.list()}
    tool.launch(*roster(MARTY, EMMETT))
    assert tool("driver_reset").code == 2, "there is no terminal to ask on"
    assert len(seat_containers(client)) == 2
    gone = tool("driver_reset", "--yes")
    assert gone.code == 0, gone.err
    assert client.info()["Swarm"]["LocalNodeState"] == "inactive"
    left = [(container.name, container.status, container.labels) for container in client.containers.list(all=True)]
    assert left == [] and client.volumes.list() == []
    assert {network.name for network in client.networks.list()} == networks
    assert not list(tool.home.glob("*"))
    assert tool("driver_reset", "--yes").code == 0, "twice is as good as once"


def test_two_courses_share_an_engine_and_the_end_of_one_does_not_touch_the_other(
    tool: Tool, roster: Roster, client: docker.DockerClient, tmp_path: Path
) -> None:
    until = datetime.now(UTC) + timedelta(seconds=10)
    mine = tool.launch(*roster(MARTY), "--until", until.isoformat(timespec="seconds")).rows
    other = tool.launch(*roster(MARTY), "--course", "other").rows
    assert other[0]["port"] == 4322 and other[0]["password"] != mine[0]["password"]
    assert Student(mine[0]["url"], mine[0]["password"]).save("work.txt", "flux") == 201
    before = seat_containers(client, "other")

    time.sleep(max(0.0, (until - datetime.now(UTC)).total_seconds()))
    for task in (["com_node", "true"], ["containers_reset"]):
        assert "deadline of the course 'course' was" in tool(*task).err
    reap = ("reap", "--yes", "--output", str(tmp_path / "work"))
    reaped = tool(*reap, "--format", "json")
    assert {row["course"]: row["state"] for row in reaped.rows} == {"course": "removed", "other": "kept"}, reaped.err
    assert "stays" in reaped.err
    (work,) = (tmp_path / "work").rglob("work.txt")
    assert work.read_text() == "flux"
    assert seat_containers(client) == {} and seat_containers(client, "other") == before
    again = tool(*reap)
    assert (again.code, again.out, again.err) == (0, "", ""), "cron mails whatever a job prints"

    assert tool("driver_reset", "--yes", "--course", "other").code == 0
    assert client.info()["Swarm"]["LocalNodeState"] == "inactive", "the last course dissolves the swarm"


def test_what_lacks_the_mark_is_left_alone(tool: Tool, roster: Roster, client: docker.DockerClient, image: str) -> None:
    client.swarm.init(advertise_addr="127.0.0.1", listen_addr="127.0.0.1:2377")
    try:
        client.volumes.create("course-1-457718c874")
        task = docker.types.ContainerSpec(image, command=["sleep", "1000"])
        api: Any = client.api
        api.create_service(docker.types.TaskTemplate(task), name="somebodys")
        tool.launch(*roster(MARTY, EMMETT))
        tool.launch(*roster(EMMETT), "--prune")
        assert tool("containers_reset", "--yes", "--volumes").code == 0
        assert tool("driver_reset", "--yes").code == 0
        assert [service.name for service in client.services.list()] == ["somebodys"]
        assert client.info()["Swarm"]["ControlAvailable"], "the swarm was somebody else's"
        assert client.nodes.list()[0].attrs["Spec"]["Labels"] == {}
        assert "course-1-457718c874" in [volume.name for volume in client.volumes.list()]
    finally:
        client.swarm.leave(force=True)
        for volume in client.volumes.list():
            volume.remove(force=True)
        for network in client.networks.list(names=["docker_gwbridge"]):
            network.remove()


def test_an_interrupted_launch_is_continued(tool: Tool, roster: Roster, client: docker.DockerClient) -> None:
    file = roster(*(f"{n};Student;Number {n}" for n in range(8)))
    for wait_for in ("Plan:", "Machines:", "Seats:"):
        process = subprocess.Popen(
            tool.command("themachine", *file),
            cwd=Path(__file__).parents[2],
            env=tool.environment,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        assert process.stderr
        for line in process.stderr:
            if wait_for in line:
                break
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=60)
        assert process.returncode == 130
        assert "Interrupted" in rest and "Traceback" not in rest
    assert [row["state"] for row in tool.launch(*file).rows] == ["ready"] * 8
    assert len(client.services.list()) == 8
