from __future__ import annotations

import pytest

from cloudscale import errors
from cloudscale.errors import CloudscaleError


def tree(root: type[CloudscaleError]) -> list[type[CloudscaleError]]:
    return [root, *(below for child in root.__subclasses__() for below in tree(child))]


def test_an_error_is_what_was_wrong_and_what_to_do() -> None:
    assert str(CloudscaleError("It broke.", "Fix it.")) == "It broke.\n  Fix it."
    assert str(CloudscaleError("It broke.")) == "It broke."


@pytest.mark.parametrize("kind", tree(CloudscaleError), ids=lambda kind: kind.__name__)
def test_only_wrong_requests_end_in_2_and_the_docstring_says_so(kind: type[CloudscaleError]) -> None:
    assert kind.exit_code == (2 if issubclass(kind, errors.RequestError) else 1)
    if kind.__module__ == errors.__name__:
        drawn = next(line for line in (errors.__doc__ or "").splitlines() if kind.__name__ in line.split())
        assert str(kind.exit_code) in drawn.split()


def test_what_others_wrote_does_not_make_a_message_endless() -> None:
    error = errors.EngineError(f"m1: refused ({'x' * 10**6}).", "y" * 10**6)
    assert len(error.message) < errors.LONGEST + 100 and len(error.remedy) < errors.LONGEST + 100
    assert error.message.startswith("m1: refused (xxx") and error.message.endswith("xxx).")
    assert f"{10**6 + 15 - errors.LONGEST} characters left out" in error.message
