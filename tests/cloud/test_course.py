"""The whole course on a real cloud: from a clouds.yaml to a table, through what goes wrong, to an empty project."""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.cloud.classroom import Project, Trainer, cloud_tool
from tests.cloud.conftest import STATE
from tests.lab.attacks import Place, attacks_that_work
from tests.lab.caddy_image import load_caddy_image
from tests.lab.cloud import LabCloud
from tests.lab.cloud_seed import BLANK, DOCKER, STOCK
from tests.lab.engine import LabEngine
from tests.lab.faults import Fault, FaultyCloud
from tests.lab.jupyter_client import Student

pytestmark = pytest.mark.timeout(3000)  # seconds; the first test waits for the whole launch

# more than one machine takes, and no more than that: each seat takes its time
STUDENTS = ["1;Marty;McFly;", "2;Emmett;Brown;e.brown@thefuture.io", "3;Jennifer;O'Parker;"]
MARK = "cloudscale:course"
# one fault at each kind of call that a launch makes, of several kinds; all of them happen to the one course below
FAULTS = [
    Fault("POST", r"/v3/auth/tokens$", "503"),
    Fault("GET", r"/servers/detail$", "500", after=1),
    Fault("GET", r"/limits$", "502"),
    Fault("GET", r"/os-server-groups$", "503"),
    Fault("GET", r"/flavors", "429", retry_after=1),
    Fault("GET", r"/v2.0/ports$", "drop_before", after=1),
    Fault("GET", r"/v2.0/floatingips$", "401"),
    Fault("GET", r"/v2.0/quotas/", "503"),
    Fault("GET", r"/v2/images", "500"),
    Fault("POST", r"/v2.0/security-groups$", "drop_after"),
    Fault("POST", r"/v2.0/security-group-rules$", "drop_after"),
    Fault("POST", r"/v2.0/ports$", "drop_after"),
    Fault("POST", r"/v2.0/floatingips$", "drop_after"),
    Fault("POST", r"/os-server-groups$", "500"),
    Fault("POST", r"/servers$", "drop_after"),
    Fault("POST", r"/servers$", "500"),
    Fault("POST", r"/servers/[^/]+/action$", "504"),
    Fault("PUT", r"/tags/", "429", times=2, retry_after=1),
]


class Room:
    """The course, launched again and again because the tool was killed, and the project that it is in."""

    def __init__(self, cloud: LabCloud, faulty: FaultyCloud, trainer: Trainer) -> None:
        self.cloud = cloud
        self.faulty = faulty
        self.trainer = trainer
        self.project = Project(cloud)
        self.strangers = self._strangers()
        faulty.add(*FAULTS)
        trainer.write(*STUDENTS)
        trainer.cut_off(lambda said: self.project.marked(MARK).get("ports"), "a port is made")
        trainer.cut_off(lambda said: self.project.marked(MARK).get("servers"), "a server is made")
        self.begun = {server.name: server.id for server in self.project.marked(MARK)["servers"]}
        trainer.cut_off(lambda said: "setting up its engine" in said, "an engine is set up")
        self.table = trainer.launch()

    def _strangers(self) -> dict[str, set[str]]:
        """What others have in the project, as like the course's own as can be."""
        with self.cloud.namespace.entered():
            client = self.project.client()
            network, compute = client.network, client.compute
            own = network.find_network("course-net", ignore_missing=False)
            public = network.find_network("public", ignore_missing=False)
            port = network.create_port(network_id=own.id, name="course-1", description="cloudscale:course-2")
            network.create_ip(floating_network_id=public.id, description="cloudscale")
            network.create_security_group(name="course", description="not of cloudscale:course")
            server = compute.create_server(
                name="course-1",
                image_id=client.image.find_image(BLANK, ignore_missing=False).id,
                flavor_id=compute.find_flavor("m1.tiny", ignore_missing=False).id,
                networks=[{"port": port.id}],
                tags=["cloudscale:course-2"],
            )
            compute.wait_for_server(server, wait=120)
            compute.create_server_group(name="cloudscale:course-2", policy="soft-anti-affinity")
        return ids(self.project.look())

    def clear(self) -> None:
        """The project as it was before all this."""
        with self.cloud.namespace.entered():
            client = self.project.client()
            network, compute = client.network, client.compute
            for server in list(compute.servers()):
                compute.delete_server(server)
                compute.wait_for_delete(server, wait=120)
            own = {"project_id": client.current_project_id}
            for ip in network.ips(**own):
                network.delete_ip(ip)
            for port in network.ports(name="course-1", **own):
                network.delete_port(port)
            for security_group in network.security_groups(name="course", **own):
                network.delete_security_group(security_group)
            for server_group in compute.server_groups():
                compute.delete_server_group(server_group)

    @property
    def rows(self) -> list[dict[str, Any]]:
        return self.table.rows

    def reaches(self, address: str, port: int) -> bool:
        with self.cloud.namespace.entered():
            try:
                socket.create_connection((address, port), timeout=3).close()
            except TimeoutError:
                return False
            except ConnectionRefusedError:
                return True
        return True


def ids(found: dict[str, dict[str, Any]]) -> dict[str, set[str]]:
    return {kind: set(things) for kind, things in found.items()}


@pytest.fixture(scope="module")
def room(cloud: LabCloud, cloud_engine: LabEngine, tiny_image: str) -> Iterator[Room]:
    home = STATE / "cloud-course"
    home.mkdir()
    faulty = FaultyCloud(cloud.clouds_yaml, cloud.namespace)
    tool = cloud_tool(cloud, cloud_engine, home, faulty.clouds_yaml, {"IMAGE": DOCKER})
    made = Room(cloud, faulty, Trainer(tool, cloud, home, "course", "--image", tiny_image))
    yield made
    made.clear()
    faulty.close()


# --- what stands after the first launch ------------------------------------------------------


def test_a_launch_that_was_killed_and_met_faults_comes_up_all_the_same(room: Room) -> None:
    assert [row["state"] for row in room.rows] == ["ready"] * len(STUDENTS)
    assert {row["node"] for row in room.rows} == {"course-1", "course-2"}
    assert [fault for fault, fired in room.faulty.faults.items() if fired < (fault.times or 1)] == []


def test_nothing_was_made_twice_and_what_was_begun_was_used(room: Room) -> None:
    found = room.project.marked(MARK)
    assert {kind: len(things) for kind, things in found.items()} == {
        "servers": 2,
        "ports": 2,
        "floating IPs": 2,
        "security groups": 1,
        "server groups": 1,
    }
    assert [server.name for server in found["servers"]] == ["course-1", "course-2"]
    assert room.begun.items() <= {server.name: server.id for server in found["servers"]}.items()


def test_students_are_let_in_with_their_own_passwords_only(room: Room) -> None:
    with room.cloud.namespace.entered():
        first, second = room.rows[:2]
        assert Student(first["url"], first["password"]).is_let_in
        assert not Student(first["url"], second["password"]).is_let_in
        other = next(row for row in room.rows if row["node"] == "course-2")
        assert Student(other["url"], other["password"]).save("work.txt", "mine") == 201


def test_just_the_ports_of_seats_are_open_to_students(room: Room) -> None:
    address = room.rows[0]["host"]
    used = {row["port"] for row in room.rows}
    assert used == {4321, 4322}
    assert all(room.reaches(address, port) for port in (22, 2376, *used))
    assert not any(room.reaches(address, port) for port in (80, 2377, 4320, 4323, 7946))


def test_the_first_login_was_verified_by_the_console(room: Room) -> None:
    assert "new host key" not in room.table.err
    lines = (room.trainer.tool.home / "course" / "openstack" / "known_hosts").read_text().splitlines()
    assert {line.split()[0] for line in lines} >= {server.id for server in room.project.marked(MARK)["servers"]}


def test_nothing_secret_is_in_user_data_or_metadata(room: Room) -> None:
    done = room.trainer.do(
        "com_node",
        "sudo cat /var/lib/cloud/instance/user-data.txt; curl -s 169.254.169.254/openstack/latest/meta_data.json",
    )
    assert "cloud-boothook" in done.out and "cloudscale.key" in done.out
    folder = room.trainer.tool.home / "course" / "openstack"
    secrets = [
        path.read_text().strip() for path in folder.iterdir() if path.suffix != ".pub" and path.name != "known_hosts"
    ]
    words = {line for secret in secrets for line in secret.splitlines() if len(line) > 40}
    assert words
    assert not any(word in done.out for word in words)
    assert not any(row["password"] in done.out for row in room.rows)
    assert base64.b64encode(b"PRIVATE KEY").decode() not in done.out and "PRIVATE KEY" not in done.out


def test_seats_reach_neither_the_metadata_service_nor_the_machines(room: Room) -> None:
    machine = room.trainer.do(
        "com_node", "curl -s -m 5 -o /dev/null -w '%{http_code}' http://169.254.169.254/openstack"
    )
    assert machine.out.count("200") == 2
    closed = closed_to_seats(room)
    probe = f"""import socket
for place in {closed}:
    try:
        socket.create_connection(place, 3)
        print('reached', place)
    except OSError:
        pass"""
    done = room.trainer.do("com_containers", f'python3 -c "{probe}"', "--format", "json")
    assert [(block["exit_code"], block["stdout"]) for block in json.loads(done.out)] == [(0, "")] * len(STUDENTS), (
        done.out
    )


def closed_to_seats(room: Room) -> list[Place]:
    addresses = [port.fixed_ips[0]["ip_address"] for port in room.project.marked(MARK)["ports"]]
    return [("169.254.169.254", 80), *((address, port) for address in addresses for port in (22, 2376, 2377, 7946))]


def test_nothing_that_a_student_tries_gets_out_of_a_seat(room: Room) -> None:
    with room.cloud.namespace.entered():
        assert attacks_that_work(room.rows[0], closed_to_seats(room)) == []


def test_a_machine_with_an_engine_in_its_image_loses_its_copied_identity(room: Room) -> None:
    look = "sudo find /var/lib/docker/swarm; sudo cat /etc/docker/key.json"
    machines = room.trainer.do("com_node", look, "--format", "json").rows
    assert len(machines) == 2
    for machine in machines:
        assert "swarm/worker" in machine["stdout"]
        assert "swarm/cloned" not in machine["stdout"]
        assert json.loads(room.cloud.engine_key)["kid"] not in machine["stdout"]


def test_another_run_changes_nothing(room: Room) -> None:
    before = ids(room.project.look())
    again = room.trainer.launch("--until", "2099-12-01 18:00Z")
    assert again.rows == room.rows
    assert "nothing was changed" in again.err
    assert ids(room.project.look()) == before
    assert "cloudscale.until:2099-12-01T18:00:00Z" in room.project.marked(MARK)["security groups"][0].tags


def test_a_plan_makes_nothing_and_says_what_it_takes(room: Room) -> None:
    before = ids(room.project.look())
    room.trainer.write(*STUDENTS, *(f"{number};Late;Comer {number};" for number in range(4, 9)))
    empty = {f"INVOKE_CLOUDSCALE_OPENSTACK_{key}": "" for key in ("IMAGE", "USER", "NETWORK", "EXTERNAL_NETWORK")}
    plan = room.trainer.tool(
        *("themachine", "--students", str(room.trainer.roster), "--plan", "--course", room.trainer.course), **empty
    )
    room.trainer.write(*STUDENTS)
    assert plan.code == 0, plan.err
    assert "openstack.image is empty: 'debian-13" in plan.err  # found by themselves
    assert "openstack.network is empty: 'course-net' is taken, the only network." in plan.err
    assert "openstack.external_network is empty: 'public' is taken, the only one." in plan.err
    assert "course-3" in plan.out and "floating IPs" in plan.out
    assert ids(room.project.look()) == before


def test_too_small_a_quota_is_reported_before_anything_is_made(room: Room) -> None:
    before = ids(room.project.look())
    room.cloud.set_quota(instances=4, cores=4, floatingip=4)
    try:
        result = room.trainer.launch("--nodes", "5", code=2)
    finally:
        room.cloud.reset_quota()
    table = {line.split("  ")[0]: line.split()[-3:] for line in result.err.splitlines() if line[:1].isalpha()}
    assert table["servers"] == ["3", "3", "4"]
    assert table["cores"] == ["3", "3", "4"]
    assert table["floating IPs"] == ["3", "3", "4"]
    assert "memory (MiB)" not in table
    assert "1 more machines" in result.err
    assert ids(room.project.look()) == before


@pytest.mark.parametrize(
    ("key", "wrong", "there"),
    [
        ("IMAGE", "debian-31", DOCKER),
        ("FLAVOR", "m1.smal", "m1.small"),
        ("EXTERNAL_NETWORK", "publik", "public"),
    ],
)
def test_what_is_misspelt_is_reported_with_what_is_available(room: Room, key: str, wrong: str, there: str) -> None:
    result = room.trainer.tool(  # of a course without machines, which would be looked at first
        *("themachine", "--plan", "--nodes", "1", "--onlycreate", "--course", "none"),
        **{f"INVOKE_CLOUDSCALE_OPENSTACK_{key}": wrong},
    )
    assert result.code == 2
    assert wrong in result.err and there in result.err


# --- what happens to it ----------------------------------------------------------------------


def test_behind_a_gateway_one_floating_ip_is_enough(room: Room, cloud_engine: LabEngine) -> None:
    load_caddy_image(cloud_engine.client, STATE / "caddy")  # no registry is reached from there
    folder = room.trainer.tool.home / "course" / "openstack"
    address = next(row["host"] for row in room.rows if row["node"] == "course-1")
    room.trainer.tool.environment["INVOKE_CLOUDSCALE_GATEWAY_TLS"] = "internal"
    first = room.trainer.launch("--gateway", "path")
    assert [ip.floating_ip_address for ip in room.project.marked(MARK)["floating IPs"]] == [address]
    assert {urlsplit(row["url"]).netloc for row in first.rows} == {address}
    assert room.reaches(address, 443) and not room.reaches(address, 4321)

    room.trainer.write(*STUDENTS, "4;Late;Comer;")
    room.table = room.trainer.launch()  # the other machine is reached through the first one by now
    assert "Gateway: unchanged" in room.table.err
    assert [row["state"] for row in room.rows] == ["ready"] * 4
    assert {row["node"] for row in room.rows} == {"course-1", "course-2"}
    with room.cloud.namespace.entered():
        trusted = str(folder / "web-ca.pem")
        for row in room.rows:
            assert Student(row["url"], row["password"], trusted).is_let_in
        assert not Student(room.rows[0]["url"], room.rows[1]["password"], trusted).is_let_in
    assert room.trainer.do("com_node", "hostname").out.count("course-") >= 2


def test_a_machine_that_was_deleted_is_made_again_at_the_same_address(room: Room) -> None:
    # the worst one to lose: the only manager, which has the gateway, and through which the other one is reached
    (gone,) = (server for server in room.project.marked(MARK)["servers"] if server.name == "course-1")
    with room.cloud.namespace.entered():
        client = room.project.client()
        client.compute.delete_server(gone)
        client.compute.wait_for_delete(gone, wait=120)
        stock = client.image.find_image(STOCK, ignore_missing=False)
    room.trainer.tool.environment["INVOKE_CLOUDSCALE_OPENSTACK_IMAGE"] = stock.name  # this one has no engine
    again = room.trainer.launch()
    places = ("student", "host", "port", "password", "node", "state")
    assert [[row[key] for key in places] for row in again.rows] == [[row[key] for key in places] for row in room.rows]
    servers = room.project.marked(MARK)["servers"]
    assert len(servers) == 2
    assert [server.name for server in servers if server.image.id == stock.id] == [gone.name]
    trusted = str(room.trainer.tool.home / "course" / "openstack" / "web-ca.pem")
    with room.cloud.namespace.entered():
        for row in room.rows:
            assert Student(row["url"], row["password"], trusted).is_let_in
        other = next(row for row in room.rows if row["node"] != gone.name)
        assert Student(other["url"], other["password"], trusted).read("work.txt") == "mine"


def test_a_server_in_error_is_replaced_up_to_a_limit_and_reported(room: Room) -> None:
    with room.cloud.namespace.entered():
        compute = room.cloud.connect().compute
        huge = compute.create_flavor(name="m1.huge", ram=900_000, vcpus=1, disk=5)
    home = room.trainer.tool.home
    tool = cloud_tool(room.cloud, None, home, room.cloud.clouds_yaml, {"FLAVOR": "m1.huge"})
    none = Trainer(tool, room.cloud, home, "none", "--nodes", "1", "--onlycreate")
    room.cloud.set_quota(ram=-1)
    try:
        result = none.launch(code=1)
    finally:
        room.cloud.reset_quota()
        with room.cloud.namespace.entered():
            compute.delete_flavor(huge)
    assert result.err.count("replacing its server") == 2
    assert "No valid host" in result.err
    none.reset()
    assert Project(room.cloud).marked("cloudscale:none") == {}


# --- and its end -----------------------------------------------------------------------------


def test_in_the_end_nothing_is_left_but_what_others_have(room: Room) -> None:
    other = Trainer(room.trainer.tool, room.cloud, room.trainer.tool.home, "other", "--nodes", "1", "--onlycreate")
    room.trainer.tool.environment["INVOKE_CLOUDSCALE_OPENSTACK_IMAGE"] = BLANK  # it need not boot
    made = {"servers", "floating IPs"}  # the address comes last
    other.cut_off(lambda said: made <= room.project.marked(other.mark).keys(), "a server and its address are made")
    with room.cloud.namespace.entered():
        compute = room.project.client().compute
        (server,) = room.project.marked(other.mark)["servers"]
        compute.wait_for_server(server, wait=120)
    others = {kind: [thing.id for thing in things] for kind, things in room.project.marked(other.mark).items()}
    assert {"servers", "ports", "security groups"} <= others.keys()
    said = room.trainer.reset()
    assert "nothing of the course" in said.err
    left = ids(room.project.look())
    expected = {kind: found | set(others.get(kind, ())) for kind, found in room.strangers.items()}
    assert left == expected
    assert not (room.trainer.tool.home / "course").exists()
    other.reset()
    assert ids(room.project.look()) == room.strangers
