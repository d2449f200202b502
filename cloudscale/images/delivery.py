"""Brings the notebook image to every machine: all pull it at once, or it is sent to one and passed on from there.

An image that cloudscale builds is never pulled, nor one that only the trainer's engine has: in a registry, others could
publish one with its name. Machines pass it on among themselves (`chains` plans that, `engines.passing` does it), so the
trainer's line carries it once. Where they can't, it goes from one engine's API to the other's through this computer,
chunk by chunk.
"""

from __future__ import annotations

import contextlib
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from docker.errors import APIError

from cloudscale.course import naming
from cloudscale.engines.client import Engine, engine_errors, failure
from cloudscale.errors import CloudscaleError, EngineError, ImageError
from cloudscale.images.chains import Chain, Chains, Stop
from cloudscale.images.on_engine import BytesDone, EngineImage, find_image, only_here, other_architecture, pull_image
from cloudscale.images.recipes import is_ours, short_name
from cloudscale.model import Machine, Outcomes, Say, Survey
from cloudscale.units import GIB, gib, mib

# Copies an image from one machine through others; see drivers.protocols.
Copy = Callable[[Machine, Sequence[Machine], str, Callable[[int], None], Callable[[str], None]], Outcomes[None]]

LEAST_FREE = GIB // 2  # bytes of free disk for an image whose size is not known yet
SENDING = 3600.0  # seconds for an image through this computer


@dataclass(frozen=True)
class Sources:
    """Where machines can get an image from, other than a registry.

    `trainer` returns the engine of the trainer's computer, or None. `engines`: machines that answer already.
    `copy` copies between machines; None if the only machine is the trainer's own engine.
    """

    trainer: Callable[[], Engine | None]
    engines: Iterable[Engine] = ()
    copy: Copy | None = None


class Delivery:
    """One image of one launch; every machine calls `deliver` as soon as its engine answers."""

    def __init__(self, reference: str, course: str, sources: Sources, *, bytes_done: BytesDone, say: Say) -> None:
        self._reference = reference
        self._course = course
        self._others = sources
        self._is_ours = is_ours(reference)
        self._report = bytes_done
        self._say = say
        self._lock = threading.RLock()
        self._bytes: dict[str, tuple[int, int]] = {}
        self._chains = Chains()
        self._first: dict[str, EngineImage] = {}  # architecture → the image that all machines get
        self._trainer: tuple[Engine, EngineImage] | None = None
        self._trainer_asked = False
        self._only_here: bool | None = None

    def deliver(self, engine: Engine, survey: Survey) -> str:
        """Brings the image to a machine unless it has it, and returns its pinned name.

        Raises RequestError, ImageError, EngineError, MachineError.
        """
        image = find_image(engine, self._reference)
        # cloudscale's own may have been built again since
        newest = self._image_of_trainer() if self._is_ours else None
        if image is None or (newest and not image.is_same(newest[1])):
            self._bring(engine, survey)
            image = find_image(engine, self._reference)
            if image is None or (newest and not image.is_same(newest[1])):
                raise ImageError(f"The image {self._reference} did not arrive on {engine.name}.", "Run again.")
            if self._others.copy:  # the trainer's own engine keeps its images when the course ends
                tag_delivered(engine, self._reference, self._course)
        with self._lock:
            first = self._first.setdefault(image.architecture, image)
        if image.is_same(first):
            self._chains.add_source(engine)
        return image.pinned if image.is_same(first) else self._replaced(engine, survey, first)

    def _replaced(self, engine: Engine, survey: Survey, first: EngineImage) -> str:
        """Gives a machine the image of the first one: the tag moved in between, or it had another build."""
        reference = first.digest if first.from_registry else self._reference
        if first.from_registry:
            pull_image(engine, reference, self._advance(engine.name))
        else:
            self._receive(engine, survey)
        image = find_image(engine, reference)
        if image is None or not image.is_same(first):
            raise ImageError(
                f"{engine.name}: it has another image {self._reference} than the first machine.",
                f"Remove it on that machine (docker image rm {self._reference}), then run again.",
            )
        return image.pinned

    def _bring(self, engine: Engine, survey: Survey) -> None:
        refusal: CloudscaleError | None = None
        if not self._is_ours and not self._only_the_trainer_has_it(engine):
            self._check_disk(engine, survey, LEAST_FREE)
            try:
                pull_image(engine, self._reference, self._advance(engine.name))
                return
            except ImageError as error:
                refusal = error
        self._ask_machines()
        self._receive(engine, survey, refusal)

    def _receive(self, engine: Engine, survey: Survey, refusal: CloudscaleError | None = None) -> None:
        """From a machine, with all that wait for it; if that fails, alone; then through this computer.

        `refusal`: why no registry has the image.
        """
        avoid = None
        while True:
            stop = Stop(engine, survey, avoid)
            try:
                chain = self._chains.join(stop)
            except CloudscaleError as failure:
                raise refusal or failure from None
            if chain is None:
                self._upload_first(engine, survey, refusal)
                return
            error = self._carried(stop, chain)
            if error is None:
                return
            if len(chain.stops) == 1:
                break
            avoid = chain.before(stop)  # perhaps that one, or one in front of it, was in its way
        self._say(f"Image: {error.message} It goes through this computer instead.")
        with self._chains.source_for(stop) as source:
            self._send(source, engine)

    def _carried(self, stop: Stop, chain: Chain) -> CloudscaleError | None:
        """What kept the image from the machine. Raises what no other way would change."""
        if chain.stops[-1] is stop:
            self._carry_out(chain)
        self._chains.wait(stop)
        if isinstance(stop.error, CloudscaleError) and not isinstance(stop.error, ImageError):
            return stop.error
        if stop.error:
            raise stop.error
        return None

    def _carry_out(self, chain: Chain) -> None:
        errors: dict[str, Exception] = {}
        try:
            image = find_image(chain.source, self._reference)
            fitting: dict[str, Stop] = {}
            for stop in chain.stops:
                try:
                    self._check_disk(stop.engine, stop.survey, image.room if image else 0)
                    fitting[stop.name] = stop
                except ImageError as error:
                    errors[stop.name] = error
            if fitting:
                errors |= self._pass(chain, fitting, image.size if image else 0).errors
        except CloudscaleError as error:  # of the source
            errors = {**{stop.name: error for stop in chain.stops}, **errors}
        finally:
            self._chains.ended(chain, errors)

    def _pass(self, chain: Chain, stops: Mapping[str, Stop], size: int) -> Outcomes[None]:
        for here, behind in pairwise([chain.source.name, *stops]):
            self._say(f"Image: copying it from {here} to {behind} ({mib(size)})")
        advance = self._advance(*stops)
        assert self._others.copy
        return self._others.copy(
            chain.source.machine,
            [stop.engine.machine for stop in stops.values()],
            self._reference,
            lambda done: advance(done, max(size, done)),
            lambda name: self._chains.arrived(stops[name]),
        )

    def _upload_first(self, engine: Engine, survey: Survey, refusal: CloudscaleError | None) -> None:
        """The others wait meanwhile."""
        failure: CloudscaleError | None = None
        has_arrived = False
        try:
            self._upload(engine, survey, refusal)
            has_arrived = True
        except CloudscaleError as error:
            # if nobody has the image, all others fail as well; any other failure is this machine's own
            failure = None if self._image_of_trainer() else error
            raise
        finally:
            if has_arrived:
                self._chains.uploaded(engine)
            else:
                self._chains.upload_failed(failure)

    def _ask_machines(self) -> None:
        """Looks for a machine that has the image but has not called `deliver` yet."""
        if self._chains.has_source:
            return
        for engine in self._others.engines:
            with contextlib.suppress(EngineError):
                image = find_image(engine, self._reference)
                if image and (self._trainer is None or image.is_same(self._trainer[1])):
                    self._chains.add_source(engine)
                    return

    def _upload(self, engine: Engine, survey: Survey, refusal: CloudscaleError | None) -> None:
        trainer = self._image_of_trainer()
        if trainer is None:
            raise refusal or ImageError(
                f"The image {self._reference} is neither on {engine.name} nor on this computer's engine.",
                f"Build it here first: invoke image_build {short_name(self._reference)}.",
            )
        own, image = trainer
        if architecture := other_architecture(engine, image):
            raise ImageError(
                f"The image {self._reference} on this computer is built for {image.architecture},"
                f" but {engine.name} has {architecture}.",
                f"Use an image from a registry, or build it on a computer that has {architecture}.",
            )
        self._check_disk(engine, survey, image.room)
        self._say(f"Image: sending it from this computer to {engine.name} ({mib(image.size)})")
        self._send(own, engine)

    def _send(self, source: Engine, engine: Engine) -> None:
        """From the API of one engine to that of another; never more than a few chunks of it are here."""
        image = find_image(source, self._reference)
        size = image.size if image else 0
        with engine_errors(source.name):
            saved = source.api.get_image(self._reference)
        counted = _counted(saved, size, self._advance(engine.name), source.name, time.monotonic() + SENDING)
        with engine_errors(engine.name):
            for event in engine.api.load_image(_compressed(counted), quiet=False):
                if error := failure(event):
                    raise EngineError(
                        f"{engine.name}: the image can't be loaded: {error.rstrip('.')}.",
                        "Run again. If it fails again, read the engine's log on that machine: journalctl -u docker.",
                    )

    def _only_the_trainer_has_it(self, engine: Engine) -> bool:
        trainer = self._image_of_trainer()
        return bool(trainer and self._is_only_here(*trainer) and not other_architecture(engine, trainer[1]))

    def _is_only_here(self, own: Engine, image: EngineImage) -> bool:
        """Whether no registry has the trainer's image; asked once."""
        with self._lock:
            if self._only_here is None:
                self._only_here = only_here(own, image)
            return self._only_here

    def _image_of_trainer(self) -> tuple[Engine, EngineImage] | None:
        """The engine of the trainer's computer and the image on it; asked once."""
        with self._lock:
            if not self._trainer_asked:
                self._trainer_asked = True
                with contextlib.suppress(EngineError):  # the computer need not have an engine
                    own = self._others.trainer()
                    image = find_image(own, self._reference) if own else None
                    self._trainer = (own, image) if own and image else None
            return self._trainer

    def _check_disk(self, engine: Engine, survey: Survey, needed: int) -> None:
        if survey.free_disk is not None and survey.free_disk < needed:
            raise ImageError(
                f"{engine.name}: its disk has {gib(survey.free_disk)} free, but the image {self._reference}"
                f" needs {gib(needed)} while it is unpacked.",
                "Free disk space on that machine (docker system df shows what uses it), then run again.",
            )

    def _advance(self, *names: str) -> BytesDone:
        def advance(done: int, of: int) -> None:
            with self._lock:
                self._bytes.update(dict.fromkeys(names, (done, of)))
                self._report(*map(sum, zip(*self._bytes.values(), strict=True)))

        return advance


def _counted(chunks: Iterable[bytes], size: int, advance: BytesDone, source: str, deadline: float) -> Iterator[bytes]:
    """The chunks as they pass. Raises EngineError, which names the source if it fails, and at the deadline."""
    done = 0
    with engine_errors(source):
        for chunk in chunks:
            yield chunk
            done += len(chunk)
            advance(done, max(size, done))
            if time.monotonic() > deadline:
                raise EngineError(
                    f"The image from {source} was not sent within {SENDING:.0f} s ({mib(done)} of {mib(size)}).",
                    "Use a faster line, or an image from a registry.",
                )


def _compressed(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Compresses with gzip: that is faster than the line from a classroom to a cloud."""
    packer = zlib.compressobj(level=1, wbits=16 + zlib.MAX_WBITS)
    for chunk in chunks:
        if packed := packer.compress(chunk):
            yield packed
    yield packer.flush()


def tag_delivered(engine: Engine, reference: str, course: str) -> None:
    """Gives an image that was delivered for the course a second name, by which the end of the course removes it."""
    with engine_errors(engine.name):
        id = engine.api.inspect_image(reference)["Id"].removeprefix("sha256:")[:12]
        engine.api.tag(reference, naming.delivered_repository(course), tag=id, force=True)


def remove_delivered(engine: Engine, course: str) -> None:
    """Removes the images that were delivered for the course; one that was given other names keeps those."""
    repository = naming.delivered_repository(course)
    with engine_errors(engine.name):
        for image in engine.api.images(filters={"reference": repository}):
            details = engine.api.inspect_image(image["Id"])  # the list has the matching names only
            names = details["RepoTags"] or []
            marks = [name for name in names if name.startswith(f"{repository}:")]
            others = [name for name in names if name not in marks]
            for name in [*marks, *(others if len(others) == 1 else [])]:
                _remove_name(engine, name)
            if len(others) < 2:  # one that was pulled by its digest has no other name
                for digest in details["RepoDigests"] or []:
                    _remove_name(engine, digest)


def _remove_name(engine: Engine, name: str) -> None:
    try:
        engine.api.remove_image(name)
    except APIError as error:
        if error.status_code not in (404, 409):  # already removed, or in use
            raise
