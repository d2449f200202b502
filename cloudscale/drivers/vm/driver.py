"""The drivers for VMs on this computer, with the methods that the workflow calls."""

from __future__ import annotations

import contextlib
import itertools
import re
import shutil
import socket
import threading
import uuid
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from functools import partial

import psutil

from cloudscale.course.folder import CourseFolder
from cloudscale.course.settings import VmSettings
from cloudscale.drivers.made import MadeMachines, survey_not_up
from cloudscale.drivers.vm import console, seed
from cloudscale.drivers.vm.base_image import base_image, describe_source
from cloudscale.drivers.vm.booting import Boot, start, watched
from cloudscale.drivers.vm.hypervisor import LOOPBACK, BaseImage, Hypervisor, PortTaken, Vm
from cloudscale.drivers.vm.records import Records, free_ports
from cloudscale.engines.client import Engine
from cloudscale.errors import ConnectionFailed, MachineError, NotSetUp, RequestError
from cloudscale.fanout import fan_out
from cloudscale.hosts.facts import Facts, listening_here, usable_memory
from cloudscale.hosts.first_login import Booting, NoLogin
from cloudscale.hosts.target import Target
from cloudscale.model import Demand, Finding, Kind, Machine, Order, Outcomes, Say, Survey
from cloudscale.networks import endpoint
from cloudscale.units import MIB, gib
from cloudscale.waiting import SystemClock

HERE = "this computer"  # in findings
VMS = "vms"  # in the course's folder
NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")
ATTEMPTS = 3  # to start a VM if other programs take its ports meanwhile
CRASHED = "crashed"  # the state of a VM whose kernel has ended, beside those of the hypervisor


class LocalVms(MadeMachines):
    """Each VM has a folder. Ports of loopback are forwarded to it; the VMs of a course have their own network."""

    def __init__(
        self,
        hypervisor: Hypervisor,
        settings: VmSettings,
        course: CourseFolder,
        say: Say,
        patience: float | None = None,
    ) -> None:
        super().__init__(course, say, user=settings.user, boot_timeout=settings.boot_timeout, patience=patience)
        self._hypervisor = hypervisor
        self._settings = settings
        self._records = Records(course.folder / VMS)
        self._vms: dict[str, Vm] = {}
        self._base: BaseImage | None = None
        self._lock = threading.RLock()
        hypervisor.check()

    # --- existing machines -------------------------------------------------------------------

    def machines(self) -> list[Machine]:
        self._vms = self._records.read()
        numbered = sorted(self._vms.values(), key=lambda vm: vm.number)
        return [Machine(vm.name, vm.address) for vm in numbered]

    def _target(self, machine: Machine) -> Target:
        vm = self._vms.get(machine.name)
        if vm is None:
            raise MachineError(f"{machine.name}: this VM does not exist.", "Run invoke themachine to make it.")
        if not vm.has_answered:  # the first login is that of its boot, which has its keys from the console
            raise MachineError(f"{vm.name}: the VM is not up yet.", "Run invoke themachine to continue.")
        return self._target_of(vm)

    def _target_of(self, vm: Vm) -> Target:
        return self._login_target(LOOPBACK, vm.name, vm.id, vm.ssh_port)

    def _endpoint(self, machine: Machine) -> tuple[str, int]:
        return LOOPBACK, self._vms[machine.name].engine_port

    def _address(self, machine: Machine, facts: Facts) -> str:
        return facts.own_address(seed.own_address(self._vms[machine.name]), machine.address)

    def survey(self, machine: Machine) -> Survey:
        vm = self._vms[machine.name]
        self._check_key(vm.name, vm.fingerprint, "Restore that key. Or delete the VM: invoke driver_reset.")
        state = self._state(vm)
        if vm.has_answered and state == "running":
            return self._survey_running(machine)
        if vm.has_answered and state not in ("off", CRASHED):
            raise MachineError(
                f"{vm.name}: the VM is in the state {state}.",
                "Check that the disk of this computer is not full."
                f" Or delete the VM: invoke driver_reset --only {vm.name}.",
            )
        return self._survey_not_up(vm)

    def _state(self, vm: Vm) -> str:
        state = self._hypervisor.state(vm)
        return CRASHED if state == "running" and console.crash(vm) else state

    def _survey_running(self, machine: Machine) -> Survey:
        survey = super()._survey_running(machine)
        return replace(survey, held_ports=survey.held_ports | self._held_ports())

    def _survey_not_up(self, vm: Vm) -> Survey:
        return survey_not_up(
            Machine(vm.name, vm.address),
            cpus=vm.cpus,
            memory=usable_memory(vm.memory // MIB),
            networks=frozenset({f"{seed.NETWORK}.0/{seed.PREFIX}"}),
            held_ports=self._held_ports(),
            has_answered=vm.has_answered,
        )

    def _held_ports(self) -> frozenset[int]:
        """Ports of this computer that other programs use. The ports of the course's own seats are in the swarm."""
        return listening_here() - {port for vm in self._vms.values() for port in vm.seat_ports}

    def connect(self, machine: Machine) -> Engine:
        vm = self._vms[machine.name]
        state = self._state(vm)
        if state != "running" or not vm.has_answered:
            reason = f"its kernel has {state}" if state == CRASHED else f"the VM is {state}"
            raise NotSetUp(
                f"{vm.name}: {reason if state != 'running' else 'the VM is not up yet'}.",
                f"Start it: invoke machine_new {vm.name} --driver {self._hypervisor.name}, or invoke themachine.",
            )
        return super().connect(machine)

    # --- new machines ------------------------------------------------------------------------

    def kind(self) -> Kind:
        settings = self._settings
        name = f"VM with {settings.cpus} cores and {gib(settings.memory)}"
        return Kind(name, settings.cpus, usable_memory(settings.memory // MIB))

    def check_nodes(self, nodes: int) -> None:
        pass  # only the memory of this computer is a limit, which `order` checks

    def claim(self) -> None:
        pass  # the VMs are in the course's folder

    def order(self, count: int, former: Collection[str]) -> Order:
        memory = psutil.virtual_memory()
        off = [vm for vm in self._vms.values() if self._hypervisor.state(vm) == "off"]
        each = self._settings.memory
        need = count * each + sum(vm.memory for vm in off)
        if need:
            self._hypervisor.check_can_run()
        used = memory.total - memory.available
        vms = [self._planned(name) for name in self._new_names(count, self._vms, former)]
        return Order(
            surveys=tuple(map(self._survey_not_up, vms)),
            demands=(
                Demand("VMs", count, len(self._vms), seed.MAX_VMS),
                Demand("memory of this computer (MiB)", need // MIB, used // MIB, memory.total // MIB),
            ),
            fits=max(0, memory.available - (need - count * each)) // each,
            quota="This computer",
            remedy="Use smaller VMs (--memory), end other programs, or use more computers (--driver generic).",
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

    def examine(self) -> Iterable[Finding]:
        if drawback := self._hypervisor.drawback():
            yield Finding(HERE, "warning", drawback)
        try:
            yield Finding("disk image", "ok", describe_source(self._settings.base_image or self._hypervisor.image))
        except (RequestError, MachineError) as error:
            yield Finding("disk image", "wrong", error.message, error.remedy)
        folder = next(path for path in (self._course.folder, *self._course.folder.parents) if path.exists())
        free, need = shutil.disk_usage(folder).free, self._settings.disk
        if free < need:
            yield Finding(
                HERE,
                "warning",
                f"{folder} has {gib(free)} of disk free, and the disk of each VM may grow to {gib(need)}."
                " A full disk stops all VMs.",
                "Make room there, set CLOUDSCALE_HOME to a folder on a larger disk, or use smaller VMs (--disk).",
            )

    # --- booting a machine -------------------------------------------------------------------

    def _start(self, name: str) -> Machine:
        self._hypervisor.check_can_run()
        vm = self._start_vm(self._make(name))
        clock = SystemClock()
        boot = Boot(self._hypervisor, vm, clock, self._say)
        booting = Booting(partial(console.read, vm), clock, boot.check)
        try:
            self._first_login(booting, self._target_of(vm))
        except NoLogin as error:
            raise MachineError(
                str(error),
                f"Read its console output: {vm.console}. Check that its image has cloud-init. Then run again.",
            ) from None
        self._store(replace(vm, has_answered=True))
        self._say(f"{vm.name}: up")
        return Machine(vm.name, vm.address)

    def boot(self, machine: Machine) -> Survey:
        try:
            return super().boot(machine)
        except ConnectionFailed:
            if self._hypervisor.state(self._vms[machine.name]) == "running":
                raise
            return super().boot(machine)  # its kernel crashed after the first login

    def _watched(self, machine: Machine) -> contextlib.AbstractContextManager[None]:
        return watched(self._hypervisor, self._vms[machine.name], self._say)

    def _make(self, name: str) -> Vm:
        """The VM; if it does not exist yet, its record is written, then it is made."""
        key = self._key()
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
                self._store(vm)
        if not self._hypervisor.is_made(vm):
            seed.write_seed(vm, key.public, vm.seed)
            self._hypervisor.make(vm, self._base_image())
        return vm

    def _base_image(self) -> BaseImage:
        with self._lock:
            if self._base is None:
                if drawback := self._hypervisor.drawback():
                    self._say(drawback)
                self._base = base_image(self._settings.base_image or self._hypervisor.image, self._say)
            return self._base

    def _start_vm(self, vm: Vm) -> Vm:
        """Starts the VM if it is off, with other ports if its own are in use; returns it with its ports."""
        for attempt in itertools.count(1):
            state = self._state(vm)
            if state == CRASHED:
                self._hypervisor.stop(vm)
            elif state != "off":
                return vm
            try:
                start(self._hypervisor, vm)
                return vm  # Boot reports a VM that ends at once
            except PortTaken:
                if attempt == ATTEMPTS:
                    raise
                with self._lock:
                    others = {port for other in self._vms.values() for port in (other.ssh_port, other.engine_port)}
                    ssh_port, engine_port = free_ports(2, others)
                    vm = replace(vm, ssh_port=ssh_port, engine_port=engine_port)
                    self._store(vm)
        raise AssertionError

    def _store(self, vm: Vm) -> None:
        with self._lock:
            try:
                self._records.write(vm)
            except OSError as error:
                raise MachineError(
                    f"{vm.name}: could not write to {vm.folder} ({error.strerror}).", "Fix the cause, then run again."
                ) from None
            self._vms = {**self._vms, vm.name: vm}

    def enter_by_first(self, wanted: bool | None) -> bool:
        return False  # all VMs have this computer's address

    def settle_addresses(self) -> Mapping[str, str]:
        return {}

    def check_port(self, port: int) -> None:
        with socket.socket() as probe:
            try:
                probe.bind((self._settings.address, port))
            except PermissionError:
                raise RequestError(
                    f"The kernel of this computer lets this user listen on no port such as {port}.",
                    "Choose one above 1023, such as gateway.port: 8443 in the configuration.",
                ) from None
            except OSError:
                pass  # whoever holds it now may be the VM itself

    def open_ports(self, ports: Mapping[str, Collection[int]], inner: Collection[int] = (), source: str = "") -> None:
        # the VMs' own network is closed to this computer's anyway, so `inner` needs nothing
        new = {name: {*ports.get(name, ())} for name in self._vms}
        kept = {name: {*vm.seat_ports} & new[name] for name, vm in self._vms.items()}
        # first close ports on all VMs, because another VM may get them
        for step in (kept, new):
            changed = [replace(vm, seat_ports=tuple(sorted(step[name]))) for name, vm in self._vms.items()]
            fan_out(self._forward, changed, name=_name).get()

    def _forward(self, changed: Vm) -> None:
        vm = self._vms[changed.name]
        if vm.seat_ports != changed.seat_ports:
            if self._hypervisor.state(vm) == "running":
                self._hypervisor.forward(vm, changed)
            self._store(changed)

    # --- deletion ----------------------------------------------------------------------------

    def resources(self) -> str:
        count = len(self._records.read())
        return f"{count} VMs" if count else ""

    def sweep(self, only: Collection[str] | None = None) -> Outcomes[str]:
        self._vms = self._records.read()
        to_delete = [vm for vm in self._vms.values() if only is None or vm.name in only]
        return fan_out(self._delete, to_delete, name=_name)

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
                f"{name!r} is not a valid name for a VM.",
                "Use up to 40 of the characters a-z, 0-9 and -, without - at the start or end.",
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
                f"{name} already exists and is running." if existed else f"{name} is up.",
                "To use its engine with docker on this computer:",
                f"  export DOCKER_HOST=tcp://{endpoint(LOOPBACK, self._vms[name].engine_port)}",
                f"  export DOCKER_TLS_VERIFY=1 DOCKER_CERT_PATH={folder}",
            ]
        )

    def remove(self, name: str) -> str:
        self._check_exists(name)
        self.sweep({name}).get()
        return f"{name} was deleted."

    def describe_removal(self, name: str) -> str:
        self._check_exists(name)
        return f"The VM {name}, with all data on it,"

    def _check_exists(self, name: str) -> None:
        self.machines()
        if name not in self._vms:
            available = ", ".join(self._vms) or "none"
            raise RequestError(f"The course {self._course.name!r} has no VM {name}.", f"Available: {available}.")


def _name(vm: Vm) -> str:
    return vm.name
