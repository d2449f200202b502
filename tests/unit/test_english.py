"""Words that the project no longer uses, in prose or in names: each has a plainer one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
RETIRED = {  # regular expressions, and what to write instead; a blank also matches a line end or an underscore
    r"told": "reported, shown, passed",
    r"heard": "received",
    r"anew": "again",
    r"mend(s|ed|ing)?": "fix",
    r"beheaded": "without a quorum",
    # not openjdk-21-jre-headless, nor VirtualBox's "headless", nor a browser's
    r"(?<![-\"])headless(?! Chromium)": "without a quorum",
    r"str(ike|ikes|uck|iking) off": "remove",
    r"founded": "created",
    r"heirs?": "successor",
    r"belongings": "resources",
    r"doomed": "to delete",
    r"amiss": "problem",
    r"(?<!native )speakers?": "manager",
    r"nobody is there": "there is no terminal",
    r"there (is|are)(?=:)": "available",
    r"left to it": "in use by",
    r"for your eyes( only)?": "mode 0600",
}
RETIRED_NAMES = r"(?<!\w)_(seen|wanted)\b"  # each had several meanings


def texts() -> list[Path]:
    package = PROJECT / "cloudscale"
    code = [PROJECT / "tasks.py", *package.rglob("*.py"), *package.rglob("*.sh")]
    tests = (path for path in (PROJECT / "tests").rglob("*.py") if path != Path(__file__))
    others = (path for name in ("benchmarks", "script") for path in (PROJECT / name).rglob("*.py"))
    pages = (PROJECT / f"{name}.md" for name in ("README", "CONTRIBUTING", "SECURITY", "CHANGELOG"))
    return sorted([*code, *tests, *others, *pages, *(PROJECT / "docs").rglob("*.md")])


def retired(text: str) -> list[str]:
    """The retired words of a text, each with what to write instead."""
    names = [f"{match[0]}: a name that says more" for match in re.finditer(RETIRED_NAMES, text)]
    prose = re.sub(r"[\s#_]+", " ", text)
    words = [
        f"…{prose[max(0, match.start() - 30) : match.end() + 30]}…: {better}"
        for pattern, better in RETIRED.items()
        for match in re.finditer(rf"\b(?:{pattern})\b", prose, re.IGNORECASE)
    ]
    return names + words


@pytest.mark.parametrize("path", texts(), ids=lambda path: str(path.relative_to(PROJECT)))
def test_no_retired_word_is_used(path: Path) -> None:
    assert retired(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "text",
    [
        "It is told.",
        "def told(",
        "is_headless",
        "# struck\n    # off",
        "self._seen = 1",
        "a swarm\nfounded",
        "There is: a, b",
    ],
)
def test_retired_words_are_recognized(text: str) -> None:
    assert retired(text)


@pytest.mark.parametrize(
    "text", ["recommend", "unseen", "seats_wanted", "openjdk-21-jre-headless", '"headless"', "their"]
)
def test_other_words_are_not(text: str) -> None:
    assert retired(text) == []
