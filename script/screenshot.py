"""Takes docs/picture.png: a class on a real engine, its table, and a student's JupyterLab in a real browser.

Run it with script/picture, which installs what it needs. The engine has a network namespace and a folder of its own,
and both are removed at the end; the engine of this computer is not used. Only the frames of the two windows are drawn:
the text of the terminal is what the tasks print, and the page is a seat's, seen after a login with its password.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import html
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.lab import namespace
from tests.lab.browser import Browser
from tests.lab.engine import LabEngine, clear

PROJECT = Path(__file__).parents[1]
PICTURE = PROJECT / "docs" / "picture.png"
STATE = Path(tempfile.gettempdir()) / "cloudscale-picture"
HOST, ADDRESS = "desk", "192.0.2.2"  # of the documentation's range (RFC 5737)
ROSTER = "1;Marty;McFly;\n2;Emmett;Brown;e.brown@thefuture.io\n3;Jennifer;Parker;\n"
TASK = "invoke themachine --driver local --students students.csv"
NOTEBOOK = "flight.ipynb"
CELLS = (
    ("markdown", "## How fast to 88 miles per hour?"),
    (
        "code",
        "import numpy as np, pandas as pd\n\n"
        "random, seconds = np.random.default_rng(1985), np.arange(21)\n"
        "speed = 97 * (1 - np.exp(-seconds / 8))\n"
        "runs = pd.DataFrame({f'run {n}': speed + random.normal(0, 3, 21) for n in '123'})\n"
        "ax = runs.plot(figsize=(9, 3.3), style='.', xlabel='seconds', ylabel='speed')\n"
        "ax.plot(seconds, speed, color='black', lw=1)\n"
        "ax.axhline(88, color='crimson', ls='--', lw=1);",
    ),
)
WIDTH, PAGE_HEIGHT, SCALE = 1120, 640, 1.5
LARGEST = 300_000  # bytes
# The text of the terminal, then the page. {…} are filled in.
FRAMES = """<!doctype html><meta charset="utf-8"><style>
* {{ box-sizing: border-box }}
body {{ margin: 0; width: {width}px; padding: 18px; background: #dfe5ec; font-family: "DejaVu Sans", sans-serif }}
section {{ border-radius: 8px; overflow: hidden; border: 1px solid #aab4c0; margin-bottom: 16px }}
section:last-child {{ margin-bottom: 0 }}
header {{ height: 30px; display: flex; align-items: center; gap: 7px; padding: 0 12px; font-size: 12px; color: #445 }}
header i {{ width: 11px; height: 11px; border-radius: 50%; background: #b9c1ca }}
header span {{ margin-left: 12px; background: #fff; border-radius: 10px; padding: 3px 14px; flex: 1 }}
.browser header {{ background: #eef1f4; border-bottom: 1px solid #ccd3da }}
.terminal header {{ background: #39424d }}
.terminal header i {{ background: #5b6673 }}
pre {{ margin: 0; padding: 12px 16px 14px; background: #1d232b; color: #d7dee6; line-height: 1.45;
  font: 13.5px/1.5 "DejaVu Sans Mono", monospace; white-space: pre; overflow: hidden }}
pre b {{ color: #fff }}
pre s {{ color: #8593a3; text-decoration: none }}
img {{ display: block; width: 100% }}
</style>
<section class="terminal"><header><i></i><i></i><i></i></header><pre>{terminal}</pre></section>
<section class="browser"><header><i></i><i></i><i></i><span>{url}</span></header>
<img src="data:image/png;base64,{page}"></section>"""


class Desk(namespace.Namespace):
    """A network with one address, and a host name to go with it."""

    def __init__(self) -> None:
        namespace.PREFIX = "cloudscale-picture"  # the tests remove whatever has their own prefix
        super().__init__(HOST)
        self.run("ip", "address", "add", f"{ADDRESS}/24", "dev", "lo")
        self.run("ip", "route", "add", "default", "dev", "lo", "src", ADDRESS)

    def wrap(self, *command: str) -> list[str]:
        named = ("unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', HOST)
        return super().wrap(*named, *command)


class Class:
    """`invoke …` on the engine, in a folder with the students' file."""

    def __init__(self, engine: LabEngine, folder: Path) -> None:
        self._engine = engine
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("tasks.py", "invoke.yaml"):
            shutil.copy(PROJECT / name, folder)
        (folder / "students.csv").write_text(ROSTER, encoding="utf-8")

    def __call__(self, *words: str, inside: bool = True) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "invoke", *words]
        done = subprocess.run(
            self._engine.namespace.wrap(*command) if inside else command,
            cwd=self.folder,
            env={
                **os.environ,
                "PYTHONPATH": str(PROJECT),
                "DOCKER_HOST": self._engine.url,
                "CLOUDSCALE_HOME": str(self.folder / "home"),
                "INVOKE_CLOUDSCALE_IMAGE": "pydata",
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"invoke {' '.join(words)} failed:\n{done.stderr}")
        return done

    def write_notebook(self, student: str) -> None:
        """A notebook in a seat, with its outputs."""
        cells: list[dict[str, Any]] = []
        for at, (kind, text) in enumerate(CELLS):
            cell = {"cell_type": kind, "id": f"c{at}", "source": text, "metadata": {}}
            cells.append(cell | ({"outputs": [], "execution_count": None} if kind == "code" else {}))
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}}
        notebook = json.dumps({"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5})
        run = f"jupyter nbconvert --to notebook --execute --inplace {NOTEBOOK}"
        command = f"cd ~/work && cat >{NOTEBOOK} <<'END'\n{notebook}\nEND\n{run}"
        self("com_containers", command, "--only", student, "--driver", "local")


def photograph_lab(browser: Browser, url: str, password: str) -> bytes:
    """The notebook as its student sees it after a login."""
    browser.resize(WIDTH - 38, PAGE_HEIGHT, SCALE)
    browser.open(f"{url}/login?next={urlsplit(url).path}/lab/tree/{NOTEBOOK}")
    browser.wait("document.querySelector('input[name=password]') !== null")
    browser.run(f"document.querySelector('input[name=password]').value = {json.dumps(password)}")
    browser.run("document.querySelector('input[name=password]').form.submit()")
    browser.wait("document.querySelectorAll('.jp-OutputArea img').length > 0")
    browser.wait("document.querySelector('#jp-main-statusbar').innerText.includes('Idle')")
    time.sleep(3)  # what moves has come to rest
    return browser.screenshot()


def compose(browser: Browser, terminal: str, url: str, page: bytes, folder: Path) -> bytes:
    """Both windows in one picture."""
    encoded = base64.b64encode(page).decode("ascii")
    (folder / "frames.html").write_text(FRAMES.format(width=WIDTH, terminal=terminal, url=url, page=encoded))
    browser.resize(WIDTH, 1200, SCALE)
    browser.open((folder / "frames.html").as_uri())
    browser.wait("document.images.length === 1 && document.images[0].complete")
    return browser.screenshot(WIDTH, int(browser.run("document.body.scrollHeight")))


def take(lesson: Class, network: namespace.Namespace) -> bytes:
    launched = lesson(*TASK.split()[1:])
    rows = json.loads(lesson(*TASK.split()[1:], "--format", "json").stdout)
    marty = rows[0]
    lesson.write_notebook(marty["student"])
    progress = "".join(f"<s>{html.escape(line)}</s>\n" for line in launched.stderr.splitlines() if line.strip())
    terminal = f"<b>$ {TASK}</b>\n{progress}{html.escape(launched.stdout.rstrip())}"
    browser = Browser(network, lesson.folder / "browser")
    try:
        page = photograph_lab(browser, marty["url"], marty["password"])
        return compose(browser, terminal, f"{marty['url']}/lab/tree/{NOTEBOOK}", page, lesson.folder)
    finally:
        browser.close()


@contextlib.contextmanager
def started() -> Iterator[LabEngine]:
    clear(STATE / "engine")
    network = Desk()
    engine = LabEngine(STATE / "engine", network)
    try:
        yield engine
    finally:
        engine.stop()
        network.remove()


def main() -> None:
    parser = argparse.ArgumentParser(prog="script/picture", description=__doc__, allow_abbrev=False)
    parser.add_argument("--output", type=Path, default=PICTURE, help="where the picture goes (docs/picture.png)")
    output = parser.parse_args().output.absolute()
    with started() as engine:
        lesson = Class(engine, STATE / "class")
        print("Building the image pydata, which takes some minutes", file=sys.stderr)
        lesson("image_build", "pydata", inside=False)
        picture = take(lesson, engine.namespace)
    shutil.rmtree(STATE, ignore_errors=True)
    if len(picture) > LARGEST:
        raise SystemExit(f"The picture has {len(picture)} bytes, more than {LARGEST}.")
    output.write_bytes(picture)
    print(f"{output}: {len(picture) // 1000} kB")


if __name__ == "__main__":
    main()
