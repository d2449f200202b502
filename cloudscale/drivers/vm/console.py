"""The console of a VM: a file that its kernel and its services write to, over all of its starts."""

from __future__ import annotations

import os
import re

from cloudscale.drivers.vm.hypervisor import Vm
from cloudscale.hosts.first_login import plain

PAGE = "\f"  # begins with each start
END = 65536  # bytes
# kernel/panic.c: its messages are the last ones, unless the kernel was built or asked to restart the machine
PANIC = re.compile(r"^\[[^\n]*\] (Kernel panic - not syncing: [^\n]*)\n(?:\[[^\n]*\n)*\Z", re.MULTILINE)
RESTARTS = "Rebooting in "


def read(vm: Vm) -> str:
    try:
        return vm.console.read_text(errors="replace")
    except OSError:
        return ""


def note_start(vm: Vm) -> None:
    """Begins a new page: what the VM wrote on earlier ones is not about this start. Raises OSError."""
    with vm.console.open("a") as file:
        file.write(f"\n{PAGE}")


def crash(vm: Vm) -> str:
    """The message with which the VM's kernel has ended; "" if it has not. Such a VM goes on running, but idle."""
    try:
        with vm.console.open("rb") as file:
            file.seek(-min(END, file.seek(0, os.SEEK_END)), os.SEEK_END)
            text = file.read().decode(errors="replace").rpartition(PAGE)[2]
    except OSError:
        return ""
    found = PANIC.search("".join(f"{line}\n" for line in plain(text)))
    return found[1] if found and RESTARTS not in found[0] else ""
