"""What a machine is told for its first boot. Who has a shell on it can read that: there is no secret in it."""

from __future__ import annotations

import json
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from importlib import resources


def user_data(public_key: str) -> str:
    """cloud-init's input: the course's key is let in, and scripts/boot.sh is run.

    Fewer kinds of host keys than usual: one of RSA takes a small machine seconds to make.
    """
    config = {"ssh_authorized_keys": [public_key], "ssh_genkeytypes": ["ed25519", "ecdsa"]}
    script = resources.files("cloudscale.hosts").joinpath("scripts", "boot.sh").read_text()
    parts = MIMEMultipart(boundary="==cloudscale==")
    # JSON is YAML
    parts.attach(MIMEText(f"#cloud-config\n{json.dumps(config)}\n", "cloud-config", "utf-8"))
    # a boothook runs before all else (cloudinit.readthedocs.io, "User data formats")
    parts.attach(MIMEText(f"#cloud-boothook\n{script}", "cloud-boothook", "utf-8"))
    return parts.as_string()
