"""`invoke --list` here, against a tasks.py with one empty task."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import paired, summary

PROJECT = Path(__file__).parents[1]
EMPTY = "from invoke import task\n\n\n@task\ndef nothing(c):\n    pass\n"


def seconds(folder: Path) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "invoke", "--list"], cwd=folder, check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "tasks.py").write_text(EMPTY)
        seconds(PROJECT), seconds(Path(folder))  # both are compiled now
        ours, floor = paired(lambda: seconds(PROJECT), lambda: seconds(Path(folder)), rounds)
    print(summary("invoke --list", ours, floor, goal=1.3))


if __name__ == "__main__":
    main()
