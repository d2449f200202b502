"""What a student with a shell tries to get out of a seat. Runs inside of one, and prints as JSON what worked.

It needs nothing but Python, and harms nothing where it works: it runs without any protection too, to show that it can.
Its one word is JSON: how many `processes`, and MiB of `memory` and `disk`, are more than a seat has; the `places`
(address and port) that a seat must not reach; and, if not all attacks are wanted, the `only` one.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import re
import signal
import socket
import stat
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

MIB = 1 << 20
NEW_USER_NAMESPACE, NEW_MOUNTS = 0x10000000, 0x00020000  # CLONE_NEWUSER, CLONE_NEWNS
MASKED = ("/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware/dmi/tables/DMI")
SOCKETS = ("/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock")

GET_ATTRIBUTES, SET_ATTRIBUTES = 0x801C581F, 0x401C5820  # FS_IOC_FSGETXATTR, FS_IOC_FSSETXATTR of linux/fs.h

libc = ctypes.CDLL(None, use_errno=True)


def status(field: str) -> int:
    found = re.search(rf"^{field}:\s*([0-9a-f]+)$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1], 16)


def in_child(attack: Callable[[], object]) -> bool:
    """Whether it works, tried in a process of its own."""
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            os._exit(0 if attack() is not False else 1)
        os._exit(1)
    return os.waitpid(child, 0)[1] == 0


def mount() -> bool:
    return bool(libc.unshare(NEW_MOUNTS) == 0 and libc.mount(b"none", b"/tmp", b"tmpfs", 0, None) == 0)


def open_socket(family: int, kind: int, protocol: int = 0) -> None:
    socket.socket(family, kind, protocol).close()


def make_device() -> None:
    path = Path("/tmp/device")
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    path.unlink()


def readable(path: str) -> bool:
    with contextlib.suppress(OSError), open(path, "rb") as file:
        return bool(file.read(1))
    return False


def leave_quota() -> None:
    """Sets the attributes of a file of its own, with which it would take it to another project."""
    path = Path(".quota")
    try:
        with path.open("wb") as file:
            attributes = bytearray(28)
            fcntl.ioctl(file, GET_ATTRIBUTES, attributes)
            fcntl.ioctl(file, SET_ATTRIBUTES, bytes(attributes))
    finally:
        path.unlink()


def other_servers() -> bool:
    """Sees more Jupyter servers than its own. What a server starts has it in its command line too, as kernels do."""
    servers, parents = set(), {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parents[process.name] = re.findall(r"^PPid:\s*(\d+)$", (process / "status").read_text(), re.MULTILINE)[0]
            if b"jupyter" in (process / "cmdline").read_bytes():
                servers.add(process.name)
    return sum(parents[server] not in servers for server in servers) > 1


def fork(count: int) -> bool:
    children: list[int] = []
    try:
        for _ in range(count):
            child = os.fork()
            if child == 0:
                signal.pause()
                os._exit(0)
            children.append(child)
    except OSError:
        return False
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    return True


def take_memory(mebibytes: int) -> None:
    kept = [bytearray(b"x" * MIB) for _ in range(mebibytes)]
    time.sleep(0.1)
    assert kept


def fill_shared_memory(mebibytes: int) -> None:
    write(Path("/dev/shm/filled"), mebibytes)


def fill_disk(mebibytes: int) -> bool:
    """In the work folder, and outside of it."""
    return any(in_child(partial(write, Path(folder) / "filled", mebibytes)) for folder in (".", "/tmp"))


def write(path: Path, mebibytes: int) -> None:
    try:
        with path.open("wb") as file:
            for _ in range(mebibytes):
                file.write(bytes(MIB))
            os.fsync(file)
    finally:
        path.unlink()


def reach(places: list[tuple[str, int]]) -> bool:
    for address, port in places:
        with contextlib.suppress(OSError):
            socket.create_connection((address, port), 2).close()
            return True
    return False


def main(*, processes: int, memory: int, disk: int, places: list[tuple[str, int]], only: str) -> None:
    attacks: dict[str, Callable[[], object]] = {
        "capabilities": lambda: status("CapEff") > 0,
        "new privileges": lambda: status("NoNewPrivs") == 0,
        "no seccomp": lambda: status("Seccomp") == 0,
        "user namespace": lambda: libc.unshare(NEW_USER_NAMESPACE) == 0,
        "mount": mount,
        "raw socket": lambda: open_socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
        "packet socket": lambda: open_socket(socket.AF_PACKET, socket.SOCK_RAW),
        "device": make_device,
        "chroot": lambda: os.chroot("/"),
        "other user": lambda: os.setuid(12345),
        "priority": lambda: os.nice(-5),
        "kernel settings": lambda: open("/proc/sys/kernel/domainname", "r+").close(),
        "masked files": lambda: any(map(readable, MASKED)),
        "system files": lambda: open("/etc/passwd", "a").close(),
        "engine socket": lambda: any(map(os.path.exists, SOCKETS)),
        "other seats' processes": other_servers,
        "other seats' work": lambda: any(Path("/home").rglob("diary.txt")),
        "processes": lambda: fork(processes),
        "disk quota": leave_quota,
        "shared memory": lambda: fill_shared_memory(80),
        "memory": lambda: take_memory(memory),
        "network": lambda: reach(places),
        "disk": lambda: fill_disk(disk),
    }
    left_out = {name for name, given in (("network", places), ("disk", disk)) if not given}
    wanted = {only} if only else attacks.keys() - left_out
    sys.stdout.write(json.dumps({name: in_child(attack) for name, attack in attacks.items() if name in wanted}))


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
