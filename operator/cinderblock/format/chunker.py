"""How content is cut into chunks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from zlib import crc32

from cinderblock.format.entries import ByteRange

MIB = 1 << 20
SOLID_FILES = 256
"""Small files in one solid chunk at most, so that a restore has few files open at once."""
_SOLID_LEAST = 2
"""A solid chunk may end early only when it has reached this fraction (one half) of its full size."""
_SOLID_END = 16
"""About one path in so many ends a solid chunk early."""


def chunk_bytes_for(volume_bytes: int) -> int:
    """Largest chunk for a volume of this size: 1 MiB, and more where there would be more than 262144 of them.

    Up to 256 GiB 1 MiB, up to 512 GiB 2 MiB, beyond that 4 MiB: larger chunks would make an incremental send too much
    for one changed block, and the buffers of a mover grow with them.
    """
    return MIB if volume_bytes <= 256 << 30 else 2 * MIB if volume_bytes <= 512 << 30 else 4 * MIB


def cells(ranges: Iterable[tuple[int, int]], chunk_bytes: int) -> Iterator[list[ByteRange]]:
    """Ranges of data, divided along a grid of ``chunk_bytes``: one list per cell of the grid that holds data.

    The grid makes equal data at the same place give equal chunks, whatever lies before it.
    """
    cell: list[ByteRange] = []
    current = -1
    for start, length in ranges:
        offset, end = start, start + length
        while offset < end:
            number = offset // chunk_bytes
            if cell and number != current:
                yield cell
                cell = []
            current = number
            stop = min(end, (number + 1) * chunk_bytes)
            cell.append(ByteRange(offset, stop - offset))
            offset = stop
    if cell:
        yield cell


def ends_solid_chunk(path: bytes, filled: int, chunk_bytes: int) -> bool:
    """Whether a solid chunk that holds ``filled`` bytes ends behind the file with this path.

    Some paths end one early, so that files which come, go or grow shift the borders only up to the next such path:
    what lies behind gives the same chunks as before, and need not be sent again by a run that resumes.
    """
    return filled >= chunk_bytes // _SOLID_LEAST and crc32(path) % _SOLID_END == 0
