"""The stand-in for VBoxManage: it does what the manual has, and refuses what VirtualBox refuses."""

from __future__ import annotations

import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.vboxmanage import Answer, Change, VBoxManage

MACHINE = ("--name", "ann", "--ostype", "Debian_64", "--register")


@pytest.fixture
def vbox(tmp_path: Path) -> Iterator[VBoxManage]:
    with VBoxManage(tmp_path / "vbox") as vbox:
        yield vbox


@pytest.fixture
def ann(vbox: VBoxManage, tmp_path: Path) -> VBoxManage:
    """With a machine that has a controller and a disk."""
    did(vbox("createvm", *MACHINE, "--basefolder", str(tmp_path), "--groups", "/bio"))
    did(vbox("storagectl", "ann", "--name", "SATA", "--add", "sata", "--controller", "IntelAhci", "--portcount", "2"))
    did(vbox("createmedium", "disk", "--filename", disk(tmp_path), "--size", "100", "--format", "VDI"))
    did(attach(vbox, disk(tmp_path)))
    return vbox


def disk(folder: Path) -> str:
    return str(folder / "bio" / "ann" / "ann.vdi")


def attach(vbox: VBoxManage, medium: str, port: str = "0", kind: str = "hdd", name: str = "ann") -> Answer:
    place = ("--storagectl", "SATA", "--port", port, "--device", "0")
    return vbox("storageattach", name, *place, "--type", kind, "--medium", medium)


def did(answer: Answer) -> str:
    assert answer.code == 0, answer.err
    return answer.out


def refused(answer: Answer, line: str, code: int = 1) -> None:
    assert answer.code == code
    assert f"VBoxManage: error: {line}" in answer.err
    assert not answer.out


def info(vbox: VBoxManage, name: str = "ann") -> dict[str, str]:
    lines = did(vbox("showvminfo", name, "--machinereadable")).splitlines()
    return {name.strip('"'): value.strip('"') for name, _, value in (line.partition("=") for line in lines)}


def disc(file: Path, size: int = 40960) -> str:
    file.write_bytes(bytes(size))
    return str(file)


def other_machine(vbox: VBoxManage, folder: Path, name: str = "bob") -> None:
    did(vbox("createvm", "--name", name, "--register", "--basefolder", str(folder)))
    did(vbox("storagectl", name, "--name", "SATA", "--add", "sata"))


def test_a_machine_is_made_in_its_groups_folder_and_listed(ann: VBoxManage, tmp_path: Path) -> None:
    known = info(ann)
    assert known["CfgFile"] == str(tmp_path / "bio" / "ann" / "ann.vbox")
    assert Path(known["CfgFile"]).is_file()
    assert (known["groups"], known["ostype"], known["VMState"]) == ("/bio", "Debian (64-bit)", "poweroff")
    assert did(ann("list", "vms")) == f'"ann" {{{known["UUID"]}}}\n'
    assert not did(ann("list", "runningvms"))
    assert info(ann, known["UUID"])["name"] == "ann"


def test_settings_are_shown_as_they_were_given(ann: VBoxManage, tmp_path: Path) -> None:
    console = str(tmp_path / "console")
    numbers = ("--cpus", "2", "--memory=2048", "--nic1", "nat", "--nictype1", "virtio", "--macaddress1", "080027aabbcc")
    network = ("--nic2", "intnet", "--intnet2", "bio", "--nat-pf1", "web,tcp,,8080,,80")
    port = ("--uart1", "0x3F8", "4", "--uartmode1", "file", console, "--description", 'a "course"')
    did(ann("modifyvm", "ann", *numbers, *network, *port, "--natpf1", "ssh,tcp,127.0.0.1,2222,,22"))
    known = info(ann)
    assert (known["cpus"], known["memory"], known["description"]) == ("2", "2048", 'a \\"course\\')
    assert (known["nic1"], known["nictype1"], known["macaddress1"]) == ("nat", "virtio", "080027AABBCC")
    assert (known["nic2"], known["intnet2"], known["nic3"]) == ("intnet", "bio", "none")
    assert known["Forwarding(0)"] == "ssh,tcp,127.0.0.1,2222,,22"
    assert known["Forwarding(1)"] == "web,tcp,,8080,,80"
    assert (known["uart1"], known["uartmode1"]) == ("0x03f8,4", f"file,{console}")
    assert (known["storagecontrollertype0"], known["SATA-0-0"]) == ("IntelAhci", disk(tmp_path))
    assert known["SATA-1-0"] == "none"


@pytest.mark.parametrize(
    ("bus", "asked", "kind"),
    [("virtio", "VirtIO", "VirtioSCSI"), ("virtio-scsi", "virtio-scsi", "VirtioSCSI"), ("pcie", "NVMe", "NVMe")],
)
def test_controllers_are_of_their_buses_kinds(ann: VBoxManage, bus: str, asked: str, kind: str) -> None:
    did(ann("storagectl", "ann", "--name", "Second", "--add", bus, "--controller", asked, "--bootable", "on"))
    assert info(ann)["storagecontrollertype1"] == kind


@pytest.mark.parametrize(
    ("arguments", "line", "code"),
    [
        ("nonsense", "Invalid command 'nonsense'", 2),
        ("list nonsense", "Unknown subcommand: nonsense", 2),
        ("createvm --ostype Debian_64", "Parameter --name is required", 2),
        ("createvm --name bob --ostype Plan9", "Unknown or invalid guest OS type given.", 1),
        ("createvm --name bob --uuid 1", "Invalid argument format: 1", 2),
        ("createvm --name bob --groups bio", "Invalid machine group 'bio'", 1),
        ("showvminfo bob --machinereadable", "Could not find a registered machine named 'bob'", 1),
        ("startvm ann --colour red", "unknown option: --colour", 2),
        ("startvm ann --type", "--type: RTGetOpt: Command line option needs argument.", 2),
        ("modifyvm ann", "Not enough parameters", 2),
        ("modifyvm ann --colour red", "Unknown option: --colour", 1),
        ("modifyvm ann --nic9 nat", "Unknown option: --nic9", 1),
        ("modifyvm ann --memory much", "Invalid argument format: much", 1),
        ("modifyvm ann --memory 1", "Invalid RAM size: 1 MB", 1),
        ("modifyvm ann --ioapic yes", "Invalid argument format: yes", 1),
        ("modifyvm ann --macaddress1 0100AABBCCDD", "Invalid MAC address format", 1),
        ("modifyvm ann --natpf1 ssh,tcp,2222", "Invalid argument format: ssh,tcp,2222", 1),
        ("modifyvm ann --natpf1 delete ssh", "Code NS_ERROR_INVALID_ARG (0x80070057)", 1),
        ("storagectl ann --name SATA --add sata", "Storage controller named 'SATA' already exists", 1),
        ("storagectl ann --name S2 --add sata --controller VirtIO", "Invalid controller type: VirtioSCSI", 1),
        ("storagectl ann --name S2 --add sata --portcount 31", "Invalid port count: 31", 1),
        ("storageattach ann --storagectl IDE --port 0 --medium none", "Could not find a controller named 'IDE'", 1),
        ("storageattach ann --storagectl SATA --medium none", "Port not specified", 2),
        ("createmedium disk --filename x.vdi", "Parameter --size is required", 2),
        ("createmedium disk --filename x.vdi --size 1 --format QED", "Invalid argument format: QED", 2),
        ("modifymedium disk /nowhere.vdi --resize 5", "Could not find file for the medium '/nowhere.vdi'", 1),
        ("convertfromraw /nowhere /x", 'Cannot open file "/nowhere": VERR_FILE_NOT_FOUND', 1),
        ("controlvm ann poweroff", "Machine 'ann' is not currently running.", 1),
        ("unregistervm bob --delete", "Could not find a registered machine named 'bob'", 1),
        ("setextradata ann", "Not enough parameters", 2),
    ],
)
def test_what_virtualbox_refuses_is_refused(ann: VBoxManage, arguments: str, line: str, code: int) -> None:
    before = ann.machines
    refused(ann(*arguments.split()), line, code)
    assert ann.machines == before


def test_a_refusal_has_details_and_a_wrong_command_line_has_the_usage(ann: VBoxManage) -> None:
    missing = ann("showvminfo", "bob", "--machinereadable").err.splitlines()
    assert missing[1].startswith(
        "VBoxManage: error: Details: code VBOX_E_OBJECT_NOT_FOUND (0x80bb0001), component VirtualBoxWrap,"
    )
    assert "Usage" in ann("startvm", "ann", "--colour").err


def test_names_uuids_and_settings_files_are_unique(ann: VBoxManage, tmp_path: Path) -> None:
    same = ("createvm", *MACHINE, "--groups", "/bio", "--basefolder")
    refused(
        ann(*same, str(tmp_path)), f"Machine settings file '{tmp_path / 'bio' / 'ann' / 'ann.vbox'}' already exists"
    )
    refused(ann(*same, str(tmp_path / "elsewhere")), f"Registered machine with UUID {{{info(ann)['UUID']}}}")


def test_forwardings_are_refused_by_name_and_by_port_and_all_of_a_command_is_undone(ann: VBoxManage) -> None:
    did(ann("modifyvm", "ann", "--nic1", "nat", "--natpf1", "ssh,tcp,127.0.0.1,2222,,22"))
    refused(
        ann("modifyvm", "ann", "--cpus", "4", "--natpf1", "ssh,tcp,,2223,,22"), "A NAT rule of this name already exists"
    )
    refused(ann("modifyvm", "ann", "--natpf1", "x,tcp,127.0.0.1,2222,,23"), "A NAT rule for this host port and this")
    assert info(ann)["cpus"] == "1"
    did(ann("modifyvm", "ann", "--nat-pf1", "delete", "ssh"))
    assert "Forwarding(0)" not in info(ann)


def test_a_machine_starts_once_and_is_locked_while_it_runs(ann: VBoxManage, tmp_path: Path) -> None:
    (tmp_path / "console").write_text("of the last time", encoding="utf-8")
    did(ann("modifyvm", "ann", "--uart1", "0x3F8", "4", "--uartmode1", "file", str(tmp_path / "console")))
    assert "successfully started" in did(ann("startvm", "ann", "--type", "headless"))
    assert not (tmp_path / "console").read_text(encoding="utf-8")
    assert info(ann)["VMState"] == "running"
    assert did(ann("list", "runningvms")).startswith('"ann"')
    refused(ann("startvm", "ann"), "The machine 'ann' is already locked by a session")
    refused(ann("modifyvm", "ann", "--cpus", "2"), "The machine 'ann' is already locked for a session")
    refused(ann("storagectl", "ann", "--name", "S2", "--add", "sata"), "The machine 'ann' is already locked")
    refused(ann("unregistervm", "ann", "--delete"), "Cannot unregister the machine 'ann' while it is locked")
    refused(attach(ann, "none"), "Controller 'SATA' does not support hot-plugging")
    did(ann("controlvm", "ann", "pause"))
    assert info(ann)["VMState"] == "paused"
    refused(ann("controlvm", "ann", "acpipowerbutton"), "Invalid machine state: Paused")
    did(ann("controlvm", "ann", "resume"))
    did(ann("controlvm", "ann", "natpf1", "ssh,tcp,,2222,,22"))
    did(ann("controlvm", "ann", "poweroff"))
    assert info(ann)["VMState"] == "poweroff"


def test_what_is_missing_at_a_start_is_reported(ann: VBoxManage, tmp_path: Path) -> None:
    did(ann("modifyvm", "ann", "--uart1", "0x3F8", "4", "--uartmode1", "file", str(tmp_path / "no" / "console")))
    refused(ann("startvm", "ann"), "RawFile#0 failed to create the raw output file")
    Path(disk(tmp_path)).unlink()
    refused(ann("startvm", "ann"), f"Could not open the medium '{disk(tmp_path)}'.")
    assert info(ann)["VMState"] == "poweroff"


def test_a_disk_of_two_machines_runs_with_one(ann: VBoxManage, tmp_path: Path) -> None:
    other_machine(ann, tmp_path)
    did(attach(ann, disk(tmp_path), name="bob"))
    refused(attach(ann, disk(tmp_path), port="1"), f"Medium '{disk(tmp_path)}' is already attached to this virtual")
    did(ann("startvm", "ann"))
    refused(ann("startvm", "bob"), "Locking of attached media failed.")
    refused(
        ann("closemedium", "disk", disk(tmp_path)),
        f"Medium '{disk(tmp_path)}' cannot be closed because it is still attached to 2 virtual machines",
    )


def test_disks_are_made_cloned_grown_and_listed(ann: VBoxManage, tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(b"QFI\xfb" + struct.pack(">IQIIQ", 3, 0, 0, 16, 3 * 2**30) + bytes(512))
    copy = tmp_path / "copy.vdi"
    did(ann("clonemedium", "disk", str(tmp_path / "image"), str(copy), "--format", "VDI"))
    assert copy.read_bytes().startswith(b"<<< Oracle VM VirtualBox")
    did(ann("modifymedium", "disk", str(copy), "--resize", "8192"))
    listed = did(ann("list", "hdds"))
    assert f"Location:       {copy}\n" in listed
    assert "Capacity:       8192 MBytes" in listed
    assert str(tmp_path / "image") not in listed
    refused(ann("modifymedium", "disk", str(copy), "--resize", "1"), "Failed to resize medium")
    refused(ann("clonemedium", "disk", disk(tmp_path), str(copy)), "Failed to clone medium")
    did(ann("closemedium", "disk", str(copy), "--delete"))
    assert not copy.exists()


def test_a_raw_image_is_converted_byte_by_byte_and_its_copy_has_the_same_uuid(ann: VBoxManage, tmp_path: Path) -> None:
    raw, converted, copy = (tmp_path / name for name in ("raw", "converted.vdi", "copy.vdi"))
    with raw.open("wb") as file:
        file.write(b"first")
        file.truncate(2**30)
        file.seek(2**29)
        file.write(b"last")
    did(ann("convertfromraw", str(raw), str(converted), "--format", "VDI"))
    with converted.open("rb") as file:
        header, start = file.read(512), file.read(5)
        assert start == b"first"
        file.seek(512 + 2**29)
        assert file.read(4) == b"last"
    assert str(converted) not in did(ann("list", "hdds"))
    copy.write_bytes(header)
    did(attach(ann, str(converted)))
    refused(attach(ann, str(copy), port="1"), f"Cannot register the hard disk '{copy}'")
    refused(ann("convertfromraw", str(raw), str(converted)), f'Cannot create the disk image "{converted}"')
    refused(attach(ann, str(raw), port="1"), f"Could not get the storage format of the medium '{raw}'")


@pytest.mark.parametrize(
    ("name", "size", "taken"),
    [("s.iso", 40960, True), ("s.iso", 40961, False), ("s.iso", 32768, False), ("s.img", 40960, False)],
)
def test_a_disc_has_whole_sectors_and_its_name(
    ann: VBoxManage, tmp_path: Path, name: str, size: int, taken: bool
) -> None:
    answer = attach(ann, disc(tmp_path / name, size), port="1", kind="dvddrive")
    assert (answer.code == 0) == taken
    if taken:
        assert info(ann)["SATA-1-0"] == str(tmp_path / name)
        did(attach(ann, "emptydrive", port="1", kind="dvddrive"))
        assert info(ann)["SATA-1-0"] == "emptydrive"
    else:
        assert f'Invalid UUID or filename "{tmp_path / name}"' in answer.err


@pytest.mark.parametrize("option", ["--delete", "--delete-all", ""])
def test_what_goes_with_a_machine(ann: VBoxManage, tmp_path: Path, option: str) -> None:
    folder, outside = tmp_path / "bio" / "ann", Path(disc(tmp_path / "outside.iso"))
    did(attach(ann, disc(folder / "seed.iso"), port="1", kind="dvddrive"))
    did(attach(ann, str(outside), port="2", kind="dvddrive"))
    did(ann("startvm", "ann"))
    did(ann("controlvm", "ann", "poweroff"))
    did(ann("unregistervm", "ann", *option.split()))
    left = {file.name for file in folder.iterdir()} if folder.exists() else None
    assert left == {"--delete": {"seed.iso"}, "--delete-all": None}.get(
        option, {"ann.vbox", "ann.vdi", "seed.iso", "Logs"}
    )
    assert outside.exists()
    assert not did(ann("list", "vms"))
    assert not did(ann("list", "hdds"))


def test_another_machines_disk_and_a_foreign_file_stay(ann: VBoxManage, tmp_path: Path) -> None:
    other_machine(ann, tmp_path)
    did(attach(ann, disk(tmp_path), name="bob"))
    did(ann("unregistervm", "ann", "--delete"))
    assert Path(disk(tmp_path)).exists()
    assert info(ann, "bob")["SATA-0-0"] == disk(tmp_path)


def test_version_7_0_lacks_what_came_after_it(tmp_path: Path) -> None:
    old = VBoxManage(tmp_path / "vbox", version="7.0.26r168464")
    refused(old("createvm", *MACHINE, "--platform-architecture", "x86"), "Unknown option: --platform-architecture", 2)
    did(old("createvm", *MACHINE))
    refused(old("modifyvm", "ann", "--x86-pae=on"), "Unknown option: --x86-pae")
    did(old("modifyvm", "ann", "--pae", "on"))
    assert "platformArchitecture" not in info(old)


def test_extra_data_is_kept_and_taken_away(ann: VBoxManage) -> None:
    did(ann("setextradata", "ann", "cloudscale/course", "bio"))
    assert did(ann("getextradata", "ann", "cloudscale/course")) == "Value: bio\n"
    assert did(ann("getextradata", "ann", "enumerate")) == "Key: cloudscale/course, Value: bio\n"
    did(ann("setextradata", "ann", "cloudscale/course"))
    assert did(ann("getextradata", "ann", "cloudscale/course")) == "No value set!\n"


def test_machines_stop_late_never_or_without_being_asked(ann: VBoxManage) -> None:
    ann.behave(looks_to_stop=2)
    did(ann("startvm", "ann"))
    did(ann("controlvm", "ann", "acpipowerbutton"))
    assert [info(ann)["VMState"] for _ in range(3)] == ["running", "poweroff", "poweroff"]
    ann.behave("ann", looks_to_stop=-1, tries_to_unlock=1)
    did(ann("startvm", "ann"))
    did(ann("controlvm", "ann", "acpipowerbutton"))
    assert [info(ann)["VMState"] for _ in range(5)] == ["running"] * 5
    did(ann("controlvm", "ann", "poweroff"))
    refused(ann("unregistervm", "ann", "--delete"), "Cannot unregister the machine 'ann' while it is locked")
    ann.behave("ann", aborts_after=1)
    did(ann("startvm", "ann"))
    assert [info(ann)["VMState"] for _ in range(2)] == ["running", "aborted"]


def test_faults_are_about_the_commands_that_they_name(ann: VBoxManage) -> None:
    ann.fault("^startvm", "The VM session was closed before any attempt to power it on", after=1, times=1)
    did(ann("startvm", "ann"))
    did(ann("controlvm", "ann", "poweroff"))
    refused(ann("startvm", "ann"), "The VM session was closed before any attempt to power it on")
    did(ann("startvm", "ann"))
    assert ann.calls[-1] == ["startvm", "ann"]


def test_a_test_hears_of_changes_once_they_are_made(tmp_path: Path) -> None:
    on_output: list[tuple[str, str, object, object]] = []

    def hear(change: Change) -> None:
        on_output.append((change.event, info(box)["VMState"], change.console, change.forwarded))

    with VBoxManage(tmp_path / "vbox", on_change=hear) as box:
        did(box("createvm", *MACHINE))
        did(box("modifyvm", "ann", "--uart1", "0x3F8", "4", "--uartmode1", "file", str(tmp_path / "log")))
        did(box("modifyvm", "ann", "--nic1", "nat", "--natpf1", "ssh,tcp,127.0.0.1,2222,,22"))
        did(box("startvm", "ann"))
        box.crash("ann")
    ports = {"ssh": ("127.0.0.1", 2222)}
    assert on_output == [("start", "running", tmp_path / "log", ports), ("stop", "aborted", tmp_path / "log", ports)]


@pytest.mark.usefixtures("processes")
def test_the_command_is_a_program_that_several_may_call_at_once(tmp_path: Path) -> None:
    on_output: list[str] = []
    with VBoxManage(tmp_path / "vbox", on_change=lambda change: on_output.append(change.name)) as vbox:
        names = [f"seat-{number}" for number in range(4)]
        for verb in (("createvm", "--register", "--name"), ("startvm",)):
            started = [
                subprocess.Popen([vbox.command, *verb, name], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                for name in names
            ]
            assert [process.wait() for process in started] == [0] * len(names)
        assert sorted(on_output) == names == sorted(vbox.machines)
        assert sorted(vbox.calls)[-1] == ["startvm", "seat-3"]


@pytest.mark.usefixtures("processes")
def test_the_command_fails_as_the_real_one_does_and_hangs_on_demand(vbox: VBoxManage) -> None:
    done = subprocess.run([vbox.command, "showvminfo", "bob"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("VBoxManage: error: Could not find a registered machine named 'bob'\n")
    vbox.fault("list vms", seconds=60)
    start = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run([vbox.command, "list", "vms"], timeout=1, check=False)
    assert time.monotonic() - start < 30
    assert subprocess.run([vbox.command, "--version"], capture_output=True, check=False).stdout == b"7.1.4r165100\n"
