"""What is stored about each VM, in its folder."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import socket
from pathlib import Path

import pytest

from cloudscale.drivers.vm.records import Records, free_ports
from cloudscale.errors import MachineError
from tests.unit.drivers.vm.fake_hypervisor import one_vm


@pytest.fixture
def records(tmp_path: Path) -> Records:
    return Records(tmp_path / "vms")


def test_a_vm_is_read_back_as_it_was_written(records: Records, tmp_path: Path) -> None:
    vm = one_vm(tmp_path / "vms", seat_ports=(4321, 4322), has_answered=True, address="192.0.2.9")
    records.write(vm)
    (read,) = Records(tmp_path / "vms").read().values()
    assert dataclasses.asdict(read) == dataclasses.asdict(vm)
    assert records.folder("bio-1") == vm.folder
    assert vm.folder.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in vm.folder.iterdir()] == ["vm.json"]  # no partly written file beside it


def test_vms_are_read_by_their_names_and_written_over(records: Records, tmp_path: Path) -> None:
    assert records.read() == {}
    first, second = (one_vm(tmp_path / "vms", f"bio-{number}", number=number) for number in (1, 2))
    for vm in (second, first, dataclasses.replace(second, ssh_port=7)):
        records.write(vm)
    assert {name: (vm.number, vm.ssh_port) for name, vm in records.read().items()} == {
        "bio-1": (1, 40022),
        "bio-2": (2, 7),
    }


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"seat_ports": 5}', '{"seat_ports": [], "colour": 1}'])
def test_a_malformed_record_is_reported_with_its_path(records: Records, tmp_path: Path, text: str) -> None:
    records.write(one_vm(tmp_path / "vms"))
    path = tmp_path / "vms" / "bio-1" / "vm.json"
    path.write_text(text)
    with pytest.raises(MachineError) as raised:
        records.read()
    assert raised.value.message.startswith(f"bio-1: could not read its record {path} (")
    assert str(path.parent) in raised.value.remedy


def test_a_record_in_another_encoding_is_reported_too(records: Records, tmp_path: Path) -> None:
    records.write(one_vm(tmp_path / "vms"))
    (tmp_path / "vms" / "bio-1" / "vm.json").write_bytes(b"\xff\xfe{")
    with pytest.raises(MachineError, match="could not read"):
        records.read()


def test_a_vm_goes_with_all_that_is_in_its_folder(records: Records, tmp_path: Path) -> None:
    vms, outside = tmp_path / "vms", tmp_path / "outside"
    first, second = one_vm(vms), one_vm(vms, "bio-2")
    for vm in (first, second):
        records.write(vm)
        (vm.folder / "disk").write_text("data")
        (vm.folder / "inner" / "more").mkdir(parents=True)
        (vm.folder / "vm.json.0a1b2c3d").write_text("of a write that was cut off")
    outside.mkdir()
    (first.folder / "link").symlink_to(outside)
    records.remove("bio-1")
    assert not first.folder.exists()
    assert outside.exists()
    assert list(records.read()) == ["bio-2"]
    records.remove("bio-2")
    assert not vms.exists()
    records.remove("bio-2")


def test_a_removal_that_was_cut_off_goes_on(records: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vm = one_vm(tmp_path / "vms")
    records.write(vm)
    for name in ("disk", "seed"):
        (vm.folder / name).write_text("data")
    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", lambda self, missing_ok=False: pytest.fail("the power is cut"))
        with pytest.raises(pytest.fail.Exception):
            records.remove("bio-1")
    assert list(records.read()) == ["bio-1"]
    (vm.folder / "disk").unlink()
    (vm.folder / "seed").unlink()
    records.remove("bio-1")
    assert not (tmp_path / "vms").exists()


def test_the_folder_of_all_may_go_with_another_that_is_removed_at_the_same_time(
    records: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records.write(one_vm(tmp_path / "vms"))

    def too_late(self: Path) -> None:
        os.rmdir(self)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self))

    monkeypatch.setattr(Path, "rmdir", too_late)
    records.remove("bio-1")
    assert not (tmp_path / "vms").exists()


def test_a_folder_without_a_record_is_no_vm_and_can_be_removed(records: Records, tmp_path: Path) -> None:
    (tmp_path / "vms" / "bio-1").mkdir(parents=True)
    (tmp_path / "vms" / "bio-1" / "disk").write_text("data")
    assert records.read() == {}
    records.remove("bio-1")
    assert not (tmp_path / "vms").exists()


def test_a_record_is_readable_by_people(records: Records, tmp_path: Path) -> None:
    records.write(one_vm(tmp_path / "vms"))
    text = (tmp_path / "vms" / "bio-1" / "vm.json").read_text()
    values = json.loads(text)
    assert text.endswith("}\n")
    assert "\n  " in text
    assert "folder" not in values  # the folder may be moved


def test_free_ports_are_distinct_free_and_not_those_that_are_spoken_for(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = {free_ports(1, ())[0] for _ in range(5)}
    ports = free_ports(40, taken)
    assert len({*ports} - taken) == 40
    for port in ports:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
