"""Notebook images on an engine: pulled, inspected, and pinned so that starting a seat asks no registry."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from docker.errors import APIError, ImageNotFound, NotFound
from docker.utils import parse_repository_tag

from cloudscale.course import naming
from cloudscale.engines.client import Engine, engine_errors, explain_text
from cloudscale.errors import EngineError, ImageError, RequestError

# [registry/]repository[:tag][@digest], as in the reference implementation (github.com/distribution/reference)
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
REFERENCE = re.compile(
    rf"(?:[A-Za-z0-9.-]+(?::[0-9]+)?/)?{_PART}(?:/{_PART})*(?::\w[\w.-]{{0,127}})?(?:@sha256:[0-9a-f]{{64}})?"
)

# Called with the bytes that have arrived and the bytes that are expected in all.
BytesDone = Callable[[int, int], None]

INSPECTING = 60  # seconds for the look inside an image

# Run once in the image, without a network: has it Jupyter, which user runs it, and where does the work belong?
LOOK_INSIDE = """
command -v python3 >/dev/null || exit 3
if command -v jupyter-lab >/dev/null; then echo lab
elif command -v jupyter-server >/dev/null; then echo server
else exit 3; fi
id -u; id -g
if [ -d "$HOME/work" ]; then echo "$HOME/work"; elif [ "$PWD" != / ]; then pwd; else echo "$HOME"; fi
"""


@dataclass(frozen=True)
class NotebookImage:
    """What a seat needs to know of its image.

    `subcommand` is Jupyter's (lab or server), `work` the folder that the student's volume is mounted on.
    """

    reference: str
    subcommand: str
    uid: int
    gid: int
    work: str


@dataclass(frozen=True)
class EngineImage:
    """An image on one engine.

    `pinned` is its digest, or its id if it came from no registry: Swarm starts both without
    asking a registry. `layers` and `created` are the same on every engine; the id may differ. `size` in bytes.
    """

    pinned: str
    layers: tuple[str, ...]
    created: str
    size: int
    architecture: str
    from_registry: bool

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
    repository, _ = parse_repository_tag(reference)
    digests = [digest for digest in details.get("RepoDigests") or [] if digest.partition("@")[0] == repository]
    return EngineImage(
        pinned=digests[0] if digests else str(details["Id"]),
        layers=tuple(details.get("RootFS", {}).get("Layers") or [details["Id"]]),
        created=str(details.get("Created", "")),
        size=int(details.get("Size", 0)),
        architecture=str(details.get("Architecture", "")),
        from_registry=bool(digests),
    )


def pull_image(engine: Engine, reference: str, bytes_done: BytesDone | None = None) -> None:
    """Makes the engine pull the image. Raises ImageError if it can't, and RequestError if the name is not valid."""
    with engine_errors(engine.name):
        _pull(engine, reference, bytes_done)


def look_inside(engine: Engine, reference: str, pinned: str, course: str) -> NotebookImage:
    """Runs a container once to learn what the seats need to know. Raises ImageError if the image has no Jupyter."""
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
            container.wait(timeout=INSPECTING)
            subcommand, uid, gid, work = container.logs(stdout=True, stderr=False).decode().split("\n")[:4]
            return NotebookImage(reference, subcommand, int(uid), int(gid), work)
        except ValueError:
            pass
        except APIError as error:
            if "no space left" in str(error.explanation):
                raise
            # an image without a shell can't be started at all
        finally:
            container.remove(force=True, v=True)
    raise ImageError(
        f"The image {reference} has no Jupyter: neither jupyter-lab nor jupyter-server (with python3) is on its PATH.",
        "Use an image of quay.io/jupyter. Or build one here: invoke image_build pydata, then add --image pydata.",
    )


def _pull(engine: Engine, reference: str, bytes_done: BytesDone | None) -> None:
    repository, tag = parse_repository_tag(reference)
    layers: dict[str, tuple[int, int]] = {}
    try:
        for event in engine.api.pull(repository, tag=tag or "latest", stream=True, decode=True):
            if "error" in event:
                raise _not_pulled(reference, str(event["error"]), engine.name)
            if event.get("status") == "Downloading" and event.get("progressDetail", {}).get("total"):
                layers[event["id"]] = (event["progressDetail"]["current"], event["progressDetail"]["total"])
                if bytes_done:
                    bytes_done(sum(have for have, _ in layers.values()), sum(all_ for _, all_ in layers.values()))
    except NotFound as error:
        raise _not_pulled(reference, str(error.explanation), engine.name) from None
    except APIError as error:
        if error.status_code == 400:
            raise _invalid_reference(reference, str(error.explanation)) from None
        raise _not_pulled(reference, str(error.explanation), engine.name) from None


def _invalid_reference(reference: str, text: str) -> RequestError:
    return RequestError(
        f"{reference!r} is not a valid image name ({text}).",
        "Use the form REGISTRY/REPOSITORY:TAG, with registry and repository in lower case.",
    )


def _not_pulled(reference: str, text: str, machine: str) -> ImageError | EngineError:
    if "no space left" in text:
        return explain_text(text, machine)
    return ImageError(
        f"The image {reference} is not on {machine} and can't be pulled: {text.strip()}",
        "Check the name and the network, then run again. If no registry can be reached, build an image here:"
        " invoke image_build pydata, then add --image pydata.",
    )
