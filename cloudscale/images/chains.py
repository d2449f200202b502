"""Who gets an image from whom: all machines that wait while one that has it is free get it in one chain.

Each of them passes it on while it receives it, so it takes them about as long as one. A machine that a chain did not
reach gets one of its own. Nothing here sends anything.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from cloudscale.engines.client import Engine
from cloudscale.errors import CloudscaleError
from cloudscale.model import Survey

SENDS = 2  # from one machine at the same time: an engine may write each of them to its disk first
LONGEST = 32  # machines in a chain: each logs in to the next one when the one before has
GATHERING = 1.0  # seconds in which machines that come at the same time find each other
WAITING = 3600.0  # seconds for the image to arrive on a first machine
ARRIVING = 4000.0  # seconds for a chain: it has limits of its own, for its doors and for the image


@dataclass(eq=False)
class Stop:
    """A machine that waits for the image. `avoid`: it did not get it from that one, and wants a chain of its own."""

    engine: Engine
    survey: Survey
    avoid: Engine | None = None
    chain: Chain | None = None
    is_done: bool = False
    error: Exception | None = None

    @property
    def name(self) -> str:
        return self.engine.name


@dataclass(eq=False)
class Chain:
    """Machines that get the image from a source, each from the one before. The last one's thread carries it out."""

    source: Engine
    stops: Sequence[Stop]
    is_read: bool = False  # all of it has left the source

    def before(self, stop: Stop) -> Engine:
        """The machine from which another one gets it."""
        return next((here.engine for here, behind in pairwise(self.stops) if behind is stop), self.source)


class Chains:
    """Machines that wait for one image, and those that have it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._sources: dict[str, Engine] = {}
        self._sends: Counter[str] = Counter()  # machine → how many chains it is sending the image to
        self._waiting: list[Stop] = []
        self._is_uploading = False  # from the trainer's computer to a first machine
        self._failure: CloudscaleError | None = None

    @property
    def has_source(self) -> bool:
        return bool(self._sources)

    def add_source(self, engine: Engine) -> None:
        with self._changed:
            self._sources[engine.name] = engine
            self._changed.notify_all()

    def join(self, stop: Stop) -> Chain | None:
        """Waits for a chain that takes the machine along, or for a machine to start one from.

        None: it is to be uploaded to this one. Raises the failure of an upload that no other could do better.
        """
        with self._changed:
            self._waiting.append(stop)
            self._wait_for_turn(stop)
            if stop.chain:
                return stop.chain
            self._waiting.remove(stop)
            if source := self._free_source(stop.avoid):
                return self._begin(source, stop)
            if self._failure:
                raise self._failure
            self._is_uploading = True
            return None

    def _wait_for_turn(self, stop: Stop) -> None:
        """Until a chain takes it along, or it is to begin one or to be uploaded to."""

        def is_due() -> bool:
            return bool(stop.chain or self._failure or self._free_source() or not self._is_expected())

        came = time.monotonic()
        self._changed.wait_for(is_due, WAITING)
        if self._free_source() and not stop.avoid:
            self._changed.wait_for(lambda: stop.chain, came + GATHERING - time.monotonic())
            self._changed.wait_for(is_due, WAITING)  # one that waits for nobody may have taken that source

    def _begin(self, source: Engine, stop: Stop) -> Chain:
        others = [] if stop.avoid else [other for other in self._waiting if not other.avoid][: LONGEST - 1]
        chain = Chain(source, [*others, stop])
        for taken in chain.stops:
            taken.chain = chain
        self._waiting = [other for other in self._waiting if not other.chain]
        self._sends[source.name] += 1
        self._changed.notify_all()
        return chain

    def wait(self, stop: Stop) -> None:
        """Until its chain has reached it, or is known not to."""
        with self._changed:
            self._changed.wait_for(lambda: stop.is_done, ARRIVING)

    def arrived(self, stop: Stop) -> None:
        """It has the image. So all of it has left the chain's source, which is free for the next one."""
        with self._changed:
            assert stop.chain
            stop.is_done = True
            self._sources[stop.name] = stop.engine
            self._release(stop.chain)

    def ended(self, chain: Chain, errors: Mapping[str, Exception]) -> None:
        with self._changed:
            for stop in chain.stops:
                if not stop.is_done:
                    stop.error = errors.get(stop.name)
                    stop.is_done = True
            self._release(chain)

    def _release(self, chain: Chain) -> None:
        if not chain.is_read:
            chain.is_read = True
            self._sends[chain.source.name] -= 1
        self._changed.notify_all()

    @contextlib.contextmanager
    def source_for(self, stop: Stop) -> Iterator[Engine]:
        """Reserves a machine to send the image from to one that its chain did not reach."""
        with self._changed:
            assert stop.chain
            self._changed.wait_for(self._free_source, WAITING)
            source = self._free_source() or stop.chain.source
            self._sends[source.name] += 1
        try:
            yield source
        finally:
            with self._changed:
                self._sends[source.name] -= 1
                self._changed.notify_all()

    def uploaded(self, engine: Engine) -> None:
        """It has the image from the trainer's computer."""
        with self._changed:
            self._is_uploading = False
            self.add_source(engine)

    def upload_failed(self, failure: CloudscaleError | None) -> None:
        """`failure`: that of all others, too. Else the next one tries it."""
        with self._changed:
            self._is_uploading = False
            self._failure = failure
            self._changed.notify_all()

    def _free_source(self, avoid: Engine | None = None) -> Engine | None:
        """A machine that has the image and can send it once more; of several, the least busy one."""
        free = [engine for name, engine in self._sources.items() if self._sends[name] < SENDS]
        return min(free, key=lambda engine: (engine is avoid, self._sends[engine.name]), default=None)

    def _is_expected(self) -> bool:
        return self._is_uploading or bool(self._sources)
