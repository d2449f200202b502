"""The hypervisor VirtualBox, through its command VBoxManage (chapter 8 of its manual)."""

from __future__ import annotations

import contextlib
import itertools
import re
import shutil
import socket
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

from cloudscale.course.folder import CourseFolder
from cloudscale.course.settings import VmSettings
from cloudscale.drivers.vm.driver import LocalVms
from cloudscale.drivers.vm.hypervisor import BaseImage, Hypervisor, PortTaken, Vm
from cloudscale.errors import MachineError, RequestError
from cloudscale.hosts.this_computer import run_program
from cloudscale.model import TIMED_OUT, CommandResult, Say
from cloudscale.networks import endpoint
from cloudscale.units import MIB
from cloudscale.waiting import retry

PROGRAM = "VBoxManage"
COMMAND = 120.0  # seconds for a command
COPYING = 1800.0  # seconds for a command that copies a disk
BUSY_FOR = 30.0  # seconds
CONTROLLER = "disks"
FORMATS = ("vdi", "vmdk", "vpc", "qcow2")  # that VirtualBox can read
KERNEL_MODULE = Path("/dev/vboxdrv")  # exists while the module is loaded (Linux)
# VBoxManage cuts its output, without an error, at a character that the locale does not have
ENVIRONMENT = {"LC_ALL": "C.UTF-8"} if sys.platform == "linux" else {}
# a line, or more where a value has line breaks; VirtualBox escapes quotes in most values, but not in all
FACT = re.compile(r'^("(?:[^"\\\n]|\\.)*"|[^="\n]+)=(?:"((?:[^"\\]|\\.)*)"|(.*))$', re.MULTILINE)
INACCESSIBLE = "inaccessible"
OFF = {"poweroff", "aborted", "saved", "aborted-saved", INACCESSIBLE}  # startvm or make works in each of these states
# a VM that has just ended is locked for a moment; the server that VBoxManage starts fails if two start at once
BUSY = re.compile("while it is locked|already locked|Failed to create the VirtualBox object")


def load(settings: VmSettings, course: CourseFolder, say: Say, patience: float | None = None) -> LocalVms:
    return LocalVms(VirtualBox(course.name), settings, course, say, patience)


class VirtualBox(Hypervisor):
    """Identifies VMs by the id in their record. The output of VBoxManage is always English.

    VirtualBox keeps a list of disks. A file in it is refused once its id is another, and so is another file with the
    same id: therefore only the disks of VMs stay in that list.
    """

    name = "virtualbox"
    image = "https://cloud.debian.org/images/cloud/trixie/latest/debian-13-generic-amd64.tar.xz"

    def __init__(self, course: str) -> None:
        self._course = course
        self._cloning = threading.Lock()

    def check(self) -> None:
        if not shutil.which(PROGRAM):
            raise RequestError(
                f"The driver virtualbox needs {PROGRAM}, which this computer does not have.",
                "Install VirtualBox (virtualbox.org/wiki/Downloads), or use --driver qemu.",
            )

    def check_can_run(self) -> None:
        if sys.platform == "linux" and not KERNEL_MODULE.exists():
            raise RequestError(
                f"VirtualBox can't run VMs: its kernel module is not loaded ({KERNEL_MODULE} does not exist).",
                "Load it: sudo modprobe vboxdrv. If that fails, build it for the running kernel: sudo /sbin/vboxconfig,"
                " or install the packages virtualbox-dkms and linux-headers. Or use --driver qemu.",
            )

    def state(self, vm: Vm) -> str:
        state = self._facts(vm).get("VMState", "off")
        return "off" if state in OFF else state

    def is_made(self, vm: Vm) -> bool:
        # its disk is attached last; with a snapshot the file is not the one that was attached
        return self._facts(vm).get(f"{CONTROLLER}-0-0", "none") not in ("none", "emptydrive")

    def make(self, vm: Vm, base: BaseImage) -> None:
        if base.kernel:
            raise RequestError(
                f"The disk image {base.path} has no boot loader. VirtualBox needs one.",
                "Use a distribution's cloud image, or --driver qemu.",
            )
        # an interrupted run may have left parts of it; if it has been up, only VirtualBox's settings are lost
        has_work = vm.has_answered and _disk(vm).exists()
        if has_work and (snapshots := [*vm.folder.glob("virtualbox/**/Snapshots/*.vdi")]):
            raise MachineError(
                f"{vm.name}: VirtualBox can't read its settings file, and it has snapshots, e.g. {snapshots[0]}.",
                "Restore the settings file from the .vbox-prev beside it."
                f" Or delete the VM: invoke driver_reset --only {vm.name}.",
            )
        self._unregister(vm)
        self._forget(vm, _disk(vm), *[] if has_work else ["--delete"])
        shutil.rmtree(vm.folder / "virtualbox", ignore_errors=True)  # settings that were not registered yet
        vm.console.unlink(missing_ok=True)
        self._register(vm)
        if not has_work:
            _disk(vm).unlink(missing_ok=True)
            self._copy_disk(vm, base)
        self._run(vm, "storagectl", vm.id, "--name", CONTROLLER, "--add", "sata", "--portcount", "2")
        attach = ["storageattach", vm.id, "--storagectl", CONTROLLER, "--device", "0"]
        self._run(vm, *attach, "--port", "1", "--type", "dvddrive", "--medium", str(vm.seed))
        self._run(vm, *attach, "--port", "0", "--type", "hdd", "--medium", str(_disk(vm)))

    def _register(self, vm: Vm) -> None:
        """Makes a VM without disks."""
        out, course = (mac.replace(":", "") for mac in vm.macs)
        group = f"/cloudscale-{self._course}"
        create = ["createvm", "--name", vm.name, "--uuid", vm.id, "--ostype", "Debian_64", "--register"]
        self._run(vm, *create, "--basefolder", str(vm.folder / "virtualbox"), "--groups", group)
        settings = ["--cpus", str(vm.cpus), "--memory", str(vm.memory // MIB), "--ioapic", "on", "--rtcuseutc", "on"]
        settings += ["--graphicscontroller", "vmsvga", "--vram", "16", "--audio-driver", "none", "--boot1", "disk"]
        settings += ["--nic1", "nat", "--nictype1", "virtio", "--macaddress1", out]
        settings += ["--nic2", "intnet", "--intnet2", f"cloudscale-{self._course}", "--nictype2", "virtio"]
        settings += ["--macaddress2", course, "--uart1", "0x3F8", "4", "--uartmode1", "file", str(vm.console)]
        self._run(vm, "modifyvm", vm.id, *settings)

    def _copy_disk(self, vm: Vm, base: BaseImage) -> None:
        source, disk = str(base.path), str(_disk(vm))
        if base.format == "raw":
            self._run(vm, "convertfromraw", source, disk, "--format", "VDI", timeout=COPYING)
        elif base.format in FORMATS:
            with self._cloning:
                self._forget_base(vm, base.path)  # as it was when somebody listed it
                try:
                    self._run(vm, "clonemedium", "disk", source, disk, "--format", "VDI", timeout=COPYING)
                finally:
                    self._forget_base(vm, base.path)
        else:
            raise RequestError(
                f"VirtualBox can't read disk images in the format {base.format}: {base.path}.",
                f"Use an image in one of these formats: raw, {', '.join(FORMATS)}.",
            )
        if base.size < vm.disk:
            self._run(vm, "modifymedium", "disk", disk, "--resize", str(vm.disk // MIB))

    def start(self, vm: Vm) -> None:
        _check_free(vm, vm.forwards)
        # the ports for login and engine may have changed since the last start
        words = [word for name in sorted(self._forwarded(vm)) for word in ("--natpf1", "delete", name)]
        words += [word for name in vm.forwards for word in ("--natpf1", _rule(vm, name))]
        self._run(vm, "modifyvm", vm.id, *words)
        self._run(vm, "startvm", vm.id, "--type", "headless")

    def stop(self, vm: Vm) -> None:
        self._run(vm, "controlvm", vm.id, "poweroff")

    def forward(self, vm: Vm, changed: Vm) -> None:
        existing = self._forwarded(vm)
        new = {name: to for name, to in changed.forwards.items() if name not in existing}
        _check_free(vm, new)
        for name in sorted(existing - changed.forwards.keys()):
            self._run(vm, "controlvm", vm.id, "natpf1", "delete", name)
        for name in new:
            self._run(vm, "controlvm", vm.id, "natpf1", _rule(changed, name))

    def _forwarded(self, vm: Vm) -> set[str]:
        """The names of the ports that VirtualBox forwards to the VM."""
        return {value.partition(",")[0] for name, value in self._facts(vm).items() if name.startswith("Forwarding(")}

    def delete(self, vm: Vm) -> None:
        self._unregister(vm, "--delete")
        self._forget(vm, _disk(vm), "--delete")  # VirtualBox may know a disk that is not attached to a VM yet

    def _unregister(self, vm: Vm, *delete: str) -> None:
        state = self._facts(vm).get("VMState")
        if state is None:
            return
        if state not in OFF:
            self.stop(vm)
        # of a VM without readable settings nothing else can be deleted
        self._run(vm, "unregistervm", vm.id, *delete if state != INACCESSIBLE else ())

    def _facts(self, vm: Vm) -> dict[str, str]:
        """The VM's details as VirtualBox prints them; none if it does not know the VM.

        If VirtualBox knows it, but can't read its settings file, the state is INACCESSIBLE and there are no others.
        """
        try:
            return facts(self._run(vm, "showvminfo", vm.id, "--machinereadable"))
        except MachineError as error:
            if "Could not find a registered machine" in error.message:
                return {}
            if "The object functionality is limited" in error.message:
                return {"VMState": INACCESSIBLE}
            raise

    def _forget(self, vm: Vm, disk: Path, *delete: str) -> None:
        """Takes a disk of the VM out of VirtualBox's list, if it is there and no VM uses it."""
        with contextlib.suppress(MachineError):
            self._run(vm, "closemedium", "disk", str(disk), *delete)

    def _forget_base(self, vm: Vm, base: Path) -> None:
        # closemedium opens a disk that is not listed, and writes its header
        with contextlib.suppress(MachineError):
            listed = re.findall("^Location: +(.*)$", self._run(vm, "list", "hdds"), re.MULTILINE)
            if str(base.absolute()) in listed:
                self._run(vm, "closemedium", "disk", str(base))

    def _run(self, vm: Vm, *words: str, timeout: float = COMMAND) -> str:
        """Runs a command, again while VirtualBox is busy, and returns what it prints. Raises MachineError."""

        def run() -> str:
            result = run_program([PROGRAM, *words], timeout, environment=ENVIRONMENT)
            if result.exit_code:
                raise _error(vm, words[0], result, timeout)
            return result.stdout

        return retry(run, when=lambda error: bool(BUSY.search(str(error))), timeout=BUSY_FOR, interval=0.5)


def facts(text: str) -> dict[str, str]:
    """The output of `showvminfo --machinereadable`."""
    return {
        key.strip('"'): re.sub(r"\\(.)", r"\1", quoted) if quoted else plain
        for key, quoted, plain in FACT.findall(text)
    }


def _error(vm: Vm, command: str, result: CommandResult, timeout: float) -> MachineError:
    if result.exit_code == TIMED_OUT:
        message = f"{vm.name}: VBoxManage {command} did not end within {timeout:.0f} s."
        return MachineError(message, "Check that VirtualBox works, then run again.")
    # the reason is often not in the first line; after the reasons come details for developers
    lines = [line.partition("error: ")[2].rstrip(". ") for line in result.stderr.splitlines() if "error: " in line]
    reasons = itertools.takewhile(lambda line: not line.startswith(("Details:", "Context:")), lines)
    cause = ". ".join(dict.fromkeys(line for line in reasons if line and not line.startswith("Error code ")))
    return MachineError(
        f"{vm.name}: VBoxManage {command} failed: {cause or result.last_words()}.", "Fix the cause, then run again."
    )


def _rule(vm: Vm, name: str) -> str:
    address, port, inside = vm.forwards[name]
    return f"{name},tcp,{address},{port},,{inside}"


def _check_free(vm: Vm, forwards: Mapping[str, tuple[str, int, int]]) -> None:
    """Raises PortTaken: VirtualBox itself does not report a port that is in use, and does not forward it."""
    for address, port, _ in forwards.values():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError as error:
                raise PortTaken(vm, f"{endpoint(address, port)}, {error.strerror}") from None


def _disk(vm: Vm) -> Path:
    return vm.folder / "disk.vdi"
