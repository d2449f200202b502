"""The state of VirtualBox for one command: its machines and media, and the output of the command."""

from __future__ import annotations

import copy
import datetime
import uuid
from pathlib import Path

from tests.lab.vboxmanage.errors import Refused
from tests.lab.vboxmanage.store import Json

LIVE = ("running", "paused")
FIND = "FindMachine(Bstr(VMNameOrUuid).raw(), machine.asOutParam())"


class Box:
    def __init__(self, state: Json) -> None:
        self.state = state
        self.progress = ""
        """What a successful command prints to stderr."""
        self.changes: list[Json] = []
        """Changes of machines, in order, to be reported to the test."""

    @property
    def machines(self) -> list[Json]:
        machines: list[Json] = self.state["machines"]
        return machines

    @property
    def media(self) -> list[Json]:
        media: list[Json] = self.state["media"]
        return media

    def find(self, name: str) -> Json:
        """By its name or UUID."""
        for machine in self.machines:
            if name == machine["name"] or name.strip("{}").lower() == machine["uuid"]:
                return machine
        line = f"Could not find a registered machine named '{name}'"
        if is_uuid(name):
            line = f"Could not find a registered machine with UUID {{{name.strip('{}').lower()}}}"
        raise Refused(line, code="VBOX_E_OBJECT_NOT_FOUND", interface="IVirtualBox", call=FIND)

    def find_to_write(self, name: str) -> Json:
        """Finds a machine for a command that needs its lock."""
        machine = self.find(name)
        if self.is_locked(machine):
            line = f"The machine '{machine['name']}' is already locked for a session (or being unlocked)"
            raise Refused(line, code="VBOX_E_INVALID_OBJECT_STATE", call="LockMachine(…, LockType_Write)", kept=True)
        return machine

    def is_locked(self, machine: Json) -> bool:
        """Whether it runs, or the test wants it to be locked after that."""
        if machine["state"] in LIVE:
            return True
        machine["unlocking"] = max(0, machine["unlocking"] - 1)
        return bool(machine["unlocking"])

    def behaviour(self, machine: Json, name: str) -> int | None:
        """The value that the test set for the machine, or for all machines."""
        behaviours = self.state["behaviours"]
        value: int | None = behaviours.get(machine["name"], {}).get(name, behaviours.get("", {}).get(name))
        return value

    def enter(self, machine: Json, state: str, event: str = "") -> None:
        machine["state"] = state
        machine["changed"] = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000")
        if event:
            self.tell(event, machine)

    def stop(self, machine: Json, state: str = "poweroff") -> None:
        machine["stopping"] = None
        machine["unlocking"] = (self.behaviour(machine, "tries_to_unlock") or 0) + 1
        self.enter(machine, state, "stop")

    def tell(self, event: str, machine: Json) -> None:
        self.changes.append({"event": event, "machine": copy.deepcopy(machine)})

    def users(self, medium: Json) -> list[Json]:
        """The machines that it is attached to."""
        return [one for one in self.machines if any(slot["medium"] == medium["uuid"] for slot in slots(one))]

    def progressed(self) -> None:
        self.progress += "0%...10%...20%...30%...40%...50%...60%...70%...80%...90%...100%\n"


def slots(machine: Json) -> list[Json]:
    return [slot for controller in machine["controllers"] for slot in controller["slots"].values()]


def is_uuid(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return "-" in text


def folder_of(machine: Json) -> Path:
    return Path(machine["file"]).parent
