"""VirtualBox as the driver uses it, with a strict stand-in for its command."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cloudscale.drivers.vm import virtualbox as module
from cloudscale.drivers.vm.hypervisor import BaseImage, PortTaken, Vm
from cloudscale.drivers.vm.records import free_ports
from cloudscale.drivers.vm.virtualbox import VirtualBox
from cloudscale.errors import MachineError, RequestError
from cloudscale.model import CommandResult
from tests.lab.vboxmanage import VBoxManage
from tests.unit.drivers.vm.fake_hypervisor import GIB, one_vm, qcow2_image, raw_image


@pytest.fixture(name="vbox")
def vbox_fixture(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, no_waiting: None) -> Iterator[VBoxManage]:
    """The stand-in, without a process for each command, and without waiting."""
    with VBoxManage(tmp_path / "vbox") as vbox:

        def called(*words: str, timeout: float = 1) -> CommandResult:
            assert timeout > 0
            answer = vbox(*words)
            return CommandResult(answer.code, answer.out, answer.err)

        monkeypatch.setattr(module, "_vboxmanage", called)
        monkeypatch.setenv("PATH", str(vbox.command.parent))
        yield vbox


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


def info(vbox: VBoxManage, name: str = "bio-1") -> dict[str, str]:
    answer = vbox("showvminfo", name, "--machinereadable")
    assert answer.code == 0, answer.err
    lines = (line.partition("=") for line in answer.out.splitlines())
    return {name.strip('"'): value.strip('"') for name, _, value in lines}


def rules(vbox: VBoxManage) -> set[str]:
    return {value for name, value in info(vbox).items() if name.startswith("Forwarding")}


def rule(name: str, port: int, inside: int, address: str = "127.0.0.1") -> str:
    return f"{name},tcp,{address},{port},,{inside}"


# --- installed or not ---


def test_a_missing_virtualbox_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, vbox: VBoxManage) -> None:
    VirtualBox("bio").check()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        RequestError, match="The driver virtualbox needs VBoxManage, which this computer does not have"
    ) as raised:
        VirtualBox("bio").check()
    assert raised.value.exit_code == 2
    assert "virtualbox.org" in raised.value.remedy


@pytest.mark.usefixtures("processes")
def test_its_command_is_called_as_a_program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with VBoxManage(tmp_path / "vbox") as vbox:
        monkeypatch.setenv("PATH", str(vbox.command.parent))
        virtualbox, vm = VirtualBox("bio"), planned(tmp_path)
        assert virtualbox.state(vm) == "off"
        path = raw_image(tmp_path / "base.raw", 3 * GIB)
        virtualbox.make(vm, BaseImage(path, "raw", 3 * GIB))
        virtualbox.start(vm)
        assert virtualbox.state(vm) == "running"
        vbox.fault("^showvminfo", seconds=60)
        monkeypatch.setattr(module._vboxmanage, "__kwdefaults__", {"timeout": 1.0})
        with pytest.raises(MachineError, match="VBoxManage showvminfo did not end within 1 s"):
            virtualbox.state(vm)


def test_its_own_image_is_one_that_its_command_reads(virtualbox: VirtualBox) -> None:
    assert virtualbox.image.startswith("https://cloud.debian.org/")
    assert virtualbox.image.endswith(".tar.xz")


# --- made ---


def test_a_vm_is_made_as_it_was_planned(virtualbox: VirtualBox, vbox: VBoxManage, vm: Vm) -> None:
    known = info(vbox)
    assert (known["UUID"], known["name"], known["groups"]) == (vm.id, "bio-1", "/cloudscale-bio")
    assert (known["cpus"], known["memory"], known["boot1"]) == ("2", "2048", "disk")
    assert (known["nic1"], known["nic2"], known["intnet2"]) == ("nat", "intnet", "cloudscale-bio")
    assert [known["macaddress1"], known["macaddress2"]] == [card.replace(":", "").upper() for card in vm.macs]
    assert (known["uart1"], known["uartmode1"]) == ("0x03f8,4", f"file,{vm.console}")
    assert (known["disks-0-0"], known["disks-1-0"]) == (str(vm.folder / "disk.vdi"), str(vm.seed))
    assert Path(known["CfgFile"]).is_relative_to(vm.folder)
    assert virtualbox.is_made(vm)
    assert virtualbox.state(vm) == "off"


@pytest.mark.parametrize("kind", ["raw", "qcow2"])
def test_its_disk_is_a_copy_that_is_as_large_as_asked(
    virtualbox: VirtualBox, vbox: VBoxManage, tmp_path: Path, kind: str
) -> None:
    path = (raw_image if kind == "raw" else qcow2_image)(tmp_path / "base", 3 * GIB)
    before = path.read_bytes() if kind == "qcow2" else b""
    vm = planned(tmp_path)
    virtualbox.make(vm, BaseImage(path, kind, 3 * GIB))
    disk = vm.folder / "disk.vdi"
    with disk.open("rb") as file:
        assert file.read(3) == b"<<<"
    listed = vbox("list", "hdds").out
    assert f"Location:       {disk}\n" in listed
    assert f"Capacity:       {20 * 1024} MBytes" in listed
    assert str(path) not in listed
    assert kind == "raw" or path.read_bytes() == before
    virtualbox.start(vm)


def test_a_base_that_is_larger_than_asked_is_not_cut(
    virtualbox: VirtualBox, vbox: VBoxManage, base: BaseImage, tmp_path: Path
) -> None:
    virtualbox.make(planned(tmp_path, disk=GIB), base)
    assert f"Capacity:       {3 * 1024} MBytes" in vbox("list", "hdds").out


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


@pytest.mark.parametrize("step", ["modifyvm", "convertfromraw", "storagectl", "storageattach"])
def test_a_make_that_was_interrupted_starts_again(
    virtualbox: VirtualBox, vbox: VBoxManage, base: BaseImage, tmp_path: Path, step: str
) -> None:
    vm = planned(tmp_path)
    vbox.fault(f"^{step}", "the power is cut", after=int(step == "storageattach"))
    with pytest.raises(MachineError, match=f"^bio-1: VBoxManage {step} failed: the power is cut"):
        virtualbox.make(vm, base)
    assert not virtualbox.is_made(vm)
    virtualbox.make(vm, base)
    assert virtualbox.is_made(vm)
    virtualbox.start(vm)
    assert list(vbox.machines) == ["bio-1"]


@pytest.mark.parametrize("step", ["modifymedium", "storagectl"])
def test_a_make_that_was_interrupted_after_copying_the_disk_starts_again(
    virtualbox: VirtualBox, vbox: VBoxManage, tmp_path: Path, step: str
) -> None:
    base = BaseImage(qcow2_image(tmp_path / "base"), "qcow2", 3 * GIB)
    vm = planned(tmp_path)
    vbox.fault(f"^{step}", "the power is cut")
    with pytest.raises(MachineError, match="the power is cut"):
        virtualbox.make(vm, base)
    virtualbox.make(vm, base)
    assert virtualbox.is_made(vm)
    virtualbox.start(vm)


def test_a_half_made_vm_leaves_no_disk_behind(virtualbox: VirtualBox, vbox: VBoxManage, tmp_path: Path) -> None:
    vm = planned(tmp_path)
    vbox.fault("^storagectl", "the power is cut")
    with pytest.raises(MachineError, match="the power is cut"):
        virtualbox.make(vm, BaseImage(qcow2_image(tmp_path / "base"), "qcow2", 3 * GIB))
    virtualbox.delete(vm)
    assert vbox("list", "hdds").out == ""
    assert not (vm.folder / "disk.vdi").exists()


def test_settings_that_were_never_registered_are_replaced(
    virtualbox: VirtualBox, vbox: VBoxManage, base: BaseImage, tmp_path: Path
) -> None:
    vm = planned(tmp_path)
    words = ["--name", vm.name, "--uuid", vm.id, "--ostype", "Debian_64", "--groups", "/cloudscale-bio"]
    assert vbox("createvm", *words, "--basefolder", str(vm.folder / "virtualbox")).code == 0
    assert vbox.machines == {}
    virtualbox.make(vm, base)
    assert virtualbox.is_made(vm)


def test_another_vm_with_the_same_name_is_reported_and_not_changed(
    virtualbox: VirtualBox, vbox: VBoxManage, base: BaseImage, tmp_path: Path
) -> None:
    assert vbox("createvm", "--name", "bio-1", "--ostype", "Debian_64", "--register").code == 0
    before = vbox.machines
    vm = planned(tmp_path)
    with pytest.raises(MachineError, match=r"VBoxManage createvm failed: Registered machine .* already exists\."):
        virtualbox.make(vm, base)
    assert not virtualbox.is_made(vm)
    virtualbox.delete(vm)
    assert vbox.machines == before


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
    assert vbox("list", "hdds").out == ""
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
    vbox.crash("bio-1")
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
    vbox.fault("^startvm", "Not in a hypervisor partition (HVP=0) (VERR_NEM_NOT_AVAILABLE).")
    with pytest.raises(MachineError) as raised:
        virtualbox.start(vm)
    cause = "Not in a hypervisor partition (HVP=0) (VERR_NEM_NOT_AVAILABLE)"
    assert raised.value.message == f"bio-1: VBoxManage startvm failed: {cause}."
    assert virtualbox.state(vm) == "off"


def test_a_missing_disk_is_reported_without_details(virtualbox: VirtualBox, vm: Vm) -> None:
    (vm.folder / "disk.vdi").unlink()
    with pytest.raises(MachineError, match=r"VBoxManage startvm failed: Could not open the medium '.*/disk\.vdi'\.\n"):
        virtualbox.start(vm)


def test_the_state_is_virtualboxs_own_word(virtualbox: VirtualBox, vbox: VBoxManage, vm: Vm) -> None:
    virtualbox.start(vm)
    assert vbox("controlvm", "bio-1", "pause").code == 0
    assert virtualbox.state(vm) == "paused"
    virtualbox.delete(vm)
    assert vbox.machines == {}


def test_one_that_is_locked_for_a_moment_is_waited_for(virtualbox: VirtualBox, vbox: VBoxManage, vm: Vm) -> None:
    vbox.behave("bio-1", tries_to_unlock=2)
    virtualbox.start(vm)
    vbox.crash("bio-1")
    virtualbox.start(vm)
    virtualbox.delete(vm)
    assert vbox.machines == {}
    assert sum(call[0] == "unregistervm" for call in vbox.calls) == 3


def test_a_vm_that_stays_locked_is_reported(virtualbox: VirtualBox, vbox: VBoxManage, vm: Vm) -> None:
    virtualbox.start(vm)
    vbox.behave("bio-1", tries_to_unlock=1000)
    with pytest.raises(
        MachineError, match="VBoxManage unregistervm failed: Cannot unregister the machine 'bio-1' while it is"
    ):
        virtualbox.delete(vm)
    assert "bio-1" in vbox.machines


def test_a_failed_showvminfo_is_reported(virtualbox: VirtualBox, vbox: VBoxManage, vm: Vm) -> None:
    vbox.fault("^showvminfo", "Failed to create the VirtualBox object!")
    with pytest.raises(MachineError, match="VBoxManage showvminfo failed: Failed to create the VirtualBox object!"):
        virtualbox.state(vm)
