"""Notebook images on an engine: fetched, looked into, and named so that no start asks a registry."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from docker.errors import APIError, ImageNotFound, NotFound
from docker.utils import parse_repository_tag

from cloudscale.course import naming
from cloudscale.engines.client import Engine, engine_errors, explain_text
from cloudscale.errors import EngineError, ImageError, RequestError

# As the reference implementation has it (distribution/reference): [registry/]repository[:tag][@digest]
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
REFERENCE = re.compile(
    rf"(?:[A-Za-z0-9.-]+(?::[0-9]+)?/)?{_PART}(?:/{_PART})*(?::\w[\w.-]{{0,127}})?(?:@sha256:[0-9a-f]{{64}})?"
)

# Called with the bytes that arrived and the bytes known to come.
BytesDone = Callable[[int, int], None]

LOOKING = 60  # seconds for one look inside an image

# One look inside, without a network: is Jupyter there, who runs it, where does the work belong?
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
    """An image as the seats start it.

    `subcommand` is Jupyter's (lab or server), `work` the folder for the volume.
    """

    reference: str
    subcommand: str
    uid: int
    gid: int
    work: str


@dataclass(frozen=True)
class EngineImage:
    """An image as an engine holds it.

    `pinned` is its digest, or its id where it came from no registry: Swarm starts either without
    asking a registry. `layers` and `made` are the same on every engine; the id need not be. `size` in bytes.
    """

    pinned: str
    layers: tuple[str, ...]
    made: str
    size: int
    architecture: str
    from_registry: bool

    def is_same(self, other: EngineImage) -> bool:
        return (self.layers, self.made) == (other.layers, other.made)


def check_reference(reference: str) -> None:
    """Raises RequestError where an image can't be called that."""
    if not REFERENCE.fullmatch(reference):
        raise _no_reference(reference, "invalid reference format")


def find_image(engine: Engine, reference: str) -> EngineImage | None:
    """The image, if the engine has it. Raises RequestError where the name is not one."""
    with engine_errors(engine.name):
        try:
            found = engine.api.inspect_image(reference)
        except ImageNotFound:
            return None
        except APIError as error:
            if error.status_code == 400:
                raise _no_reference(reference, str(error.explanation)) from None
            raise
    repository, _ = parse_repository_tag(reference)
    digests = [digest for digest in found.get("RepoDigests") or [] if digest.partition("@")[0] == repository]
    return EngineImage(
        pinned=digests[0] if digests else str(found["Id"]),
        layers=tuple(found.get("RootFS", {}).get("Layers") or [found["Id"]]),
        made=str(found.get("Created", "")),
        size=int(found.get("Size", 0)),
        architecture=str(found.get("Architecture", "")),
        from_registry=bool(digests),
    )


def pull_image(engine: Engine, reference: str, bytes_done: BytesDone | None = None) -> None:
    """Has the engine fetch the image. Raises RequestError where the name is not one, ImageError where it can't."""
    with engine_errors(engine.name):
        _pull(engine, reference, bytes_done)


def look_inside(engine: Engine, reference: str, pinned: str, course: str) -> NotebookImage:
    """What the seats need to know of the image. Raises ImageError where it has no Jupyter."""
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
            container.wait(timeout=LOOKING)
            subcommand, uid, gid, work = container.logs(stdout=True, stderr=False).decode().split("\n")[:4]
            return NotebookImage(reference, subcommand, int(uid), int(gid), work)
        except ValueError:
            pass
        except APIError as error:
            if "no space left" in str(error.explanation):
                raise
            # an image without so much as a shell can't be run at all
        finally:
            container.remove(force=True, v=True)
    raise ImageError(
        f"The image {reference} has no Jupyter: neither jupyter-lab nor jupyter-server (with python3) is on its PATH.",
        "Use one of quay.io/jupyter/…, or the project's own: invoke image_build pydata, then --image pydata.",
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
            raise _no_reference(reference, str(error.explanation)) from None
        raise _not_pulled(reference, str(error.explanation), engine.name) from None


def _no_reference(reference: str, text: str) -> RequestError:
    return RequestError(
        f"{reference!r} is no name of an image ({text}).", "A name is REGISTRY/REPOSITORY:TAG, all in lower case."
    )


def _not_pulled(reference: str, text: str, machine: str) -> ImageError | EngineError:
    if "no space left" in text:
        return explain_text(text, machine)
    return ImageError(
        f"The image {reference} is not on {machine} and can't be pulled: {text.strip()}",
        "If the name is right and there is a network, run again. Without a registry, build the project's own here:"
        " invoke image_build pydata, then add --image pydata.",
    )
