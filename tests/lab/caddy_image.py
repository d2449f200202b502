"""An image that stands for Caddy's official one: Debian's Caddy, and a `cp`. The lab has no registry."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import docker

from cloudscale.gateway.program import DEBIAN, IMAGE
from cloudscale.images.packages import fetch_file
from tests.lab.namespace import outside
from tests.lab.stock import kept

BOOKWORM = "deb http://deb.debian.org/debian bookworm main"


def load_caddy_image(engine: docker.DockerClient, folder: Path) -> str:
    """The image on an engine. What it is made of is downloaded to a folder, or taken from the environment's cache."""
    archive = kept("caddy", folder, [Path(__file__)], _build) / "image.tar"
    repository, _, tag = IMAGE.partition(":")
    engine.api.import_image_from_file(str(archive), repository=repository, tag=tag)
    return IMAGE


def _build(folder: Path) -> None:
    with outside(), tarfile.open(folder / "image.tar", "w") as image:
        caddy = fetch_file("caddy", "usr/bin/caddy", sources=f"{DEBIAN}\n", architecture="amd64")
        busybox = fetch_file("busybox-static", "bin/busybox", sources=f"{BOOKWORM}\n", architecture="amd64")
        for name, program in (("usr/bin/caddy", caddy), ("bin/cp", busybox)):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(program), 0o755
            image.addfile(entry, io.BytesIO(program))
