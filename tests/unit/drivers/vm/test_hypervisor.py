"""What a VM is."""

from __future__ import annotations

import re
import uuid
from pathlib import Path

from cloudscale.drivers.vm.hypervisor import PortTaken, Vm
from cloudscale.errors import MachineError
from tests.unit.drivers.vm.fake_hypervisor import one_vm


def test_its_cards_are_its_own_and_locally_administered(tmp_path: Path) -> None:
    vms = [one_vm(tmp_path, id=str(uuid.uuid4())) for _ in range(50)]
    cards = [card for vm in vms for card in vm.macs]
    assert len({*cards}) == 100
    for card in cards:
        assert re.fullmatch("[0-9a-f]{2}(:[0-9a-f]{2}){5}", card)
        assert int(card[:2], 16) & 0b11 == 0b10  # locally administered, and unicast
    assert vms[0].macs == one_vm(tmp_path, id=vms[0].id, number=9).macs


def test_login_and_engine_are_on_loopback_and_the_seats_where_the_user_wants_them(tmp_path: Path) -> None:
    vm = one_vm(tmp_path, address="192.0.2.9", seat_ports=(4321, 4322))
    assert vm.forwards == {
        "ssh": ("127.0.0.1", 40022, 22),
        "engine": ("127.0.0.1", 42376, 2376),
        "seat-4321": ("192.0.2.9", 4321, 4321),
        "seat-4322": ("192.0.2.9", 4322, 4322),
    }
    assert one_vm(tmp_path).forwards.keys() == {"ssh", "engine"}


def test_all_that_is_of_it_lies_in_its_folder(tmp_path: Path) -> None:
    vm = one_vm(tmp_path)
    assert vm.console.parent == vm.seed.parent == vm.folder
    elsewhere: Vm = one_vm(tmp_path / "moved")
    assert elsewhere == vm  # wherever its folder is


def test_a_port_that_is_taken_is_a_machines_error_with_a_remedy(tmp_path: Path) -> None:
    error = PortTaken(one_vm(tmp_path), "tcp:127.0.0.1:4321")
    assert isinstance(error, MachineError)
    assert error.message.startswith(
        "bio-1: a port of this computer that should be forwarded to it is in use (tcp:127.0.0.1:4321"
    )
    assert "--start" in error.remedy
