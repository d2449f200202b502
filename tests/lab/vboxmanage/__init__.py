"""A strict stand-in for VBoxManage, of VirtualBox 7: a command that tests can put on a PATH.

It follows chapter 8 of the User Manual, and the output of the real program. It refuses what it does not know.
"""

from __future__ import annotations

import json
import socketserver
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.lab.vboxmanage.box import Box
from tests.lab.vboxmanage.commands import Answer, answer
from tests.lab.vboxmanage.store import VERSION, Json, Store

__all__ = ["Answer", "Change", "VBoxManage"]

PROJECT = Path(__file__).parents[3]
COMMAND = """#!{python} -IS
import sys
sys.path.insert(0, {project!r})
from tests.lab.vboxmanage.__main__ import main
sys.exit(main({folder!r}, *sys.argv[1:]))
"""


@dataclass(frozen=True)
class Change:
    """A change of a machine, reported before its command ends. `event`: start, stop or forward."""

    event: str
    machine: Json

    @property
    def name(self) -> str:
        return str(self.machine["name"])

    @property
    def console(self) -> Path | None:
        """The file to which its first serial port writes."""
        mode = self.machine["settings"].get("--uart-mode1", [])
        return Path(mode[1]) if mode[:1] == ["file"] else None

    @property
    def forwarded(self) -> dict[str, tuple[str, int]]:
        """Rule → address and port at which the host listens."""
        rules = [rule for nic in self.machine["rules"].values() for rule in nic.values()]
        return {name: (address or "0.0.0.0", int(port)) for name, _, address, port, *_ in rules}


class VBoxManage:
    """Uses a folder of its own. The command works inside `with`; `on_change` is called in a thread."""

    def __init__(
        self, folder: Path, *, version: str = VERSION, on_change: Callable[[Change], None] | None = None
    ) -> None:
        self._on_change = on_change
        self._store = Store(folder)
        self.command = folder / "bin" / "VBoxManage"
        self._server = _Server(self._changed) if on_change else None
        self.command.parent.mkdir(parents=True)
        self.command.write_text(
            COMMAND.format(python=sys.executable, project=str(PROJECT), folder=str(folder)), encoding="utf-8"
        )
        self.command.chmod(0o755)
        self._store.create(version, self._server.port if self._server else 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._server:
            self._server.close()

    def __call__(self, *arguments: str) -> Answer:
        """The answer of the command, without a process."""
        return answer(self._store, list(arguments), lambda port, change: self._changed(change))

    @property
    def calls(self) -> list[list[str]]:
        """The arguments of each call, in order."""
        return self._store.calls

    @property
    def machines(self) -> dict[str, Json]:
        """The stored machines, by name."""
        with self._store.opened() as state:
            return {machine["name"]: machine for machine in state["machines"]}

    def fault(
        self,
        pattern: str,
        error: str = "",
        *,
        seconds: float = 0,
        late: bool = False,
        times: int | None = 1,
        after: int = 0,
    ) -> None:
        """Makes commands that match the regular expression fail or hang: `times` of them, after the first `after`.

        `error`: they do nothing and fail with this. `seconds`: how long they hang, before or (`late`) after their work.
        """
        fault = {"pattern": pattern, "error": error, "seconds": seconds, "late": late, "times": times, "after": after}
        with self._store.opened() as state:
            state["faults"].append({**fault, "seen": 0, "used": 0})

    def behave(self, machine: str = "", **numbers: int) -> None:
        """How a machine behaves, or all of them.

        `aborts_after`: it aborts after so many calls of showvminfo. `looks_to_stop`: it stops after so many of them
        once its power button was pressed (0: at once, -1: never). `tries_to_unlock`: how many commands are refused
        after it has stopped.
        """
        assert numbers.keys() <= {"aborts_after", "looks_to_stop", "tries_to_unlock"}
        with self._store.opened() as state:
            state["behaviours"].setdefault(machine, {}).update(numbers)

    def crash(self, machine: str) -> None:
        """Ends a machine as if it had crashed."""
        with self._store.opened() as state:
            box = Box(state)
            box.stop(box.find(machine), "aborted")
        for change in box.changes:
            self._changed(change)

    def _changed(self, change: Json) -> str:
        if self._on_change:
            try:
                self._on_change(Change(change["event"], change["machine"]))
            except Exception as error:  # reported by the command's process
                return repr(error)
        return ""


class _Server:
    """Receives changes from the command's processes, one on each line."""

    def __init__(self, changed: Callable[[Json], str]) -> None:
        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                self.wfile.write(f"{changed(json.loads(self.rfile.readline()))}\n".encode())

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
