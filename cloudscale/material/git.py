"""A git repository's files, fetched with the program git on this computer."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from cloudscale.errors import RequestError
from cloudscale.hosts.this_computer import run_shell
from cloudscale.model import TIMED_OUT, CommandResult

PROTOCOLS = ("https", "http", "ssh", "git", "file")
ADDRESS = re.compile(rf"(?:{'|'.join(PROTOCOLS)})://", re.IGNORECASE)
SCP_LIKE = re.compile(r"[\w.+-]+@[\w.-]+:.+")  # git@host:path
SECRET = re.compile(r"(?<=://)[^/\s@]*@")

ENVIRONMENT = {
    # nobody is asked for a password, neither by a window; there is no terminal
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "",
    "SSH_ASKPASS_REQUIRE": "never",
    "GCM_INTERACTIVE": "never",
    "GIT_ALLOW_PROTOCOL": ":".join(PROTOCOLS),  # above all not ext, which runs a command
    "LC_ALL": "C.UTF-8",
}
# What the repository or the user's own configuration would have run: hooks, and the download of large files
SETTINGS = (
    *("core.hooksPath=/dev/null", "core.fsmonitor=false", "core.autocrlf=false", "submodule.recurse=false"),
    *("filter.lfs.process=", "filter.lfs.smudge=", "filter.lfs.required=false"),
)
# A password in an address is given to git by its environment, which only the same user can read, unlike its arguments
ANSWER = '!f() { printf "username=%s\\npassword=%s\\n" "$CLOUDSCALE_GIT_USER" "$CLOUDSCALE_GIT_PASSWORD"; }; f'


def is_address(source: str) -> bool:
    """Whether this is the address of a repository, and not a path on this computer."""
    return bool(ADDRESS.match(source)) or (bool(SCP_LIKE.fullmatch(source)) and not os.path.exists(source))


def is_repository(folder: Path) -> bool:
    """Whether a folder is a working copy or a bare repository."""
    return os.path.exists(folder / ".git") or is_bare(folder)


def is_bare(folder: Path) -> bool:
    return os.path.isfile(folder / "HEAD") and all(os.path.isdir(folder / name) for name in ("objects", "refs"))


def shown(text: str) -> str:
    """The text without the passwords in its addresses."""
    return SECRET.sub("", text)


def clone(source: str, branch: str, folder: Path, timeout: float) -> str:
    """Writes the files of a branch or tag (empty: the default one) into an empty folder, and returns the commit.

    Runs no hook, fetches no submodule and asks nothing. Raises RequestError.
    """
    if not shutil.which("git"):
        raise RequestError(
            f"{shown(source)} is a git repository, and git is not installed on this computer.",
            "Install it (sudo apt-get install git), or give a folder with the files.",
        )
    for given in (source, branch):
        if given.startswith("-"):
            raise RequestError(f"{shown(given)!r} begins with a dash.", "Give the name of a repository or branch.")
    address, answers = _without_password(source)
    settings = [word for setting in SETTINGS for word in ("-c", setting)]
    words = [
        *("git", *settings, "clone", "--quiet", "--single-branch", "--no-tags", "--no-local"),
        *("--no-recurse-submodules", "--template=", *([f"--branch={branch}"] if branch else [])),
    ]
    where = ["--", address, str(folder)]
    done = _git([*words, "--depth=1", *where], answers, timeout)
    if done.exit_code and "shallow" in done.stderr:  # by a server that can only give the whole history
        done = _git([*words, *where], answers, timeout)
    if done.exit_code:
        raise _not_cloned(source, branch, done, timeout)
    return _git(["git", "-C", str(folder), "rev-parse", "--short", "HEAD"], {}, timeout).stdout.strip()


def _git(words: list[str], answers: Mapping[str, str], timeout: float) -> CommandResult:
    # such as in a hook of another repository
    command = f"unset GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE; exec {shlex.join(words)}"
    return run_shell(command, timeout, environment={**ENVIRONMENT, **answers})


def _without_password(source: str) -> tuple[str, dict[str, str]]:
    """The address without user and password, and the environment with which git knows them all the same."""
    if not re.match(r"https?://", source, re.IGNORECASE):
        return source, {}
    try:
        parts = urlsplit(source)
    except ValueError as error:
        raise RequestError(f"{shown(source)!r} is not the address of a repository ({error}).", "Check it.") from None
    login, at, host = parts.netloc.rpartition("@")
    if not at:
        return source, {}
    user, _, password = login.partition(":")
    before = int(os.environ.get("GIT_CONFIG_COUNT") or 0)
    helpers = ["", ANSWER]  # the empty one takes away those of the user's configuration
    settings: dict[str, str] = {}
    for number, helper in enumerate(helpers, start=before):
        settings |= {f"GIT_CONFIG_KEY_{number}": "credential.helper", f"GIT_CONFIG_VALUE_{number}": helper}
    return urlunsplit(parts._replace(netloc=host)), {
        **settings,
        "GIT_CONFIG_COUNT": str(before + len(helpers)),
        "CLOUDSCALE_GIT_USER": unquote(user),
        "CLOUDSCALE_GIT_PASSWORD": unquote(password),
    }


def _not_cloned(source: str, branch: str, done: CommandResult, timeout: float) -> RequestError:
    where = shown(source)
    if done.exit_code == TIMED_OUT:
        return RequestError(
            f"The repository {where} was not fetched within {timeout:g} s.", "Check the network, or use --timeout."
        )
    said = shown(done.stderr)
    if branch and "not found in upstream" in said:
        return RequestError(f"The repository {where} has no branch or tag {branch!r}.", "Check --branch.")
    remedy = f"Check the address; this command shows more: git clone {where}"
    if "terminal prompts disabled" in said or "Authentication failed" in said or "Permission denied" in said:
        remedy = (
            "Check the address. A private repository needs an SSH key, or a credential helper of git that knows the"
            " password."
        )
    return RequestError(f"The repository {where} can't be fetched: {_cause(said)}.", remedy)


def _cause(said: str) -> str:
    """The line with the error; git ends it with advice."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("fatal:", "error:", "ssh:"))]
    first = (errors or lines or ["git gave no reason"])[0]
    return first.removeprefix("fatal: ").removeprefix("error: ").rstrip(".")[:300]
