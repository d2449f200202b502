"""What a class and its trainer see of a course that stands: three students on this computer."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest

from tests.hosts.conftest import EMMETT, JENNIFER, MARTY, STATE, seat_containers, services
from tests.lab.engine import LabEngine
from tests.lab.jupyter_client import Student
from tests.lab.tool import Result, Tool


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
