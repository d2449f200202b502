"""The stand-in in a process of its own, until it is interrupted or terminated: prints its URL."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from tests.lab.stand_in import StandIn


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.lab.stand_in", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 (as without it): any that is free")
    parser.add_argument("--clouds-yaml", type=Path, metavar="FOLDER", help="where to write a clouds.yaml")
    parser.add_argument("--no-volume", action="store_true", help="without block storage")
    parser.add_argument("--quota", action="append", default=[], metavar="NAME=NUMBER", help="as instances=200")
    parser.add_argument("--looks-to-build", type=int, default=0, help="looks at a server until it is up")
    parser.add_argument("--looks-to-delete", type=int, default=0, help="looks at a server until it is gone")
    arguments = parser.parse_args()
    ends = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # before there are threads, which inherit it
    with StandIn(port=arguments.port, volume=not arguments.no_volume) as stand_in:
        for quota in arguments.quota:
            name, _, number = quota.partition("=")
            stand_in.set_quota(name, int(number))
        stand_in.compute.looks_to_build = arguments.looks_to_build
        stand_in.compute.looks_to_delete = arguments.looks_to_delete
        if arguments.clouds_yaml:
            stand_in.clouds_yaml(arguments.clouds_yaml)
        sys.stdout.write(f"{stand_in.url}\n")
        sys.stdout.flush()
        signal.sigwait(ends)


if __name__ == "__main__":
    main()
