"""VirtualBox as the driver uses it, with a strict stand-in for its command."""

from __future__ import annotations

import shutil
import socket
import sys
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudscale.drivers.vm import virtualbox as module
from cloudscale.drivers.vm.hypervisor import BaseImage, PortTaken, Vm
from cloudscale.drivers.vm.records import free_ports
from cloudscale.drivers.vm.virtualbox import VirtualBox
from cloudscale.errors import MachineError, RequestError
from cloudscale.fanout import fan_out
from cloudscale.model import CommandResult
from tests.lab.vboxmanage import VDI, VBoxManage
from tests.unit.drivers.vm.fake_hypervisor import GIB, one_vm, qcow2_image, raw_image


@pytest.fixture(name="vbox")
def vbox_fixture(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, no_waiting: None) -> VBoxManage:
    """The stand-in, on a computer with the kernel module, and without waiting."""
    vbox = VBoxManage()

    def run(command: list[str], timeout: float, *, environment: dict[str, str]) -> CommandResult:
        assert command[0] == "VBoxManage"
        assert timeout > 0
        assert environment.get("LC_ALL", "C.UTF-8") == "C.UTF-8"
        return CommandResult(*vbox(*command[1:]))

    monkeypatch.setattr(module, "run_program", run)
    monkeypatch.setattr(module, "KERNEL_MODULE", tmp_path)
    monkeypatch.setattr(shutil, "which", lambda program: f"/usr/bin/{program}")
    return vbox


@pytest.fixture
def virtualbox(vbox: VBoxManage) -> VirtualBox:
    return VirtualBox("bio")


@pytest.fixture
def base(tmp_path: Path) -> BaseImage:
    return BaseImage(raw_image(tmp_path / "base.raw", 3 * GIB), "raw", 3 * GIB)


def planned(folder: Path, name: str = "bio-1", **changes: Any) -> Vm:
    """A VM with its folder and its seed, and with free ports."""
    ssh_port, engine_port, *_ = free_ports(2, ())
    vm = one_vm(folder / "vms", name, **{"ssh_port": ssh_port, "engine_port": engine_port, **changes})
    vm.folder.mkdir(parents=True, exist_ok=True)
    vm.seed.write_bytes(bytes(40960))
    return vm


@pytest.fixture
def vm(virtualbox: VirtualBox, base: BaseImage, tmp_path: Path) -> Vm:
    vm = planned(tmp_path)
    virtualbox.make(vm, base)
    return vm


def rules(vbox: VBoxManage) -> set[str]:
    (machine,) = vbox.machines.values()
    return {*machine.rules.values()}


def rule(name: str, port: int, inside: int, address: str = "127.0.0.1") -> str:
    return f"{name},tcp,{address},{port},,{inside}"


# --- installed, and able to run VMs ---


def test_a_missing_virtualbox_is_reported(monkeypatch: pytest.MonkeyPatch, virtualbox: VirtualBox) -> None:
    virtualbox.check()
    monkeypatch.setattr(shutil, "which", lambda program: None)
    with pytest.raises(
        RequestError, match="The driver virtualbox needs VBoxManage, which this computer does not have"
    ) as raised:
        virtualbox.check()
    assert raised.value.exit_code == 2
    assert "virtualbox.org" in raised.value.remedy


def test_a_missing_kernel_module_is_reported_on_linux(
    monkeypatch: pytest.MonkeyPatch, virtualbox: VirtualBox, tmp_path: Path
) -> None:
    virtualbox.check_can_run()
    monkeypatch.setattr(module, "KERNEL_MODULE", tmp_path / "vboxdrv")
    with pytest.raises(RequestError, match=r"its kernel module is not loaded \(.*/vboxdrv does not exist\)") as raised:
        virtualbox.check_can_run()
    assert "sudo modprobe vboxdrv" in raised.value.remedy
    monkeypatch.setattr(sys, "platform", "darwin")
    virtualbox.check_can_run()


def test_its_own_image_is_one_that_its_command_reads(virtualbox: VirtualBox) -> None:
    assert virtualbox.image.startswith("https://cloud.debian.org/")
    assert virtualbox.image.endswith(".tar.xz")


# --- what VBoxManage prints ---


def test_values_may_have_quotes_and_line_breaks_and_debian_may_print_a_warning_first() -> None:
    printed = r"""name="bio-1"
memory=2048
uartmode1="file,/home/d="q"\ ü/console.log"
uarttype1="16550A"
 rec_screen0
"disks-0-0"="/home/d=\"q\"\\ ü/disk.vdi"
description="one \"course\"
VMState=\"running\"
Forwarding(0)=\"x,tcp,,1,,1\""
VMState="poweroff"
Forwarding(0)="ssh,tcp,127.0.0.1,2222,,22"
"""
    assert module.facts(printed) == {
        "name": "bio-1",
        "memory": "2048",
        "uartmode1": '"file,/home/d="q"\\ ü/console.log"',
        "uarttype1": "16550A",
        "disks-0-0": '/home/d="q"\\ ü/disk.vdi',
        "description": 'one "course"\nVMState="running"\nForwarding(0)="x,tcp,,1,,1"',
        "VMState": "poweroff",
        "Forwarding(0)": "ssh,tcp,127.0.0.1,2222,,22",
    }


@given(st.lists(st.tuples(st.from_regex(r"[A-Za-z][\w()-]{0,20}", fullmatch=True), st.text(max_size=30))))
def test_whatever_a_value_is_it_is_read_as_it_was_and_changes_no_other(values: list[tuple[str, str]]) -> None:
    printed = "".join(
        f'{"" if number % 2 else chr(34)}{name}{"" if number % 2 else chr(34)}="{escaped(value)}"\n'
        for number, (name, value) in enumerate(values)
    )
    assert module.facts(printed) == dict(values)


def escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')


@pytest.mark.parametrize(
    ("printed", "cause"),
    [
        (
            "VBoxManage: error: Could not open the medium '/b.qcow2'.\n"
            "VBoxManage: error: QCow: Image contains unsupported incompatible features (8 vs 0) (VERR_NOT_SUPPORTED).\n"
            "VBoxManage: error: Details: code NS_ERROR_FAILURE (0x80004005), component MediumWrap\n"
            "VBoxManage: error: Failed again\n",
            "Could not open the medium '/b.qcow2'."
            " QCow: Image contains unsupported incompatible features (8 vs 0) (VERR_NOT_SUPPORTED).",
        ),
        (
            "VBoxManage: error: VDI: cannot create image '/x.vdi'\n"
            "VBoxManage: error: Error code VERR_ALREADY_EXISTS at /build/VDI.cpp(706) in function int vdiImageCreate\n"
            'VBoxManage: error: Cannot create the disk image "/x.vdi": VERR_ALREADY_EXISTS\n',
            "VDI: cannot create image '/x.vdi'. Cannot create the disk image \"/x.vdi\": VERR_ALREADY_EXISTS.",
        ),
        (
            "Oracle VirtualBox Command Line\n\nVBoxManage: error: Missing argument\n\nUsage - modifyvm\n\n"
            "VBoxManage: error: Missing argument\n",
            "Missing argument.",
        ),
        ("VBoxManage: fatal error: RTR3Init: VERR_NO_TRANSLATION\n", "RTR3Init: VERR_NO_TRANSLATION."),
        ("/usr/bin/VBoxManage: 9: exec: not found\n", "/usr/bin/VBoxManage: 9: exec: not found."),
        ("", "no reason given."),
    ],
)
def test_all_of_the_reason_is_reported_and_none_of_the_details(
    virtualbox: VirtualBox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, printed: str, cause: str
) -> None:
    monkeypatch.setattr(module, "run_program", lambda *words, **options: CommandResult(1, "", printed))
    with pytest.raises(MachineError) as raised:
        virtualbox.state(planned(tmp_path))
    assert raised.value.message == f"bio-1: VBoxManage showvminfo failed: {cause}"


def test_a_command_that_does_not_end_is_reported(virtualbox: VirtualBox, vbox: VBoxManage, tmp_path: Path) -> None:
    vbox.fault("showvminfo", "")
    with pytest.raises(MachineError, match="VBoxManage showvminfo did not end within 120 s"):
        virtualbox.state(planned(tmp_path))


# --- made ---


def test_what_virtualbox_can_not_boot_or_read_is_refused(
    virtualbox: VirtualBox, vbox: VBoxManage, tmp_path: Path
) -> None:
    vm, path = planned(tmp_path), tmp_path / "base"
    with pytest.raises(RequestError, match=r"has no boot loader\. VirtualBox needs one"):
        virtualbox.make(vm, BaseImage(path, "raw", GIB, kernel=tmp_path / "vmlinuz"))
    assert vbox.machines == {}
    with pytest.raises(RequestError, match=f"can't read disk images in the format vhdx: {path}"):
        virtualbox.make(vm, BaseImage(path, "vhdx", GIB))
    virtualbox.delete(vm)
    assert vbox.machines == {}


@pytest.mark.parametrize(
    ("kind", "step"),
    [
        *(("raw", step) for step in ("modifyvm", "convertfromraw", "modifymedium", "storagectl", "storageattach")),
        *(("qcow2", step) for step in ("clonemedium", "modifymedium", "storagectl", "storageattach")),
    ],
)
def test_a_make_that_was_interrupted_starts_again(
    virtualbox: VirtualBox, vbox: VBoxManage, tmp_path: Path, kind: str, step: str
) -> None:
    path = (raw_image if kind == "raw" else qcow2_image)(tmp_path / "base", 3 * GIB)
    vm, base = planned(tmp_path), BaseImage(path, kind, 3 * GIB)
    vbox.fault(step, "the power is cut", after=int(step == "storageattach"))
    with pytest.raises(MachineError, match=f"^bio-1: VBoxManage {step} failed: the power is cut"):
        virtualbox.make(vm, base)
    assert not virtualbox.is_made(vm)
    assert str(path) not in vbox.disks
    virtualbox.make(vm, base)
    assert virtualbox.is_made(vm)
    virtualbox.start(vm)
    virtualbox.delete(vm)
    assert (vbox.machines, vbox.disks) == ({}, {})
    assert not (vm.folder / "disk.vdi").exists()


def test_several_vms_are_made_of_one_image_at_once(virtualbox: VirtualBox, vbox: VBoxManage, tmp_path: Path) -> None:
    base = BaseImage(qcow2_image(tmp_path / "base"), "qcow2", 3 * GIB)
    vms = [planned(tmp_path, f"bio-{number}", id=str(uuid.uuid4())) for number in range(5)]
    before = base.path.read_bytes()
    fan_out(lambda vm: virtualbox.make(vm, base), vms, name=lambda vm: vm.name).get()
    assert base.path.read_bytes() == before
    assert {*vbox.disks} == {str(vm.folder / "disk.vdi") for vm in vms}


def test_a_vm_whose_settings_are_lost_is_made_again_with_its_disk_if_it_has_been_up(
    virtualbox: VirtualBox, vbox: VBoxManage, vm: Vm, base: BaseImage
) -> None:
    for has_answered in (True, False):
        (vm.folder / "disk.vdi").write_bytes(VDI + b"20480\nwith work")
        vbox.machines[vm.id].file.unlink()
        assert (virtualbox.state(vm), virtualbox.is_made(vm)) == ("off", False)
        virtualbox.make(replace(vm, has_answered=has_answered), base)
        assert ("with work" in (vm.folder / "disk.vdi").read_text()) == has_answered
        virtualbox.start(vm)
        virtualbox.delete(replace(vm))
        assert vbox.machines == {}
        virtualbox.make(vm, base)


def test_a_vm_whose_settings_are_lost_and_that_has_snapshots_is_not_made_again(
    virtualbox: VirtualBox, vbox: VBoxManage, vm: Vm, base: BaseImage
) -> None:
    vbox.machines[vm.id].file.unlink()
    snapshots = vm.folder / "virtualbox" / "cloudscale-bio" / vm.name / "Snapshots"
    snapshots.mkdir()
    (snapshots / "{1}.vdi").touch()
    with pytest.raises(MachineError, match=r"it has snapshots, e\.g\. .*\{1\}\.vdi"):
        virtualbox.make(replace(vm, has_answered=True), base)
    assert (snapshots / "{1}.vdi").exists()


def test_a_vm_whose_settings_are_lost_is_deleted(virtualbox: VirtualBox, vbox: VBoxManage, vm: Vm) -> None:
    vbox.machines[vm.id].file.unlink()
    virtualbox.delete(vm)
    assert vbox.machines == {}
    assert not (vm.folder / "disk.vdi").exists()


def test_a_vm_with_a_snapshot_is_not_made_again(virtualbox: VirtualBox, vbox: VBoxManage, vm: Vm) -> None:
    vbox.machines[vm.id].ports["0"] = str(vm.folder / "Snapshots" / "{1}.vdi")
    assert virtualbox.is_made(vm)


# --- running ---


def test_from_the_first_start_to_the_last(virtualbox: VirtualBox, vbox: VBoxManage, vm: Vm) -> None:
    login, engine = rule("ssh", vm.ssh_port, 22), rule("engine", vm.engine_port, 2376)
    virtualbox.start(vm)
    assert virtualbox.state(vm) == "running"
    assert rules(vbox) == {login, engine}
    ports = free_ports(2, (vm.ssh_port, vm.engine_port))
    with_seats = replace(vm, address="127.0.0.2", seat_ports=tuple(ports))
    virtualbox.forward(vm, with_seats)
    first, second = (rule(f"seat-{port}", port, port, "127.0.0.2") for port in ports)
    assert rules(vbox) == {login, engine, first, second}
    virtualbox.forward(with_seats, replace(with_seats, seat_ports=(ports[1],)))
    assert rules(vbox) == {login, engine, second}
    virtualbox.delete(vm)
    assert vbox.machines == {}
    assert vbox.disks == {}
    left = {path.name for path in vm.folder.rglob("*") if path.is_file()}
    assert left == {"seed.iso", "console.log"}  # which belong to the driver
    virtualbox.delete(vm)
    assert virtualbox.state(vm) == "off"


def test_looking_changes_nothing(virtualbox: VirtualBox, vbox: VBoxManage, vm: Vm) -> None:
    before = len(vbox.calls)
    virtualbox.state(vm)
    virtualbox.is_made(vm)
    assert virtualbox.restart_if_stuck(vm, 1000) == ""
    assert {call[0] for call in vbox.calls[before:]} == {"showvminfo"}


def test_newly_chosen_ports_replace_those_of_the_last_start(virtualbox: VirtualBox, vbox: VBoxManage, vm: Vm) -> None:
    virtualbox.start(replace(vm, seat_ports=tuple(free_ports(1, (vm.ssh_port, vm.engine_port)))))
    vbox.crash()
    assert virtualbox.state(vm) == "off"
    ssh_port, engine_port = free_ports(2, {vm.ssh_port, vm.engine_port})
    virtualbox.start(replace(vm, ssh_port=ssh_port, engine_port=engine_port))
    assert rules(vbox) == {rule("ssh", ssh_port, 22), rule("engine", engine_port, 2376)}


def test_a_port_in_use_is_reported_before_the_vm_starts(virtualbox: VirtualBox, vbox: VBoxManage, vm: Vm) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        for taken in (replace(vm, ssh_port=port), replace(vm, seat_ports=(port,))):
            with pytest.raises(PortTaken, match=rf"127\.0\.0\.1:{port}, Address already in use"):
                virtualbox.start(taken)
    assert not any(call[0] == "startvm" for call in vbox.calls)
    virtualbox.start(replace(vm, ssh_port=port))


def test_a_port_in_use_is_reported_for_a_running_vm_too(virtualbox: VirtualBox, vbox: VBoxManage, vm: Vm) -> None:
    virtualbox.start(vm)
    before = rules(vbox)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(PortTaken, match=rf"127\.0\.0\.1:{port}, Address already in use"):
            virtualbox.forward(vm, replace(vm, seat_ports=(port,)))
    assert rules(vbox) == before


def test_a_vm_that_does_not_start_is_reported_with_virtualboxs_message(
    virtualbox: VirtualBox, vbox: VBoxManage, vm: Vm
) -> None:
    vbox.fault("startvm", "Not in a hypervisor partition (HVP=0) (VERR_NEM_NOT_AVAILABLE).")
    with pytest.raises(MachineError) as raised:
        virtualbox.start(vm)
    cause = "Not in a hypervisor partition (HVP=0) (VERR_NEM_NOT_AVAILABLE)"
    assert raised.value.message == f"bio-1: VBoxManage startvm failed: {cause}."
    assert virtualbox.state(vm) == "off"


def test_a_missing_disk_is_reported_without_details(virtualbox: VirtualBox, vm: Vm) -> None:
    (vm.folder / "disk.vdi").unlink()
    with pytest.raises(MachineError, match=r"VBoxManage startvm failed: File not found\. \(VERR_FILE_NOT_FOUND\)\.\n"):
        virtualbox.start(vm)


def test_the_state_is_virtualboxs_own_word(virtualbox: VirtualBox, vbox: VBoxManage, vm: Vm) -> None:
    virtualbox.start(vm)
    vbox.machines[vm.id].state = "paused"
    assert virtualbox.state(vm) == "paused"
    virtualbox.stop(vm)
    assert virtualbox.state(vm) == "off"
    virtualbox.delete(vm)
    assert vbox.machines == {}


def test_one_that_is_locked_for_a_moment_is_waited_for(virtualbox: VirtualBox, vbox: VBoxManage, vm: Vm) -> None:
    vbox.stay_locked = 2
    virtualbox.start(vm)
    vbox.crash()
    virtualbox.start(vm)
    virtualbox.delete(vm)
    assert vbox.machines == {}
    assert sum(call[0] == "unregistervm" for call in vbox.calls) == 3


def test_a_vm_that_stays_locked_is_reported(virtualbox: VirtualBox, vbox: VBoxManage, vm: Vm) -> None:
    virtualbox.start(vm)
    vbox.stay_locked = 1000
    with pytest.raises(
        MachineError, match="VBoxManage unregistervm failed: Cannot unregister the machine 'bio-1' while it is"
    ):
        virtualbox.delete(vm)
    assert vm.id in vbox.machines


def test_a_server_that_does_not_start_at_once_is_waited_for_and_other_errors_are_reported(
    virtualbox: VirtualBox, vbox: VBoxManage, vm: Vm
) -> None:
    vbox.fault("showvminfo", "Failed to create the VirtualBox object!")
    assert virtualbox.state(vm) == "off"
    vbox.fault("showvminfo", "Failed to initialize COM!")
    with pytest.raises(MachineError, match="VBoxManage showvminfo failed: Failed to initialize COM!"):
        virtualbox.state(vm)
