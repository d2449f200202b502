"""Makes, configures and removes machines: «VBoxManage createvm», «modifyvm», «unregistervm», «setextradata»."""

from __future__ import annotations

import re
import shutil
import uuid
from pathlib import Path
from typing import Any

from tests.lab.vboxmanage.box import LIVE, Box, folder_of, slots
from tests.lab.vboxmanage.errors import Misused, Refused
from tests.lab.vboxmanage.options import Given
from tests.lab.vboxmanage.store import Json

OS_TYPES = {
    "Debian_64": "Debian (64-bit)",
    "Debian12_64": "Debian 12 Bookworm (64-bit)",
    "Ubuntu_64": "Ubuntu (64-bit)",
    "Linux_64": "Other Linux (64-bit)",
    "Other_64": "Other/Unknown (64-bit)",
}
DEFAULTS: Json = {
    "--memory": 128,
    "--cpus": 1,
    "--vram": 8,
    "--description": "",
    "--boot1": "floppy",
    "--boot2": "dvd",
    "--boot3": "disk",
    "--boot4": "none",
    "--chipset": "piix3",
    "--firmware": "bios",
    "--graphicscontroller": "vboxvga",
    **dict.fromkeys(("--acpi", "--x86-pae", "--x86-long-mode"), True),
    **dict.fromkeys(("--ioapic", "--rtc-use-utc", "--audio-enabled"), False),
    **{f"--nic{at}": "none" for at in range(1, 9)},
    **{f"--uart{at}": [] for at in range(1, 5)},
}
LIMITS = {"--memory": ("RAM size", 4, 2097152), "--cpus": ("virtual CPU count", 1, 64), "--vram": ("VRAM size", 0, 256)}
FORBIDDEN = re.compile(r'[\\/:*?"<>|\x00-\x1f]')  # in file names


def createvm(box: Box, given: Given) -> str:
    name, register = given.get("--name"), given.get("--register", False)
    if not name:
        raise Misused("Parameter --name is required")
    kind = given.get("--ostype", "Other_64")
    if kind not in OS_TYPES:
        raise Refused("Unknown or invalid guest OS type given.")
    groups = _groups(given.get("--groups", "/"))
    base = Path(given.get("--basefolder", box.state["machine_folder"]))
    written = FORBIDDEN.sub("_", name)
    file = base.joinpath(*groups[0].strip("/").split("/"), written, f"{written}.vbox").absolute()
    if file.exists():
        line = f"Machine settings file '{file}' already exists"
        raise Refused(line, code="VBOX_E_FILE_ERROR", call="CreateMachine(bstrSettingsFile.raw(), bstrName.raw(), …)")
    id_ = given.get("--uuid") or str(uuid.uuid4())
    machine: Json = {"name": name, "uuid": id_, "ostype": kind, "groups": groups, "file": str(file), "extra": {}}
    machine.update(controllers=[], settings=dict(DEFAULTS), rules={}, stopping=None, unlocking=0, looks=0)
    box.enter(machine, "poweroff")
    if register:
        _check_name(box, name, id_)
        box.machines.append(machine)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"<!-- {id_} -->\n", encoding="utf-8")
    done = "created and registered" if register else "created"
    return f"Virtual machine '{name}' is {done}.\nUUID: {id_}\nSettings file: '{file}'\n"


def _groups(text: str) -> list[str]:
    groups = text.split(",")
    for group in groups:
        if group != "/" and not re.fullmatch(r"(/[^/]+)+", group):
            raise Refused(f"Invalid machine group '{group}'", code="NS_ERROR_INVALID_ARG", interface="IVirtualBox")
    return groups


def _check_name(box: Box, name: str, id_: str) -> None:
    for other in box.machines:
        if name == other["name"] or id_ == other["uuid"]:
            line = f"Registered machine with UUID {{{other['uuid']}}} ('{other['name']}') already exists"
            call = "RegisterMachine(machine)"
            raise Refused(line, code="VBOX_E_INVALID_OBJECT_STATE", interface="IVirtualBox", call=call)


def modifyvm(box: Box, given: Given) -> str:
    if not given.options:
        raise Misused("Not enough parameters")
    machine = box.find_to_write(given.words[0])
    for name, index, value in given.options:
        _set(box, machine, name.replace("#", str(index or "")), index, value)
    return ""


def _set(box: Box, machine: Json, name: str, index: int, value: Any) -> None:
    if name in LIMITS:
        what, least, most = LIMITS[name]
        unit = " MB" if "size" in what else ""
        if not least <= value <= most:
            line = f"Invalid {what}: {value}{unit} (must be in range [{least}, {most}]{unit})"
            raise Refused(line, code="NS_ERROR_INVALID_ARG", interface="SessionMachine", call="COMSETTER")
    if name == "--name":
        _check_name(box, value, "")
        machine["name"] = value
    elif name == "--groups":
        machine["groups"] = _groups(value)
    elif name.startswith("--nat-pf"):
        forward(machine, index, value)
    elif name.startswith("--mac-address"):
        address = new_address() if value.lower() == "auto" else value.upper()
        if not re.fullmatch(r"[0-9A-F][02468ACE][0-9A-F]{10}", address):
            line, part = "Invalid MAC address format", "INetworkAdapter"
            raise Refused(line, code="NS_ERROR_INVALID_ARG", interface=part, call="COMSETTER(MACAddress)")
        machine["settings"][name] = address
    else:
        machine["settings"][name] = value
        if name == f"--nic{index}":
            machine["settings"].setdefault(f"--mac-address{index}", new_address())


def new_address() -> str:
    return f"080027{uuid.uuid4().hex[:6].upper()}"


def forward(machine: Json, nic: int, rule: list[str]) -> None:
    """Adds or removes a port forwarding. They are stored by name, in alphabetical order."""
    rules = machine["rules"].setdefault(str(nic), {})
    bad: Json = {"code": "NS_ERROR_INVALID_ARG", "interface": "INATEngine"}
    if rule[0] == "delete" and len(rule) == 2:
        if rule[1] not in rules:
            line = "Code NS_ERROR_INVALID_ARG (0x80070057) - Invalid argument value (extended info not available)"
            raise Refused(line, call="RemoveRedirect(Bstr(ValueUnion.psz).raw())")
        del rules[rule[1]]
        return
    call = "AddRedirect(Bstr(strName).raw(), proto, Bstr(strHostIp).raw(), …)"
    for name, other in rules.items():
        if name == rule[0]:
            raise Refused("A NAT rule of this name already exists", call=call, **bad)
        if other[1:4] == rule[1:4]:
            line = "A NAT rule for this host port and this host IP already exists"
            raise Refused(line, call=call, **bad)
    rules[rule[0]] = rule
    machine["rules"][str(nic)] = dict(sorted(rules.items()))


def unregistervm(box: Box, given: Given) -> str:
    """Removes its folder only if it is empty. Disks of other machines stay, and discs unless they are asked for."""
    machine = box.find(given.word(0, "VM name required"))
    if box.is_locked(machine):
        line = f"Cannot unregister the machine '{machine['name']}' while it is locked"
        raise Refused(line, code="VBOX_E_INVALID_OBJECT_STATE", call="Unregister(…)", kept=True)
    folder, every = folder_of(machine), given.get("--delete-all", False)
    box.machines.remove(machine)
    attached = {slot["medium"] for slot in slots(machine)}
    freed = [medium for medium in box.media if medium["uuid"] in attached and not box.users(medium)]
    for medium in freed:
        box.media.remove(medium)
        inside = folder in Path(medium["path"]).parents
        if (given.get("--delete") or every) and (medium["device"] == "disk" or (every and inside)):
            Path(medium["path"]).unlink(missing_ok=True)
    if given.get("--delete") or every:
        Path(machine["file"]).unlink(missing_ok=True)
        shutil.rmtree(folder / "Logs", ignore_errors=True)
        if folder.name == FORBIDDEN.sub("_", machine["name"]) and not any(folder.iterdir()):
            folder.rmdir()
        box.progressed()
    return ""


def getextradata(box: Box, given: Given) -> str:
    name = given.word(0, "Incorrect number of parameters")
    extra = box.state["extra"] if name == "global" else box.find(name)["extra"]
    if len(given.words) < 2 or given.words[1] == "enumerate":
        return "".join(f"Key: {key}, Value: {value}\n" for key, value in sorted(extra.items()))
    value = extra.get(given.words[1])
    return f"Value: {value}\n" if value else "No value set!\n"


def setextradata(box: Box, given: Given) -> str:
    name, key = given.word(0, "Not enough parameters"), given.word(1, "Not enough parameters")
    extra = box.state["extra"] if name == "global" else box.find(name)["extra"]
    extra.pop(key, None)
    if len(given.words) > 2 and given.words[2]:
        extra[key] = given.words[2]
    return ""


def listed(box: Box, given: Given) -> str:
    """«VBoxManage list»: vms and runningvms (the others are in other modules)."""
    running = given.words[0] == "runningvms"
    machines = [one for one in box.machines if not running or one["state"] in LIVE]
    if given.get("--sorted"):
        machines.sort(key=lambda one: str(one["name"]))
    return "".join(f'"{one["name"]}" {{{one["uuid"]}}}\n' for one in machines)
