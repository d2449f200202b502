"""The engine's volumes on a disk of their own, which a cloud attaches to the machine."""

from __future__ import annotations

from cloudscale.errors import MachineError
from cloudscale.hosts.facts import script_failure
from cloudscale.hosts.ssh import Connection
from cloudscale.model import TIMED_OUT
from cloudscale.scripts import script

MOUNTING = 2100  # seconds for the script, with its wait for the machine's packages
KEPT = "its engine has volumes on its own disk already. They stay there, and the work volume is not used."


def mount(connection: Connection, disk_id: str, *, is_used: bool) -> str:
    """Mounts the disk where the engine keeps its volumes. Returns why it was not ("" if it was). Idempotent.

    An engine that runs is stopped for that, unless the disk is mounted already. `disk_id`: the id of the volume in the
    cloud, which the machine sees as the disk's serial. A disk is formatted only if it is empty and was never used.
    Raises MachineError.
    """
    name = connection.target.name
    done = connection.run_root(
        script("engines", "work-volume.sh"), disk_id, "used" if is_used else "new", timeout=MOUNTING
    )
    if done.exit_code == TIMED_OUT:
        raise MachineError(f"{name}: its work volume was not mounted within {MOUNTING} s.", "Run again.")
    if done.exit_code:
        raise MachineError(
            f"{name}: its work volume can't be used: {script_failure(done)}.",
            "Nothing on the volume was changed. Fix that on the machine or in the cloud, then run again.",
        )
    return KEPT if done.stdout.strip() == "kept" else ""
