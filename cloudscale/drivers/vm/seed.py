"""The disk that cloud-init reads at the first boot of a VM, in the format NoCloud (docs.cloud-init.io)."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pycdlib

from cloudscale.drivers.vm.hypervisor import Vm
from cloudscale.hosts.first_boot import user_data

# From the range for benchmarks (RFC 2544), which is hardly ever used elsewhere. Courses have separate networks.
NETWORK = "198.18.77"
PREFIX = 24
MAX_VMS = 240


def own_address(vm: Vm) -> str:
    """The address at which the other VMs of the course reach it."""
    return f"{NETWORK}.{vm.number + 10}"


def write_seed(vm: Vm, public_key: str, path: Path) -> None:
    """Writes the disk. The first NIC is for the internet, through this computer; the second for the course's VMs."""
    out, course = vm.macs
    nics = {
        "eth0": {"match": {"macaddress": out}, "set-name": "eth0", "dhcp4": True},
        "eth1": {"match": {"macaddress": course}, "set-name": "eth1", "addresses": [f"{own_address(vm)}/{PREFIX}"]},
    }
    _write_iso(
        path,
        {
            "meta-data": json.dumps({"instance-id": vm.id, "local-hostname": vm.name}),
            "network-config": json.dumps({"version": 2, "ethernets": nics}),
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
