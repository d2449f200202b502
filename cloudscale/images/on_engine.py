"""Notebook images on an engine: pulled, inspected, and pinned so that starting a seat asks no registry."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from docker.errors import APIError, ImageNotFound
from docker.utils import parse_repository_tag

from cloudscale.course import naming
from cloudscale.engines.client import FAILURE, Engine, engine_errors, explain_text, failure
from cloudscale.errors import CloudscaleError, EngineError, ImageError, RequestError
from cloudscale.outside import OtherForm, formed

# [registry/]repository[:tag][@digest], as in the reference implementation (github.com/distribution/reference)
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
REFERENCE = re.compile(
    rf"(?:[A-Za-z0-9.-]+(?::[0-9]+)?/)?{_PART}(?:/{_PART})*(?::\w[\w.-]{{0,127}})?(?:@sha256:[0-9a-f]{{64}})?"
)

# Called with the bytes that have arrived and the bytes that are expected in all.
BytesDone = Callable[[int, int], None]

NEVER = "0001-01-01"  # older engines' date of an image that has none
MOST_LAYERS = 1000  # of an image that is pulled; engines allow 127 or less
INSPECTING = 60  # seconds for the look inside an image

# Run once in the image, without a network: has it Jupyter, which user runs it, where does the work belong?
# Also, what the engine lets a container do.
NO_JUPYTER = 3  # its exit code then
LOOK_INSIDE = """
command -v python3 >/dev/null || exit 3
if command -v jupyter-lab >/dev/null; then echo lab
elif command -v jupyter-server >/dev/null; then echo server
else exit 3; fi
id -u; id -g
if [ -d "$HOME/work" ]; then echo "$HOME/work"; elif [ "$PWD" != / ]; then pwd; else echo "$HOME"; fi
ulimit -Hn
"""

# how engines refuse to start a container whose image has no such program
NO_SHELL = ("executable file not found", "no such file or directory")


IMAGE = {  # what is needed of an engine's answer
    "Id": str,
    "RepoDigests?": [str],
    "RepoTags?": [str],
    "RootFS?": {"Layers?": [str]},
    "Created?": str,
    "Size?": int,
    "Architecture?": str,
}


PULLED = {**FAILURE, "id?": str, "progressDetail?": {"current?": int, "total?": int}}


@dataclass(frozen=True)
class NotebookImage:
    """What a seat needs to know of its image.

    `subcommand` is Jupyter's (lab or server), `work` the folder that the student's volume is mounted on. `open_files`:
    how many a container may open on the engine that was asked; 0 if it does not say.
    """

    reference: str
    subcommand: str
    uid: int
    gid: int
    work: str
    open_files: int = 0


@dataclass(frozen=True)
class EngineImage:
    """An image on one engine.

    `layers` and `created` are the same on every engine. The id may differ: it is the digest of the image's
    configuration, or where containerd keeps the images that of its manifest. There every image has a `digest`
    (REPOSITORY@SHA256), so that it does not show that the image came from a registry. `size` in bytes. `names`: those
    that it has on the engine, with their tags.
    """

    id: str
    digest: str
    layers: tuple[str, ...]
    created: str
    size: int
    architecture: str
    names: tuple[str, ...] = ()

    @property
    def from_registry(self) -> bool:
        """Whether it is certain that a registry has it."""
        return bool(self.digest) and not self.digest.endswith(f"@{self.id}")

    @property
    def room(self) -> int:
        """Bytes of disk for it while it is unpacked. Where containerd keeps it, its size is the packed one."""
        return (2 if self.from_registry or not self.digest else 4) * self.size

    @property
    def pinned(self) -> str:
        """A name with which Swarm starts it without asking a registry."""
        return self.digest if self.from_registry else self.id

    def is_same(self, other: EngineImage) -> bool:
        return (self.layers, self.created) == (other.layers, other.created)


def check_reference(reference: str) -> None:
    """Raises RequestError if this can't be the name of an image."""
    if not REFERENCE.fullmatch(reference):
        raise _invalid_reference(reference, "invalid reference format")


def find_image(engine: Engine, reference: str) -> EngineImage | None:
    """The image, if the engine has it. Raises EngineError, and RequestError if the name is not valid."""
    with engine_errors(engine.name):
        try:
            details = engine.api.inspect_image(reference)
        except ImageNotFound:
            return None
        except APIError as error:
            if error.status_code == 400:
                raise _invalid_reference(reference, str(error.explanation)) from None
            raise
        return _image(reference, formed(details, IMAGE))


def _image(reference: str, details: Mapping[str, Any]) -> EngineImage:
    repository, _ = parse_repository_tag(reference)
    digests = [digest for digest in details.get("RepoDigests") or [] if digest.partition("@")[0] == repository]
    created = str(details.get("Created") or "")
    return EngineImage(
        id=str(details["Id"]),
        digest=digests[0] if digests else "",
        layers=tuple((details.get("RootFS") or {}).get("Layers") or [details["Id"]]),
        created="" if created.startswith(NEVER) else created,
        size=details.get("Size") or 0,
        architecture=details.get("Architecture") or "",
        names=tuple(details.get("RepoTags") or ()),
    )


def only_here(engine: Engine, image: EngineImage) -> bool:
    """Whether no registry has the image, as far as its engine can find out. Raises EngineError."""
    if image.from_registry or not image.digest:
        return not image.from_registry
    with engine_errors(engine.name):
        try:
            engine.api.inspect_distribution(image.digest)
        except APIError:  # without a network it is sent, too
            return True
    return False


def other_architecture(engine: Engine, image: EngineImage) -> str:
    """The machine's architecture, if an image is built for another one; else "". Raises EngineError."""
    with engine_errors(engine.name):
        architecture = str(formed(engine.api.version(), {"Arch": str})["Arch"])
    return architecture if image.architecture not in ("", architecture) else ""


def pull_image(engine: Engine, reference: str, bytes_done: BytesDone | None = None) -> None:
    """Makes the engine pull the image. Raises ImageError if it can't, and RequestError if the name is not valid."""
    with engine_errors(engine.name):
        _pull(engine, reference, bytes_done)


def check_pullable(engine: Engine, reference: str) -> str:
    """Makes the engine ask the registry for the image, without a download. Raises the errors of `pull_image`.

    Returns what the engine says where it did not reach the registry; "" if it did, and all is well.
    """
    with engine_errors(engine.name):
        try:
            engine.api.inspect_distribution(reference)
        except APIError as problem:
            if problem.is_server_error():
                return str(problem.explanation).strip()
            raise _refused(reference, problem, engine.name) from None
    return ""


def look_inside(engine: Engine, reference: str, pinned: str, course: str) -> NotebookImage:
    """Runs a container once to learn what the seats need to know.

    Raises ImageError if the image has no Jupyter, EngineError if the engine can't start a container.
    """
    with engine_errors(engine.name):
        container = engine.client.containers.create(
            pinned,
            entrypoint=["sh", "-c"],
            command=[LOOK_INSIDE],
            network_mode="none",
            labels=naming.labels(course),
        )
        try:
            container.start()
            ended = formed(container.wait(timeout=INSPECTING), {"StatusCode": int})["StatusCode"]
            said = container.logs(stdout=True, stderr=False)
        except APIError as error:
            if not any(text in str(error.explanation) for text in NO_SHELL):
                raise
            ended, said = NO_JUPYTER, b""
        finally:
            container.remove(force=True, v=True)
    with contextlib.suppress(ValueError):
        subcommand, uid, gid, work, files = said.decode().split("\n")[:5]
        return NotebookImage(reference, subcommand, int(uid), int(gid), work, int(files) if files.isdigit() else 0)
    if ended not in (0, NO_JUPYTER):
        raise ImageError(
            f"The image {reference} can't be looked into on {engine.name}: its shell ended with exit code {ended}.",
            f"Run again. If that does not help, try it on that machine: docker run --rm -it {reference} sh",
        )
    raise ImageError(
        f"The image {reference} has no Jupyter: neither jupyter-lab nor jupyter-server (with python3) is on its PATH.",
        "Use an image of quay.io/jupyter. Or build one here: invoke image_build pydata, then add --image pydata.",
    )


def _pull(engine: Engine, reference: str, bytes_done: BytesDone | None) -> None:
    repository, tag = parse_repository_tag(reference)
    layers: dict[str, tuple[int, int]] = {}
    try:
        for event in engine.api.pull(repository, tag=tag or "latest", stream=True, decode=True):
            if error := failure(formed(event, PULLED)):
                raise not_pulled(reference, error, engine.name)
            progress = event.get("progressDetail") or {}
            if event.get("status") == "Downloading" and progress.get("total"):
                layers[event.get("id") or ""] = (progress.get("current") or 0, progress["total"])
                if len(layers) > MOST_LAYERS:
                    raise OtherForm(f"the image has more than {MOST_LAYERS} layers")
                if bytes_done:
                    bytes_done(sum(have for have, _ in layers.values()), sum(all_ for _, all_ in layers.values()))
    except APIError as problem:
        raise _refused(reference, problem, engine.name) from None


def _refused(reference: str, problem: APIError, machine: str) -> CloudscaleError:
    if problem.status_code == 400:
        return _invalid_reference(reference, str(problem.explanation))
    return not_pulled(reference, str(problem.explanation), machine)


def _invalid_reference(reference: str, text: str) -> RequestError:
    return RequestError(
        f"{reference!r} is not a valid image name ({text}).",
        "Use the form REGISTRY/REPOSITORY:TAG, with registry and repository in lower case.",
    )


def not_pulled(reference: str, text: str, machine: str) -> ImageError | EngineError:
    """What to say of an image that a registry, or an engine, refuses with this text."""
    if "no space left" in text:
        return explain_text(text, machine)
    return ImageError(
        f"The image {reference} is not on {machine} and can't be pulled: {text.strip()}",
        "Check the name and the network, then run again. If no registry can be reached, build an image here:"
        " invoke image_build pydata, then add --image pydata.",
    )
