"""The names in one directory, few of them in memory as objects."""

from __future__ import annotations

import zlib

BLOCK_NAMES = 4096
"""Names that are objects at once; the rest waits compressed. A million sorted names of 64 bytes take 120 MB as a list;
most directories have fewer names than this, and theirs are never compressed."""
_LEVEL = 1
"""The least effort of zlib: sorted names have much in common."""


class SortedNames:
    """Names in ascending order of bytes, taken out one by one.

    Args:
        names: in any order; the list is used up.
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
        """The least name. Raises IndexError if there is none."""
        return self._open[-1]

    def pop(self) -> bytes:
        """Take the least name out. Raises IndexError if there is none."""
        name = self._open.pop()
        self._count -= 1
        if not self._open and self._blocks:
            self._open = zlib.decompress(self._blocks.pop()).split(b"/")
            self._open.reverse()
        return name
