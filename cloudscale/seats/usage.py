"""What the seats take of their machine: the engine's statistics of their containers → memory and CPU."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cloudscale.engines.client import CONNECTIONS, Engine, engine_errors
from cloudscale.errors import EngineError
from cloudscale.fanout import fan_out
from cloudscale.outside import date_text, formed
from cloudscale.seats.containers import seat_containers

WIDTH = CONNECTIONS  # containers of one engine that are asked at the same time: 20.10 answers at its next second only
ASKING = 20.0  # seconds for all containers of an engine


def _instant(text: str) -> float:
    return date_text(text).timestamp()


AMOUNT = range(2**64)
STATS = {  # what is needed of an engine's answer
    "read?": _instant,
    "memory_stats?": {
        "usage?": AMOUNT,
        "limit?": AMOUNT,
        "stats?": {"total_inactive_file?": AMOUNT, "inactive_file?": AMOUNT},
    },
    "cpu_stats?": {"cpu_usage?": {"total_usage": AMOUNT}},
}


@dataclass(frozen=True)
class Sample:
    """One look at a container. Sizes are in bytes; `cpu` is what it has used since its start, in seconds of a core.

    `at`: the engine's own clock, in seconds.
    """

    container: str
    at: float
    cpu: float
    memory: int
    limit: int


@dataclass(frozen=True)
class Usage:
    """What a seat takes. `memory` of `limit` is in bytes, `cpu` in cores (None: it was looked at only once)."""

    memory: int
    limit: int
    cpu: float | None = None


def samples(engine: Engine, course: str) -> dict[str, Sample]:
    """Student's id → a look at the container of each seat that runs on the engine. Raises EngineError.

    One that can't be looked at is left out: it may have just ended. With `one-shot`, which API 1.41 brought, an engine
    answers within a second: otherwise it would measure for one or two.
    """
    deadline = time.monotonic() + ASKING

    def one(container: str) -> Sample | None:
        with engine_errors(engine.name):
            if time.monotonic() > deadline:
                raise EngineError(f"The Docker Engine of {engine.name} took too long to answer.")
            return parse_sample(container, engine.api.stats(container, stream=False, one_shot=True))

    running = seat_containers(engine, course)
    looks = fan_out(one, [container.id for container in running.values()], width=WIDTH)
    if looks and len(looks.failed) == len(looks):
        looks.get()
    return {id: look.value for id, look in zip(running, looks, strict=True) if look.value}


def parse_sample(container: str, stats: Mapping[str, Any]) -> Sample | None:
    """What the engine says of a container (docs.docker.com, ContainerStats); None if it has ended.

    Memory is what `docker stats` shows: without what the kernel gives back by itself. cgroup v1 and v2 call that by
    different names (docker/cli, calculateMemUsageUnixNoCache).
    """
    stats = formed(stats, STATS)
    memory, cpu = stats.get("memory_stats") or {}, stats.get("cpu_stats") or {}
    if not stats.get("read") or not memory.get("usage") or not cpu.get("cpu_usage"):
        return None
    parts = memory.get("stats") or {}
    used, cached = memory["usage"], parts.get("total_inactive_file") or parts.get("inactive_file") or 0
    return Sample(
        container=container,
        at=_instant(stats["read"]),
        cpu=cpu["cpu_usage"]["total_usage"] / 10**9,
        memory=used - cached if cached < used else used,
        limit=memory.get("limit") or 0,
    )


def usages(before: Mapping[str, Sample], now: Mapping[str, Sample]) -> dict[str, Usage]:
    """Student's id → what each seat takes: its memory now, its CPU on average between two looks."""
    return {student: Usage(new.memory, new.limit, _cores(before.get(student), new)) for student, new in now.items()}


def _cores(before: Sample | None, now: Sample) -> float | None:
    if before is None or before.container != now.container or now.at <= before.at:
        return None
    return max(0.0, (now.cpu - before.cpu) / (now.at - before.at))
