"""Network namespaces: each a machine's whole network, with nothing of the real one in it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

WORKER = os.environ.get("PYTEST_XDIST_WORKER", "")  # gw0, gw1, …, where tests run in several processes
PREFIX = f"cloudscale-{WORKER or 'tests'}"  # so that what each of them makes has a name of its own
WORKERS = "cloudscale-gw"  # with this their names begin
FOLDER = Path("/run/netns")  # of ip-netns(8)
CLONE_NEWNET = 0x40000000  # linux/sched.h
HOME = os.open("/proc/self/ns/net", os.O_RDONLY)  # where this process came from

_libc = ctypes.CDLL(None, use_errno=True)


def run(*command: str, timeout: float = 120) -> str:
    """Runs a command of the lab's own. Raises RuntimeError with what it said."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


class Namespace:
    """A network namespace with a loopback device. Made again: an older one of the name is cleared first."""

    def __init__(self, name: str) -> None:
        self.name = f"{PREFIX}-{name}"
        self.path = FOLDER / self.name
        remove(self.path)
        run("ip", "netns", "add", self.name)
        self.run("ip", "link", "set", "lo", "up")

    def wrap(self, *command: str) -> list[str]:
        """The command as it runs inside. (`ip netns exec` would hide /sys/fs/cgroup, which dockerd needs.)"""
        return ["nsenter", f"--net={self.path}", *command]

    def run(self, *command: str) -> str:
        return run(*self.wrap(*command))

    def remove(self) -> None:
        """Ends every process inside and removes the namespace."""
        remove(self.path)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """This thread, and what it starts from now on, inside the namespace."""
        with self.path.open() as file, _back():
            _enter(file.fileno())
            yield


def remove(path: Path) -> None:
    """Ends every process in a namespace and removes it, if it is there."""
    if not path.exists():
        return
    inode = path.stat().st_ino
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "ns/net").stat().st_ino == inode and int(process.name) != os.getpid():
                os.kill(int(process.name), signal.SIGKILL)
    run("ip", "netns", "delete", path.name)


def remove_all(ring: str, prefix: str = PREFIX) -> None:
    """Removes whatever namespaces an earlier run of a ring left: that of its name, and those whose names go on."""
    for path in (*FOLDER.glob(f"{prefix}-{ring}"), *FOLDER.glob(f"{prefix}-{ring}-*")):
        remove(path)


@contextlib.contextmanager
def outside() -> Iterator[None]:
    """For a while back in the machine's own network: package indexes are reached from there."""
    with _back():
        _enter(HOME)
        yield


@contextlib.contextmanager
def _back() -> Iterator[None]:
    """Returns this thread in the end to the network where it is now."""
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        yield
    finally:
        _enter(here)
        os.close(here)


def _enter(descriptor: int) -> None:
    if _libc.setns(descriptor, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def cable(left: Namespace, left_address: str, right: Namespace, right_address: str) -> None:
    """A network of two, e.g. 198.51.100.1 and 198.51.100.2 (addresses of the documentation's range)."""
    left.run("ip", "link", "add", "cable0", "type", "veth", "peer", "name", "cable0", "netns", right.name)
    for namespace, address in ((left, left_address), (right, right_address)):
        namespace.run("ip", "address", "add", f"{address}/24", "dev", "cable0")
        namespace.run("ip", "link", "set", "cable0", "up")
