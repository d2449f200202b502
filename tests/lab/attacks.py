"""The attacks of attacker.py, tried from a terminal of a seat after its student's login."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from tests.lab import attacker
from tests.lab.jupyter_client import Student
from tests.lab.websockets import Page, answer_of_terminal

ATTACKS = Path(attacker.__file__).read_text()
TOO_MUCH = f"{512 + 88} {2048 + 256}"  # processes, and MiB of memory: more than a seat has


def attacks_that_work(row: dict[str, Any]) -> list[str]:
    """What a student can do from a terminal of the seat that no student should."""
    assert Student(row["url"], row["password"]).save("attack.py", ATTACKS) == 201
    command = f"python3 attack.py {TOO_MUCH} >found.txt; echo do''ne"
    asyncio.run(answer_of_terminal(Page(row), command, "done"))
    found = json.loads(Student(row["url"], row["password"]).read("found.txt") or "")
    return [attack for attack, works in found.items() if works]
