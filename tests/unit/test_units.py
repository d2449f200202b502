from __future__ import annotations

import pytest

from cloudscale.units import GIB, MIB, amount, gib, mib, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [("2G", 2 * GIB), ("512m", 512 * MIB), ("1.5 GiB", 3 * GIB // 2), ("64MB", 64 * MIB), ("4096", 4096), ("1k", 1024)],
)
def test_a_size_is_read_in_powers_of_1024(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "G", "2 gigabytes", "-1G", "1e3", "²G"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="should be a size"):
        parse_size(text)


def test_sizes_in_words_are_round() -> None:
    assert mib(437 * MIB + 99) == "437 MiB"
    assert gib(3 * GIB // 2) == "1.5 GiB"
    assert gib(GIB, 2) == "1.00 GiB"


def test_an_amount_has_the_unit_that_suits_it() -> None:
    sizes = (0, 900, 3000, 5 * MIB, 2 * GIB)
    assert [amount(size) for size in sizes] == ["0 bytes", "900 bytes", "3 KiB", "5 MiB", "2.0 GiB"]
