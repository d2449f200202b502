"""What is stored about each VM: a folder with a record, which is written before anything else is made."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import socket
from collections.abc import Collection
from pathlib import Path

from cloudscale.drivers.vm.hypervisor import LOOPBACK, Vm
from cloudscale.errors import MachineError
from cloudscale.files import replace_file
from cloudscale.outside import UNEXPECTED, OtherForm, parse_json, typed

RECORD = "vm.json"


class Records:
    """The VMs of one course and hypervisor."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self) -> dict[str, Vm]:
        """All of them, by name. Raises MachineError if one can't be read."""
        vms = {}
        for path in sorted(self._folder.glob(f"*/{RECORD}")):
            try:
                values = parse_json(path.read_text())
                vm = typed(Vm(folder=path.parent, **{**values, "seat_ports": tuple(values["seat_ports"])}))
            except (OSError, OtherForm, *UNEXPECTED) as error:
                raise MachineError(
                    f"{path.parent.name}: could not read its record {path} ({error}).",
                    f"Remove this VM by hand: end its process, then delete the folder {path.parent}.",
                ) from None
            vms[vm.name] = vm
        return vms

    def folder(self, name: str) -> Path:
        return self._folder / name

    def write(self, vm: Vm) -> None:
        """Raises OSError."""
        values = {key: value for key, value in dataclasses.asdict(vm).items() if key != "folder"}
        vm.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(vm.folder / RECORD, (json.dumps(values, indent=2) + "\n").encode())

    def remove(self, name: str) -> None:
        """Deletes the folder of a VM. The record is deleted last, so that an interrupted deletion can continue."""
        folder = self.folder(name)
        for path in folder.iterdir() if folder.exists() else ():
            if path.name != RECORD:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # not empty, or another thread has removed it
            self._folder.rmdir()


def free_ports(count: int, taken: Collection[int]) -> list[int]:
    """Ports of loopback that no program uses."""
    ports: list[int] = []
    with contextlib.ExitStack() as probes:
        while len(ports) < count:
            probe = probes.enter_context(socket.socket())  # stays open, so that the next one gets another port
            probe.bind((LOOPBACK, 0))
            port = probe.getsockname()[1]
            if port not in taken:
                ports.append(port)
    return ports
