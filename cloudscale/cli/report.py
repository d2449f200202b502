"""Outcomes → text. Everything here is pure and returns strings."""

from __future__ import annotations

import csv
import io
import json
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from cloudscale.errors import SwarmError
from cloudscale.model import UNREACHED, CommandResult, Demand, Finding, Machine, Outcome, Outcomes, Row, Seat
from cloudscale.terminal import json_safe, visible
from cloudscale.units import gib, mib

if TYPE_CHECKING:
    from cloudscale.cluster.state import Cluster, Host
    from cloudscale.images.listing import ImageRow
    from cloudscale.plan.placing import Plan
    from cloudscale.seats.address import Addresses

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # a spreadsheet takes the wide ones too
LIKE_HEADING = re.compile(r"^(?=\s*[=＝═﹦꞊⹀]{2})", re.MULTILINE)
LEAST_WIDTH = 24  # characters of a text that goes on in the next line
SEAT_KEYS = ("student", "email", "url", "host", "port", "password", "node", "state")
CHECK_KEYS = ("student", "url", "state", "step", "seconds", "cause")


@dataclass(frozen=True)
class CommandRow:
    """What a command did on one target, as `--format json` has it."""

    target: str
    exit_code: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class CheckRow:
    """How a student's visit went. `state`: `ok` or `failed`; `step`: the one that failed, and `cause` why."""

    student: str
    url: str
    state: str
    step: str
    seconds: float
    cause: str


@dataclass(frozen=True)
class Reaped:
    """What became of a course: `removed`, `kept` or `failed`, and why."""

    course: str
    driver: str
    state: str
    deadline: str = ""
    cause: str = ""


@dataclass(frozen=True)
class Report:
    """What a task has to say: `text` for standard output, `problems` for standard error (any of them: exit code 1)."""

    text: str
    problems: tuple[str, ...] = ()


def records(
    rows: Sequence[Mapping[str, object]], keys: Sequence[str], format: str, *, widths: Mapping[str, int] | None = None
) -> str:
    """Rows as a table in one of tabulate's formats, as csv, or as json.

    `widths`: characters, by key, after which the cells of a `table` go on in the next line.
    """
    if format == "json":
        return _json([{key: row[key] for key in keys} for row in rows])
    if format == "csv":
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(keys)
        writer.writerows([_harmless(row[key]) for key in keys] for row in rows)
        return out.getvalue().rstrip("\n")
    in_cell = _harmless if format == "tsv" else str
    # nothing here is a number to calculate with: a password of digits and an e stays as it is
    limits = widths if widths and format == "table" else {}

    def cell(row: Mapping[str, object], key: str) -> str:
        text = str(in_cell(row[key]))
        return _in_lines(text, limits[key]) if key in limits else _on_one_line(text)

    from tabulate import tabulate

    return tabulate(
        [[cell(row, key) for key in keys] for row in rows],
        headers=list(keys),
        tablefmt="simple" if format == "table" else format,
        disable_numparse=True,
    )


def _on_one_line(cell: str) -> str:
    return visible(cell).replace("\n", "\\n").replace("\t", "\\t")


def _in_lines(cell: str, width: int) -> str:
    # a path or an address stays whole, so that it can be copied
    fill = textwrap.TextWrapper(width, break_long_words=False, break_on_hyphens=False).fill
    return "\n".join(fill(_on_one_line(line)) for line in cell.split("\n"))


def _json(value: object) -> str:
    return json_safe(json.dumps(value, indent=2, ensure_ascii=False))


def _harmless(cell: object) -> object:
    """A cell that a spreadsheet shows and does not run as a formula (owasp.org, CSV Injection)."""
    if not isinstance(cell, str):
        return cell
    return visible(f"'{cell}" if cell.startswith(FORMULA) else cell)


def seats(rows: Sequence[Row], format: str, *, passwords: bool) -> str:
    keys = [key for key in SEAT_KEYS if passwords or key != "password"]
    return records([asdict(row) for row in rows], keys, format)


def checks(rows: Sequence[CheckRow], format: str) -> str:
    return records([asdict(row) for row in rows], CHECK_KEYS, format)


def command_rows(outcomes: Sequence[Outcome[CommandResult]], unreached: int) -> list[CommandRow]:
    """One row a target; one that the command never ran on has the exit code `unreached`."""
    return [
        CommandRow(outcome.target, (result := outcome.get()).exit_code, result.stdout, result.stderr)
        if outcome.ok
        else CommandRow(outcome.target, unreached, "", str(outcome.error))
        for outcome in outcomes
    ]


def commands(rows: Sequence[CommandRow], format: str) -> str:
    """A block for each target, headed by its name; or the rows as csv or json."""
    if format in ("csv", "json"):
        return records([asdict(row) for row in rows], ("target", "exit_code", "stdout", "stderr"), format)
    blocks = []
    for row in rows:
        heading = f"== {row.target} ==" if not row.exit_code else f"== {row.target} (exit code {row.exit_code}) =="
        blocks.append("\n".join(part for part in (heading, _printed(row.stdout), _printed(row.stderr)) if part))
    return "\n\n".join(blocks)


def _printed(text: str) -> str:
    """What a target printed: nothing in it controls the terminal or can be taken for the heading of another target."""
    return LIKE_HEADING.sub("| ", visible(text.rstrip("\n")))


def removed(outcomes: Outcomes[str], format: str) -> Report:
    """What a reset removed, and what it could not."""
    rows = [{"target": outcome.target, "state": outcome.value} for outcome in outcomes if outcome.ok]
    if format in ("csv", "json"):
        return Report(records(rows, ("target", "state"), format), outcomes.problems)
    return Report("\n".join(f"{row['state']} {row['target']}" for row in rows), outcomes.problems)


@dataclass(frozen=True)
class WorkRow:
    """What became of a student's work: `files` and `bytes` of it, and what is wrong with the rest."""

    student: str
    state: str
    files: int
    bytes: int
    cause: str = ""


def work(rows: Sequence[WorkRow], format: str) -> str:
    return records([asdict(row) for row in rows], ("student", "state", "files", "bytes", "cause"), format)


def reaped(rows: Sequence[Reaped], format: str) -> str:
    on_one_line = [{**asdict(row), "cause": " ".join(row.cause.split())} for row in rows]
    return records(on_one_line, ("course", "driver", "state", "deadline", "cause"), format)


def quotas(demands: Sequence[Demand], format: str) -> str:
    """What is needed of each quota, against what is used of it."""
    rows = [
        {
            "resource": demand.resource,
            "need": demand.need,
            "used": demand.used,
            "limit": "none" if demand.limit is None else demand.limit,
        }
        for demand in demands
    ]
    return records(rows, ("resource", "need", "used", "limit"), format)


def plan(plan: Plan, machines: Sequence[Machine], demands: Sequence[Demand], format: str) -> str:
    """What would be made, what it needs, and what the machines have."""
    address = {machine.name: machine.address for machine in machines}
    needs = [
        {
            "machine": need.machine,
            "seats": need.seats,
            "memory needed": gib(need.memory, 2),
            "memory available": gib(need.free_memory, 2),
            "cores needed": f"{need.cores:g}",
            "cores available": need.free_cores,
        }
        for need in plan.needs
    ]
    places = [
        {
            "student": seat.student.full_name,
            "email": seat.student.email,
            "host": address.get(seat.place.machine, ""),  # a machine that is not made yet has none
            "port": seat.place.port,
            "node": seat.place.machine,
        }
        for seat in plan.seats
    ]
    if format == "json":
        numbers = [asdict(need) for need in plan.needs]
        quota = [asdict(demand) for demand in demands]
        return _json({"machines": numbers, "quota": quota, "seats": places})
    keys = ("student", "email", "host", "port", "node")
    if format == "csv":
        return records(places, keys, format)
    tables = [records(needs, list(needs[0]), format), records(places, keys, format)]
    return "\n\n".join([*tables[:1], *([quotas(demands, format)] if demands else []), *tables[1:]])


def machines(rows: Sequence[Mapping[str, object]], format: str) -> str:
    return records(rows, ("machine", "address", "engine", "cores", "memory", "seats"), format)


def images(rows: Sequence[ImageRow], format: str) -> str:
    keys = ("image", "built", "size", "shared", "machines")
    if format == "json":
        return records([asdict(row) for row in rows], keys, format)
    shown = [
        {
            "image": row.image,
            "built": row.built or "no",
            "size": _mebibytes(row.size),
            "shared": _mebibytes(row.shared),
            "machines": ", ".join(row.machines),
        }
        for row in rows
    ]
    return records(shown, keys, format)


def _mebibytes(size: int | None) -> str:
    return mib(size) if size else ""


def examination(findings: Sequence[Finding], format: str, width: int) -> Report:
    """What `doctor` found, in a table of so many characters. What is wrong is a failure."""
    rows = [asdict(finding) for finding in findings]
    keys = ("check", "state", "finding", "remedy")
    first, second = (max(len(key), *(len(str(row[key])) for row in rows)) for key in keys[:2])
    half = max((width - first - second - 6) // 2, LEAST_WIDTH)
    text = records(rows, keys, format, widths={"finding": half, "remedy": half})
    wrong = list(dict.fromkeys(finding.check for finding in findings if finding.state == "wrong"))
    return Report(text, (f"{', '.join(wrong)}: see the table.",) if wrong else ())


def command_report(outcomes: Outcomes[CommandResult], format: str) -> Report:
    """The blocks of a command's targets, and the targets on which it failed."""
    rows = command_rows(outcomes, UNREACHED)
    problems = [
        outcome.problem if not outcome.ok else f"{row.target}: exit code {row.exit_code}"
        for outcome, row in zip(outcomes, rows, strict=True)
        if row.exit_code
    ]
    return Report(commands(rows, format), tuple(problems))


def seat_row(seat: Seat, addresses: Addresses, state: str, password: str | None = None) -> Row:
    """A line of the table."""
    return Row(
        student=seat.student.full_name,
        email=seat.student.email,
        url=addresses.url(seat),
        host=addresses.host(seat),
        port=seat.place.port,
        node=seat.place.machine,
        state=state,
        password=password,
    )


def machine_table(cluster: Cluster, format: str) -> str:
    """The course's machines, each with what it is in the swarm."""
    return machines(machine_rows(cluster), format)


def machine_rows(cluster: Cluster) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for host in cluster.hosts:
        node = host.node
        count = sum(seat.place.machine == host.name for seat in cluster.seats)
        rows.append(
            {
                "machine": host.name,
                "address": host.machine.address,
                "engine": _engine_state(host, cluster),
                "cores": node.cpus if node else "",
                "memory": gib(node.memory) if node else "",
                "seats": "" if cluster.without_quorum else count,  # without a quorum it is not known
            }
        )
    return rows


def _engine_state(host: Host, cluster: Cluster) -> str:
    if host.node is None:
        if isinstance(host.error, SwarmError):
            return "in another swarm"
        return "lost" if host.name in cluster.failures else "not set up"
    if not host.has_quorum:
        return "swarm without quorum"
    if not host.node.id:
        return "in no swarm"
    if host.node.id not in cluster.swarm:  # removed, half joined, or of a swarm that was given up
        return "not in the swarm"
    return "swarm manager" if cluster.swarm[host.node.id].is_manager else "swarm worker"
