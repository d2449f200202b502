"""The scripts for hosts, run in a folder that stands for the host, with no other programs to call."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from cloudscale.engines.setup import MARK, SETTINGS, TLS, UNIT, Setup, tar
from cloudscale.hosts.facts import script_failure
from cloudscale.hosts.firewall import SCRIPT
from cloudscale.model import CommandResult
from tests.unit.fake_host import FRESH, WITH_ENGINE
from tests.unit.script_host import COURSE, Host, setup, succeeded
from tests.unit.scripts import SCRIPTS, script_text

pytestmark = pytest.mark.usefixtures("processes")


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "host")


@pytest.fixture
def fresh(tmp_path: Path) -> Setup:
    return setup(tmp_path, values=FRESH)


@pytest.fixture
def kept(tmp_path: Path) -> Setup:
    return setup(tmp_path, values={**WITH_ENGINE, "settings": '{"debug": true}'})


# --- form ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_is_one_that_every_sh_can_read(name: str) -> None:
    script = script_text(name)
    for shell in ("sh", "dash", "bash"):
        if shutil.which(shell):
            subprocess.run([shell, "-n", "-c", script], check=True)
    # of bash alone
    assert not re.search(r"pipefail|\[\[|<<<|<\(|&>|\blocal\b|\bfunction\b|\bsource\b|\bset -x\b", script)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_ends_with_a_line_and_fits_into_a_command(name: str) -> None:
    script = script_text(name)
    assert script.endswith("\n")
    assert len(script) < 32 * 1024  # of 128 KiB that Linux takes as one argument


# --- set-up and removal ----------------------------------------------------------------------


def test_an_engine_is_installed_and_removed_without_a_trace(host: Host, fresh: Setup) -> None:
    before = host.tree
    assert succeeded(host.up(fresh))
    assert {"docker.io", "containerd", "runc"} <= host.installed
    for path in (SETTINGS, UNIT, MARK, f"{TLS}/key.pem"):
        assert host.read(path).encode() == fresh.files[path]
    assert host.has(f"{COURSE}/ready")
    host.write("/proc/sys/net/ipv4/ip_forward", "1\n")  # an engine does that
    assert succeeded(host.down())
    after = host.tree
    assert {name: text for name, text in after.items() if name != "installed"} == {
        name: text for name, text in before.items() if name != "installed"
    }
    assert not host.has("/var/lib/docker")
    assert not host.has("/etc/docker")
    assert not host.has("/var/lib/cloudscale")
    assert not host.installed & {"docker.io", "containerd", "runc"}


def test_a_package_that_was_upgraded_stays(host: Host, fresh: Setup) -> None:
    assert succeeded(host.up(fresh))
    assert succeeded(host.down())
    assert host.installed == {"ca-certificates", "iptables"}


def test_no_package_of_the_owners_is_removed_to_make_room(host: Host, fresh: Setup) -> None:
    host.write("conflict")
    host.write("installed", "containerd.io\nkubelet\n")
    host.up(fresh)
    assert {"containerd.io", "kubelet"} <= host.installed


def test_an_engine_of_the_owners_is_kept_and_restored(host: Host, kept: Setup) -> None:
    host.write(SETTINGS, '{"debug": true}')
    host.write("/var/lib/docker/volumes/work", "precious")
    host.write("engine")
    before = host.tree
    assert succeeded(host.up(kept))
    assert host.read(SETTINGS).encode() == kept.files[SETTINGS]
    assert "apt-get" not in host.read("calls")
    assert succeeded(host.down(b'{"debug": true}'))
    assert host.tree == before
    assert "purge" not in host.read("calls")


def test_settings_that_did_not_exist_before_are_removed(host: Host, kept: Setup) -> None:
    host.write("/etc/docker/own.txt", "own")
    host.write("engine")
    assert succeeded(host.up(kept))
    assert not host.has(f"{COURSE}/daemon.json.before")
    assert succeeded(host.down())
    assert not host.has(SETTINGS)
    assert host.read("/etc/docker/own.txt") == "own"


def test_the_first_settings_are_kept_however_often_it_is_set_up(host: Host, kept: Setup) -> None:
    host.write(SETTINGS, '{"debug": true}')
    host.write("engine")
    for _ in range(2):
        assert succeeded(host.up(kept))
    assert host.read(f"{COURSE}/daemon.json.before") == '{"debug": true}'


def test_the_state_before_an_installation_is_recorded_once(host: Host, fresh: Setup) -> None:
    assert succeeded(host.up(fresh))
    packages = host.read(f"{COURSE}/packages")
    host.write("/proc/sys/net/ipv4/ip_forward", "1\n")
    assert succeeded(host.up(fresh))
    assert host.read(f"{COURSE}/packages") == packages
    assert host.read(f"{COURSE}/forwarding") == "0\n"
    assert "docker.io" in packages.split()


def test_folders_that_the_owner_had_filled_stay(host: Host, fresh: Setup) -> None:
    host.write("/var/lib/docker/old", "precious")
    assert succeeded(host.up(fresh))
    assert succeeded(host.down())
    assert host.read("/var/lib/docker/old") == "precious"
    assert not host.has("/etc/docker")


def test_the_policy_of_the_packet_filter_is_restored(host: Host, fresh: Setup) -> None:
    assert succeeded(host.up(fresh))
    assert succeeded(host.down())
    calls = host.read("calls").splitlines()
    assert "iptables -P FORWARD ACCEPT" in calls
    assert "ip6tables -P FORWARD DROP" in calls


def test_the_group_is_removed_only_if_it_came_with_the_engine(host: Host, fresh: Setup) -> None:
    host.write("groups", "docker:x:1001:ann\n")
    assert succeeded(host.up(fresh))
    assert succeeded(host.down())
    assert "groupdel" not in host.read("calls")


# --- what goes wrong -------------------------------------------------------------------------


def failure(done: subprocess.CompletedProcess[bytes]) -> str:
    assert done.returncode == 1
    return script_failure(CommandResult(1, "", done.stderr.decode()))


def test_an_engine_that_does_not_start_is_reported_with_the_cause(host: Host, fresh: Setup, kept: Setup) -> None:
    host.write("broken")
    for required in (fresh, kept):
        assert failure(host.up(required)).startswith("the engine does not start: failed to load listeners")
        assert not host.has(f"{COURSE}/ready")


def test_an_engine_of_the_owners_that_does_not_start_for_us_continues_with_its_own_settings(
    host: Host, kept: Setup
) -> None:
    for text in ('{"debug": true}', ""):
        host.write(SETTINGS, text)
        host.write("broken")
        assert failure(host.up(kept)).startswith("the engine does not start: failed to load listeners")
        assert host.read(SETTINGS) == text  # as it was before this run
        assert not host.has(UNIT)
        assert not host.has(f"{COURSE}/daemon.json.last")
        assert host.read("calls").splitlines()[-1] == "systemctl restart docker.service"


def test_an_engine_of_the_owners_that_does_not_restart_continues_as_in_the_run_before(
    host: Host, kept: Setup, tmp_path: Path
) -> None:
    host.write(SETTINGS, '{"debug": true}')
    host.write("engine")
    assert succeeded(host.up(kept))
    host.write("broken")
    assert failure(host.up(setup(tmp_path, values={**WITH_ENGINE, "settings": '{"labels": ["a"]}'})))
    assert host.read(SETTINGS).encode() == kept.files[SETTINGS]
    assert host.has(UNIT)
    assert host.read(f"{COURSE}/daemon.json.before") == '{"debug": true}'
    assert not host.has(f"{COURSE}/ready")


def test_settings_that_were_undone_are_not_in_the_record_either(host: Host, kept: Setup, tmp_path: Path) -> None:
    # otherwise the release would treat settings in daemon.json as its owner's
    host.write(SETTINGS, '{"debug": true}')
    host.write("engine")
    assert succeeded(host.up(kept))
    host.write("broken")
    assert failure(host.up(setup(tmp_path, "2001:db8::5054:ff:fe12:3456", values=WITH_ENGINE)))
    record = json.loads(host.read(MARK))["settings"]
    assert record.items() <= json.loads(host.read(SETTINGS)).items()


def test_an_engine_without_a_socket_unit_is_restored_too(host: Host, kept: Setup) -> None:
    host.write("engine")
    host.write("socketless")
    assert succeeded(host.up(kept))
    assert succeeded(host.down())
    assert host.has("engine")


def test_the_engines_key_is_nowhere_else_afterwards(host: Host, fresh: Setup) -> None:
    for _ in range(2):
        host.up(fresh)
        holders = [name for name, text in host.tree.items() if "PRIVATE KEY" in text]
        assert holders == [f"{TLS[1:]}/key.pem"]
        assert (host.root / TLS[1:] / "key.pem").stat().st_mode & 0o777 == 0o600
        host.write("broken")


def test_an_unreachable_index_does_not_matter_if_the_packages_are_known(host: Host, fresh: Setup) -> None:
    host.write("offline")
    assert succeeded(host.up(fresh))


def test_a_host_without_a_package_for_an_engine_is_reported(host: Host, fresh: Setup) -> None:
    host.write("none")
    assert failure(host.up(fresh)) == "no engine can be installed: Unable to locate package docker.io"


@pytest.mark.parametrize(("cause", "word"), [("none", "Unable to locate package"), ("full", "enough free space")])
def test_a_failed_installation_is_reported_with_its_cause(host: Host, fresh: Setup, cause: str, word: str) -> None:
    host.write(cause)
    assert word in failure(host.up(fresh))


@pytest.mark.parametrize("cause", ["none", "full", "broken"])
def test_an_installation_that_failed_can_be_finished_or_undone(host: Host, fresh: Setup, cause: str) -> None:
    before = {name: text for name, text in host.tree.items() if name != "installed"}
    host.write(cause)
    host.up(fresh)
    assert host.read(MARK).encode() == fresh.files[MARK]  # it is known all the same which course uses the host
    (host.root / cause).unlink()
    assert succeeded(host.up(fresh))
    assert host.has(f"{COURSE}/ready")
    host.write(cause)
    host.up(fresh)
    (host.root / cause).unlink()
    assert succeeded(host.down())
    assert {name: text for name, text in host.tree.items() if name != "installed"} == before


def test_an_installation_takes_nothing_of_the_owners_and_asks_nothing(host: Host, fresh: Setup) -> None:
    assert succeeded(host.up(fresh))
    installations = [
        call for call in host.read("calls").splitlines() if call.startswith("apt-get ") and " install " in call
    ]
    assert installations
    for call in installations:
        assert {"-y", "--no-remove", "--no-install-recommends", "Dpkg::Options::=--force-confold"} <= {*call.split()}
        assert call.endswith(" install docker.io")  # ca-certificates is already installed


def test_certificates_of_authorities_are_installed_if_they_are_missing(host: Host, fresh: Setup) -> None:
    (host.root / "bin/dpkg").write_text('#!/bin/sh\n[ "$1" != -s ]\n')
    assert succeeded(host.up(fresh))
    assert "install docker.io ca-certificates" in host.read("calls")


def test_two_runs_do_not_set_up_one_host_at_once(host: Host, fresh: Setup) -> None:
    folder = host.root / COURSE[1:]
    folder.mkdir(parents=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for script, what in (("engine-up", "setting this host up"), ("engine-down", "changing this host")):
            done = host.run(script, "install", data=tar(fresh.files), patience=0)
            assert failure(done).startswith(f"another run has been {what}")
    assert not host.has(MARK)
    assert not host.has("calls")
    assert succeeded(host.up(fresh))


def test_an_engine_that_runs_already_takes_the_new_settings_in_any_case(host: Host, fresh: Setup) -> None:
    assert succeeded(host.up(fresh))
    (host.root / COURSE[1:] / "ready").unlink()  # a renewal was interrupted
    host.write("calls")
    assert succeeded(host.up(fresh))
    assert "systemctl restart docker.service" in host.read("calls")


def break_apt(host: Host) -> str:
    """As with `E: Unmet dependencies`: not even a simulation works."""
    words = (host.root / "bin/apt-get").read_text()
    (host.root / "bin/apt-get").write_text("#!/bin/sh\nexit 100\n")
    return words


def test_packages_that_can_not_be_removed_are_reported_and_removed_by_the_next_run(host: Host, fresh: Setup) -> None:
    assert succeeded(host.up(fresh))
    working = break_apt(host)
    assert "packages" in failure(host.down())
    (host.root / "bin/apt-get").write_text(working)
    assert succeeded(host.down())
    assert not host.installed & {"docker.io", "containerd", "runc"}
    assert not host.has("/var/lib/cloudscale")


def test_settings_of_ours_can_be_read_by_everyone(host: Host, fresh: Setup) -> None:
    assert succeeded(host.up(fresh))
    assert (host.root / SETTINGS[1:]).stat().st_mode & 0o777 == 0o644


def test_the_owners_settings_keep_their_mode(host: Host, kept: Setup) -> None:
    host.write(SETTINGS, '{"proxies": {"http-proxy": "http://ann:secret@proxy.example"}}')
    path = host.root / SETTINGS[1:]
    path.chmod(0o600)
    host.write("engine")
    assert succeeded(host.up(kept))
    assert path.stat().st_mode & 0o777 == 0o600
    assert (host.root / COURSE[1:] / "daemon.json.before").stat().st_mode & 0o777 == 0o600
    assert os.stat(host.root / COURSE[1:]).st_mode & 0o777 == 0o700
    assert succeeded(host.down(b"{}"))
    assert path.stat().st_mode & 0o777 == 0o600


# --- the firewall of a machine ---------------------------------------------------------------

IP = 'case $* in *show*) echo "4: docker0    inet 172.30.0.1/20 brd 172.30.15.255 scope global docker0" ;; esac'


def program(host: Host, name: str, script: str) -> None:
    (host.root / "bin" / name).unlink(missing_ok=True)
    (host.root / "bin" / name).write_text(f'#!/bin/sh\necho "{name} $*" >>"$ROOT/calls"\n{script}\n')
    (host.root / "bin" / name).chmod(0o755)


@pytest.fixture
def walled(host: Host) -> Host:
    """A machine that was made for the course."""
    program(host, "ip", IP)
    program(host, "timeout", "exit 124")
    return host


def test_the_firewall_of_a_machine_is_tried_from_a_containers_place(walled: Host, fresh: Setup) -> None:
    assert succeeded(walled.up(fresh))
    probe = [call for call in walled.calls if "cloudscale" in call and call.startswith(("ip", "timeout"))]
    assert "ip -n cloudscale address add 172.30.0.254/20 dev eth0" in probe
    assert any("169.254.169.254" in call for call in probe)
    assert probe[-1] == "ip netns delete cloudscale"
    assert walled.has(f"{COURSE}/ready")


# counts one more each time that it is asked
COUNTING = """case $* in
  *-vS*)
    echo packet >>"$ROOT/packets"
    echo "-A CLOUDSCALE-SEATS -d 169.254.0.0/16 -c $(awk 'END {print NR}' "$ROOT/packets") 60 -j DROP" ;;
esac"""


def test_a_firewall_that_counts_what_it_drops_is_not_waited_for(walled: Host, fresh: Setup) -> None:
    program(walled, "iptables", COUNTING)
    program(
        walled,
        "timeout",
        '/bin/sleep 20 & trap "kill $!; exit 143" TERM; wait $!; echo patience >>"$ROOT/calls"; exit 124',
    )
    assert succeeded(walled.up(fresh))
    assert "patience" not in walled.calls
    assert walled.has(f"{COURSE}/ready")


def test_an_answer_counts_more_than_what_the_firewall_has_dropped(walled: Host, fresh: Setup) -> None:
    program(walled, "iptables", COUNTING)
    program(walled, "timeout", "exit 0")
    assert "not in force" in walled.up(fresh).stderr.decode()
    assert not walled.has(f"{COURSE}/ready")


def test_a_firewall_alone_needs_no_restart(walled: Host, fresh: Setup) -> None:
    assert succeeded(walled.up(fresh))
    (walled.root / "calls").unlink()
    assert succeeded(walled.up(Setup(False, {MARK: fresh.files[MARK], SCRIPT: fresh.files[SCRIPT]}, ("firewall",))))
    assert any(call.startswith("iptables -w -A CLOUDSCALE-SEATS") for call in walled.calls)
    assert not [call for call in walled.calls if call.startswith(("systemctl start", "systemctl restart", "apt-get"))]
    assert walled.has(f"{COURSE}/ready")


def test_a_firewall_that_can_not_be_set_is_reported(walled: Host, kept: Setup) -> None:
    program(walled, "iptables", 'case $* in *169.254*) echo "iptables: No chain" >&2; exit 1 ;; esac')
    done = walled.up(kept)
    assert done.returncode
    assert "its firewall can't be set: iptables: No chain" in done.stderr.decode()
    assert not walled.has(f"{COURSE}/ready")


def test_a_host_without_a_firewall_is_not_tried(host: Host, tmp_path: Path) -> None:
    program(host, "ip", IP)
    shared = setup(tmp_path, values={**WITH_ENGINE, "swarm": "inactive 2\n"})  # with its owner's containers
    assert SCRIPT not in shared.files
    assert succeeded(host.up(shared))
    assert not any("netns" in call for call in host.calls)


@pytest.mark.parametrize(
    ("what", "script", "message"),
    [
        ("timeout", "exit 0", "not in force: a container reaches the metadata service (169.254.169.254)"),
        ("ip", f"{IP}\ncase $* in *veth*) echo no veth >&2; exit 2 ;; esac", "can't be tried: no veth"),
    ],
)
def test_a_machine_whose_firewall_does_not_hold_is_not_ready(
    walled: Host, fresh: Setup, what: str, script: str, message: str
) -> None:
    program(walled, what, script)
    done = walled.up(fresh)
    assert done.returncode
    assert message in done.stderr.decode()
    assert not walled.has(f"{COURSE}/ready")
    assert "ip netns delete cloudscale" in walled.calls
