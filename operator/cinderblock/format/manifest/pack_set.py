"""Sets of packs, in little memory: the packs that manifests list.

A volume of 64 TiB has 2.8 million packs. The packs of one run of a mover are numbered from 0, so a set keeps a bit for
each number, in blocks of 1024.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from cinderblock.errors import TooLarge
from cinderblock.format.pack import Origin

_BLOCK_BITS: Final = 10
_IN_BLOCK: Final = (1 << _BLOCK_BITS) - 1
MAX_BLOCKS: Final = 1 << 16
"""Most blocks of a set: one for each origin that a manifest can have. They take at most 20 MB."""

Blocks = dict[int, int]
"""By number of a block, a bit for each pack in it."""


def add_numbers(blocks: dict[int, Blocks], rows: Iterable[tuple[int, int]]) -> None:
    """Add rows of a footer, each the row of an origin and the number of a pack, to ``blocks`` by origin."""
    for origin, number in rows:
        of_origin = blocks.setdefault(origin, {})
        block = number >> _BLOCK_BITS
        of_origin[block] = of_origin.get(block, 0) | 1 << (number & _IN_BLOCK)


def count_blocks(blocks: dict[int, Blocks]) -> int:
    """Return how many blocks there are for all origins."""
    return sum(map(len, blocks.values()))


class PackSet:
    """A set of packs of several backups."""

    def __init__(self) -> None:
        self._blocks: dict[Origin, Blocks] = {}
        self._count = 0

    @property
    def blocks(self) -> int:
        """Number of blocks, which is what the set takes in memory: about 300 bytes for each."""
        return self._count

    def add(self, origin: Origin, blocks: Blocks) -> None:
        """Add packs of one origin. Raises TooLarge if the set gets more than MAX_BLOCKS blocks."""
        mine = self._blocks.setdefault(origin, {})
        before = len(mine)
        for block, bits in blocks.items():
            mine[block] = mine.get(block, 0) | bits
        self._count += len(mine) - before
        if self._count > MAX_BLOCKS:
            raise TooLarge(
                f"Cannot hold the list of packs: it takes more than {MAX_BLOCKS} blocks of numbers, which no backup of"
                " Cinderblock needs. Find out who writes to the container."
            )

    def update(self, other: PackSet, *, without: Collection[str]) -> None:
        """Add the packs of another set, except those that some backups made. Raises TooLarge."""
        for origin, blocks in other._blocks.items():
            if origin.backup_id not in without:
                self.add(origin, blocks)

    def has(self, origin: Origin, number: int) -> bool:
        """Return whether the set contains the pack with this number of an origin."""
        bits = self._blocks.get(origin, {}).get(number >> _BLOCK_BITS, 0)
        return bool(bits >> (number & _IN_BLOCK) & 1)
