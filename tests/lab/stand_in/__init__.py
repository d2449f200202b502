"""A strict stand-in for the APIs of an OpenStack cloud, which answers at once.

It is made after what a cloud of release Zed answers, for the part that the package asks for. What it does not know it
refuses as such a cloud does, and notes in `violations`.
"""

from __future__ import annotations

import json
import re
import threading
import traceback
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.lab.stand_in.compute import Compute
from tests.lab.stand_in.faults import Fault
from tests.lab.stand_in.identity import Identity
from tests.lab.stand_in.image import Images
from tests.lab.stand_in.network import Network
from tests.lab.stand_in.region import Region
from tests.lab.stand_in.server import Server
from tests.lab.stand_in.service import Service
from tests.lab.stand_in.volume import Volumes
from tests.lab.stand_in.wire import Answer, Recorded, Refused, Request

__all__ = ["Fault", "Recorded", "StandIn"]

REGION = "RegionOne"


class StandIn:
    """Listens while it is entered. `regions` after the first have their paths below their names.

    `private` and `public` are the addresses of the machines' network and of the floating ones.
    """

    def __init__(
        self,
        *,
        volume: bool = True,
        regions: Iterable[str] = (REGION,),
        private: str = "10.20.0.0/20",
        public: str = "192.0.2.0/24",
        port: int = 0,
    ) -> None:
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self.requests: list[Recorded] = []
        self.violations: list[str] = []
        self.faults: list[Fault] = []
        self._services: dict[str, Service] = {}
        self._server = Server(self._serve, port)
        self.url = self._server.url
        places: dict[str, dict[str, tuple[str, str]]] = {}
        self.identity = Identity(self.url, places)
        self.regions: dict[str, Region] = {}
        for name in regions:
            prefix = f"/{name}" if self.regions else ""
            self.regions[name] = Region(self.identity, self.url, prefix, volume=volume, private=private, public=public)
            places[name] = {**self.regions[name].places, "identity": ("keystone", f"{self.identity.url}/v3")}
        everything = [self.identity, *(s for region in self.regions.values() for s in region.services)]
        self._services.update({service.prefix: service for service in everything})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._stopping.set()
        self._server.close()

    # --- the first region, which is mostly the only one ---

    @property
    def region(self) -> Region:
        return next(iter(self.regions.values()))

    @property
    def compute(self) -> Compute:
        return self.region.compute

    @property
    def network(self) -> Network:
        return self.region.network

    @property
    def images(self) -> Images:
        return self.region.images

    @property
    def volumes(self) -> Volumes:
        assert self.region.volumes is not None
        return self.region.volumes

    def set_quota(self, name: str, number: int) -> None:
        """By the name that its service has for it; -1 is without a limit."""
        volumes = self.region.volumes
        known = [self.compute.quotas, self.network.quotas, *([volumes.quotas] if volumes else [])]
        (quotas,) = (quotas for quotas in known if name in quotas)
        quotas[name] = number

    # --- how to reach it ---

    @property
    def environment(self) -> dict[str, str]:
        """The user's and the project's names, as a cloud's openrc.sh sets them."""
        identity = self.identity
        return {
            "OS_AUTH_URL": f"{identity.url}/v3",
            "OS_USERNAME": identity.user,
            "OS_PASSWORD": identity.password,
            "OS_PROJECT_NAME": identity.project,
            "OS_USER_DOMAIN_NAME": "Default",
            "OS_PROJECT_DOMAIN_NAME": "Default",
            "OS_REGION_NAME": next(iter(self.regions)),
            "OS_IDENTITY_API_VERSION": "3",
        }

    def clouds_yaml(self, folder: Path, region: str = "") -> Path:
        """With the clouds `course`, by the user's password, and `application`, by an application credential.

        `region`: the first one, unless another is named.
        """
        identity, region = self.identity, region or next(iter(self.regions))
        by_password = {
            "auth_url": f"{identity.url}/v3",
            "username": identity.user,
            "password": identity.password,
            "project_name": identity.project,
            "user_domain_name": "Default",
            "project_domain_name": "Default",
        }
        credential = identity.credentials[0]
        by_credential = {
            "auth_url": f"{identity.url}/v3",
            "application_credential_id": credential.id,
            "application_credential_secret": credential.secret,
        }
        clouds = {
            "course": {"auth": by_password, "region_name": region},
            "application": {"auth_type": "v3applicationcredential", "auth": by_credential, "region_name": region},
        }
        file = folder / "clouds.yaml"
        file.write_text(json.dumps({"clouds": clouds}, indent=1), encoding="utf-8")  # JSON is YAML
        return file

    # --- what was asked ---

    def count(self, method: str = "", path: str = "") -> int:
        """Requests of a method (empty: any) whose path, with its query, has the regular expression in it."""
        return sum(
            made.method == (method or made.method) and bool(re.search(path, made.path)) for made in self.requests
        )

    @property
    def counts(self) -> Counter[str]:
        """Requests by their method and path, with {id} for ids and without the query."""
        ids = re.compile(r"/[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}")
        return Counter(f"{made.method} {ids.sub('/{id}', made.path.partition('?')[0])}" for made in self.requests)

    def _serve(self, request: Request) -> Answer | None:
        if request.path.startswith("/_"):
            return self._about_itself(request)
        with self._lock:
            fault = next((fault for fault in self.faults if fault.applies(request)), None)
            if fault and fault.status:
                answer = fault.answer
            elif fault and fault.drop == "before":
                answer = Answer(0)
            else:
                answer = self._answer(request)
        if fault and fault.seconds:
            self._stopping.wait(fault.seconds)
        dropped = bool(fault and fault.drop)
        self.requests.append(Recorded(request.method, request.target, 0 if dropped else answer.status))
        return None if dropped else answer

    def _answer(self, request: Request) -> Answer:
        service = self._find(request.path)
        try:
            if service is None:
                raise Refused(Answer(404, {"message": "Not Found"}), "unknown path")
            return service.answer(request)
        except Refused as refused:
            if refused.violation:
                self.violations.append(f"{request.method} {request.target}: {refused.violation}")
            return refused.answer
        except Exception:
            # of the stand-in's own: no test is to pass with it
            self.violations.append(f"{request.method} {request.target}: {traceback.format_exc()}")
            return Answer(500, {"message": "The stand-in failed"})

    def _find(self, path: str) -> Service | None:
        first, _, rest = path[1:].partition("/")
        second = rest.partition("/")[0]
        return self._services.get(f"/{first}") or self._services.get(f"/{first}/{second}")

    def _about_itself(self, request: Request) -> Answer:
        """What another process wants to know of it."""
        if request.path == "/_requests":
            made = [list(one) for one in self.requests]
            if request.method == "DELETE":
                self.requests.clear()
            return Answer(200, made)
        return Answer(200, self.violations) if request.path == "/_violations" else Answer(404)
