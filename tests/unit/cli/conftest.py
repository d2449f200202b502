from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest
from invoke.config import merge_dicts
from invoke.exceptions import ParseError

from tests.unit.cli.running import TASKS, Workflow


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty folder to run in. What tasks.py changes in this process is restored."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    for module in ("parser.parser", "program"):
        monkeypatch.setattr(f"invoke.{module}.ParseError", ParseError)
    monkeypatch.setattr("invoke.config.merge_dicts", merge_dicts)
    monkeypatch.setattr(logging.getLogger("invoke"), "filters", [])
    return tmp_path


@pytest.fixture
def called(here: Path, monkeypatch: pytest.MonkeyPatch) -> Workflow:
    stand_in = Workflow()
    for name, module in TASKS.items():
        monkeypatch.setattr(f"cloudscale.workflow.{module}.{name}", stand_in)
    return stand_in
