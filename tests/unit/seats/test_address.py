from __future__ import annotations

import pytest

from cloudscale.seats.address import url


@pytest.mark.parametrize(
    ("host", "expected"),
    [("192.0.2.1", "http://192.0.2.1:80"), ("2001:db8::1", "http://[2001:db8::1]:80"), ("", "")],
)
def test_an_address_can_be_clicked_where_there_is_one(host: str, expected: str) -> None:
    assert url(host, 80) == expected
