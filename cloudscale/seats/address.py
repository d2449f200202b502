"""The address that a student opens."""

from __future__ import annotations

from cloudscale.networks import endpoint


def url(host: str, port: int) -> str:
    """The address of a seat; empty if its machine has none."""
    return f"http://{endpoint(host, port)}" if host else ""
