"""The volumes of a fake engine, what is in them, and the one program that reads it: the gateway."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any

from tests.unit.api_schema import Json, api_error
from tests.unit.fake_calls import FakeCalls, call, labelled
from tests.unit.fake_swarm import FakeNetwork

WORK = "cloudscale-work/"  # where a move has a student's volume
LIMITS = {  # of a container, that are given all or none
    *("read_only", "cap_add", "security_opt", "mem_limit", "memswap_limit", "pids_limit", "cpu_shares", "auto_remove"),
}


def packed(files: Mapping[str, bytes]) -> bytes:
    """A tar archive of these files."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for key, data in files.items():
            entry = tarfile.TarInfo(key)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return archive.getvalue()


class FakeVolumes(FakeCalls):
    """`files`: of each volume. `gateway_error`: what the gateway says of its configuration."""

    def __init__(self, name: str, network: FakeNetwork) -> None:
        super().__init__(name, network)
        self.volumes_: dict[str, Json] = {}
        self.files: dict[str, dict[str, bytes]] = {}
        self.signals: list[str] = []
        self.gateway_error = ""
        self.disk_is_full = False
        self.cut_off: int | None = None  # where an archive of a student's work ends too early

    @call
    def volumes(self, filters: Mapping[str, Any] | None = None) -> Json:
        found = labelled(list(self.volumes_.values()), filters, lambda volume: volume["Labels"])
        return {"Volumes": deepcopy(found) or None}

    @call
    def create_volume(self, name: str, labels: Mapping[str, str], driver_opts: Mapping[str, str] | None = None) -> Json:
        options = dict(driver_opts) if driver_opts else None
        made = {"Name": name, "Labels": dict(labels), "Options": options, "CreatedAt": self.network.time()}
        return deepcopy(self.volumes_.setdefault(name, made))

    @call
    def remove_volume(self, name: str) -> None:
        if name not in self.volumes_:
            raise api_error(404, f"get {name}: no such volume")
        if any(name in container["Volumes"] for container in self.containers_):
            raise api_error(409, f"remove {name}: volume is in use")
        self._changed(f"remove volume {name}")
        del self.volumes_[name]
        self.files.pop(name, None)

    # --- containers that are no service's ---

    @call
    def create_host_config(
        self,
        /,
        *,
        network_mode: str,
        binds: Sequence[str] = (),
        mounts: Sequence[Json] = (),
        cap_drop: Sequence[str] = (),
        **limits: Any,
    ) -> Json:
        assert network_mode == "none" and {*limits} in (set(), LIMITS)
        return {"Binds": list(binds), "Mounts": list(mounts), "cap_drop": list(cap_drop), **limits}

    @call
    def create_container(
        self,
        image: str,
        entrypoint: Sequence[str],
        labels: Mapping[str, str],
        host_config: Json | None = None,
        user: str = "",
        command: Sequence[str] = (),
    ) -> Json:
        config = host_config or {}
        binds, mounts = config.get("Binds", []), config.get("Mounts", [])
        for mount in mounts:
            marks = dict(mount.get("VolumeOptions", {}).get("Labels", {}))
            made = {"Name": mount["Source"], "Labels": marks, "CreatedAt": self.network.time()}
            self.volumes_.setdefault(mount["Source"], made)
        container = {
            "Id": f"{self.name}-{len(self.containers_)}-{self.network.time()}",
            "State": "created",
            "Image": image,
            "Labels": dict(labels),
            "Ports": [],
            "Volumes": [*(bind.partition(":")[0] for bind in binds), *(mount["Source"] for mount in mounts)],
            "Mounts": mounts,
            "Config": config,
            "Entrypoint": list(entrypoint),
        }
        self.containers_.append(container)
        return {"Id": container["Id"]}

    @call
    def start(self, container: str) -> None:
        if self._container(container)["Entrypoint"][0] == "python3":  # a helper
            self._container(container)["State"] = "running"
            return
        *program, target = self._container(container)["Entrypoint"]
        assert program == ["cp", "-f", "/usr/bin/caddy"]  # -f: an older one may be running
        self._files(container)[target.rpartition("/")[2]] = b"Caddy"

    @call
    def wait(self, container: str, timeout: int) -> Json:
        return {"StatusCode": 0 if self._container(container) else 1}

    @call
    def remove_container(self, container: str, force: bool, v: bool = False) -> None:
        assert force
        gone = [known for known in self.containers_ if known["Id"] == container]
        self.containers_ = [known for known in self.containers_ if known not in gone]
        helpers = [known for known in gone if known["Labels"].get("cloudscale.role") == "helper"]
        if any(known["State"] != "created" for known in gone if known not in helpers):
            self._changed(f"remove container {container}")

    @call
    def kill(self, container: str, signal: str) -> None:
        if self._container(container)["State"] != "running":
            raise api_error(409, f"Container {container} is not running")
        self.signals.append(signal)
        self.read_gateway(self._files(container))

    @call
    def put_archive(self, container: str, path: str, data: bytes | Iterable[bytes]) -> None:
        whole = data if isinstance(data, bytes) else b"".join(data)
        if self.disk_is_full:
            raise api_error(500, "write /work: no space left on device")
        with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
            for entry in archive:
                if file := archive.extractfile(entry):
                    self._files(container)[entry.name.removeprefix(WORK)] = file.read()

    @call
    def get_archive(self, container: str, path: str) -> tuple[Iterator[bytes], Json]:
        if path == f"/{WORK}".rstrip("/"):
            archive = packed({f"{WORK}{name}": data for name, data in self._files(container).items()})
            return (chunk for chunk in (archive[:700], archive[700:][: self.cut_off])), {}
        name = path.removeprefix("/gateway/")
        if not self._container(container)["Volumes"]:  # what is in its image
            return iter([packed({name: b"Caddy"})]), {}
        found = {key: data for key, data in self._files(container).items() if key == name or key.startswith(f"{name}/")}
        if not found:
            raise api_error(404, f"Could not find the file {path} in container {container}")
        return iter([packed(found)]), {}

    def _container(self, container: str) -> Json:
        for known in self.containers_:
            if known["Id"] == container:
                return known
        raise api_error(404, f"No such container: {container}")

    def _files(self, container: str) -> dict[str, bytes]:
        (volume,) = self._container(container)["Volumes"]
        return self.files.setdefault(volume, {})

    def read_gateway(self, files: dict[str, bytes]) -> None:
        """What the program of a gateway does when it starts, and with a signal."""
        names = ("caddy", "login")
        state = {name: hashlib.sha256(files.get(f"{name}.json", b"")).hexdigest() for name in names}
        files["state.json"] = json.dumps({**state, "error": self.gateway_error}).encode()
