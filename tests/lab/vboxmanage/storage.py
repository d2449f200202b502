"""Controllers and what is attached to them: «VBoxManage storagectl», «VBoxManage storageattach»."""

from __future__ import annotations

from typing import Any, NamedTuple

from tests.lab.vboxmanage.box import LIVE, Box, slots
from tests.lab.vboxmanage.errors import Misused, Refused
from tests.lab.vboxmanage.media import DEVICES, openable
from tests.lab.vboxmanage.options import Given
from tests.lab.vboxmanage.store import Json


class Bus(NamedTuple):
    kinds: tuple[str, ...]
    """Of controllers; the first one is taken if none is asked for."""
    ports: int
    """The default number of ports."""
    most: int
    devices: int = 1


BUSES = {
    "ide": Bus(("PIIX4", "PIIX3", "ICH6"), 2, 2, 2),
    "sata": Bus(("IntelAhci",), 30, 30),
    "scsi": Bus(("LsiLogic",), 16, 16),
    "pcie": Bus(("NVMe",), 1, 255),
    "virtio": Bus(("VirtioSCSI",), 1, 256),
}
SAME = {"virtio-scsi": "VirtioSCSI", "VirtIO": "VirtioSCSI"}
NO_DISCS = ("pcie",)


def storagectl(box: Box, given: Given) -> str:
    if len(given.words) + len(given.options) < 3:
        raise Misused("Too few parameters")
    machine = box.find_to_write(given.words[0])
    name, bus = given.get("--name"), given.get("--add")
    if not name:
        raise Misused("Storage controller name not specified")
    known = next((one for one in machine["controllers"] if one["name"] == name), None)
    if given.get("--remove") and known:
        machine["controllers"].remove(known)
        return ""
    if bus and known:
        line, call = f"Storage controller named '{name}' already exists", "AddStorageController(Bstr(pszCtl).raw(), …)"
        raise Refused(line, code="VBOX_E_OBJECT_IN_USE", interface="SessionMachine", call=call)
    if bus:
        bus = "virtio" if bus == "virtio-scsi" else bus
        if bus not in BUSES:
            raise Misused(f"Invalid --add argument '{bus}'", exit_code=1, usage=False)
        known = {"name": name, "bus": bus, "kind": BUSES[bus].kinds[0], "ports": BUSES[bus].ports, "slots": {}}
        known["bootable"] = all(other["bus"] != bus for other in machine["controllers"])
        machine["controllers"].append(known)
    if not known:
        line = f"Could not find a storage controller named '{name}'"
        raise Refused(line, code="VBOX_E_OBJECT_NOT_FOUND", interface="SessionMachine", call="GetStorageController")
    kind = SAME.get(given.get("--controller", ""), given.get("--controller", known["kind"]))
    ports, most = given.get("--portcount", known["ports"]), BUSES[known["bus"]].most
    wrong: Json = {"code": "NS_ERROR_INVALID_ARG", "interface": "IStorageController", "call": "COMSETTER"}
    if kind not in BUSES[known["bus"]].kinds:
        raise Refused(f"Invalid controller type: {kind}", **wrong)
    if not 1 <= ports <= most:
        raise Refused(f"Invalid port count: {ports} (must be in range [1, {most}])", **wrong)
    known.update(kind=kind, ports=ports)
    known.update(name=given.get("--rename", name), bootable=given.get("--bootable", known["bootable"]))
    return ""


def storageattach(box: Box, given: Given) -> str:
    machine = box.find(given.word(0, "Not enough parameters"))
    name, medium = given.get("--storagectl"), given.get("--medium")
    if not name:
        raise Misused("Storage controller name not specified")
    controller = next((one for one in machine["controllers"] if one["name"] == name), None)
    if not controller:
        raise Refused(f"Could not find a controller named '{name}'")
    bus = BUSES[controller["bus"]]
    port, device = (_place(given, *of) for of in (("--port", bus.most), ("--device", bus.devices)))
    if medium is None:
        raise Refused("Missing --medium argument")
    kind, slot = DEVICES.get(given.get("--type", "")), f"{port}-{device}"
    present = controller["slots"].get(slot)
    live = machine["state"] in LIVE
    disc = present and present["device"] == "dvd"
    if live and not (disc and medium != "none" and kind in (None, "dvd")):
        line = f"Controller '{name}' does not support hot-plugging"
        raise Refused(line, code="VBOX_E_INVALID_VM_STATE", interface="SessionMachine", call="AttachDevice(…)")
    controller["ports"] = max(controller["ports"], port + 1)
    if medium == "none":
        controller["slots"].pop(slot, None)
    elif medium == "emptydrive":
        _refuse_discs(controller)
        controller["slots"][slot] = {"device": "dvd", "medium": None}
    else:
        kind = kind or (present and present["device"])
        if not kind:
            raise Refused("Argument --type must be specified")
        _attach(box, machine, controller, slot, kind, medium)
    return ""


def _place(given: Given, name: str, most: int) -> int:
    """The number of a port or device, which can be left out if only one exists."""
    number: Any = given.get(name)
    if number is None:
        if most > 1:
            raise Misused(f"{name[2:].capitalize()} not specified")
        return 0
    if number >= most:
        line = f"Invalid {name[2:]}: {number} (must be in range [0, {most - 1}])"
        raise Refused(line, code="NS_ERROR_INVALID_ARG", interface="SessionMachine", call="AttachDevice(…)")
    return int(number)


def _refuse_discs(controller: Json) -> None:
    if controller["bus"] in NO_DISCS:
        raise Refused(f"The given attachment is not supported by the storage controller '{controller['name']}'")


def _attach(box: Box, machine: Json, controller: Json, slot: str, device: str, name: str) -> None:
    """A disk may be attached to several machines, of which one can run (the manual, «Special image write modes»)."""
    if device == "dvd":
        _refuse_discs(controller)
    try:
        medium = openable(box, name, device)
    except Refused as refused:
        refused.after(f'Invalid UUID or filename "{name}"')
        raise
    controller["slots"].pop(slot, None)
    if device == "disk" and any(other["medium"] == medium["uuid"] for other in slots(machine)):
        line = f"Medium '{medium['path']}' is already attached to this virtual machine"
        raise Refused(line, code="VBOX_E_OBJECT_IN_USE", interface="SessionMachine", call="AttachDevice(…)")
    controller["slots"][slot] = {"device": device, "medium": medium["uuid"]}
