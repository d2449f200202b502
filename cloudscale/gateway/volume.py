"""The gateway's files: a volume of the course on the gateway's machine.

It is written and read through a container that is never started, as `docker cp` does. Unlike a Swarm secret, a file can
be changed while the gateway runs: nobody's connection is cut when somebody else gets a seat.
"""

from __future__ import annotations

import contextlib
import io
import tarfile
from collections.abc import Iterator, Mapping

from docker.errors import APIError, NotFound

from cloudscale.course import naming
from cloudscale.engines.client import Engine, engine_errors
from cloudscale.errors import EngineError
from cloudscale.gateway.routes import FOLDER
from cloudscale.outside import in_words
from cloudscale.units import MIB
from cloudscale.waiting import poll

STATE = "state.json"  # in which the gateway says what is in effect
LARGEST = 16 * MIB  # bytes that are read back
STOPPING = 60.0  # seconds until the volume of a removed gateway is free


class GatewayVolume:
    """The files of one course's gateway on one engine. `image`: one that the engine has."""

    def __init__(self, engine: Engine, course: str, image: str) -> None:
        self.engine = engine
        self.course = course
        self._image = image
        self.name = naming.gateway_name(course)

    @contextlib.contextmanager
    def opened(self) -> Iterator[OpenVolume]:
        """The volume, which is made if there is none. Raises EngineError."""
        api = self.engine.api
        labels = naming.gateway_labels(self.course)
        with engine_errors(self.engine.name):
            volume = api.create_volume(self.name, labels=labels)  # one that is there is returned as it is
            if not labels.items() <= (volume["Labels"] or {}).items():
                raise EngineError(
                    f"{self.engine.name}: a volume {self.name} exists that does not carry this course's mark.",
                    f"Remove it (docker volume rm {self.name}) or choose another --course.",
                )
            created = api.create_container(
                self._image,
                entrypoint=["true"],
                host_config=api.create_host_config(binds=[f"{self.name}:{FOLDER}"], network_mode="none"),
                labels=labels,
            )
            try:
                yield OpenVolume(self.engine, created["Id"])
            finally:
                api.remove_container(created["Id"], force=True)


class OpenVolume:
    """Reads and writes files of the volume; names are relative to it."""

    def __init__(self, engine: Engine, container: str) -> None:
        self._engine = engine
        self._container = container

    def write(self, files: Mapping[str, bytes], *, programs: frozenset[str] = frozenset()) -> None:
        """Writes files, each with the folders above it, for root alone. `programs` can be run."""
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for folder in sorted({name.rpartition("/")[0] for name in files} - {""}):
                entry = tarfile.TarInfo(folder)
                entry.type, entry.mode = tarfile.DIRTYPE, 0o700
                tar.addfile(entry)
            for name, data in files.items():
                entry = tarfile.TarInfo(name)
                entry.size, entry.mode = len(data), 0o700 if name in programs else 0o600
                tar.addfile(entry, io.BytesIO(data))
        self.write_archive(archive.getvalue())

    def write_archive(self, archive: bytes) -> None:
        with engine_errors(self._engine.name):
            self._engine.api.put_archive(self._container, FOLDER, archive)

    def read(self, name: str) -> bytes | None:
        """A file's content, or None if there is none."""
        if (archive := self.read_archive(name)) is None:
            return None
        try:
            with tarfile.open(fileobj=io.BytesIO(archive), mode="r:") as tar:
                file = tar.extractfile(tar.next() or tarfile.TarInfo())
                return file.read() if file else None
        except (tarfile.TarError, ValueError) as error:
            raise EngineError(
                f"{self._engine.name}: {name} in the gateway's volume can't be read ({in_words(error)}).",
                "Run again.",
            ) from None

    def read_archive(self, name: str) -> bytes | None:
        """A file or folder as a tar archive, or None if there is none. Raises EngineError if it is too large."""
        with engine_errors(self._engine.name):
            try:
                chunks, _ = self._engine.api.get_archive(self._container, f"{FOLDER}/{name}")
            except NotFound:
                return None
            archive = bytearray()
            for chunk in chunks:
                archive += chunk
                if len(archive) > LARGEST:
                    raise EngineError(
                        f"{self._engine.name}: {name} in the gateway's volume is larger than {LARGEST // MIB} MiB.",
                        "Remove the gateway (--gateway none), then run again with it.",
                    )
            return bytes(archive)


def remove_volumes(engine: Engine, course: str, timeout: float = STOPPING) -> str:
    """Removes the course's gateway volumes from an engine, once nothing uses them any more. Raises EngineError."""
    ours = naming.gateway_filter(course)

    def is_gone() -> bool:
        for container in engine.api.containers(all=True, filters=ours):
            if container["State"] == "created":  # of a run that was killed while it wrote
                engine.api.remove_container(container["Id"], force=True)
        try:
            for volume in engine.api.volumes(filters=ours)["Volumes"] or []:
                with contextlib.suppress(NotFound):
                    engine.api.remove_volume(volume["Name"])
        except APIError as error:
            if error.status_code != 409:
                raise
            return False
        return True

    with engine_errors(engine.name):
        if not poll(is_gone, timeout=timeout):
            raise EngineError(
                f"The gateway's volume on {engine.name} is in use.",
                "Remove the container that uses it, then run again.",
            )
    return "removed"
