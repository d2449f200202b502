"""A real OpenSSH server on loopback, whose users and passwords exist in its own mount namespace only."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from pathlib import Path

from tests.lab.namespace import run

USER = "trainer"
PASSWORD = "pass word's"
SHELLS = {"posix": "/bin/sh", "csh": "/bin/tcsh", "fish": "/usr/bin/fish"}  # users with these login shells
STARTING = 20  # seconds


class LabSshd:
    """`sshd` on PORT of the caller's loopback; root and the users of SHELLS by key, `trainer` by password or key.

    `address`: 0.0.0.0 is all of 127.0.0.0/8, each of them a host for those who log in. `settings`: lines of its
    configuration.
    """

    def __init__(self, folder: Path, port: int = 2222, address: str = "127.0.0.1", settings: str = "") -> None:
        self.folder = folder
        self.port = port
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, mode=0o755)
        self.key = folder / "key"
        self.locked_key = folder / "locked-key"
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key))
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", PASSWORD, "-f", str(self.locked_key))
        keys = [self.key.with_suffix(".pub"), self.locked_key.with_suffix(".pub")]
        (folder / "authorized_keys").write_text("".join(key.read_text() for key in keys))
        self.new_host_key()
        hashed = run("openssl", "passwd", "-6", PASSWORD).strip()
        shells = {name: f"{name}:x:{uid}:{uid}::/tmp:{path}\n" for uid, (name, path) in enumerate(SHELLS.items(), 1235)}
        accounts = {
            "passwd": f"root:x:0:0::/root:/bin/sh\nsshd:x:100:65534::/run/sshd:/usr/sbin/nologin\n"
            f"nobody:x:65534:65534::/:/usr/sbin/nologin\n{USER}:x:1234:1234::/tmp:/bin/sh\n" + "".join(shells.values()),
            "shadow": f"root:*:19000::::::\nsshd:!:19000::::::\n{USER}:{hashed}:19000::::::\n"
            + "".join(f"{name}:*:19000::::::\n" for name in shells),
        }
        for name, text in accounts.items():
            (folder / name).write_text(text)
        (folder / "config").write_text(
            f"ListenAddress {address}:{port}\nHostKey {folder}/host_key\nPidFile {folder}/pid\nUsePAM no\n"
            f"AuthorizedKeysFile {folder}/authorized_keys\nStrictModes no\nPermitRootLogin yes\nMaxStartups 100\n"
            f"{settings}"
        )
        Path("/run/sshd").mkdir(exist_ok=True)
        self._process = self._start()

    def new_host_key(self) -> None:
        """Another identity, as after a reinstallation; it counts from the next start on."""
        for name in ("host_key", "host_key.pub"):
            (self.folder / name).unlink(missing_ok=True)
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / "host_key"))

    def _start(self) -> subprocess.Popen[bytes]:
        mounts = [f"mount --bind {self.folder}/{name} /etc/{name}" for name in ("passwd", "shadow")]
        script = " && ".join([*mounts, f"exec /usr/sbin/sshd -D -f {self.folder}/config -E {self.folder}/log"])
        process = subprocess.Popen(["unshare", "--mount", "sh", "-c", script], stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + STARTING
        while time.monotonic() < deadline and process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return process
            time.sleep(0.05)
        raise RuntimeError(f"sshd does not start: {(self.folder / 'log').read_text()}")

    def restart(self) -> None:
        self.stop()
        self._process = self._start()

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(10)
