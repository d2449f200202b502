"""«VBoxManage showvminfo --machinereadable»: lines of name=value, in the order and form of version 7.1."""

from __future__ import annotations

from collections.abc import Iterator

from tests.lab.vboxmanage.box import Box, folder_of
from tests.lab.vboxmanage.errors import Misused
from tests.lab.vboxmanage.machines import OS_TYPES
from tests.lab.vboxmanage.options import Given
from tests.lab.vboxmanage.storage import BUSES
from tests.lab.vboxmanage.store import Json


def showvminfo(box: Box, given: Given) -> str:
    machine = box.find(given.word(0, "VM name or UUID required"))
    if not given.get("--machinereadable"):
        raise Misused("The stand-in knows it with --machinereadable only")
    look(box, machine)
    lines = (f"{name}={quoted(value)}\n" for name, value in _lines(box, machine))
    return "".join(lines)


def look(box: Box, machine: Json) -> None:
    """Each call lets time pass: a machine that should stop stops, and one that should abort aborts."""
    if machine["state"] != "running":
        return
    machine["looks"] += 1
    abort = box.behaviour(machine, "aborts_after")
    if abort is not None and machine["looks"] > abort:
        box.stop(machine, "aborted")
    elif machine["stopping"] is not None and machine["stopping"] > 0:
        machine["stopping"] -= 1
        if not machine["stopping"]:
            box.stop(machine)


def quoted(value: object) -> str:
    if isinstance(value, bool):
        return '"on"' if value else '"off"'
    if isinstance(value, int):
        return str(value)
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _lines(box: Box, machine: Json) -> Iterator[tuple[str, object]]:
    settings = machine["settings"]
    yield "name", machine["name"]
    yield "encryption", "disabled"
    yield "groups", ",".join(machine["groups"])
    if not box.state["version"].startswith("7.0."):
        yield "platformArchitecture", "x86"
    yield "ostype", OS_TYPES[machine["ostype"]]
    yield "UUID", machine["uuid"]
    yield "CfgFile", machine["file"]
    yield "SnapFldr", folder_of(machine) / "Snapshots"
    yield "LogFldr", folder_of(machine) / "Logs"
    yield "hardwareuuid", machine["uuid"]
    for name in ("memory", "vram", "chipset"):
        yield name, settings[f"--{name}"]
    yield "firmware", settings["--firmware"].upper()
    yield "cpus", settings["--cpus"]
    yield "pae", settings["--x86-pae"]
    yield "longmode", settings["--x86-long-mode"]
    for name in ("boot1", "boot2", "boot3", "boot4", "acpi", "ioapic"):
        yield name, settings[f"--{name}"]
    yield "rtcuseutc", settings["--rtc-use-utc"]
    yield "VMState", machine["state"]
    yield "VMStateChangeTime", machine["changed"]
    yield "graphicscontroller", settings["--graphicscontroller"]
    yield from _storage(box, machine)
    for at in range(1, 9):
        yield from _nic(machine, at)
    for at in range(1, 5):
        yield from _uart(settings, at)
    yield "audio", settings.get("--audio-driver", "default") if settings["--audio-enabled"] else "none"
    if settings["--description"]:
        yield "description", settings["--description"]


def _storage(box: Box, machine: Json) -> Iterator[tuple[str, object]]:
    for at, controller in enumerate(machine["controllers"]):
        yield f"storagecontrollername{at}", controller["name"]
        yield f"storagecontrollertype{at}", controller["kind"]
        yield f"storagecontrollerinstance{at}", "0"
        yield f"storagecontrollermaxportcount{at}", str(BUSES[controller["bus"]].most)
        yield f"storagecontrollerportcount{at}", str(controller["ports"])
        yield f"storagecontrollerbootable{at}", controller["bootable"]
    media = {medium["uuid"]: medium for medium in box.media}
    for controller in machine["controllers"]:
        for port in range(controller["ports"]):
            for device in range(BUSES[controller["bus"]].devices):
                slot = controller["slots"].get(f"{port}-{device}")
                medium = media.get(slot["medium"]) if slot else None
                empty = "emptydrive" if slot else "none"
                yield f'"{controller["name"]}-{port}-{device}"', medium["path"] if medium else empty
                if medium:
                    yield f'"{controller["name"]}-ImageUUID-{port}-{device}"', medium["uuid"]


def _nic(machine: Json, at: int) -> Iterator[tuple[str, object]]:
    settings, kind = machine["settings"], machine["settings"][f"--nic{at}"]
    if kind == "none":
        yield f"nic{at}", "none"
        return
    if kind == "nat":
        yield f"natnet{at}", "nat"
    if kind == "intnet":
        yield f"intnet{at}", settings.get(f"--intnet{at}", "intnet")
    yield f"macaddress{at}", settings[f"--mac-address{at}"]
    yield f"cableconnected{at}", settings.get(f"--cable-connected{at}", True)
    yield f"nic{at}", kind
    yield f"nictype{at}", settings.get(f"--nic-type{at}", "82540EM")
    yield f"nicspeed{at}", "0"
    if kind == "nat":
        for number, rule in enumerate(machine["rules"].get(str(at), {}).values()):
            yield f"Forwarding({number})", ",".join(rule)


def _uart(settings: Json, at: int) -> Iterator[tuple[str, object]]:
    if not settings[f"--uart{at}"]:
        yield f"uart{at}", "off"
        return
    base, interrupt = settings[f"--uart{at}"]
    yield f"uart{at}", f"{base:#06x},{interrupt}"
    yield f"uartmode{at}", ",".join(settings.get(f"--uart-mode{at}", ["disconnected"]))
    yield f"uarttype{at}", settings.get(f"--uart-type{at}", "16550A")
