from __future__ import annotations

import base64
import json
import re
import subprocess
from pathlib import Path

import pytest

from cloudscale.errors import MachineError
from cloudscale.hosts.facts import Address, listening_ports, parse_facts, script_failure
from cloudscale.model import CommandResult
from tests.unit.fake_host import DEBIAN_START, DOCKER_CE_START, FRESH, WITH_ENGINE, facts, printed
from tests.unit.scripts import script_text

GIB = 1024**3


# --- a host ----------------------------------------------------------------------------------


def test_a_fresh_host_is_read() -> None:
    host = facts()
    assert host.system == "Debian GNU/Linux 12 (bookworm)"
    assert (host.has_apt, host.has_systemd, host.cores) == (True, True, 4)
    assert (host.memory, host.free_disk) == (8140096 * 1024, 36256724 * 1024)
    assert host.listening == {22, 80}
    assert (host.engine, host.engine_runs, host.start_command) == (None, False, ())
    assert (host.settings_text, host.settings_before, host.unit, host.mark) == ("", "", "", {})
    assert (host.swarm, host.own_containers, host.uses_socket_unit) == ("", 0, False)
    assert not (host.authority or host.certificate or host.has_key)
    assert not (host.is_ready or host.installed_by_course or host.installed_at_boot)


def test_a_host_with_an_engine_is_read() -> None:
    host = facts(WITH_ENGINE)
    assert (host.engine, host.engine_runs, host.swarm, host.own_containers) == ((20, 10), True, "inactive", 0)
    assert host.uses_socket_unit
    assert host.start_command == ("/usr/sbin/dockerd", "--containerd=/run/containerd/containerd.sock", "$DOCKER_OPTS")


@pytest.mark.parametrize(
    ("output", "version"),
    [
        ("Docker version 20.10.24+dfsg1, build 297e128\n", (20, 10)),
        ("Docker version 27.3.1, build 41ca978\n", (27, 3)),
        ("Docker version 18.09.1, build 4c52b90\n", (18, 9)),
        ("Docker version 28.0.0-rc.1, build 0c97515\n", (28, 0)),
        ("dockerd: error while loading shared libraries\n", None),
    ],
)
def test_an_engines_version_is_read(output: str, version: tuple[int, int] | None) -> None:
    assert facts(engine=output).engine == version


def test_an_engine_from_the_first_boot_is_distinguished_from_one_that_the_course_installed() -> None:
    host = facts(WITH_ENGINE, active="inactive\n", installed_by_course="yes\n", installed_at_boot="yes\n")
    assert (host.installed_by_course, host.installed_at_boot, host.is_ready) == (True, True, False)
    assert not facts(WITH_ENGINE, installed_by_course="yes\n").installed_at_boot


@pytest.mark.parametrize("state", ["inactive\n", "failed\n", "activating\n", ""])
def test_an_engine_that_is_not_active_does_not_run(state: str) -> None:
    assert not facts(WITH_ENGINE, active=state).engine_runs


@pytest.mark.parametrize(
    ("text", "state", "containers"),
    [
        ("inactive 0\n", "inactive", 0),
        ("active 12\n", "active", 12),
        ("", "", 0),  # no engine, or one that does not answer
        ("\n", "", 0),  # as docker(1) prints when it gave up half-way
        (" 0\n", "", 0),  # as docker(1) prints of an engine that is stopped, from version 23 on
    ],
)
def test_a_swarm_and_containers_of_the_owners_are_known(text: str, state: str, containers: int) -> None:
    host = facts(WITH_ENGINE, swarm=text)
    assert (host.swarm, host.own_containers) == (state, containers)


@pytest.mark.parametrize(
    ("text", "system"),
    [("PRETTY_NAME='Ubuntu 24.04.1 LTS'\n", "Ubuntu 24.04.1 LTS"), ("PRETTY_NAME=Void\n", "Void"), ("", "")],
)
def test_a_system_is_called_what_it_calls_itself(text: str, system: str) -> None:
    assert facts(os=text).system == system


def test_a_file_system_with_a_long_name_is_read() -> None:
    disk = FRESH["disk"].replace("/dev/vda1 ", "/dev/mapper/vg0-a--very--long--name--of--a--volume ")
    assert facts(disk=disk).free_disk == 36256724 * 1024


def test_the_output_of_a_login_script_is_ignored() -> None:
    lines = printed(FRESH).splitlines()
    noise = ["", "Welcome to m1!", "You have mail.", "disk full", "os", " ", "Last login: Mon Mar  3 08:14:21 2025"]
    assert parse_facts("\n".join([*noise, *lines]), "m1") == facts()
    assert parse_facts("\r\n".join(["* motd *", *lines]), "m1") == facts()


@pytest.mark.parametrize("name", FRESH)
def test_incomplete_output_is_reported_with_the_machine(name: str) -> None:
    with pytest.raises(MachineError, match=rf"^m1: .*{name}"):
        parse_facts(printed({key: value for key, value in FRESH.items() if key != name}), "m1")


@pytest.mark.parametrize("name", ["cores", "memory", "disk"])
def test_what_is_no_number_is_reported_with_the_machine(name: str) -> None:
    with pytest.raises(MachineError, match=r"^m1: "):
        facts({**FRESH, name: "nproc: not found\n"})


@pytest.mark.parametrize("text", ["", "bash: line 1: syntax error", "MOTD\n" * 3])
def test_the_output_of_something_else_is_reported_with_the_machine(text: str) -> None:
    with pytest.raises(MachineError, match=r"^m1: "):
        parse_facts(text, "m1")


@pytest.mark.parametrize("mark", ["", "{", '"bio"', "[1]", "null", "\0\0\0"])
def test_a_mark_that_a_power_failure_damaged_counts_as_none(mark: str) -> None:
    assert facts(mark=mark).mark == {}


# --- the script ------------------------------------------------------------------------------


def test_the_script_prints_exactly_what_the_parser_reads() -> None:
    # test_incomplete_output_is_reported_with_the_machine shows that the parser reads all of these
    script = script_text("facts")
    assert sorted(re.findall(r"\| fact (\w+)$", script, re.MULTILINE)) == sorted(FRESH)


@pytest.mark.usefixtures("processes")
def test_the_script_reads_this_computer() -> None:
    done = subprocess.run(["sh", "-c", script_text("facts")], capture_output=True, text=True, check=True)
    host = parse_facts(done.stdout, "here")
    assert done.stderr == ""
    assert host.cores > 0
    assert host.memory > 0
    assert host.free_disk >= 0


DAEMON = json.dumps({"data-root": "/data/docker", "log-driver": "json-file", "live-restore": True})
STORE = json.dumps({"features": {"containerd-snapshotter": True}}, indent=4)
CONTAINERD = "version = 2\nroot = '/data/images' # moved\n[grpc]\nroot = 'x'\n"


@pytest.mark.usefixtures("processes")
@pytest.mark.parametrize(
    ("daemon", "containerd", "start", "version", "folders"),
    [
        ("", "", "", "", ["var/lib/docker", "var/lib/docker"]),
        (DAEMON, "", "", "20.10.24", ["data/docker", "data/docker"]),
        ('{"data-root":\n\t"/data/new/deep"}', "", "", "26.1.5", ["data", "data"]),  # what is not made yet
        (DAEMON, "", "-H fd:// --data-root=/data/flag --debug ; ", "26.1.5", ["data/flag", "data/flag"]),
        ("", "", "-H fd:// --data-root /data/flag ; ", "26.1.5", ["data/flag", "data/flag"]),
        (STORE, "", "", "28.5.2", ["var/lib/docker", "var/lib/containerd"]),
        (STORE, CONTAINERD, "", "28.5.2", ["var/lib/docker", "data/images"]),
        (DAEMON, "", "", "29.1.3", ["data/docker", "var/lib/containerd"]),
        ("", "", "", "29.1.3", ["var/lib/docker", "var/lib/docker"]),  # upgraded, with images from before
        ('{"features": {"containerd-snapshotter": false}}', "", "", "29.1.3", ["var/lib/docker", "var/lib/docker"]),
    ],
)
def test_free_disk_is_that_of_the_engines_own_folders(
    tmp_path: Path, daemon: str, containerd: str, start: str, version: str, folders: list[str]
) -> None:
    made = ("var/lib/docker/image/overlay2", "var/lib/containerd", "data/docker", "data/flag/volumes", "data/images")
    for folder in made:
        (tmp_path / folder).mkdir(parents=True)
    for path, text in {"etc/docker/daemon.json": daemon, "etc/containerd/config.toml": containerd}.items():
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text(text)
    programs = {
        "df": "printf '%s\\n' \"$@\"",
        "systemctl": f'case $* in *MainPID*) echo 0 ;; *ExecStart*) echo "ExecStart={{ argv[]=dockerd {start}" ;; esac',
        "dockerd": f'[ "{version}" ] && echo "Docker version {version}, build 1"',
        "docker": "exit 1",
    }
    for name, script in programs.items():
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    script = re.sub(r"/(?=(etc/docker|etc/containerd|var/lib)/)", f"{tmp_path}/", script_text("facts"))
    for name in ("data", "images"):  # those that a setting names are below the test's folder, too
        script = script.replace(f'$(present "${name}', f'$(present "$ROOT/${{{name}#$ROOT/}}')
    done = subprocess.run(
        ["sh", "-c", script],
        capture_output=True,
        text=True,
        env={"PATH": f"{tmp_path}/bin:/usr/bin:/bin", "ROOT": str(tmp_path)},
        check=True,
    )
    assert done.stderr == ""
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("disk "))
    shown = base64.b64decode(line.split()[1]).decode().splitlines()
    data, *_ = folders
    volumes = "data/flag/volumes" if data == "data/flag" else data  # that is where they are, or will be
    assert [str(Path(folder).relative_to(tmp_path)) for folder in shown[1:]] == [*folders, volumes]


def test_of_two_disks_the_fuller_one_counts() -> None:
    table = (
        "Filesystem     1024-blocks    Used Available Capacity Mounted on\n"
        "/dev/vda1         40501688 2153020  36256724       6% /\n"
        "10.0.0.9:/srv     40501688 2153020      2048      99% /var/lib/my containerd\n"
    )
    assert facts(disk=table).free_disk == 2048 * 1024


# --- addresses -------------------------------------------------------------------------------


def test_addresses_that_last_and_that_others_can_use_are_known() -> None:
    assert facts().addresses == (
        Address("ens3", "192.0.2.11", "192.0.2.0/24"),
        Address("ens3", "2001:db8::5054:ff:fe12:3456", "2001:db8::/64"),
    )


@pytest.mark.parametrize("flags", ["temporary", "deprecated", "tentative", "temporary deprecated dynamic"])
def test_an_address_that_goes_soon_is_not_counted_on(flags: str) -> None:
    line = f"2: ens3    inet6 2001:db8::1/64 scope global {flags} \\       valid_lft 604373sec preferred_lft 0sec\n"
    assert facts(addresses=line).addresses == ()


def test_the_engines_own_devices_are_left_out() -> None:
    assert facts(WITH_ENGINE).addresses == facts().addresses
    assert facts(WITH_ENGINE).networks == facts().networks
    line = "9: {}    inet 172.19.0.1/16 brd 172.19.255.255 scope global {}\\       valid_lft forever\n"
    for device in ("docker0", "docker_gwbridge", "br-0123456789ab", "vethd0fe1a2"):
        assert facts(addresses=line.format(device, device)).addresses == ()
    for device in ("br0", "br-lan", "bond0", "vmbr0", "eth0.17", "lo1", "docker0a"):
        assert facts(addresses=line.format(device, device)).addresses == (
            Address(device, "172.19.0.1", "172.19.0.0/16"),
        )


@pytest.mark.parametrize("device", ["virbr0", "vnet3", "lxcbr0", "tun0", "tap0", "wg0", "wg-bio", "ppp0", "tailscale0"])
def test_devices_of_tunnels_and_virtual_machines_are_left_out_but_not_their_networks(device: str) -> None:
    # they come and go, and a certificate with their addresses would be renewed each time
    line = f"9: {device}    inet 10.8.0.2/24 scope global {device}\\       valid_lft forever preferred_lft forever\n"
    route = f"10.8.0.0/24 dev {device} proto kernel scope link src 10.8.0.2\n"
    host = facts(addresses=FRESH["addresses"] + line, routes=FRESH["routes"] + route)
    assert host.addresses == facts().addresses
    assert "10.8.0.0/24" in host.networks


@pytest.mark.parametrize("device", ["lxdbr0", "incusbr0", "podman1", "cni0", "ztabcdef12", "utun3"])
def test_devices_of_other_tunnels_and_containers_are_left_out_too(device: str) -> None:
    line = f"9: {device}    inet 10.8.0.2/24 scope global {device}\\       valid_lft forever preferred_lft forever\n"
    assert facts(addresses=FRESH["addresses"] + line).addresses == facts().addresses


def test_an_address_with_a_peer_is_read() -> None:
    line = "5: sl0    inet 10.8.0.2 peer 10.8.0.1/32 scope global sl0\\       valid_lft forever preferred_lft forever\n"
    assert facts(addresses=line).addresses == (Address("sl0", "10.8.0.2", "10.8.0.2/32"),)


def test_the_networks_are_those_of_addresses_routes_and_name_servers() -> None:
    routes = (
        f"{FRESH['routes']}blackhole 10.66.0.0/16\n10.8.0.0/24 via 10.8.0.1 dev tun0\n"
        "10.9.0.0/16 proto static metric 20 \\\tnexthop via 192.0.2.1 dev ens3 weight 1 \\\tnexthop via 192.0.2.3\n"
    )
    assert facts(routes=routes).networks == {
        "192.0.2.0/24",
        "2001:db8::/64",
        "fe80::/64",
        "169.254.169.254/32",
        "10.8.0.0/24",
        "10.9.0.0/16",
        "192.0.2.2/32",
        "2001:db8::53/128",
    }


@pytest.mark.parametrize("line", ["nameserver", "nameserver ", "nameserver host.example", "#nameserver 192.0.2.1"])
def test_a_name_server_that_is_none_is_passed_over(line: str) -> None:
    assert facts(resolvers=f"{line}\n{FRESH['resolvers']}").networks == facts().networks


@pytest.mark.parametrize("line", ["nameserver 192.0.2", "nameserver dns.example", "nameserver fe80::1:%eth0"])
def test_a_name_server_that_is_mistyped_is_passed_over(line: str) -> None:
    assert facts(resolvers=f"{line}\n{FRESH['resolvers']}").networks == facts().networks


def test_a_host_without_iproute2_is_reached_by_what_it_is_called() -> None:
    host = facts(addresses="", links="", routes="")
    assert host.addresses == ()
    assert host.own_address("192.0.2.11") == "192.0.2.11"
    assert host.mtu("192.0.2.11") == 1500


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("192.0.2.11", "192.0.2.11"),
        ("2001:db8::5054:ff:fe12:3456", "2001:db8::5054:ff:fe12:3456"),
        ("203.0.113.5", "192.0.2.11"),  # a floating IP, which the host itself does not know
        ("host.example", "192.0.2.11"),
    ],
)
def test_the_neighbours_reach_a_host_by_an_address_of_its_own(host: str, address: str) -> None:
    assert facts().own_address(host) == address


def test_an_address_is_known_however_it_is_written() -> None:
    assert facts().own_address("2001:DB8::5054:00ff:fe12:3456") == "2001:db8::5054:ff:fe12:3456"


VAGRANT = """\
2: eth0    inet 10.0.2.15/24 brd 10.0.2.255 scope global dynamic eth0\\       valid_lft 85973sec preferred_lft 85973sec
3: eth1    inet 192.168.56.11/24 brd 192.168.56.255 scope global eth1\\       valid_lft forever preferred_lft forever
"""


def test_of_all_that_a_host_is_called_by_the_first_that_is_its_own_counts() -> None:
    host = facts(addresses=VAGRANT)
    assert host.own_address("host.example", "192.168.56.11") == "192.168.56.11"
    assert host.own_address("10.0.2.15", "192.168.56.11") == "10.0.2.15"
    assert host.own_address("host.example", "203.0.113.5") == "10.0.2.15"
    assert facts(addresses="").own_address("host.example", "203.0.113.5") == "host.example"


def test_of_several_nics_the_one_with_the_hosts_address_counts() -> None:
    # 10.0.2.15 is every such machine's own
    assert facts(addresses=VAGRANT).own_address("192.168.56.11") == "192.168.56.11"


def test_the_mtu_is_that_of_the_nic_with_the_address() -> None:
    host = facts()
    assert host.mtu("192.0.2.11") == host.mtu("2001:db8::5054:ff:fe12:3456") == 1450
    assert host.mtu("192.0.2.99") == 1500


def test_nics_with_a_link_to_another_are_read() -> None:
    links = (
        "2: host0@if7: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 9000 qdisc noqueue state UP mode DEFAULT group default\n"
        "3: eth0.17@eth0: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1496 qdisc noqueue state UP mode DEFAULT\n"
    )
    assert facts(links=links).mtus == {"host0": 9000, "eth0.17": 1496}


# --- ports -----------------------------------------------------------------------------------


def test_only_ports_with_a_listener_are_read() -> None:
    assert listening_ports(FRESH["sockets"]) == {22, 80}
    assert listening_ports("") == listening_ports("cat: /proc/net/tcp6: No such file\n") == frozenset()


# --- where an engine listens -----------------------------------------------------------------


def start(*words: str) -> tuple[str, ...]:
    argv = " ".join(("/usr/bin/dockerd", *words))
    return facts(
        start=f"ExecStart={{ path=/usr/bin/dockerd ; argv[]={argv} ; ignore_errors=no ; pid=0 }}\n"
    ).start_command


def test_the_socket_is_no_part_of_the_packages_start_commands() -> None:
    containerd = "--containerd=/run/containerd/containerd.sock"
    assert facts(start=DEBIAN_START).start_command == ("/usr/sbin/dockerd", containerd, "$DOCKER_OPTS")
    assert facts(start=DOCKER_CE_START).start_command == ("/usr/bin/dockerd", containerd)
    assert facts(start="ExecStart=\n").start_command == facts(start="").start_command == ()


@pytest.mark.parametrize(
    "words",
    [
        ["-H", "fd://"],
        ["-H=fd://"],
        ["-Hfd://"],
        ["--host", "fd://"],
        ["--host=fd://"],
        ["-H", "unix:///run/docker.sock", "-H", "tcp://0.0.0.0:2375"],
        ["-H=unix:///run/docker.sock", "--host=tcp://[::]:2375"],
        ["-Htcp://0.0.0.0:2375"],
        ["-Hunix:///run/docker.sock"],
        ["-H127.0.0.1:2375"],
        ["-H:2375"],
        ["--live-restore"],
        ["--live-restore=true"],
    ],
    ids=" ".join,
)
def test_options_for_sockets_are_dropped_in_every_notation(words: list[str]) -> None:
    assert start(*words, "--debug") == start("--debug", *words) == ("/usr/bin/dockerd", "--debug")


def test_other_options_of_the_engine_are_kept() -> None:
    words = ("--containerd=/run/c.sock", "--host-gateway-ip=192.0.2.1", "--data-root", "/srv", "--label", "a=-H")
    assert start(*words) == ("/usr/bin/dockerd", *words)


@pytest.mark.parametrize("form", ["--{} {}", "--{}={}"])
def test_what_a_docker_machine_left_of_certificates_is_dropped(form: str) -> None:
    given = {"tlscacert": "/etc/docker/ca.pem", "tlscert": "/etc/docker/server.pem", "tlskey": "/etc/docker/key.pem"}
    words = [word for name, path in given.items() for word in form.format(name, path).split()]
    assert start("--tlsverify", *words, "--storage-driver", "overlay2") == (
        "/usr/bin/dockerd",
        "--storage-driver",
        "overlay2",
    )


# --- what a script fails with ----------------------------------------------------------------


@pytest.mark.parametrize(
    "stderr",
    [
        "cloudscale: the engine does not start: bad key. \n",  # engine-up.sh joins the lines of a log with spaces
        "warning\n  cloudscale: the engine does not start: bad key.\nConnection closed.\n",
        "the engine does not start: bad key.\n",
    ],
)
def test_a_scripts_own_message_is_taken_without_what_is_around_it(stderr: str) -> None:
    assert script_failure(CommandResult(1, "", stderr)) == "the engine does not start: bad key"
