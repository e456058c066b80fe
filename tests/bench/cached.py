"""A full page cache, as on every machine that has been running for a while.

A virtual machine gets its memory from the host on first use, and may return unused memory at once. Then each fresh page
causes a fault in the host. Writing 1.4 GiB of restored data took 1.0 s of system time with pages that had been used
before, and 4 to 6 s with fresh pages, whichever program restored.
"""

from __future__ import annotations

import os
from typing import Final

_STEP: Final = 1 << 28
_BUFFER: Final = 8 << 20
_MOST: Final = 256
"""Steps at most: if others free as much as is read, there is no end."""


class Ballast:
    """A sparse file whose holes fill the page cache. Each part of it is read only once."""

    def __init__(self, directory: str) -> None:
        self._path = os.path.join(directory, "ballast")
        self._position = 0

    def fill(self) -> None:
        """Read until free memory does not become less any more: from then on pages are used again."""
        # Not "wb": that would throw out of the cache, and so set free, what was read before.
        with open(self._path, "ab") as file:
            file.truncate(self._position + _MOST * _STEP)
        buffer = bytearray(_BUFFER)
        with open(self._path, "rb", buffering=0) as file:
            for _ in range(_MOST):
                before = free_bytes()
                for offset in range(self._position, self._position + _STEP, _BUFFER):
                    os.preadv(file.fileno(), [buffer], offset)
                self._position += _STEP
                if before - free_bytes() < _STEP // 4:
                    return


def free_bytes() -> int:
    """Return the memory that nothing uses, not even the page cache (proc(5), /proc/meminfo)."""
    with open("/proc/meminfo") as file:
        fields = dict(line.split(":", 1) for line in file)
    return int(fields["MemFree"].split()[0]) << 10
