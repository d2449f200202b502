"""The folder of a trainer's own image: which packages it lists, what is wrong in it, and what of it is not used."""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from cloudscale.errors import RequestError

DOCKERFILE, REQUIREMENTS = "Dockerfile", "requirements.txt"
DEBIAN = ("packages.txt", "apt.txt")  # apt.txt is the name in repo2docker's folders
USED = (REQUIREMENTS, *DEBIAN)

BOMS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+(:[a-z0-9-]+)?([=/][A-Za-z0-9.+:~-]+)?")  # deb-version(7), apt-get(8)
COMMENT = re.compile(r"(^|\s)#.*")
OPTIONS = re.compile(r"\s--?[a-z].*")  # of one requirement, such as --hash=…
# an option, an address or a path, which pip understands
ELSEWHERE = re.compile(r"^(-|\.|/|~)|://|\$\{|\.(whl|zip|tar\.gz)$|^[\w.-]+/")

# What other tools read in such a folder: repo2docker, conda, pip, poetry, R and Julia.
INSTRUCTIONS = (
    *("environment.yml", "environment.yaml", "postBuild", "start", "runtime.txt", "install.R", "DESCRIPTION"),
    *("setup.py", "setup.cfg", "pyproject.toml", "Pipfile", "Pipfile.lock", "poetry.lock", "uv.lock", "conda-lock.yml"),
    *("Project.toml", "JuliaProject.toml", "Manifest.toml", "REQUIRE", "default.nix", "binder", ".binder"),
)


def check(folder: Path) -> None:
    """Raises RequestError if an image can't be built from the folder; it names the file and the line."""
    if os.path.isfile(folder / DOCKERFILE):
        return
    if not os.path.isfile(folder / REQUIREMENTS):
        others = ", ".join(_instructions(folder))
        missing = "" if os.path.isdir(folder) else " There is no such folder."
        raise RequestError(
            f"{folder} has neither a {REQUIREMENTS} nor a {DOCKERFILE}."
            f"{f' Not used: {others}.' if others else missing}",
            f"Create one of them. A {REQUIREMENTS} lists Python packages, with or without versions; a {DEBIAN[0]}"
            f" beside it can list Debian packages. A {DOCKERFILE} begins with ARG BASE and FROM ${{BASE}}.",
        )
    _check_requirements(folder / REQUIREMENTS)
    debian_packages(folder)


def debian_packages(folder: Path) -> list[str]:
    """The Debian packages that the folder lists. Raises RequestError for what can't be the name of one."""
    packages: list[str] = []
    for path in (folder / name for name in DEBIAN):
        for number, line in _lines(path) if path.is_file() else ():
            for name in line.split():
                if not PACKAGE.fullmatch(name):
                    raise RequestError(
                        f"{path}, line {number}: {name!r} is not the name of a Debian package.",
                        "Write one package a line; a comment begins with #.",
                    )
                packages.append(name)
    return list(dict.fromkeys(packages))


def _check_requirements(path: Path) -> None:
    for number, line in _lines(path):
        if ELSEWHERE.search(line):
            continue
        try:
            Requirement(OPTIONS.sub("", line))
        except InvalidRequirement:
            remedy = "Write NAME, NAME==VERSION or NAME>=VERSION, one a line."
            if line[0] in "\"'“”„‘’" or line[-1] in "\"'“”‘’":
                remedy = "Leave out the quotation marks: only a shell needs them."
            raise RequestError(f"{path}, line {number}: {line!r} is not a requirement.", remedy) from None


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that are not empty, with their numbers and without comments; a line that is continued is one line."""
    data = path.read_bytes()
    encoding = next((name for bom, name in BOMS.items() if data.startswith(bom)), "utf-8")
    joined, first = "", 0
    for number, line in enumerate(data.decode(encoding, errors="replace").splitlines(), 1):
        first = first if joined else number
        if line.endswith("\\"):
            joined += line[:-1]
            continue
        text, joined = COMMENT.sub("", joined + line).strip(), ""
        if text:
            yield first, text
    if text := COMMENT.sub("", joined).strip():
        yield first, text


def unused(folder: Path) -> str:
    """What of the folder does not get into the image, as a sentence; empty if there is nothing."""
    dockerfile = folder / DOCKERFILE
    if dockerfile.is_file():
        text = dockerfile.read_text(errors="replace")
        idle = [name for name in USED if (folder / name).is_file() and name not in text and "COPY . " not in text]
        return f"{DOCKERFILE}: it is built as it is, and does not use {', '.join(idle)}" if idle else ""
    instructions = _instructions(folder)
    others = sum(path.name not in (*USED, *instructions) and path.suffix != ".txt" for path in folder.iterdir())
    more = f"{others} other file{'s' if others > 1 else ''} or folder{'s' if others > 1 else ''}" if others else ""
    names = ", ".join([*instructions, *([more] if more else [])])
    return f"Not used of {folder}: {names} (only {', '.join(USED)} are; for more, write a Dockerfile)" if names else ""


def _instructions(folder: Path) -> list[str]:
    return [name for name in INSTRUCTIONS if os.path.exists(folder / name)]
