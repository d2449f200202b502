"""A fake SSH host: what facts.sh prints on real hosts, and a login that runs our own scripts only."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from cloudscale.engines import setup
from cloudscale.errors import ConnectionFailed
from cloudscale.hosts.facts import Facts, parse_facts
from cloudscale.hosts.firewall import SCRIPT
from cloudscale.hosts.target import Target
from cloudscale.model import CommandResult, OnOutput
from tests.unit.scripts import SCRIPTS, script_text

# A virtual machine with Debian 12 as a cloud has them: no engine, IPv4 and IPv6, a temporary address among them.
FRESH: Mapping[str, str] = {
    "os": """\
PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"
NAME="Debian GNU/Linux"
VERSION_ID="12"
VERSION="12 (bookworm)"
VERSION_CODENAME=bookworm
ID=debian
HOME_URL="https://www.debian.org/"
""",
    "apt": "/usr/bin/apt-get\n",
    "systemd": "yes\n",
    "cores": "4\n",
    "memory": "MemTotal:        8140096 kB\nMemFree:         6620840 kB\nMemAvailable:    7539276 kB\n",
    "addresses": """\
1: lo    inet 127.0.0.1/8 scope host lo\\       valid_lft forever preferred_lft forever
1: lo    inet6 ::1/128 scope host noprefixroute \\       valid_lft forever preferred_lft forever
2: ens3    inet 192.0.2.11/24 metric 100 brd 192.0.2.255 scope global dynamic ens3\\       valid_lft 85973sec \
preferred_lft 85973sec
2: ens3    inet6 2001:db8::8c3:9f2a:1e5:77d0/64 scope global temporary dynamic \\       valid_lft 604373sec \
preferred_lft 85973sec
2: ens3    inet6 2001:db8::5054:ff:fe12:3456/64 scope global dynamic mngtmpaddr noprefixroute \\       valid_lft \
2591996sec preferred_lft 604796sec
2: ens3    inet6 fe80::5054:ff:fe12:3456/64 scope link noprefixroute \\       valid_lft forever preferred_lft forever
""",
    "links": """\
1: lo: <LOOPBACK,UP,LOWER_UP> mtu 65536 qdisc noqueue state UNKNOWN mode DEFAULT group default qlen 1000\\    \
link/loopback 00:00:00:00:00:00 brd 00:00:00:00:00:00
2: ens3: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1450 qdisc fq_codel state UP mode DEFAULT group default qlen 1000\\    \
link/ether 52:54:00:12:34:56 brd ff:ff:ff:ff:ff:ff\\    altname enp0s3
""",
    "routes": """\
default via 192.0.2.1 dev ens3 proto dhcp src 192.0.2.11 metric 100 
192.0.2.0/24 dev ens3 proto kernel scope link src 192.0.2.11 metric 100 
169.254.169.254 via 192.0.2.2 dev ens3 proto dhcp src 192.0.2.11 metric 100 
2001:db8::/64 dev ens3 proto ra metric 100 expires 2591996sec pref medium
fe80::/64 dev ens3 proto kernel metric 256 pref medium
default via fe80::1 dev ens3 proto ra metric 100 expires 1796sec pref medium
""",  # noqa: W291 - as it is printed
    "resolvers": "# written by systemd-resolved\nnameserver 192.0.2.2\nnameserver 2001:db8::53\nsearch example\n",
    "sockets": """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 21547 1 0000 100 0 0 10 0
   1: 0B0200C0:0016 010200C0:D2C4 01 00000000:00000000 02:000A7214 00000000     0        0 31337 2 0000 20 4 30 10 -1
  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when
   0: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000
""",
    "disk": """\
Filesystem     1024-blocks    Used Available Capacity Mounted on
/dev/vda1         40501688 2153020  36256724       6% /
""",
    "quotas": "",
    "engine": "",
    "start": "ExecStart=\n",
    "active": "inactive\n",
    "swarm": "",
    "settings": "",
    "before": "",
    "unit": "",
    "authority": "",
    "certificate": "",
    "key": "",
    "mark": "",
    "firewall": "",
    "ready": "",
    "installed_by_course": "",
    "installed_at_boot": "",
}

# The output of `systemctl show docker.service --property ExecStart` for Debian's and for Docker's own package.
DEBIAN_START = (
    "ExecStart={ path=/usr/sbin/dockerd ; argv[]=/usr/sbin/dockerd -H fd://"
    " --containerd=/run/containerd/containerd.sock $DOCKER_OPTS ; ignore_errors=no ;"
    " start_time=[Mon 2025-03-03 08:14:21 UTC] ; stop_time=[n/a] ; pid=812 ; code=(null) ; status=0/0 }\n"
)
DOCKER_CE_START = (
    "ExecStart={ path=/usr/bin/dockerd ; argv[]=/usr/bin/dockerd -H fd://"
    " --containerd=/run/containerd/containerd.sock ; ignore_errors=no ;"
    " start_time=[n/a] ; stop_time=[n/a] ; pid=0 ; code=(null) ; status=0/0 }\n"
)

# The host's own engine, of Debian's package, in use.
WITH_ENGINE: Mapping[str, str] = {
    **FRESH,
    "engine": "Docker version 20.10.24+dfsg1, build 297e128\n",
    "start": DEBIAN_START,
    "active": "active\n",
    "swarm": "inactive 0\n",
    "addresses": f"{FRESH['addresses']}3: docker0    inet 172.17.0.1/16 brd 172.17.255.255 scope global docker0\\\n"
    "4: br-0123456789ab    inet 172.18.0.1/16 brd 172.18.255.255 scope global br-0123456789ab\\\n",
    "routes": f"{FRESH['routes']}172.17.0.0/16 dev docker0 proto kernel scope link src 172.17.0.1 linkdown\n"
    "172.18.0.0/16 dev br-0123456789ab proto kernel scope link src 172.18.0.1\n",
}


def printed(values: Mapping[str, str]) -> str:
    """As facts.sh prints it."""
    return "".join(f"{name} {base64.b64encode(value.encode()).decode()}\n" for name, value in values.items())


def facts(values: Mapping[str, str] = FRESH, **changes: str) -> Facts:
    return parse_facts(printed({**values, **changes}), "m1")


class FakeConversation:
    def __init__(self, *lines: str) -> None:
        self._lines = [*lines]

    def line(self) -> str:
        return self._lines.pop(0)

    def send(self, data: bytes) -> bool:
        return True


@dataclass
class FakeHost:
    """A host and the login to it. It imitates the effect of our own scripts.

    `failures`: the result of a script, by its name. `calls`: the scripts that ran, with their arguments. `sent`: their
    input, by name and first argument.
    """

    target: Target = field(default_factory=lambda: Target("192.0.2.11", user="debian"))
    values: dict[str, str] = field(default_factory=lambda: dict(FRESH))
    failures: dict[str, CommandResult] = field(default_factory=dict)
    calls: list[tuple[str, ...]] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    sent: dict[str, bytes] = field(default_factory=dict)
    data: bytes = b""
    is_lost: bool = False
    is_alive: bool = True
    is_settled: bool = False  # the settings from before are recorded
    holder: str = ""  # the run that keeps others away

    def __post_init__(self) -> None:
        self.fresh = dict(self.values)
        self._scripts = {script_text(name): name for name in SCRIPTS}

    @property
    def host_key(self) -> str:
        return f"ssh-ed25519 {base64.b64encode(self.target.host.encode()).decode()}"

    @property
    def peer(self) -> str:
        return self.target.host

    @property
    def facts(self) -> Facts:
        return facts(self.values)

    @property
    def files(self) -> dict[str, bytes]:
        """Of the tar that was sent last."""
        return self._unpacked(self.data)

    def files_of(self, call: str) -> dict[str, bytes]:
        """Of the tar that was sent to a script, such as `image-door next`."""
        return self._unpacked(self.sent[call])

    @staticmethod
    def _unpacked(data: bytes) -> dict[str, bytes]:
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            return {f"/{member.name}": archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]

    @property
    def changes(self) -> list[tuple[str, ...]]:
        return [call for call in self.calls if call != ("facts",)]

    def run(
        self,
        command: str,
        *,
        timeout: float,
        folder: str | None = None,
        data: bytes = b"",
        on_output: OnOutput | None = None,
    ) -> CommandResult:
        self.commands.append(command)
        return CommandResult(0, f"{command} within {timeout:g}\n", "")

    def run_root(
        self, script: str, *arguments: str, timeout: float, data: bytes = b"", on_output: OnOutput | None = None
    ) -> CommandResult:
        assert timeout > 0
        if self.is_lost:
            raise ConnectionFailed(f"{self.target.name}: the connection is lost.")
        name = self._scripts.get(script, "other")
        self.calls.append((name, *arguments))
        self.data = self.sent[" ".join((name, *arguments[:1]))] = data
        if name in self.failures:
            if on_output:
                on_output(self.failures[name].stderr.encode())
            return self.failures[name]
        if name == "facts":
            return CommandResult(0, printed(self.values), "")
        if name == "engine-up":
            self._up(*arguments)
        elif name == "engine-down":
            self._down()
        return CommandResult(0, "22\n" if arguments[:1] == ("open",) else "", "")

    @contextlib.contextmanager
    def conversation(self, script: str, *arguments: str, timeout: float) -> Iterator[FakeConversation]:
        assert self._scripts[script] == "hold" and timeout > 0
        if self.is_lost:
            raise ConnectionFailed(f"{self.target.name}: the connection is lost.")
        if self.holder:
            yield FakeConversation(f"waiting {self.holder}", f"busy {self.holder}")
            return
        self.holder = arguments[0]
        yield FakeConversation("held")
        self.holder = ""

    def _up(self, what: str) -> None:
        values, files = self.values, {path: data.decode() for path, data in self.files.items()}
        if not self.is_settled:
            values["before"] = values["settings"]
            self.is_settled = True
        if what == "install" and not values["engine"]:
            values |= {"engine": WITH_ENGINE["engine"], "start": DEBIAN_START, "installed_by_course": "yes\n"}
        names = {
            setup.MARK: "mark",
            setup.SETTINGS: "settings",
            setup.UNIT: "unit",
            f"{setup.TLS}/ca.pem": "authority",
            f"{setup.TLS}/cert.pem": "certificate",
            f"{setup.TLS}/key.pem": "key",
            SCRIPT: "firewall",
        }
        for path, text in files.items():
            values[names[path]] = text
        if setup.UNIT in files:  # as systemd prints it
            command = files[setup.UNIT].strip().rpartition("ExecStart=")[2]
            values["start"] = (
                f"ExecStart={{ path={command.split()[0]} ; argv[]={command} ; ignore_errors=no ; pid=0 }}\n"
            )
        json.loads(values["settings"])  # an engine does not start with anything else
        values |= {"active": "active\n", "ready": "yes\n", "swarm": ""}

    def _down(self) -> None:
        self.is_settled = False
        if self.values["installed_by_course"]:
            self.values = dict(self.fresh)
        else:
            course = ("mark", "ready", "before", "installed_by_course", "installed_at_boot")
            ours = ("unit", "authority", "certificate", "key", "firewall", *course)
            self.values |= {**dict.fromkeys(ours, ""), "settings": self.data.decode()}
            self.values |= {name: self.fresh[name] for name in ("start", "swarm")}
