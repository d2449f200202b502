"""Processes that take the machine for their own: with a network, a process table, control groups, a host name, /run and
libvirt's folders that nobody else sees. They end together, at the latest with the process that started them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

from tests.lab.control_groups import make_control_groups, remove_control_groups
from tests.lab.namespace import Namespace, run

NAME = "cloud"
STARTING = 120  # seconds
ENDING = 60  # seconds
TIMEOUT = 600  # of a command inside
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"

# In /etc lies what the packages' installation made, and it may lack something: the services don't depend on it.
# sysfs shows the network of who mounts it. Of the control groups only those of the enclosure are seen: with those of
# the machine libvirt would mix up VMs of the same number.
SETUP = """set -e
mount -t tmpfs "$2" /run
mkdir -p /run/netns /run/libvirt /run/groups
for group in $5; do
  path=${group%/*}
  mkdir "/run/groups/${path##*/}"
  mount --bind "$group" "/run/groups/${path##*/}"
done
mkdir -m 1777 /run/lock
for folder in /var/lib/libvirt /var/cache/libvirt /var/log/libvirt \\
  /etc/keystone /etc/glance /etc/placement /etc/nova /etc/neutron; do
  mount -t tmpfs "$2" "$folder"
done
mount --bind "$1/libvirt" /etc/libvirt
mount -t sysfs sysfs /sys
mount -t tmpfs "$2" /sys/fs/cgroup
for group in /run/groups/*; do
  mkdir "/sys/fs/cgroup/${group##*/}"
  mount --move "$group" "/sys/fs/cgroup/${group##*/}"
done
hostname "$3"
printf '127.0.0.1 localhost %s\\n' "$3" >/run/hosts
mount --bind /run/hosts /etc/hosts
exec /usr/bin/python3 -c "$4"
"""
# The first process of a process table: when it ends, the kernel kills all others. Its input is a pipe from the process
# that made it, and ends with that. Whose parents have died become its children, and it forgets them when they end.
FIRST = """import signal, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
print("ready", flush=True)
sys.stdin.read()"""


class Enclosure:
    """`folder` is for logs and temporary files; what is in its subfolder libvirt are libvirt's settings."""

    def __init__(self, folder: Path, namespace: Namespace) -> None:
        self.folder = folder
        self.namespace = namespace
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        for name in ("libvirt", "log", "tmp"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / "tmp").chmod(0o1777)
        groups = make_control_groups(namespace.name)
        command = [
            *("unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"),
            *("sh", "-c", SETUP, "setup", str(folder), namespace.name, NAME, FIRST, " ".join(map(str, groups))),
        ]
        with (folder / "log" / "enclosure").open("ab") as log:
            self._first = subprocess.Popen(
                namespace.wrap(*command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        assert self._first.stdout
        if self._first.stdout.readline() != b"ready\n":
            raise RuntimeError(f"The enclosure does not start: {self.log('enclosure')}")

    def wrap(self, *command: str, user: str = "") -> list[str]:
        """The command as it runs inside."""
        own = f"/proc/{self._first.pid}/ns"
        inside = [
            *("nsenter", f"--mount={own}/mnt", f"--uts={own}/uts", f"--net={self.namespace.path}"),
            *(f"--pid={own}/pid_for_children", "--wd=/"),
        ]
        if user:
            inside += ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
        environment = [f"PATH={PATH}", f"HOME={self.folder}", f"TMPDIR={self.folder}/tmp", "LANG=C.UTF-8"]
        return [*inside, "env", "--ignore-environment", *environment, *command]

    def run(self, *command: str, user: str = "") -> str:
        """Runs a command inside. Raises RuntimeError with what it said."""
        return run(*self.wrap(*command, user=user), timeout=TIMEOUT)

    def start(self, name: str, *command: str, user: str = "", port: int = 0) -> None:
        """Starts a service, and waits until it listens on the port."""
        with (self.folder / "log" / name).open("ab") as log:
            self._running[name] = subprocess.Popen(
                self.wrap(*command, user=user), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + STARTING
        while port and not self.listens(port):
            if time.monotonic() > deadline or self._running[name].poll() is not None:
                raise RuntimeError(f"{name} does not start: {self.log(name)}")
            time.sleep(0.1)

    def stop(self, name: str) -> None:
        """Kills a service with all that it started, but for what has made itself independent."""
        service = self._running.pop(name)
        family = _family(service.pid)
        for process in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        service.wait()
        # On a busy machine a killed process lives on for a moment, and its port with it.
        deadline = time.monotonic() + ENDING
        while left := [process for process in family if Path(f"/proc/{process}").exists()]:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{name} does not end: {left}")
            time.sleep(0.05)

    def listens(self, port: int) -> bool:
        with contextlib.suppress(OSError), self.namespace.entered():
            socket.create_connection(("127.0.0.1", port), timeout=2).close()
            return True
        return False

    def log(self, name: str) -> str:
        """The end of it."""
        return (self.folder / "log" / name).read_text(errors="replace")[-3000:]

    def close(self) -> None:
        """Ends all processes, and returns when they have."""
        assert self._first.stdin and self._first.stdout
        self._first.stdin.close()
        for process in (self._first, *self._running.values()):
            process.wait()
        self._first.stdout.close()
        remove_control_groups(self.namespace.name)


def _family(first: int) -> list[int]:
    """A process and its descendants, the oldest first."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    family = [first]
    for member in family:
        family += [process for process, parent in parents.items() if parent == member]
    return family
