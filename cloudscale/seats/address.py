"""What a student opens."""

from __future__ import annotations

from cloudscale.networks import endpoint


def url(host: str, port: int) -> str:
    """The address of a seat; empty where its machine has no address."""
    return f"http://{endpoint(host, port)}" if host else ""
