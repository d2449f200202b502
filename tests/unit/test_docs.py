"""The documentation says what the code does: generated pages, links, and the commands that readers copy."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from script.reference import all_tasks, as_typed, stale
from script.screenshot import LARGEST, PICTURE

PROJECT = Path(__file__).parents[2]
LONGEST_README = 120  # lines
NAMES = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "tests/lab/README.md")
PAGES = [*(PROJECT / name for name in NAMES), *sorted((PROJECT / "docs").glob("*.md"))]
CODE = re.compile(r"^```.*?\n(.*?)^```|`([^`\n]+)`", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)
BLOCK = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
INVOKE = re.compile(r"\binvoke +(.*)")
ENDS = {"#", "|", "&&", ";", "…"}  # words that end a command
CORE = {"-f", "--help", "--list", "--debug"}  # of Invoke's own flags, those before a task that the pages use

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))


def commands(text: str) -> Iterator[list[str]]:
    """The words after `invoke` of each command in a page's code."""
    for code in CODE.finditer(text):
        for line in re.sub(r"\\\n", " ", code[1] or code[2]).splitlines():
            if match := INVOKE.search(line):
                yield list(_until_end(_split(match[1])))


def _split(words: str) -> list[str]:
    try:
        return shlex.split(words)
    except ValueError:  # a quotation that goes on in the next line
        return words.split()


def _until_end(words: list[str]) -> Iterator[str]:
    for word in words:
        if word in ENDS or word.startswith("#"):
            return
        yield word


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives to a page's headings."""
    headings = HEADING.findall(BLOCK.sub("", text))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_the_generated_pages_are_up_to_date() -> None:
    assert [page.name for page in stale()] == [], "run script/docs"


def test_the_readme_is_short() -> None:
    assert len((PROJECT / "README.md").read_text(encoding="utf-8").splitlines()) <= LONGEST_README


def test_the_picture_is_small() -> None:
    assert PICTURE.stat().st_size <= LARGEST


@every_page
def test_every_link_leads_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for link in LINK.findall(BLOCK.sub("", text)):
        if re.match("[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text(encoding="utf-8")), link


@every_page
def test_every_command_names_a_task_and_its_flags(page: Path) -> None:
    tasks = all_tasks()
    for words in commands(page.read_text(encoding="utf-8")):
        while words and words[0].startswith("-"):
            assert words[0] in CORE, words
            words = words[2:] if words[0] == "-f" else words[1:]
        if not words or words[0] in ("TASK", "..."):
            continue
        name, *rest = words
        assert name in tasks, words
        given = {word.partition("=")[0] for word in rest if word.startswith("--")}
        assert given <= {as_typed(argument) for argument in tasks[name].arguments}, words


def test_commands_are_read_from_the_pages() -> None:
    text = "`invoke themachine --plan` and\n```sh\ninvoke -f class.yaml status --only a  # look\nls\n```\n"
    assert list(commands(text)) == [["themachine", "--plan"], ["-f", "class.yaml", "status", "--only", "a"]]
    assert sum(1 for page in PAGES for _ in commands(page.read_text(encoding="utf-8"))) > 50
