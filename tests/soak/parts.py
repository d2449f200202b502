"""A class of three hosts in which parts die: what students see and for how long, what `status` says, and what the next
run makes of it.

Run it with `script/soak parts`. It prints a line for each, and ends with exit code 1 if anything was not as it should
be: seats of other machines were disturbed, `status` did not name what was wrong, the next run did not bring all seats
back, or a student's work, password or address was lost.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from tests.hosts.classroom import docker
from tests.lab.hosts import LabHost
from tests.lab.jupyter_client import Student
from tests.lab.running import Running
from tests.soak.on_hosts import Class, Place, called
from tests.soak.table import say
from tests.soak.world import prepared, three_hosts

LOOK = 0.5  # seconds between two looks at a seat
PATIENCE = 180.0  # seconds for what comes back by itself
NOTICED = 20.0  # seconds until the managers know that a machine is gone
MINUTE = 60.0
DISK = "1500m"  # of the second host's engine; tmpfs(5)
FULL = "/var/lib/docker/full"


@dataclass
class Watch:
    """Looks at every seat twice a second, as its student's browser would: does its port answer?"""

    rows: Sequence[dict[str, Any]]
    place: Place
    _down: dict[str, float] = field(default_factory=dict)  # seconds, by student
    _over: threading.Event = field(default_factory=threading.Event)

    @contextlib.contextmanager
    def looking(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._look, args=(row,), daemon=True) for row in self.rows]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join()

    def _look(self, row: dict[str, Any]) -> None:
        with self.place.hosts.namespace.entered():
            last = time.monotonic()
            while not self._over.is_set():
                answers = self._answers(row)
                now = time.monotonic()
                if not answers:
                    self._down[row["student"]] = self._down.get(row["student"], 0.0) + now - last
                last = now
                self._over.wait(LOOK)

    @staticmethod
    def _answers(row: dict[str, Any]) -> bool:
        where = urlsplit(row["url"])
        request = f"GET {where.path}/api HTTP/1.0\r\nHost: {where.netloc}\r\n\r\n"
        try:
            with socket.create_connection((where.hostname, where.port), timeout=2) as seat:
                seat.settimeout(2)
                seat.sendall(request.encode())
                return b" 200 " in seat.recv(64)
        except OSError:
            return False

    def longest(self, node: str) -> tuple[float, float]:
        """Seconds for which the worst seat of a machine did not answer, and the worst one of the others."""
        own = [self._down.get(row["student"], 0.0) for row in self.rows if row["node"] == node]
        others = [self._down.get(row["student"], 0.0) for row in self.rows if row["node"] != node]
        return max(own), max(others)


@dataclass(frozen=True)
class Part:
    """Something that dies on a host. `heal`: what somebody does about it, if it does not come back by itself.

    `lasting`: seconds for which it is left alone. `named`: `status` with these `flags` then has to say what is wrong.
    """

    what: str
    dies: Callable[[LabHost], object]
    heal: Callable[[LabHost], object] | None = None
    lasting: float = 0.0
    named: bool = False
    flags: tuple[str, ...] = ()
    host: int = 2


def kill_container(host: LabHost) -> None:
    docker(host, "kill", docker(host, "ps", "-q", "--filter", "label=cloudscale.student").split()[0])


def restart_engine(host: LabHost) -> None:
    host.run("systemctl", "restart", "docker")


def kill_engine(host: LabHost) -> None:
    host.run("systemctl", "kill", "--signal", "KILL", "docker")


def cut(host: LabHost) -> None:
    """Nothing comes in or goes out any more. What runs inside does not notice."""
    for chain, way in (("INPUT", "-i"), ("OUTPUT", "-o"), ("FORWARD", "-i"), ("FORWARD", "-o")):
        host.run("iptables", "-w", "-I", chain, way, "host0", "-j", "DROP")


def repair(host: LabHost) -> None:
    for chain, way in (("INPUT", "-i"), ("OUTPUT", "-o"), ("FORWARD", "-i"), ("FORWARD", "-o")):
        host.run("iptables", "-w", "-D", chain, way, "host0", "-j", "DROP")


def fill_disk(host: LabHost) -> None:
    """As a student does, or a log: not a byte is left for the engine and its seats."""
    host.run("dd", "if=/dev/zero", f"of={FULL}", "bs=1M", check=False)


def clear_disk(host: LabHost) -> None:
    host.run("rm", FULL)


PARTS = (
    Part("a seat's container is killed", kill_container),
    Part("an engine restarts", restart_engine),
    Part("an engine is killed", kill_engine),
    Part("a machine reboots", LabHost.reboot),
    Part("the first machine reboots", LabHost.reboot, host=0),
    Part("a network is cut for a minute", cut, repair, lasting=MINUTE, named=True),
    Part("the first machine's is", cut, repair, lasting=MINUTE, named=True, host=0),
    Part("a machine is off for a minute", LabHost.kill, LabHost.start, lasting=MINUTE, named=True),
    Part(
        "a disk is full for a minute", fill_disk, clear_disk, lasting=MINUTE, named=True, flags=("--details",), host=1
    ),
)


class Lesson:
    """The course while parts of it die."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.course = Class(place, place.tool("parts"))
        self.tool = self.course.tool
        self.violations = 0
        launched, problems = called(self.tool, *self.course.launch())
        if launched.code or problems:
            raise SystemExit(launched.err)
        self.rows = launched.rows
        self.course.compare(self.rows)
        for row in self.rows:
            self._student(row).save("work.txt", row["student"])

    def _student(self, row: dict[str, Any]) -> Student:
        with self.place.hosts.namespace.entered():
            return Student(row["url"], row["password"])

    def lose(self, part: Part) -> None:
        host = self.place.hosts.hosts[part.host]
        watch = Watch(self.rows, self.place)
        with watch.looking():
            part.dies(host)
            time.sleep(min(part.lasting, NOTICED))
            said, problems = self._status(host, part)
            time.sleep(max(0.0, part.lasting - NOTICED))
            if part.heal:
                part.heal(host)
            problems += self._comes_back()
            begun = time.monotonic()
            problems += self._next_run()  # an engine that comes back may yet replace what answers
            seconds = time.monotonic() - begun
        own, others = watch.longest(host.address)
        if others > 4 * LOOK:
            problems.append(f"seats of other machines were away for {others:.0f} s")
        self._add(part.what, f"{own:.0f} s", said, seconds, problems)

    def _status(self, host: LabHost, part: Part) -> tuple[str, list[str]]:
        done, problems = called(self.tool, "status", *part.flags, "--format", "json")
        states = [row["state"] for row in done.rows] if done.out.startswith("[") else []
        if part.named and host.address not in done.err:
            problems.append(f"status does not name {host.address}: {done.err}")
        return f"exit code {done.code}, {states.count('ready')} of {len(states)} ready", problems

    def _comes_back(self) -> list[str]:
        """Waits until all seats answer by themselves."""
        watch, deadline = Watch(self.rows, self.place), time.monotonic() + PATIENCE
        with self.place.hosts.namespace.entered():
            while left := [row["student"] for row in self.rows if not watch._answers(row)]:
                if time.monotonic() > deadline:
                    return [f"{len(left)} seats did not come back by themselves"]
                time.sleep(LOOK)
        return []

    def _next_run(self) -> list[str]:
        problems = self.course.finished(self.course.launch())
        for row in self.rows:
            if self._student(row).read("work.txt") != row["student"]:
                problems.append(f"the work of {row['student']} is lost")
        return problems

    def sleep(self) -> None:
        """The trainer's laptop sleeps for a minute in the middle of a launch."""
        self.course.enrol(3)
        running = Running(self.tool, *self.course.launch())
        running.until(lambda run: "Seats:" in run.printed)
        running.send(signal.SIGSTOP)
        time.sleep(MINUTE)
        running.send(signal.SIGCONT)
        begun = time.monotonic()
        done = running.result()
        problems = ["a traceback"] if "Traceback" in done.err else []
        said = f"its launch ended with {done.code}"
        problems += self._next_run()
        self._add("the trainer's laptop sleeps", "-", said, time.monotonic() - begun, problems)

    def end(self) -> None:
        problems = self.course.finished(("driver_reset", "--yes"))
        self._add("driver_reset, after all that", "-", "", 0.0, problems)

    def _add(self, what: str, away: str, said: str, seconds: float, problems: Sequence[str]) -> None:
        self.violations += bool(problems)
        outcome = "; ".join(problems) or "ok"
        print(f"{what:<32} {away:>10}  {said:<32} {seconds:6.1f} s  {outcome}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="script/soak parts", description=__doc__, allow_abbrev=False)
    parser.add_argument("--only", action="append", metavar="TEXT", help="those with this in their name; repeatable")
    chosen = parser.parse_args()
    wanted = [part for part in PARTS if not chosen.only or any(text in part.what for text in chosen.only)]
    with prepared(), three_hosts(DISK) as place:
        say("Launching a class of six …")
        lesson = Lesson(place)
        print(f"{'what dies':<32} {'seats away':>10}  {'status then':<32} {'next run':>8}  outcome", flush=True)
        for part in wanted:
            lesson.lose(part)
        if not chosen.only:
            lesson.sleep()
        lesson.end()
    sys.exit(1 if lesson.violations else 0)


if __name__ == "__main__":
    main()
