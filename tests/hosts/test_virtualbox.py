"""The driver virtualbox with the real VBoxManage: all but VMs that run."""

from __future__ import annotations

import os
import re
import struct
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cloudscale.drivers.vm import virtualbox as module
from cloudscale.drivers.vm.hypervisor import BaseImage, Vm
from cloudscale.drivers.vm.virtualbox import VirtualBox
from cloudscale.errors import MachineError
from cloudscale.fanout import fan_out
from tests.hosts.conftest import STATE
from tests.lab.namespace import Namespace, run
from tests.lab.vboxmanage import VBoxManage as StandIn
from tests.lab.virtualbox import VBoxManage, VirtualBoxes

MIB = 1024**2
SIZE = 8 * MIB


@pytest.fixture(scope="session")
def virtualboxes(namespace: Namespace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VirtualBoxes]:
    made = VirtualBoxes(STATE / "virtualbox", tmp_path_factory.getbasetemp())
    yield made
    made.close()


@pytest.fixture
def vbox(virtualboxes: VirtualBoxes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> VBoxManage:
    vbox = virtualboxes.new(tmp_path)
    monkeypatch.setenv("PATH", f"{vbox.program.parent}:{os.environ['PATH']}")
    return vbox


@pytest.fixture
def virtualbox(vbox: VBoxManage) -> VirtualBox:
    return VirtualBox("bio")


@pytest.fixture
def base(tmp_path: Path) -> BaseImage:
    return image(tmp_path, "raw")


def image(folder: Path, kind: str) -> BaseImage:
    """An image of 8 MiB with something in it."""
    raw, path = folder / "content", folder / f"base.{kind}"
    raw.write_bytes(os.urandom(MIB))
    os.truncate(raw, SIZE)
    run("qemu-img", "convert", "-f", "raw", "-O", kind, str(raw), str(path))
    return BaseImage(path, kind, SIZE)


def planned(folder: Path, name: str = "bio-1", **changes: object) -> Vm:
    """A VM with its folder and its seed."""
    vm = Vm(
        id=str(uuid.uuid4()),
        name=name,
        folder=folder / "vms" / name,
        number=1,
        cpus=2,
        memory=512 * MIB,
        disk=32 * MIB,
        ssh_port=40022,
        engine_port=42376,
        fingerprint="",
    )
    vm.folder.mkdir(parents=True)
    vm.seed.write_bytes(bytes(40960))
    return replace(vm, **changes)  # type: ignore[arg-type]


def shown(vbox: VBoxManage, vm: Vm) -> dict[str, str]:
    code, out, err = vbox("showvminfo", vm.id, "--machinereadable")
    assert code == 0, err
    return module.facts(out)


def disks(vbox: VBoxManage) -> list[str]:
    return re.findall("^Location: +(.*)$", vbox("list", "hdds")[1], re.MULTILINE)


def test_a_vm_is_made_as_planned_in_a_folder_of_any_name(
    virtualbox: VirtualBox, vbox: VBoxManage, base: BaseImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LC_ALL", "C")  # in which VBoxManage takes no such argument, and cuts its output at such a name
    vm = planned(tmp_path / 'Zoë\'s "=" folder')
    virtualbox.make(vm, base)
    known = shown(vbox, vm)
    assert (known["UUID"], known["name"], known["groups"]) == (vm.id, "bio-1", "/cloudscale-bio")
    assert (known["cpus"], known["memory"], known["boot1"], known["ioapic"]) == ("2", "512", "disk", "on")
    assert (known["nic1"], known["nictype1"], known["nic2"], known["nictype2"]) == ("nat", "virtio", "intnet", "virtio")
    assert known["intnet2"] == "cloudscale-bio"
    assert [known["macaddress1"], known["macaddress2"]] == [mac.replace(":", "").upper() for mac in vm.macs]
    assert (known["uart1"], str(vm.console) in known["uartmode1"]) == ("0x03f8,4", True)
    assert (known["disks-0-0"], known["disks-1-0"]) == (str(vm.folder / "disk.vdi"), str(vm.seed))
    assert Path(known["CfgFile"]).is_relative_to(vm.folder)
    assert (virtualbox.is_made(vm), virtualbox.state(vm)) == (True, "off")
    virtualbox.delete(vm)
    assert (vbox("list", "vms")[1], disks(vbox)) == ("", [])
    assert {path.name for path in vm.folder.rglob("*") if path.is_file()} == {"seed.iso"}
    virtualbox.delete(vm)


def test_vms_are_made_at_once_of_images_that_stay_as_they_were_even_if_they_are_listed_and_have_changed(
    virtualbox: VirtualBox, vbox: VBoxManage, tmp_path: Path
) -> None:
    for kind in module.FORMATS:
        vbox("clonemedium", "disk", str(image(tmp_path, kind).path), str(tmp_path / f"other-{kind}.vdi"))
    bases = {kind: image(tmp_path, kind) for kind in ("raw", *module.FORMATS)}
    before = [base.path.read_bytes() for base in bases.values()]
    wanted = [*((kind, 32 * MIB) for kind in bases), ("vmdk", 4 * MIB), ("vdi", 4 * MIB)]
    vms = {planned(tmp_path, f"bio-{at}", disk=disk): bases[kind] for at, (kind, disk) in enumerate(wanted)}
    fan_out(lambda vm: virtualbox.make(vm, vms[vm]), vms, name=lambda vm: vm.name).get()
    assert [base.path.read_bytes() for base in bases.values()] == before
    assert not {*disks(vbox)} & {str(base.path) for base in bases.values()}
    for vm in vms:
        size = max(vm.disk, SIZE) // MIB  # never cut
        assert f"virtual size: {size} MiB " in run("qemu-img", "info", str(vm.folder / "disk.vdi"))


def test_a_vm_whose_settings_are_lost_is_made_again_with_its_disk_if_it_has_been_up(
    virtualbox: VirtualBox, vbox: VBoxManage, base: BaseImage, tmp_path: Path
) -> None:
    up, new, gone = (planned(tmp_path, name) for name in ("up", "new", "gone"))
    for vm in (up, new, gone):
        virtualbox.make(vm, base)
    inode = (up.folder / "disk.vdi").stat().st_ino
    for vm in (up, new, gone):
        Path(shown(vbox, vm)["CfgFile"]).unlink()
    vbox.end_server()  # which had read them
    assert vbox("list", "vms")[1].count('"<inaccessible>"') == 3
    for vm in (replace(up, has_answered=True), new):
        assert (virtualbox.state(vm), virtualbox.is_made(vm)) == ("off", False)
        virtualbox.make(vm, base)
        assert virtualbox.is_made(vm)
    assert (up.folder / "disk.vdi").stat().st_ino == inode
    virtualbox.delete(gone)
    assert "<inaccessible>" not in vbox("list", "vms")[1]
    assert not (gone.folder / "disk.vdi").exists()


def test_a_vm_with_a_snapshot_and_a_description_is_left_as_it_is_and_deleted_whole(
    virtualbox: VirtualBox, vbox: VBoxManage, base: BaseImage, tmp_path: Path
) -> None:
    vm = planned(tmp_path)
    virtualbox.make(vm, base)
    assert vbox("snapshot", vm.id, "take", "before the exam")[0] == 0
    assert vbox("modifyvm", vm.id, "--description", 'mine\nVMState="running"\n"disks-0-0"="none"')[0] == 0
    assert (virtualbox.is_made(vm), virtualbox.state(vm)) == (True, "off")
    virtualbox.delete(vm)
    assert not [*vm.folder.rglob("*.vdi")]


def test_a_make_that_was_interrupted_starts_again(
    virtualbox: VirtualBox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, vm, done = image(tmp_path, "vdi"), planned(tmp_path), VirtualBox._run

    def cut(self: VirtualBox, vm: Vm, *words: str, timeout: float = 60) -> str:
        if words[0] == "storagectl":
            raise MachineError("the power is cut", "")
        return done(self, vm, *words, timeout=timeout)

    with monkeypatch.context() as patch:
        patch.setattr(VirtualBox, "_run", cut)
        with pytest.raises(MachineError, match="the power is cut"):
            virtualbox.make(vm, base)
    assert not virtualbox.is_made(vm)
    virtualbox.make(vm, base)
    assert virtualbox.is_made(vm)


def test_what_virtualbox_does_not_like_is_reported_with_its_reason(
    virtualbox: VirtualBox, vbox: VBoxManage, tmp_path: Path
) -> None:
    base, vm = image(tmp_path, "qcow2"), planned(tmp_path)
    content = bytearray(base.path.read_bytes())
    content[72:80] = struct.pack(">Q", 1 << 3)  # incompatible features
    base.path.write_bytes(content)
    with pytest.raises(MachineError, match=r"Could not open the medium .*unsupported incompatible features \(8 vs 0\)"):
        virtualbox.make(vm, base)
    virtualbox.make(vm, image(tmp_path, "raw"))
    with pytest.raises(MachineError, match="startvm failed: The virtual machine 'bio-1' has terminated unexpectedly"):
        virtualbox.start(vm)  # there is no kernel module
    assert {rule for name, rule in shown(vbox, vm).items() if name.startswith("Forwarding")} == {
        "ssh,tcp,127.0.0.1,40022,,22",
        "engine,tcp,127.0.0.1,42376,,2376",
    }
    with pytest.raises(MachineError, match="startvm failed"):
        virtualbox.start(replace(vm, ssh_port=40023, seat_ports=(4321,)))  # which takes away the old rules first


# --- the stand-in ---

ID, OTHER = "77fa32f8-1d75-499f-83d5-d9933ef043e8", "0220bfcc-ed89-40a7-9375-dee54051acfa"
CREATE = "createvm --uuid {id} --name {name} --ostype Debian_64 --register --basefolder {folder} --groups /bio"
ATTACH = "storageattach {id} --storagectl disks --device 0"
DIALOGUE = f"""
showvminfo {{id}} --machinereadable
showvminfo nobody --machinereadable
unregistervm {{id}} --delete
{CREATE}
{CREATE}
{CREATE.replace("{folder}", "{folder}/other")}
{CREATE.replace("{folder}", "{folder}/other").replace("{id}", "{other}")}
modifyvm {{id}} --cpus 2 --memory 512 --ioapic on --rtcuseutc on --graphicscontroller vmsvga --vram 16
modifyvm {{id}} --audio-driver none --boot1 disk --nic1 nat --nictype1 virtio --macaddress1 5254AABBCCDD
modifyvm {{id}} --nic2 intnet --intnet2 bio --nictype2 virtio --uart1 0x3F8 4 --uartmode1 file {{folder}}/console
modifyvm {{id}} --natpf1 ssh,tcp,127.0.0.1,2222,,22 --natpf1 web,tcp,,8080,,80
modifyvm {{id}} --cpus 4 --natpf1 ssh,tcp,,2223,,22
modifyvm {{id}} --natpf1 x,tcp,127.0.0.1,2222,,23
modifyvm {{id}} --natpf1 delete x
modifyvm {{id}} --natpf1 wrong,tcp
modifyvm {{id}} --natpf1 delete web
{ATTACH} --port 0 --type hdd --medium {{folder}}/no.vdi
storagectl {{id}} --name disks --add sata --portcount 2
storagectl {{id}} --name disks --add sata --portcount 2
showvminfo {{id}} --machinereadable
convertfromraw {{folder}}/no.raw {{folder}}/disk.vdi --format VDI
convertfromraw {{folder}}/base.raw {{folder}}/disk.vdi --format VDI
convertfromraw {{folder}}/base.raw {{folder}}/disk.vdi --format VDI
modifymedium disk {{folder}}/no.vdi --resize 32
modifymedium disk {{folder}}/disk.vdi --resize 32
modifymedium disk {{folder}}/disk.vdi --resize 4
clonemedium disk {{folder}}/no.qcow2 {{folder}}/copy.vdi --format VDI
clonemedium disk {{folder}}/base.qcow2 {{folder}}/disk.vdi --format VDI
closemedium disk {{folder}}/base.qcow2
clonemedium disk {{folder}}/base.qcow2 {{folder}}/copy.vdi --format VDI
closemedium disk {{folder}}/copy.vdi --delete
closemedium disk {{folder}}/copy.vdi --delete
{ATTACH} --port 0 --type hdd --medium {{folder}}/no.vdi
{ATTACH} --port 1 --type dvddrive --medium {{folder}}/seed.iso
{ATTACH} --port 0 --type hdd --medium {{folder}}/disk.vdi
closemedium disk {{folder}}/disk.vdi
closemedium disk {{folder}}/disk.vdi --delete
showvminfo {{id}} --machinereadable
controlvm {{id}} poweroff
list vms
unregistervm {{id}} --delete
list vms
"""


def test_the_stand_in_answers_as_the_real_one(vbox: VBoxManage, tmp_path: Path) -> None:
    stand_in, differ = StandIn(), list[object]()
    folders = [tmp_path / "real", tmp_path / "stand-in"]
    for folder in folders:
        folder.mkdir()
        (folder / "seed.iso").write_bytes(bytes(40960))
        for kind in ("raw", "qcow2"):
            image(folder, kind)
    for line in DIALOGUE.strip().splitlines():
        answers = []
        for folder in folders:
            words = [word.format(id=ID, other=OTHER, name="ann", folder=folder) for word in line.split()]
            code, out, err = vbox(*words) if folder == folders[0] else stand_in(*words)
            answers.append((code, first_error(err).replace(str(folder), ""), compared(out, line, folder)))
        real, other = answers
        if real[:2] != other[:2] or not other[2] <= real[2]:
            differ.append((line, real[:2], other[:2], other[2] - real[2]))
    assert not differ


def first_error(text: str) -> str:
    return next((line for line in text.splitlines() if "error:" in line), "")


def compared(out: str, command: str, folder: Path) -> set[str]:
    """The lines of an answer that the driver reads."""
    return {*out.replace(str(folder), "").splitlines()} if command.startswith(("list", "showvminfo")) else set()
