"""The image of the machines: the one that the configuration names, or the newest public Debian or Ubuntu."""

from __future__ import annotations

import re
from typing import Any

from cloudscale.course.settings import OpenStackSettings
from cloudscale.drivers.openstack.cloud import Cloud
from cloudscale.drivers.openstack.lookup import missing, names_of
from cloudscale.errors import SettingsError
from cloudscale.model import Say
from cloudscale.outside import shaped

OLDEST = {"debian": (12, 0), "ubuntu": (22, 4)}
OLD, DATE = 7, 50  # numbers below and above are parts of a date
NUMBER = re.compile(r"(?<!\d)(\d\d)\.?(04|10)?(?!\d)")  # 13, 13.1, 24.04, 2404
CODENAMES = {"bookworm": (12, 0), "trixie": (13, 0), "forky": (14, 0)}
CODENAMES |= {"jammy": (22, 4), "noble": (24, 4), "resolute": (26, 4)}
DISTRIBUTION = re.compile("(?<![a-z])(debian|ubuntu)")
# images that have more than the system, or less, or are not finished; Debian's `nocloud` has no cloud-init
SPECIAL = re.compile(
    r"(?<![a-z])(plesk|wordpress|cpanel|nvidia|v?gpu|cuda|desktop|gnome|xfce|deprecated|obsolete|eol|nocloud|daily|"
    r"testing|sid|unstable|experimental|kube\w*|k8s|capi|rke2?|octavia|amphora|trove|magnum|rescue|installer|netinst)"
    r"(?![a-z])"
)
X86 = "x86_64"
ARCHITECTURES = {"amd64": X86, X86: X86, "arm64": "aarch64", "aarch64": "aarch64"}
OTHER_ARCHITECTURE = re.compile("aarch64|arm64|armhf|armv7|ppc64|s390x|riscv64|i[36]86")
BOOTABLE = {"qcow2", "raw", "vmdk", "vdi", "vhd", "vhdx", "ami"}  # the others are installers, kernels and initrds
IMAGE = {  # what is needed of glance's answer
    "id": str,
    "name?": str,
    "disk_format?": str,
    "created_at?": str,
    "visibility?": str,
    "properties?": dict,
    "min_ram?": int,
    "min_disk?": int,
    "size?": int,
}
USER_PROPERTIES = ("os_admin_user", "image_original_user")
USER = re.compile("[a-z_][a-z0-9_-]{0,31}")


def choose_image(cloud: Cloud, settings: OpenStackSettings, flavor: Any, say: Say) -> Any:
    """The image for the machines. Raises SettingsError, with the names that exist, and CloudError."""
    if settings.image:
        return _named(cloud, settings.image, say)
    images = cloud.attempt(
        "Looking for an image", lambda: shaped(cloud.api.image.images(status="active", visibility="public"), IMAGE)
    )
    candidates = [image for image in images if _is_suitable(image)]
    wanted = _architecture_of(flavor)
    candidates = [image for image in candidates if architecture(image) == (wanted or X86)] or (
        [] if wanted else candidates
    )
    if not candidates:
        raise SettingsError(
            f"openstack.image is empty, but the cloud {cloud.name!r} has no public image of Debian 12 or Ubuntu 22.04,"
            " or newer.",
            f"Set openstack.image. Available: {names_of(images)}.",
        )
    image = max(candidates, key=_rank)
    system = distribution(image).capitalize()
    say(f"openstack.image is empty: {image.name!r} is taken, the newest public {system} image. Set it to use another.")
    return image


def _named(cloud: Cloud, name: str, say: Say) -> Any:
    """By name or id; of several with the name, the newest public one."""
    what = f"openstack.image: {name!r}"

    def look() -> list[Any]:
        same = list(cloud.api.image.images(name=name, status="active"))
        found = None if same else cloud.api.image.find_image(name, ignore_missing=True)  # by id
        return shaped([found] if found is not None else same, IMAGE)

    matches = cloud.attempt(f"Looking for {what}", look)
    if len(matches) == 1:
        return matches[0]
    if not matches:
        active = cloud.attempt(f"Looking for {what}", lambda: shaped(cloud.api.image.images(status="active"), IMAGE))
        extra = " Or leave it empty for the newest public Debian or Ubuntu image."
        raise missing(cloud, "image", name, active, extra)
    public = [image for image in matches if image.visibility == "public"]
    if not public:
        ids = ", ".join(sorted(image.id for image in matches))
        raise SettingsError(
            f"{what}: the cloud has several with this name, none of which is public.", f"Use an id instead: {ids}."
        )
    newest = max(public, key=lambda image: (str(image.created_at), image.id))
    say(
        f"{what}: the cloud has {len(matches)} images with this name. The newest public one is taken ({newest.id}, of"
        f" {str(newest.created_at)[:10]}). Use an id for another."
    )
    return newest


def choose_user(settings: OpenStackSettings, image: Any, say: Say) -> str:
    """The user for logins: of the configuration, else that of the image. Raises SettingsError if nothing says it."""
    if settings.user and "user" in settings.model_fields_set:
        return settings.user
    user = user_of(image)
    if not user and not settings.user:
        raise SettingsError(
            f"openstack.user is empty, and the image {image.name!r} does not say which user it has.",
            "Set openstack.user to the user of the image.",
        )
    if user and user != settings.user:
        say(f"openstack.user: {user!r} is taken, the user of the image {image.name!r}. Set it to use another.")
    return user or settings.user


def user_of(image: Any) -> str:
    """The user that an image has for logins; "" if it does not say."""
    for name in USER_PROPERTIES:
        if USER.fullmatch(value := _property(image, name)):
            return value
    return distribution(image)


def distribution(image: Any) -> str:
    """`debian` or `ubuntu`, from the property os_distro, or from the name; "" for any other system."""
    declared = _property(image, "os_distro").lower()
    if declared in ("", "linux", "other", "others"):
        match = DISTRIBUTION.search(str(image.name).lower())
        return match[1] if match else ""
    return next((name for name in OLDEST if declared.startswith(name)), "")


def version(image: Any) -> tuple[int, int]:
    """Such as (13, 0) or (24, 4), from the property os_version, or from the name; (0, 0) if neither says it."""
    system, name = distribution(image), str(image.name).lower()
    if not system:
        return 0, 0
    after = name.partition(system)[2] if system in name else name
    for text in (_property(image, "os_version").lower(), after, name):
        if known := next((number for codename, number in CODENAMES.items() if codename in text), None):
            return known
        for match in NUMBER.finditer(text):
            if OLD <= int(match[1]) < DATE:
                return int(match[1]), int(match[2] or 4) if system == "ubuntu" else 0
    return 0, 0


def architecture(image: Any) -> str:
    """From the property architecture, or from the name; the usual one if neither says it."""
    declared = _property(image, "architecture").lower()
    if declared:
        return ARCHITECTURES.get(declared, declared)
    match = OTHER_ARCHITECTURE.search(str(image.name).lower())
    return ARCHITECTURES.get(match[0], match[0]) if match else X86


def _architecture_of(flavor: Any) -> str:
    """The one that the flavor asks for; "" if it does not say."""
    texts = (str(value).lower() for value in (getattr(flavor, "extra_specs", None) or {}).values())
    return next((ARCHITECTURES[text] for text in texts if text in ARCHITECTURES), "")


def _is_suitable(image: Any) -> bool:
    system, number = distribution(image), version(image)
    is_old = number != (0, 0) and number < OLDEST.get(system, (0, 0))
    is_special = SPECIAL.search(str(image.name).lower()) or _property(image, "image_type") == "snapshot"
    return bool(system) and image.disk_format in BOOTABLE and not is_old and not is_special


def _rank(image: Any) -> tuple[object, ...]:
    """Debian first; of Ubuntu, a release with long support first; then the newest."""
    system, (major, minor) = distribution(image), version(image)
    is_supported = system == "debian" or (major % 2 == 0 and minor == 4)
    release = (major, 0 if system == "debian" else minor)
    return (system == "debian", is_supported, release, str(image.created_at), image.id)


def _property(image: Any, name: str) -> str:
    value = getattr(image, name, None) or (getattr(image, "properties", None) or {}).get(name)
    return str(value or "")
