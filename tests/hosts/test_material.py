"""The trainer's files in the students' work folders, on a real engine: given once, and never over a student's work."""

from __future__ import annotations

import json
from pathlib import Path

import docker
import pytest

from tests.hosts.conftest import JENNIFER, MARTY, Roster, seat_containers
from tests.lab.jupyter_client import Student
from tests.lab.repositories import commit
from tests.lab.tool import Result, Tool

NOTEBOOK = {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "material"
    (made / "data").mkdir(parents=True)
    (made / "lesson.ipynb").write_text(json.dumps(NOTEBOOK))
    (made / "data" / "a.txt").write_text("one")
    (made / "run.sh").write_text("#!/bin/sh\necho ran\n")
    (made / "run.sh").chmod(0o755)
    return made


def states(result: Result) -> list[tuple[str, int, int]]:
    assert result.code == 0, result.err
    return [(row["state"], row["files"], row["conflicts"]) for row in result.rows]


def test_material_reaches_all_and_what_a_student_changed_stays(
    tool: Tool, roster: Roster, client: docker.DockerClient, folder: Path
) -> None:
    launched = tool.launch(*roster(MARTY, JENNIFER), "--material", str(folder))
    marty, jennifer = (Student(row["url"], row["password"]) for row in launched.rows)
    assert marty.read("data/a.txt") == jennifer.read("data/a.txt") == "one"

    def distribute(source: object = folder, *words: str) -> Result:
        return tool("distribute", str(source), "--format", "json", *words)

    again = distribute()
    assert states(again) == [("unchanged", 0, 0)] * 2 and "nothing was sent" in again.err
    owner = tool(
        "com_containers", "cd ~/work && find . -not -user $(id -un) && ./run.sh && stat -c %a run.sh data/a.txt"
    )
    assert [block.split() for block in owner.out.split("==")[2::2]] == [["ran", "755", "644"]] * 2

    # one works on her files, the other plants links; then there is a new version
    assert marty.save("data/a.txt", "mine") == 200
    seat = client.containers.get(seat_containers(client)["3"])
    assert seat.exec_run(["sh", "-c", "cd ~/work && rm -r data && ln -s /tmp data && ln -sf /tmp/b.txt b.txt"])[0] == 0
    (folder / "data" / "a.txt").write_text("two")
    (folder / "b.txt").write_text("new")
    third = distribute()
    assert states(third) == [("conflicts", 2, 1), ("conflicts", 1, 2)]
    assert marty.read("data/a.txt") == "mine" and marty.read("data/a (new).txt") == "two"
    assert "Marty McFly: data/a.txt: changed by the student; the new version is a (new).txt" in third.err
    assert "Jennifer O'Parker: data/a.txt: 'data' is not a folder" in third.err
    assert seat.exec_run("find /tmp -name '?.txt'")[1] == b"" and jennifer.read("b (new).txt") == "new"
    assert states(distribute()) == [("conflicts", 0, 1), ("conflicts", 0, 2)]
    assert states(distribute(folder, "--force", "--only", "1")) == [("updated", 1, 0)]
    assert marty.read("data/a.txt") == "two"

    # a repository, for a student whose seat does not run, too
    commit(folder.parent / "course", {"day1/more.txt": "three"})
    assert tool("containers_reset", "--yes", "--only", "1").code == 0
    from_git = distribute((folder.parent / "course").as_uri(), "--path", "day1", "--into", "lectures")
    assert states(from_git) == [("updated", 1, 0)] * 2 and jennifer.read("lectures/more.txt") == "three"
    missing = distribute("/nowhere")
    assert missing.code == 2 and "does not exist" in missing.err


def test_a_shared_folder_can_be_read_and_not_written_and_changes_without_a_restart(
    tool: Tool, roster: Roster, client: docker.DockerClient, tmp_path: Path
) -> None:
    (data := tmp_path / "data").mkdir()
    (data / "a.txt").write_text("one")
    (data / "old.txt").write_text("old")

    def launch(**environment: str) -> Result:
        return tool.launch(*roster(MARTY), **environment)

    shared = {"INVOKE_CLOUDSCALE_SEAT_SHARED": str(data)}
    launched = launch(**shared)
    marty = Student(launched.rows[0]["url"], launched.rows[0]["password"])
    assert marty.read("shared/a.txt") == "one" and marty.save("shared/a.txt", "mine") != 200
    before = seat_containers(client)
    assert "nothing was sent" in launch(**shared).err

    (data / "a.txt").write_text("two!")
    (data / "old.txt").unlink()
    assert "sent 4 bytes to 1 of 1 machines" in launch(**shared).err
    assert marty.read("shared/a.txt") == "two!" and marty.read("shared/old.txt") is None
    assert seat_containers(client) == before
    collected = tool("collect", "--output", str(tmp_path / "work"), "--format", "json")
    assert collected.code == 0 and collected.rows[0]["files"] == 0

    role = {"label": "cloudscale.role=shared"}
    assert client.volumes.list(filters=role) and "restarts without the shared folder" in launch().err
    assert client.volumes.list(filters=role) == []
