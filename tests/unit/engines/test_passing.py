"""An image on its way from one machine to another."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from cloudscale.drivers.generic import Generic
from cloudscale.errors import ConnectionFailed
from cloudscale.hosts.target import Target
from cloudscale.model import CommandResult, Machine
from cloudscale.waiting import poll
from tests.unit.fake_lab import Lab
from tests.unit.scripts import script_text

IMAGE = "cloudscale/pydata:1"


@pytest.fixture
def testbed(monkeypatch: pytest.MonkeyPatch) -> Lab:
    return Lab(monkeypatch, hosts=4)


def prepared(testbed: Lab) -> tuple[Generic, list[Machine]]:
    driver = testbed.driver()
    machines = driver.machines()
    for machine in machines:
        driver.survey(machine)
        driver.prepare(machine)
    for host in testbed.hosts.values():
        host.calls.clear()
    return driver, machines


class Passed:
    """What came of an image that was passed from the first machine through the others."""

    def __init__(self, testbed: Lab, stderr: str = "", exit_code: int = 0) -> None:
        testbed.first.failures["image-send"] = CommandResult(exit_code, "", stderr)
        self.bytes: list[int] = []
        self.arrived: list[str] = []
        driver, (source, *targets) = prepared(testbed)
        self.outcomes = driver.copy_image(source, targets, IMAGE, self.bytes.append, self.arrived.append)
        self.causes = {name: str(error) for name, error in self.outcomes.errors.items()}
        self.doors = [testbed.hosts[target.address] for target in targets]


def lines(*words: str) -> str:
    return "".join(f"\ncloudscale: {word}\n" for word in words)


ALL = lines("loaded 1", "loaded 0", "loaded 2")
SECOND, THIRD, FOURTH = "192.0.2.12", "192.0.2.13", "192.0.2.14"


def test_an_image_is_passed_from_machine_to_machine(testbed: Lab) -> None:
    passed = Passed(testbed, f"\r12 bytes copied, 1 s\r24 bytes copied, 2 s{ALL}")
    assert testbed.first.calls == [("image-send", IMAGE)]
    assert passed.bytes == [12, 24]
    assert passed.arrived == [THIRD, SECOND, FOURTH]
    assert passed.outcomes.errors == {}
    for position, host in enumerate(passed.doors):
        opened, *given, closed = [call[1:] for call in host.calls]
        assert [opened[0], closed[0]] == ["open", "close"]
        assert opened[1] == closed[1]
        assert opened[2] == closed[2] == "debian"
        assert 60 <= int(opened[3]) <= 120
        assert opened[4] == str(position)
        assert [words[0] for words in given] == ([] if host is passed.doors[-1] else ["next"])


def test_each_gets_a_key_for_the_next_one_alone_and_its_host_key(testbed: Lab) -> None:
    passed = Passed(testbed, ALL)
    senders = [testbed.first, *passed.doors[:-1]]
    for sender, host in zip(senders, passed.doors, strict=True):
        files = sender.files_of(f"image-send {IMAGE}" if sender is testbed.first else "image-door next")
        assert sorted(files) == ["/config", "/key", "/known_hosts"]
        assert files["/key"].startswith(b"-----BEGIN OPENSSH PRIVATE KEY-----")
        assert files["/known_hosts"].decode() == f"cloudscale {host.host_key}\n"
        assert f"HostName {host.target.host}\n  Port 22\n" in files["/config"].decode()
    keys = [host.calls[0][2] for host in passed.doors]
    assert len(set(keys)) == 3
    assert "PRIVATE" not in repr([host.calls for host in testbed.hosts.values()])
    again = Passed(testbed, ALL)
    assert not set(keys) & {host.calls[0][2] for host in again.doors}


def test_an_image_is_passed_to_an_ipv6_address(testbed: Lab) -> None:
    host = testbed.hosts.pop(SECOND)
    address = "2001:db8::5054:ff:fe12:3456"
    host.target = Target(address, user="debian")
    testbed.hosts = {testbed.first.target.host: testbed.first, address: host}
    Passed(testbed, ALL)
    assert f"HostName {address}\n" in testbed.first.files_of(f"image-send {IMAGE}")["/config"].decode()


SSH = "ssh: connect to host 192.0.2.12 port 22: Connection timed out\n"
DD = "\r1048576 bytes (1.0 MB, 1.0 MiB) copied, 1 s, 1.0 MB/s\r2097152 bytes (2.1 MB, 2.0 MiB) copied, 2 s, 1.0 MB/s\n"


@pytest.mark.parametrize("stderr", [f"{DD}{SSH}", f"{SSH}2+0 records in\n1+1 records out\n{DD}"])
def test_a_failure_is_reported_with_both_machines_and_the_cause_and_the_doors_are_closed(
    testbed: Lab, stderr: str
) -> None:
    passed = Passed(testbed, stderr, exit_code=255)
    assert list(passed.causes) == [SECOND, THIRD, FOURTH]
    assert re.search(r"192\.0\.2\.12: .*pydata:1 .*from 192\.0\.2\.11 .*timed out", passed.causes[SECOND])
    assert "SSH (port 22) is open" in passed.causes[SECOND]
    assert {host.calls[-1][1] for host in passed.doors} == {"close"}


def test_a_broken_link_harms_only_those_behind_it(testbed: Lab) -> None:
    passed = Passed(testbed, f"{SSH}{lines('loaded 0')}")
    assert passed.arrived == [SECOND]
    assert list(passed.causes) == [THIRD, FOURTH]


def test_a_machine_that_stops_answering_is_reported_though_nobody_names_it(testbed: Lab) -> None:
    passed = Passed(testbed, lines("loaded 0"))
    assert "(a machine on the way stopped answering)" in passed.causes[THIRD]


def test_a_machine_that_can_not_load_it_is_reported_with_its_cause_and_passes_it_on(testbed: Lab) -> None:
    passed = Passed(testbed, lines("failed 1 write /var/lib: no space left on device", "loaded 2", "loaded 0"))
    assert passed.arrived == [FOURTH, SECOND]
    assert list(passed.causes) == [THIRD]
    assert "(write /var/lib: no space left on device)" in passed.causes[THIRD]


def test_an_image_that_its_machine_can_not_save_is_no_fault_of_the_others(testbed: Lab) -> None:
    stderr = f"Error: No such image{lines('failed 0 unexpected EOF', 'unsaved 0')}"
    passed = Passed(testbed, stderr, exit_code=1)
    assert all("(Error: No such image)" in cause for cause in passed.causes.values())


def test_a_machine_that_lets_nobody_in_is_left_out(testbed: Lab) -> None:
    testbed.hosts[THIRD].failures["image-door"] = CommandResult(1, "", "cloudscale: debian has no home folder")
    passed = Passed(testbed, lines("loaded 0", "loaded 2"))
    assert passed.arrived == [SECOND, FOURTH]
    assert "debian has no home folder" in passed.causes[THIRD]
    assert f"HostName {FOURTH}\n" in testbed.hosts[SECOND].files_of("image-door next")["/config"].decode()


def test_a_machine_that_is_lost_is_its_own_failure(testbed: Lab) -> None:
    driver, (source, *targets) = prepared(testbed)
    testbed.first.failures["image-send"] = CommandResult(0, "", lines("loaded 0", "loaded 2"))
    testbed.hosts[THIRD].is_lost = True
    outcomes = driver.copy_image(source, targets, IMAGE, lambda done: None, lambda name: None)
    assert isinstance(outcomes.errors[THIRD], ConnectionFailed)
    assert len(outcomes.errors) == 1


def test_a_machine_reports_for_none_but_those_of_the_chain(testbed: Lab) -> None:
    passed = Passed(testbed, lines("loaded 7", "loaded 0", "loaded 0", "loaded", "loaded x", "failed 9 x"))
    assert passed.arrived == [SECOND]


# --- the scripts -----------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


def on(home: Path, script: str) -> str:
    return script_text(script).replace("/dev/shm", str(home.parent)).replace("/run/", f"{home.parent}/")


def sh(script: str, *arguments: str, home: Path, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """The script on a host whose programs are those of this computer, but for those in the folder beside its home."""
    programs = home.parent / "bin"
    programs.mkdir(exist_ok=True)
    for name, text in {
        "getent": f"echo debian:x:1000:1000::{home}:/bin/sh",
        "id": "echo 1000",
        "docker": f"""echo "$*" >>{home.parent}/docker
            case $1 in
              save) echo "image $2" && [ ! -e {home.parent}/broken ] ;;
              load) [ ! -e {home.parent}/full ] || {{ echo "no space left" >&2; exit 1; }}
                    cat >{home.parent}/loaded ;;
            esac""",
        "ssh": f"""echo "$*" >{home.parent}/asked; pwd >{home.parent}/folder; ls -l >{home.parent}/seen
            [ ! -e {home.parent}/refused ] || {{ echo "Connection refused" >&2; exit 255; }}
            cat >{home.parent}/sent""",
    }.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    text = on(home, script)
    environment = {
        "PATH": f"{programs}:/usr/bin:/bin:/usr/sbin:/sbin",
        "SSH_CONNECTION": "192.0.2.1 50000 192.0.2.12 2222",
        "TMPDIR": str(home.parent),
    }
    return subprocess.run(
        ["sh", "-c", text, "cloudscale", *arguments], input=data, capture_output=True, env=environment, check=False
    )


KEY = "ssh-ed25519 AAAAC3Nz cloudscale-1a2b3c4d"
GIVEN = "cloudscale-image.1a2b3c4d"


def packed(home: Path) -> bytes:
    """What a machine needs to reach the next one."""
    folder = home.parent / "files"
    folder.mkdir()
    for name in ("config", "key", "known_hosts"):
        (folder / name).write_text("secret\n")
        (folder / name).chmod(0o600)
    return subprocess.run(["tar", "-c", "-C", str(folder), "."], capture_output=True, check=True).stdout


@pytest.mark.usefixtures("processes")
@pytest.mark.parametrize("before", [None, "ssh-ed25519 BBBB trainer\n", "# no end of the line"])
def test_a_door_is_open_for_loading_an_image_alone_and_leaves_nothing(home: Path, before: str | None) -> None:
    keys, given = home / ".ssh" / "authorized_keys", home.parent / GIVEN
    if before:
        keys.parent.mkdir()
        keys.write_text(before)
    opened = sh("image-door", "open", KEY, "debian", "61", "3", home=home, data=b"the script")
    assert (opened.returncode, opened.stdout) == (0, b"2222\n"), opened.stderr
    *others, line = keys.read_text().splitlines()
    assert others == (before or "").splitlines()
    assert line.startswith('restrict,expiry-time="20')
    assert line.endswith(f'",command="sudo -n timeout 61m sh {given}/receive {given} 3" {KEY}')
    assert (given / "receive").read_text() == "the script"
    assert given.stat().st_mode & 0o777 == 0o700
    assert sh("image-door", "next", KEY, home=home, data=packed(home)).returncode == 0
    assert {path.name for path in given.iterdir()} == {"receive", "config", "key", "known_hosts"}
    assert sh("image-door", "close", KEY, "debian", home=home).returncode == 0
    assert not given.exists()
    assert (keys.read_text().strip() if before else keys.exists()) == (before.strip() if before else False)
    assert [path.name for path in home.parent.iterdir() if path.name.startswith("tmp")] == []


def sent(home: Path) -> subprocess.CompletedProcess[bytes]:
    return sh("image-send", "lab:1", home=home, data=packed(home))


@pytest.mark.usefixtures("processes")
def test_the_sender_logs_in_with_that_key_to_that_host_key_and_keeps_neither(home: Path) -> None:
    done = sent(home)
    assert done.returncode == 0, done.stderr
    assert (home.parent / "sent").read_text() == "image lab:1\n"
    assert (home.parent / "asked").read_text() == "-F config next\n"
    assert Path((home.parent / "folder").read_text()).name.startswith("cloudscale.")
    seen = (home.parent / "seen").read_text()
    assert len(re.findall(r"^-rw-------.* (?:config|key|known_hosts)$", seen, re.MULTILINE)) == 3
    assert not list(home.parent.glob("cloudscale.*"))


@pytest.mark.usefixtures("processes")
def test_an_image_that_can_not_be_saved_is_a_failure_of_the_sender(home: Path) -> None:
    (home.parent / "broken").touch()
    done = sent(home)
    assert done.returncode == 1
    assert b"\ncloudscale: unsaved 0\n" in done.stderr
    assert not list(home.parent.glob("cloudscale.*"))


MUCH = bytes(1 << 20)  # more than the pipes between two programs hold


def received(home: Path, *, is_last: bool = False) -> subprocess.CompletedProcess[bytes]:
    given = home.parent / GIVEN
    given.mkdir()
    if not is_last:
        subprocess.run(["tar", "-x", "-C", str(given)], input=packed(home), check=True)
    done = sh("image-receive", str(given), "3", home=home, data=MUCH)
    assert not given.exists()
    return done


@pytest.mark.usefixtures("processes")
@pytest.mark.parametrize("is_last", [False, True])
def test_a_machine_loads_the_image_and_passes_the_same_on_if_there_is_a_next_one(home: Path, is_last: bool) -> None:
    done = received(home, is_last=is_last)
    assert (done.returncode, done.stderr.strip()) == (0, b"cloudscale: loaded 3")
    assert (home.parent / "docker").read_text() == "load --quiet\n"
    assert (home.parent / "loaded").read_bytes() == MUCH
    assert (home.parent / "sent").exists() != is_last
    if not is_last:
        assert (home.parent / "sent").read_bytes() == MUCH


@pytest.mark.usefixtures("processes")
def test_a_machine_whose_next_one_is_gone_goes_on_loading(home: Path) -> None:
    (home.parent / "refused").touch()
    done = received(home)
    assert (home.parent / "loaded").read_bytes() == MUCH
    assert b"Connection refused\n" in done.stderr and b"\ncloudscale: loaded 3\n" in done.stderr


@pytest.mark.usefixtures("processes")
def test_a_machine_that_can_not_load_it_goes_on_passing_it_on(home: Path) -> None:
    (home.parent / "full").touch()
    done = received(home)
    assert (home.parent / "sent").read_bytes() == MUCH
    assert b"\ncloudscale: failed 3 no space left\n" in done.stderr


@pytest.mark.usefixtures("processes")
def test_a_door_that_is_closed_ends_what_still_waits_for_the_machine_before_it(home: Path) -> None:
    given = home.parent / GIVEN
    given.mkdir()
    (given / "receive").write_text(on(home, "image-receive"))
    assert sh("image-door", "next", KEY, home=home, data=packed(home)).returncode == 0  # makes the programs
    waiting = ["timeout", "1m", "sh", str(given / "receive"), str(given), "3"]
    environment = {"PATH": f"{home.parent}/bin:/usr/bin:/bin"}
    with subprocess.Popen(waiting, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment) as receiver:
        assert poll((given / "pid").exists, timeout=10, interval=0.01)
        assert poll((home.parent / "docker").exists, timeout=10, interval=0.01)
        assert sh("image-door", "close", KEY, "debian", home=home).returncode == 0
        assert receiver.wait(10)
    assert not given.exists()
