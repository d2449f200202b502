"""The smallest notebook image, jupyter_server and ipykernel: for all that is not about an image.

An emulated machine takes a second for each few megabytes.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tests.lab.engine import LabEngine
from tests.lab.namespace import outside, run
from tests.lab.stock import ALONE, BUILDING, kept

NAME, TAG = "cloudscale-tests/tiny", "1"
SUITE, PYTHON = "bookworm", "3.11"
PACKAGES = (f"python{PYTHON}", "python3-minimal", "libstdc++6", "busybox-static", "tini")
LIBRARIES = ("jupyter_server", "ipykernel")
SETTINGS = (
    "ENV PATH=/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8 SHELL=/bin/sh HOME=/home/jovyan",
    "USER 1000",
    "WORKDIR /home/jovyan/work",
    'ENTRYPOINT ["tini", "-g", "--"]',
)

# completion and debugging are half of the libraries; compiled modules need no source
FINISH = f"""cd "$1"
python=usr/local/lib/python{PYTHON}/dist-packages
mkdir -p usr/local/bin usr/local/etc usr/local/share home/jovyan/work proc
rm -r var usr/share/doc usr/share/locale usr/share/man usr/lib/*/gconv "$python"/jedi* "$python"/debugpy*
mv "$python/etc/jupyter" usr/local/etc/
mv "$python/share"/jupyter* usr/local/share/
sed -i '1s|.*|#!/usr/bin/python3|' "$python"/bin/*
mv "$python"/bin/* usr/local/bin/
chroot . python{PYTHON} -m compileall -q -b /usr/lib/python{PYTHON} "/$python" >/dev/null || true # some are templates
find . -name '*.py' -delete
chroot . /bin/busybox --install -s /bin
printf '%s\\n' 'root:x:0:0::/root:/bin/sh' 'jovyan:x:1000:1000::/home/jovyan:/bin/sh' >etc/passwd
printf '%s\\n' 'root:x:0:' 'jovyan:x:1000:' >etc/group
chown -R 1000:1000 home/jovyan
tar --create --numeric-owner --file "$2" .
cd / && rm -r "$1"
"""


def load_tiny_image(engine: LabEngine, folder: Path, extra: str = "") -> str:
    """The image on an engine. What it is made of is built in a folder, or taken from the environment's cache.

    `extra`: one more library with its release, such as jupyterhub==6.1.1; the image has its name then.
    """
    libraries = (*LIBRARIES, extra) if extra else LIBRARIES
    name = f"-{extra.partition('==')[0]}" if extra else ""
    kept_as = f"tiny-{extra.replace('==', '-')}" if extra else "tiny"
    archive = kept(kept_as, folder, [Path(__file__)], partial(_build, libraries)) / "image.tar"
    engine.client.api.import_image_from_file(str(archive), repository=f"{NAME}{name}", tag=TAG, changes=list(SETTINGS))
    return f"{NAME}{name}:{TAG}"


def _build(libraries: Sequence[str], folder: Path) -> None:
    root = folder / "root"
    with outside():
        run(*ALONE, "mmdebstrap", "--quiet", "--variant=extract", f"--include={','.join(PACKAGES)}", SUITE, str(root),
            timeout=BUILDING)  # fmt: skip
        run(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile",
            "--only-binary=:all:", f"--python-version={PYTHON}",
            f"--target={root}/usr/local/lib/python{PYTHON}/dist-packages", *libraries)  # fmt: skip
    run("sh", "-ec", FINISH, "finish", str(root), str(folder / "image.tar"))
