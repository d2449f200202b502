"""Tasks over all machines, and what a seat reaches of them and of others."""

from __future__ import annotations

import asyncio
import shutil
import signal
from pathlib import Path
from urllib.parse import urlsplit

from tests.hosts.classroom import Classroom, docker, until
from tests.hosts.conftest import STATE
from tests.lab.attacks import attacks_that_work
from tests.lab.caddy_image import load_caddy_image
from tests.lab.engine import LabEngine
from tests.lab.hosts import LabHost
from tests.lab.jupyter_client import Student
from tests.lab.namespace import run
from tests.lab.running import Running
from tests.lab.stock import GATEWAY, REPOSITORY_PORT
from tests.lab.websockets import Page, open_lines


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


def test_of_two_trainers_the_second_is_refused_until_the_first_one_ends(room: Classroom, tmp_path: Path) -> None:
    """With the same folder at two computers. The first one's run is made to last, and is then killed."""
    home = shutil.copytree(room.tool.home / "course", tmp_path / "home" / "course").parent
    launch = ("themachine", "--students", str(room.roster), "--format", "json")
    first = Running(room.tool, *launch)
    assert first.until(lambda run: "Plan:" in run.printed)
    first.send(signal.SIGSTOP)
    refused = room.tool(*launch, CLOUDSCALE_HOME=str(home))
    first.send(signal.SIGKILL)
    first.result()
    assert (refused.code, refused.out) == (1, "")
    assert "Another run is changing the course: " in refused.err
    again = room.tool(*launch, CLOUDSCALE_HOME=str(home))
    assert (again.code, again.out) == (0, room.table.out), again.err


REACHED = """import asyncio
async def tried(place):
    try:
        await asyncio.wait_for(asyncio.open_connection(*place), 3)
        return place
    except (OSError, asyncio.TimeoutError):
        return ()
async def all():
    return await asyncio.gather(*map(tried, {places}))
for place in filter(None, asyncio.run(all())):
    print(*place)"""


def seats_of(host: LabHost) -> list[str]:
    return docker(host, "ps", "-q").split()


def reached(room: Classroom, *places: tuple[str, int]) -> list[str]:
    """Which of the places each seat reaches."""
    done = room.on("com_containers", f"python3 -c '{REACHED.format(places=places).replace(chr(39), chr(34))}'")
    assert done.code == 0, done.err
    return [row["stdout"] for row in done.rows]


def test_seats_reach_neither_the_machines_nor_their_network_but_what_is_opened(room: Classroom) -> None:
    machines = [(host.address, port) for host in room.hosts for port in (22, 2376, 2377, 4321, 7946)]
    bridges = [(docker(host, "network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}"), 22)
               for host in room.hosts]  # fmt: skip
    address = "{{.NetworkSettings.Networks.bridge.IPAddress}}"
    seats = {docker(host, "inspect", "--format", address, id) for host in room.hosts for id in seats_of(host)}
    packages, names = (GATEWAY, REPOSITORY_PORT), (GATEWAY, 53)
    inside = [(seat, 8888) for seat in sorted(seats)]
    for found in reached(room, ("127.0.0.1", 8888), names, packages, *machines, *bridges, *inside):
        itself, name_server, own = found.splitlines()
        assert (itself, name_server) == ("127.0.0.1 8888", f"{GATEWAY} 53")
        assert own.split()[0] in seats  # no second one

    running = [seats_of(host) for host in room.hosts]
    opened = room.tool(
        "themachine", "--students", str(room.roster), INVOKE_CLOUDSCALE_SEAT_REACH=f"{GATEWAY}:{REPOSITORY_PORT}"
    )
    assert opened.code == 0 and opened.err.count("setting up its engine (firewall)") == 3
    assert reached(room, packages, *machines) == [f"{GATEWAY} {REPOSITORY_PORT}\n"] * 6
    assert room.launch().out == room.table.out
    assert reached(room, packages) == [""] * 6
    assert [seats_of(host) for host in room.hosts] == running


def test_nothing_that_a_student_tries_gets_out_of_a_seat(room: Classroom) -> None:
    """On the oldest engine and the newest; the first one's kind is tried on this computer."""
    places = [(host.address, port) for host in room.hosts for port in (22, 2376, 2377, 4321)]
    with room.lab.namespace.entered():
        for host in room.hosts[1:]:
            row = next(row for row in room.table.rows if row["node"] == host.address)
            assert attacks_that_work(row, places) == []


def test_behind_a_gateway_all_machines_have_one_address(room: Classroom, engine: LabEngine) -> None:
    """The others, behind the first one as a jump host, need not be reached from anywhere else."""
    load_caddy_image(engine.client, STATE / "caddy")  # no registry is reached from there
    first, *others = room.hosts
    behind = " ".join(host.address for host in others)
    login = f"User debian\n  IdentityFile {room.lab.key}\n"
    config = Path(room.tool.environment["HOME"]) / ".ssh" / "config"
    config.parent.mkdir(exist_ok=True)
    config.write_text(f"Host {behind}\n  ProxyJump {first.address}\nHost *\n  {login}")
    closed = ["OUTPUT", "-d", ",".join(host.address for host in others), "-j", "REJECT"]
    with room.lab.namespace.entered():
        run("iptables", "-I", *closed)
    try:
        rows = room.launch("--gateway", "path").rows
        assert {urlsplit(row["url"]).netloc for row in rows} == {first.address}
        assert {row["node"] for row in rows} == {host.address for host in room.hosts}
        with room.lab.namespace.entered():
            trusted = str(room.tool.home / "course" / "generic" / "web-ca.pem")
            assert all(Student(row["url"], row["password"], trusted).is_let_in for row in rows)
            assert not Student(rows[0]["url"], rows[1]["password"], trusted).is_let_in
            asyncio.run(moves_there_and_back(room, rows, trusted))
        assert room.on("com_node", "true").code == 0
    finally:
        with room.lab.namespace.entered():
            run("iptables", "-D", *closed)
        config.unlink()
    assert room.launch("--gateway", "none").out == room.table.out
    room.lab.queries.write_text("")  # a registry was asked for the gateway's program, as none is for the class's image
    assert docker(first, "volume", "ls", "--quiet", "--filter", "label=cloudscale.role=gateway") == ""


async def moves_there_and_back(room: Classroom, rows: list[dict[str, str]], trusted: str) -> None:
    """A seat, between the machines that have no gateway and whose engines are of other ages; with its work."""
    (home, away) = room.hosts[1:]
    row = next(row for row in rows if row["node"] == home.address)
    lines = [line for other in rows if other is not row for line in await open_lines(other, 2, trusted)]
    note = {"type": "file", "format": "text", "content": "mine"}
    Page(row, trusted).ask("PUT", "/api/contents/moved.txt", json=note)
    for here, there in ((home, away), (away, home)):
        moved = await asyncio.to_thread(room.on, "seat_move", row["student"], "--to", there.address)
        assert moved.code == 0, moved.err
        (now,) = moved.rows
        assert (now["url"], now["node"], now["state"]) == (row["url"], there.address, "ready")
        assert Page(row, trusted).ask("GET", "/api/contents/moved.txt").json()["content"] == "mine"
        assert [await line.answers() for line in lines] == [True] * 10
        volumes = [docker(host, "volume", "ls", "-q", "--filter", "label=cloudscale.student") for host in (here, there)]
        assert [len(listed.split()) for listed in volumes] == ([1, 3] if there is away else [2, 2])
    Page(row, trusted).ask("DELETE", "/api/contents/moved.txt")
    for line in lines:
        await line.close()
