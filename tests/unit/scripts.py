"""The scripts that run on hosts, as root."""

from __future__ import annotations

import functools
from importlib import resources

from cloudscale.hosts.first_boot import boot_script

SCRIPTS = (
    "facts",
    "engine-up",
    "engine-down",
    "image-door",
    "image-receive",
    "image-send",
    "boot",
    "firewall",
    "hold",
    "work-volume",
    "disk-limits",
)


@functools.cache  # hundreds of fake hosts know them all
def script_text(name: str) -> str:
    if name == "boot":
        return boot_script()
    room = "hosts" if name in ("facts", "firewall", "hold") else "engines"
    return resources.files(f"cloudscale.{room}").joinpath("scripts", f"{name}.sh").read_text()
