"""The packs of a volume: what all its manifests list, each pack once, in little memory.

A volume of 64 TiB has 2.8 million packs. The packs of one run of a mover are numbered from 0, so sizes and marks are
kept in blocks of adjacent numbers.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import Final, NamedTuple
from zlib import crc32

from cinderblock.api.layout import pack_prefix
from cinderblock.errors import TooLarge
from cinderblock.format.crypto.keyring import DataKey
from cinderblock.format.hashing import digest_of
from cinderblock.format.manifest.reader import PackList
from cinderblock.format.pack import Origin, pack_name

_BLOCK: Final = 64
"""Packs in one block. A backup with a single pack takes one block, of about 700 bytes."""
_EMPTY_BLOCK: Final = array("Q", bytes(8 * _BLOCK))
MAX_BLOCKS: Final = 1 << 17
"""Most blocks: eight million packs, or 131,072 backups with a few packs each. They take 90 MB."""
_MOST_SEEN: Final = 1 << 17
"""Most digests of runs that are known: 12 MB."""


class PackId(NamedTuple):
    """The place of a pack in a `VolumePacks`: the row of its group, and its number."""

    group: int
    number: int


class _Group(NamedTuple):
    """The packs of one origin with one key; None: they are not sealed. Manifests may disagree about the key."""

    origin: Origin
    data_key: DataKey | None


class PackMarks:
    """A set of packs of a `VolumePacks`, with one bit for each."""

    def __init__(self) -> None:
        self.count = 0
        self._blocks: dict[tuple[int, int], int] = {}

    def add(self, pack: PackId) -> None:
        """Add a pack."""
        block, place = divmod(pack.number, _BLOCK)
        before = self._blocks.get((pack.group, block), 0)
        after = before | 1 << place
        self._blocks[pack.group, block] = after
        self.count += after != before

    def has(self, pack: PackId) -> bool:
        """Return whether the set contains a pack."""
        block, place = divmod(pack.number, _BLOCK)
        return bool(self._blocks.get((pack.group, block), 0) >> place & 1)

    def packs(self) -> Iterator[PackId]:
        """Yield all packs."""
        for (group, block), bits in self._blocks.items():
            for place in range(_BLOCK):
                if bits >> place & 1:
                    yield PackId(group, block * _BLOCK + place)

    def groups(self) -> frozenset[int]:
        """Return the rows of the groups of all packs."""
        return frozenset(group for group, _ in self._blocks)


class VolumePacks:
    """The packs that manifests of a volume list. Only one thread may add packs.

    Manifests that disagree about the size or the key of a pack get rows of their own. So a damage of one row concerns
    only the manifests that list the pack like this.

    Args:
        prefix: of the store.
        volume_id: the volume.

    Attributes:
        count: number of packs.
    """

    def __init__(self, prefix: str, volume_id: str) -> None:
        self.count = 0
        self._prefix = prefix
        self._volume_id = volume_id
        self._groups: list[_Group] = []
        self._sizes: list[dict[int, array[int]]] = []
        self._rows: dict[tuple[Origin, bytes | None], list[int]] = {}
        self._rows_of: dict[Origin, list[int]] = {}
        self._seen: set[bytes] = set()
        self._blocks = 0

    def __len__(self) -> int:
        return self.count

    def add(self, packs: PackList) -> None:
        """Add the packs of a manifest. Raises TooLarge."""
        for origin, numbers, sizes in packs.packs.runs():
            data_key = packs.data_keys.get(origin.backup_id)
            key = None if data_key is None else data_key.reveal()
            # Most manifests list the same packs as their parents, and a digest takes a hundredth of the time.
            digest = digest_of(b"".join((repr(origin).encode(), key or b"", numbers.tobytes(), sizes.tobytes())))
            if digest in self._seen:
                continue
            self._add_run(_Group(origin, data_key), self._rows.setdefault((origin, key), []), numbers, sizes)
            if len(self._seen) >= _MOST_SEEN:
                self._seen.clear()
            self._seen.add(digest)

    def _add_run(self, group: _Group, rows: list[int], numbers: array[int], sizes: array[int]) -> None:
        for number, size in zip(numbers, sizes, strict=True):
            block, place = divmod(number, _BLOCK)
            for row in rows:
                known = self._sizes[row].get(block) or self._add_block(row, block)
                if not known[place]:
                    known[place] = size
                    self.count += 1
                if known[place] == size:
                    break
            else:
                row = self._add_group(group, rows)
                self._add_block(row, block)[place] = size
                self.count += 1

    def _add_group(self, group: _Group, rows: list[int]) -> int:
        row = len(self._groups)
        self._groups.append(group)
        self._sizes.append({})
        rows.append(row)
        self._rows_of.setdefault(group.origin, []).append(row)
        return row

    def _add_block(self, row: int, block: int) -> array[int]:
        self._blocks += 1
        if self._blocks > MAX_BLOCKS:
            raise TooLarge(
                f"Cannot verify volume {self._volume_id}: its manifests list more packs than any volume needs. Find out"
                " who writes to the container."
            )
        sizes = self._sizes[row][block] = _EMPTY_BLOCK[:]
        return sizes

    def packs(self) -> Iterator[PackId]:
        """Yield all packs."""
        for group, blocks in enumerate(self._sizes):
            for block, sizes in blocks.items():
                for place, size in enumerate(sizes):
                    if size:
                        yield PackId(group, block * _BLOCK + place)

    def packs_of_part(self, part: int, parts: int) -> Iterator[PackId]:
        """Yield the packs of a part, from 1 to ``parts``. The part of a pack depends only on its key.

        Prefix and volume are left out, so that a copy of a store has the same parts.
        """
        if parts == 1:
            yield from self.packs()
            return
        for group, row in enumerate(self._groups):
            start = crc32(f"{row.origin.backup_id}/".encode())
            for block, sizes in self._sizes[group].items():
                for place, size in enumerate(sizes):
                    number = block * _BLOCK + place
                    name = pack_name(row.origin.attempt, number).encode()
                    if size and crc32(name, start) % parts == part - 1:
                        yield PackId(group, number)

    def size(self, pack: PackId) -> int:
        """Return the bytes of a pack that the manifests list; 0: they do not list it."""
        block, place = divmod(pack.number, _BLOCK)
        sizes = self._sizes[pack.group].get(block)
        return sizes[place] if sizes else 0

    def data_key(self, pack: PackId) -> DataKey | None:
        """Return the data key that seals a pack; None: it is not sealed."""
        return self._groups[pack.group].data_key

    def origin(self, pack: PackId) -> Origin:
        """Return the backup and the attempt that made a pack."""
        return self._groups[pack.group].origin

    def name(self, pack: PackId) -> str:
        """Return the last part of the key of a pack."""
        return pack_name(self.origin(pack).attempt, pack.number)

    def key(self, pack: PackId, *, with_prefix: bool = True) -> str:
        """Return the key of a pack, with or without the prefix of the store."""
        prefix = self._prefix if with_prefix else ""
        return pack_prefix(prefix, self._volume_id, self.origin(pack).backup_id) + self.name(pack)

    def find(self, origin: Origin, number: int, size: int) -> Iterator[PackId]:
        """Yield the packs with this place and size, one for each key that manifests name."""
        for group in self._rows_of.get(origin, ()):
            pack = PackId(group, number)
            if self.size(pack) == size:
                yield pack

    def listed(self, packs: PackList, among: PackMarks) -> Iterator[PackId]:
        """Yield the packs of a set that a manifest lists."""
        groups = among.groups()
        for origin, numbers, sizes in packs.packs.runs():
            data_key = packs.data_keys.get(origin.backup_id)
            rows = self._rows.get((origin, None if data_key is None else data_key.reveal()), [])
            for group in groups.intersection(rows):
                for number, size in zip(numbers, sizes, strict=True):
                    pack = PackId(group, number)
                    if among.has(pack) and self.size(pack) == size:
                        yield pack
