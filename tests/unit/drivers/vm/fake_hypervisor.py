"""Fakes for VMs on this computer: a hypervisor in memory, a course on it, and stand-ins for the programs of QEMU."""

from __future__ import annotations

import json
import struct
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from cloudscale.course.folder import CourseFolder
from cloudscale.course.settings import VmSettings
from cloudscale.drivers.vm import driver as module
from cloudscale.drivers.vm import seed
from cloudscale.drivers.vm.driver import LocalVms
from cloudscale.drivers.vm.hypervisor import BaseImage, Hypervisor, PortTaken, Vm
from cloudscale.engines import client
from cloudscale.errors import CloudscaleError, ConnectionFailed, RequestError
from cloudscale.hosts import first_login, ssh
from cloudscale.hosts.known_hosts import KnownHosts
from cloudscale.hosts.target import Target
from cloudscale.model import Machine, Survey
from tests.unit.fake_host import FRESH, FakeHost
from tests.unit.fakes import FakeClock
from tests.unit.hosts.fake_ssh import KEY

COURSE = "bio"
MIB, GIB = 1024**2, 1024**3
MARK = "SSH HOST KEY KEYS-----"
HOST_KEYS = f"-----BEGIN {MARK}\n{KEY.get_name()} {KEY.get_base64()} root@vm\n-----END {MARK}\n"
PANIC = (
    "[    0.000000] Linux version 6.12\r\n[   25.937829] Kernel panic - not syncing: Fatal exception in interrupt\r\n"
    "[   25.946432] ---[ end Kernel panic - not syncing: Fatal exception in interrupt ]---\r\n"
)
PYTHON = f"#!{sys.executable} -IS\n"


def one_vm(folder: Path, name: str = "bio-1", **changes: Any) -> Vm:
    vm = Vm(
        id="8c3f9b12-1d5e-4f6a-9a7b-0123456789ab",
        name=name,
        folder=folder / name,
        number=1,
        cpus=2,
        memory=2 * GIB,
        disk=20 * GIB,
        ssh_port=40022,
        engine_port=42376,
        fingerprint="SHA256:of-a-key",
    )
    return replace(vm, **changes)


def raw_image(path: Path, size: int = 3 * MIB, *, boots: bool = True) -> Path:
    """A disk that is mostly empty, with or without a boot sector."""
    with path.open("wb") as file:
        file.write((b"\xeb" + bytes(509) + b"\x55\xaa") if boots else bytes(1024) + b"ext4")
        file.truncate(size)
    return path


def qcow2_image(path: Path, size: int = 3 * GIB, *, boots: bool = True) -> Path:
    """The same in QEMU's format (docs/interop/qcow2.txt): header, two tables, and one cluster of data."""
    cluster = 65536
    header = struct.pack(">4sIQIIQIIQQIIQ", b"QFI\xfb", 2, 0, 0, 16, size, 0, 8, cluster, 0, 0, 0, 0)
    with path.open("wb") as file:
        file.write(header)
        for at, to in ((1, 2), (2, 3)):
            file.seek(at * cluster)
            file.write(struct.pack(">Q", to * cluster | 1 << 63))
        file.seek(3 * cluster)
        file.write(bytes(510) + (b"\x55\xaa" if boots else bytes(2)))
        file.truncate(4 * cluster)
    return path


class FakeHypervisor(Hypervisor):
    """In memory; refuses what a hypervisor refuses. `taken`: ports that other programs use.

    `dies_after`: VM → after how many looks at it while it runs; `restarts`: VM → what `restart_if_stuck` returns;
    `crashes`: VM → in how many of its next starts its kernel crashes.
    """

    name = "qemu"

    def __init__(self, image: Path) -> None:
        self.image = str(image)
        self.made: dict[str, tuple[str, BaseImage]] = {}
        self.states: dict[str, str] = {}
        self.forwards: dict[str, dict[str, tuple[str, int, int]]] = {}
        self.calls: list[str] = []
        self.taken: set[int] = set()
        self.dies_after: dict[str, int] = {}
        self.restarts: dict[str, str] = {}
        self.crashes: dict[str, int] = {}
        self.console = f"Linux version 6.1\n{HOST_KEYS}"
        self.checked = 0
        self.slowness = ""
        self.cannot_run = ""

    def check(self) -> None:
        self.checked += 1

    def check_can_run(self) -> None:
        if self.cannot_run:
            raise RequestError(self.cannot_run, "")

    def drawback(self) -> str:
        return self.slowness

    def state(self, vm: Vm) -> str:
        state = self.states.get(vm.id, "off")
        if state == "running" and vm.name in self.dies_after:
            self.dies_after[vm.name] -= 1
            if self.dies_after[vm.name] < 0:
                self.die(vm)
                return "off"
        return state

    def stop(self, vm: Vm) -> None:
        self.calls.append(f"stop {vm.name}")
        self.die(vm)

    def die(self, vm: Vm) -> None:
        self.states[vm.id] = "off"
        self.forwards.pop(vm.id)

    def is_made(self, vm: Vm) -> bool:
        return vm.id in self.made

    def make(self, vm: Vm, base: BaseImage) -> None:
        assert vm.id not in self.made
        assert (vm.folder / "vm.json").exists()  # recorded before it is made
        assert vm.seed.exists()
        self.calls.append(f"make {vm.name}")
        self.made[vm.id] = (vm.name, base)

    def start(self, vm: Vm) -> None:
        assert self.is_made(vm)
        assert self.states.get(vm.id, "off") == "off"
        assert self.calls.count(f"start {vm.name}") < 10  # no endless loop
        self.calls.append(f"start {vm.name}")
        self._check_ports(vm, vm.forwards)
        self.states[vm.id], self.forwards[vm.id] = "running", vm.forwards
        self.crashes[vm.name] = left = self.crashes.get(vm.name, 0) - 1
        with vm.console.open("a") as file:
            file.write(PANIC if left >= 0 else self.console)

    def _check_ports(self, vm: Vm, forwards: dict[str, tuple[str, int, int]]) -> None:
        others = {port for id, rules in self.forwards.items() if id != vm.id for _, port, _ in rules.values()}
        for address, port, _ in forwards.values():
            if port in self.taken | others:
                raise PortTaken(vm, f"tcp:{address}:{port}")

    def restart_if_stuck(self, vm: Vm, seconds: float) -> str:
        assert seconds >= 0
        return self.restarts.pop(vm.name, "")

    def forward(self, vm: Vm, changed: Vm) -> None:
        assert self.states[vm.id] == "running"
        assert self.forwards[vm.id] == vm.forwards
        assert (vm.ssh_port, vm.engine_port) == (
            changed.ssh_port,
            changed.engine_port,
        )  # or it could not be reached any more
        self.calls.append(f"forward {vm.name} {sorted(changed.seat_ports)}")
        self._check_ports(vm, changed.forwards)
        self.forwards[vm.id] = changed.forwards

    def delete(self, vm: Vm) -> None:
        self.calls.append(f"delete {vm.name}")
        self.made.pop(vm.id, None)
        self.states.pop(vm.id, None)
        self.forwards.pop(vm.id, None)


class VmTestbed:
    """A course whose VMs run on `hypervisor`. `mute`: names of VMs whose SSH does not answer."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        self.hypervisor = FakeHypervisor(raw_image(tmp_path / "base.raw"))
        self.course = CourseFolder.named(COURSE, "qemu")
        self.clock = FakeClock()
        self.messages: list[str] = []
        self.mute: set[str] = set()
        self.listening: set[int] = set()
        self.hosts: dict[str, FakeHost] = {}
        self.logins: list[Target] = []
        self.clients: list[dict[str, Any]] = []
        self.memory = SimpleNamespace(total=16 * GIB, available=10 * GIB)
        monkeypatch.setattr(module, "SystemClock", lambda: self.clock)
        monkeypatch.setattr(module, "listening_here", lambda: frozenset(self.listening))
        monkeypatch.setattr(psutil, "virtual_memory", lambda: self.memory)
        monkeypatch.setattr(first_login, "_answers", lambda target, over: self._serving(target) is not None)
        monkeypatch.setattr(first_login, "connect", self._connect)
        monkeypatch.setattr(ssh, "connect", self._connect)
        monkeypatch.setattr(client, "over_tls", self._over_tls)

    def driver(self, course: str = COURSE, **given: Any) -> LocalVms:
        """The driver of a new run."""
        self.course = CourseFolder.named(course, "qemu")
        return LocalVms(self.hypervisor, VmSettings(**given), self.course, self.messages.append)

    def vm(self, name: str = "bio-1") -> Vm:
        """The VM as it is recorded."""
        folder = self.course.folder / "vms" / name
        values = json.loads((folder / "vm.json").read_text())
        return Vm(folder=folder, **{**values, "seat_ports": tuple(values["seat_ports"])})

    def _serving(self, target: Target) -> str | None:
        assert target.host == "127.0.0.1"
        for id, forwards in self.hypervisor.forwards.items():
            name = self.hypervisor.made[id][0]
            crashed = self.hypervisor.crashes[name] >= 0
            if forwards["ssh"] == ("127.0.0.1", target.port, 22) and name not in self.mute and not crashed:
                return id
        return None

    def _connect(self, target: Target, *, timeout: float, known: KnownHosts, over: FakeHost | None = None) -> FakeHost:
        assert timeout > 0
        assert known.path == self.course.known_hosts
        assert target.key_file == self.course.folder / "id_ed25519"
        self.logins.append(target)
        id = self._serving(target)
        if id is None:
            raise ConnectionFailed(f"{target.name}: no answer in {timeout:g} s.")
        assert target.alias == id  # the host key is stored under this name
        own = seed.own_address(self.vm(self.hypervisor.made[id][0]))
        values = {name: value.replace("192.0.2.11", own) for name, value in FRESH.items()}
        host = self.hosts.setdefault(id, FakeHost(values=values))
        host.target = target
        return host

    def _over_tls(self, machine: str, host: str, port: int, *, ca: Path, certificate: tuple[Path, Path]) -> Any:
        self.clients.append({"machine": machine, "host": host, "port": port})
        return SimpleNamespace(host=host)


def boot_several(driver: LocalVms, count: int = 1, *former: str) -> list[Survey]:
    """Makes `count` more VMs, one after the other."""
    driver.machines()
    return [driver.boot(survey.machine) for survey in driver.order(count, former).surveys]


def surveyed(driver: LocalVms, name: str = "bio-1") -> Survey:
    (machine,) = (machine for machine in driver.machines() if machine.name == name)
    return driver.survey(machine)


def names(machines: list[Machine]) -> list[str]:
    return [machine.name for machine in machines]


def failure(error: CloudscaleError) -> tuple[str, str]:
    return error.message, error.remedy


# --- the programs of QEMU ---

QEMU_IMG = r"""
import json, struct, sys
with open(FOLDER + "/img-calls", "a") as calls:
    calls.write(json.dumps(sys.argv[1:]) + "\n")

def refuse(text):
    sys.exit("qemu-img: " + text)

if sys.argv[1] == "create":
    quiet, f, format, b, base, F, base_format, path, size = sys.argv[2:]
    assert (quiet, f, format, b, F) == ("-q", "-f", "qcow2", "-b", "-F"), sys.argv
    try:
        open(base, "rb").close()
    except OSError as error:
        refuse(f"{path}: Could not open '{base}': {error.strerror}")
    with open(path, "wb") as file:
        file.write(struct.pack(">4sIQIIQ", b"QFI\xfb", 3, 0, 0, 16, int(size)))
elif sys.argv[1] == "dd":
    f, format, O, raw, bs, count, source, target = sys.argv[2:]
    assert (f, format, O, raw, bs, count) == ("-f", "qcow2", "-O", "raw", "bs=512", "count=1"), sys.argv
    with open(source.removeprefix("if="), "rb") as file:
        head = file.read(72)
        if len(head) < 72 or head[:4] != b"QFI\xfb" or head[4:8] not in (b"\0\0\0\2", b"\0\0\0\3"):
            refuse(f"Could not open '{source[3:]}': Image is not in qcow2 format")
        def at(offset):
            file.seek(offset)
            return struct.unpack(">Q", file.read(8))[0] & 0x00FFFFFFFFFFFE00
        file.seek(at(at(struct.unpack_from(">Q", head, 40)[0])))
        sector = file.read(512)
    with open(target.removeprefix("of="), "wb") as file:
        file.write(sector)
else:
    refuse("Command not found: " + sys.argv[1])
"""

QEMU = r"""
import fcntl, json, os, signal, socket, sys
with open(FOLDER + "/calls", "a") as calls:
    calls.write(json.dumps(sys.argv[1:]) + "\n")

def setting(name):
    path = f"{FOLDER}/{name}"
    return open(path).read() if os.path.exists(path) else ""

def refuse(text):
    sys.exit("qemu-system-x86_64: warning: something else\nqemu-system-x86_64: " + text)

SINGLE = {"-nodefaults", "-no-user-config", "-daemonize"}
ONCE = {"-name", "-uuid", "-display", "-machine", "-smp", "-m", "-rtc", "-cpu", "-chardev", "-serial", "-qmp"}
ONCE |= {"-kernel", "-append", "-initrd", "-pidfile"}
MANY = {"-accel", "-blockdev", "-device", "-netdev"}
words, given, many = iter(sys.argv[1:]), {}, {name: [] for name in MANY}
for word in words:
    if word not in SINGLE | ONCE | MANY or word in given:
        refuse(f"{word}: invalid option")
    value = "" if word in SINGLE else next(words)
    given[word] = value
    if word in MANY:
        many[word].append(value)
        del given[word]

def options(text):  # a comma in a value is written twice
    parts = text.replace(",,", "\0").split(",")
    return [tuple(part.replace("\0", ",").partition("=")[::2]) for part in parts]

def free(rule):
    return rule not in rules and rule.split("-")[0].rpartition(":")[2] not in setting("taken").split()

rules, nodes = [], set()
for text in many["-blockdev"]:
    drive = json.loads(text)
    if not os.path.exists(drive["file"]["filename"]):
        refuse(f"-blockdev {text}: Could not open '{drive['file']['filename']}': No such file or directory")
    nodes.add(drive["node-name"])
networks = {}
for text in many["-netdev"]:
    kind, *rest = options(text)
    networks[dict(rest)["id"]] = kind[0]
    for name, value in rest:
        if name == "hostfwd":
            if not free(value):
                refuse(f"-netdev {text}: Could not set up host forwarding rule '{value}'")
            rules.append(value)
for text in many["-device"]:
    known = dict(options(text))
    assert known.get("drive", next(iter(nodes))) in nodes and known.get("netdev", "out") in networks, text
for name in ("-kernel", "-initrd"):
    if name in given and not os.path.exists(given[name]):
        refuse(f"could not open kernel file '{given[name]}': No such file or directory")
if setting("refusal"):
    refuse(setting("refusal"))
kind, *console = options(given["-chardev"])
console = dict(console)
assert kind[0] == "file" and console["append"] == "on" and given["-serial"] == "chardev:" + console["id"]
with open(console["path"], "a") as file:
    file.write(setting("words"))
path = dict([options(given["-qmp"])[0]])
(path,) = path
path = path.removeprefix("unix:")
assert len(path) < 108, path
if os.path.exists(path):
    os.unlink(path)
server = socket.socket(socket.AF_UNIX)
server.bind(path)
server.listen()
server.settimeout(0.02)
done, ready = os.pipe()
if os.fork():
    os.close(ready)
    sys.exit(0 if os.read(done, 1) else 1)
os.setsid()
signal.alarm(120)
pid_file = open(given["-pidfile"], "a+")
fcntl.lockf(pid_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
pid_file.truncate(0)
pid_file.write(str(os.getpid()))
pid_file.flush()
nowhere = os.open(os.devnull, os.O_RDWR)
for number in range(3):
    os.dup2(nowhere, number)

def monitor(line):
    command, net, rule = line.split()
    assert command in ("hostfwd_add", "hostfwd_remove"), line
    if networks.get(net) != "user":
        return f"unrecognized netdev id '{net}'\r\n"
    if command == "hostfwd_add":
        if not free(rule):
            return f"Could not set up host forwarding rule '{rule}'\r\n"
        rules.append(rule)
        return ""
    matches = [known for known in rules if known.startswith(rule + "-")]
    for known in matches:
        rules.remove(known)
    return f"host forwarding rule for {rule} {'removed' if matches else 'not found'}\r\n"

def note():
    with open(f"{FOLDER}/rules-{given['-name']}", "w") as file:
        file.write("\n".join(rules))

def messages(connection):  # nothing stands between them
    text, decoder = "", json.JSONDecoder()
    while data := connection.recv(65536):
        text = (text + data.decode()).lstrip()
        while text:
            try:
                message, end = decoder.raw_decode(text)
            except ValueError:
                break
            text = text[end:].lstrip()
            yield message

def serve(connection):
    def send(message):
        connection.sendall(json.dumps(message).encode() + b"\r\n")
    send({"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": ""}, "capabilities": []}})
    for asked in messages(connection):
        what, answer = asked["execute"], {}
        if what == "query-status":
            answer = {"status": setting("state") or "running", "running": True}
        elif what == "human-monitor-command":
            answer = monitor(asked["arguments"]["command-line"])
            note()
        elif what not in ("qmp_capabilities", "quit"):
            send({"error": {"class": "CommandNotFound", "desc": "unknown"}, "id": asked.get("id")})
            continue
        send({"return": answer, "id": asked.get("id")})
        if what == "quit":
            os._exit(0)

note()
os.write(ready, b"y")
while not os.path.exists(FOLDER + "/stop") and os.path.exists(FOLDER):
    if setting("deaf"):
        signal.pause()
    try:
        connection, _ = server.accept()
    except TimeoutError:
        continue
    connection.settimeout(None)
    try:
        serve(connection)
    except OSError:
        pass
    connection.close()
"""


class QemuPrograms:
    """qemu-system-x86_64 and qemu-img on a PATH with nothing else. They read these values from files:

    `taken`: ports in use; `refusal`: why it does not start; `words`: console output; `state`; `deaf`: does not answer.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        self.path = folder / "bin"
        self.path.mkdir(parents=True)
        for name, text in (("qemu-system-x86_64", QEMU), ("qemu-img", QEMU_IMG)):
            program = self.path / name
            program.write_text(f"{PYTHON}FOLDER = {str(folder)!r}\n{text}")
            program.chmod(0o755)
        monkeypatch.setenv("PATH", str(self.path))

    def tell(self, **settings: str) -> None:
        for name, text in settings.items():
            (self._folder / name).write_text(text)

    @property
    def calls(self) -> list[list[str]]:
        """The arguments of each QEMU that was started."""
        return self._read("calls")

    @property
    def img_calls(self) -> list[list[str]]:
        return self._read("img-calls")

    def _read(self, name: str) -> list[list[str]]:
        file = self._folder / name
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def rules(self, vm: Vm) -> set[str]:
        """The port forwardings of a VM, in QEMU's syntax."""
        return set((self._folder / f"rules-{vm.name}").read_text().split())

    def end(self) -> None:
        self.tell(stop="yes")
