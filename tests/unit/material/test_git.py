"""Fetching a repository: with a real git on local ones, with a stand-in for what git must not be asked."""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from cloudscale.errors import RequestError
from cloudscale.material import git as module
from cloudscale.model import TIMED_OUT, CommandResult
from tests.lab.repositories import commit, git

LOGIN = "https://ann:s3cret%40x@git.example.org/course.git"


@pytest.fixture
def repository(tmp_path: Path, processes: None) -> Path:
    folder = tmp_path / "course"
    commit(folder, {"lesson.txt": "one", "day1/a.txt": "a"})
    return folder


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("https://git.example.org/x.git", True),
        ("ssh://git@example.org/x", True),
        ("file:///srv/x.git", True),
        ("git@example.org:team/x.git", True),
        ("folder/x", False),
        ("C:x", False),
        ("ext::sh -c whoami", False),
    ],
)
def test_an_address_and_a_path_differ_by_their_form(source: str, expected: bool) -> None:
    assert module.is_address(source) is expected


def test_a_branch_or_tag_is_fetched_and_its_commit_named(repository: Path, tmp_path: Path) -> None:
    git(repository, "tag", "v1")
    newest = commit(repository, {"lesson.txt": "two"}, branch="spring")
    for branch, text in (("v1", "one"), ("main", "one"), ("spring", "two")):
        folder = tmp_path / branch
        found = module.clone(repository.as_uri(), branch, folder, 60)
        assert (folder / "lesson.txt").read_text() == text
        assert (found == newest) is (branch == "spring")


def test_no_hook_runs_and_no_submodule_is_fetched(repository: Path, tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    commit(inner, {"secret.txt": "x"})
    git(repository, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(inner), "sub")
    commit(repository, {"lesson.txt": "two"})
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    (hooks / "post-checkout").write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    (hooks / "post-checkout").chmod(0o755)
    home = Path(os.environ["HOME"])
    home.mkdir()
    (home / ".gitconfig").write_text(f"[core]\n hooksPath = {hooks}\n[submodule]\n recurse = true\n")
    module.clone(str(repository), "", tmp_path / "clone", 60)
    assert not (tmp_path / "ran").exists() and not [*(tmp_path / "clone/sub").iterdir()]


def test_a_branch_that_does_not_exist_is_named(repository: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no branch or tag 'autumn'"):
        module.clone(str(repository), "autumn", tmp_path / "clone", 60)


@pytest.mark.usefixtures("processes")
def test_a_repository_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"file:///nowhere/x can't be fetched: .*does not"):
        module.clone("file:///nowhere/x", "", tmp_path / "clone", 60)


def test_a_plain_web_server_gives_the_whole_history(repository: Path, tmp_path: Path, loopback: str) -> None:
    git(tmp_path, "clone", "-q", "--bare", str(repository), "www/x.git")
    git(tmp_path / "www/x.git", "update-server-info")
    handler = functools.partial(QuietHandler, directory=str(tmp_path / "www"))
    with http.server.ThreadingHTTPServer((loopback, 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        module.clone(f"http://ann:pass@{loopback}:{server.server_port}/x.git", "main", tmp_path / "clone", 60)
        server.shutdown()
    assert (tmp_path / "clone/lesson.txt").read_text() == "one"


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *words: object) -> None:
        pass


@pytest.mark.parametrize(("source", "branch"), [("--upload-pack=x", ""), ("https://git.example.org/x", "-x")])
def test_what_looks_like_a_flag_is_refused(tmp_path: Path, source: str, branch: str) -> None:
    with pytest.raises(RequestError, match="begins with a dash"):
        module.clone(source, branch, tmp_path, 60)


def test_without_git_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda program: None)
    with pytest.raises(RequestError, match="git is not installed") as error:
        module.clone(LOGIN, "", tmp_path, 60)
    assert "apt-get install git" in str(error.value) and "s3cret" not in str(error.value)


@pytest.mark.usefixtures("processes")
def test_a_program_as_protocol_is_not_run_even_if_the_users_configuration_wants_it(tmp_path: Path) -> None:
    home = Path(os.environ["HOME"])
    home.mkdir()
    evil = (
        f'[url "ext::touch {tmp_path}/ran %G "]\n insteadOf = https://git.example.org/\n[protocol]\n allow = always\n'
    )
    (home / ".gitconfig").write_text(evil)
    with pytest.raises(RequestError, match="not allowed"):
        module.clone("https://git.example.org/x", "", tmp_path / "clone", 60)
    assert not (tmp_path / "ran").exists()


Runs = list[tuple[str, Mapping[str, str]]]


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Callable[[CommandResult], Runs]:
    """Notes what would be run, and has it end like this."""

    def ending(result: CommandResult) -> Runs:
        noted: Runs = []

        def run(command: str, timeout: float, *, environment: Mapping[str, str]) -> CommandResult:
            noted.append((command, environment))
            return result

        monkeypatch.setattr(module, "run_shell", run)
        return noted

    return ending


def test_a_password_is_in_no_argument_and_no_message(tmp_path: Path, runs: Callable[..., Runs]) -> None:
    noted = runs(CommandResult(128, "", f"Cloning…\nfatal: unable to access '{LOGIN}/': 403\nadvice\n"))
    with pytest.raises(RequestError) as error:
        module.clone(LOGIN, "", tmp_path, 60)
    ((command, environment),) = noted
    assert "s3cret" not in command and "https://git.example.org/course.git" in command
    assert environment["CLOUDSCALE_GIT_PASSWORD"] == "s3cret@x" and environment["GIT_TERMINAL_PROMPT"] == "0"
    assert "unable to access 'https://git.example.org/course.git/': 403." in str(error.value)
    assert "s3cret" not in str(error.value)


@pytest.mark.usefixtures("processes")
def test_git_gets_the_password_when_it_asks(tmp_path: Path) -> None:
    address, environment = module._without_password(LOGIN)
    done = subprocess.run(
        ["git", "credential", "fill"],
        input="protocol=https\nhost=git.example.org\n\n",
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    assert address == "https://git.example.org/course.git"
    assert "username=ann\npassword=s3cret@x" in done.stdout


@pytest.mark.parametrize("source", ["https://git.example.org/x", "git@example.org:x", "ssh://git@example.org/x"])
def test_an_address_without_a_password_stays_as_it_is(source: str) -> None:
    assert module._without_password(source) == (source, {})


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (CommandResult(TIMED_OUT, "", "ended"), "was not fetched within 60 s"),
        (CommandResult(128, "", "fatal: could not read Username: terminal prompts disabled"), "credential helper"),
        (CommandResult(128, "", ""), "git gave no reason"),
    ],
)
def test_the_cause_and_the_remedy_are_named(
    tmp_path: Path, runs: Callable[..., Any], result: CommandResult, expected: str
) -> None:
    runs(result)
    with pytest.raises(RequestError) as error:
        module.clone("https://git.example.org/x", "", tmp_path, 60)
    assert expected in str(error.value)


def test_a_bare_repository_is_recognized(repository: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "-q", "--bare", str(repository), "bare.git")
    assert module.is_bare(tmp_path / "bare.git") and not module.is_bare(repository)
    assert module.is_repository(repository) and not module.is_repository(tmp_path)
