"""The drivers for VMs on this computer, as the workflow sees them."""

from __future__ import annotations

import itertools
import re
import threading
import uuid
from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import partial

import psutil
from slugify import slugify

from cloudscale.course.folder import CourseFolder
from cloudscale.course.settings import VmSettings
from cloudscale.drivers.over_ssh import OverSsh
from cloudscale.drivers.vm import seed
from cloudscale.drivers.vm.base_image import base_image
from cloudscale.drivers.vm.hypervisor import LOOPBACK, BaseImage, Hypervisor, PortTaken, Vm
from cloudscale.drivers.vm.records import Records, free_ports
from cloudscale.engines.client import Engine
from cloudscale.errors import MachineError, NotSetUp, RequestError
from cloudscale.fanout import fan_out
from cloudscale.hosts.facts import Facts, listening_here, usable_memory
from cloudscale.hosts.first_login import Booting, NoLogin, log_in
from cloudscale.hosts.login_key import KEY_FILE, SshKey, ssh_key
from cloudscale.hosts.ssh import Target
from cloudscale.model import Demand, Kind, Machine, MachineState, Order, Outcomes, Say, Survey
from cloudscale.units import GIB, MIB
from cloudscale.waiting import SystemClock

VMS = "vms"  # in the course's folder
NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")
ATTEMPTS = 3  # to start a VM whose ports others take meanwhile
INSTALLING = 1800.0  # seconds for the packages of the first boot
BOOTED = "[ ! -e /var/lib/cloudscale/course/begun ] || flock -w 1800 /var/lib/cloudscale/course/lock true"


class LocalVms(OverSsh):
    """Each VM has a folder. Ports of loopback lead into it; among each other the VMs have a network of their own."""

    def __init__(self, hypervisor: Hypervisor, settings: VmSettings, course: CourseFolder, say: Say) -> None:
        super().__init__(course, say)
        self._hypervisor = hypervisor
        self._settings = settings
        self._records = Records(course.folder / VMS)
        self._vms: dict[str, Vm] = {}
        self._base: BaseImage | None = None
        self._lock = threading.RLock()
        hypervisor.check()

    # --- what is there -----------------------------------------------------------------------

    def machines(self) -> list[Machine]:
        self._vms = self._records.read()
        numbered = sorted(self._vms.values(), key=lambda vm: vm.number)
        return [Machine(vm.name, vm.address) for vm in numbered]

    def _target(self, machine: Machine) -> Target:
        vm = self._vms.get(machine.name)
        if vm is None:
            raise MachineError(f"{machine.name}: there is no such VM.", "invoke themachine makes it.")
        return self._target_of(vm)

    def _target_of(self, vm: Vm) -> Target:
        key_file = self._course.folder / KEY_FILE
        return Target(LOOPBACK, vm.ssh_port, self._settings.user, key_file=key_file, label=vm.name, alias=vm.id)

    def _endpoint(self, machine: Machine) -> tuple[str, int]:
        return LOOPBACK, self._vms[machine.name].engine_port

    def _address(self, machine: Machine, facts: Facts) -> str:
        return facts.own_address(seed.own_address(self._vms[machine.name]), machine.address)

    def survey(self, machine: Machine) -> Survey:
        vm = self._vms[machine.name]
        self._check_key(vm)
        state = self._hypervisor.state(vm)
        if vm.has_answered and state == "running":
            found = super().survey(machine)
            return replace(found, held_ports=found.held_ports | self._held())
        if vm.has_answered and state != "off":
            raise MachineError(
                f"{vm.name}: the VM is in the state {state}.",
                f"Is the disk of this computer full? Or give the VM up: invoke driver_reset --only {vm.name}.",
            )
        return self._coming(vm)

    def _coming(self, vm: Vm) -> Survey:
        return Survey(
            Machine(vm.name, vm.address),
            address="",
            cpus=vm.cpus,
            memory=usable_memory(vm.memory // MIB),
            held_ports=self._held(),
            networks=frozenset({f"{seed.NETWORK}.0/{seed.PREFIX}"}),
            state=MachineState.OFF if vm.has_answered else MachineState.COMING,
        )

    def _held(self) -> frozenset[int]:
        """Ports of this computer that are not ours to give; those of the course's own seats are known to the swarm."""
        return listening_here() - {port for vm in self._vms.values() for port in vm.seat_ports}

    def _check_key(self, vm: Vm) -> None:
        key = self._key()
        if key is None or key.fingerprint != vm.fingerprint:
            raise RequestError(
                f"{vm.name} lets in another SSH key than that in {self._course.folder}.",
                "Put back the key that it was made with; or remove it: invoke driver_reset.",
            )

    def _key(self, *, create: bool = False) -> SshKey | None:
        with self._lock:
            if create:
                self._course.make_folder()
            return ssh_key(self._course.folder, create=create)

    def connect(self, machine: Machine) -> Engine:
        vm = self._vms[machine.name]
        state = self._hypervisor.state(vm)
        if state != "running" or not vm.has_answered:
            raise NotSetUp(f"{vm.name}: the VM is {state if state != 'running' else 'not up yet'}.", self._goes_on(vm))
        return super().connect(machine)

    def _goes_on(self, vm: Vm) -> str:
        return f"invoke machine_new {vm.name} --driver {self._hypervisor.name} starts it, invoke themachine as well."

    # --- what is to come ---------------------------------------------------------------------

    def kind(self) -> Kind:
        settings = self._settings
        name = f"VM of {settings.cpus} cores and {settings.memory / GIB:g} GiB"
        return Kind(name, settings.cpus, usable_memory(settings.memory // MIB))

    def check_nodes(self, nodes: int) -> None:
        pass  # as many as this computer has memory for, which `order` checks

    def order(self, count: int, former: Collection[str]) -> Order:
        memory = psutil.virtual_memory()
        off = [vm for vm in self._vms.values() if self._hypervisor.state(vm) == "off"]
        each = self._settings.memory
        need = count * each + sum(vm.memory for vm in off)
        used = memory.total - memory.available
        stem = slugify(self._course.name) or "course"
        fresh = (name for number in itertools.count(1) if (name := f"{stem}-{number}") not in {*self._vms, *former})
        names = itertools.islice(itertools.chain(sorted({*former} - {*self._vms}), fresh), count)
        vms = [self._planned(name) for name in names]
        return Order(
            surveys=tuple(map(self._coming, vms)),
            demands=(
                Demand("VMs", count, len(self._vms), seed.MOST),
                Demand("memory of this computer (MiB)", need // MIB, used // MIB, memory.total // MIB),
            ),
            fits=max(0, memory.available - (need - count * each)) // each,
            quota="This computer",
            remedy="Make them smaller (--memory), end other programs, or use more computers (--driver generic).",
        )

    def _planned(self, name: str) -> Vm:
        settings = self._settings
        return Vm(
            id="",
            name=name,
            folder=self._records.folder(name),
            number=0,
            cpus=settings.cpus,
            memory=settings.memory,
            disk=settings.disk,
            ssh_port=0,
            engine_port=0,
            fingerprint="",
            address=settings.address,
        )

    # --- a machine comes up ------------------------------------------------------------------

    def boot(self, machine: Machine) -> Survey:
        vm = self._made(machine.name)
        vm = self._started(vm)
        clock = SystemClock()
        started = clock.now()
        booting = Booting(partial(_text, vm), clock, lambda: self._check_runs(vm, clock.now() - started))
        try:
            connection = log_in(booting, self._target_of(vm), self._known, self._settings.boot_timeout, self._say)
        except NoLogin as silence:
            raise MachineError(
                f"{vm.name}: the VM runs, but {silence}.\n{booting.console_end()}",
                f"Its console is in {vm.console}. Is its image one with cloud-init? Then run again.",
            ) from None
        self._login.keep(connection)
        self._keep(replace(vm, has_answered=True))
        self._say(f"{vm.name}: up")
        brought = Machine(vm.name, vm.address)
        self._connection(brought).run_root(BOOTED, timeout=INSTALLING)
        return self.survey(brought)

    def _made(self, name: str) -> Vm:
        """The VM, written down and then made, as far as it is not there."""
        key = self._key(create=True)
        assert key
        with self._lock:
            vm = self._vms.get(name)
            if vm is None:
                taken = {other.number for other in self._vms.values()}
                ports = {port for other in self._vms.values() for port in (other.ssh_port, other.engine_port)}
                ssh_port, engine_port = free_ports(2, ports)
                vm = replace(
                    self._planned(name),
                    id=str(uuid.uuid4()),
                    number=next(number for number in itertools.count(1) if number not in taken),
                    ssh_port=ssh_port,
                    engine_port=engine_port,
                    fingerprint=key.fingerprint,
                )
                self._keep(vm)
        if not self._hypervisor.is_made(vm):
            seed.write_seed(vm, key.public, vm.seed)
            self._hypervisor.make(vm, self._base_image())
        return vm

    def _base_image(self) -> BaseImage:
        with self._lock:
            if self._base is None:
                if drawback := self._hypervisor.drawback():
                    self._say(drawback)
                self._base = base_image(self._settings.base_image or self._hypervisor.default_image(), self._say)
            return self._base

    def _started(self, vm: Vm) -> Vm:
        for attempt in itertools.count(1):
            if self._hypervisor.state(vm) != "off":
                return vm
            try:
                self._hypervisor.start(vm)
                return vm  # one that ends at once is told as it boots
            except PortTaken:
                if attempt == ATTEMPTS:
                    raise
                with self._lock:
                    others = {port for other in self._vms.values() for port in (other.ssh_port, other.engine_port)}
                    ssh_port, engine_port = free_ports(2, others)
                    vm = replace(vm, ssh_port=ssh_port, engine_port=engine_port)
                    self._keep(vm)
        raise AssertionError

    def _check_runs(self, vm: Vm, seconds: float) -> None:
        if done := self._hypervisor.mend(vm, seconds):
            self._say(f"{vm.name}: {done}")
            return
        state = self._hypervisor.state(vm)
        if state != "running":
            end = Booting(partial(_text, vm), SystemClock()).console_end()
            raise MachineError(f"{vm.name}: the VM is {state} while it should boot.\n{end}", "Run again.")

    def _keep(self, vm: Vm) -> None:
        with self._lock:
            try:
                self._records.write(vm)
            except OSError as error:
                raise MachineError(f"{vm.name}: {vm.folder} can't be written ({error.strerror}).") from None
            self._vms = {**self._vms, vm.name: vm}

    def open_ports(self, ports: Mapping[str, Collection[int]]) -> None:
        wanted = {name: {*ports.get(name, ())} for name in self._vms}
        # what one VM lets go of another may take
        for step in ({name: {*vm.seat_ports} & wanted[name] for name, vm in self._vms.items()}, wanted):
            changed = [replace(vm, seat_ports=tuple(sorted(step[name]))) for name, vm in self._vms.items()]
            fan_out(self._forward, changed, name=_name).get()

    def _forward(self, wanted: Vm) -> None:
        vm = self._vms[wanted.name]
        if vm.seat_ports != wanted.seat_ports:
            if self._hypervisor.state(vm) == "running":
                self._hypervisor.forward(vm, wanted)
            self._keep(wanted)

    # --- the end -----------------------------------------------------------------------------

    def resources(self) -> str:
        count = len(self._records.read())
        return f"{count} VMs" if count else ""

    def sweep(self, only: Collection[str] | None = None) -> Outcomes[str]:
        self._vms = self._records.read()
        doomed = [vm for vm in self._vms.values() if only is None or vm.name in only]
        return fan_out(self._delete, doomed, name=_name)

    def _delete(self, vm: Vm) -> str:
        self._hypervisor.delete(vm)
        self._records.remove(vm.name)
        with self._lock:
            self._vms = {name: other for name, other in self._vms.items() if name != vm.name}
        return "deleted"

    # --- single machines ---------------------------------------------------------------------

    def add(self, name: str) -> str:
        if not NAME.fullmatch(name):
            raise RequestError(
                f"A VM can't be called {name!r}.", "Use up to 40 of a-z, 0-9 and -, with - not at an end."
            )
        self.machines()
        existed = name in self._vms
        machine = Machine(name, self._vms[name].address if existed else self._settings.address)
        survey = self.survey(machine) if existed else None
        if survey is None or survey.state.needs_boot:
            self.boot(machine)
        self.prepare(machine)
        signer = self._authority()
        assert signer
        folder = signer.prepare_docker()
        return "\n".join(
            [
                f"{name} exists already, and runs." if existed else f"{name} is up.",
                "For docker on this computer to speak to its engine:",
                f"  export DOCKER_HOST=tcp://{LOOPBACK}:{self._vms[name].engine_port}",
                f"  export DOCKER_TLS_VERIFY=1 DOCKER_CERT_PATH={folder}",
            ]
        )

    def remove(self, name: str) -> str:
        self._wanted(name)
        self.sweep({name}).get()
        return f"{name} is deleted."

    def describe_removal(self, name: str) -> str:
        self._wanted(name)
        return f"The VM {name}, with all that is on it,"

    def _wanted(self, name: str) -> None:
        self.machines()
        if name not in self._vms:
            there = ", ".join(self._vms) or "none"
            raise RequestError(f"There is no VM {name} in the course {self._course.name!r}.", f"There are: {there}.")


def _name(vm: Vm) -> str:
    return vm.name


def _text(vm: Vm) -> str:
    try:
        return vm.console.read_text(errors="replace")
    except OSError:
        return ""
