"""The hypervisor VirtualBox, by its command line VBoxManage (chapter 8 of its manual)."""

from __future__ import annotations

import re
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path

from cloudscale.drivers.vm.hypervisor import BaseImage, PortTaken, Vm
from cloudscale.errors import MachineError, RequestError
from cloudscale.hosts.this_computer import run_program
from cloudscale.model import TIMED_OUT, CommandResult
from cloudscale.units import MIB
from cloudscale.waiting import poll

PROGRAM = "VBoxManage"
IMAGE = "https://cloud.debian.org/images/cloud/bookworm/latest/debian-12-generic-amd64.tar.xz"
COMMAND = 120.0  # seconds for a command
COPYING = 1800.0  # the same for one that copies a disk
LOCKED = 30.0  # seconds in which a VM that was just ended may be locked yet
CONTROLLER = "disks"
READ_BY_IT = ("vdi", "vmdk", "vpc", "qcow2")  # formats that it reads itself
STATE = re.compile(r'^VMState="([^"]*)"', re.MULTILINE)
FORWARD = re.compile(r'^Forwarding\(\d+\)="([^,"]+),', re.MULTILINE)
OFF = {"poweroff", "aborted", "saved", "aborted-saved"}  # startvm starts each of them
BUSY = re.compile("while it is locked|already locked")


class VirtualBox:
    """Its VMs are known by the id in their record. Its output is English whatever the user's language is."""

    name = "virtualbox"

    def __init__(self, course: str) -> None:
        self._course = course

    def check(self) -> None:
        if not shutil.which(PROGRAM):
            raise RequestError(
                f"The driver virtualbox needs {PROGRAM}, and it is not here.",
                "Install VirtualBox (virtualbox.org/wiki/Downloads), or use --driver qemu.",
            )

    def drawback(self) -> str:
        return ""

    def default_image(self) -> str:
        return IMAGE

    def state(self, vm: Vm) -> str:
        found = STATE.search(self._info(vm))
        return "off" if found is None or found[1] in OFF else found[1]

    def is_made(self, vm: Vm) -> bool:
        return f'"{CONTROLLER}-0-0"="{_disk(vm)}"' in self._info(vm)

    def make(self, vm: Vm, base: BaseImage) -> None:
        if base.kernel:
            raise RequestError(f"The disk image {base.path} has no boot loader, which VirtualBox needs.")
        self.delete(vm)  # what an earlier run that was cut off left of it
        shutil.rmtree(vm.folder / "virtualbox", ignore_errors=True)  # with settings that were never registered
        for path in (_disk(vm), vm.console):
            path.unlink(missing_ok=True)
        out, course = (card.replace(":", "") for card in vm.cards)
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
        elif base.format in READ_BY_IT:
            self._run(vm, "clonemedium", "disk", source, disk, "--format", "VDI", timeout=COPYING)
        else:
            raise RequestError(f"VirtualBox does not read disk images of the format {base.format}: {base.path}.")
        if base.size < vm.disk:
            self._run(vm, "modifymedium", "disk", disk, "--resize", str(vm.disk // MIB))

    def start(self, vm: Vm) -> None:
        _check_free(vm, vm.forwards)
        self._lead(vm, vm, "modifyvm", "--natpf1")
        self._run_unlocked(vm, "startvm", vm.id, "--type", "headless")

    def mend(self, vm: Vm, seconds: float) -> str:
        return ""

    def forward(self, vm: Vm, wanted: Vm) -> None:
        _check_free(vm, {name: to for name, to in wanted.forwards.items() if name not in vm.forwards})
        self._lead(vm, wanted, "controlvm", "natpf1")

    def _lead(self, vm: Vm, wanted: Vm, command: str, rule: str) -> None:
        """Has just the ports of `wanted` lead into the VM."""
        after = {name: f"{name},tcp,{to[0]},{to[1]},,{to[2]}" for name, to in wanted.forwards.items()}
        there = set(FORWARD.findall(self._info(vm)))
        # those of login and engine may have got other ports; a running VM keeps them
        renewed = there if command == "modifyvm" else there - after.keys()
        for name in sorted(renewed):
            self._run_unlocked(vm, command, vm.id, rule, "delete", name)
        for name in sorted(after.keys() - (there - renewed)):
            self._run_unlocked(vm, command, vm.id, rule, after[name])

    def delete(self, vm: Vm) -> None:
        if self._info(vm):
            if self.state(vm) != "off":
                self._run_unlocked(vm, "controlvm", vm.id, "poweroff")
            self._run_unlocked(vm, "unregistervm", vm.id, "--delete")
        if _disk(vm).exists():  # known to VirtualBox, maybe, though it was not attached yet
            _called("closemedium", "disk", str(_disk(vm)), "--delete")

    def _info(self, vm: Vm) -> str:
        """All that VirtualBox tells of the VM; empty where it has none."""
        done = _called("showvminfo", vm.id, "--machinereadable")
        if done.exit_code and "Could not find a registered machine" not in done.stderr:
            raise self._failed(vm, "showvminfo", done)
        return "" if done.exit_code else done.stdout

    def _run_unlocked(self, vm: Vm, *words: str) -> None:
        """The same, once the VM is not locked any more: it is for a moment after it has ended."""
        last: list[CommandResult] = []

        def step() -> bool:
            last.append(_called(*words))
            return not (last[-1].exit_code and BUSY.search(last[-1].stderr))

        poll(step, timeout=LOCKED, interval=0.5)
        if last[-1].exit_code:
            raise self._failed(vm, words[0], last[-1])

    def _run(self, vm: Vm, *words: str, timeout: float = COMMAND) -> None:
        done = _called(*words, timeout=timeout)
        if done.exit_code:
            raise self._failed(vm, words[0], done)

    def _failed(self, vm: Vm, what: str, done: CommandResult) -> MachineError:
        said = [line.partition("error: ")[2] for line in done.stderr.splitlines() if "error: " in line]
        text = next(
            (line for line in said if line and not line.startswith(("Details:", "Context:"))), "no reason given"
        )
        return MachineError(f"{vm.name}: VirtualBox says of {what}: {text.rstrip('.')}.", "Mend that, then run again.")


def _check_free(vm: Vm, forwards: Mapping[str, tuple[str, int, int]]) -> None:
    """Raises PortTaken: VirtualBox itself leaves out a port that is taken, and tells nobody."""
    for address, port, _ in forwards.values():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError as error:
                raise PortTaken(vm, f"{address}:{port}, {error.strerror}") from None


def _disk(vm: Vm) -> Path:
    return vm.folder / "disk.vdi"


def _called(*words: str, timeout: float = COMMAND) -> CommandResult:
    """Raises MachineError where there is no end to it."""
    done = run_program([PROGRAM, *words], timeout)
    if done.exit_code == TIMED_OUT:
        raise MachineError(f"VBoxManage {words[0]} did not end within {timeout:.0f} s.", "Is VirtualBox well?")
    return done
