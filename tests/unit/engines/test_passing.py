"""An image on its way from one machine to another."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from cloudscale.drivers.generic import Generic
from cloudscale.errors import MachineError
from cloudscale.hosts.target import Target
from cloudscale.model import CommandResult, Machine, OnOutput
from tests.unit.fake_host import FakeHost
from tests.unit.fake_lab import Lab
from tests.unit.scripts import script_text

IMAGE = "cloudscale/pydata:1"


@pytest.fixture
def testbed(monkeypatch: pytest.MonkeyPatch) -> Lab:
    return Lab(monkeypatch)


def prepared(testbed: Lab) -> tuple[Generic, Machine, Machine]:
    driver = testbed.driver()
    source, target = driver.machines()[:2]
    for machine in (source, target):
        driver.survey(machine)
        driver.prepare(machine)
    for host in testbed.hosts.values():
        host.calls.clear()
    return driver, source, target


def passed(testbed: Lab, on_output: OnOutput = lambda piece: None) -> FakeHost:
    """Passes an image from the first machine to the second, which is returned."""
    driver, source, target = prepared(testbed)
    driver.copy_image(source, target, IMAGE, on_output)
    return testbed.hosts[target.address]


def test_an_image_is_passed_from_machine_to_machine(testbed: Lab) -> None:
    on_output: list[bytes] = []
    target = passed(testbed, on_output.append)
    assert testbed.first.calls == [("image-send", IMAGE, "debian", "192.0.2.12", "22")]
    assert on_output == [b"12 bytes copied"]
    (opened, open_key, user, minutes), (closed, close_key, _) = (call[1:] for call in target.calls)
    assert (opened, closed, user) == ("open", "close", "debian")
    assert open_key == close_key
    assert 60 <= int(minutes) <= 120


def test_the_sender_gets_a_key_for_this_one_image_and_the_receivers_host_key(testbed: Lab) -> None:
    target = passed(testbed)
    files = testbed.first.files
    assert sorted(files) == ["/key", "/known_hosts"]
    assert files["/key"].startswith(b"-----BEGIN OPENSSH PRIVATE KEY-----")
    assert files["/known_hosts"].decode() == f"cloudscale {target.host_key}\n"
    assert "PRIVATE" not in repr((testbed.first.calls, target.calls))
    keys = {testbed.hosts["192.0.2.12"].calls[0][2]}
    target.calls.clear()
    driver, source, other = prepared(testbed)
    driver.copy_image(source, other, IMAGE, lambda piece: None)
    assert target.calls[0][2] not in keys


def test_an_image_is_passed_to_an_ipv6_address(testbed: Lab) -> None:
    host = testbed.hosts.pop("192.0.2.12")
    address = "2001:db8::5054:ff:fe12:3456"
    host.target = Target(address, user="debian")
    testbed.hosts[address] = host
    passed(testbed)
    assert testbed.first.calls[-1][3] == address


SSH = "ssh: connect to host 192.0.2.12 port 22: Connection timed out\n"
DD = "\r1048576 bytes (1.0 MB, 1.0 MiB) copied, 1 s, 1.0 MB/s\r2097152 bytes (2.1 MB, 2.0 MiB) copied, 2 s, 1.0 MB/s\n"


@pytest.mark.parametrize("stderr", [f"{DD}{SSH}", f"{SSH}2+0 records in\n1+1 records out\n{DD}"])
def test_a_failure_is_reported_with_both_machines_and_the_cause_and_the_door_is_closed(
    testbed: Lab, stderr: str
) -> None:
    testbed.first.failures["image-send"] = CommandResult(255, "", stderr)
    with pytest.raises(MachineError, match=r"192\.0\.2\.12: .*pydata:1 .*from 192\.0\.2\.11 .*timed out") as raised:
        passed(testbed)
    assert "port 22" in raised.value.remedy
    assert testbed.hosts["192.0.2.12"].calls[-1][1] == "close"


# --- the scripts -----------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


def sh(script: str, *arguments: str, home: Path, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """The script on a host whose programs are those of this computer, but for those in the folder beside its home."""
    programs = home.parent / "bin"
    programs.mkdir(exist_ok=True)
    for name, text in {
        "getent": f"echo debian:x:1000:1000::{home}:/bin/sh",
        "id": "echo 1000",
        "docker": f'[ "$1" = save ] && echo "image $2" && [ ! -e {home.parent}/broken ]',
        "ssh": f'echo "$*" >{home.parent}/asked; cat >{home.parent}/sent; for w; do case $w in'
        f" */key | *=*/known_hosts) ls -l ${{w##*=}} >>{home.parent}/seen ;; esac; done",
    }.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    text = script_text(script).replace("/dev/shm", str(home.parent))
    environment = {
        "PATH": f"{programs}:/usr/bin:/bin:/usr/sbin:/sbin",
        "SSH_CONNECTION": "192.0.2.1 50000 192.0.2.12 2222",
        "TMPDIR": str(home.parent),
    }
    return subprocess.run(
        ["sh", "-c", text, "cloudscale", *arguments], input=data, capture_output=True, env=environment, check=False
    )


KEY = "ssh-ed25519 AAAAC3Nz cloudscale-1a2b3c4d"


@pytest.mark.usefixtures("processes")
@pytest.mark.parametrize("before", [None, "ssh-ed25519 BBBB trainer\n", "# no end of the line"])
def test_a_door_is_open_for_loading_an_image_alone_and_leaves_nothing(home: Path, before: str | None) -> None:
    keys = home / ".ssh" / "authorized_keys"
    if before:
        keys.parent.mkdir()
        keys.write_text(before)
    opened = sh("image-door", "open", KEY, "debian", "61", home=home)
    assert (opened.returncode, opened.stdout) == (0, b"2222\n"), opened.stderr
    *others, line = keys.read_text().splitlines()
    assert others == (before or "").splitlines()
    assert line.startswith('restrict,expiry-time="20')
    assert line.endswith(f'",command="sudo -n docker load --quiet" {KEY}')
    assert sh("image-door", "close", KEY, "debian", home=home).returncode == 0
    assert (keys.read_text().strip() if before else keys.exists()) == (before.strip() if before else False)
    assert [path.name for path in home.parent.iterdir() if path.name.startswith("tmp")] == []


def sent(home: Path) -> subprocess.CompletedProcess[bytes]:
    testbed = home.parent / "files"
    testbed.mkdir()
    for name in ("key", "known_hosts"):
        (testbed / name).write_text("secret\n")
        (testbed / name).chmod(0o600)
    data = subprocess.run(["tar", "-c", "-C", str(testbed), "."], capture_output=True, check=True).stdout
    return sh("image-send", "lab:1", "debian", "2001:db8::1", "2222", home=home, data=data)


@pytest.mark.usefixtures("processes")
def test_the_sender_logs_in_with_that_key_to_that_host_key_and_keeps_neither(home: Path) -> None:
    done = sent(home)
    assert done.returncode == 0, done.stderr
    assert (home.parent / "sent").read_text() == "image lab:1\n"
    asked = (home.parent / "asked").read_text()
    assert asked.endswith("-p 2222 -l debian 2001:db8::1\n")
    assert "StrictHostKeyChecking=yes" in asked and "IdentitiesOnly=yes" in asked
    seen = (home.parent / "seen").read_text().splitlines()
    assert len(seen) == 2 and all(line.startswith("-rw-------") for line in seen)
    assert not list(home.parent.glob("cloudscale.*"))


@pytest.mark.usefixtures("processes")
def test_an_image_that_can_not_be_saved_is_a_failure_of_the_sender(home: Path) -> None:
    (home.parent / "broken").touch()
    assert sent(home).returncode != 0
    assert not list(home.parent.glob("cloudscale.*"))
