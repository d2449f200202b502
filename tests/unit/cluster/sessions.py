"""Sessions that a cluster is looked at in."""

from __future__ import annotations

import sys

from cloudscale.course.flags import Common
from cloudscale.course.session import Session
from cloudscale.course.settings import read_settings
from cloudscale.progress import Lines


def session(**common: tuple[str, ...]) -> Session:
    settings = read_settings({"driver": "local", "course": "bio"})
    return Session(settings, Common(**common), Lines(sys.stderr), ask=lambda question: None)
