"""A notebook as a student has it: its cells, the command that runs it in a seat, and what its cells printed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any


def run_lesson(*cells: str) -> str:
    """A shell command that writes the notebook, runs all of it, and prints it with its outputs, or why it failed."""
    written: list[dict[str, Any]] = [
        {"cell_type": "code", "id": f"c{at}", "source": text, "metadata": {}, "outputs": [], "execution_count": None}
        for at, text in enumerate(cells)
    ]
    notebook = json.dumps({"cells": written, "metadata": {}, "nbformat": 4, "nbformat_minor": 5})
    return (
        f"cat >lesson.ipynb <<'END'\n{notebook}\nEND\n"
        "jupyter nbconvert --to notebook --execute --stdout lesson.ipynb 2>log || { cat log; false; }"
    )


def printed(executed: str) -> Sequence[str]:
    """What each cell of a notebook that was run printed."""
    cells = json.loads(executed)["cells"]
    return [
        "".join("".join(output["text"]) for output in cell["outputs"] if output.get("name") == "stdout")
        for cell in cells
    ]
