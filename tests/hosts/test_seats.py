"""What a class and its trainer see of a course that stands: three students on this computer."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import signal
import stat
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest
import requests

from cloudscale.course.passwords import Passwords
from cloudscale.seats import jupyter
from tests.hosts.conftest import EMMETT, JENNIFER, MARTY, STATE, seat_containers, services
from tests.lab.attacks import ATTACKS, Place, attack, attacks_that_work
from tests.lab.engine import LabEngine
from tests.lab.jupyter_client import Student
from tests.lab.tool import PROJECT, Result, Tool
from tests.lab.websockets import Page


@dataclass(frozen=True)
class Standing:
    """`flags` name the roster; `launched` is what the first launch said."""

    flags: tuple[str, ...]
    launched: Result

    @property
    def rows(self) -> list[dict[str, Any]]:
        return self.launched.rows


@pytest.fixture(scope="module")
def tool(engine: LabEngine, image: str) -> Iterator[Tool]:
    used = Tool(engine, STATE / "seats", {"INVOKE_CLOUDSCALE_IMAGE": image})
    yield used
    left = used("driver_reset", "--yes")
    assert left.code == 0, left.err


@pytest.fixture(scope="module")
def course(tool: Tool, tmp_path_factory: pytest.TempPathFactory) -> Standing:
    roster = tmp_path_factory.mktemp("seats") / "students.csv"
    roster.write_text("\n".join([MARTY, EMMETT, JENNIFER]) + "\n", encoding="utf-8")
    flags = ("--students", str(roster))
    return Standing(flags, tool.launch(*flags))


def test_each_student_gets_a_server_that_lets_in_nobody_else(course: Standing) -> None:
    rows = course.rows
    assert [row["student"] for row in rows] == ["Marty McFly", "Emmett Brown", "Jennifer O'Parker"]
    assert [(row["port"], row["state"]) for row in rows] == [(4321, "ready"), (4322, "ready"), (4323, "ready")]
    assert len({row["password"] for row in rows}) == 3
    for row in rows:
        assert Student(row["url"], row["password"]).is_let_in
        others = [other["password"] for other in rows if other is not row]
        for wrong in (None, "", "wrong", row["password"].upper(), *others):
            assert not Student(row["url"], wrong).is_let_in


def test_a_second_run_changes_nothing_and_says_so(tool: Tool, course: Standing, client: docker.DockerClient) -> None:
    before = (seat_containers(client), {id: s.attrs["Version"] for id, s in services(client).items()})
    second = tool.launch(*course.flags)
    assert second.out == course.launched.out
    assert "nothing was changed" in second.err and "nothing was changed" not in course.launched.err
    assert (seat_containers(client), {id: s.attrs["Version"] for id, s in services(client).items()}) == before


def test_what_is_on_a_card_opens_its_students_seat(tool: Tool, course: Standing, tmp_path: Path) -> None:
    file = tmp_path / "cards.html"
    made = tool("cards", "--output", str(file), "--format", "json")
    assert made.code == 0, made.err
    assert [row["student"] for row in made.rows] == ["Emmett Brown", "Jennifer O'Parker", "Marty McFly"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    urls, passwords = (re.findall(card, file.read_text()) for card in (r'href="([^"]*)"', r"<dd [^>]*>([^<]+)</dd>"))
    assert len(urls) == len(passwords) == len(course.rows)
    assert all(Student(url, password).is_let_in for url, password in zip(urls, passwords, strict=True))


def test_no_secret_is_where_it_can_be_seen(
    tool: Tool, course: Standing, client: docker.DockerClient, engine: LabEngine
) -> None:
    passwords = [row["password"] for row in course.rows]
    api: Any = client.api
    seen = {
        "services": str([service.attrs for service in client.services.list()]),
        "tasks": str(api.tasks()),
        "containers": str([container.attrs for container in client.containers.list()]),
        "secrets": str([secret.attrs for secret in client.secrets.list()]),
        "volumes": str(api.volumes()),
        "logs": "".join(container.logs().decode() for container in client.containers.list()),
        "arguments": subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, text=True, check=True).stdout,
        "environment inside": tool("com_containers", "cat /proc/1/environ | tr '\\0' '\\n'; env").out,
        "engine's log": (engine.folder / "log").read_text(),
        "progress": course.launched.err,
    }
    for place, text in seen.items():
        assert not [password for password in passwords if password in text], place
        assert "argon2:" not in text and "$argon2" not in text, place
    # the hash is handed over, readable by the student alone
    inside = tool("com_containers", "stat -c '%a %U' /etc/jupyter/jupyter_server_config.json", "--only", "1")
    assert inside.out.splitlines()[1] == "400 jovyan"


def test_a_seat_is_limited_and_pinned_and_carries_the_marks(course: Standing, client: docker.DockerClient) -> None:
    container = client.containers.get(seat_containers(client)["1"])
    host = container.attrs["HostConfig"]
    assert (host["NanoCpus"], host["Memory"], host["PidsLimit"]) == (10**9, 2 << 30, 512)
    assert host["CapDrop"] == ["ALL"]
    assert container.labels["cloudscale.course"] == "course" and container.labels["cloudscale.student"] == "1"
    (volume,) = client.volumes.list(filters={"label": "cloudscale.student=1"})
    assert len(client.volumes.list()) == len(client.containers.list()) == len(course.rows)
    assert volume.attrs["Labels"] == {
        "cloudscale.course": "course",
        "cloudscale.student": "1",
        "cloudscale.port": "4321",
    }
    (node,) = client.nodes.list()
    assert node.attrs["Spec"]["Labels"]["cloudscale.course"] == "course"
    secrets = client.secrets.list()
    labels = [secret.attrs["Spec"]["Labels"] for secret in secrets]
    assert [label["cloudscale.course"] for label in labels] == ["course"] * (len(course.rows) + 1)  # one for all seats


def test_nothing_that_a_student_tries_gets_out_of_a_seat(
    course: Standing, client: docker.DockerClient, image: str
) -> None:
    marty, _, jennifer = course.rows
    assert Student(jennifer["url"], jennifer["password"]).save("diary.txt", "private") == 201
    assert attacks_that_work(marty) == []
    (volume,) = client.volumes.list(filters={"label": "cloudscale.student=3"})
    found = json.loads(without_walls(client, image, volume.name, [("127.0.0.1", marty["port"])]))
    assert [attack for attack, works in found.items() if not works] == []


def without_walls(client: docker.DockerClient, image: str, volume: str, places: Sequence[Place]) -> str:
    """What the same prints where nothing protects the machine from it: to show that each attack can work."""
    api: Any = client.api
    rights = ["SYS_ADMIN", "NET_RAW", "MKNOD", "SYS_CHROOT", "SYS_NICE", "SETUID", "SYSLOG"]
    host = api.create_host_config(
        binds=[f"{volume}:/home/other:ro", "/dev/null:/run/docker.sock"],
        cap_add=rights,
        security_opt=["seccomp=unconfined", "apparmor=unconfined"],
        pid_mode="host",
        network_mode="host",
        shm_size="256m",
    )
    command = f"python3 - {attack(places, disk=100)} <<'END'\n{ATTACKS}\nEND"
    made = api.create_container(
        image, ["-c", command], entrypoint="sh", user="0", host_config={**host, "MaskedPaths": [], "ReadonlyPaths": []}
    )
    try:
        api.start(made["Id"])
        api.wait(made["Id"], timeout=120)
        return str(api.logs(made["Id"]).decode())
    finally:
        api.remove_container(made["Id"], force=True)


def test_details_say_how_each_seat_is_doing_and_asking_is_no_activity(tool: Tool, course: Standing) -> None:
    page = Page(course.rows[0])
    kernel = page.ask("POST", "/api/kernels", json={}).json()["id"]
    try:
        plain, detailed, again = (
            tool("status", *words, "--format", "json").rows for words in ((), ("--details",), ("--details",))
        )
    finally:
        page.ask("DELETE", f"/api/kernels/{kernel}")
    keys = [*plain[0], "memory", "cpu", "kernels", "last_activity", "restarts"]
    assert [list(row) for row in detailed] == [keys] * 3
    assert [{key: row[key] for key in plain[0]} for row in detailed] == plain
    assert [row["kernels"] for row in detailed] == [1, 0, 0]
    assert all(2**20 < row["memory"] < 2 << 30 and 0 <= row["cpu"] < 2 for row in detailed)
    assert [row["last_activity"] for row in again[1:]] == [row["last_activity"] for row in detailed[1:]]
    assert "free disk" in tool("status", "--details").out


def test_what_the_tool_shows_a_seat_opens_nothing_but_its_status(tool: Tool, course: Standing) -> None:
    marty, emmett, _ = course.rows
    key = bytes.fromhex((tool.home / "course" / "local" / "key").read_text())
    headers = {jupyter.STATUS_HEADER: Passwords(key).status_pass("1")}

    def status(path: str, method: str = "GET", seat: dict[str, Any] = marty) -> int:
        answer = requests.request(method, seat["url"] + path, headers=headers, timeout=30, allow_redirects=False)
        return answer.status_code

    assert status("/api/status") == 200
    assert status("/api/status", seat=emmett) == 403
    for path in ("/api/kernels", "/api/contents", "/api/terminals", "/api/me", "/api/sessions", "/api//status"):
        assert status(path) in (403, 404), path
    assert status("/api/kernels", "POST") == 403


def test_the_watch_goes_on_until_ctrl_c_and_then_ends_well(tool: Tool, course: Standing) -> None:
    master, terminal = pty.openpty()
    environment = {**tool.environment, "TERM": "xterm", "COLUMNS": "100", "LINES": "30"}
    watch = subprocess.Popen(
        tool.command("status", "--watch"),
        cwd=PROJECT,
        env=environment,
        stdout=terminal,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a run in the background ignores it
    )
    try:
        os.close(terminal)
        shown, deadline = "", time.monotonic() + 60
        while "3 of 3 seats ready" not in shown or " / 2.0 GiB" not in shown:
            assert time.monotonic() < deadline, shown[-2000:]
            shown += os.read(master, 65536).decode(errors="replace")
        watch.send_signal(signal.SIGINT)
        deadline = time.monotonic() + 10
        with contextlib.suppress(OSError):  # the terminal's end
            # or its last screen would wait for somebody to read it
            while time.monotonic() < deadline and select.select([master], [], [], 5)[0]:
                os.read(master, 65536)
        assert watch.wait(5) == 0
    finally:
        watch.kill()
        watch.wait()
        os.close(master)


def test_commands_reach_every_seat_whatever_one_of_them_does(tool: Tool, course: Standing) -> None:
    done = tool(
        "com_containers",
        "id -u; echo out; echo err >&2",
        "--format",
        "json",
    )
    assert done.code == 0
    assert [(row["exit_code"], row["stdout"], row["stderr"]) for row in done.rows] == [(0, "1000\nout\n", "err\n")] * 3
    assert tool("com_containers", "touch ~/work/one", "--only", "2").code == 0
    done = tool("com_containers", "test -e ~/work/one && sleep 100", "--timeout", "2", "--format", "json")
    assert done.code == 1
    assert [row["exit_code"] for row in done.rows] == [1, 124, 1]
    assert "ended after 2 s" in done.rows[1]["stderr"]
    assert "emmett-brown" in done.err and "124" in done.err


def test_a_command_that_leaves_a_child_behind_does_not_hang(tool: Tool, course: Standing) -> None:
    done = tool("com_containers", "sleep 300 & echo started", "--only", "1", "--timeout", "2")
    assert done.out.splitlines()[1] == "started"


def test_another_key_does_not_change_everybodys_password(tool: Tool, course: Standing, tmp_path: Path) -> None:
    refused = tool("themachine", *course.flags, CLOUDSCALE_HOME=str(tmp_path / "elsewhere"))
    assert refused.code == 2 and "another key" in refused.err
    assert tool.launch(*course.flags).rows == course.rows


def test_the_result_goes_to_a_file_for_its_owner_alone(tool: Tool, course: Standing, tmp_path: Path) -> None:
    target = tmp_path / "seats.csv"
    target.write_text("old")
    target.chmod(0o644)
    done = tool("themachine", *course.flags, "--format", "csv", "--output", str(target))
    assert target.read_text() == done.out and target.stat().st_mode & 0o777 == 0o600
    refused = tool("themachine", *course.flags, "--output", str(tmp_path / "no/such/file"))
    assert refused.code == 2


def test_com_node_runs_on_this_computer(tool: Tool) -> None:
    done = tool("com_node", 'echo "it\'s $((6 * 7))"; exit 3', "--format", "json")
    assert done.code == 1
    assert [(row["exit_code"], row["stdout"]) for row in done.rows] == [(3, "it's 42\n")]


CHECK_KEYS = {"student", "url", "state", "step", "seconds", "cause"}
KERNEL = "/usr/local/share/jupyter/kernels/python3/kernel.json"


def test_a_check_does_what_every_student_will_do_and_leaves_nothing(tool: Tool, course: Standing) -> None:
    def inside() -> object:
        found = "find / -xdev -name '*cloudscale-check*' 2>/dev/null; ls -A ~/work; ps -o args | grep '[i]pykernel'"
        rows = tool("com_containers", found, "--format", "json").rows
        sessions = [Page(row).ask("GET", "/api/sessions").json() for row in course.rows]
        return [row["stdout"] for row in rows], sessions

    before = inside()
    checked = tool("check", "--format", "json")
    assert checked.code == 0, checked.err
    assert all(set(row) == CHECK_KEYS for row in checked.rows)
    assert [(row["student"], row["url"], row["state"], row["step"], row["cause"]) for row in checked.rows] == [
        (row["student"], row["url"], "ok", "", "") for row in course.rows
    ]
    assert inside() == before


def test_a_check_names_the_seat_whose_kernel_does_not_start(
    tool: Tool, course: Standing, client: docker.DockerClient
) -> None:
    marty = client.containers.get(seat_containers(client)["1"])
    marty.exec_run(["cp", KERNEL, "/tmp/kernel.json"], user="0")
    marty.exec_run(["sed", "-i", 's|"argv": \\[|&"/no/such/program",|', KERNEL], user="0")
    try:
        assert "ready" in tool("status", "--only", "1").out  # the server is well
        launched = tool("themachine", "--check", "--format", "json", *course.flags)
        checked = tool("check", "--format", "json")
    finally:
        marty.exec_run(["cp", "/tmp/kernel.json", KERNEL], user="0")
    assert [(row["state"], row["step"]) for row in checked.rows] == [("failed", "kernel"), ("ok", ""), ("ok", "")]
    assert "/no/such/program" in checked.rows[0]["cause"]
    for result in (checked, launched):
        assert result.code == 1
        assert "Marty McFly: kernel: " in result.err and "Emmett" not in result.err.partition("Failed:")[2]
    assert launched.rows == course.rows  # its table is as ever


def test_one_seat_restarts_or_gets_another_password_and_no_other_does(
    tool: Tool, course: Standing, client: docker.DockerClient
) -> None:
    """The last one: it changes a row for good."""
    marty, before = course.rows[0], seat_containers(client)
    login = Student(marty["url"], marty["password"])
    assert login.save("notes.txt", "mine") == 201
    restarted = tool("seat_restart", "marty", "--format", "json")
    assert restarted.code == 0, restarted.err
    assert restarted.rows == [{key: value for key, value in marty.items() if key != "password"}]
    again = Student(marty["url"], marty["password"])
    assert not login.is_let_in and again.read("notes.txt") == "mine"

    renewed = tool("seat_password", "McFly", "--format", "json")
    assert renewed.code == 0, renewed.err
    (row,) = renewed.rows
    assert row == {**marty, "password": row["password"]} and row["password"] != marty["password"]
    assert not again.is_let_in and not Student(marty["url"], marty["password"]).is_let_in
    assert Student(row["url"], row["password"]).read("notes.txt") == "mine"
    after = seat_containers(client)
    assert [id for id in before if before[id] != after[id]] == ["1"]

    assert tool("containers_reset", "--yes").code == 0
    assert tool.launch(*course.flags).rows == [row, *course.rows[1:]]
    refused = tool("seat_password", "r")  # of whom there are three
    assert refused.code == 2 and "3 Jennifer O'Parker" in refused.err
    refused = tool("seat_move", "1", "--to", row["node"])
    assert refused.code == 2 and "one machine" in refused.err
