"""Says how many inputs were tried."""

from __future__ import annotations

import sys

import pytest

from tests.unit.fuzz.inputs import EXAMPLES, refused, tried


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if EXAMPLES:
        terminalreporter.section("inputs that were tried")
        for module, count in sorted(tried.items()):
            what = (sys.modules[module].__doc__ or "").partition(":")[0].rstrip(".")
            terminalreporter.write_line(f"{count:9,}  {what} ({refused[module]:,} times refused)")
        terminalreporter.write_line(f"{sum(tried.values()):9,}  in all")
