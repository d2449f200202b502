"""One region: its services, and what a course finds in them."""

from __future__ import annotations

from tests.lab.stand_in.compute import Compute
from tests.lab.stand_in.identity import Identity
from tests.lab.stand_in.image import Images
from tests.lab.stand_in.network import Network
from tests.lab.stand_in.service import Service
from tests.lab.stand_in.volume import Volumes


class Region:
    """One region's services, with what a course finds there at its beginning."""

    def __init__(self, identity: Identity, root: str, prefix: str, *, volume: bool, private: str, public: str) -> None:
        known = identity.knows
        self.network = Network(root, f"{prefix}/network", known, identity.project_id)
        self.images = Images(root, f"{prefix}/image", known)
        ids = {"project_id": identity.project_id, "user_id": identity.user_id}
        self.volumes = Volumes(root, f"{prefix}/volume", known, images=self.images, **ids) if volume else None
        self.compute = Compute(
            root,
            f"{prefix}/compute",
            known,
            user_id=identity.user_id,
            network=self.network,
            images=self.images,
            volumes=self.volumes,
        )
        self._furnish(private, public)

    def _furnish(self, private: str, public: str) -> None:
        network = self.network
        outside = network.networks.add("public", external=True)
        network.subnets.add("public-subnet", outside, public)
        inside = network.networks.add("course-net")
        network.subnets.add("course-subnet", inside, private)
        network.routers.add("course-router", outside, inside)
        for name in ("debian-13", "debian-13-docker"):
            self.images.add_image(name)
        for name, vcpus, ram, disk in (
            *(("m1.tiny", 1, 768, 5), ("m1.small", 1, 1536, 8)),
            *(("m1.medium", 2, 2560, 10), ("m1.large", 4, 4096, 20)),
        ):
            self.compute.add_flavor(name, vcpus=vcpus, ram=ram, disk=disk)

    @property
    def places(self) -> dict[str, tuple[str, str]]:
        """Its services, by their type."""
        known = {
            "compute": ("nova", f"{self.compute.url}/v2.1"),
            "network": ("neutron", self.network.url),
            "image": ("glance", self.images.url),
        }
        if self.volumes is not None:
            known["volumev3"] = ("cinderv3", f"{self.volumes.url}/v3/{self.volumes.project_id}")
        return known

    @property
    def services(self) -> list[Service]:
        there: list[Service | None] = [self.compute, self.network, self.images, self.volumes]
        return [service for service in there if service is not None]
