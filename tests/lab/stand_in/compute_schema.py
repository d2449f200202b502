"""What compute takes in its requests, by microversion."""

from __future__ import annotations

from tests.lab.stand_in.wire import Json

TEXT: Json = {"type": "string"}
NAME: Json = {"type": "string", "minLength": 1, "maxLength": 255, "format": "name"}
UUID: Json = {"type": "string", "format": "uuid"}
BOOLEAN: Json = {
    "type": ["boolean", "string"],
    "enum": [
        *(True, "True", "TRUE", "true", "1", "ON", "On", "on", "YES", "Yes", "yes"),
        *(False, "False", "FALSE", "false", "0", "OFF", "Off", "off", "NO", "No", "no"),
    ],
}
MOST_TAGS = 50
TAG: Json = {"type": "string", "minLength": 1, "maxLength": 60, "pattern": "^[^,/]*$"}
TAGS: Json = {"type": "array", "items": TAG, "maxItems": MOST_TAGS}
COUNT: Json = {"type": ["integer", "string"], "pattern": "^[0-9]*$", "minimum": 1}
METADATA: Json = {
    "type": "object",
    "patternProperties": {"^[a-zA-Z0-9-_:. ]{1,255}$": {"type": "string", "maxLength": 255}},
    "additionalProperties": False,
}
HINTS: Json = {"type": "object", "properties": {"group": UUID}, "additionalProperties": False}
DEVICE: Json = {
    "type": "object",
    "properties": {
        "source_type": {"type": "string", "enum": ["volume", "image", "snapshot", "blank"]},
        "destination_type": {"type": "string", "enum": ["local", "volume"]},
        "uuid": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[a-zA-Z0-9._-]*$"},
        "boot_index": {"type": ["integer", "string", "null"], "pattern": "^-?[0-9]+$"},
        "volume_size": {"type": ["integer", "string"], "pattern": "^[0-9]+$", "minimum": 1},
        "delete_on_termination": BOOLEAN,
        "device_name": {"type": "string", "minLength": 1, "maxLength": 255},
        "device_type": {"type": "string", "maxLength": 255},
        "disk_bus": {"type": "string", "maxLength": 255},
        "tag": TAG,
        "volume_type": {"type": ["string", "null"], "maxLength": 255},
    },
    "additionalProperties": False,
}


def _networks(version: tuple[int, int]) -> Json:
    one: Json = {
        "type": "object",
        "properties": {
            "port": {"oneOf": [UUID, {"type": "null"}]},
            "fixed_ip": {"type": "string", "format": "ip"},
            "uuid": UUID if version >= (2, 37) else TEXT,
            **({"tag": TAG} if version >= (2, 42) else {}),
        },
        "additionalProperties": False,
    }
    several: Json = {"type": "array", "items": one}
    return {"oneOf": [several, {"type": "string", "enum": ["none", "auto"]}]} if version >= (2, 37) else several


def create_server(version: tuple[int, int]) -> Json:
    devices = {name: schema for name, schema in DEVICE["properties"].items() if name != "tag" or version >= (2, 42)}
    if version < (2, 67):
        del devices["volume_type"]
    fields: Json = {
        "name": NAME,
        "imageRef": {"oneOf": [UUID, {"type": "string", "maxLength": 0}]},
        "flavorRef": {"type": ["string", "integer"], "minLength": 1},
        "metadata": METADATA,
        "networks": _networks(version),
        "availability_zone": NAME,
        "block_device_mapping_v2": {"type": "array", "items": {**DEVICE, "properties": devices}},
        "config_drive": BOOLEAN,
        "key_name": NAME,
        "min_count": COUNT,
        "max_count": COUNT,
        "security_groups": {
            "type": "array",
            "items": {"type": "object", "properties": {"name": NAME}, "additionalProperties": False},
        },
        "user_data": {"type": "string", "format": "base64", "maxLength": 65535},
        "adminPass": TEXT,
        "OS-DCF:diskConfig": {"type": "string", "enum": ["AUTO", "MANUAL"]},
    }
    required = ["name", "flavorRef"]
    if version >= (2, 19):
        fields["description"] = {"type": ["string", "null"], "maxLength": 255}
    if version >= (2, 37):
        required.append("networks")
    if version >= (2, 52):
        fields["tags"] = TAGS
    if version >= (2, 90):
        fields["hostname"] = {"type": "string", "minLength": 2, "maxLength": 63, "pattern": "^[a-zA-Z0-9-._]*$"}
    server = {"type": "object", "properties": fields, "required": required, "additionalProperties": False}
    return {
        "type": "object",
        "properties": {"server": server, "os:scheduler_hints": HINTS, "OS-SCH-HNT:scheduler_hints": HINTS},
        "required": ["server"],
        "additionalProperties": False,
    }


def create_group(version: tuple[int, int]) -> Json:
    policies = ["anti-affinity", "affinity", *(["soft-anti-affinity", "soft-affinity"] if version >= (2, 15) else [])]
    one: Json = {"type": "string", "enum": policies}
    fields: Json = {"name": NAME, "policies": {"type": "array", "items": one, "minItems": 1, "maxItems": 1}}
    if version >= (2, 64):
        most = {"max_server_per_host": COUNT}
        rules = {"type": "object", "properties": most, "additionalProperties": False}
        fields = {"name": NAME, "policy": one, "rules": rules}
    group = {"type": "object", "properties": fields, "required": list(fields)[:2], "additionalProperties": False}
    return {
        "type": "object",
        "properties": {"server_group": group},
        "required": ["server_group"],
        "additionalProperties": False,
    }


def _only(name: str, inner: Json) -> Json:
    return {"type": "object", "properties": {name: inner}, "required": [name], "additionalProperties": False}


ATTACH = _only(
    "volumeAttachment",
    {
        "type": "object",
        "properties": {"volumeId": UUID, "device": {"type": ["string", "null"]}},
        "required": ["volumeId"],
        "additionalProperties": False,
    },
)
METADATA_OF_SERVER = _only("metadata", METADATA)
PUT_TAGS = _only("tags", TAGS)
REBOOT_TYPES = ["HARD", "Hard", "hard", "SOFT", "Soft", "soft"]
LENGTH: Json = {"type": ["integer", "string", "null"], "pattern": "^-?[0-9]+$", "minimum": -1}
ACTIONS: dict[str, Json] = {
    "os-getConsoleOutput": {"type": "object", "properties": {"length": LENGTH}, "additionalProperties": False},
    "os-start": {},
    "os-stop": {},
    "reboot": _only("type", {"type": "string", "enum": REBOOT_TYPES}),
}


def action(name: str) -> Json:
    return _only(name, ACTIONS[name])
