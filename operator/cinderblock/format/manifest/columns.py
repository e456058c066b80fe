"""Tables stored column by column: C loops pack and unpack them, and they compress better than rows."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from cinderblock.format.range_reader import Buffer

_LENGTH = struct.Struct("<I")
LENGTH_BYTES = _LENGTH.size
"""Bytes of the length before each column."""


def join_columns(columns: Sequence[bytes]) -> bytes:
    """Join columns, each preceded by its length in bytes as u32."""
    parts: list[bytes] = []
    for column in columns:
        parts += (_LENGTH.pack(len(column)), column)
    return b"".join(parts)


def split_columns(data: Buffer, count: int, optional: int = 0) -> list[memoryview]:
    """Return the first ``count`` columns, and at most ``optional`` further ones, which writers may have left out.

    Raises ValueError if some of the first ones are missing.
    """
    view = memoryview(data)
    columns: list[memoryview] = []
    position = 0
    for number in range(count + optional):
        start = position + LENGTH_BYTES
        (length,) = _LENGTH.unpack_from(view, position) if start <= len(view) else (len(view),)
        position = start + length
        if position > len(view):
            if number >= count:
                break
            raise ValueError("a column is missing, or cut short")
        columns.append(view[start:position])
    return columns


def pack_numbers(code: str, numbers: Sequence[int]) -> bytes:
    """Pack a column of little-endian numbers by a `struct` code: B, H, I, Q unsigned, q signed."""
    return struct.pack(f"<{len(numbers)}{code}", *numbers)


def unpack_numbers(code: str, column: memoryview) -> tuple[int, ...]:
    """Return the numbers of a column. Raises ValueError if it has an incomplete number."""
    count, rest = divmod(len(column), struct.calcsize("<" + code))
    if rest:
        raise ValueError("a column has a broken number")
    return struct.unpack(f"<{count}{code}", column)
