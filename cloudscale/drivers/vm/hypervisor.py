"""What a VM is, and what the driver asks of a hypervisor."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path

from cloudscale.engines.setup import TLS_PORT
from cloudscale.errors import MachineError

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Vm:
    """A virtual machine of a course. Sizes are bytes; `folder` contains all of its files.

    `number` determines its address in the network of the course's VMs. These ports of this computer are forwarded to
    it: `ssh_port` and `engine_port` on loopback, `seat_ports` on `address`. `fingerprint`: of the SSH key that it was
    made with; `has_answered`: it has been up, and may hold students' work.
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
    def macs(self) -> tuple[str, str]:
        """The MAC addresses of its two NICs, unique for each VM (locally administered)."""
        tail = self.id.replace("-", "")[:8]
        pairs = ":".join(tail[at : at + 2] for at in range(0, 8, 2))
        return f"52:54:{pairs}", f"56:54:{pairs}"

    @property
    def forwards(self) -> dict[str, tuple[str, int, int]]:
        """The forwarded ports, by name: the address and port on this computer, and the port of the VM."""
        return {
            "ssh": (LOOPBACK, self.ssh_port, 22),
            "engine": (LOOPBACK, self.engine_port, TLS_PORT),
            **{f"seat-{port}": (self.address, port, port) for port in self.seat_ports},
        }


@dataclass(frozen=True)
class BaseImage:
    """A disk image that VMs are made from. `size` in bytes; `kernel` and `ramdisk` if it has no boot loader."""

    path: Path
    format: str
    size: int
    kernel: Path | None = None
    ramdisk: Path | None = None


class PortTaken(MachineError):
    """Another program on this computer uses a port that should be forwarded to a VM."""

    def __init__(self, vm: Vm, port: str) -> None:
        super().__init__(
            f"{vm.name}: a port of this computer that should be forwarded to it is in use ({port}).",
            "End the program that uses it, or choose other ports with --start.",
        )


class Hypervisor(ABC):
    """`image`: the address of the image that VMs are made from, unless the user names another one.

    Safe to use from several threads, for several VMs at once.
    """

    name: str
    image: str

    @abstractmethod
    def check(self) -> None:
        """Raises RequestError if it is not installed; the remedy says how to install it."""

    def check_can_run(self) -> None:
        """Raises RequestError if it is installed, but can't run VMs; the remedy says what to do."""
        return

    def drawback(self) -> str:
        """What the user should know before VMs are made; "" for nothing."""
        return ""

    @abstractmethod
    def state(self, vm: Vm) -> str:
        """`running`, `off`, or another state in the hypervisor's own words."""

    @abstractmethod
    def is_made(self, vm: Vm) -> bool: ...

    @abstractmethod
    def make(self, vm: Vm, base: BaseImage) -> None:
        """Makes the VM from an image and its seed, but does not start it. Raises MachineError."""

    @abstractmethod
    def start(self, vm: Vm) -> None:
        """Starts a VM that is off. Raises PortTaken, MachineError."""

    @abstractmethod
    def stop(self, vm: Vm) -> None:
        """Switches a VM off at once, as a power cut does. Raises MachineError."""

    def restart_if_stuck(self, vm: Vm, seconds: float) -> str:
        """Restarts a VM in another way if it does not boot, `seconds` after it was started.

        Describes what was done; "" if the VM seems well, or if there is no other way. Raises MachineError.
        """
        return ""

    @abstractmethod
    def forward(self, vm: Vm, changed: Vm) -> None:
        """Changes the forwarded ports of a running VM to those of `changed`. Raises PortTaken, MachineError."""

    @abstractmethod
    def delete(self, vm: Vm) -> None:
        """Ends the VM, and deletes what the hypervisor stores of it. Raises MachineError."""
