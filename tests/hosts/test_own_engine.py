"""Hosts with an engine and settings of their own, and logins that are not as easy as a key."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hosts.classroom import docker, generic_tool
from tests.lab.engine import LabEngine
from tests.lab.hosts import LabHost, LabHosts
from tests.lab.stock import LATER
from tests.lab.tool import PROJECT

OWN_SETTINGS = '{\n    "log-level": "warn",  "icc": true,\n  "live-restore": true}\n'


def write_settings(host: LabHost, settings: str) -> None:
    host.run("sh", "-c", 'mkdir -p /etc/docker; printf %s "$1" >/etc/docker/daemon.json', "-", settings)
    host.run("systemctl", "restart", "docker")


@pytest.fixture(scope="module")
def owned(lab_hosts: LabHosts) -> Iterator[LabHost]:
    """A host whose owner has an engine there, with a container in it."""
    host = lab_hosts.hosts[2]
    host.run("sh", "-c", f"apt-get -qq update && apt-get -qq -y --no-install-recommends install {LATER}")
    write_settings(host, OWN_SETTINGS)
    docker(host, "volume", "create", "precious")
    yield host
    host.run("apt-get", "-qq", "-y", "purge", "docker.io", "docker-cli", "containerd", "runc")
    host.run("rm", "-rf", "/etc/docker", "/etc/cni")


def test_an_engine_that_was_there_is_used_and_given_back_to_the_letter(
    engine: LabEngine, image: str, lab_hosts: LabHosts, owned: LabHost, tmp_path: Path
) -> None:
    tool = generic_tool(engine, lab_hosts, tmp_path, image, [f"root@{owned.address}"])
    packages, bridge = owned.packages(), owned.run("ip", "-4", "-o", "address", "show", "docker0").stdout
    roster = tmp_path / "one.csv"
    roster.write_text("1;Ann;O'Lee;\n")
    launched = tool.launch("--students", str(roster))
    assert launched.rows[0]["state"] == "ready"
    settings = json.loads(owned.run("cat", "/etc/docker/daemon.json").stdout)
    assert settings["icc"] is True  # its owner's choice
    assert settings["live-restore"] is False  # no swarm goes with it
    assert settings["tlsverify"] is True

    reset = tool("driver_reset", "--yes")
    assert reset.code == 0, reset.err
    assert owned.run("cat", "/etc/docker/daemon.json").stdout == OWN_SETTINGS
    assert owned.packages() == packages
    assert owned.run("ip", "-4", "-o", "address", "show", "docker0").stdout.split()[3] == bridge.split()[3]
    assert docker(owned, "info", "--format", "{{.LiveRestoreEnabled}} {{.Swarm.LocalNodeState}}") == "true inactive"
    assert docker(owned, "volume", "ls", "-q") == "precious"
    assert docker(owned, "images", "-q") == ""
    assert docker(owned, "ps", "-aq") == ""
    assert docker(owned, "network", "ls", "--format", "{{.Name}}").split() == ["bridge", "host", "none"]
    left = owned.run("ls", "/etc/docker", "/etc/systemd/system/docker.service.d", "/var/lib/cloudscale", check=False)
    assert "cloudscale" not in left.stdout


def test_an_engine_that_can_not_start_with_the_courses_settings_goes_on_without_them(
    engine: LabEngine, image: str, lab_hosts: LabHosts, owned: LabHost, tmp_path: Path
) -> None:
    tool = generic_tool(engine, lab_hosts, tmp_path, image, [f"root@{owned.address}"])
    owned.run("systemd-run", "--unit=squatter", "python3", "-m", "http.server", "2376")
    refused = tool("themachine", "--onlycreate")
    owned.run("systemctl", "stop", "squatter")
    assert refused.code == 1
    assert f"{owned.address}: the engine does not start" in refused.err
    assert "2376" in refused.err
    assert docker(owned, "volume", "ls", "-q") == "precious"
    assert owned.run("cat", "/etc/docker/daemon.json").stdout == OWN_SETTINGS
    assert tool("driver_reset", "--yes").code == 0


def test_a_host_in_a_swarm_of_its_own_is_left_alone(
    engine: LabEngine, image: str, lab_hosts: LabHosts, owned: LabHost, tmp_path: Path
) -> None:
    settings_of_swarm = '{"log-level": "warn"}'  # no swarm goes with live-restore
    write_settings(owned, settings_of_swarm)
    docker(owned, "swarm", "init", "--advertise-addr", owned.address)
    tool = generic_tool(engine, lab_hosts, tmp_path, image, [f"debian@{owned.address}"])
    refused = tool("themachine", "--onlycreate")
    settings = owned.run("cat", "/etc/docker/daemon.json").stdout
    docker(owned, "swarm", "leave", "--force")
    write_settings(owned, OWN_SETTINGS)
    assert refused.code == 1
    assert f"{owned.address}: it belongs to a swarm of somebody else" in refused.err
    assert settings == settings_of_swarm


METADATA = "169.254.169.254"
ITS_IPTABLES = "/usr/local/sbin/iptables"
# takes the course's rules, and does nothing with them
FORGETFUL = """#!/bin/sh
case $* in *CLOUDSCALE*) exit 0 ;; esac
exec /usr/sbin/iptables "$@\""""


@pytest.fixture
def metadata(lab_hosts: LabHosts) -> Iterator[None]:
    """What a cloud has at that address."""
    lab_hosts.namespace.run("ip", "address", "add", f"{METADATA}/32", "dev", "br0")
    command = lab_hosts.namespace.wrap(sys.executable, "-m", "http.server", "--bind", METADATA, "80")
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        yield
        server.kill()
    lab_hosts.namespace.run("ip", "address", "delete", f"{METADATA}/32", "dev", "br0")


@pytest.mark.usefixtures("metadata")
def test_a_machine_is_ready_only_if_its_firewall_holds(
    engine: LabEngine, image: str, lab_hosts: LabHosts, owned: LabHost, tmp_path: Path
) -> None:
    tool = generic_tool(engine, lab_hosts, tmp_path, image, [f"root@{owned.address}"])
    owned.run("sh", "-c", f"printf '%s\\n' '{FORGETFUL}' >{ITS_IPTABLES} && chmod +x {ITS_IPTABLES}")
    open_to_seats = tool("themachine", "--onlycreate")
    owned.run("rm", ITS_IPTABLES)
    closed = tool("themachine", "--onlycreate")
    assert tool("driver_reset", "--yes").code == 0
    assert open_to_seats.code == 1
    assert f"{owned.address}: its firewall is not in force" in open_to_seats.err
    assert closed.code == 0, closed.err
    assert "cloudscale" not in owned.run("sh", "-c", "ip netns list; ip -o link").stdout


LOCK = "import fcntl, time; f = open('/var/lib/dpkg/lock-frontend', 'w'); fcntl.lockf(f, fcntl.LOCK_EX); time.sleep({})"


def test_a_busy_package_manager_is_waited_for_and_a_run_that_was_killed_goes_on(
    engine: LabEngine, image: str, lab_hosts: LabHosts, tmp_path: Path
) -> None:
    host = lab_hosts.hosts[1]
    before = host.packages()
    tool = generic_tool(engine, lab_hosts, tmp_path, image, [f"debian@{host.address}"])
    host.run("systemd-run", "--unit=updates", "python3", "-c", LOCK.format(12))
    command = tool.command("themachine", "--onlycreate")
    with subprocess.Popen(command, cwd=PROJECT, env=tool.environment, stderr=subprocess.PIPE, text=True) as cut_off:
        assert cut_off.stderr
        next(line for line in cut_off.stderr if "setting up its engine" in line)
        time.sleep(2)
        cut_off.kill()
    assert host.run("systemctl", "is-active", "updates").stdout.strip() == "active"
    launched = tool("themachine", "--onlycreate")
    assert launched.code == 0, launched.err
    assert docker(host, "info", "--format", "{{.Swarm.LocalNodeState}}") == "active"
    assert tool("driver_reset", "--yes").code == 0
    assert host.packages() == before


def test_a_password_logs_in_and_a_sudo_that_wants_one_is_reported(
    engine: LabEngine, image: str, lab_hosts: LabHosts, tmp_path: Path
) -> None:
    host = lab_hosts.hosts[0]
    tool = generic_tool(engine, lab_hosts, tmp_path, image, [f"trainer@{host.address}"])
    tool.environment |= {"INVOKE_CLOUDSCALE_GENERIC_PWD": lab_hosts.password}
    del tool.environment["INVOKE_CLOUDSCALE_GENERIC_KFILE"]
    unknown = tool("com_node", "id -un")
    assert unknown.code == 1
    assert "so the password is not sent" in unknown.err
    (tmp_path / ".ssh").mkdir(mode=0o700)
    key = host.run("cat", "/etc/ssh/ssh_host_ed25519_key.pub").stdout
    (tmp_path / ".ssh" / "known_hosts").write_text(f"{host.address} {key}")
    done = tool("com_node", "id -un")
    assert (done.code, done.out.splitlines()[1]) == (0, "trainer")
    refused = tool("themachine", "--onlycreate")
    assert refused.code == 1
    assert "sudo asks for a password" in refused.err
    assert "NOPASSWD" in refused.err
    wrong = tool("com_node", "true", INVOKE_CLOUDSCALE_GENERIC_PWD="wrong")
    assert wrong.code == 1
    assert "the login as trainer was refused" in wrong.err
    assert lab_hosts.password not in done.err + refused.err + wrong.err


def test_a_plan_looks_at_bare_hosts_and_changes_nothing(
    engine: LabEngine, image: str, lab_hosts: LabHosts, tmp_path: Path
) -> None:
    hosts = lab_hosts.hosts[:2]
    tool = generic_tool(engine, lab_hosts, tmp_path, image, [f"debian@{host.address}" for host in hosts])
    before = [host.packages() for host in hosts]
    roster = tmp_path / "two.csv"
    roster.write_text("1;Ann;Lee;\n2;Bob;Ray;\n")
    plan = tool("themachine", "--plan", "--students", str(roster), "--format", "json")
    assert plan.code == 0, plan.err
    seats = json.loads(plan.out)["seats"]
    assert [seat["node"] for seat in seats] == [host.address for host in hosts]
    assert [host.packages() for host in hosts] == before
    assert [host.run("ls", "/var/lib/cloudscale", check=False).returncode for host in hosts] == [2, 2]


def test_one_host_under_two_names_is_reported(
    engine: LabEngine, image: str, lab_hosts: LabHosts, tmp_path: Path
) -> None:
    host = lab_hosts.hosts[0]
    host.run("ip", "address", "add", "192.0.2.78/24", "dev", "host0")
    try:
        names = [f"debian@{host.address}", "debian@192.0.2.78"]
        refused = generic_tool(engine, lab_hosts, tmp_path, image, names)("themachine", "--onlycreate")
    finally:
        host.run("ip", "address", "del", "192.0.2.78/24", "dev", "host0")
    assert refused.code == 2
    assert "are the same machine" in refused.err
