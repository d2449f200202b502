"""Makes all names, labels and passwords.

What must stay the same during a course (volume, password) depends only on the student's id. The student's name is used
to make the names of services readable.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import unicodedata

from slugify import slugify

from cloudscale.model import Student

MARK = "cloudscale.course"
STUDENT = "cloudscale.student"
NAME = "cloudscale.name"
EMAIL = "cloudscale.email"
KEY = "cloudscale.key"
QUOTAS = "cloudscale.quotas=yes"  # a label of an engine that can limit volumes
PORT = "cloudscale.port"
ROLE = "cloudscale.role"
MODE = "cloudscale.mode"
COUNT = "cloudscale.count"  # how often a student's password was changed
MOVED = "cloudscale.moved"  # of a seat: the machine that it has left, and that still has a volume of it
COPYING = "cloudscale.copying"  # the id of a student whose volume on this machine is an unfinished copy
HOST = "cloudscale.host"
PROGRAM = "cloudscale.program"

# Swarm takes service names of at most 63 characters, and a container's name adds to it.
LONGEST = 60

# Lower-case letters and digits that nobody confuses, on paper or when read aloud: no 0/o, 1/l/i, 2/z, 5/s, 6/b, 8,
# 9/g/q; only one of m/n and one of u/v.
ALPHABET = "acdefhjkmprtuwxy347"
PASSWORD_LENGTH = 12  # of 19 characters: 50.9 bits
PATH_LENGTH = 10  # 42.4 bits: a server answers a few thousand guesses a second, which is 40 years


def labels(course: str, **more: str) -> dict[str, str]:
    """The label that marks everything of a course, with further labels to search by."""
    return {MARK: course, **more}


def student_labels(course: str, student_id: str) -> dict[str, str]:
    return {MARK: course, STUDENT: student_id}


def _digest(*parts: str) -> str:
    # JSON keeps ("a", "bc") and ("ab", "c") apart
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _name(readable: str, *identity: str) -> str:
    """A DNS label: readable, and unique because it ends in a digest of the identity."""
    digest = _digest(*identity)[:10]
    stem = slugify(readable, max_length=LONGEST - len(digest) - 1)
    return f"{stem}-{digest}" if stem else f"x-{digest}"


def seat_name(course: str, student: Student) -> str:
    """The name of the seat's service, as in `docker service ls` and in the headings of com_containers."""
    return _name(f"{slugify(course, max_length=20)} {student.full_name}", "seat", course, student.id)


def volume_name(course: str, student_id: str) -> str:
    """The volume with the student's work. It depends only on the id, so it stays when a name is corrected."""
    return _name(f"{slugify(course, max_length=20)} {slugify(student_id, max_length=20)}", "volume", course, student_id)


def card_name(student: Student) -> str:
    """The name of the file with a student's card, without its suffix."""
    return _name(student.full_name, "card", student.id)


def unfinished_name(volume: str) -> str:
    """The volume that says of another one that it is an unfinished copy."""
    return f"{volume}-copying"


def change_name(course: str, student_id: str, count: int) -> str:
    """The Swarm config that says that a student's password was changed that often."""
    stem = _name(
        f"{slugify(course, max_length=20)} {slugify(student_id, max_length=20)}", "password", course, student_id
    )
    return f"{stem}-{count}"


def work_folder(course: str, student: Student) -> str:
    """The folder of a student's collected work. A corrected name changes it; `owns_work_folder` still knows it."""
    return _name(f"{student.full_name} {slugify(student.id, max_length=20)}", "work", course, student.id)


def owns_work_folder(course: str, student_id: str, folder: str) -> bool:
    """Whether a folder of collected work is this student's in this course."""
    return folder.endswith("-" + _digest("work", course, student_id)[:10])


def code_name(course: str) -> str:
    """What the secret of the code that all seats share is called after."""
    return _name(f"{slugify(course, max_length=20)} server", "server", course)


def collected_name(course: str) -> str:
    """What the config that says when work was collected is called after."""
    return _name(f"{slugify(course, max_length=20)} collected", "collected", course)[:45]


def secret_name(seat: str, fingerprint: str) -> str:
    """Swarm secrets can't be changed or read, so the fingerprint of the content is part of the name."""
    return f"{seat[:45]}-{fingerprint[:16]}"


def deadline_name(course: str, deadline: str) -> str:
    """The config in the swarm that says when the course ends. Two deadlines have two names."""
    readable = re.sub("[^0-9tz]", "", deadline.lower())
    return f"{_name(f'{slugify(course, max_length=20)} until', 'until', course)}-{readable}"


def delivered_repository(course: str) -> str:
    """A second name for the images that were sent to an engine for the course; it marks them as the course's."""
    return f"cloudscale/brought-{_digest('brought', course)[:10]}"


def keyed_digest(key: bytes, purpose: str, *parts: str) -> bytes:
    """32 bytes that can be computed only with the course's key."""
    return hmac.digest(key, json.dumps([purpose, *parts]).encode(), "sha256")


def natural(name: str) -> tuple[str, int]:
    """A sort key that puts course-2 before course-10."""
    match = re.fullmatch(r"(.*?)(\d*)", name)
    assert match
    return match[1], int(match[2] or 0)


def alphabetical(name: str) -> tuple[str, str]:
    """A sort key that puts Émile between Emil and Emma: without regard to case and accents."""
    parts = unicodedata.normalize("NFKD", name.casefold())
    return "".join(part for part in parts if not unicodedata.combining(part)), name


def key_id(key: bytes) -> str:
    """Identifies a course's key without revealing it."""
    return keyed_digest(key, "key id").hex()[:16]


def password(key: bytes, student_id: str, changes: int = 0) -> str:
    """The student's password, the same in every run: at least 50 bits, such as `kw4h-7txe-cdrp`.

    `changes`: how often it was changed. Ask course/passwords.py for it, which knows.
    """
    text = _readable(keyed_digest(key, "password", student_id, *_changed(changes)), PASSWORD_LENGTH)
    return "-".join(text[at : at + 4] for at in range(0, PASSWORD_LENGTH, 4))


def seat_path(key: bytes, student_id: str) -> str:
    """The path of the seat's address, the same in every run: 42 bits that others can't guess, such as `/kw4h7txecd`.

    All seats of a machine share its cookies, since cookies know no ports (RFC 6265, 8.5); but a browser sends a cookie
    only to addresses under its path.
    """
    return "/" + _readable(keyed_digest(key, "path", student_id), PATH_LENGTH)


def seat_label(key: bytes, student_id: str) -> str:
    """The seat's part of a host name, the same in every run. It says nothing of the person: host names are public."""
    return _readable(keyed_digest(key, "label", student_id), PATH_LENGTH)


def seat_token(key: bytes, student_id: str, changes: int = 0) -> str:
    """What a browser shows to the gateway after the login with the seat's password, as long as that one counts."""
    return keyed_digest(key, "token", student_id, *_changed(changes)).hex()


def seat_pass(key: bytes, student_id: str, changes: int = 0) -> str:
    """What the gateway shows to the seat's server, so that the student need not log in there again.

    Who is logged in to a seat can read it there: it changes with the password.
    """
    return keyed_digest(key, "pass", student_id, *_changed(changes)).hex()


def _changed(changes: int) -> tuple[str, ...]:
    """What is derived for the first time has no number."""
    return (str(changes),) if changes else ()


def status_pass(gateway_pass: str) -> str:
    """What the tool shows to the seat's server to learn when it was last used. It opens nothing else.

    The server computes it from its `seat_pass`, which does not follow from it.
    """
    return hmac.digest(gateway_pass.encode(), b"status", "sha256").hex()


def gateway_probe(key: bytes) -> str:
    """What the gateway knows the tool by, when it looks at whether a seat answers. It opens nothing else."""
    return keyed_digest(key, "probe").hex()


def gateway_labels(course: str) -> dict[str, str]:
    return {MARK: course, ROLE: "gateway"}


def gateway_filter(course: str) -> dict[str, list[str]]:
    """The Engine API's filter for what is the gateway's."""
    return {"label": [f"{key}={value}" for key, value in gateway_labels(course).items()]}


def gateway_name(course: str) -> str:
    """The gateway's service, and the volume with its files."""
    return _name(f"{slugify(course, max_length=20)} gateway", "gateway", course)


def material_labels(course: str) -> dict[str, str]:
    return {MARK: course, ROLE: "material"}


def material_name(course: str) -> str:
    """The volume on each machine with what was distributed."""
    return _name(f"{slugify(course, max_length=20)} material", "material", course)


def shared_labels(course: str) -> dict[str, str]:
    return {MARK: course, ROLE: "shared"}


def shared_name(course: str) -> str:
    """The volume on each machine with the folder that all seats can read."""
    return _name(f"{slugify(course, max_length=20)} shared", "shared", course)


def _readable(digest: bytes, length: int) -> str:
    number, characters = int.from_bytes(digest, "big"), []
    for _ in range(length):
        number, remainder = divmod(number, len(ALPHABET))
        characters.append(ALPHABET[remainder])
    return "".join(characters)
