"""What seats can't reach from a machine: the script that closes it."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import resources

SCRIPT = "/var/lib/cloudscale/course/firewall.sh"  # on the machine
NOTHING = "REACH=''"
ALL = "BRIDGES='docker0 docker_gwbridge' OF=''"


def firewall(reach: Iterable[str] = (), *, bridge: str = "", of: str = "") -> str:
    """scripts/firewall.sh with the places that seats may reach all the same (the setting `seat.reach`).

    `bridge`: the one that the seats alone are on, where others are on the engine's own. `of`: tells its rules from
    those of other courses, in up to 11 characters.
    """
    text = resources.files("cloudscale.hosts").joinpath("scripts", "firewall.sh").read_text()
    text = text.replace(NOTHING, f"REACH='{' '.join(reach)}'", 1)
    return text.replace(ALL, f"BRIDGES='{bridge}' OF='-{of}'", 1) if bridge else text
