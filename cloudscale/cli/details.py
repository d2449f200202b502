"""How machines and seats are doing, as text: for `status --details` and `status --watch`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta

from cloudscale.cli import report
from cloudscale.cluster.state import Cluster
from cloudscale.model import MachineDetails, Row, SeatDetails
from cloudscale.swarm.joining import REMEMBERED
from cloudscale.units import GIB, gib

KEYS = ("memory", "cpu", "kernels", "last_activity", "restarts")
HISTORY = REMEMBERED - 1  # restarts that Swarm remembers: there may have been more
NEAR = 0.9  # of its memory: the kernel soon ends a process of the seat
URGENCY = ("failed", "starting")  # the states in which nobody can work


def seats(rows: Sequence[Row], details: Sequence[SeatDetails], format: str) -> str:
    """The table of the seats without passwords, with what is known of each; json and csv have numbers in it."""
    keys = [key for key in report.SEAT_KEYS if key != "password"]
    pairs = [(asdict(row), each) for row, each in zip(rows, details, strict=True)]
    if format in ("csv", "json"):
        return report.records([row | _values(each) for row, each in pairs], [*keys, *KEYS], format)
    cells = [row | seat_cells(each) for row, each in pairs]
    return report.records(cells, [*keys, *(heading(key) for key in KEYS)], format)


def _values(details: SeatDetails) -> dict[str, object]:
    last = details.last_activity
    return {
        "memory": details.memory,
        "cpu": None if details.cpu is None else round(details.cpu, 2),
        "kernels": details.kernels,
        "last_activity": last.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if last else None,
        "restarts": details.restarts,
    }


def heading(key: str) -> str:
    return key.replace("_", " ")


def seat_cells(details: SeatDetails) -> dict[str, str]:
    """What is known of a seat, in words; what is not is empty."""
    known = details.memory is not None and details.limit
    memory = f"{_gibs(details.memory or 0)} / {gib(details.limit or 0)}" if known else ""
    return {
        "memory": f"{memory} !" if is_near(details) else memory,
        "cpu": percent(details.cpu),
        "kernels": "" if details.kernels is None else str(details.kernels),
        heading("last_activity"): ago(details.last_activity) if details.last_activity else "",
        "restarts": f"{details.restarts}+" if details.restarts >= HISTORY else str(details.restarts),
    }


def is_near(details: SeatDetails) -> bool:
    """Whether a seat needs almost all the memory that it may have."""
    return bool(details.memory and details.limit and details.memory >= NEAR * details.limit)


def urgency(state: str, details: SeatDetails) -> int:
    """Sorts those first who need help: failed, starting, near the limit of their memory; then all others."""
    return URGENCY.index(state) if state in URGENCY else len(URGENCY) + (not is_near(details))


def percent(cores: float | None) -> str:
    """Cores in use, as `top` shows them: 100 % is one core."""
    return "" if cores is None else f"{100 * cores:.0f} %"


def _gibs(size: int) -> str:
    return f"{size / GIB:.1f}"


def ago(date: datetime, now: datetime | None = None) -> str:
    """How long ago, as `now`, `3 min`, `2 h` or `4 days`."""
    return age((now or datetime.now(UTC)) - date)


def age(time: timedelta) -> str:
    minutes = int(time.total_seconds() // 60)
    if minutes < 1:
        return "now"
    if minutes < 60:
        return f"{minutes} min"
    hours = minutes // 60
    return f"{hours} h" if hours < 48 else f"{hours // 24} days"


def machine_cells(row: Mapping[str, object], details: MachineDetails) -> dict[str, object]:
    """A row of report.machine_rows, with what the seats take of the machine."""
    used = "" if details.memory is None else f"{_gibs(details.memory)} / "
    return {
        **row,
        "cpu": percent(details.cpu),
        "memory": f"{used}{row['memory']}" if row["memory"] else "",
        "free disk": "" if details.free_disk is None else gib(details.free_disk),
    }


def machine_table(cluster: Cluster, details: Mapping[str, MachineDetails], format: str) -> str:
    """The course's machines. `details`: by name."""
    rows = [machine_cells(row, details[str(row["machine"])]) for row in report.machine_rows(cluster)]
    return report.records(
        rows, ("machine", "address", "engine", "cores", "cpu", "memory", "free disk", "seats"), format
    )
