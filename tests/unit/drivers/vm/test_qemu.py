"""QEMU as the driver uses it: its arguments, its commands, and its processes."""

from __future__ import annotations

import itertools
import json
import os
import platform
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cloudscale.drivers.vm import qemu as module
from cloudscale.drivers.vm.hypervisor import BaseImage, PortTaken, Vm
from cloudscale.drivers.vm.qemu import Qemu
from cloudscale.errors import MachineError, RequestError
from tests.unit.drivers.vm.fake_hypervisor import GIB, QemuPrograms, one_vm, raw_image


@pytest.fixture(name="kvm")
def kvm_fixture(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Sets whether this computer has KVM; by default it has not."""
    access = os.access
    has = [False]

    def answer(path: object, mode: int) -> bool:
        return has[0] if path == "/dev/kvm" else access(str(path), mode)

    monkeypatch.setattr(os, "access", answer)
    return lambda whether: has.__setitem__(0, whether)


@pytest.fixture
def qemu(qemu_programs: QemuPrograms, kvm: Callable[[bool], None]) -> Qemu:
    return Qemu("bio")


def made(qemu: Qemu, folder: Path, name: str = "bio-1", *, base: BaseImage | None = None, number: int = 1) -> Vm:
    ids = f"8c3f9b1{number}-1d5e-4f6a-9a7b-0123456789ab"
    vm = one_vm(folder, name, id=ids, number=number, ssh_port=40000 + number, engine_port=41000 + number)
    vm.folder.mkdir(parents=True)
    vm.seed.write_bytes(bytes(40960))
    if base is None:
        path = raw_image(folder.parent / "base.raw")
        base = BaseImage(path, "raw", path.stat().st_size)
    qemu.make(vm, base)
    return vm


@pytest.fixture
def vm(qemu: Qemu, tmp_path: Path) -> Vm:
    return made(qemu, tmp_path / "vms")


def values(arguments: list[str], option: str) -> list[str]:
    return [value for name, value in itertools.pairwise(arguments) if name == option]


def rules(arguments: list[str]) -> list[str]:
    return re.findall(r",hostfwd=([^,]*)", values(arguments, "-netdev")[0])


def accelerators(arguments: list[str]) -> list[str]:
    return [value.partition(",")[0] for value in values(arguments, "-accel")]


# --- installed or not ---


def test_missing_programs_are_reported_with_the_command_that_installs_them(
    qemu_programs: QemuPrograms, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    Qemu("bio").check()
    (qemu_programs.path / "qemu-img").unlink()
    with pytest.raises(RequestError) as raised:
        Qemu("bio").check()
    assert raised.value.message == "The driver qemu needs qemu-img, which this computer does not have."
    (qemu_programs.path / "qemu-system-x86_64").unlink()
    with pytest.raises(RequestError, match="needs qemu-system-x86_64 and qemu-img") as raised:
        Qemu("bio").check()
    assert raised.value.exit_code == 2
    assert "sudo apt-get install --no-install-recommends qemu-system-x86 qemu-utils" in raised.value.remedy


def test_a_computer_of_another_kind_is_refused(qemu: Qemu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    with pytest.raises(RequestError, match="needs an x86-64 computer, but this one is aarch64"):
        qemu.check()


def test_its_own_image_is_a_cloud_image_of_debian(qemu: Qemu) -> None:
    assert qemu.image.startswith("https://cloud.debian.org/")


# --- made ---


def test_a_disk_is_made_on_top_of_the_base_and_as_large_as_asked(
    qemu: Qemu, vm: Vm, qemu_programs: QemuPrograms, tmp_path: Path
) -> None:
    ((*_, size),) = qemu_programs.img_calls
    assert size == str(20 * GIB)
    assert str(tmp_path / "base.raw") in qemu_programs.img_calls[0]
    assert qemu.is_made(vm)
    assert qemu.state(vm) == "off"
    assert not list(vm.folder.glob("*.part"))


def test_a_disk_is_never_smaller_than_its_base(qemu: Qemu, qemu_programs: QemuPrograms, tmp_path: Path) -> None:
    path = raw_image(tmp_path / "base.raw")
    made(qemu, tmp_path / "vms", base=BaseImage(path, "raw", 30 * GIB))
    assert qemu_programs.img_calls[0][-1] == str(30 * GIB)


def test_a_disk_that_can_not_be_made_leaves_no_vm(qemu: Qemu, tmp_path: Path) -> None:
    with pytest.raises(MachineError, match=r"^bio-1: could not make its disk \(.*No such file or directory\)\."):
        made(qemu, tmp_path / "vms", base=BaseImage(tmp_path / "gone", "raw", 1))
    assert not qemu.is_made(one_vm(tmp_path / "vms"))


# --- started ---


def test_a_vm_is_started_with_what_it_is(qemu: Qemu, vm: Vm, qemu_programs: QemuPrograms) -> None:
    qemu.start(vm)
    (arguments,) = qemu_programs.calls
    assert values(arguments, "-name") == ["bio-1"]
    assert values(arguments, "-uuid") == [vm.id]
    assert (values(arguments, "-smp"), values(arguments, "-m")) == (["2"], ["2048M"])
    assert {"-nodefaults", "-no-user-config", "-daemonize"} <= {*arguments}
    assert values(arguments, "-display") == ["none"]
    disk, seed = map(json.loads, values(arguments, "-blockdev"))
    assert disk["file"]["filename"] == str(vm.folder / "disk.qcow2")
    assert (seed["file"]["filename"], seed["read-only"]) == (str(vm.seed), True)
    cards = [device.partition("mac=")[2] for device in values(arguments, "-device") if "net-pci" in device]
    assert cards == list(vm.macs)
    assert qemu.state(vm) == "running"


def test_all_that_leads_into_it_is_opened_and_login_and_engine_on_loopback_alone(
    qemu: Qemu, vm: Vm, qemu_programs: QemuPrograms
) -> None:
    vm = replace(vm, address="192.0.2.9", seat_ports=(4321, 4322))
    qemu.start(vm)
    expected = {
        "tcp:127.0.0.1:40001-:22",
        "tcp:127.0.0.1:41001-:2376",
        "tcp:192.0.2.9:4321-:4321",
        "tcp:192.0.2.9:4322-:4322",
    }
    assert {*rules(qemu_programs.calls[0])} == expected == qemu_programs.rules(vm)


def test_the_vms_of_a_course_meet_on_loopback_and_no_others_do(
    qemu: Qemu, qemu_programs: QemuPrograms, tmp_path: Path
) -> None:
    for number in (1, 2):
        qemu.start(made(qemu, tmp_path / "vms", f"bio-{number}", number=number))
    geo = Qemu("geo")
    geo.start(made(geo, tmp_path / "geo", "geo-1", number=3))
    networks = [values(arguments, "-netdev")[1] for arguments in qemu_programs.calls]
    assert networks[0] == networks[1] != networks[2]
    for network in networks:
        match = re.fullmatch(r"socket,id=course,mcast=239\.77\.(\d+)\.(\d+):(\d+),localaddr=127\.0\.0\.1", network)
        assert match
        assert all(int(part) < 256 for part in match.groups()[:2])
        assert 1024 < int(match[3]) < 65536


def test_an_image_with_a_boot_loader_boots_by_itself(qemu: Qemu, vm: Vm, qemu_programs: QemuPrograms) -> None:
    qemu.start(vm)
    assert not {"-kernel", "-append", "-initrd"} & {*qemu_programs.calls[0]}


@pytest.mark.parametrize("ramdisk", [True, False])
def test_one_without_is_given_its_kernel(
    qemu: Qemu, qemu_programs: QemuPrograms, tmp_path: Path, ramdisk: bool
) -> None:
    path, kernel, initrd = raw_image(tmp_path / "base,1.raw", boots=False), tmp_path / "vmlinuz,1", tmp_path / "initrd"
    kernel.touch()
    initrd.touch()
    base = BaseImage(path, "raw", path.stat().st_size, kernel, initrd if ramdisk else None)
    qemu.start(made(qemu, tmp_path / "vms", base=base))
    (arguments,) = qemu_programs.calls
    assert values(arguments, "-kernel") == [str(kernel)]
    (words,) = values(arguments, "-append")
    assert {"root=/dev/vda", "console=ttyS0,115200"} <= {*words.split()}
    assert words.split()[-1] == "ci.ds=NoCloud"
    assert values(arguments, "-initrd") == ([str(initrd)] if ramdisk else [])


def test_a_comma_in_a_path_is_one(qemu: Qemu, qemu_programs: QemuPrograms, tmp_path: Path) -> None:
    qemu_programs.tell(words="Linux version 6.1\n")
    vm = made(qemu, tmp_path / "a,b,,c=d" / "vms")
    qemu.start(vm)
    assert qemu.state(vm) == "running"
    assert vm.console.read_text() == "Linux version 6.1\n"


def test_a_long_path_is_not_too_long_for_a_socket(qemu: Qemu, tmp_path: Path) -> None:
    vm = made(qemu, tmp_path / ("long" * 40) / "vms")
    qemu.start(vm)
    assert qemu.state(vm) == "running"
    qemu.delete(vm)
    assert qemu.state(vm) == "off"


def test_a_console_is_added_to(qemu: Qemu, vm: Vm, qemu_programs: QemuPrograms) -> None:
    qemu_programs.tell(words="first\n")
    qemu.start(vm)
    qemu.stop(vm)
    qemu_programs.tell(words="second\n")
    qemu.start(vm)
    assert vm.console.read_text() == "first\nsecond\n"


@pytest.mark.parametrize(("port", "rule"), [("4321", "127.0.0.1:4321-:4321"), ("40001", "127.0.0.1:40001-:22")])
def test_a_port_in_use_is_reported_with_its_rule(
    qemu: Qemu, vm: Vm, qemu_programs: QemuPrograms, port: str, rule: str
) -> None:
    qemu_programs.tell(taken=port)
    with pytest.raises(PortTaken, match=rf"is in use \(tcp:{rule}\)"):
        qemu.start(replace(vm, seat_ports=(4321,)))
    assert qemu.state(vm) == "off"


def test_a_vm_that_does_not_start_is_reported_with_qemus_message(
    qemu: Qemu, vm: Vm, qemu_programs: QemuPrograms
) -> None:
    qemu_programs.tell(refusal="cannot set up guest memory 'pc.ram': Cannot allocate memory.")
    with pytest.raises(MachineError) as raised:
        qemu.start(vm)
    cause = "cannot set up guest memory 'pc.ram': Cannot allocate memory"
    assert raised.value.message == f"bio-1: QEMU could not start it ({cause})."
    assert "--memory" in raised.value.remedy
    assert not isinstance(raised.value, PortTaken)


# --- running ---


def test_a_vm_without_a_process_is_off(qemu: Qemu, vm: Vm, tmp_path: Path) -> None:
    assert qemu.state(vm) == "off"
    (vm.folder / "pid").write_text("1")  # the process has ended, and another one has its id
    assert qemu.state(vm) == "off"
    qemu.delete(vm)
    qemu.delete(one_vm(tmp_path / "vms", "never"))


def test_the_state_is_qemus_own_word(qemu: Qemu, vm: Vm, qemu_programs: QemuPrograms) -> None:
    qemu.start(vm)
    qemu_programs.tell(state="io-error")
    assert qemu.state(vm) == "io-error"
    assert Qemu("bio").state(vm) == "io-error"  # in the next run too


def test_ports_are_opened_and_closed_while_it_runs(qemu: Qemu, vm: Vm, qemu_programs: QemuPrograms) -> None:
    before = replace(vm, seat_ports=(4321, 4322))
    qemu.start(before)
    changed = replace(vm, seat_ports=(4322, 4323))
    qemu.forward(before, changed)
    seats = {rule for rule in qemu_programs.rules(vm) if ":43" in rule}
    assert seats == {"tcp:127.0.0.1:4322-:4322", "tcp:127.0.0.1:4323-:4323"}
    assert len(qemu_programs.rules(vm)) == 4


def test_a_port_in_use_is_reported_for_a_running_vm_too(qemu: Qemu, vm: Vm, qemu_programs: QemuPrograms) -> None:
    qemu.start(vm)
    qemu_programs.tell(taken="4321")
    with pytest.raises(PortTaken, match=r"127\.0\.0\.1:4321"):
        qemu.forward(vm, replace(vm, seat_ports=(4321,)))
    assert len(qemu_programs.rules(vm)) == 2


def test_ports_of_which_one_is_taken_stay_closed_and_can_be_opened_later(
    qemu: Qemu, vm: Vm, qemu_programs: QemuPrograms
) -> None:
    qemu.start(vm)
    changed = replace(vm, seat_ports=(4321, 4322))
    before = qemu_programs.rules(vm)
    qemu_programs.tell(taken="4322")
    with pytest.raises(PortTaken, match="4322"):
        qemu.forward(vm, changed)
    assert qemu_programs.rules(vm) == before
    qemu_programs.tell(taken="")
    qemu.forward(vm, changed)
    assert qemu_programs.rules(vm) - before == {"tcp:127.0.0.1:4321-:4321", "tcp:127.0.0.1:4322-:4322"}


def test_a_vm_ends_and_can_be_started_again(qemu: Qemu, vm: Vm, qemu_programs: QemuPrograms) -> None:
    for end in (qemu.stop, qemu.delete):
        qemu.start(vm)
        assert qemu.state(vm) == "running"
        end(vm)
        assert qemu.state(vm) == "off"
    assert len(qemu_programs.calls) == 2


def test_one_that_does_not_answer_is_busy_and_can_be_ended_all_the_same(
    qemu: Qemu, vm: Vm, qemu_programs: QemuPrograms, monkeypatch: pytest.MonkeyPatch
) -> None:
    qemu.start(vm)
    qemu_programs.tell(deaf="yes")
    monkeypatch.setattr(module, "ANSWERING", 0.2)
    monkeypatch.setattr(module, "ENDING", 0.5)
    assert qemu.state(vm) == "running"
    with pytest.raises(MachineError, match=r"its QEMU does not answer \(TimeoutError\)"):
        qemu.forward(vm, replace(vm, seat_ports=(4321,)))
    qemu.stop(vm)
    assert qemu.state(vm) == "off"


# --- KVM ---


def test_kvm_is_tried_if_available_with_software_as_the_fallback(
    qemu: Qemu, qemu_programs: QemuPrograms, kvm: Callable[[bool], None], tmp_path: Path
) -> None:
    vms = [made(qemu, tmp_path / "vms", f"bio-{number}", number=number) for number in (1, 2, 3)]
    qemu.start(vms[0])
    kvm(True)
    qemu.start(vms[1])
    Qemu("bio", kvm=False).start(vms[2])
    assert [accelerators(call) for call in qemu_programs.calls] == [["tcg"], ["kvm", "tcg"], ["tcg"]]


def test_a_computer_without_kvm_gets_a_warning(qemu: Qemu, kvm: Callable[[bool], None]) -> None:
    assert "/dev/kvm can't be used, so VMs are emulated" in qemu.drawback()
    assert Qemu("bio", kvm=False).drawback() == ""  # the user has turned it off
    kvm(True)
    assert qemu.drawback() == ""


def test_without_kvm_a_vm_that_is_slow_is_left_alone(qemu: Qemu, vm: Vm, qemu_programs: QemuPrograms) -> None:
    qemu.start(vm)
    assert qemu.restart_if_stuck(vm, 1000) == ""
    assert len(qemu_programs.calls) == 1


@pytest.mark.parametrize(("seconds", "words"), [(10, ""), (1000, "Linux version 6.1\n")])
def test_one_that_boots_with_kvm_is_left_alone(
    qemu: Qemu, vm: Vm, qemu_programs: QemuPrograms, kvm: Callable[[bool], None], seconds: float, words: str
) -> None:
    kvm(True)
    vm.console.write_text("of an earlier start\n")
    qemu_programs.tell(words=words)
    qemu.start(vm)
    assert qemu.restart_if_stuck(vm, seconds) == ""
    assert accelerators(qemu_programs.calls[-1]) == ["kvm", "tcg"]


@pytest.mark.parametrize(("seconds", "state"), [(1000, "running"), (1, "internal-error")])
def test_one_that_hangs_with_kvm_is_started_without_and_no_other_tries_it(
    qemu: Qemu,
    vm: Vm,
    qemu_programs: QemuPrograms,
    kvm: Callable[[bool], None],
    tmp_path: Path,
    seconds: float,
    state: str,
) -> None:
    kvm(True)
    vm.console.write_text("of an earlier start\n")
    qemu.start(vm)
    qemu_programs.tell(state=state)
    assert "KVM does not work on this computer" in qemu.restart_if_stuck(vm, seconds)
    qemu_programs.tell(state="running")
    assert qemu.state(vm) == "running"
    sibling = made(qemu, tmp_path / "vms", "bio-2", number=2)
    Qemu("bio").start(sibling)  # in the next run
    assert [accelerators(call) for call in qemu_programs.calls] == [["kvm", "tcg"], ["tcg"], ["tcg"]]
    assert qemu.restart_if_stuck(vm, 2 * seconds) == ""
    assert len(qemu_programs.calls) == 3


def test_two_that_hang_with_kvm_are_both_started_without(
    qemu: Qemu, qemu_programs: QemuPrograms, kvm: Callable[[bool], None], tmp_path: Path
) -> None:
    kvm(True)
    vms = [made(qemu, tmp_path / "vms", f"bio-{number}", number=number) for number in (1, 2)]
    for vm in vms:
        qemu.start(vm)
    for vm in vms:
        assert "KVM does not work on this computer" in qemu.restart_if_stuck(vm, 1000)
    assert [accelerators(call) for call in qemu_programs.calls] == [["kvm", "tcg"]] * 2 + [["tcg"]] * 2
    assert [qemu.restart_if_stuck(vm, 2000) for vm in vms] == ["", ""]
