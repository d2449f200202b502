"""How compute makes a server of a request: what it looks up first, what it refuses, and with what words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.lab.stand_in.compute_schema import BOOLEAN
from tests.lab.stand_in.machines import ERROR, Server
from tests.lab.stand_in.wire import Json, Refused

if TYPE_CHECKING:
    from tests.lab.stand_in.compute import Compute

GIB = 1024**3
TRUE = BOOLEAN["enum"][:11]


def boot(compute: Compute, body: Json, version: tuple[int, int]) -> Server:
    """The first of the servers that a checked body asks for; all of them are there from now on."""
    given = body["server"]
    hints = body.get("os:scheduler_hints") or body.get("OS-SCH-HNT:scheduler_hints") or {}
    least, most = (int(given.get(name) or given.get("min_count") or 1) for name in ("min_count", "max_count"))
    if least > most:
        raise compute.refusal(400, "min_count must be <= max_count")
    if given.get("availability_zone", compute.zone) != compute.zone:
        raise compute.refusal(400, "The requested availability zone is not available")
    devices = _devices(compute, given)
    image = _image(compute, given, devices)
    flavor = compute.flavors.get(str(given["flavorRef"]))
    if flavor is None:
        raise compute.refusal(400, f"Flavor {given['flavorRef']} could not be found.")
    if given.get("key_name") and given["key_name"] not in compute.keypairs:
        raise compute.refusal(400, "Invalid key_name provided.")
    if len(given.get("metadata", {})) > compute.quotas["metadata_items"]:
        allowed = compute.quotas["metadata_items"]
        raise compute.refusal(403, f"Maximum number of metadata items exceeds {allowed}")
    groups = [_group(compute, group["name"]) for group in given.get("security_groups", ()) if "name" in group]
    wanted = _networks(compute, given.get("networks"), most)
    _check_size(compute, flavor, image, devices)
    compute.check_quota(flavor, most)
    group = _server_group(compute, hints, most)
    for device in devices:
        if device["source_type"] == "volume":
            reserve(compute, device["uuid"])
    servers = []
    for number in range(1, most + 1):
        server = Server(
            name=given["name"] if most == 1 else f"{given['name']}-{number}",
            flavor=flavor,
            image=given.get("imageRef", ""),
            **{name: given[name] for name in ("metadata", "key_name", "user_data") if name in given},
            tags=sorted(set(given.get("tags", ()))),
            description=given.get("description") if version >= (2, 19) else given["name"],
            config_drive=given.get("config_drive") in TRUE,
            zone=compute.zone,
            group=group,
        )
        server.hostname = given.get("hostname") or server.name
        _place(compute, server, wanted, groups)
        servers.append(server)
        _attach(compute, server, devices)
    return servers[0]


def _group(compute: Compute, name: str) -> str:
    try:
        return str(compute.network.group_of(name)["id"])
    except Refused:
        raise compute.refusal(400, f"Unable to find security_group with name or id '{name}'") from None


def _image(compute: Compute, given: Json, devices: list[Json]) -> Json | None:
    if not given.get("imageRef"):
        if not any(_boots(device) for device in devices):
            raise compute.refusal(400, "Missing imageRef attribute")
        return None
    image = compute.images.images.get(given["imageRef"])
    if image is None:
        raise compute.refusal(400, "Can not find requested image")
    if image["status"] != "active":
        raise compute.refusal(400, f"Image {image['id']} is not active.")
    return image


def _boots(device: Json) -> bool:
    return str(device.get("boot_index")) == "0"


def _devices(compute: Compute, given: Json) -> list[Json]:
    devices: list[Json] = given.get("block_device_mapping_v2", [])
    for device in devices:
        kind, to = device.get("source_type"), device.get("destination_type")
        if kind == "image" and to == "local" and _boots(device):
            continue
        if to != "volume" or kind not in ("image", "volume"):
            raise compute.refusal(400, f"{kind} to {to} is not served here", violation=True)
        if kind == "image" and not device.get("volume_size"):
            raise compute.refusal(400, "Images with destination_type 'volume' need to have a non-zero size specified")
        if kind == "image" and device.get("uuid") not in compute.images.images:
            raise compute.refusal(400, "Can not find requested image")
        if compute.volumes is None or (kind == "volume" and device.get("uuid") not in compute.volumes.volumes):
            raise compute.refusal(400, f"Block Device Mapping is Invalid: failed to get volume {device.get('uuid')}.")
    if devices and [_boots(device) for device in devices].count(True) != 1:
        sequence = "Boot sequence for the instance and image/block device mapping combination is not valid."
        raise compute.refusal(400, f"Block Device Mapping is Invalid: {sequence}", violation=True)
    return devices


def reserve(compute: Compute, volume: str) -> None:
    """Asks block storage, with its refusal in the words of compute."""
    assert compute.volumes is not None
    try:
        compute.volumes.reserve(volume)
    except Refused as refused:
        message = refused.answer.body["badRequest"]["message"]
        raise compute.refusal(400, f"Invalid volume: Invalid input received: {message} (HTTP 400)") from None


def _check_size(compute: Compute, flavor: Json, image: Json | None, devices: list[Json]) -> None:
    if image is None or any(_boots(device) and device.get("destination_type") == "volume" for device in devices):
        return
    if flavor["ram"] < image["min_ram"]:
        raise compute.refusal(400, "Flavor's memory is too small for requested image.")
    size = flavor["disk"] * GIB
    if not size:
        raise compute.refusal(403, "Only volume-backed servers are allowed for flavors with zero disk.")
    if size < (image["size"] or 0):
        message = f"Flavor disk is {size} bytes, image is {image['size']} bytes."
        raise compute.refusal(400, f"Flavor's disk is too small for requested image. {message}")
    if flavor["disk"] < image["min_disk"]:
        message = "Flavor's disk is smaller than the minimum size specified in image metadata. "
        message += f"Flavor disk is {size} bytes, minimum size is {image['min_disk'] * GIB} bytes."
        raise compute.refusal(400, message)


def _networks(compute: Compute, given: Any, count: int) -> list[Json]:
    """The ports and the networks that it is to have, each of which is there and free."""
    network = compute.network
    if given == "none":
        return []
    if given in (None, "auto") or not given:
        own = [net for net in network.networks.items.values() if net["tenant_id"] == network.project_id]
        if len(own) > 1:
            message = "Multiple possible networks found, use a Network ID to be more specific."
            raise compute.refusal(409, message)
        return [{"uuid": net["id"]} for net in own]
    for wanted in given:
        if wanted.get("port"):
            _check_port(compute, wanted["port"], count)
        elif "uuid" not in wanted:
            raise compute.refusal(400, "Bad network format: missing 'uuid'")
        elif wanted["uuid"] not in network.networks.items:
            raise compute.refusal(400, f"Network {wanted['uuid']} could not be found.")
        elif not network.networks.items[wanted["uuid"]]["subnets"]:
            message = f"Network {wanted['uuid']} requires a subnet in order to boot instances on."
            raise compute.refusal(400, message)
    fresh = count * sum(1 for wanted in given if not wanted.get("port"))
    if fresh and 0 <= network.quotas["port"] < len(network.ports.items) + fresh:
        raise compute.refusal(403, "Maximum number of ports exceeded")
    return list(given)


def _check_port(compute: Compute, id: str, count: int) -> None:
    port = compute.network.ports.items.get(id)
    if port is None:
        raise compute.refusal(400, f"Port id {id} could not be found.")
    if port["device_id"]:
        raise compute.refusal(409, f"Port {id} is still in use.")
    if not port["fixed_ips"]:
        raise compute.refusal(400, f"Port {id} requires a FixedIP in order to be used.")
    if count > 1:
        reason = "Unable to launch multiple instances with a single configured port ID. Please launch your instance"
        raise compute.refusal(400, f"Failed to launch instances: {reason} one by one with different ports.")


def _server_group(compute: Compute, hints: Json, count: int) -> str:
    id = hints.get("group", "")
    if not id:
        return ""
    if id not in compute.groups.items:
        raise compute.refusal(400, f"Instance group {id} could not be found.")
    if 0 <= compute.quotas["server_group_members"] < len(compute.groups.members(id)) + count:
        raise compute.refusal(403, "Quota exceeded, too many servers in group")
    return str(id)


def _place(compute: Compute, server: Server, wanted: list[Json], groups: list[str]) -> None:
    outcomes = compute.outcomes.get(server.name)
    server.fate = outcomes.pop(0) if outcomes else server.fate
    server.looks = compute.looks_to_build
    compute.servers[server.id] = server
    network = compute.network
    for one in wanted:
        net = network.networks.items.get(one.get("uuid") or "", {"router:external": False, "shared": False})
        if net["router:external"] and not net["shared"]:
            reason = "Failed to allocate the network(s), not rescheduling."
            server.fate = f"{ERROR}: Build of instance {server.id} aborted: {reason}"
            return
        if one.get("port"):
            port = network.ports.items[one["port"]]
        else:
            port = network.new_port(one["uuid"], groups)
            server.own_ports.append(port["id"])
        server.ports.append(port["id"])
        network.bind(port, server.id, server.zone)


def _attach(compute: Compute, server: Server, devices: list[Json]) -> None:
    for device in devices:
        if device["destination_type"] != "volume":
            continue
        assert compute.volumes is not None
        try:
            if device["source_type"] == "image":
                volume = compute.volumes.make(size=int(device["volume_size"]), image=device["uuid"])
            else:
                volume = compute.volumes.volumes[device["uuid"]]
        except Refused as refused:
            server.fate = (
                f"{ERROR}: Build of instance {server.id} aborted: {refused.answer.body['overLimit']['message']}"
            )
            return
        goes = device.get("delete_on_termination", False) in TRUE
        server.volumes[volume["id"]] = goes
        compute.volumes.attach(volume, server.id, f"/dev/vd{'abcdefgh'[len(server.volumes) - _boots(device)]}")
