"""The disk that the cloud-init of a VM reads."""

from __future__ import annotations

import io
import json
from email import message_from_string
from pathlib import Path

import pycdlib
import pytest

from cloudscale.drivers.vm.hypervisor import Vm
from cloudscale.drivers.vm.seed import MAX_VMS, own_address, write_seed
from cloudscale.hosts.first_boot import user_data
from cloudscale.hosts.login_key import SshKey, ssh_key
from tests.unit.drivers.vm.fake_hypervisor import one_vm

NAMES = {"meta-data", "network-config", "user-data"}


@pytest.fixture(name="key")
def key_fixture(tmp_path: Path) -> SshKey:
    key = ssh_key(tmp_path, create=True)
    assert key
    return key


@pytest.fixture
def vm(tmp_path: Path, key: SshKey) -> Vm:
    vm = one_vm(tmp_path, number=7)
    vm.folder.mkdir()
    write_seed(vm, key.public, vm.seed)
    return vm


def files(vm: Vm, kind: str = "joliet") -> dict[str, str]:
    iso = pycdlib.PyCdlib()
    iso.open(str(vm.seed))
    try:
        root = iso.list_children(**{f"{kind}_path": "/"})
        texts = {}
        for child in root:
            if child.is_dir():
                continue
            name = child.rock_ridge.name().decode() if kind == "rr" else child.file_identifier().decode("utf-16-be")
            text = io.BytesIO()
            iso.get_file_from_iso_fp(text, **{f"{kind}_path": f"/{name}"})
            texts[name] = text.getvalue().decode()
        return texts
    finally:
        iso.close()


def test_it_is_a_disc_that_is_called_cidata(vm: Vm) -> None:
    iso = pycdlib.PyCdlib()
    iso.open(str(vm.seed))
    assert iso.pvd.volume_identifier.decode().strip() == "cidata"
    iso.close()


@pytest.mark.parametrize("kind", ["joliet", "rr"])
def test_its_files_have_their_names_in_both_extensions(vm: Vm, kind: str) -> None:
    assert files(vm, kind).keys() == NAMES
    assert files(vm, kind) == files(vm)


def test_it_has_whole_sectors_and_more_than_a_discs_head(vm: Vm) -> None:
    size = vm.seed.stat().st_size
    assert size % 2048 == 0
    assert size > 32768


def test_it_tells_the_vm_who_it_is(vm: Vm) -> None:
    assert json.loads(files(vm)["meta-data"]) == {"instance-id": vm.id, "local-hostname": "bio-1"}


def test_the_cards_are_known_by_their_addresses_and_one_leads_to_the_courses_vms(vm: Vm) -> None:
    network = json.loads(files(vm)["network-config"])
    assert network["version"] == 2
    out, course = network["ethernets"].values()
    assert (out["match"]["macaddress"], course["match"]["macaddress"]) == vm.macs
    assert (out["dhcp4"], "addresses" in out) == (True, False)
    assert ("dhcp4" in course, course["addresses"]) == (False, ["198.18.77.17/24"])
    assert own_address(vm) == "198.18.77.17"


def test_each_vm_has_an_address_of_its_own_in_the_network(tmp_path: Path) -> None:
    addresses = [own_address(one_vm(tmp_path, number=number)) for number in range(1, MAX_VMS + 1)]
    assert len({*addresses}) == MAX_VMS
    assert all(0 < int(address.rpartition(".")[2]) < 255 for address in addresses)


def test_the_seed_has_the_courses_public_key_and_no_secret(vm: Vm, key: SshKey) -> None:
    text = files(vm)["user-data"]
    assert text == user_data(key.public)
    configuration = message_from_string(text).get_payload(0)
    assert key.public in configuration.get_payload(decode=True).decode()  # type: ignore[union-attr]
    private = [line for line in key.file.read_text().splitlines() if "-----" not in line]
    assert private
    whole = vm.seed.read_bytes()
    assert b"PRIVATE KEY" not in whole
    assert not any(line.encode() in whole for line in private)


def test_a_seed_is_written_over(vm: Vm, key: SshKey) -> None:
    write_seed(one_vm(vm.folder.parent, "bio-1", number=8), key.public, vm.seed)
    assert "198.18.77.18/24" in files(vm)["network-config"]
