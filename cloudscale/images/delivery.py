"""The notebook image on its way to every machine: pulled by all at once, or sent once and passed on.

An image of the project's own making is never looked for in a registry, where others could put one of its name.
"""

from __future__ import annotations

import contextlib
import re
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from docker.errors import APIError

from cloudscale.course import naming
from cloudscale.engines.client import Engine, engine_errors
from cloudscale.errors import CloudscaleError, EngineError, ImageError
from cloudscale.images.on_engine import BytesDone, EngineImage, find_image, pull_image
from cloudscale.images.recipes import short_name
from cloudscale.model import Machine, OnOutput, Survey
from cloudscale.units import GIB, gib, mib

# From a machine, to another, an image; told what dd(1) says of the bytes sent.
Copy = Callable[[Machine, Machine, str, OnOutput], None]

LEAST_FREE = GIB // 2  # bytes of disk for an image whose size nobody knows yet
SENDS = 2  # at once from one machine: an engine may write each of them to its disk first
WAITING = 3600.0  # seconds for an image on its way to the first machine
COPIED = re.compile(rb"(\d+) bytes[^\r\n]*copied")  # of dd(1)


class Delivery:
    """One image for one launch; each machine calls `deliver` as soon as its engine answers.

    `copy` sends an image from one machine to another; None where there is but one, which is the trainer's own engine.
    `trainer` is the trainer's own engine, which may have what no registry has; None where there is none.
    `engines` are those of machines that answer already, which may have it too.
    """

    def __init__(
        self,
        reference: str,
        course: str,
        *,
        copy: Copy | None,
        trainer: Callable[[], Engine | None],
        engines: Iterable[Engine] = (),
        is_own: bool,
        bytes_done: BytesDone,
        say: Callable[[str], None],
    ) -> None:
        self._reference = reference
        self._course = course
        self._copy = copy
        self._find_trainer = trainer
        self._engines = tuple(engines)
        self._is_own = is_own
        self._report = bytes_done
        self._say = say
        self._bytes: dict[str, tuple[int, int]] = {}
        self._changed = threading.Condition()
        self._sources: dict[str, Engine] = {}  # machines that have it
        self._busy: Counter[str] = Counter()  # and to how many others each is sending it
        self._sending = False  # from here to the first one
        self._digest = ""
        self._failure: CloudscaleError | None = None
        self._trainer: tuple[Engine, EngineImage] | None = None
        self._trainer_known = False

    def deliver(self, engine: Engine, survey: Survey) -> str:
        """Brings the image to a machine, unless it is there, and returns its pinned name.

        Raises RequestError, ImageError, EngineError, MachineError.
        """
        held = find_image(engine, self._reference)
        # one of our own making may have been built anew since
        newest = self._held_by_trainer() if self._is_own else None
        if held is None or (newest and not held.is_same(newest[1])):
            self._bring(engine, survey)
            held = find_image(engine, self._reference)
            if held is None or (newest and not held.is_same(newest[1])):
                raise ImageError(f"The image {self._reference} did not arrive on {engine.name}.", "Run again.")
            if self._copy:  # what an engine of its owner's has is its owner's
                tag_delivered(engine, self._reference, self._course)
        with self._changed:
            self._sources[engine.name] = engine
            self._digest = self._digest or (held.pinned if held.from_registry else "")
            self._changed.notify_all()
        if held.from_registry and held.pinned != self._digest:  # the tag has moved since another machine pulled it
            pull_image(engine, self._digest, self._advance(engine.name))
            return self._digest
        return held.pinned

    def _bring(self, engine: Engine, survey: Survey) -> None:
        refusal: CloudscaleError | None = None
        if not self._is_own:
            self._check_disk(engine, survey, LEAST_FREE)
            try:
                pull_image(engine, self._reference, self._advance(engine.name))
                return
            except ImageError as error:
                refusal = error
        self._ask_others()
        with self._changed:
            self._changed.wait_for(lambda: self._failure or self._free_source() or not self._is_awaited(), WAITING)
            source = self._free_source()
            if source is None and self._failure:
                raise refusal or self._failure
            if source:
                self._busy[source.name] += 1
            else:
                self._sending = True
        has_arrived = False
        try:
            if source:
                self._pass_on(source, engine, survey)
            else:
                self._send(engine, survey, refusal)
            has_arrived = True
        except CloudscaleError as error:
            # without the image nobody need try again; any other fault is this machine's own
            if source is None and self._held_by_trainer() is None:
                self._failure = error
            raise
        finally:
            with self._changed:
                if source:
                    self._busy[source.name] -= 1
                else:
                    self._sending = False
                if has_arrived:
                    self._sources[engine.name] = engine
                self._changed.notify_all()

    def _free_source(self) -> Engine | None:
        """A machine that has the image and is not sending it to as many as it can; the least busy one."""
        free = [engine for name, engine in self._sources.items() if self._busy[name] < SENDS]
        return min(free, key=lambda engine: self._busy[engine.name], default=None)

    def _is_awaited(self) -> bool:
        return self._sending or bool(self._sources)

    def _ask_others(self) -> None:
        """Finds a machine that has it and has not come round to say so."""
        if self._sources:
            return
        for engine in self._engines:
            with contextlib.suppress(EngineError):
                held = find_image(engine, self._reference)
                if held and (self._trainer is None or held.is_same(self._trainer[1])):
                    self._sources[engine.name] = engine
                    return

    def _pass_on(self, source: Engine, engine: Engine, survey: Survey) -> None:
        held = find_image(source, self._reference)
        size = held.size if held else 0
        self._check_disk(engine, survey, 2 * size)
        self._say(f"Image: from {source.name} to {engine.name}, {mib(size)}")
        advance = self._advance(engine.name)

        def on_output(piece: bytes) -> None:
            if found := COPIED.findall(piece):
                advance(int(found[-1]), size)

        assert self._copy
        self._copy(source.machine, engine.machine, self._reference, on_output)

    def _send(self, engine: Engine, survey: Survey, refusal: CloudscaleError | None) -> None:
        """From the trainer's engine to the first machine."""
        trainer = self._held_by_trainer()
        if trainer is None:
            raise refusal or ImageError(
                f"The image {self._reference} is neither on {engine.name} nor on this computer's engine.",
                f"Build it here first: invoke image_build {short_name(self._reference)}.",
            )
        own, held = trainer
        with engine_errors(engine.name):
            architecture = engine.api.version()["Arch"]
        if held.architecture and held.architecture != architecture:
            raise ImageError(
                f"The image {self._reference} of this computer is made for {held.architecture},"
                f" and {engine.name} is {architecture}.",
                "Use an image from a registry, or build it on a machine of that kind.",
            )
        self._check_disk(engine, survey, 2 * held.size)
        self._say(f"Image: from this computer to {engine.name}, {mib(held.size)}")
        with engine_errors("this computer"):
            saved = own.api.get_image(self._reference)
        counted = _counted(saved, held.size, self._advance(engine.name))
        with engine_errors(engine.name):
            for event in engine.api.load_image(_compressed(counted), quiet=False):
                if "error" in event:
                    raise EngineError(f"{engine.name}: the image can't be loaded: {event['error']}.")

    def _held_by_trainer(self) -> tuple[Engine, EngineImage] | None:
        """The trainer's engine and the image on it, asked once."""
        with self._changed:
            if not self._trainer_known:
                self._trainer_known = True
                try:
                    own = self._find_trainer()
                    held = find_image(own, self._reference) if own else None
                except EngineError:  # a trainer's computer need not have an engine
                    own = held = None
                self._trainer = (own, held) if own and held else None
            return self._trainer

    def _check_disk(self, engine: Engine, survey: Survey, needed: int) -> None:
        if survey.free_disk is not None and survey.free_disk < needed:
            raise ImageError(
                f"{engine.name}: its disk has {gib(survey.free_disk)} free, and the image {self._reference}"
                f" needs {gib(needed)} to be unpacked.",
                "Make room there (docker system df shows what takes it), then run again.",
            )

    def _advance(self, name: str) -> BytesDone:
        def advance(done: int, of: int) -> None:
            with self._changed:
                self._bytes[name] = (done, of)
                self._report(*map(sum, zip(*self._bytes.values(), strict=True)))

        return advance


def _counted(chunks: Iterable[bytes], size: int, advance: BytesDone) -> Iterator[bytes]:
    done = 0
    for chunk in chunks:
        yield chunk
        done += len(chunk)
        advance(done, max(size, done))


def _compressed(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """gzip on its way: the line from a classroom to a cloud is slower than this."""
    packer = zlib.compressobj(level=1, wbits=16 + zlib.MAX_WBITS)
    for chunk in chunks:
        if packed := packer.compress(chunk):
            yield packed
    yield packer.flush()


def tag_delivered(engine: Engine, reference: str, course: str) -> None:
    """Gives an image that the course brought a second name, by which it is found when the course ends."""
    with engine_errors(engine.name):
        number = engine.api.inspect_image(reference)["Id"].removeprefix("sha256:")[:12]
        engine.api.tag(reference, naming.delivered_repository(course), tag=number, force=True)


def remove_delivered(engine: Engine, course: str) -> None:
    """Removes the images that the course brought; one that has got other names since keeps those."""
    repository = naming.delivered_repository(course)
    with engine_errors(engine.name):
        for image in engine.api.images(filters={"reference": repository}):
            held = engine.api.inspect_image(image["Id"])  # the list has the matching names only
            names = held["RepoTags"] or []
            marks = [name for name in names if name.startswith(f"{repository}:")]
            others = [name for name in names if name not in marks]
            for name in [*marks, *(others if len(others) == 1 else [])]:
                _remove_name(engine, name)
            if len(others) < 2:  # one that was fetched by its digest has no other name
                for digest in held["RepoDigests"] or []:
                    _remove_name(engine, digest)


def _remove_name(engine: Engine, name: str) -> None:
    try:
        engine.api.remove_image(name)
    except APIError as error:
        if error.status_code not in (404, 409):  # gone, or used by somebody else
            raise
