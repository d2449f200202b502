"""The students' work: collected from real volumes, whatever is in it, and restored into another class."""

from __future__ import annotations

import csv
import hashlib
import os
import signal
import subprocess
import time
from pathlib import Path

import docker
import pytest

from tests.hosts.conftest import EMMETT, MARTY, Roster, seat_containers, services
from tests.lab.jupyter_client import Student
from tests.lab.tool import PROJECT, Tool

# what Marty does in his own seat
ODD = r"""
import os, socket
os.chdir("/home/jovyan/work")
with open("huge.bin", "wb") as file:
    file.truncate(2**40)
os.symlink("/etc/passwd", "passwd")
os.symlink("..", "up")
os.mkfifo("pipe")
socket.socket(socket.AF_UNIX).bind("socket")
for name in (b"two\nlines", b"bad\xff", b"notes.txt", b"Notes.txt", b"=cmd()"):
    with open(name, "wb") as file:
        file.write(name)
os.makedirs("a/b")
with open("a/b/run.sh", "w") as file:
    file.write("echo")
os.chmod("a/b/run.sh", 0o755)
"""
WHOLE = {"two%0Alines", "bad%FF", "%6Eotes.txt", "Notes.txt", "=cmd()", "a/b/run.sh"}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "work"


def manifest(out: Path) -> list[dict[str, str]]:
    with (out / "manifest.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def inside(client: docker.DockerClient, student: str, program: str) -> None:
    container = client.containers.get(seat_containers(client)[student])
    code, output = container.exec_run(["python3", "-c", program])
    assert code == 0, output


def helpers(client: docker.DockerClient) -> list[str]:
    found = client.containers.list(all=True, filters={"label": "cloudscale.role=helper"})
    return [str(container.id) for container in found]


def test_the_work_of_a_class_goes_on_in_another(
    tool: Tool, roster: Roster, client: docker.DockerClient, out: Path
) -> None:
    file = roster(MARTY, EMMETT)
    rows = tool.launch(*file).rows
    inside(client, "1", ODD)
    assert Student(rows[1]["url"], rows[1]["password"]).save("work.txt", "flux") == 201

    first = tool("collect", "--output", str(out), "--format", "json")
    assert first.code == 1 and "huge.bin" in first.err and "passwd" in first.err
    assert [(row["student"], row["state"]) for row in first.rows] == [
        ("Marty McFly", "incomplete"),
        ("Emmett Brown", "collected"),
    ]
    listed = {row["path"].partition("/")[2] for row in manifest(out) if row["id"] == "1"}
    assert listed == WHOLE
    for row in manifest(out):
        assert hashlib.sha256((out / row["path"]).read_bytes()).hexdigest() == row["sha256"]
        assert not (out / row["path"]).is_symlink()
    assert out.stat().st_mode & 0o77 == 0 and helpers(client) == []

    refused = tool("driver_reset", "--yes", "--collect", str(out))
    assert refused.code == 1 and "nothing was removed" in refused.err and len(client.volumes.list()) == 2
    inside(client, "1", "import os; os.unlink('/home/jovyan/work/huge.bin')")
    services(client)["2"].scale(0)  # the seat is stopped

    again = tool("collect", "--output", str(out), "--format", "json")
    assert again.code == 0, again.err
    assert [row["state"] for row in again.rows] == ["unchanged"] * 2 and "0 of them are new" in again.err

    gone = tool("driver_reset", "--yes")
    assert gone.code == 0 and "collected" not in gone.err, "all work was collected"
    assert client.volumes.list() == []
    rows = tool.launch(*file).rows
    back = tool("restore", str(out), "--format", "json")
    assert back.code == 0, back.err
    assert [(row["state"], row["files"]) for row in back.rows] == [("restored", 6), ("restored", 1)]
    inside(client, "1", "import os; os.chdir('/home/jovyan/work'); open(b'two\\nlines', 'a').close()")
    inside(client, "1", "import os; assert os.access('/home/jovyan/work/a/b/run.sh', os.X_OK)")
    assert Student(rows[1]["url"], rows[1]["password"]).read("work.txt") == "flux"


def test_what_a_student_wrote_since_is_named_and_not_overwritten(
    tool: Tool, roster: Roster, client: docker.DockerClient, out: Path
) -> None:
    rows = tool.launch(*roster(MARTY, EMMETT)).rows
    emmett = Student(rows[1]["url"], rows[1]["password"])
    emmett.save("work.txt", "old")
    assert "2 students have work that was never collected" in tool("containers_reset", "--volumes").err
    assert tool("collect", "--output", str(out)).code == 0
    assert "collected" not in tool("containers_reset", "--volumes").err
    emmett.save("work.txt", "new")
    assert "changed since it was collected (Emmett Brown)" in tool("containers_reset", "--volumes").err

    conflict = tool("restore", str(out))
    assert conflict.code == 1 and "Emmett Brown: not restored: 1 file different there (work.txt)" in conflict.err
    assert emmett.read("work.txt") == "new"
    assert tool("restore", str(out), "--force").code == 0
    assert emmett.read("work.txt") == "old"


def test_a_collection_that_was_killed_is_continued(
    tool: Tool, roster: Roster, client: docker.DockerClient, out: Path
) -> None:
    tool.launch(*roster(MARTY))
    inside(client, "1", "for n in range(3000): open(f'/home/jovyan/work/{n}', 'w').write(str(n))")
    process = subprocess.Popen(
        tool.command("collect", "--output", str(out)),
        cwd=PROJECT,
        env=tool.environment,
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while sum(len(names) for *_, names in os.walk(out)) < 500 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=60)
    there = (
        sum(len(names) for *_, names in os.walk(out)) - 2
    )  # without the manifest and the one that was being received

    done = tool("collect", "--output", str(out), "--format", "json")
    assert done.code == 0 and done.rows[0]["files"] == 3000, done.err
    sent = int(done.err.partition("; ")[2].partition(" of them")[0])
    assert 500 <= there <= 3000 - sent
    assert sorted(os.listdir(out)) == sorted({"manifest.csv", manifest(out)[0]["path"].partition("/")[0]})
    assert tool("containers_reset", "--yes", "--volumes").code == 0
    assert client.volumes.list() == [] and helpers(client) == []
