"""What the driver asks of a hypervisor, and what a VM is."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from cloudscale.errors import MachineError

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Vm:
    """A virtual machine of a course. Sizes are bytes; `folder` has all that is of it.

    `number` tells its address in the network of the course's VMs; `ssh_port` and `engine_port` of this computer's
    loopback lead to it, `seat_ports` of `address` too. `fingerprint`: of the SSH key that it lets in;
    `has_answered`: it has been up, and may hold work.
    """

    id: str
    name: str
    folder: Path = field(compare=False)
    number: int
    cpus: int
    memory: int
    disk: int
    ssh_port: int
    engine_port: int
    fingerprint: str
    address: str = LOOPBACK
    seat_ports: tuple[int, ...] = ()
    has_answered: bool = False

    @property
    def console(self) -> Path:
        return self.folder / "console.log"

    @property
    def seed(self) -> Path:
        return self.folder / "seed.iso"

    @property
    def cards(self) -> tuple[str, str]:
        """The hardware addresses of its two network cards, its own in any network (locally administered)."""
        tail = self.id.replace("-", "")[:8]
        pairs = ":".join(tail[at : at + 2] for at in range(0, 8, 2))
        return f"52:54:{pairs}", f"56:54:{pairs}"

    @property
    def forwards(self) -> dict[str, tuple[str, int, int]]:
        """What leads into it: by name, the address and port of this computer and the port of the VM."""
        return {
            "ssh": (LOOPBACK, self.ssh_port, 22),
            "engine": (LOOPBACK, self.engine_port, 2376),
            **{f"seat-{port}": (self.address, port, port) for port in self.seat_ports},
        }


@dataclass(frozen=True)
class BaseImage:
    """A disk image that VMs are made from. `size` in bytes; `kernel` and `ramdisk` where it has no boot loader."""

    path: Path
    format: str
    size: int
    kernel: Path | None = None
    ramdisk: Path | None = None


class PortTaken(MachineError):
    """Something else on this computer listens on a port that was to lead into a VM."""

    def __init__(self, vm: Vm, said: str) -> None:
        super().__init__(
            f"{vm.name}: a port of this computer that should lead to it is taken ({said}).",
            "End the program that has it, or choose other ports with --start.",
        )


class Hypervisor(Protocol):
    """Safe to use from several threads, for several VMs at once."""

    name: str

    def check(self) -> None:
        """Raises RequestError where it is not installed, with how to install it."""

    def drawback(self) -> str:
        """What the user should know before VMs are made, in words; "" for nothing."""

    def default_image(self) -> str:
        """Where the image comes from that VMs are made from, unless the user names another."""

    def state(self, vm: Vm) -> str:
        """`running`, `off`, or the hypervisor's own word for what else it is."""

    def is_made(self, vm: Vm) -> bool: ...

    def make(self, vm: Vm, base: BaseImage) -> None:
        """Makes the VM of an image and its seed, but does not start it. Raises MachineError."""

    def start(self, vm: Vm) -> None:
        """Starts one that is off. Raises PortTaken, MachineError."""

    def mend(self, vm: Vm, seconds: float) -> str:
        """Starts a VM another way that does not boot, `seconds` after it was started.

        Returns what was done, in words; "" where it seems well, or there is no other way. Raises MachineError.
        """

    def forward(self, vm: Vm, wanted: Vm) -> None:
        """Has the ports of `wanted` lead into the running VM in place of its own. Raises PortTaken, MachineError."""

    def delete(self, vm: Vm) -> None:
        """Ends it, and removes what the hypervisor has of it. Raises MachineError."""
