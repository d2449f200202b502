"""What seats can't reach from a machine: the script that closes it."""

from __future__ import annotations

from collections.abc import Iterable

from cloudscale.scripts import script

SCRIPT = "/var/lib/cloudscale/course/firewall.sh"  # on the machine
NOTHING = "REACH=''"


def firewall(reach: Iterable[str] = ()) -> str:
    """scripts/firewall.sh with the places that seats may reach all the same (the setting `seat.reach`)."""
    return script("hosts", "firewall.sh").replace(NOTHING, f"REACH='{' '.join(reach)}'", 1)
