"""A certificate authority such as Let's Encrypt, in a namespace: Pebble, with a name server that knows one address."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import json
import os
import socket
import subprocess
from functools import partial
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from cloudscale.images.packages import fetch_file
from cloudscale.waiting import poll
from tests.lab.namespace import Namespace, outside
from tests.lab.stock import kept

FORKY = "deb http://deb.debian.org/debian forky main\n"  # trixie's knows no profiles
PORT, NAMES, MANAGEMENT = 14000, 8053, 8055
DAY = 86400  # seconds
DIRECTORY = f"https://127.0.0.1:{PORT}/dir"


class Pebble:
    """All names lead to `address`. `authority`: the file with who signed its own address."""

    def __init__(self, namespace: Namespace, folder: Path, address: str) -> None:
        programs = kept("pebble", folder / "programs", [Path(__file__)], _download)
        self.authority = folder / "pebble-ca.pem"
        self._own_certificate(folder)
        config = folder / "pebble.json"
        own = {
            "listenAddress": f"127.0.0.1:{PORT}",
            "managementListenAddress": "127.0.0.1:15000",
            "certificate": str(self.authority),
            "privateKey": str(folder / "pebble-key.pem"),
            "httpPort": 80,
            "tlsPort": 443,
            "ocspResponderURL": "",
            "profiles": {
                "default": {"description": "as all were once", "validityPeriod": 90 * DAY},
                "shortlived": {"description": "for bare addresses, too", "validityPeriod": 6 * DAY},
            },
        }
        config.write_text(json.dumps({"pebble": own}))
        nothing = [word for kind in ("http01", "https01", "tlsalpn01", "doh") for word in (f"-{kind}", "")]
        names = ["-defaultIPv4", address, "-defaultIPv6", "", "-dnsserver", f"127.0.0.1:{NAMES}", *nothing]
        commands = [
            [programs / "pebble-challtestsrv", *names, "-management", f"127.0.0.1:{MANAGEMENT}"],
            [programs / "pebble", "-config", config, "-dnsserver", f"127.0.0.1:{NAMES}"],
        ]
        self._log = open(folder / "pebble.log", "wb")  # noqa: SIM115 # until it ends
        self._processes = [
            subprocess.Popen(
                namespace.wrap(*map(str, command)),
                env={**os.environ, "PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0"},
                stdout=self._log,
                stderr=self._log,
            )
            for command in commands
        ]
        for port in (MANAGEMENT, PORT):  # a name that is not known yet would be refused for good
            assert poll(partial(_answers, port), timeout=30), (folder / "pebble.log").read_text()

    def _own_certificate(self, folder: Path) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Pebble's own")])
        now = datetime.datetime.now(datetime.UTC)
        here = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        made = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(here, critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )
        self.authority.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        (folder / "pebble-key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, form, plain))

    def stop(self) -> None:
        for process in self._processes:
            process.terminate()
            process.wait()
        self._log.close()


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=3).close()
        return True
    return False


def _download(folder: Path) -> None:
    with outside():
        for name in ("pebble", "pebble-challtestsrv"):
            program = folder / name
            program.write_bytes(fetch_file("pebble", f"usr/bin/{name}", sources=FORKY, architecture="amd64"))
            program.chmod(0o755)
