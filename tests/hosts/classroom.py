"""A course on the lab's hosts, as the tests of the driver `generic` use it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cloudscale.engines.certificates import Authority, authority
from cloudscale.waiting import poll
from tests.lab.engine import LabEngine
from tests.lab.hosts import LabHost, LabHosts
from tests.lab.jupyter_client import Student
from tests.lab.tool import Result, Tool

PATIENCE = 120  # seconds for what happens by itself: a host that boots, a swarm that notices
STUDENTS = [f"{number};Student;No {number};" for number in range(1, 7)]


class Classroom:
    """Three hosts, the tool that knows them, and the table of its first run."""

    def __init__(self, tool: Tool, hosts: LabHosts, folder: Path) -> None:
        self.tool = tool
        self.lab = hosts
        self.hosts = hosts.hosts
        self.roster = folder / "students.csv"
        self.write(*STUDENTS)
        self.before = [snapshot(host) for host in self.hosts]
        self.table = self.launch()

    def write(self, *lines: str) -> None:
        self.roster.write_text("\n".join(lines) + "\n")

    def launch(self, *flags: str, code: int = 0) -> Result:
        result = self.tool("themachine", "--students", str(self.roster), "--format", "json", *flags)
        assert result.code == code, result.err
        return result

    def on(self, task: str, *words: str) -> Result:
        return self.tool(task, *words, "--format", "json")

    @property
    def authority(self) -> Authority:
        found = authority(self.tool.home / "course" / "generic", "course", create=False)
        assert found
        return found

    def student(self, row: dict[str, str], password: str | None = None) -> Student:
        with self.lab.namespace.entered():
            return Student(row["url"], password or row["password"])


def snapshot(host: LabHost) -> dict[str, set[str]]:
    """What a course must not change for good."""
    files = host.run("find", "/etc", "/usr/local", "/opt", "/var/lib", "-xdev").stdout
    noise = ("/var/lib/apt", "/var/lib/dpkg", "/var/lib/systemd", "/var/lib/docker", "/var/lib/containerd")
    return {
        "packages": host.packages(),
        # an empty folder of dpkg's own, which it takes along with the last package that had something in it
        "files": {f for f in files.splitlines() if not f.startswith(noise) and f != "/etc/apparmor.d/disable"},
        "rules": {r for r in host.run("iptables-save").stdout.splitlines() if r.startswith("-")},
        "devices": {line.split(":")[1].split("@")[0] for line in host.run("ip", "-o", "link").stdout.splitlines()},
        "groups": set(host.run("cut", "-d:", "-f1", "/etc/group").stdout.split()),
        "forwarding": {host.run("cat", "/proc/sys/net/ipv4/ip_forward").stdout},
    }


def generic_tool(engine: LabEngine, lab_hosts: LabHosts, home: Path, image: str, hosts: list[str]) -> Tool:
    settings = {
        "INVOKE_CLOUDSCALE_DRIVER": "generic",
        "INVOKE_CLOUDSCALE_IMAGE": image,
        "INVOKE_CLOUDSCALE_GENERIC_HOSTS": ",".join(hosts),
        "INVOKE_CLOUDSCALE_GENERIC_KFILE": str(lab_hosts.key),
        "HOME": str(home),  # no keys and known hosts of the machine's user
    }
    return Tool(engine, home, settings, lab_hosts.namespace)


def docker(host: LabHost, *words: str) -> str:
    return host.run("docker", *words).stdout.strip()


def layers(host: LabHost, image: str) -> str:
    return docker(host, "image", "inspect", "--format", "{{.RootFS.Layers}}", image)


def until(what: str, step: Callable[[], bool]) -> None:
    """Fails with `what` if the step stays false."""
    assert poll(step, timeout=PATIENCE, interval=0.5), what


def are_three_managers(host: LabHost) -> bool:
    """As one of them knows it. A manager learns by and by how the others are; a new leader, at their next heartbeat."""
    roles = docker(host, "node", "ls", "--format", "{{.Status}} {{.ManagerStatus}}").splitlines()
    return sorted(role.strip() for role in roles) == ["Ready Leader", "Ready Reachable", "Ready Reachable"]
