"""The images of a fake engine, and the registry that it pulls from."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from typing import Any

from tests.unit.api_schema import Json, api_error
from tests.unit.fake_calls import FakeCalls, call
from tests.unit.fake_swarm import FakeNetwork


class FakeImages(FakeCalls):
    def __init__(self, name: str, network: FakeNetwork) -> None:
        super().__init__(name, network)
        self.images_: dict[str, Json] = {}  # by name
        self.registry: dict[str, Json] = {}
        self.published: set[str] = set()  # images in a registry, by digest
        self.loading_fails = ""

    @call
    def inspect_image(self, image: str) -> Json:
        return {**deepcopy(self._image(image)), "RepoTags": self._tags(self._image(image)["Id"])}

    def _image(self, image: str) -> Json:
        if image != image.lower():
            raise api_error(400, "invalid reference format: repository name must be lowercase")
        tagged = image if "@" in image or ":" in image.rpartition("/")[2] else f"{image}:latest"
        for name, details in self.images_.items():
            if tagged in (name, details["Id"], *(details.get("RepoDigests") or [])):
                return details
        raise api_error(404, f"No such image: {tagged}")

    def _tags(self, id: str) -> list[str]:
        return [name for name, image in self.images_.items() if image["Id"] == id and "@" not in name]

    @call
    def images(self, filters: Mapping[str, Any]) -> list[Json]:
        """The images with a label; or those that a filter `reference` matches, with only the names that match."""
        ((kind, pattern),) = filters.items()
        ids = dict.fromkeys(image["Id"] for image in self.images_.values())
        if kind == "label":
            labels = {i["Id"]: (i.get("Config") or {}).get("Labels") or {} for i in self.images_.values()}
            return [{"Id": id, "RepoTags": self._tags(id)} for id in ids if pattern in labels[id]]
        assert kind == "reference" and "*" not in pattern
        matching = {id: [tag for tag in self._tags(id) if tag in (pattern, f"{pattern}:{_tag(tag)}")] for id in ids}
        return [{"Id": id, "RepoTags": tags, "RepoDigests": []} for id, tags in matching.items() if tags]

    @call
    def tag(self, image: str, repository: str, tag: str | None = None, force: bool = False) -> bool:
        self.images_[f"{repository}:{tag or 'latest'}"] = self._image(image)
        self._changed(f"tag {repository}:{tag or 'latest'}")
        return True

    @call
    def remove_image(self, image: str) -> None:
        if image not in self.images_:
            raise api_error(404, f"No such image: {image}")
        details = self.images_[image]
        names = {details["Id"], *(details.get("RepoDigests") or [])}
        if len(self._tags(details["Id"])) == 1 and any(c.get("Image") in names for c in self.containers_):
            raise api_error(409, f"conflict: unable to remove repository reference {image!r}: a container is using it")
        del self.images_[image]
        self._changed(f"remove image {image}")

    @call
    def get_image(self, image: str) -> Iterator[bytes]:
        saved = json.dumps({image: self._image(image)}).encode()
        return iter([saved[:10], saved[10:]])

    @call
    def load_image(self, data: Iterable[bytes], quiet: bool | None = None) -> Iterator[Json]:
        """A loaded image lacks the digests that it has in its registry."""
        saved: Json = json.loads(zlib.decompress(b"".join(data), wbits=16 + zlib.MAX_WBITS))
        if self.loading_fails:
            return iter([{"errorDetail": {"message": self.loading_fails}}])
        for name, image in saved.items():
            self.receive(name, image)
            self._changed(f"load {name}")
        return iter([{"stream": f"Loaded image: {name}\n"} for name in saved])

    def receive(self, name: str, image: Json) -> None:
        self.images_[name] = {**deepcopy(image), "RepoDigests": []}

    @call
    def inspect_distribution(self, image: str) -> Json:
        if "@sha256:" not in image and image not in self.registry:
            raise api_error(404, f"manifest for {image} not found: manifest unknown")
        if "@sha256:" in image and image not in self.published:
            raise api_error(403, "denied: requested access to the resource is denied")
        return {"Descriptor": {"digest": image.partition("@")[2]}}

    @call
    def pull(self, repository: str, tag: str, stream: bool, decode: bool) -> Iterator[Json]:
        assert stream and decode
        separator = "@" if tag.startswith("sha256:") else ":"
        reference = f"{repository}{separator}{tag}"
        if reference not in self.registry:
            raise api_error(404, f"manifest for {reference} not found: manifest unknown")
        return self._pulled(reference, tag)

    def _pulled(self, reference: str, tag: str) -> Iterator[Json]:
        yield {"status": "Pulling from somewhere", "id": tag}
        yield {"status": "Downloading", "id": "layer0", "progressDetail": {}}
        yield {"status": "Extracting", "id": "layer0", "progressDetail": {"current": 1, "total": 1}}
        for have in (50, 100):
            yield {"status": "Downloading", "id": "layer1", "progressDetail": {"current": have, "total": 100}}
        yield {"status": "Downloading", "id": "layer2", "progressDetail": {"current": 10, "total": 20}}
        if error := self.registry[reference].get("error"):
            yield {"errorDetail": {"message": error}}
            return
        self._changed(f"pull {reference}")
        self.images_[reference] = self.registry[reference]


def _tag(name: str) -> str:
    return name.rpartition(":")[2]
