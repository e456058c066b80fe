"""Division of content into chunks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from zlib import crc32

from cinderblock.format.entries import ByteRange

MIB = 1 << 20
SOLID_FILES = 256
"""Most small files in one solid chunk. The limit bounds the files that a restore has open at once."""
_MIN_FILL_DIVISOR = 2
"""A solid chunk may end early only after it is filled to 1/_MIN_FILL_DIVISOR of its full size."""
_PATHS_PER_EARLY_END = 16
"""About one path in this many ends a solid chunk early."""


def chunk_bytes_for(volume_bytes: int) -> int:
    """Return the size of the largest chunk for a volume.

    It is 1 MiB up to 256 GiB, 2 MiB up to 512 GiB, and 4 MiB beyond, which keeps most volumes below 262144 chunks.
    Larger chunks would make an incremental backup send too much for one changed block, and would enlarge the mover's
    buffers.
    """
    return MIB if volume_bytes <= 256 << 30 else 2 * MIB if volume_bytes <= 512 << 30 else 4 * MIB


def split_on_grid(ranges: Iterable[tuple[int, int]], chunk_bytes: int) -> Iterator[list[ByteRange]]:
    """Divide ranges of data along a grid of ``chunk_bytes``, and yield one list per grid block that holds data.

    Because of the grid, equal data at the same offset gives equal chunks, whatever precedes it.
    """
    block: list[ByteRange] = []
    current = -1
    for start, length in ranges:
        offset, end = start, start + length
        while offset < end:
            number = offset // chunk_bytes
            if block and number != current:
                yield block
                block = []
            current = number
            stop = min(end, (number + 1) * chunk_bytes)
            block.append(ByteRange(offset, stop - offset))
            offset = stop
    if block:
        yield block


def ends_solid_chunk(path: bytes, filled: int, chunk_bytes: int) -> bool:
    """Return whether a solid chunk that holds ``filled`` bytes ends after the file with this path.

    Some paths end a chunk early. A file that is added, removed or resized then moves chunk borders only up to the next
    such path. Chunks beyond it stay the same, so a resumed backup need not send them again.
    """
    return filled >= chunk_bytes // _MIN_FILL_DIVISOR and crc32(path) % _PATHS_PER_EARLY_END == 0
