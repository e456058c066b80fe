"""Quantities of bytes, in the notation of Kubernetes."""

from __future__ import annotations

import pytest

from cinderblock.api.quantity import GIB, to_bytes, to_gib
from cinderblock.errors import InvalidInput


@pytest.mark.parametrize(
    ("quantity", "size"),
    [
        ("1Gi", GIB),
        ("1.5Gi", 3 * GIB // 2),
        ("10G", 10**10),
        ("2e9", 2 * 10**9),
        ("1E", 10**18),
        ("100m", 1),
        ("0", 0),
        ("5k", 5000),
        (" 1Ki ", 1024),
    ],
)
def test_quantity_is_converted_to_bytes(quantity: str, size: int) -> None:
    assert to_bytes(quantity) == size


@pytest.mark.parametrize("text", ["", "Gi", "-1Gi", "1 Gi", "1GiB", "ten", "1e", "0x10"])
def test_text_that_is_not_a_quantity_is_rejected(text: str) -> None:
    with pytest.raises(InvalidInput, match="is not a size"):
        to_bytes(text)


@pytest.mark.parametrize(("size", "gib"), [(0, 0), (1, 1), (GIB, 1), (GIB + 1, 2), (10 * GIB, 10)])
def test_size_is_rounded_up_to_gib(size: int, gib: int) -> None:
    assert to_gib(size) == gib
