"""Stock Debian servers without Docker, for machines over SSH: real systemd, sshd and apt, in systemd-nspawn.

They live on a bridge in a network namespace, with an apt repository and a name server that knows no name; there is
no way out. What a host has mounted, only its own processes see: it ends with them.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.lab.control_groups import make_control_groups, remove_control_groups
from tests.lab.engine import clear
from tests.lab.namespace import PREFIX, Namespace, run
from tests.lab.stock import GATEWAY, PASSWORD, REPOSITORY_PORT, Stock, stock_root

NETWORK = GATEWAY.rpartition(".")[0]
FIRST = 11  # hosts are 192.0.2.11, .12, …
BOOTING = 90  # seconds
ENDING = 30
TIMEOUT = 600  # of a command inside

MARK = " - overlay "  # and a host's name: so proc_pid_mountinfo(5) shows its root file system
# A tmpfs takes what nspawn notes in /run, so that a killed one leaves no trace there. nspawn ends with 133 when the
# host inside reboots. It is alone in its control groups: in version 2 those that have groups inside hold no process.
BOOT = """mount -t tmpfs tmpfs /run && mount -t overlay "$1" -o "$2" "$3" || exit
groups=$4
shift 4
while :; do
  (for group in $groups; do echo 0 >"$group/cgroup.procs"; done; exec "$@")
  [ $? = 133 ] || exit
done"""


@dataclass(frozen=True)
class Kind:
    """What a host is: its release of Debian, whether its Docker is a later release's, and files that it has already."""

    suite: str
    newer: bool = False
    files: Mapping[str, str] = field(default_factory=dict)

    @property
    def repository(self) -> str:
        """The folder with its Docker on the lab's web server."""
        return f"{self.suite}-newer" if self.newer else self.suite


DEBIAN_12 = Kind("bookworm")  # Docker 20.10
DEBIAN_13 = Kind("trixie")  # Docker 26.1
# Docker 28.5 as a new 29 is: images in containerd's store, and no client whose API is older than 1.44
LATEST = Kind(
    "trixie",
    newer=True,
    files={
        "etc/docker/daemon.json": json.dumps({"features": {"containerd-snapshotter": True}}),
        "etc/systemd/system/docker.service.d/api.conf": "[Service]\nEnvironment=DOCKER_MIN_API_VERSION=1.44\n",
    },
)


class LabHost:
    """One host. It is off until `start`."""

    def __init__(
        self, folder: Path, namespace: Namespace, stock: Stock, number: int, *, kind: Kind, public_key: str
    ) -> None:
        self.name = f"{PREFIX}-{number}"
        self.address = f"{NETWORK}.{FIRST - 1 + number}"
        self._folder = folder
        self._namespace = namespace
        self._stock = stock
        self._process: subprocess.Popen[bytes] | None = None
        # overlay on overlay doesn't work: what Docker keeps lies on the disk itself
        for part in ("upper", "work", "root", "docker", "containerd"):
            (folder / part).mkdir(parents=True)
        files = {
            "etc/hostname": f"{self.name}\n",
            "etc/hosts": f"127.0.0.1 localhost\n127.0.1.1 {self.name}\n",
            "etc/network/interfaces": "auto lo host0\niface lo inet loopback\niface host0 inet static\n"
            f"  address {self.address}/24\n  gateway {GATEWAY}\n",
            "etc/apt/sources.list": f"deb [trusted=yes] http://{GATEWAY}:{REPOSITORY_PORT}/{kind.repository} ./\n",
            "root/.ssh/authorized_keys": public_key,
            "home/debian/.ssh/authorized_keys": public_key,
            **kind.files,
        }
        for name, text in files.items():
            path = folder / "upper" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        for home, owner in (("root", 0), ("home/debian", 1000)):
            shutil.copystat(stock.root / home, folder / "upper" / home)
            for path in (folder / "upper" / home, *(folder / "upper" / home).rglob("*")):
                os.chown(path, owner, owner)
        (folder / "upper/etc/ssh").mkdir()
        run("ssh-keygen", "-A", "-f", str(folder / "upper"))

    @property
    def port(self) -> str:
        """The end of its cable on the bridge, in the hosts' namespace. (nspawn shortens long names.)"""
        found = self._namespace.run("ip", "-json", "link", "show", "dev", f"vb-{self.name}")
        return str(json.loads(found)[0]["ifname"])

    @property
    def docker_data(self) -> Path:
        """Its /var/lib/docker, seen from outside."""
        return self._folder / "docker"

    def boot(self) -> None:
        """Switches it on, and doesn't wait."""
        groups = make_control_groups(self.name)
        layers = f"lowerdir={self._stock.root},upperdir={self._folder}/upper,workdir={self._folder}/work"
        command = [
            *("unshare", "--mount", "sh", "-c", BOOT, "boot", self.name, layers, f"{self._folder}/root"),
            " ".join(map(str, groups)),
            *("systemd-nspawn", "--quiet", "--settings=no", "--register=no", "--keep-unit", "--console=pipe", "--boot"),
            *(f"--machine={self.name}", f"--directory={self._folder}/root", "--network-bridge=br0"),
            *("--resolv-conf=off", "--link-journal=no", "--timezone=off", "--capability=all"),
            "--system-call-filter=add_key keyctl bpf @keyring @mount",
            *(f"--bind={self._folder}/{part}:/var/lib/{part}" for part in ("docker", "containerd")),
        ]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._namespace.wrap(*command), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def start(self) -> None:
        """Switches it on again, after `kill`."""
        self.boot()
        self.wait()

    def wait(self) -> None:
        """Until sshd lets users in."""
        self._until(self.is_up)

    def kill(self) -> None:
        """Cuts its power."""
        _end(self._mark)
        if self._process:
            self._process.wait(ENDING)
        remove_control_groups(self.name)
        with contextlib.suppress(RuntimeError):  # the kernel takes its time to remove it, or has done so
            self._namespace.run("ip", "link", "delete", f"vb-{self.name}")

    def reboot(self) -> None:
        before = self._leader()
        self.run("systemctl", "reboot", check=False)  # which may end this command, too
        self._until(lambda: self._leader() not in (None, before) and self.is_up())

    def is_up(self) -> bool:
        """Whether sshd answers, and pam_nologin lets others than root in."""
        leader = self._leader()
        if not leader or Path(f"/proc/{leader}/root/run/nologin").exists():
            return False
        with contextlib.suppress(OSError), self._namespace.entered():
            connection = socket.create_connection((self.address, 22), timeout=2)
            with connection:
                return connection.recv(4) == b"SSH-"
        return False

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs a command inside, as root and without SSH. Raises RuntimeError with what it said."""
        leader = self._leader()
        if not leader:
            raise RuntimeError(f"{self.name} is off")
        environment = ["HOME=/root", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive"]
        inside = ["nsenter", f"--target={leader}", "--all", "env", "--ignore-environment", "--chdir=/root"]
        done = subprocess.run(
            [*inside, *environment, *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        if check and done.returncode:
            raise RuntimeError(f"{self.name}: {' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
        return done

    def in_its_network(self, *command: str) -> list[str]:
        """The command as a program of the machine's own runs in the host's network."""
        leader = self._leader()
        if not leader:
            raise RuntimeError(f"{self.name} is off")
        return ["nsenter", f"--net=/proc/{leader}/ns/net", *command]

    def new_host_key(self) -> None:
        """Another identity, as after a reinstallation."""
        self.run("sh", "-c", "rm /etc/ssh/ssh_host_* && ssh-keygen -A && systemctl restart ssh")
        self.wait()

    def packages(self) -> set[str]:
        """The names of those that are installed."""
        listed = self.run("dpkg-query", "--show", "--showformat=${db:Status-Abbrev} ${Package}\n").stdout
        return {line.split()[1] for line in listed.splitlines() if line.startswith("ii ")}

    @property
    def _mark(self) -> str:
        return f"{MARK}{self.name} "

    @property
    def _log(self) -> Path:
        return self._folder / "log"

    def _leader(self) -> int | None:
        """Its first process, as the machine numbers it."""
        for process in _processes(self._mark):
            with contextlib.suppress(OSError):
                status = Path(f"/proc/{process}/status").read_text()
                numbers = next(line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:"))
                if numbers[1:] == ["1"]:
                    return process
        return None

    def _until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + BOOTING
        while time.monotonic() < deadline:
            if condition():
                return
            if self._process and self._process.poll() is not None:
                break
            time.sleep(0.1)
        raise RuntimeError(f"{self.name} does not boot: {self._log.read_text(errors='replace')[-2000:]}")


class LabHosts:
    """Hosts that are off until `start`, one of each kind. What an earlier run left is cleared first.

    `key` is the SSH key of their users root and debian, `password` that of their user trainer.
    """

    def __init__(self, folder: Path, kinds: Sequence[Kind]) -> None:
        end_hosts()
        self.namespace = Namespace("hosts")
        self.folder = folder
        clear(folder)
        folder.mkdir(parents=True)
        self.key = folder / "key"
        self.password = PASSWORD
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", str(self.key))
        public_key = self.key.with_suffix(".pub").read_text()
        self._repositories = folder / "repositories"
        self._repositories.mkdir()
        stocks: dict[str, Stock] = {}
        for suite in {kind.suite: None for kind in kinds}:
            newer = any(kind.newer for kind in kinds if kind.suite == suite)
            stock = stocks[suite] = stock_root(folder / f"stock-{suite}", suite, newer=newer)
            (self._repositories / suite).symlink_to(stock.repository)
            (self._repositories / f"{suite}-newer").symlink_to(stock.newer)
        self.hosts = [
            LabHost(folder / str(i), self.namespace, stocks[kind.suite], i, kind=kind, public_key=public_key)
            for i, kind in enumerate(kinds, start=1)
        ]
        self._servers: list[subprocess.Popen[bytes]] = []

    @property
    def queries(self) -> Path:
        """The log of their name server: every name that a host asked for."""
        return self.folder / "queries"

    def start(self) -> None:
        """Boots all of them, side by side, and waits until sshd answers on each."""
        self.namespace.run("ip", "link", "add", "br0", "type", "bridge")
        self.namespace.run("ip", "address", "add", f"{GATEWAY}/24", "dev", "br0")
        self.namespace.run("ip", "link", "set", "br0", "up")
        self._serve("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file", "--no-resolv",
                    "--no-hosts", f"--listen-address={GATEWAY}", "--bind-interfaces", "--address=/#/",
                    "--log-queries", f"--log-facility={self.queries}")  # fmt: skip
        self._serve(sys.executable, "-m", "http.server", "--directory", str(self._repositories), "--bind", GATEWAY,
                    str(REPOSITORY_PORT))  # fmt: skip
        for host in self.hosts:
            host.boot()
        for host in self.hosts:
            host.wait()

    def stop(self) -> None:
        for host in self.hosts:
            host.kill()
        for server in self._servers:
            server.kill()
            server.wait(ENDING)
        self.namespace.remove()
        clear(self.folder)

    def _serve(self, *command: str) -> None:
        with (self.folder / "log").open("ab") as log:
            self._servers.append(
                subprocess.Popen(self.namespace.wrap(*command), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            )


def end_hosts(prefix: str = f"{PREFIX}-") -> None:
    """Ends the hosts that an earlier run left."""
    _end(f"{MARK}{prefix}")
    remove_control_groups(f"{prefix}[0-9]*")


def _end(mark: str) -> None:
    """Kills the processes of a host, or of all, and waits for their end."""
    deadline = time.monotonic() + ENDING
    killed: set[int] = set()
    while found := {*_processes(mark), *filter(_is_alive, killed)}:
        if time.monotonic() > deadline:
            raise RuntimeError("These processes of a host don't end: " + " ".join(map(str, found)))
        for process in sorted(found - killed):  # the oldest first: it is what would boot the host again
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        killed |= found
        time.sleep(0.02)


def _processes(mark: str) -> list[int]:
    """The processes that see the root file system of a host: those inside, and those that started it."""
    own = Path("/proc/self/ns/mnt").stat().st_ino
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            # load-bearing: were it ever mounted for the whole machine, all processes would seem to be the host's
            if (process / "ns/mnt").stat().st_ino == own:
                continue
            if mark in (process / "mountinfo").read_text(errors="replace"):
                found.append(int(process.name))
    return sorted(found)


def _is_alive(process: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False
