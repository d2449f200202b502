"""Who gets an image from whom."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from cloudscale.engines.client import Engine
from cloudscale.errors import ImageError, MachineError
from cloudscale.images import chains
from cloudscale.images.chains import Chain, Chains, Stop
from cloudscale.model import Survey
from cloudscale.waiting import poll
from tests.unit.fakes import fake_apis, fake_engine

SOON = 10  # seconds


def engine(name: str) -> Engine:
    return fake_engine(fake_apis(name)[0], name=name)


def stop(name: str, avoid: Engine | None = None) -> Stop:
    made = engine(name)
    return Stop(made, Survey(made.machine, "10.0.0.1"), avoid)


class Threads:
    """Machines that come each in a thread of its own, and the chains that they got."""

    def __init__(self) -> None:
        self.chains = Chains()
        self.got: dict[str, Chain | Exception | None] = {}

    def come(self, *stops: Stop) -> None:
        for one in stops:
            threading.Thread(target=self._join, args=(one,), daemon=True).start()
            self.until(lambda one=one: one.name in self.got or one in self.chains._waiting)  # type: ignore[misc]

    def _join(self, one: Stop) -> None:
        try:
            self.got[one.name] = self.chains.join(one)
        except Exception as error:
            self.got[one.name] = error

    def until(self, condition: Callable[[], bool]) -> None:
        assert poll(condition, timeout=SOON, interval=0.01), self.got

    def chain(self, name: str) -> Chain:
        self.until(lambda: name in self.got)
        found = self.got[name]
        assert isinstance(found, Chain)
        return found

    def way(self, name: str) -> list[str]:
        chain = self.chain(name)
        return [chain.source.name, *(one.name for one in chain.stops)]


@pytest.fixture
def threads() -> Iterator[Threads]:
    yield Threads()


def test_those_that_wait_when_a_machine_has_it_get_it_in_one_chain(threads: Threads) -> None:
    threads.come(stop("m1"))
    threads.until(lambda: "m1" in threads.got)
    assert threads.got["m1"] is None  # it is the one that the image is uploaded to
    threads.come(stop("m2"), stop("m3"), stop("m4"))
    assert list(threads.got) == ["m1"]
    threads.chains.uploaded(engine("m1"))
    assert sorted(threads.way("m2")) == ["m1", "m2", "m3", "m4"]
    assert threads.chain("m2") is threads.chain("m3") is threads.chain("m4")


def test_machines_that_come_at_the_same_time_find_each_other(threads: Threads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chains, "GATHERING", 1.5)
    threads.chains.add_source(engine("m1"))
    threads.come(stop("m2"), stop("m3"))
    assert threads.way("m2") == threads.way("m3")
    assert len(threads.way("m2")) == 3


def test_one_that_comes_later_does_not_wait_for_a_chain_that_is_under_way(threads: Threads) -> None:
    threads.chains.add_source(engine("m1"))
    threads.come(stop("m2"))
    assert threads.way("m2") == ["m1", "m2"]
    threads.come(stop("m3"))
    assert threads.way("m3") == ["m1", "m3"]
    threads.come(stop("m4"))  # it would be a third one from there
    assert "m4" not in threads.got
    threads.chains.arrived(threads.chain("m2").stops[0])
    assert threads.way("m4") == ["m2", "m4"]


def test_a_source_is_free_once_the_first_of_a_chain_has_it_all(threads: Threads) -> None:
    threads.come(stop("m1"))
    threads.come(stop("m2"), stop("m3"))
    threads.chains.uploaded(engine("m1"))
    chain = threads.chain("m2")
    threads.chains.arrived(chain.stops[0])
    threads.chains.arrived(chain.stops[1])
    threads.chains.ended(chain, {})
    assert threads.chains._sends["m1"] == 0


def test_a_chain_is_not_endless(threads: Threads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chains, "LONGEST", 2)
    threads.come(stop("m1"))
    threads.come(*(stop(f"m{number}") for number in range(2, 6)))
    threads.chains.uploaded(engine("m1"))
    assert sorted(len(threads.way(f"m{number}")) for number in range(2, 6)) == [3, 3, 3, 3]


def test_one_that_a_chain_did_not_reach_gets_one_of_its_own_from_another_machine(threads: Threads) -> None:
    first = engine("m1")
    threads.chains.add_source(first)
    threads.chains.add_source(engine("m2"))
    threads.come(stop("m3", avoid=first))
    threads.come(stop("m4", avoid=first))
    assert threads.way("m3") == ["m2", "m3"]
    assert threads.way("m4") == ["m2", "m4"]
    threads.come(stop("m5", avoid=first))
    assert threads.way("m5") == ["m1", "m5"]  # rather than none


def test_one_whose_source_was_taken_while_it_waited_for_others_waits_for_the_next(
    threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chains, "SENDS", 1)
    monkeypatch.setattr(chains, "GATHERING", 0.5)
    source = engine("m1")
    threads.chains.add_source(source)
    threads.come(stop("m2"))
    threads.come(stop("m3", avoid=source))  # it waits for nobody, and takes nobody along
    assert threads.way("m3") == ["m1", "m3"]
    time.sleep(1.0)
    assert "m2" not in threads.got  # above all it is not uploaded to, where another machine has it
    threads.chains.arrived(threads.chain("m3").stops[0])
    threads.chain("m2")


def test_the_machine_from_which_another_one_gets_it() -> None:
    first, second = stop("m2"), stop("m3")
    chain = Chain(engine("m1"), [first, second])
    assert chain.before(first) is chain.source
    assert chain.before(second) is first.engine


def test_who_has_it_is_done_though_the_chain_breaks_behind(threads: Threads) -> None:
    threads.come(stop("m1"))
    threads.come(stop("m2"), stop("m3"))
    threads.chains.uploaded(engine("m1"))
    chain = threads.chain("m2")
    before, behind = chain.stops
    threads.chains.arrived(before)
    threads.chains.wait(before)
    error = MachineError("cut off")
    threads.chains.ended(chain, {before.name: error, behind.name: error})
    threads.chains.wait(behind)
    assert (before.error, behind.error) == (None, error)


def test_a_failed_upload_is_tried_by_the_next_one_unless_nobody_has_the_image(threads: Threads) -> None:
    threads.come(stop("m1"))
    threads.come(stop("m2"), stop("m3"))
    threads.chains.upload_failed(None)
    threads.until(lambda: len(threads.got) == 2)
    assert [threads.got[name] for name in list(threads.got)] == [None, None]
    threads.chains.upload_failed(ImageError("nobody has it"))
    threads.until(lambda: len(threads.got) == 3)
    assert isinstance(list(threads.got.values())[-1], ImageError)


def test_what_goes_through_this_computer_is_limited_as_well(threads: Threads) -> None:
    threads.chains.add_source(engine("m1"))
    threads.come(stop("m2"))
    one = threads.chain("m2").stops[0]
    threads.chains.ended(threads.chain("m2"), {"m2": MachineError("cut off")})
    with threads.chains.source_for(one) as source, threads.chains.source_for(one):
        assert source.name == "m1"
        threads.come(stop("m3"))
        assert "m3" not in threads.got
    assert threads.way("m3") == ["m1", "m3"]
