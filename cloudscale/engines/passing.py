"""Passes an image from one machine to another, past the trainer's computer.

An engine knows no right that is less than everything: with a certificate for the other's port, the machine that sends
could do whatever the trainer can. And the command line of one release refuses the engines of others. So the image goes
over SSH, which runs on every machine: each engine is used by its own command line, and the key that logs in is made for
this one image. All that it can do at the other machine is `docker load`, until it is removed there, or has expired.
Where machines don't reach each other by SSH, `images.delivery` sends the image through the trainer's computer.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from importlib import resources

from cloudscale.engines.setup import tar
from cloudscale.errors import MachineError
from cloudscale.hosts.facts import script_failure
from cloudscale.hosts.login_key import passing_key
from cloudscale.hosts.ssh import Connection
from cloudscale.model import CommandResult, OnOutput, last_lines

PASSING = 3600.0  # seconds for an image
OPENING = 60.0  # seconds to let a key in, or to remove it
DD = re.compile("copied|records")  # dd's own statistics are not the cause of a failure


def pass_image(image: str, source: Connection, target: Connection, host: str, on_output: OnOutput) -> None:
    """Sends an image to `target`, which `source` reaches at `host`; `on_output` gets the progress that dd(1) prints.

    Raises MachineError, which names both machines and the cause, and ConnectionFailed.
    """
    private, public = passing_key()
    files = {"key": private, "known_hosts": f"cloudscale {target.host_key}\n".encode()}
    with _open_door(target, public) as port:
        done = source.run_root(
            _script("image-send"),
            *(image, target.target.user, host, port),
            timeout=PASSING,
            data=tar(files),
            on_output=on_output,
        )
    if done.exit_code:
        raise MachineError(
            f"{target.target.name}: could not pass the image {image} to it from {source.target.name} ({_cause(done)}).",
            f"Check that SSH (port {port}) is open between the machines.",
        )


@contextlib.contextmanager
def _open_door(target: Connection, key: str) -> Iterator[str]:
    """Lets the key load images at the target; the port of its SSH server."""
    user = target.target.user
    done = target.run_root(_script("image-door"), "open", key, user, f"{PASSING / 60 + 1:.0f}", timeout=OPENING)
    try:
        if done.exit_code:
            raise MachineError(f"{target.target.name}: it can't let another machine in ({script_failure(done)}).")
        yield re.sub(r"\D", "", done.stdout) or str(target.target.port)
    finally:
        target.run_root(_script("image-door"), "close", key, user, timeout=OPENING)


def _cause(done: CommandResult) -> str:
    errors = "\n".join(line for line in done.stderr.splitlines() if not DD.search(line))
    return last_lines(errors) or f"exit code {done.exit_code}"


def _script(name: str) -> str:
    return resources.files("cloudscale.engines").joinpath("scripts", f"{name}.sh").read_text()
