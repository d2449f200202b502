"""Facts about a host (system, network, disk, engine): one script collects them, one pure parser reads them."""

from __future__ import annotations

import base64
import contextlib
import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloudscale.errors import MachineError
from cloudscale.hosts.ssh import Connection
from cloudscale.model import CommandResult
from cloudscale.outside import OtherForm, formed, parse_object
from cloudscale.scripts import script
from cloudscale.units import MIB

READING = 60  # seconds for the script
OURS = "cloudscale: "  # the prefix of our scripts' own error messages
LISTENING = "0A"  # the state in /proc/net/tcp (Linux, include/net/tcp_states.h)
# devices that the engine, virtual machines or tunnels create and remove
TUNNELS = "veth|virbr|vnet|lxc|lxd|incus|podman|cni|tun|utun|tap|wg|ppp|zt|tailscale"
PASSING = re.compile(rf"lo|docker0|docker_gwbridge|br-[0-9a-f]{{12}}|({TUNNELS}).*")
ENGINES_OWN = re.compile(r"lo|docker0|docker_gwbridge|br-[0-9a-f]{12}|veth.*")

LINK = re.compile(r"^\d+: ([^:@ ]+).* mtu (\d+)", re.MULTILINE)  # a line of `ip -o link`


@dataclass(frozen=True)
class Address:
    """An address of one of the host's own network devices, and its network."""

    device: str
    address: str
    network: str


@dataclass(frozen=True)
class Facts:
    """A host as it is now. Sizes are in bytes; the text of a file that does not exist is empty.

    `free_disk`: where the engine keeps its data, its volumes and its images; of several disks, that of the fullest one.
    """

    system: str
    has_apt: bool
    has_systemd: bool
    cores: int
    memory: int
    free_disk: int
    has_quotas: bool  # the engine can limit volumes
    addresses: tuple[Address, ...]
    networks: frozenset[str]
    mtus: Mapping[str, int]
    listening: frozenset[int]
    engine: tuple[int, int] | None  # major and minor version
    engine_runs: bool
    start_command: tuple[str, ...]
    uses_socket_unit: bool  # systemd passes the socket to the engine
    swarm: str  # the swarm state of an engine not yet set up for a course; empty if no such engine answers
    own_containers: int  # the number of containers on that engine
    settings_text: str
    settings_before: str
    unit: str
    authority: bytes
    certificate: bytes
    has_key: bool
    mark: Mapping[str, Any]
    firewall: str
    is_ready: bool
    installed_by_course: bool
    installed_at_boot: bool  # and not started yet

    def own_address(self, *called: str) -> str:
        """The address at which its neighbours reach the host: the first of `called` that is its own, else any."""
        known = [address.address for address in self.addresses]
        for name in called:
            with contextlib.suppress(ValueError):
                if (address := str(ipaddress.ip_address(name))) in known:
                    return address
        return next(iter(known), called[0])

    def mtu(self, address: str) -> int:
        """The MTU in bytes of the NIC that has the address; 1500 if no NIC has it."""
        device = next((own.device for own in self.addresses if own.address == address), "")
        return self.mtus.get(device, 1500)


def read_facts(connection: Connection) -> Facts:
    """Reads the facts of a host, and changes nothing. Raises ConnectionFailed, MachineError."""
    name = connection.target.name
    done = connection.run_root(script("hosts", "facts.sh"), timeout=READING)
    if done.exit_code:
        raise MachineError(
            f"{name}: could not read its state ({script_failure(done)}).",
            "Check on the machine that its disk is not full (df) and that it is not overloaded (top), then run again.",
        )
    return parse_facts(done.stdout, name)


def script_failure(done: CommandResult) -> str:
    """The error message of one of our scripts, else the last line that it printed."""
    ours = [line for line in map(str.strip, done.stderr.splitlines()) if line.startswith(OURS)]
    return (ours[-1].removeprefix(OURS) if ours else done.last_words()).rstrip(".")


def parse_facts(text: str, name: str) -> Facts:
    """Parses the output of facts.sh. Raises MachineError if it is something else."""
    values = {}
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        try:
            values[key] = base64.b64decode(value, validate=True).decode(errors="replace")
        except ValueError:
            continue  # a line printed by a login script of the host
    try:
        addresses = tuple(_addresses(values["addresses"]))
        return Facts(
            system=_unquoted(re.search(r"^PRETTY_NAME=(.*)$", values["os"], re.MULTILINE)),
            has_apt=bool(values["apt"]),
            has_systemd=bool(values["systemd"]),
            cores=int(values["cores"]),
            memory=int(_first(r"^MemTotal:\s+(\d+) kB", values["memory"])) * 1024,
            free_disk=_free(values["disk"]),
            has_quotas=bool(values["quotas"].strip()),
            addresses=addresses,
            networks=frozenset(
                [
                    *(address.network for address in addresses),
                    *_routes(values["routes"]),
                    *_resolvers(values["resolvers"]),
                ]
            ),
            mtus={match[1]: int(match[2]) for match in LINK.finditer(values["links"])},
            listening=listening_ports(values["sockets"]),
            engine=_version(values["engine"]),
            engine_runs=values["active"].strip() == "active",
            start_command=_start_command(values["start"]),
            uses_socket_unit="fd://" in values["start"],
            swarm=values["swarm"].strip("\n").partition(" ")[0],
            own_containers=int(values["swarm"].partition(" ")[2] or 0),
            settings_text=values["settings"],
            settings_before=values["before"],
            unit=values["unit"],
            authority=values["authority"].encode(),
            certificate=values["certificate"].encode(),
            has_key=bool(values["key"]),
            mark=_mark(values["mark"]),
            firewall=values["firewall"],
            is_ready=bool(values["ready"]),
            installed_by_course=bool(values["installed_by_course"]),
            installed_at_boot=bool(values["installed_at_boot"]),
        )
    except (KeyError, ValueError, TypeError) as error:
        cause = f"no value for {error}" if isinstance(error, KeyError) else error
        raise MachineError(
            f"{name}: could not read its state ({cause}).",
            "The machine needs Debian or Ubuntu, with the package iproute2.",
        ) from None


def _range(text: str) -> object:
    return ipaddress.IPv4Network(formed(text, str))


MARK = {"settings?": {"hosts?": [str], "default-address-pools?": [{"base": _range}]}}  # what is needed of it


def _mark(text: str) -> Mapping[str, Any]:
    """The record of the course on the host; one that a power failure damaged counts as none."""
    try:
        mark: Mapping[str, Any] = formed(parse_object(text or "{}"), MARK)
        return mark
    except (ValueError, OtherForm):
        return {}


def _first(pattern: str, text: str) -> str:
    match = re.search(pattern, text, re.MULTILINE)
    if not match:
        raise ValueError(f"unexpected output {text[:80]!r}")
    return match[1]


def _free(table: str) -> int:
    """Bytes, from the output of `df -Pk`: the least of its lines."""
    free = re.findall(r"^\S.*?\s\d+\s+-?\d+\s+(-?\d+)\s+\S+\s+/", table, re.MULTILINE)
    if not free:
        raise ValueError(f"unexpected output {table[:80]!r}")
    return min(map(int, free)) * 1024


def _unquoted(match: re.Match[str] | None) -> str:
    return match[1].strip().strip("\"'") if match else ""


def _addresses(text: str) -> Iterable[Address]:
    """From `ip -o address`: permanent addresses that other machines can reach."""
    for line in text.splitlines():
        _, device, family, address, *rest = line.split()
        if family not in ("inet", "inet6") or PASSING.fullmatch(device) or "global" not in rest:
            continue
        if not {"temporary", "deprecated", "tentative"} & set(rest):
            interface = ipaddress.ip_interface(address)
            yield Address(device, str(interface.ip), str(interface.network))


def _routes(text: str) -> Iterable[str]:
    """From `ip -o route`: the networks that the host reaches through devices other than the engine's."""
    for line in text.splitlines():
        words = line.split()
        device = words[words.index("dev") + 1] if "dev" in words[:-1] else ""
        if words and not ENGINES_OWN.fullmatch(device):
            try:
                yield str(ipaddress.ip_network(words[0], strict=False))
            except ValueError:
                continue  # `default`, `blackhole` and the like


def _resolvers(text: str) -> Iterable[str]:
    for match in re.finditer(r"^nameserver\s+([0-9a-fA-F.:]+)", text, re.MULTILINE):
        with contextlib.suppress(ValueError):  # a typing error in resolv.conf
            yield str(ipaddress.ip_network(match[1]))


def listening_ports(table: str) -> frozenset[int]:
    """TCP ports in use by a listener, on any address, from the text of /proc/net/tcp and tcp6."""
    ports = set()
    for line in table.splitlines():
        match = re.match(rf"\s*\d+: [0-9A-F]+:([0-9A-F]{{4}}) [0-9A-F]+:[0-9A-F]{{4}} {LISTENING} ", line)
        if match:
            ports.add(int(match[1], 16))
    return frozenset(ports)


def listening_here() -> frozenset[int]:
    """The listening TCP ports of this computer; empty if its kernel is not Linux."""
    tables = (Path(f"/proc/net/{name}") for name in ("tcp", "tcp6"))
    return listening_ports("".join(table.read_text() for table in tables if table.exists()))


def usable_memory(ram: int) -> int:
    """Bytes of memory that Linux can use in a VM with `ram` MiB: measured were 1475 of 1536 MiB, 63.0 of 64 GiB."""
    return int((ram * 0.97 - 64) * MIB)


def _version(text: str) -> tuple[int, int] | None:
    match = re.search(r"version (\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else None


def _start_command(text: str) -> tuple[str, ...]:
    """The engine's command line, from `systemctl show`, without those options that the course sets."""
    match = re.search(r"argv\[\]=(.*?) ; ", text)
    words, kept = iter(match[1].split() if match else ()), []
    for word in words:
        if word in ("-H", "--host", "--tlscacert", "--tlscert", "--tlskey", "--firewall-backend"):
            next(words, "")
        elif not word.startswith(("-H", "--host=", "--tls", "--live-restore", "--firewall-backend")):
            kept.append(word)
    return tuple(kept)
