"""Commands that are killed, that two trainers run at once, or that get Ctrl-C, on real hosts and on a real OpenStack.

Run it with `script/soak kills`. It prints a line for each, with what stood then and how long the next run took, and
ends with exit code 1 if anything was not as it should be: the next run did not finish, a password or an address has
changed, something was left after driver_reset, both of two runs changed a course, or a Ctrl-C took over two seconds.
"""

from __future__ import annotations

import argparse
import sys
import time
from random import Random, SystemRandom

from tests.soak.interrupts import interrupt
from tests.soak.on_cloud import kill_on_cloud
from tests.soak.on_hosts import kill_on_hosts
from tests.soak.table import Table, say
from tests.soak.two_trainers import two_trainers
from tests.soak.world import STATE, a_cloud, an_engine, prepared, three_hosts

PARTS = ("hosts", "trainers", "interrupts", "cloud")
KILLS = 42  # on the hosts


def run(parts: list[str], count: int, seed: int, table: Table) -> None:
    if {*parts} - {"cloud"}:
        with three_hosts() as place:
            if "hosts" in parts:
                kill_on_hosts(place, table, count, Random(seed))
            if "trainers" in parts:
                two_trainers(place, table)
            if "interrupts" in parts:
                interrupt(place, table)
    if "cloud" in parts:
        with a_cloud() as cloud, an_engine("cloud-engine") as (engine, image):
            folder = STATE / "cloud-desk"
            folder.mkdir()
            kill_on_cloud(cloud, engine, image, folder, table)


def main() -> None:
    parser = argparse.ArgumentParser(prog="script/soak kills", description=__doc__, allow_abbrev=False)
    parser.add_argument("count", nargs="?", type=int, default=KILLS, help="kills on the hosts, at least (%(default)s)")
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(10_000), help="of the moments")
    parser.add_argument("--only", action="append", choices=PARTS, help="a part of it; may be repeated")
    chosen = parser.parse_args()
    with prepared():
        table, begun = Table(), time.monotonic()
        say(f"The moments: --seed {chosen.seed}")
        run(chosen.only or list(PARTS), chosen.count, chosen.seed, table)
    print(f"\n{len(table.rows)} rows, {table.violations} of them with problems, in {time.monotonic() - begun:.0f} s")
    sys.exit(1 if table.violations else 0)


if __name__ == "__main__":
    main()
