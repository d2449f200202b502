"""The attacks of attacker.py, tried from a terminal of a seat after its student's login."""

from __future__ import annotations

import asyncio
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.lab import attacker
from tests.lab.jupyter_client import Student
from tests.lab.websockets import Page, answer_of_terminal

ATTACKS = Path(attacker.__file__).read_text()
Place = tuple[str, int]  # address and port


def attack(places: Sequence[Place], *, disk: int = 0, only: str = "") -> str:
    """What follows `python3 FILE` in a shell. `places`: that no seat may reach. `disk`: MiB, where a seat has fewer."""
    more = {"processes": 512 + 88, "memory": 2048 + 256}  # than a seat has, in MiB
    return shlex.quote(json.dumps({**more, "places": places, "disk": disk, "only": only}))


def attacks_that_work(row: dict[str, Any], places: Sequence[Place] = (), *, disk: int = 0, only: str = "") -> list[str]:
    """What a student can do from a terminal of the seat that no student should."""
    assert Student(row["url"], row["password"]).save("attack.py", ATTACKS) == 201
    command = f"python3 attack.py {attack(places, disk=disk, only=only)} >found.txt; echo do''ne"
    asyncio.run(answer_of_terminal(Page(row), command, "done"))
    found = json.loads(Student(row["url"], row["password"]).read("found.txt") or "")
    assert found
    return [attack for attack, works in found.items() if works]
