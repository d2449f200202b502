"""The firewall of a machine, in a folder that stands for it, with a program that keeps rules as iptables does."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path

import pytest

from cloudscale.hosts.firewall import SCRIPT, firewall
from tests.unit.script_host import Host, succeeded

pytestmark = pytest.mark.usefixtures("processes")

UNIT = "/etc/systemd/system/cloudscale-firewall.service"
BUILT_IN = ("INPUT", "DOCKER-USER")

# A file for each chain, a line for each rule. Like iptables it refuses a chain or a rule that is not there, and to make
# a chain twice or to delete one that has rules, or that a rule leads to.
IPTABLES = r"""
[ "$1" = -w ] || exit 2
what=$2 chain="$ROOT/chains/$3"
name=$3
shift 3
[ "$what" = -N ] || [ -e "$chain" ] || exit 1
case $what in
-N) [ ! -e "$chain" ] && : >"$chain" ;;
-F) : >"$chain" ;;
-X) [ ! -s "$chain" ] && ! grep -q -e "-j $name$" "$ROOT"/chains/* && rm "$chain" ;;
-C) grep -q -x -F -e "$*" "$chain" ;;
-A) echo "$*" >>"$chain" ;;
-I) { echo "$*"; cat "$chain"; } >"$ROOT/new" && mv "$ROOT/new" "$chain" ;;
-D) grep -q -x -F -e "$*" "$chain" && { grep -v -x -F -e "$*" "$chain" >"$ROOT/new"; mv "$ROOT/new" "$chain"; } ;;
*) exit 2 ;;
esac
"""
IP = r"""case $* in
*scope*) printf '%s\n' '10.1.0.0/24 dev ens3 proto kernel src 10.1.0.5 metric 100' '172.17.0.0/16 dev docker0' ;;
*default*) echo 'default via 10.1.0.1 dev ens3 proto dhcp' ;;
esac"""


@pytest.fixture
def host(tmp_path: Path) -> Host:
    made = Host(tmp_path / "host")
    for name, script in (("iptables", IPTABLES), ("ip", IP)):
        (made.root / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
    for chain in BUILT_IN:
        made.write(f"chains/{chain}", "-j RETURN\n")
    return made


def rules(host: Host) -> dict[str, list[str]]:
    return {path.name: path.read_text().splitlines() for path in (host.root / "chains").iterdir()}


def verdict(host: Host, chain: str, to: str, port: str) -> str:
    """What becomes of a new TCP connection from a seat, by the rules of a chain."""
    to, _, bridge = to.partition(" ")
    for rule in rules(host)[chain]:
        words = rule.replace("-m multiport ", "").split()
        given = dict(zip(words[::2], words[1::2], strict=True))
        assert given.keys() <= {"-d", "-o", "-p", "--dport", "--dports", "-j"}, rule
        ports = given.get("--dports", given.get("--dport", port)).split(",")
        is_there = ipaddress.ip_address(to) in ipaddress.ip_network(given.get("-d", "0.0.0.0/0"))
        if given.get("-p", "tcp") == "tcp" and is_there and port in ports and given.get("-o", bridge) == bridge:
            return given["-j"]
    return "RETURN"


def test_new_connections_from_seats_go_through_it_and_no_others(host: Host) -> None:
    assert succeeded(host.run("firewall", "up"))
    entered = [f"-i {bridge} -m conntrack --ctstate NEW -j" for bridge in ("docker_gwbridge", "docker0")]
    assert rules(host)["DOCKER-USER"] == [*(f"{rule} CLOUDSCALE-SEATS" for rule in entered), "-j RETURN"]
    assert rules(host)["INPUT"] == [*(f"{rule} CLOUDSCALE-HOST" for rule in entered), "-j RETURN"]


@pytest.mark.parametrize(
    ("to", "port", "expected"),
    [
        ("169.254.169.254", "80", "DROP"),
        ("10.1.0.7", "22", "DROP"),
        ("10.1.0.7", "4321", "DROP"),
        ("10.1.0.1", "443", "DROP"),
        ("10.1.0.1", "53", "RETURN"),
        ("172.17.0.3", "8888", "DROP"),
        ("172.30.0.3 docker0", "53", "DROP"),
        ("192.0.2.8", "2376", "DROP"),
        ("192.0.2.8", "7946", "DROP"),
        ("198.51.100.7", "443", "RETURN"),
        ("198.51.100.7", "22", "RETURN"),
    ],
)
def test_seats_reach_the_internet_and_name_servers_and_nothing_around_the_machine(
    host: Host, to: str, port: str, expected: str
) -> None:
    assert succeeded(host.run("firewall", "up"))
    assert verdict(host, "CLOUDSCALE-SEATS", to, port) == expected


def test_of_the_machine_itself_they_reach_a_name_server_only(host: Host) -> None:
    assert succeeded(host.run("firewall", "up"))
    found = [verdict(host, "CLOUDSCALE-HOST", "172.17.0.1", port) for port in ("53", "22", "80")]
    assert found == ["ACCEPT", "DROP", "DROP"]


def set_with(host: Host, *places: str) -> None:
    """As the machine has it."""
    (line,) = re.findall(r"^REACH='.*?'", firewall(places), re.MULTILINE)
    text = host.moved("firewall").replace("REACH=''", line, 1)
    assert succeeded(host.run_text(text, "up"))


def test_what_a_course_needs_is_open_and_closed_again(host: Host) -> None:
    set_with(host, "10.1.0.7/32:5432", "10.1.0.64/26:0")
    asked = [("10.1.0.7", "5432"), ("10.1.0.70", "22"), ("10.1.0.7", "5433")]
    assert [verdict(host, "CLOUDSCALE-SEATS", *place) for place in asked] == ["RETURN", "RETURN", "DROP"]
    assert [verdict(host, "CLOUDSCALE-HOST", *place) for place in asked] == ["ACCEPT", "ACCEPT", "DROP"]
    set_with(host)
    assert [verdict(host, "CLOUDSCALE-SEATS", *place) for place in asked] == ["DROP"] * 3


def test_it_can_be_set_again_and_is_then_the_same(host: Host) -> None:
    assert succeeded(host.run("firewall", "up"))
    before = rules(host)
    assert succeeded(host.run("firewall", "up"))
    assert rules(host) == before
    (host.root / "chains/DOCKER-USER").unlink()  # before the engine's first start
    assert succeeded(host.run("firewall", "up"))
    assert len(rules(host)["DOCKER-USER"]) == 2


def test_nothing_of_it_is_left_when_it_is_removed(host: Host) -> None:
    before, tree = rules(host), host.tree
    host.write(SCRIPT)
    assert succeeded(host.run("firewall", "install"))
    assert host.has(UNIT)
    for _ in range(2):
        assert succeeded(host.run("firewall", "up"))
    for _ in range(2):
        assert succeeded(host.run("firewall", "remove"))
        assert rules(host) == before
    assert {name: text for name, text in host.tree.items() if name != "new"} == tree


def test_an_engine_does_not_start_without_it(host: Host) -> None:
    (host.root / "bin/iptables").write_text("#!/bin/sh\ncase $* in *169.254*) exit 1 ;; esac\n")
    assert host.run("firewall", "up").returncode
