"""Starts and controls machines: «VBoxManage startvm», «VBoxManage controlvm»."""

from __future__ import annotations

import re
from pathlib import Path

from tests.lab.vboxmanage.box import LIVE, Box, folder_of, slots
from tests.lab.vboxmanage.errors import Misused, Refused
from tests.lab.vboxmanage.machines import forward
from tests.lab.vboxmanage.options import Given, rule
from tests.lab.vboxmanage.store import Json


def startvm(box: Box, given: Given) -> str:
    name = given.word(0, "at least one VM name or uuid required")
    machine = box.find(name)
    if box.is_locked(machine):
        line = f"The machine '{machine['name']}' is already locked by a session (or being locked or unlocked)"
        raise Refused(line, code="VBOX_E_INVALID_OBJECT_STATE", call="LaunchVMProcess(…)", kept=True)
    for slot in slots(machine):
        _lock(box, machine, slot)
    for at in range(1, 5):
        mode = machine["settings"].get(f"--uart-mode{at}", [])
        if machine["settings"][f"--uart{at}"] and mode[:1] == ["file"]:
            _open_console(at - 1, Path(mode[1]))
    logs = folder_of(machine) / "Logs"
    logs.mkdir(exist_ok=True)
    (logs / "VBox.log").touch()
    machine["looks"] = 0
    box.enter(machine, "running", "start")
    return f'Waiting for VM "{name}" to power on...\nVM "{name}" has been successfully started.\n'


def _lock(box: Box, machine: Json, slot: Json) -> None:
    medium = next((medium for medium in box.media if medium["uuid"] == slot["medium"]), None)
    if not medium:
        return
    if not Path(medium["path"]).is_file():
        line = f"VD: error VERR_FILE_NOT_FOUND opening image file '{medium['path']}' (VERR_FILE_NOT_FOUND)"
        first = f"Could not open the medium '{medium['path']}'."
        raise Refused(first, line, code="NS_ERROR_FAILURE", interface="IMedium")
    if medium["device"] == "disk" and any(user["state"] in LIVE for user in box.users(medium) if user != machine):
        line = (
            "Locking of attached media failed. A possible reason is that one of the media is attached to a running VM"
        )
        raise Refused(line, code="VBOX_E_INVALID_OBJECT_STATE", interface="SessionMachine")


def _open_console(at: int, file: Path) -> None:
    """Empties the file: each start overwrites it."""
    try:
        file.write_bytes(b"")
    except OSError:
        line = f"RawFile#{at} failed to create the raw output file {file} (VERR_PATH_NOT_FOUND)"
        raise Refused(line, code="NS_ERROR_FAILURE", interface="IConsole") from None


def controlvm(box: Box, given: Given) -> str:
    name, command = given.word(0, "Not enough parameters."), given.word(1, "Not enough parameters.")
    machine = box.find(name)
    if machine["state"] not in LIVE:
        raise Refused(f"Machine '{name}' is not currently running.")
    if natpf := re.fullmatch(r"natpf([1-8])", command):
        _forward(box, machine, int(natpf[1]), given.words[2:])
    elif command not in STATES or len(given.words) > 2:
        raise Misused(f"Invalid parameter '{given.words[-1]}'")
    elif machine["state"] not in STATES[command]:
        line = f"Invalid machine state: {machine['state'].capitalize()}"
        raise Refused(line, code="VBOX_E_INVALID_VM_STATE", interface="IConsole", call=f"{command.capitalize()}()")
    elif command == "poweroff":
        box.progressed()
        box.stop(machine)
    elif command == "acpipowerbutton":
        looks = box.behaviour(machine, "looks_to_stop") or 0
        if looks == 0:
            box.stop(machine)
        elif machine["stopping"] is None:
            machine["stopping"] = looks
    else:
        box.enter(machine, "paused" if command == "pause" else "running")
    return ""


STATES = {"poweroff": LIVE, "acpipowerbutton": ("running",), "pause": ("running",), "resume": ("paused",)}


def _forward(box: Box, machine: Json, nic: int, words: list[str]) -> None:
    if not words:
        raise Misused(f"Missing argument to 'natpf{nic}'.", exit_code=1)
    rest = words[1:]
    try:
        forward(machine, nic, rule(words[0], lambda: rest.pop(0)))
    except (ValueError, IndexError):
        raise Misused(f"Missing or invalid argument to 'natpf{nic}'") from None
    if rest:
        raise Misused("Too many parameters")
    box.tell("forward", machine)
