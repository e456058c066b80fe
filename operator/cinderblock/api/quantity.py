"""Quantities of bytes: those of Kubernetes (apimachinery ``resource.Quantity``), and sizes for people."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

from cinderblock.errors import InvalidInput

MIB: Final = 1 << 20
GIB: Final = 1 << 30

_UNITS: Final[dict[str, int | Decimal]] = {
    "": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15, "E": 10**18,
    "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40, "Pi": 1 << 50, "Ei": 1 << 60, "m": Decimal("0.001"),
}  # fmt: skip
_SIZE_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_QUANTITY: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(?:[eE]([0-9]+))?([kMGTPEm]|[KMGTPE]i)?")


def to_bytes(quantity: str) -> int:
    """Return the bytes of a quantity such as ``10Gi``, ``1.5T`` or ``2e9``, rounded up.

    Raises InvalidInput if the text is not a quantity.
    """
    match = _QUANTITY.fullmatch(quantity.strip())
    if not match:
        raise InvalidInput(f"{quantity!r} is not a size: write for example 10Gi")
    number, exponent, unit = match.groups()
    value = Decimal(number) * Decimal(10) ** int(exponent or 0) * _UNITS[unit or ""]
    return int(value.to_integral_value(rounding="ROUND_CEILING"))


def to_gib(size: int) -> int:
    """Return the GiB of ``size`` bytes, rounded up, because Cinder counts volumes in whole GiB."""
    return -(-size // GIB)


def format_size(count: float) -> str:
    """Return bytes in units of 1024 with at least three digits, such as ``1.50 GiB``."""
    unit = 0
    while count >= 1000 and unit < len(_SIZE_UNITS) - 1:
        count /= 1024
        unit += 1
    if unit == 0:
        return f"{count:.0f} B"
    return f"{count:.{2 if count < 10 else 1 if count < 100 else 0}f} {_SIZE_UNITS[unit]}"
