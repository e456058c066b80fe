"""The sorted names of one directory, most of them compressed in memory."""

from __future__ import annotations

import zlib

BLOCK_NAMES = 4096
"""Most names that are uncompressed at once. A million sorted names of 64 bytes take 120 MB as a list. Most directories
have fewer names than this, and are never compressed."""
_LEVEL = 1
"""The fastest level of zlib: sorted names have much in common."""


class SortedNames:
    """A queue of names in ascending order of bytes.

    Args:
        names: in any order; the list is modified.
    """

    def __init__(self, names: list[bytes]) -> None:
        names.sort()
        self._count = len(names)
        self._blocks: list[bytes] = []
        while len(names) > BLOCK_NAMES:
            start = (len(names) - 1) // BLOCK_NAMES * BLOCK_NAMES
            self._blocks.append(zlib.compress(b"/".join(names[start:]), _LEVEL))
            del names[start:]
        names.reverse()
        self._open = names

    def __len__(self) -> int:
        return self._count

    def __bool__(self) -> bool:
        return bool(self._open)

    @property
    def first(self) -> bytes:
        """The smallest name. Raises IndexError if there is none."""
        return self._open[-1]

    def pop(self) -> bytes:
        """Remove the smallest name, and return it. Raises IndexError if there is none."""
        name = self._open.pop()
        self._count -= 1
        if not self._open and self._blocks:
            self._open = zlib.decompress(self._blocks.pop()).split(b"/")
            self._open.reverse()
        return name
