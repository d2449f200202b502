"""The script of the first boot, run in a folder that stands for the machine, with no other programs to call."""

from __future__ import annotations

import fcntl
import subprocess
import threading
from pathlib import Path

import pytest

from cloudscale.engines.setup import TLS
from cloudscale.hosts.firewall import SCRIPT
from cloudscale.hosts.first_login import host_keys
from tests.unit.script_host import COURSE, Host, succeeded

pytestmark = pytest.mark.usefixtures("processes")

UNITS = "/etc/systemd/system"
FIREWALL = f"{UNITS}/cloudscale-firewall.service"


@pytest.fixture
def host(tmp_path: Path) -> Host:
    host = Host(tmp_path / "host")
    host.write("dev/console")
    return host


def program(host: Host, name: str, script: str = "") -> None:
    path = host.root / "bin" / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def asked(host: Host, name: str) -> list[str]:
    return [call.removeprefix(f"{name} ") for call in host.calls if call.startswith(f"{name} ")]


# --- before anything starts ------------------------------------------------------------------


@pytest.mark.parametrize("unit", ["service", "socket"])
def test_an_engine_waits_for_its_certificates(host: Host, unit: str) -> None:
    assert succeeded(host.boot())
    assert host.read(f"{UNITS}/docker.{unit}.d/cloudscale.conf").splitlines() == [
        "[Unit]",
        f"ConditionPathExists={host.root}{TLS}/key.pem",
    ]
    assert "daemon-reload" in asked(host, "systemctl")


def test_a_clone_loses_the_identity_of_its_original_and_keeps_its_images(host: Host) -> None:
    for name in ("/etc/docker/key.json", "/var/lib/docker/swarm/state.json", "/var/lib/docker/image/lab"):
        host.write(name)
    host.write("/etc/docker/daemon.json", "{}")
    assert succeeded(host.boot())
    assert not host.has("/etc/docker/key.json")
    assert not host.has("/var/lib/docker/swarm")
    assert host.has("/var/lib/docker/image/lab")
    assert host.has("/etc/docker/daemon.json")


def test_the_engine_needs_the_firewall_and_starts_after_it(host: Host) -> None:
    assert succeeded(host.boot())
    unit = host.read(FIREWALL).splitlines()
    assert "Before=docker.service" in unit
    assert f"ExecStart=/bin/sh {host.root}{SCRIPT} up" in unit
    assert {"Type=oneshot", "RemainAfterExit=yes"} <= {*unit}
    assert host.read(SCRIPT) == host.moved("firewall")
    (needed,) = (host.root / f"{UNITS[1:]}/docker.service.requires").iterdir()
    assert needed.name == "cloudscale-firewall.service"
    assert needed.read_text() == host.read(FIREWALL)


def test_keys_and_packages_are_handled_in_parallel_with_the_boot(host: Host) -> None:
    assert succeeded(host.boot())
    keys, install = asked(host, "systemd-run")
    for call, name in ((keys, "keys"), (install, "install")):
        assert call.endswith(f" {host.root}/part-001 {name}")
        assert "--no-block" in call
        assert f"--unit=cloudscale-{name}" in call
    # the keys are made by cloud-init, and are on the console before a login is possible
    assert "--property=Before=ssh.service sshd.service" in keys
    assert "--property=After=cloud-init.service cloud-init-network.service" in keys
    assert "Before=" not in install
    assert not asked(host, "apt-get")
    assert host.read("dev/console") == ""


def test_the_order_is_such_that_no_engine_slips_through(host: Host) -> None:
    """Everything is written before systemd reads it, and that before any package is installed."""
    assert succeeded(host.boot())
    names = [call.split()[0] for call in host.calls]
    assert names == ["systemctl", "systemd-run", "systemd-run"]


def test_the_courses_folder_is_for_root_only(host: Host) -> None:
    assert succeeded(host.boot())
    assert (host.root / COURSE[1:]).stat().st_mode & 0o777 == 0o700


def test_it_runs_at_the_first_boot_only(host: Host) -> None:
    """By the next one, what it removes is the course's own."""
    assert succeeded(host.boot())
    host.write("/etc/docker/key.json")
    host.write("/var/lib/docker/swarm/state.json")
    before, calls = host.tree, host.calls
    assert succeeded(host.boot())
    assert host.tree == before
    assert host.calls == calls


# --- the host's keys -------------------------------------------------------------------------

ED25519 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
ECDSA = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTY="


def test_the_console_shows_the_hosts_keys_as_cloud_init_does(host: Host) -> None:
    host.write("/etc/ssh/ssh_host_ecdsa_key.pub", f"{ECDSA} root@bio-1\n")
    host.write("/etc/ssh/ssh_host_ed25519_key.pub", f"{ED25519} root@bio-1\n")
    host.write("/etc/ssh/ssh_host_ed25519_key", "a secret\n")
    assert succeeded(host.boot("keys"))
    console = host.read("dev/console")
    assert console.splitlines() == [
        "",
        "-----BEGIN SSH HOST KEY KEYS-----",
        f"{ECDSA} root@bio-1",
        f"{ED25519} root@bio-1",
        "-----END SSH HOST KEY KEYS-----",
    ]
    assert host_keys(f"[  OK  ] Reached target{console}[  OK  ] Started") == [ECDSA, ED25519]
    assert host.calls == []


# --- the packages ----------------------------------------------------------------------------


@pytest.fixture
def booted(host: Host) -> Host:
    assert succeeded(host.boot())
    (host.root / "calls").unlink()
    return host


def is_done(host: Host) -> bool:
    """Both marks, or neither."""
    marks = [host.has(f"{COURSE}/{name}") for name in ("packages", "installed")]
    assert len({*marks}) == 1
    return marks[0]


def test_the_engine_is_installed_and_that_is_recorded(booted: Host) -> None:
    assert succeeded(booted.boot("install"))
    (install,) = [call for call in asked(booted, "apt-get") if " install " in call]
    assert install.endswith(" install docker.io ca-certificates")  # as far as the distribution has them
    assert {"--no-remove", "--no-install-recommends", "-y"} <= {*install.split()}
    assert "DPkg::Lock::Timeout=300" in install
    assert "docker.io" in booted.installed
    assert booted.read(f"{COURSE}/packages") == "docker.io\n"
    assert is_done(booted)


def test_a_separate_command_line_and_what_limits_the_disk_of_seats_come_along(booted: Host) -> None:
    program(booted, "apt-cache", "echo a package of that name")
    assert succeeded(booted.boot("install"))
    (install,) = [call for call in asked(booted, "apt-get") if " install " in call]
    assert install.endswith(" install docker.io docker-cli ca-certificates xfsprogs")


def test_an_engine_in_the_image_is_used(booted: Host) -> None:
    program(booted, "dockerd")
    program(booted, "mkfs.xfs")
    assert succeeded(booted.boot("install"))
    assert not asked(booted, "apt-get")
    assert is_done(booted)


@pytest.mark.parametrize("fault", ["", "full", "offline"])
def test_to_an_engine_in_the_image_comes_only_what_limits_the_disk_if_that_can_be_had(booted: Host, fault: str) -> None:
    program(booted, "dockerd")
    program(booted, "apt-cache", "echo a package of that name")
    booted.write(fault or "well")
    assert succeeded(booted.boot("install"))
    assert all(call.endswith(" install xfsprogs") for call in asked(booted, "apt-get") if " install" in call)
    assert is_done(booted)


@pytest.mark.parametrize("fault", ["full", "conflict"])
def test_an_installation_that_fails_is_not_recorded(booted: Host, fault: str) -> None:
    booted.write(fault)
    assert booted.boot("install").returncode
    assert not is_done(booted)


def updates(host: Host) -> int:
    return len([call for call in asked(host, "apt-get") if call.endswith("update")])


def test_the_systems_own_updates_are_waited_for(booted: Host) -> None:
    booted.write("locked", "once\ntwice\nthrice\n")
    assert succeeded(booted.boot("install"))
    assert (updates(booted), len(asked(booted, "sleep"))) == (4, 3)
    assert is_done(booted)


def test_they_are_not_waited_for_without_end(booted: Host) -> None:
    booted.write("locked", "again\n" * 99)
    assert succeeded(booted.boot("install"))  # the image may know the packages
    assert updates(booted) == 60


def test_an_unreachable_index_does_not_matter_if_the_packages_are_known(booted: Host) -> None:
    booted.write("offline")
    assert succeeded(booted.boot("install"))
    assert updates(booted) == 1
    assert is_done(booted)


def test_it_waits_for_another_run_at_work_on_the_host(booted: Host) -> None:
    with open(booted.root / COURSE[1:] / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done: list[subprocess.CompletedProcess[bytes]] = []
        thread = threading.Thread(target=lambda: done.append(booted.boot("install")))
        thread.start()
        thread.join(0.3)
        assert not done
        assert booted.calls == []
    thread.join(20)
    assert succeeded(done[0])
    assert is_done(booted)
