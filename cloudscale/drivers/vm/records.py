"""What is known of each VM: one folder a VM, with a record that is written before anything else is made."""

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

RECORD = "vm.json"


class Records:
    """The VMs of one course and hypervisor."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self) -> dict[str, Vm]:
        """All of them by name. Raises MachineError where one can't be read."""
        found = {}
        for path in sorted(self._folder.glob(f"*/{RECORD}")):
            try:
                values = json.loads(path.read_text())
                vm = Vm(folder=path.parent, **{**values, "seat_ports": tuple(values["seat_ports"])})
            except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
                raise MachineError(
                    f"{path.parent.name}: its record {path} can't be read ({error}).",
                    f"Remove it by hand: end its process, then remove the folder {path.parent}.",
                ) from None
            found[vm.name] = vm
        return found

    def folder(self, name: str) -> Path:
        return self._folder / name

    def write(self, vm: Vm) -> None:
        """Raises OSError."""
        values = {key: value for key, value in dataclasses.asdict(vm).items() if key != "folder"}
        vm.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(vm.folder / RECORD, (json.dumps(values, indent=2) + "\n").encode())

    def remove(self, name: str) -> None:
        """The VM's folder with all that is in it; the record goes last, so that a cut-off removal can go on."""
        folder = self.folder(name)
        for path in folder.iterdir() if folder.exists() else ():
            if path.name != RECORD:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # rmdir removes empty folders only, and another may have done it
            self._folder.rmdir()


def free_ports(count: int, taken: Collection[int]) -> list[int]:
    """Ports of loopback that nothing listens on."""
    found: list[int] = []
    sockets = []
    while len(found) < count:
        probe = socket.socket()
        sockets.append(probe)  # kept open, so that the next one gets another
        probe.bind((LOOPBACK, 0))
        port = probe.getsockname()[1]
        if port not in taken:
            found.append(port)
    for probe in sockets:
        probe.close()
    return found
