"""The scripts that run on hosts, as root."""

from __future__ import annotations

import functools

from cloudscale.hosts.first_boot import boot_script
from cloudscale.scripts import script

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
    return script(room, f"{name}.sh")
