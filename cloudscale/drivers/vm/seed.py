"""What a VM's cloud-init reads at its first boot: a disk of the form NoCloud (cloudinit.readthedocs.io)."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pycdlib

from cloudscale.drivers.vm.hypervisor import Vm
from cloudscale.hosts.first_boot import user_data

# Of the range for measuring networks (RFC 2544), which no computer's own network has. Each course has it for itself.
NETWORK = "198.18.77"
PREFIX = 24
MOST = 240  # VMs


def own_address(vm: Vm) -> str:
    """What the course's VMs reach it by."""
    return f"{NETWORK}.{vm.number + 10}"


def write_seed(vm: Vm, public_key: str, path: Path) -> None:
    """The first card leads to the outside, through this computer; the second to the course's other VMs."""
    out, course = vm.cards
    cards = {
        "eth0": {"match": {"macaddress": out}, "set-name": "eth0", "dhcp4": True},
        "eth1": {"match": {"macaddress": course}, "set-name": "eth1", "addresses": [f"{own_address(vm)}/{PREFIX}"]},
    }
    _write_iso(
        path,
        {
            "meta-data": json.dumps({"instance-id": vm.id, "local-hostname": vm.name}),
            "network-config": json.dumps({"version": 2, "ethernets": cards}),
            "user-data": user_data(public_key),
        },
    )


def _write_iso(path: Path, files: dict[str, str]) -> None:
    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident="cidata")
    for number, (name, text) in enumerate(files.items()):
        data = text.encode()
        iso.add_fp(io.BytesIO(data), len(data), f"/FILE{number}.;1", rr_name=name, joliet_path=f"/{name}")
    iso.write(str(path))
    iso.close()
