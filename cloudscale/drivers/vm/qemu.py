"""The hypervisor QEMU: one process for each VM, with KVM if it works, else with software emulation (much slower)."""

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

from qemu.qmp import QMPClient

from cloudscale.course.folder import CourseFolder
from cloudscale.course.settings import VmSettings
from cloudscale.drivers.vm.driver import LocalVms
from cloudscale.drivers.vm.hypervisor import LOOPBACK, BaseImage, Hypervisor, PortTaken, Vm
from cloudscale.errors import MachineError, RequestError
from cloudscale.hosts.this_computer import run_program
from cloudscale.model import CommandResult, Say, last_lines
from cloudscale.networks import endpoint
from cloudscale.outside import OtherForm, formed, is_of_library
from cloudscale.units import MIB
from cloudscale.waiting import poll

KVM = "/dev/kvm"
SLOW = "emulated in software, many times slower"
PROGRAM = "qemu-system-x86_64"
ROOT = "root=/dev/vda console=tty0 console=ttyS0,115200 ci.ds=NoCloud"  # for a kernel without a boot loader
MAKING = 60.0  # seconds to make an empty disk
STARTING = 60.0  # seconds for QEMU to start a VM
ANSWERING = 20.0  # seconds for QEMU to answer
ENDING = 20.0  # seconds for its process to end
SILENT = 45.0  # seconds without output; with KVM a kernel prints its first line in less than ten
GROUPS = "239.77"  # the network of a course is a multicast group (RFC 2365: site-local) on loopback
TAKEN = re.compile(r"Could not set up host forwarding rule '([^']*)'", re.IGNORECASE)

logging.getLogger("qemu.qmp").addHandler(logging.NullHandler())


def load(settings: VmSettings, course: CourseFolder, say: Say, patience: float | None = None) -> LocalVms:
    return LocalVms(Qemu(course.name, kvm=settings.kvm), settings, course, say, patience)


class Qemu(Hypervisor):
    name = "qemu"
    image = "https://cloud.debian.org/images/cloud/trixie/latest/debian-13-genericcloud-amd64.qcow2"

    def __init__(self, course: str, *, kvm: bool = True) -> None:
        self._course = course
        self._kvm = kvm
        self._tries_kvm: dict[str, bool] = {}  # VMs that this run has started: name → with KVM
        self._console_sizes: dict[str, int] = {}  # name → bytes of the VM's console when it was started

    def check(self) -> None:
        if platform.machine() not in ("x86_64", "AMD64"):
            raise RequestError(
                f"The driver qemu needs an x86-64 computer, but this one is {platform.machine()}.",
                "Use another driver, or another computer.",
            )
        if missing := [program for program in (PROGRAM, "qemu-img") if not shutil.which(program)]:
            raise RequestError(
                f"The driver qemu needs {' and '.join(missing)}, which this computer does not have.",
                "Install QEMU: sudo apt-get install --no-install-recommends qemu-system-x86 qemu-utils.",
            )

    def drawback(self) -> str:
        if not self._kvm or os.access(KVM, os.R_OK | os.W_OK):
            return ""
        return f"{KVM} can't be used, so VMs are {SLOW}. Check that the processor has it and that you are in group kvm."

    def state(self, vm: Vm) -> str:
        if _process(vm) is None:
            return "off"
        try:
            return str(self._ask(vm, "query-status", {"status": str})["status"])
        except MachineError:
            return "running" if _process(vm) else "off"  # running, but too busy to answer

    def is_made(self, vm: Vm) -> bool:
        return _disk(vm).exists()

    def make(self, vm: Vm, base: BaseImage) -> None:
        disk = _disk(vm)
        part = disk.with_suffix(".part")
        # all VMs share the base image, which is never changed; each VM writes to its own disk
        command = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(base.path), "-F", base.format, str(part)]
        result = run_program([*command, str(max(vm.disk, base.size))], MAKING)
        if result.exit_code:
            raise MachineError(
                f"{vm.name}: could not make its disk ({_cause(result)}).", "Fix the cause, then run again."
            )
        boot = {"kernel": base.kernel and str(base.kernel), "ramdisk": base.ramdisk and str(base.ramdisk)}
        _boot(vm).write_text(json.dumps(boot))
        os.replace(part, disk)

    def start(self, vm: Vm) -> None:
        self._console_sizes[vm.name] = _size(vm.console)
        self._tries_kvm[vm.name] = self._uses_kvm(vm)
        with _short(vm.folder) as folder:
            command = [PROGRAM, *self._arguments(vm, folder)]
            result = run_program(command, STARTING)
        if result.exit_code:
            if taken := TAKEN.search(result.stderr):
                raise PortTaken(vm, taken[1])
            raise MachineError(
                f"{vm.name}: QEMU could not start it ({_cause(result)}).",
                "Fix the cause (with --memory, if there is too little memory), then run again.",
            )

    def _arguments(self, vm: Vm, folder: Path) -> list[str]:
        out, course = vm.macs
        forwards = "".join(f",hostfwd={_rule(vm, name)}" for name in vm.forwards)
        group, port = _group(self._course)
        drives: dict[str, dict[str, Any]] = {"disk": {"driver": "qcow2", "file": _file(_disk(vm)), "discard": "unmap"}}
        drives["seed"] = {"driver": "raw", "file": _file(vm.seed), "read-only": True}
        arguments = ["-name", vm.name, "-uuid", vm.id, "-nodefaults", "-no-user-config", "-display", "none"]
        arguments += ["-machine", "q35", "-smp", str(vm.cpus), "-m", f"{vm.memory // MIB}M", "-rtc", "base=utc"]
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
        arguments += ["-netdev", f"socket,id=course,mcast={endpoint(group, port)},localaddr={LOOPBACK}"]
        arguments += ["-device", f"virtio-net-pci,netdev=course,mac={course}", "-device", "virtio-rng-pci"]
        console = str(vm.console).replace(",", ",,")
        arguments += ["-chardev", f"file,id=console,path={console},append=on", "-serial", "chardev:console"]
        arguments += ["-qmp", f"unix:{folder / 'qmp'},server=on,wait=off"]
        boot = json.loads(_boot(vm).read_text())
        arguments += ["-kernel", boot["kernel"], "-append", ROOT] if boot["kernel"] else []
        arguments += ["-initrd", boot["ramdisk"]] if boot["ramdisk"] else []
        return [*arguments, "-daemonize", "-pidfile", str(_pid_file(vm))]

    def _uses_kvm(self, vm: Vm) -> bool:
        """Whether to try KVM: this user has access to it, and no VM of the course has hung with it."""
        if not self._kvm or not os.access(KVM, os.R_OK | os.W_OK):
            return False
        return not any(_hung(folder).exists() for folder in vm.folder.parent.iterdir())

    def restart_if_stuck(self, vm: Vm, seconds: float) -> str:
        hangs = seconds > SILENT and _size(vm.console) == self._console_sizes.get(vm.name, 0)
        # what this VM was started with counts: another VM of the course may have hung since then
        if not self._tries_kvm.get(vm.name, self._uses_kvm(vm)) or not (hangs or self.state(vm) == "internal-error"):
            return ""
        self.stop(vm)
        _hung(vm.folder).touch()
        self.start(vm)
        return f"KVM does not work on this computer, so it is {SLOW}"

    def forward(self, vm: Vm, changed: Vm) -> None:
        for name in vm.forwards.keys() - changed.forwards.keys():
            self._monitor(vm, f"hostfwd_remove out {_listener(vm, name)}")
        added: list[str] = []
        for name in sorted(changed.forwards.keys() - vm.forwards.keys()):
            error = self._monitor(vm, f"hostfwd_add out {_rule(changed, name)}")
            if error.strip():
                for other in added:  # all or none, so that the next run can add them
                    self._monitor(vm, f"hostfwd_remove out {_listener(changed, other)}")
                raise PortTaken(vm, _listener(changed, name))
            added.append(name)

    def delete(self, vm: Vm) -> None:
        self.stop(vm)  # all of its files are in its folder, which the driver deletes

    def stop(self, vm: Vm) -> None:
        if process := _process(vm):
            with contextlib.suppress(MachineError):
                self._ask(vm, "quit", {})
            if not poll(lambda: _process(vm) is None, timeout=ENDING):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            if not poll(lambda: _process(vm) is None, timeout=ENDING):
                raise MachineError(f"{vm.name}: could not end its process {process}.", f"End it: kill -9 {process}.")

    def _monitor(self, vm: Vm, line: str) -> str:
        return str(self._ask(vm, "human-monitor-command", str, {"command-line": line}))

    def _ask(self, vm: Vm, command: str, form: Any, arguments: dict[str, Any] | None = None) -> Any:
        """Runs a command of QEMU's machine protocol (QMP), whose answer has this form. Raises MachineError."""

        async def execute(path: Path) -> Any:
            # the library may leave a task behind; the error of that would be logged, with a traceback, beside ours
            asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
            client = QMPClient(vm.name)
            try:
                await client.connect(str(path))
                return await client.execute(command, arguments)
            finally:
                with contextlib.suppress(Exception):
                    await client.disconnect()

        with _short(vm.folder) as folder:
            try:
                return formed(asyncio.run(asyncio.wait_for(execute(folder / "qmp"), ANSWERING)), form)
            except Exception as error:  # the library also asserts what a monitor may do otherwise
                if not isinstance(error, OtherForm) and not is_of_library(error):
                    raise
                if command == "quit":
                    return None  # QEMU closes the connection when it quits
                raise MachineError(
                    f"{vm.name}: its QEMU does not answer ({type(error).__name__}).",
                    f"Run again. If it fails again, delete the VM: invoke driver_reset --only {vm.name}.",
                ) from None


def _disk(vm: Vm) -> Path:
    return vm.folder / "disk.qcow2"


def _listener(vm: Vm, name: str) -> str:
    """A forwarded port of this computer in QEMU's syntax."""
    address, port, _ = vm.forwards[name]
    return f"tcp:{endpoint(address, port)}"


def _rule(vm: Vm, name: str) -> str:
    return f"{_listener(vm, name)}-:{vm.forwards[name][2]}"


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
    """The network of a course's VMs: a multicast group and a port."""
    number = zlib.crc32(f"{os.getuid()}/{course}".encode())
    return f"{GROUPS}.{number >> 24}.{number >> 16 & 255}", 20000 + (number & 0x3FFF)


def _process(vm: Vm) -> int | None:
    """The id of the VM's process. QEMU locks the file that contains it as long as it runs."""
    try:
        with _pid_file(vm).open() as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return None
            except BlockingIOError:
                return int(file.read() or 0) or None  # QEMU locks the file shortly before it writes the id
    except FileNotFoundError:
        return None


@contextlib.contextmanager
def _short(folder: Path) -> Iterator[Path]:
    """A short path to a folder: the path of a socket can't be longer than 107 bytes (unix(7))."""
    with tempfile.TemporaryDirectory(prefix="cs") as temporary:
        link = Path(temporary) / "vm"
        link.symlink_to(folder)
        yield link


def _cause(result: CommandResult) -> str:
    errors = "\n".join(line for line in result.stderr.splitlines() if "warning:" not in line)
    return (last_lines(errors) or "no reason given").removeprefix(f"{PROGRAM}: ").rstrip(".")
