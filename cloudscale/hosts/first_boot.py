"""The user data for the first boot of a machine. Anyone with a shell on it can read them: they hold no secret."""

from __future__ import annotations

import functools
import json
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText

from cloudscale.hosts.firewall import firewall
from cloudscale.scripts import script

FIREWALL = "@firewall.sh@\n"  # its place in the script


@functools.cache
def user_data(public_key: str) -> str:
    """cloud-init's input: it authorizes the course's SSH key and runs scripts/boot.sh. All machines share one text.

    Only two types of host keys: generating an RSA key takes a small machine seconds.
    """
    config = {"ssh_authorized_keys": [public_key], "ssh_genkeytypes": ["ed25519", "ecdsa"]}
    parts = MIMEMultipart(boundary="==cloudscale==")
    # JSON is YAML
    parts.attach(MIMEText(f"#cloud-config\n{json.dumps(config)}\n", "cloud-config", "utf-8"))
    # a boothook runs before everything else (cloudinit.readthedocs.io, "User data formats")
    parts.attach(MIMEText(f"#cloud-boothook\n{boot_script()}", "cloud-boothook", "utf-8"))
    return parts.as_string()


def boot_script() -> str:
    """scripts/boot.sh, with the firewall in it."""
    text = script("hosts", "boot.sh")
    return text.replace(FIREWALL, firewall())
