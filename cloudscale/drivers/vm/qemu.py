"""The hypervisor QEMU: one process a VM, with KVM where it works, else emulated in software (much slower)."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import platform
import re
import shutil
import signal
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qemu.qmp import QMPClient, QMPError

from cloudscale.drivers.vm.hypervisor import LOOPBACK, BaseImage, PortTaken, Vm
from cloudscale.errors import MachineError, RequestError
from cloudscale.hosts.this_computer import run_program
from cloudscale.model import CommandResult, last_lines
from cloudscale.waiting import poll

KVM = "/dev/kvm"
SLOW = "emulated in software, many times slower"
PROGRAM = "qemu-system-x86_64"
IMAGE = "https://cloud.debian.org/images/cloud/bookworm/latest/debian-12-genericcloud-amd64.qcow2"
ROOT = "root=/dev/vda console=tty0 console=ttyS0,115200 ci.ds=NoCloud"  # for a kernel without a boot loader
MAKING = 60.0  # seconds for an empty disk
STARTING = 60.0  # seconds for a process to have its VM run
ANSWERING = 20.0  # seconds for it to answer
ENDING = 20.0  # seconds for it to be gone
SILENT = 45.0  # seconds; with KVM a kernel says its first word in less than ten
GROUPS = "239.77"  # the networks of courses are multicast groups (RFC 2365: of this site) on loopback
TAKEN = re.compile(r"Could not set up host forwarding rule '([^']*)'", re.IGNORECASE)

logging.getLogger("qemu.qmp").addHandler(logging.NullHandler())


class Qemu:
    name = "qemu"

    def __init__(self, course: str, *, kvm: bool = True) -> None:
        self._course = course
        self._kvm = kvm
        self._tries_kvm: dict[str, bool] = {}  # by the names of the VMs that this run has started
        self._said_before: dict[str, int] = {}  # bytes of a VM's console when it was started

    def check(self) -> None:
        if platform.machine() not in ("x86_64", "AMD64"):
            raise RequestError(f"The driver qemu is for x86-64 computers, and this one is {platform.machine()}.")
        if missing := [program for program in (PROGRAM, "qemu-img") if not shutil.which(program)]:
            raise RequestError(
                f"The driver qemu needs {' and '.join(missing)}, and it is not here.",
                "Install it: sudo apt-get install --no-install-recommends qemu-system-x86 qemu-utils.",
            )

    def drawback(self) -> str:
        if not self._kvm or os.access(KVM, os.R_OK | os.W_OK):
            return ""
        return f"{KVM} can't be used, so VMs are {SLOW} (Does the processor do it? Are you in the group kvm?)"

    def default_image(self) -> str:
        return IMAGE

    def state(self, vm: Vm) -> str:
        if _process(vm) is None:
            return "off"
        try:
            return str(self._ask(vm, "query-status")["status"])
        except MachineError:
            return "running" if _process(vm) else "off"  # it is busy

    def is_made(self, vm: Vm) -> bool:
        return _disk(vm).exists()

    def make(self, vm: Vm, base: BaseImage) -> None:
        disk = _disk(vm)
        part = disk.with_suffix(".part")
        # the base stays as it is, and is shared; what a VM writes goes to a disk of its own
        command = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(base.path), "-F", base.format, str(part)]
        done = run_program([*command, str(max(vm.disk, base.size))], MAKING)
        if done.exit_code:
            raise MachineError(f"{vm.name}: its disk can't be made ({_cause(done)}).")
        boot = {"kernel": base.kernel and str(base.kernel), "ramdisk": base.ramdisk and str(base.ramdisk)}
        _boot(vm).write_text(json.dumps(boot))
        os.replace(part, disk)

    def start(self, vm: Vm) -> None:
        self._said_before[vm.name] = _size(vm.console)
        self._tries_kvm[vm.name] = self._uses_kvm(vm)
        with _short(vm.folder) as folder:
            command = [PROGRAM, *self._arguments(vm, folder)]
            done = run_program(command, STARTING)
        if done.exit_code:
            if taken := TAKEN.search(done.stderr):
                raise PortTaken(vm, taken[1])
            raise MachineError(
                f"{vm.name}: QEMU does not start it ({_cause(done)}).",
                "Is there memory for it (--memory)? Then run again.",
            )

    def _arguments(self, vm: Vm, folder: Path) -> list[str]:
        out, course = vm.cards
        forwards = "".join(f",hostfwd=tcp:{address}:{port}-:{inside}" for address, port, inside in vm.forwards.values())
        group, port = _group(self._course)
        drives: dict[str, dict[str, Any]] = {"disk": {"driver": "qcow2", "file": _file(_disk(vm)), "discard": "unmap"}}
        drives["seed"] = {"driver": "raw", "file": _file(vm.seed), "read-only": True}
        arguments = ["-name", vm.name, "-uuid", vm.id, "-nodefaults", "-no-user-config", "-display", "none"]
        arguments += ["-machine", "q35", "-smp", str(vm.cpus), "-m", f"{vm.memory // 1024**2}M", "-rtc", "base=utc"]
        arguments += ["-accel", "kvm"] if self._tries_kvm[vm.name] else []
        arguments += ["-accel", "tcg,thread=multi,tb-size=256", "-cpu", "max"]
        for name, drive in drives.items():
            arguments += [
                "-blockdev",
                json.dumps({**drive, "node-name": name}),
                "-device",
                f"virtio-blk-pci,drive={name}",
            ]
        arguments += ["-netdev", f"user,id=out{forwards}", "-device", f"virtio-net-pci,netdev=out,mac={out}"]
        arguments += ["-netdev", f"socket,id=course,mcast={group}:{port},localaddr={LOOPBACK}"]
        arguments += ["-device", f"virtio-net-pci,netdev=course,mac={course}", "-device", "virtio-rng-pci"]
        console = str(vm.console).replace(",", ",,")
        arguments += ["-chardev", f"file,id=console,path={console},append=on", "-serial", "chardev:console"]
        arguments += ["-qmp", f"unix:{folder / 'qmp'},server=on,wait=off"]
        boot = json.loads(_boot(vm).read_text())
        arguments += ["-kernel", boot["kernel"], "-append", ROOT] if boot["kernel"] else []
        arguments += ["-initrd", boot["ramdisk"]] if boot["ramdisk"] else []
        return [*arguments, "-daemonize", "-pidfile", str(_pid_file(vm))]

    def _uses_kvm(self, vm: Vm) -> bool:
        """Whether to try it: it can be opened, and none of the course's VMs was seen to hang with it."""
        if not self._kvm or not os.access(KVM, os.R_OK | os.W_OK):
            return False
        return not any(_hung(folder).exists() for folder in vm.folder.parent.iterdir())

    def mend(self, vm: Vm, seconds: float) -> str:
        hangs = seconds > SILENT and _size(vm.console) == self._said_before.get(vm.name, 0)
        # another VM of the course may have been seen to hang since this one was started
        if not self._tries_kvm.get(vm.name, self._uses_kvm(vm)) or not (hangs or self.state(vm) == "internal-error"):
            return ""
        self.stop(vm)
        _hung(vm.folder).touch()
        self.start(vm)
        return f"KVM does not work on this computer, so it is {SLOW}"

    def forward(self, vm: Vm, wanted: Vm) -> None:
        before, after = vm.forwards, wanted.forwards
        for name in before.keys() - after.keys():
            address, port, _ = before[name]
            self._monitor(vm, f"hostfwd_remove out tcp:{address}:{port}")
        added: list[str] = []
        for name in sorted(after.keys() - before.keys()):
            address, port, inside = after[name]
            said = self._monitor(vm, f"hostfwd_add out tcp:{address}:{port}-:{inside}")
            if said.strip():
                for rule in added:  # all or none, so that the next run can add them
                    self._monitor(vm, f"hostfwd_remove out {rule}")
                raise PortTaken(vm, f"{address}:{port}")
            added.append(f"tcp:{address}:{port}")

    def delete(self, vm: Vm) -> None:
        self.stop(vm)  # what there is of it lies in its folder

    def stop(self, vm: Vm) -> None:
        """Ends the VM's process, as if the power were cut. Raises MachineError."""
        if process := _process(vm):
            with contextlib.suppress(MachineError):
                self._ask(vm, "quit")
            if not poll(lambda: _process(vm) is None, timeout=ENDING):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            if not poll(lambda: _process(vm) is None, timeout=ENDING):
                raise MachineError(f"{vm.name}: its process {process} does not end.")

    def _monitor(self, vm: Vm, line: str) -> str:
        return str(self._ask(vm, "human-monitor-command", {"command-line": line}))

    def _ask(self, vm: Vm, command: str, arguments: dict[str, Any] | None = None) -> Any:
        """A command of QEMU's own protocol (QMP). Raises MachineError."""

        async def asked(path: Path) -> Any:
            client = QMPClient(vm.name)
            await client.connect(str(path))
            try:
                return await client.execute(command, arguments)
            finally:
                with contextlib.suppress(Exception):
                    await client.disconnect()

        with _short(vm.folder) as folder:
            try:
                return asyncio.run(asyncio.wait_for(asked(folder / "qmp"), ANSWERING))
            except (TimeoutError, QMPError, OSError, EOFError) as error:
                if command == "quit":
                    return None  # it hangs up
                raise MachineError(f"{vm.name}: its QEMU does not answer ({type(error).__name__}).") from None


def _disk(vm: Vm) -> Path:
    return vm.folder / "disk.qcow2"


def _boot(vm: Vm) -> Path:
    return vm.folder / "boot.json"


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _hung(folder: Path) -> Path:
    return folder / "kvm-hung"


def _pid_file(vm: Vm) -> Path:
    return vm.folder / "pid"


def _file(path: Path) -> dict[str, str]:
    return {"driver": "file", "filename": str(path)}


def _group(course: str) -> tuple[str, int]:
    """Where the VMs of a course meet: a multicast group and a port, the same for all of them."""
    number = zlib.crc32(f"{os.getuid()}/{course}".encode())
    return f"{GROUPS}.{number >> 24}.{number >> 16 & 255}", 20000 + (number & 0x3FFF)


def _process(vm: Vm) -> int | None:
    """The number of the VM's process: QEMU holds a lock on the file with it as long as it lives."""
    try:
        with _pid_file(vm).open() as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return None
            except BlockingIOError:
                return int(file.read() or 0) or None  # it holds the lock a moment before it writes
    except FileNotFoundError:
        return None


@contextlib.contextmanager
def _short(folder: Path) -> Iterator[Path]:
    """A short name for a folder: that of a socket may have no more than 107 bytes (unix(7))."""
    with tempfile.TemporaryDirectory(prefix="cs") as temporary:
        link = Path(temporary) / "vm"
        link.symlink_to(folder)
        yield link


def _cause(done: CommandResult) -> str:
    errors = "\n".join(line for line in done.stderr.splitlines() if "warning:" not in line)
    return (last_lines(errors) or "no reason given").removeprefix(f"{PROGRAM}: ").rstrip(".")
