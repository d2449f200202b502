"""The scripts that run on hosts, as root."""

from __future__ import annotations

from importlib import resources

SCRIPTS = ("facts", "engine-up", "engine-down", "image-door", "image-send", "boot")


def script_text(name: str) -> str:
    room = "hosts" if name in ("facts", "boot") else "engines"
    return resources.files(f"cloudscale.{room}").joinpath("scripts", f"{name}.sh").read_text()
