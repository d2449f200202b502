"""Types a trainer's whole day on the lab's OpenStack, and writes it into docs/the-day.md with its times and pictures.

Run it with script/rehearsal, which installs what it needs. Every line is typed as the trainer types it, with what the
tool printed below it; a command that does not end as it should ends the rehearsal. What a student does in between is
done in a real browser, or in the seat. In the end, nothing of the course may be left in the project.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from urllib.parse import urlsplit

from tests.cloud.classroom import Project
from tests.cloud.conftest import PROGRAMS
from tests.lab import namespace
from tests.lab.browser import Browser
from tests.lab.caddy_image import load_caddy_image
from tests.lab.cloud import LabCloud
from tests.lab.cloud_seed import DOCKER
from tests.lab.engine import LabEngine, clear
from tests.lab.jupyter_client import Student
from tests.lab.ring import PATH
from tests.lab.tiny_image import load_tiny_image

PROJECT = Path(__file__).parents[1]
PAGE = PROJECT / "docs" / "the-day.md"
STATE = Path(tempfile.gettempdir()) / "cloudscale-rehearsal"
HEADING = "## A rehearsal"
ROSTER = """1;Marty;McFly;
2;Emmett;Brown;e.brown@thefuture.io
3;Jennifer;O'Parker;
4;Łukasz;Żółć;
5;Клара;Клейтон;
90;Spare;One;
"""
LATE = "6;Lorraine;Baines;\n"
SETTINGS = {
    "driver": "openstack",
    "course": "physics",
    "gateway": {"mode": "path", "tls": "internal"},
    "openstack": {"cloud": "course", "image": DOCKER, "flavor": "m1.small"},
}
LESSON, WORK = "lessons/speed.py", "speed.py"
A4, CARDS, LOGIN = (794, 1123), "rehearsal-cards.png", "rehearsal-login.png"
LARGEST = 300_000  # bytes of a picture
ALL = 1000
LONGEST = 900  # seconds for a command


@dataclass(frozen=True)
class Line:
    """A command that was typed, what it printed, and the seconds that it took."""

    words: str
    said: str
    seconds: float


@dataclass
class Trainer:
    """A folder with the configuration and the students' file, in which `invoke …` is typed."""

    folder: Path
    cloud: LabCloud
    engine: LabEngine
    image: str
    typed: list[str] = field(default_factory=list)

    def set_up(self) -> None:
        self.folder.mkdir(parents=True)
        shutil.copy(PROJECT / "tasks.py", self.folder)
        of_invoke, _, _ = (PROJECT / "invoke.yaml").read_text(encoding="utf-8").partition("cloudscale:")
        ours = json.dumps({**SETTINGS, "image": self.image})  # which is YAML, too
        (self.folder / "invoke.yaml").write_text(f"{of_invoke}cloudscale: {ours}\n")
        self.students.write_text(ROSTER, encoding="utf-8")
        self.write_lesson("88")

    @property
    def students(self) -> Path:
        return self.folder / "students.csv"

    def write_lesson(self, speed: str) -> None:
        lesson = self.folder / LESSON
        lesson.parent.mkdir(exist_ok=True)
        lesson.write_text(f"print('{speed} miles per hour')\n")

    def run(self, words: str) -> Line:
        """What a terminal shows, in the order in which it came. Ends the rehearsal unless all is well."""
        begun = time.monotonic()
        done = subprocess.run(
            self.cloud.namespace.wrap("sh", "-c", words.replace("invoke", f"{sys.executable} -m invoke", 1)),
            cwd=self.folder,
            env={
                **os.environ,
                "HOME": str(self.folder),
                "PYTHONPATH": str(PROJECT),
                "OS_CLIENT_CONFIG_FILE": str(self.cloud.clouds_yaml),
                "DOCKER_HOST": self.engine.url,
                "CLOUDSCALE_HOME": str(self.folder / "secrets"),
                "TZ": "UTC",
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LONGEST,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"{words} ended with {done.returncode}:\n{done.stdout}")
        print(f"{time.monotonic() - begun:6.1f} s  {words}", file=sys.stderr)
        return Line(words, done.stdout.rstrip().replace(f"{self.folder}/", ""), time.monotonic() - begun)

    def types(self, words: str, *, shown: int = ALL) -> None:
        """Runs it, and keeps the last `shown` lines of what it printed."""
        line = self.run(words)
        lines = line.said.splitlines()
        if len(lines) > shown:
            lines = ["…", *lines[len(lines) - shown :]]
        took = f"{line.seconds:.0f} s" if line.seconds >= 1 else "under 1 s"
        self.typed += [f"`{words}` ({took})", "", "```", *(text.rstrip() for text in lines), "```", ""]

    def says(self, *text: str) -> None:
        self.typed += [*text, ""]

    def rows(self) -> dict[str, dict[str, str]]:
        """The file that the launch wrote, by student."""
        with (self.folder / "seats.csv").open(newline="", encoding="utf-8") as file:
            return {row["student"]: row for row in csv.DictReader(file)}

    @property
    def authority(self) -> str:
        return str(next((self.folder / "secrets").glob("**/web-ca.pem")))


def evening(trainer: Trainer) -> None:
    trainer.says("### The evening before: from an empty project")
    trainer.types("invoke doctor")
    trainer.types("invoke themachine --students students.csv --plan")
    trainer.types("invoke themachine --students students.csv --output seats.csv")
    trainer.types("invoke check")


def morning(trainer: Trainer, browser: Browser) -> None:
    trainer.says("### The morning")
    trainer.types(
        "invoke themachine --students students.csv --check --until 18:00 --output seats.csv --format csv", shown=7
    )
    trainer.types('invoke cards --title "Physics, day 1"')
    trainer.says(f"![The sheet of cards, eight to a page]({CARDS})")
    photograph(
        browser, (trainer.folder / "cards.html").as_uri(), "document.body.innerText.includes('Marty')", A4, CARDS
    )
    trainer.types("invoke distribute lessons")


def lesson(trainer: Trainer, browser: Browser) -> None:
    trainer.says("### The class", "", "A student opens the address of the card, and types the password:")
    rows = trainer.rows()
    marty = rows["Marty McFly"]
    enter(browser, marty)
    trainer.says(f"![The login page, the same for all students]({LOGIN})")
    with trainer.cloud.namespace.entered():
        student = Student(marty["url"], marty["password"], trainer.authority)
        if student.read(WORK) != "print('88 miles per hour')\n":
            raise SystemExit("The lesson is not in the seat.")
    trainer.run("invoke com_containers \"echo '# Great Scott!' >~/work/speed.py\" --only 1")
    with trainer.students.open("a", encoding="utf-8") as file:
        file.write(LATE)
    trainer.says("Lorraine comes late: a line in the students' file, and the launch again.")
    trainer.types("invoke themachine --students students.csv --material lessons", shown=14)
    trainer.types("invoke cards --only 6 --output late.html")
    trainer.says("A new version of the lesson. Marty has changed his, and keeps it.")
    trainer.write_lesson("90")
    trainer.types("invoke distribute lessons")
    trainer.types("invoke status --details")
    trainer.types('invoke com_containers "cat ~/work/speed.py" --only 1,2')
    trainer.says("Somebody has seen Emmett's card.")
    trainer.types("invoke seat_password Emmett")
    trainer.types("invoke seat_restart Jennifer")
    other = next(row["node"] for row in rows.values() if row["node"] != marty["node"])
    trainer.types(f"invoke seat_move Marty --to {other}")


def end(trainer: Trainer) -> None:
    trainer.says("### The end")
    trainer.types("invoke collect --output work")
    kept = [path for path in (trainer.folder / "work").rglob(WORK) if "Great Scott" in path.read_text()]
    if len(kept) != 1:
        raise SystemExit("Marty's work was not collected.")
    trainer.types("invoke driver_reset --yes")
    if left := Project(trainer.cloud).marked(f"cloudscale:{SETTINGS['course']}"):
        raise SystemExit(f"The course has left something in the project: {left}")


def enter(browser: Browser, seat: dict[str, str]) -> None:
    """Photographs the login page, and logs in."""
    address = "{0.scheme}://{0.netloc}".format(urlsplit(seat["url"]))
    ready = "document.querySelector('input[name=password]') !== null"
    photograph(browser, f"{address}/", ready, (900, 520), LOGIN)
    browser.run(f"document.querySelector('input[name=password]').value = {json.dumps(seat['password'])}")
    browser.run("document.querySelector('button').click()")
    browser.wait(f"location.pathname.startsWith({json.dumps(urlsplit(seat['url']).path)})")


def photograph(browser: Browser, url: str, ready: str, size: tuple[int, int], name: str) -> None:
    browser.resize(*size, 1.2)
    browser.open(url)
    browser.wait(f"document.readyState === 'complete' && ({ready})")
    picture = browser.screenshot(*size)
    if len(picture) > LARGEST:
        raise SystemExit(f"{name} has {len(picture)} bytes, more than {LARGEST}.")
    (PAGE.parent / name).write_bytes(picture)


def write_down(trainer: Trainer, seconds: float) -> None:
    """Into the page: the chapter is its last one."""
    before = PAGE.read_text(encoding="utf-8").partition(f"\n{HEADING}\n")[0].rstrip()
    cores, minutes = f"{os.cpu_count()} cores ({platform.machine()})", f"{seconds / 60:.0f} minutes"
    intro = f"""All of this, typed by `script/rehearsal` on {date.today():%-d %B %Y}: on the OpenStack of the tests, on
one computer with {cores}. Its servers are system containers with an engine in their image,
and the notebook image has 90 MB. In your cloud, count two minutes more for machines that boot, and for the image what
its gigabytes take. All commands together took {minutes}. The configuration:"""
    chapter = [
        HEADING,
        "",
        intro,
        "",
        "```yaml",
        "cloudscale:",
        *(f"  {key}: {json.dumps(value)}" for key, value in SETTINGS.items()),
        "```",
        "",
        *trainer.typed,
    ]
    text = "\n".join([before, "", *chapter]).rstrip()
    PAGE.write_text(re.sub(r"\n{3,}", "\n\n", text) + "\n", encoding="utf-8")


@contextlib.contextmanager
def started() -> Iterator[Trainer]:
    namespace.PREFIX = "cloudscale-rehearsal"  # the tests remove whatever has their own prefix
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what was started is taken away then, too
    network = namespace.Namespace("engine")
    cloud = LabCloud(STATE / "cloud")  # both end what an earlier run left
    for part in STATE.iterdir():
        if part != cloud.folder:
            clear(part)
    STATE.chmod(0o755)  # some of the cloud's services give up root
    engine = LabEngine(STATE / "engine", network)
    try:
        cloud.start()
        load_caddy_image(engine.client, STATE / "caddy")
        trainer = Trainer(STATE / "desk", cloud, engine, load_tiny_image(engine, STATE / "tiny"))
        trainer.set_up()
        yield trainer
    finally:
        engine.stop()
        network.remove()
        cloud.stop()


def require_the_clouds_programs() -> None:
    lacking = [package for program, package in PROGRAMS.items() if not shutil.which(program, path=PATH)]
    if lacking:
        raise SystemExit(f"It needs {', '.join(lacking)}, which are installed by: sudo script/test cloud")


def main() -> None:
    argparse.ArgumentParser(prog="script/rehearsal", description=__doc__, allow_abbrev=False).parse_args()
    require_the_clouds_programs()
    with started() as trainer:
        begun = time.monotonic()
        browser = Browser(trainer.cloud.namespace, STATE / "browser", "--ignore-certificate-errors")
        with contextlib.closing(browser):
            evening(trainer)
            morning(trainer, browser)
            lesson(trainer, browser)
            end(trainer)
        write_down(trainer, time.monotonic() - begun)
    shutil.rmtree(STATE, ignore_errors=True)


if __name__ == "__main__":
    main()
