"""The one place that makes names, labels and passwords.

A student's id decides what must stay the same for a whole course (volume, password); the name
only makes what people read (the service) readable.
"""

from __future__ import annotations

import hashlib
import hmac
import json

from slugify import slugify

from cloudscale.model import Student

MARK = "cloudscale.course"
STUDENT = "cloudscale.student"
NAME = "cloudscale.name"
EMAIL = "cloudscale.email"
KEY = "cloudscale.key"
PORT = "cloudscale.port"

# Swarm takes service names of at most 63 characters, and a container's name adds to it.
LONGEST = 60

# Lower-case letters and digits that nobody takes for one another, on paper or read aloud:
# no 0/o, 1/l/i, 2/z, 5/s, 6/b, 8, 9/g/q, and no m/n, u/v pair.
PASSWORD_ALPHABET = "acdefhjkmprtuwxy347"
PASSWORD_LENGTH = 12  # of 19 characters: 50.9 bits


def labels(course: str, **more: str) -> dict[str, str]:
    """The course's mark, with what else is to be found by."""
    return {MARK: course, **more}


def student_labels(course: str, student_id: str) -> dict[str, str]:
    return {MARK: course, STUDENT: student_id}


def _digest(*parts: str) -> str:
    # JSON keeps ("a", "bc") and ("ab", "c") apart
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _name(readable: str, *identity: str) -> str:
    """A DNS label that is readable, and unique because it ends in a digest of the identity."""
    digest = _digest(*identity)[:10]
    stem = slugify(readable, max_length=LONGEST - len(digest) - 1)
    return f"{stem}-{digest}" if stem else f"x-{digest}"


def seat_name(course: str, student: Student) -> str:
    """The service's name: what the trainer sees in `docker service ls` and as a command's heading."""
    return _name(f"{slugify(course, max_length=20)} {student.full_name}", "seat", course, student.id)


def volume_name(course: str, student_id: str) -> str:
    """The volume with the student's work; it depends on the id alone, so a corrected name finds it again."""
    return _name(f"{slugify(course, max_length=20)} {slugify(student_id, max_length=20)}", "volume", course, student_id)


def secret_name(seat: str, fingerprint: str) -> str:
    """Swarm's secrets can't be changed or read back, so the content's fingerprint is part of the name."""
    return f"{seat[:45]}-{fingerprint[:16]}"


def delivered_repository(course: str) -> str:
    """The name under which an engine keeps, as a second one, the images that were brought to it for the course."""
    return f"cloudscale/brought-{_digest('brought', course)[:10]}"


def keyed_digest(key: bytes, purpose: str, *parts: str) -> bytes:
    """32 bytes that only the holder of the course's key can make."""
    return hmac.digest(key, json.dumps([purpose, *parts]).encode(), "sha256")


def key_id(key: bytes) -> str:
    """Names a course's key without giving it away."""
    return keyed_digest(key, "key id").hex()[:16]


def password(key: bytes, student_id: str) -> str:
    """The student's password: at least 50 bits, the same on every run, e.g. `kw4h-7txe-cdrp`."""
    number = int.from_bytes(keyed_digest(key, "password", student_id), "big")
    characters = []
    for _ in range(PASSWORD_LENGTH):
        number, remainder = divmod(number, len(PASSWORD_ALPHABET))
        characters.append(PASSWORD_ALPHABET[remainder])
    text = "".join(characters)
    return "-".join(text[at : at + 4] for at in range(0, PASSWORD_LENGTH, 4))
