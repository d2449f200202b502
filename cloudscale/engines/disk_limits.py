"""Room for limits: the engine's data on a file system with quotas, on machines that are made for a course."""

from __future__ import annotations

from cloudscale.errors import MachineError
from cloudscale.hosts.facts import script_failure
from cloudscale.hosts.ssh import Connection
from cloudscale.scripts import script

PREPARING = 2400  # seconds for the script, with its waits for other runs and for the machine's packages


def make_room(connection: Connection) -> str:
    """Puts the engine's data on a file system with quotas, before it serves the course. Idempotent.

    Returns why that is not possible ("" if it is so by now, or the machine serves the course already). An engine that
    runs is stopped for it. Raises MachineError.
    """
    name = connection.target.name
    done = connection.run_root(script("engines", "disk-limits.sh"), timeout=PREPARING)
    if done.exit_code:
        raise MachineError(f"{name}: {script_failure(done)}.", "Fix that on the machine, then run again.")
    said = done.stdout.strip()
    return "" if said in ("limited", "used") else said
