"""A stand-in for VBoxManage, for what the real one can't be asked for without its kernel module: a VM that runs.

Of the rest it has what the driver needs, and refuses all else. The hosts ring gives the same commands to it and to the
real one, and compares the answers.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cloudscale.model import TIMED_OUT

MB = 2**20
PAIRS = {"--uart1", "--uartmode1"}  # options with two values
OPTIONS = {
    *("--cpus", "--memory", "--vram", "--ioapic", "--rtcuseutc", "--graphicscontroller", "--audio-driver", "--boot1"),
    *("--nic1", "--nictype1", "--macaddress1", "--nic2", "--intnet2", "--nictype2", "--macaddress2"),
}
NUMBERS = {"cpus", "memory", "vram"}
RULE = re.compile(r"(?P<name>[^,]+),tcp,(?P<address>[0-9.]*),(?P<port>\d+),,\d+")
VDI = b"<<< Oracle VM VirtualBox Disk Image >>>\n"
NO_FILE = "Could not find file for the medium '{}' (VERR_FILE_NOT_FOUND)"


class Refused(Exception):
    """`code`: of the API; "" for an error of VBoxManage itself, which has no details."""

    def __init__(self, *lines: str, code: str = "", exit_code: int = 1) -> None:
        super().__init__(*lines)
        details = (
            [f"Details: code {code}, component MachineWrap, interface IMachine, callee nsISupports"] if code else []
        )
        self.text = "".join(f"VBoxManage: error: {line}\n" for line in (*lines, *details))
        self.exit_code = exit_code


@dataclass
class Machine:
    """`ports`: of its controller, if it has one: number → medium. `locked`: how many more commands are refused."""

    name: str
    uuid: str
    group: str
    file: Path
    state: str = "poweroff"
    settings: dict[str, str] = field(default_factory=dict)
    rules: dict[str, str] = field(default_factory=dict)
    controller: str = ""
    ports: dict[str, str] = field(default_factory=dict)
    locked: int = 0

    @property
    def is_accessible(self) -> bool:
        return self.state == "running" or self.file.exists()


class VBoxManage:
    """`disks`: the list of disks, file → size in MB. `stay_locked`: how many commands are refused after a VM's end."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, ...]] = []
        self.machines: dict[str, Machine] = {}
        self.disks: dict[str, int] = {}
        self.stay_locked = 0
        self._faults: list[tuple[str, str, int]] = []
        self._lock = threading.Lock()

    def fault(self, command: str, error: str, *, after: int = 0) -> None:
        """The next such command but `after` fails with this error; without one, it does not end."""
        self._faults.append((command, error, sum(call[0] == command for call in self.calls) + after))

    def crash(self) -> None:
        for machine in self.machines.values():
            self._stop(machine, "aborted")

    def __call__(self, command: str, *words: str) -> tuple[int, str, str]:
        """Exit code, output and errors of a command."""
        with self._lock:
            return self._answer(command, *words)

    def _answer(self, command: str, *words: str) -> tuple[int, str, str]:
        number = sum(call[0] == command for call in self.calls)
        self.calls.append((command, *words))
        for name, error, at in self._faults:
            if (name, at) == (command, number):
                return (1, "", f"VBoxManage: error: {error}\n") if error else (TIMED_OUT, "", "")
        run: Callable[..., str | None] = getattr(self, f"_{command}")
        try:
            return 0, run(*words) or "", ""
        except Refused as refused:
            return refused.exit_code, "", refused.text

    # --- VMs ---

    def _find(self, name: str) -> Machine:
        for machine in self.machines.values():
            if name in (machine.uuid, machine.name if machine.is_accessible else ""):
                return machine
        named = f"with UUID {{{name}}}" if re.fullmatch("[0-9a-f-]{36}", name) else f"named '{name}'"
        raise Refused(f"Could not find a registered machine {named}", code="VBOX_E_OBJECT_NOT_FOUND (0x80bb0001)")

    def _accessible(self, name: str) -> Machine:
        machine = self._find(name)
        if not machine.is_accessible:
            raise Refused("The object functionality is limited", code="E_ACCESSDENIED (0x80070005)")
        return machine

    def _unlocked(self, name: str, line: str = "The machine '{}' is already locked for a session") -> Machine:
        machine = self._accessible(name)
        machine.locked -= machine.locked > 0
        if machine.state not in ("poweroff", "aborted") or machine.locked:
            raise Refused(line.format(machine.name), code="VBOX_E_INVALID_OBJECT_STATE (0x80bb0007)")
        return machine

    def _createvm(self, *words: str) -> None:
        register = "--register" in words
        given = options([word for word in words if word != "--register"])
        assert given.keys() == {"--name", "--uuid", "--ostype", "--basefolder", "--groups"}
        name, uuid, group = given["--name"], given["--uuid"], given["--groups"]
        file = Path(given["--basefolder"] + group, name, f"{name}.vbox")
        if file.exists():
            raise Refused(f"Machine settings file '{file}' already exists", code="VBOX_E_FILE_ERROR (0x80bb0004)")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        if register:
            if uuid in self.machines:
                line = f"Registered machine with UUID {{{uuid}}} ('{self.machines[uuid].file}') already exists"
                raise Refused(line, code="NS_ERROR_INVALID_ARG (0x80070057)")
            self.machines[uuid] = Machine(name, uuid, group, file)

    def _modifyvm(self, name: str, *words: str) -> None:
        machine = self._unlocked(name)
        rules, settings = dict(machine.rules), dict(machine.settings)
        left = list(words)
        while left:
            option = left.pop(0)
            if option == "--natpf1":
                forward(rules, left)
            elif option in PAIRS:
                settings[option] = f"{left.pop(0).replace('0x3F8', '0x03f8')},{left.pop(0)}"
            else:
                assert option in OPTIONS, option
                settings[option] = left.pop(0)
        machine.rules, machine.settings = rules, settings

    def _showvminfo(self, name: str, how: str) -> str:
        assert how == "--machinereadable"
        machine = self._accessible(name)
        facts = {"name": machine.name, "groups": machine.group, "UUID": machine.uuid, "CfgFile": str(machine.file)}
        facts |= {name.strip("-"): value for name, value in machine.settings.items() if name != "--audio-driver"}
        facts["VMState"] = machine.state
        for number, rule in enumerate(sorted(machine.rules.values())):
            facts[f"Forwarding({number})"] = rule
        lines = [f"{name}={value}" if name in NUMBERS else f'{name}="{value}"' for name, value in facts.items()]
        for port, medium in sorted(machine.ports.items()):
            quoted = re.sub(r'(["\\])', r"\\\1", medium)
            lines.append(f'"{machine.controller}-{port}-0"="{quoted}"')
        return "\n".join([*lines, " rec_screen0", ""])

    def _unregistervm(self, name: str, *delete: str) -> None:
        assert delete in ((), ("--delete",))
        machine = self._find(name)
        if machine.is_accessible:
            self._unlocked(name, "Cannot unregister the machine '{}' while it is locked")
        del self.machines[machine.uuid]
        if delete and not machine.is_accessible:  # it is unregistered nevertheless
            raise Refused("The object is not ready", code="E_ACCESSDENIED (0x80070005)")
        self.disks.pop(machine.ports.get("0", ""), None)
        if delete:
            Path(machine.ports.get("0", "none")).unlink(missing_ok=True)
            machine.file.unlink()
            machine.file.parent.rmdir()

    def _startvm(self, name: str, *how: str) -> None:
        assert how == ("--type", "headless")
        machine = self._unlocked(name, "The machine '{}' is already locked by a session")
        if not Path(machine.ports["0"]).exists():
            raise Refused("File not found. (VERR_FILE_NOT_FOUND)", code="NS_ERROR_FAILURE (0x80004005)")
        Path(machine.settings["--uartmode1"].partition(",")[2]).write_text("")
        machine.state = "running"

    def _controlvm(self, name: str, *words: str) -> None:
        machine = self._accessible(name)
        if machine.state not in ("running", "paused"):
            raise Refused(f"Machine '{name}' is not currently running.")
        if words == ("poweroff",):
            self._stop(machine, "poweroff")
        else:
            assert words[0] == "natpf1", words
            forward(machine.rules, list(words[1:]))

    def _stop(self, machine: Machine, state: str) -> None:
        machine.state, machine.locked = state, self.stay_locked + 1

    def _list(self, what: str) -> str:
        if what == "hdds":
            return "".join(f"Location:       {disk}\nStorage format: VDI\n\n" for disk in self.disks)
        assert what == "vms"
        names = [(one.name if one.is_accessible else "<inaccessible>", one.uuid) for one in self.machines.values()]
        return "".join(f'"{name}" {{{uuid}}}\n' for name, uuid in names)

    # --- disks ---

    def _storagectl(self, name: str, *words: str) -> None:
        machine, given = self._unlocked(name), options(words)
        assert given == {"--name": given["--name"], "--add": "sata", "--portcount": "2"}
        if machine.controller:
            line = f"Storage controller named '{given['--name']}' already exists"
            raise Refused(line, code="VBOX_E_OBJECT_IN_USE (0x80bb000c)")
        machine.controller = given["--name"]
        machine.ports = {"0": "none", "1": "none"}

    def _storageattach(self, name: str, *words: str) -> None:
        machine, given = self._unlocked(name), options(words)
        if given["--storagectl"] != machine.controller:
            raise Refused(f"Could not find a controller named '{given['--storagectl']}'")
        assert (given["--device"], given["--type"], given["--port"]) in (("0", "dvddrive", "1"), ("0", "hdd", "0"))
        medium = given["--medium"]
        if not Path(medium).is_file():
            raise Refused(NO_FILE.format(medium), code="VBOX_E_FILE_ERROR (0x80bb0004)")
        machine.ports[given["--port"]] = medium
        if given["--type"] == "hdd":
            self.disks[medium] = size_of(medium)

    def _convertfromraw(self, source: str, target: str, *form: str) -> None:
        assert form == ("--format", "VDI")
        if not Path(source).is_file():
            raise Refused(f'Cannot open file "{source}": VERR_FILE_NOT_FOUND')
        if Path(target).exists():
            raise Refused(f"VDI: cannot create image '{target}'")
        write_disk(target, Path(source).stat().st_size // MB)

    def _clonemedium(self, kind: str, source: str, target: str, *form: str) -> None:
        assert (kind, *form) == ("disk", "--format", "VDI")
        if not Path(source).is_file():
            raise Refused(NO_FILE.format(source), code="VBOX_E_FILE_ERROR (0x80bb0004)")
        if source in self.disks:  # the real one refuses only some formats, and only later
            line = f"UUID {{0}} of the medium '{source}' does not match the value {{1}} stored in the media registry"
            raise Refused(line, code="NS_ERROR_FAILURE (0x80004005)")
        if Path(target).exists():
            raise Refused("Failed to clone medium", code="VBOX_E_FILE_ERROR (0x80bb0004)")
        size = int.from_bytes(Path(source).read_bytes()[24:32], "big") // MB  # of a qcow2 image
        write_disk(target, size)
        self.disks |= {source: size, target: size}

    def _modifymedium(self, kind: str, path: str, *words: str) -> None:
        given = options(words)
        assert kind == "disk" and given.keys() == {"--resize"}
        if not Path(path).is_file():
            raise Refused(NO_FILE.format(path), code="VBOX_E_FILE_ERROR (0x80bb0004)")
        if int(given["--resize"]) < size_of(path):
            line = f"Shrinking is not yet supported for medium '{path}'"
            raise Refused("Failed to resize medium", line, code="VBOX_E_NOT_SUPPORTED (0x80bb0009)")
        write_disk(path, int(given["--resize"]))
        self.disks[path] = int(given["--resize"])

    def _closemedium(self, kind: str, path: str, *delete: str) -> None:
        assert kind == "disk" and delete in ((), ("--delete",))
        if path not in self.disks and not Path(path).is_file():
            raise Refused(NO_FILE.format(path), code="VBOX_E_FILE_ERROR (0x80bb0004)")
        users = [machine.uuid for machine in self.machines.values() if path in machine.ports.values()]
        if users:
            line = f"Medium '{path}' cannot be closed because it is still attached to {len(users)} virtual machines"
            if delete:
                line = f"Cannot delete storage: medium '{path}' is still attached to the following"
                line += f" {len(users)} virtual machine(s): {', '.join(users)}"
            raise Refused(line, code="VBOX_E_OBJECT_IN_USE (0x80bb000c)")
        if self.disks.pop(path, None) is None and not Path(path).read_bytes().startswith(VDI):
            with Path(path).open("ab") as file:  # the real one writes its header
                file.write(b"changed")
        if delete:
            Path(path).unlink(missing_ok=True)


def options(words: list[str] | tuple[str, ...]) -> dict[str, str]:
    return dict(zip(words[::2], words[1::2], strict=True))


def forward(rules: dict[str, str], words: list[str]) -> None:
    """Adds or removes a port forwarding, and takes its words."""
    rule = words.pop(0)
    if rule == "delete":
        if rules.pop(words.pop(0), None) is None:
            raise Refused(
                "Code NS_ERROR_INVALID_ARG (0x80070057) - Invalid argument value (extended info not available)"
            )
        return
    parts = RULE.fullmatch(rule)
    if parts is None:
        raise Refused("Missing or invalid argument to '--natpf'", exit_code=2)
    if parts["name"] in rules:
        raise Refused("A NAT rule of this name already exists", code="NS_ERROR_INVALID_ARG (0x80070057)")
    if any(f",tcp,{parts['address']},{parts['port']}," in other for other in rules.values()):
        line = "A NAT rule for this host port and this host IP already exists"
        raise Refused(line, code="NS_ERROR_INVALID_ARG (0x80070057)")
    rules[parts["name"]] = rule


def write_disk(path: str, size: int) -> None:
    Path(path).write_bytes(VDI + str(size).encode())


def size_of(path: str) -> int:
    return int(Path(path).read_text().splitlines()[1])
