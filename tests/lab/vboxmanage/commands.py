"""Carries out one command line: its exit code, stdout and stderr."""

from __future__ import annotations

import copy
import re
import shlex
import time
from collections.abc import Callable
from typing import NamedTuple

from tests.lab.vboxmanage import info, machines, media, running, storage
from tests.lab.vboxmanage.box import Box
from tests.lab.vboxmanage.errors import Misused, Refused
from tests.lab.vboxmanage.manual import COMMANDS, NEW_IN_7_1
from tests.lab.vboxmanage.options import Given
from tests.lab.vboxmanage.store import Json, Store


class Answer(NamedTuple):
    code: int
    out: str
    err: str = ""


def listed(box: Box, given: Given) -> str:
    what = given.word(0, "Missing subcommand")
    if what in ("vms", "runningvms"):
        return machines.listed(box, given)
    if what == "hdds":
        return media.hdds(box)
    if what == "systemproperties":
        return f"{'Default machine folder:':<33}{box.state['machine_folder']}\n"
    raise Misused(f"Unknown subcommand: {what}")


HANDLERS: dict[str, Callable[[Box, Given], str]] = {
    "list": listed,
    "showvminfo": info.showvminfo,
    "createvm": machines.createvm,
    "modifyvm": machines.modifyvm,
    "unregistervm": machines.unregistervm,
    "getextradata": machines.getextradata,
    "setextradata": machines.setextradata,
    "startvm": running.startvm,
    "controlvm": running.controlvm,
    "storagectl": storage.storagectl,
    "storageattach": storage.storageattach,
    "createmedium": media.createmedium,
    "modifymedium": media.modifymedium,
    "clonemedium": media.clonemedium,
    "closemedium": media.closemedium,
    "convertfromraw": media.convertfromraw,
}


def answer(store: Store, arguments: list[str], notify: Callable[[int, Json], str]) -> Answer:
    """`notify`: reports a change of a machine to a port, and returns the error that happened there."""
    store.note(arguments)
    with store.opened() as state:
        fault = _fault(state, shlex.join(arguments))
    if not fault.get("late"):
        time.sleep(fault.get("seconds", 0))
    with store.opened() as state:
        box, before = Box(state), copy.deepcopy((state["machines"], state["media"]))
        try:
            if fault.get("error"):
                raise Refused(*fault["error"].splitlines())
            result = Answer(0, _carry_out(box, arguments), box.progress)
        except Refused as refused:
            result = Answer(refused.exit_code, "", box.progress + refused.text(state["version"]))
            if not refused.kept:
                state["machines"], state["media"] = before
                box.changes.clear()
        port = state["hook"]
    for change in box.changes:
        if failed := notify(port, change):
            result = Answer(70, result.out, f"{result.err}The test's own hook failed: {failed}\n")
    if fault.get("late"):
        time.sleep(fault["seconds"])
    return result


def _carry_out(box: Box, arguments: list[str]) -> str:
    while arguments and arguments[0] in ("-q", "--nologo"):
        arguments = arguments[1:]
    if arguments[:1] in (["--version"], ["-V"], ["-v"]):
        return f"{box.state['version']}\n"
    if not arguments or arguments[0] not in HANDLERS:
        raise Misused(f"Invalid command '{' '.join(arguments[:1])}'")
    command = COMMANDS[arguments[0]]
    new = NEW_IN_7_1 & {argument.partition("=")[0] for argument in arguments}
    if new and box.state["version"].startswith("7.0."):
        raise Misused(f"{command.unknown}: {min(new)}", exit_code=command.option_error)
    return HANDLERS[arguments[0]](box, command.parse(arguments[1:]))


def _fault(state: Json, line: str) -> Json:
    """The first fault that applies to the line; counts its use."""
    for fault in state["faults"]:
        if not re.search(fault["pattern"], line):
            continue
        fault["seen"] += 1
        if fault["seen"] > fault["after"] and (fault["times"] is None or fault["used"] < fault["times"]):
            fault["used"] += 1
            current: Json = fault
            return current
    return {}
