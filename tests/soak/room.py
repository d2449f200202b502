"""A full room: real JupyterLabs on one engine, all logged in to, each with a kernel that works, for ten minutes.

Run it with `script/soak room`.

Each student runs a cell twice a minute, at a moment of her own, and counts in it: an answer that does not go on from
the one before means that a kernel was lost. Meanwhile the trainer looks at `status` each minute. In the end nothing may
have restarted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tornado.websocket import WebSocketClientConnection

from tests.lab.engine import LabEngine
from tests.lab.namespace import Namespace, outside
from tests.lab.tool import Result, Tool
from tests.lab.websockets import Page, close

PAUSE = 30.0  # seconds from one cell of a student to the next
ANSWER = 120.0  # seconds for a cell
CELL = "n = globals().get('n', 0) + 1; print(n, sum(range(200_000)))"


@dataclass
class Seat:
    """What one student saw: the seconds that each cell took, and what went wrong."""

    row: dict[str, Any]
    seconds: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    async def work(self, until: float, moment: float) -> None:
        """Logs in, starts a kernel, and runs cells until the lesson is over; the first `moment` seconds from now."""
        try:
            await asyncio.sleep(moment)
            page = await asyncio.to_thread(Page, self.row)
            kernel = (await asyncio.to_thread(page.ask, "POST", "/api/kernels", json={})).json()["id"]
            line = await page.connect(f"/api/kernels/{kernel}/channels")
            count = 0
            while time.monotonic() < until:
                begun, count = time.monotonic(), count + 1
                printed = await run_cell(line, CELL)
                self.seconds.append(time.monotonic() - begun)
                if printed.split() != [str(count), str(sum(range(200_000)))]:
                    self.faults.append(f"cell {count} printed {printed!r}")
                    count = int(printed.split()[0]) if printed.split()[:1] else 0
                await asyncio.sleep(PAUSE)
            await close(line)
        except Exception as error:  # whatever it was, the others go on, and it is counted
            self.faults.append(repr(error))


async def run_cell(line: WebSocketClientConnection, code: str) -> str:
    """What a cell prints."""
    number = uuid.uuid4().hex
    header = {"msg_id": number, "username": "", "session": number, "msg_type": "execute_request", "version": "5.3"}
    content = {"code": code, "silent": False, "store_history": False, "user_expressions": {}, "allow_stdin": False}
    message = {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"}
    await line.write_message(json.dumps(message))
    printed, is_idle, is_answered = "", False, False
    async with asyncio.timeout(ANSWER):
        while not (is_idle and is_answered):
            if (text := await line.read_message()) is None:
                raise EOFError("the kernel's connection was closed")
            answer = json.loads(text)
            if answer["parent_header"].get("msg_id") != number:
                continue
            printed += answer["content"].get("text", "") if answer["msg_type"] == "stream" else ""
            is_idle |= answer["msg_type"] == "status" and answer["content"]["execution_state"] == "idle"
            is_answered |= answer["msg_type"] == "execute_reply"
    return printed


@dataclass
class Looks:
    """What the trainer saw: the seconds that each `status` took, and what was wrong in it."""

    students: int
    seconds: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    async def look(self, tool: Tool, until: float) -> None:
        while time.monotonic() < until:
            begun = time.monotonic()
            done = await asyncio.to_thread(tool, "status", "--details", "--format", "json")
            self.seconds.append(time.monotonic() - begun)
            self.take(done)
            await asyncio.sleep(max(0.0, 60 - (time.monotonic() - begun)))

    def take(self, done: Result) -> None:
        if done.code or done.err.count("Warning"):
            self.faults.append(f"exit code {done.code}: {done.err}")
            return
        states = [row["state"] for row in done.rows]
        if states != ["ready"] * self.students:
            self.faults.append(f"{states.count('ready')} of {len(states)} seats are ready")
        if restarted := [row["student"] for row in done.rows if row["restarts"]]:
            self.faults.append(f"restarted: {', '.join(restarted)}")


async def lesson(seats: Sequence[Seat], looks: Looks, tool: Tool, minutes: float) -> None:
    until = time.monotonic() + 60 * minutes
    moments = [PAUSE * at / len(seats) for at in range(len(seats))]
    async with asyncio.TaskGroup() as group:
        for seat, moment in zip(seats, moments, strict=True):
            group.create_task(seat.work(until, moment))
        group.create_task(looks.look(tool, until))


def summary(seconds: Sequence[float]) -> str:
    if len(seconds) < 2:
        return f"{len(seconds)} times"
    last = statistics.quantiles(seconds, n=100)[94]
    median = statistics.median(seconds)
    return f"{len(seconds)} times, median {median:.2f} s, 95 % within {last:.2f} s, at most {max(seconds):.2f} s"


@contextmanager
def room(students: int, folder: Path) -> Iterator[tuple[Tool, tuple[str, ...]]]:
    """The tool on an engine of its own with Debian's JupyterLab, and the flags of the launch."""
    namespace = Namespace("soak-room")
    try:
        with namespace.entered():
            engine = LabEngine(folder / "engine", namespace)
            try:
                with outside():  # where packages are
                    built = Tool(engine, folder / "home", {})("image_build", "pydata")
                if built.code:
                    raise SystemExit(built.err)
                roster = folder / "students.csv"
                roster.write_text("".join(f"{number};Student;Number {number};\n" for number in range(students)))
                settings = {"INVOKE_CLOUDSCALE_IMAGE": "pydata", "INVOKE_CLOUDSCALE_SEAT_RESERVE": "256M"}
                yield Tool(engine, folder / "home", settings), ("--students", str(roster))
            finally:
                engine.stop()
    finally:
        namespace.remove()


def main() -> int:
    parser = argparse.ArgumentParser(prog="script/soak room", description=__doc__, allow_abbrev=False)
    parser.add_argument("--students", type=int, default=60)
    parser.add_argument("--minutes", type=float, default=10)
    wanted = parser.parse_args()
    with TemporaryDirectory(prefix="cloudscale-room-") as folder, room(wanted.students, Path(folder)) as (tool, flags):
        print("Launching …", file=sys.stderr, flush=True)
        begun = time.monotonic()
        launched = tool.launch(*flags)
        print(f"launch of {wanted.students}: {time.monotonic() - begun:.0f} s", flush=True)
        with_containers = containers(tool)
        seats, looks = [Seat(row) for row in launched.rows], Looks(wanted.students)
        asyncio.run(lesson(seats, looks, tool, wanted.minutes))
        faults = [f"{seat.row['student']}: {fault}" for seat in seats for fault in seat.faults] + looks.faults
        if containers(tool) != with_containers:
            faults.append("there are other containers than at the beginning")
        print(f"cells: {summary([second for seat in seats for second in seat.seconds])}")
        print(f"status --details: {summary(looks.seconds)}")
        begun = time.monotonic()
        checked = tool("check", "--format", "json")
        good = sum(row["state"] == "ok" for row in checked.rows) if checked.code == 0 else 0
        print(f"check of all seats: {time.monotonic() - begun:.0f} s, {good} of {wanted.students} passed")
        faults += [] if good == wanted.students else [f"check ended with {checked.code}: {checked.err}"]
        gone = tool("driver_reset", "--yes")
        faults += [] if gone.code == 0 else [gone.err]
        print("\n".join([f"{len(faults)} faults", *faults]))
    return 1 if faults else 0


def containers(tool: Tool) -> set[str]:
    assert tool.engine
    return {str(container.id) for container in tool.engine.client.containers.list()}


if __name__ == "__main__":
    sys.exit(main())
