"""What the tests of images share."""

from __future__ import annotations

import pytest

from tests.unit.images.deliveries import Course


@pytest.fixture
def course() -> Course:
    return Course()
