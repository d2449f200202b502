"""`invoke --list` here, against a tasks.py with one empty task."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import environment, paired, summary

PROJECT = Path(__file__).parents[1]
EMPTY = "from invoke import task\n\n\n@task\ndef nothing(c):\n    pass\n"


def seconds(folder: Path, compiled: Path) -> float:
    command = [sys.executable, "-m", "invoke", "--list"]
    start = time.perf_counter()
    subprocess.run(command, cwd=folder, env=environment(compiled), check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as place:
        folder, compiled = Path(place), Path(place) / "compiled"
        (folder / "tasks.py").write_text(EMPTY)
        seconds(PROJECT, compiled), seconds(folder, compiled)  # both are compiled now
        ours, floor = paired(lambda: seconds(PROJECT, compiled), lambda: seconds(folder, compiled), rounds)
    print(summary("invoke --list", ours, floor, goal=1.3))


if __name__ == "__main__":
    main()
