from __future__ import annotations

import pytest

from cloudscale.errors import EngineError
from cloudscale.seats import usage
from cloudscale.seats.usage import Sample, Usage, parse_sample, samples, usages
from cloudscale.units import GIB
from tests.unit.fake_stats import ENDED, V1, V2, look
from tests.unit.seats.services import ANN, BOB, Swarm

# --- one look --------------------------------------------------------------------------------


def test_the_statistics_of_an_old_engine_are_read_as_docker_stats_shows_them() -> None:
    sample = parse_sample("c1", V1)
    assert sample and (sample.memory, sample.limit) == (68521984 - 5103616, 2 * GIB)  # total_inactive_file
    assert sample.cpu == pytest.approx(1.505, abs=0.001)


def test_the_statistics_of_a_new_engine_are_read_as_docker_stats_shows_them() -> None:
    sample = parse_sample("c1", V2)
    assert sample and f"{sample.memory / 2**20:.2f}MiB / {sample.limit / 2**30:.2f}GiB" == "12.81MiB / 10.63GiB"
    assert sample.cpu == pytest.approx(3955.66, abs=0.01)


def test_more_cache_than_memory_is_not_taken_off() -> None:
    odd = {**V2, "memory_stats": {"usage": 4096, "limit": GIB, "stats": {"inactive_file": 8192}}}
    sample = parse_sample("c1", odd)
    assert sample and sample.memory == 4096


@pytest.mark.parametrize("stats", [ENDED, {}, {**V2, "memory_stats": None}, {**V2, "cpu_stats": {}}])
def test_a_container_that_has_ended_takes_nothing(stats: dict[str, object]) -> None:
    assert parse_sample("c1", stats) is None


# --- two looks -------------------------------------------------------------------------------


def sample(container: str, second: int, cores: float) -> Sample:
    found = parse_sample(container, look(second, cores=cores, memory=GIB, limit=2 * GIB))
    assert found
    return found


def test_cpu_is_what_was_used_between_two_looks() -> None:
    before, now = {"1": sample("c1", 10, 0.25)}, {"1": sample("c1", 14, 0.25)}
    assert usages(before, now) == {"1": Usage(GIB, 2 * GIB, 0.25)}


@pytest.mark.parametrize(
    "before", [{}, {"1": sample("another", 10, 0.25)}, {"1": sample("c1", 14, 0.25)}], ids=["none", "other", "same"]
)
def test_the_cpu_of_one_look_is_not_known(before: dict[str, Sample]) -> None:
    assert usages(before, {"1": sample("c1", 14, 0.25)}) == {"1": Usage(GIB, 2 * GIB, None)}


# --- an engine -------------------------------------------------------------------------------


def test_all_seats_of_an_engine_are_looked_at(swarm: Swarm) -> None:
    swarm.done([ANN, BOB])
    found = samples(swarm.engine, "bio")
    assert {id: (each.memory, each.limit) for id, each in found.items()} == dict.fromkeys("12", (GIB // 2, 2 * GIB))
    assert samples(swarm.engine, "another") == {}


def test_a_container_that_just_ended_is_left_out(swarm: Swarm, monkeypatch: pytest.MonkeyPatch) -> None:
    swarm.done([ANN, BOB])
    listed = swarm.api.containers()
    swarm.api.containers_ = [each for each in listed if each["Labels"]["cloudscale.student"] == "1"]
    monkeypatch.setattr(swarm.api, "containers", lambda **words: listed)
    assert samples(swarm.engine, "bio").keys() == {"1"}


def test_an_engine_that_answers_nothing_is_an_error(swarm: Swarm, monkeypatch: pytest.MonkeyPatch) -> None:
    swarm.done([ANN, BOB])
    monkeypatch.setattr(usage, "ASKING", -1)
    with pytest.raises(EngineError, match="m1 took too long"):
        samples(swarm.engine, "bio")
    swarm.api.go_down()
    with pytest.raises(EngineError, match="m1"):
        samples(swarm.engine, "bio")
