"""A class on VMs of the trainer's own computer, emulated by QEMU: made, broken, repaired, and gone without a trace."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.hosts.conftest import STATE
from tests.lab.attacks import attacks_that_work
from tests.lab.caddy_image import load_caddy_image
from tests.lab.engine import LabEngine
from tests.lab.jupyter_client import Student
from tests.lab.tool import Result, Tool
from tests.lab.vm_image import vm_images

pytestmark = pytest.mark.timeout(2400)  # seconds; the first test waits for the whole launch

STUDENTS = "1;Marty;McFly;\n2;Jennifer;O'Parker;\n"
LOOPBACK = "127.0.0.1"


class Desk:
    """A trainer's computer with one VM made by hand, and a class on it and on a second one."""

    def __init__(self, engine: LabEngine, image: str, disk: Path, home: Path) -> None:
        self.home = home
        settings = {
            "INVOKE_CLOUDSCALE_VM_KVM": "false",
            "INVOKE_CLOUDSCALE_VM_MEMORY": "1536M",
            "INVOKE_CLOUDSCALE_SEAT_DISK": "64M",
            "HOME": str(home),
        }
        self.tool = Tool(engine, home / "secrets", settings)
        del self.tool.environment["INVOKE_CLOUDSCALE_DRIVER"]
        self.tool.timeout = 1500
        roster = home / "students.csv"
        roster.write_text(STUDENTS)
        self._disk = ("--base-image", str(disk))
        self._launch = ("--driver", "qemu", "--nodes", "2", "--students", str(roster), "--image", image, *self._disk)

    def open(self) -> None:
        self.new = self.make("dev")
        self.seen_again = self.make("dev")
        self.engine = self._engine()
        self.table = self.launch()

    def make(self, name: str) -> Result:
        """No driver is named: a VM is meant."""
        made = self.tool("machine_new", name, "--disk", "8G", *self._disk)
        assert made.code == 0, made.err
        return made

    def launch(self, *flags: str) -> Result:
        return self.tool.launch(*self._launch, *flags)

    def do(self, task: str, *words: str) -> Result:
        return self.tool(task, *words, "--driver", "qemu")

    def _engine(self) -> str:
        """The name that docker's command line finds by what machine_new says."""
        words = shlex.split(" ".join(re.findall(r"export (.*)", self.new.out)))
        environment = {**os.environ, **dict(word.split("=", 1) for word in words)}
        command = ["docker", "info", "--format", "{{.Name}}"]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()

    def processes(self) -> dict[str, int]:
        """The VMs' processes, by name."""
        found = {}
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_bytes().decode().split("\0")
            except OSError:
                continue
            if words[0].startswith("qemu-system") and any(str(self.home) in word for word in words):
                found[words[words.index("-name") + 1]] = int(path.parent.name)
        return found

    def clear(self) -> None:
        for process in self.processes().values():
            os.kill(process, signal.SIGKILL)


@pytest.fixture(scope="module")
def desk(engine: LabEngine, image: str) -> Iterator[Desk]:
    home = STATE / "desk"
    home.mkdir()
    made = Desk(engine, image, vm_images(STATE / "vm").docker, home)
    try:
        made.open()
        yield made
    finally:
        made.clear()


def test_a_machine_made_by_hand_has_an_engine_with_tls(desk: Desk) -> None:
    assert "dev is up." in desk.new.out
    assert desk.engine == "dev"
    assert "dev already exists" in desk.seen_again.out


def test_its_first_login_was_verified_by_its_console(desk: Desk) -> None:
    assert "trusted" not in desk.new.err and "new host key" not in desk.new.err


def test_the_class_is_on_both_in_one_swarm(desk: Desk) -> None:
    rows = desk.table.rows
    assert [row["state"] for row in rows] == ["ready"] * 2
    assert {row["node"] for row in rows} == {"dev", "course-1"}
    assert [row["host"] for row in rows] == [LOOPBACK] * 2
    assert len({row["port"] for row in rows}) == 2
    status = desk.do("status").out
    assert "swarm manager" in status and "swarm worker" in status


def test_students_are_let_in_with_their_own_passwords_only(desk: Desk) -> None:
    first, second = desk.table.rows[:2]
    assert Student(first["url"], first["password"]).is_let_in
    assert not Student(first["url"], second["password"]).is_let_in
    assert Student(first["url"], first["password"]).save("work.txt", "mine") == 201


def test_no_file_of_a_seat_outgrows_its_limit_and_the_seats_go_on(desk: Desk) -> None:
    assert "the disk of its seats is not limited" not in desk.new.err + desk.table.err
    fill = "for file in ~/work/big /tmp/big; do dd if=/dev/zero of=$file bs=1M count=100; wc -c <$file; rm $file; done"
    for row in desk.do("com_containers", fill, "--format", "json").rows:
        written = [int(line) for line in row["stdout"].split()]
        assert len(written) == 2 and all(40 << 20 < size <= 64 << 20 for size in written), row
        assert row["stderr"].lower().count("quota exceeded") + row["stderr"].count("No space left") == 2, row
    first = desk.table.rows[0]
    assert attacks_that_work(first, disk=100, only="disk") == []
    assert Student(first["url"], first["password"]).is_let_in


def test_a_seat_reaches_nothing_of_the_trainers_computer(desk: Desk) -> None:
    on_output: list[str] = []
    with socket.create_server((LOOPBACK, 0)) as listener:

        def listen() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    on_output.append(connection.recv(10).decode())

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        probe = "import socket,sys; socket.create_connection(('10.0.2.2', %d), 5).sendall(sys.argv[1].encode())"
        script = probe % listener.getsockname()[1]
        assert desk.do("com_node", f'python3 -c "{script}" vm').code == 0
        assert desk.do("com_containers", f'python3 -c "{script}" seat').code == 1
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)
    assert on_output == ["vm", "vm"]  # one from each


def test_after_a_power_cut_all_is_as_before(desk: Desk) -> None:
    os.kill(desk.processes()["course-1"], signal.SIGKILL)
    assert desk.do("status").code == 1
    again = desk.launch()
    assert again.rows == desk.table.rows
    first = next(row for row in again.rows if row["student"] == "Marty McFly")
    assert Student(first["url"], first["password"]).read("work.txt") == "mine"


def test_behind_a_gateway_one_forwarded_port_is_enough(desk: Desk, engine: LabEngine) -> None:
    load_caddy_image(engine.client, STATE / "caddy")  # no registry is reached from here
    rows = desk.launch("--gateway", "path").rows
    assert {urlsplit(row["url"]).netloc for row in rows} == {LOOPBACK}
    assert {row["node"] for row in rows} == {"dev", "course-1"}
    trusted = str(next((desk.home / "secrets").glob("**/web-ca.pem")))
    for row in rows:
        assert Student(row["url"], row["password"], trusted).is_let_in
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((LOOPBACK, row["port"]), 5)
    assert not Student(rows[0]["url"], rows[1]["password"], trusted).is_let_in


def test_what_is_not_there_can_not_be_removed(desk: Desk) -> None:
    result = desk.tool("machine_rm", "dove", "--yes")
    assert result.code == 2
    assert "has no VM dove" in result.err and "dev" in result.err


def test_one_goes_with_its_seats_and_then_the_others_without_a_trace(desk: Desk) -> None:
    removed = desk.tool("machine_rm", "dev", "--yes")
    assert removed.code == 0, removed.err
    assert set(desk.processes()) == {"course-1"}
    status = desk.do("status", "--format", "json").rows
    assert {row["node"] for row in status} == {"course-1"}
    done = desk.do("driver_reset", "--yes")
    assert done.code == 0, done.err
    assert desk.processes() == {}
    assert list((desk.home / "secrets").iterdir()) == []
