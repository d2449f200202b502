"""What the tasks do with a course that runs, and with what is in its way on the machine."""

from __future__ import annotations

import io
import socket
import time

import docker

from tests.hosts.conftest import EMMETT, MARTY, Roster, seat_containers, services
from tests.lab.engine import LabEngine
from tests.lab.jupyter_client import Student
from tests.lab.tool import Tool


def test_a_seat_that_does_not_run_is_named(tool: Tool, roster: Roster, client: docker.DockerClient) -> None:
    tool.launch(*roster(MARTY, EMMETT))
    services(client)["2"].scale(0)
    while "2" in seat_containers(client):
        time.sleep(0.1)
    done = tool("com_containers", "true", "--format", "json")
    assert done.code == 1 and [row["exit_code"] for row in done.rows] == [0, 255]
    assert "emmett-brown" in done.err
    state = tool("status", "--format", "json")
    assert [row["state"] for row in state.rows] == ["ready", "failed"] and state.code == 1


def test_status_shows_seats_without_passwords_and_makes_nothing(
    tool: Tool, roster: Roster, client: docker.DockerClient
) -> None:
    assert tool("status", "--format", "json").rows == []
    assert client.info()["Swarm"]["LocalNodeState"] == "inactive" and not list(tool.home.glob("*"))
    launched = tool.launch(*roster(MARTY, EMMETT)).rows
    for row in launched:
        del row["password"]
    assert tool("status", "--format", "json").rows == launched


def test_the_plan_makes_nothing(tool: Tool, roster: Roster, client: docker.DockerClient) -> None:
    planned = tool("themachine", *roster(MARTY, EMMETT), "--plan")
    assert planned.code == 0 and "4322" in planned.out and "1.00 GiB" in planned.out
    assert client.info()["Swarm"]["LocalNodeState"] == "inactive" and not list(tool.home.glob("*"))


def test_doctor_says_what_a_launch_will_meet_and_makes_nothing(
    tool: Tool, roster: Roster, client: docker.DockerClient
) -> None:
    file = roster(MARTY, EMMETT)
    well = tool("doctor", *file, "--format", "json")
    assert well.code == 0 and {row["state"] for row in well.rows} == {"ok"}, well.out
    assert client.info()["Swarm"]["LocalNodeState"] == "inactive" and not list(tool.home.glob("*"))
    unknown = (*file, "--image", "127.0.0.1:1/none:1")
    ill = tool("doctor", *unknown, "--format", "json")
    (wrong,) = [row for row in ill.rows if row["state"] == "wrong"]
    assert ill.code == 1 and wrong["check"] == "image"
    launched = tool("themachine", *unknown)
    assert launched.code == 1 and wrong["remedy"] in launched.err
    assert wrong["finding"].partition(":1/none:1 ")[2].partition(": ")[0] in launched.err


def test_onlycreate_makes_machines_and_swarm_but_no_seats(tool: Tool, client: docker.DockerClient) -> None:
    made = tool("themachine", "--onlycreate", "--students", "/nowhere.csv")
    assert made.code == 0, made.err
    assert client.info()["Swarm"]["ControlAvailable"] and client.services.list() == []


def test_a_port_that_something_else_holds_is_passed_over(tool: Tool, roster: Roster) -> None:
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of tests before may still time out
        holder.bind(("127.0.0.1", 4321))
        holder.listen()
        launched = tool.launch(*roster(MARTY))
    assert launched.rows[0]["port"] == 4322
    assert "Port 4321" in launched.err


def test_a_seats_port_that_was_taken_meanwhile_is_reported_and_the_next_run_goes_on(
    tool: Tool, roster: Roster, client: docker.DockerClient
) -> None:
    file = roster(MARTY, EMMETT)
    tool.launch(*file)
    services(client)["2"].scale(0)
    while "2" in seat_containers(client):
        time.sleep(0.1)
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 4322))
        holder.listen()
        failed = tool("themachine", *file, "--format", "json")
        assert failed.code == 1 and [row["state"] for row in failed.rows] == ["ready", "failed"]
        assert "Emmett Brown" in failed.err and "port 4322 is taken" in failed.err
    assert [row["state"] for row in tool.launch(*file).rows] == ["ready", "ready"]


def test_networks_of_others_keep_the_swarm_alive(tool: Tool, roster: Roster, client: docker.DockerClient) -> None:
    tool.launch(*roster(MARTY))
    network = client.networks.create("somebodys", driver="overlay", attachable=True)
    try:
        reset = tool("driver_reset", "--yes")
        assert reset.code == 0 and "stays" in reset.err
        assert "somebodys" in [network.name for network in client.networks.list()]
    finally:
        network.remove()
        client.swarm.leave(force=True)
        for bridge in client.networks.list(names=["docker_gwbridge"]):
            bridge.remove()


def test_an_image_with_volumes_of_its_own_that_runs_as_root_leaves_nothing(
    engine: LabEngine, tool: Tool, roster: Roster, client: docker.DockerClient, image: str
) -> None:
    recipe = f"FROM {image}\nUSER root\nENV HOME=/root\nWORKDIR /root\nVOLUME /data\n"
    client.images.build(fileobj=io.BytesIO(recipe.encode()), tag="rooted:test", rm=True, forcerm=True)
    try:
        (row,) = tool.launch(*roster(MARTY), "--image", "rooted:test").rows
        assert Student(row["url"], row["password"]).is_let_in
        assert not Student(row["url"], "wrong").is_let_in
        assert tool("driver_reset", "--yes").code == 0
        assert client.volumes.list() == []
    finally:
        client.images.remove("rooted:test")


def test_a_seat_that_is_down_keeps_its_port_from_other_courses(
    tool: Tool, roster: Roster, client: docker.DockerClient
) -> None:
    tool.launch(*roster(MARTY))
    services(client)["1"].scale(0)
    while seat_containers(client):
        time.sleep(0.1)
    other = tool.launch(*roster(MARTY), "--course", "other")
    assert other.rows[0]["port"] == 4322
    assert tool.launch(*roster(MARTY)).rows[0]["port"] == 4321
    assert tool("driver_reset", "--yes", "--course", "other").code == 0


def test_a_reset_tells_what_it_did_not_remove(
    tool: Tool, roster: Roster, client: docker.DockerClient, image: str
) -> None:
    tool.launch(*roster(MARTY))
    (volume,) = client.volumes.list()
    holder = client.containers.create(image, volumes={volume.name: {"bind": "/x"}})
    try:
        reset = tool("driver_reset", "--yes", "--format", "json")
        assert reset.code == 1 and f"The volume {volume.name}" in reset.err and "in use" in reset.err
        assert [row["target"] for row in reset.rows] == ["course-marty-mcfly-6005c39d0c"]
    finally:
        holder.remove(force=True)
