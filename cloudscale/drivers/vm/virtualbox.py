"""The hypervisor VirtualBox, through its command VBoxManage (chapter 8 of its manual)."""

from __future__ import annotations

import re
import shutil
import socket
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
LOCKED = 30.0  # seconds in which a VM that has just ended may still be locked
CONTROLLER = "disks"
FORMATS = ("vdi", "vmdk", "vpc", "qcow2")  # that VirtualBox can read
STATE = re.compile(r'^VMState="([^"]*)"', re.MULTILINE)
FORWARD = re.compile(r'^Forwarding\(\d+\)="([^,"]+),', re.MULTILINE)
OFF = {"poweroff", "aborted", "saved", "aborted-saved"}  # startvm works in each of these states
BUSY = re.compile("while it is locked|already locked")


def load(settings: VmSettings, course: CourseFolder, say: Say) -> LocalVms:
    return LocalVms(VirtualBox(course.name), settings, course, say)


class VirtualBox(Hypervisor):
    """Identifies VMs by the id in their record. The output of VBoxManage is always English."""

    name = "virtualbox"
    image = "https://cloud.debian.org/images/cloud/trixie/latest/debian-13-generic-amd64.tar.xz"

    def __init__(self, course: str) -> None:
        self._course = course

    def check(self) -> None:
        if not shutil.which(PROGRAM):
            raise RequestError(
                f"The driver virtualbox needs {PROGRAM}, which this computer does not have.",
                "Install VirtualBox (virtualbox.org/wiki/Downloads), or use --driver qemu.",
            )

    def state(self, vm: Vm) -> str:
        state = STATE.search(self._info(vm))
        return "off" if state is None or state[1] in OFF else state[1]

    def is_made(self, vm: Vm) -> bool:
        return f'"{CONTROLLER}-0-0"="{_disk(vm)}"' in self._info(vm)

    def make(self, vm: Vm, base: BaseImage) -> None:
        if base.kernel:
            raise RequestError(
                f"The disk image {base.path} has no boot loader. VirtualBox needs one.",
                "Use a distribution's cloud image, or --driver qemu.",
            )
        self.delete(vm)  # an interrupted run may have left parts of it
        shutil.rmtree(vm.folder / "virtualbox", ignore_errors=True)  # settings that were not registered yet
        for path in (_disk(vm), vm.console):
            path.unlink(missing_ok=True)
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
        self._copy_disk(vm, base)
        self._run(vm, "storagectl", vm.id, "--name", CONTROLLER, "--add", "sata", "--portcount", "2")
        attach = ["storageattach", vm.id, "--storagectl", CONTROLLER, "--device", "0"]
        self._run(vm, *attach, "--port", "1", "--type", "dvddrive", "--medium", str(vm.seed))
        self._run(vm, *attach, "--port", "0", "--type", "hdd", "--medium", str(_disk(vm)))

    def _copy_disk(self, vm: Vm, base: BaseImage) -> None:
        source, disk = str(base.path), str(_disk(vm))
        if base.format == "raw":
            self._run(vm, "convertfromraw", source, disk, "--format", "VDI", timeout=COPYING)
        elif base.format in FORMATS:
            self._run(vm, "clonemedium", "disk", source, disk, "--format", "VDI", timeout=COPYING)
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
        return set(FORWARD.findall(self._info(vm)))

    def delete(self, vm: Vm) -> None:
        if self._info(vm):
            if self.state(vm) != "off":
                self._run(vm, "controlvm", vm.id, "poweroff")
            self._run(vm, "unregistervm", vm.id, "--delete")
        if _disk(vm).exists():  # VirtualBox may know a disk that is not attached to a VM yet
            _vboxmanage("closemedium", "disk", str(_disk(vm)), "--delete")

    def _info(self, vm: Vm) -> str:
        """The VM's details as VirtualBox prints them; "" if it does not know the VM."""
        result = _vboxmanage("showvminfo", vm.id, "--machinereadable")
        if result.exit_code and "Could not find a registered machine" not in result.stderr:
            raise _error(vm, "showvminfo", result)
        return "" if result.exit_code else result.stdout

    def _run(self, vm: Vm, *words: str, timeout: float = COMMAND) -> None:
        """Runs a command; repeats it while the VM is locked, which it is for a moment after it has ended."""

        def run() -> None:
            result = _vboxmanage(*words, timeout=timeout)
            if result.exit_code:
                raise _error(vm, words[0], result)

        retry(run, when=lambda error: bool(BUSY.search(str(error))), timeout=LOCKED, interval=0.5)


def _error(vm: Vm, command: str, result: CommandResult) -> MachineError:
    lines = [line.partition("error: ")[2] for line in result.stderr.splitlines() if "error: " in line]
    cause = next((line for line in lines if line and not line.startswith(("Details:", "Context:"))), "no reason given")
    return MachineError(
        f"{vm.name}: VBoxManage {command} failed: {cause.rstrip('.')}.", "Fix the cause, then run again."
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


def _vboxmanage(*words: str, timeout: float = COMMAND) -> CommandResult:
    """Raises MachineError if the command does not end."""
    result = run_program([PROGRAM, *words], timeout)
    if result.exit_code == TIMED_OUT:
        raise MachineError(
            f"VBoxManage {words[0]} did not end within {timeout:.0f} s.", "Check that VirtualBox works, then run again."
        )
    return result
