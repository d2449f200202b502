"""What the gateway runs: Caddy, and the login service of scripts/. Both get into the gateway's volume."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from importlib import resources
from importlib.resources.abc import Traversable

from docker.errors import APIError

from cloudscale.course import naming
from cloudscale.engines.client import Engine, engine_errors, trainers_engine
from cloudscale.errors import EngineError, ImageError, RequestError
from cloudscale.gateway.routes import FOLDER
from cloudscale.gateway.volume import OpenVolume
from cloudscale.images.on_engine import find_image, other_architecture, pull_image
from cloudscale.images.packages import fetch_file
from cloudscale.model import Say

IMAGE = "caddy:2.11.2"  # hub.docker.com/_/caddy
PROGRAM = "/usr/bin/caddy"  # in the image as in the package
DEBIAN = "deb http://deb.debian.org/debian trixie-backports main"  # the same version
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}  # the kernel's names, and Debian's
COPYING = 120  # seconds
NOTE = "caddy.txt"  # written after it: what it came from


def login_program() -> Mapping[str, bytes]:
    """The files of the login service, by their names in the volume."""
    return dict(_files(resources.files("cloudscale.gateway").joinpath("scripts"), ""))


def _files(folder: Traversable, above: str) -> Iterator[tuple[str, bytes]]:
    for each in sorted(folder.iterdir(), key=lambda each: each.name):
        if each.is_dir() and each.name != "__pycache__":
            yield from _files(each, f"{above}{each.name}/")
        elif each.is_file():
            yield f"{above}{each.name}", each.read_bytes()


def identify(files: Mapping[str, bytes]) -> str:
    """Identifies what runs: Caddy, and these files."""
    files = {**files, "caddy": IMAGE.encode()}
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()[:16]


def ensure_caddy(engine: Engine, course: str, files: OpenVolume, say: Say) -> None:
    """Caddy in the gateway's volume: that of an earlier run with the same version, of its official image, or of Debian.

    The image may be the engine's, a registry's, or that of the trainer's own engine. Raises ImageError, EngineError.
    """
    if files.read(NOTE) in (IMAGE.encode(), DEBIAN.encode()):
        return
    had_it = find_image(engine, IMAGE) is not None
    try:
        if not had_it:
            pull_image(engine, IMAGE)
    except ImageError as error:
        own = _of_trainers_engine(engine, course)
        say(f"{error.message}. Caddy comes from {'Docker on this computer' if own else 'Debian'} instead.")
        files.write({"caddy": own or _of_debian(engine)}, programs=frozenset({"caddy"}))
        files.write({NOTE: (IMAGE if own else DEBIAN).encode()})
        return
    _copy(engine, course)
    files.write({NOTE: IMAGE.encode()})
    if not had_it:  # what the engine had before stays
        with engine_errors(engine.name):
            engine.api.remove_image(IMAGE)


def _of_trainers_engine(engine: Engine, course: str) -> bytes:
    """The program in the image that the trainer's own engine has; b"" if it has none that runs on the machine."""
    with contextlib.suppress(EngineError, RequestError):  # it need not run, or may be anything
        own = trainers_engine()
        image = find_image(own, IMAGE)
        if image and not other_architecture(engine, image):
            return _read(own, course)
    return b""


def _read(engine: Engine, course: str) -> bytes:
    """The program in the image on an engine. The container that it is read from never starts."""
    api = engine.api
    _remove_readers(engine, course)  # of a run that was cut off
    with engine_errors(engine.name):
        created = api.create_container(IMAGE, entrypoint=["caddy"], labels=_reader(course))
        try:
            chunks, _ = api.get_archive(created["Id"], PROGRAM)
            with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as archive:
                (entry,) = archive.getmembers()
                file = archive.extractfile(entry)
                return file.read() if file else b""
        finally:
            api.remove_container(created["Id"], force=True)


def _reader(course: str) -> dict[str, str]:
    """The labels of that container. A course of the same name on the trainer's own engine has a gateway with others."""
    return naming.labels(course, **{naming.ROLE: "reader"})


def _remove_readers(engine: Engine, course: str) -> None:
    with engine_errors(engine.name):
        labels = [f"{key}={value}" for key, value in _reader(course).items()]
        for container in engine.api.containers(all=True, filters={"label": labels}):
            engine.api.remove_container(container["Id"], force=True)


def forget_readings(course: str) -> None:
    """Removes from the trainer's own engine, if there is one, what a run that was cut off has left there."""
    with contextlib.suppress(EngineError, RequestError):
        _remove_readers(trainers_engine(), course)


def _of_debian(engine: Engine) -> bytes:
    with engine_errors(engine.name):
        machine = str(engine.api.info()["Architecture"])
    try:
        return fetch_file(
            "caddy", PROGRAM.lstrip("/"), sources=f"{DEBIAN}\n", architecture=ARCHITECTURES.get(machine, machine)
        )
    except ImageError as error:
        raise ImageError(
            f"The gateway needs Caddy. Neither its image {IMAGE} can be pulled on {engine.name}, nor Debian's package"
            f" downloaded here: {error.message}",
            f"Check the network, then run again; or fetch the image where there is one: docker pull {IMAGE} on this"
            " computer.",
        ) from None


def _copy(engine: Engine, course: str) -> None:
    """Copies Caddy from its image into the volume, on the engine itself."""
    api = engine.api
    with engine_errors(engine.name):
        created = api.create_container(
            IMAGE,
            entrypoint=["cp", "-f", PROGRAM, f"{FOLDER}/caddy"],
            user="0:0",
            host_config=api.create_host_config(
                binds=[f"{naming.gateway_name(course)}:{FOLDER}"], network_mode="none", cap_drop=["ALL"]
            ),
            labels=naming.gateway_labels(course),
        )
        try:
            api.start(created["Id"])
            code = api.wait(created["Id"], timeout=COPYING)["StatusCode"]
        except APIError as error:
            raise EngineError(f"{engine.name}: Caddy can't be copied from {IMAGE}: {error.explanation}.") from None
        finally:
            api.remove_container(created["Id"], force=True)
        if code:
            raise EngineError(f"{engine.name}: Caddy can't be copied from {IMAGE} (exit code {code}).")
