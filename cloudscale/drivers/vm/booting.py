"""Starting a VM, and watching it while it boots: a VM that can't come up any more is not waited for."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from cloudscale.drivers.vm import console
from cloudscale.drivers.vm.hypervisor import Hypervisor, Vm
from cloudscale.errors import MachineError
from cloudscale.hosts.first_login import Booting
from cloudscale.model import Say
from cloudscale.waiting import Clock

CRASHES = 2  # after which a kernel gets another try
LOOKING = 1.0  # seconds between two looks at a console


def start(hypervisor: Hypervisor, vm: Vm) -> None:
    """Starts a VM that is off. Raises PortTaken, MachineError."""
    try:
        console.note_start(vm)
    except OSError as error:
        raise MachineError(
            f"{vm.name}: could not write to {vm.console} ({error.strerror}).", "Fix the cause, then run again."
        ) from None
    hypervisor.start(vm)


class Boot:
    """A boot of a VM that was just started."""

    def __init__(self, hypervisor: Hypervisor, vm: Vm, clock: Clock, say: Say) -> None:
        self._hypervisor = hypervisor
        self._vm = vm
        self._clock = clock
        self._say = say
        self._started = clock.now()
        self._crashes = 0

    def check(self) -> None:
        """Starts the VM again if it is stuck or its kernel has crashed. Raises MachineError if that is pointless."""
        vm = self._vm
        if crash := console.crash(vm):
            self._restart(crash)
        elif done := self._hypervisor.restart_if_stuck(vm, self._clock.now() - self._started):
            self._say(f"{vm.name}: {done}")
        elif (state := self._hypervisor.state(vm)) != "running":
            end = Booting(lambda: console.read(vm), self._clock).console_end()
            raise MachineError(f"{vm.name}: the VM should boot, but it is {state}.\n{end}", "Run again.")

    def _restart(self, crash: str) -> None:
        vm = self._vm
        self._crashes += 1
        if self._crashes > CRASHES:
            raise MachineError(
                f"{vm.name}: its kernel crashed in each of {self._crashes} starts ({crash}).",
                f"Read its console output: {vm.console}. Try more memory (--memory), or another image (--base-image).",
            )
        self._hypervisor.stop(vm)
        start(self._hypervisor, vm)
        self._started = self._clock.now()
        self._say(f"{vm.name}: its kernel crashed ({crash}), so it is started again")


@contextlib.contextmanager
def watched(hypervisor: Hypervisor, vm: Vm, say: Say) -> Iterator[None]:
    """Switches the VM off if its kernel crashes meanwhile: that ends its connections, and what waits for them.

    A login works before the boot has ended, and a VM whose kernel has crashed goes on running, and silent.
    """
    over = threading.Event()

    def watch() -> None:
        while not over.wait(LOOKING):
            if crash := console.crash(vm):
                say(f"{vm.name}: its kernel crashed ({crash}), so it is switched off")
                with contextlib.suppress(MachineError):  # it is waited for as long as for a silent one then
                    hypervisor.stop(vm)
                return

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    try:
        yield
    finally:
        over.set()
        watching.join()
