"""A browser: headless Chromium with one page."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.lab.namespace import Namespace

WAITING = 120.0  # seconds for a page to be as it should be


class Browser:
    """Driven by its DevTools protocol over a pipe (descriptors 3 and 4).

    `folder`: for its profile. `switches`: of its command line, beside those that it always gets.
    """

    def __init__(self, network: Namespace, folder: Path, *switches: str) -> None:
        program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        if not program:
            raise RuntimeError("Chromium is missing: apt-get install chromium")
        to_browser, self._to = os.pipe()
        self._from, from_browser = os.pipe()
        always = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-pipe"]
        command = network.wrap(program, *always, *switches, f"--user-data-dir={folder}", "about:blank")
        aside = max(to_browser, from_browser, 4) + 1  # neither is overwritten before it is where it belongs
        pipes = [(os.POSIX_SPAWN_DUP2, to_browser, aside), (os.POSIX_SPAWN_DUP2, from_browser, aside + 1)]
        pipes += [(os.POSIX_SPAWN_DUP2, aside, 3), (os.POSIX_SPAWN_DUP2, aside + 1, 4)]
        log = (os.POSIX_SPAWN_OPEN, 2, str(folder.parent / "browser.log"), os.O_WRONLY | os.O_CREAT, 0o600)
        self._process = os.posix_spawnp(command[0], command, os.environ, file_actions=[*pipes, log])
        os.close(to_browser)
        os.close(from_browser)
        self._count = 0
        self._buffer = b""
        self._page = ""
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._page = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def _call(self, method: str, **parameters: object) -> Mapping[str, Any]:
        self._count += 1
        message: dict[str, object] = {"id": self._count, "method": method, "params": parameters}
        if self._page:
            message["sessionId"] = self._page
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while (answer := self._read()).get("id") != self._count:
            pass
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        result: Mapping[str, Any] = answer["result"]
        return result

    def _read(self) -> Mapping[str, Any]:
        while b"\0" not in self._buffer:
            data = os.read(self._from, 1 << 20)
            if not data:
                raise RuntimeError("Chromium ended.")
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        decoded: Mapping[str, Any] = json.loads(message)
        return decoded

    def resize(self, width: int, height: int, scale: float) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": False}
        self._call("Emulation.setDeviceMetricsOverride", **size)

    def open(self, url: str) -> None:
        self._call("Page.navigate", url=url)

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression; None where it raises."""
        return self._call("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def wait(self, condition: str) -> None:
        deadline = time.monotonic() + WAITING
        while not self.run(condition):
            if time.monotonic() > deadline:
                shown = self.run("location.href + ' ' + document.title + ' ' + document.body.innerText.slice(0, 500)")
                raise RuntimeError(f"The page is not as it should be after {WAITING:.0f} s: {condition}\n{shown}")
            time.sleep(0.3)

    def type(self, text: str) -> None:
        """Types into what has the focus, and presses Enter."""
        self._call("Input.insertText", text=text)
        for kind in ("keyDown", "keyUp"):
            self._call("Input.dispatchKeyEvent", type=kind, key="Enter", text="\r", windowsVirtualKeyCode=13)

    def read_aloud(self) -> list[str]:
        """What a screen reader is given: the role and the name of each part of the page."""
        nodes = self._call("Accessibility.getFullAXTree")["nodes"]
        shown = [node for node in nodes if not node["ignored"]]
        return [f"{node['role']['value']} {node.get('name', {}).get('value', '')}".strip() for node in shown]

    def screenshot(self, width: int = 0, height: int = 0) -> bytes:
        clip = {"clip": {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}} if height else {}
        return base64.b64decode(self._call("Page.captureScreenshot", format="png", **clip)["data"])

    def close(self) -> None:
        with contextlib.suppress(RuntimeError):
            self._page = ""
            self._call("Browser.close")
        os.waitpid(self._process, 0)
