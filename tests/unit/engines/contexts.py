"""What `docker context create` and `docker context use` write."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path


def use_context(folder: Path, name: str, host: str, *, with_tls: bool = False, skip_verify: bool = False) -> None:
    id = hashlib.sha256(name.encode()).hexdigest()
    (folder / "config.json").write_text(json.dumps({"auths": {}, "currentContext": name}))
    meta = folder / "contexts" / "meta" / id / "meta.json"
    meta.parent.mkdir(parents=True)
    endpoint = {"Host": host, "SkipTLSVerify": skip_verify}
    meta.write_text(json.dumps({"Name": name, "Metadata": {}, "Endpoints": {"docker": endpoint}}))
    if with_tls:
        tls = folder / "contexts" / "tls" / id / "docker"
        tls.mkdir(parents=True)
        for file in ("ca.pem", "cert.pem", "key.pem"):
            (tls / file).touch()
