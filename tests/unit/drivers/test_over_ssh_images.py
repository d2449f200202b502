"""Copying images from machine to machine."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from cloudscale.drivers import over_ssh
from cloudscale.errors import MachineError
from cloudscale.hosts.ssh import Target
from cloudscale.model import CommandResult, OnOutput
from tests.unit.fake_host import FakeHost
from tests.unit.fake_lab import Lab


@pytest.fixture
def testbed(monkeypatch: pytest.MonkeyPatch) -> Lab:
    return Lab(monkeypatch)


def copy(testbed: Lab, on_output: OnOutput = lambda piece: None) -> FakeHost:
    """Sends an image from the first machine to the second."""
    driver = testbed.driver()
    source, target = driver.machines()[:2]
    for machine in (source, target):
        driver.survey(machine)
        driver.prepare(machine)
    testbed.first.calls.clear()
    driver.copy_image(source, target, "cloudscale/pydata:1", on_output)
    return testbed.first


def test_an_image_is_sent_from_machine_to_machine(testbed: Lab) -> None:
    on_output: list[bytes] = []
    source = copy(testbed, on_output.append)
    assert source.calls == [("other", "cloudscale/pydata:1", "192.0.2.12:2376")]
    assert on_output == [b"12 bytes copied"]
    assert testbed.hosts["192.0.2.12"].calls[-1] == ("facts",)  # the other one only receives it


def test_the_sender_gets_a_certificate_for_some_hours_and_no_lasting_key(testbed: Lab) -> None:
    files = copy(testbed).files
    assert sorted(files) == ["/ca.pem", "/cert.pem", "/key.pem"]
    guest = x509.load_pem_x509_certificate(files["/cert.pem"])
    usage = guest.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert [*usage] == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert (guest.not_valid_after_utc - guest.not_valid_before_utc).total_seconds() <= 2 * 24 * 3600
    own = {path.read_bytes() for path in testbed.course.folder.glob("*.pem")} - {files["/ca.pem"]}
    assert not own & {*files.values()}
    assert "PRIVATE" not in repr(testbed.first.calls)


def test_an_image_goes_to_an_ipv6_address_in_brackets(testbed: Lab) -> None:
    host = testbed.hosts.pop("192.0.2.12")
    address = "2001:db8::5054:ff:fe12:3456"
    host.target = Target(address, user="debian")
    testbed.hosts[address] = host
    assert copy(testbed).calls[-1][-1] == f"[{address}]:2376"


DOCKER = "error during connect: Post https://192.0.2.12:2376/images/load: dial tcp 192.0.2.12:2376: i/o timeout\n"
DD = "\r1048576 bytes (1.0 MB, 1.0 MiB) copied, 1 s, 1.0 MB/s\r2097152 bytes (2.1 MB, 2.0 MiB) copied, 2 s, 1.0 MB/s\n"


@pytest.mark.parametrize(
    "stderr",
    [
        f"{DD}{DOCKER}",
        f"{DOCKER}2+0 records in\n1+1 records out\n{DD}",
    ],
)
def test_a_failed_copy_is_reported_with_both_machines_and_the_cause(testbed: Lab, stderr: str) -> None:
    testbed.first.failures["other"] = CommandResult(1, "", stderr)
    with pytest.raises(MachineError, match=r"192\.0\.2\.12: .*pydata:1 .*from 192\.0\.2\.11 .*i/o timeout") as raised:
        copy(testbed)
    assert "2376" in raised.value.remedy


@pytest.mark.usefixtures("processes")
def test_the_sender_keeps_nothing_of_the_certificate(testbed: Lab, tmp_path: Path) -> None:
    data = copy(testbed).data
    programs = tmp_path / "bin"
    programs.mkdir()
    docker = programs / "docker"
    docker.write_text(
        '#!/bin/sh\n[ "$1" = save ] && { echo image; exit 0; }\n'
        f'for word; do case $word in /*) [ -s "$word" ] || exit 1; echo "$word" >>{tmp_path}/seen;; esac; done\n'
        f'cat >{tmp_path}/loaded; echo "$*" >{tmp_path}/asked\n'
    )
    docker.chmod(docker.stat().st_mode | stat.S_IXUSR)
    script = over_ssh.COPY.replace("/dev/shm", str(tmp_path))
    environment = {"PATH": f"{programs}:{os.environ['PATH']}", "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        ["sh", "-c", script, "cloudscale", "lab:1", "192.0.2.12:2376"],
        input=data,
        capture_output=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "loaded").read_text() == "image\n"
    assert "--tlsverify" in (tmp_path / "asked").read_text()
    seen = [Path(line) for line in (tmp_path / "seen").read_text().split()]
    assert sorted(path.name for path in seen) == ["ca.pem", "cert.pem", "key.pem"]
    assert not any(path.exists() or path.parent.exists() for path in seen)
