"""Memory, requests and concurrency stay within what the docstrings promise."""

from __future__ import annotations

import random
import threading
import tracemalloc
from collections.abc import Iterable, Iterator

import pytest
from typing_extensions import override

from cinderblock.api.mover import VolumeMode
from cinderblock.archiver import archiver
from cinderblock.archiver.source import OpenedFile
from cinderblock.format.entries import ByteRange, Entry, EntryKind
from cinderblock.format.manifest.reader import ManifestReader
from cinderblock.format.pack import buffer_bytes
from cinderblock.format.range_reader import Buffer
from cinderblock.repository.pack_uploader import UPLOADS
from cinderblock.restorer import pipeline as restore_pipeline
from cinderblock.store.base import ObjectInfo, ObjectLock
from cinderblock.store.counted import CountedStore
from cinderblock.store.memory import MemoryStore
from cinderblock.volume.tree.reader import ParentRows
from tests.support.mover.backups import Backups, key_ring
from tests.support.mover.volumes_in_memory import FileInMemory, MemoryContent, MemorySource

MIB = 1 << 20
MEMORY_OF_A_MOVER = 256 * MIB
LEAN_PROCESS = 70 * MIB
"""Memory of Python with boto3, pydantic and all other modules."""


@pytest.mark.parametrize("chunk_bytes", [MIB, 2 * MIB, 4 * MIB])
def test_bytes_in_flight_fit_into_the_memory_of_a_mover(chunk_bytes: int) -> None:
    assert archiver.bytes_in_flight(chunk_bytes) + LEAN_PROCESS < MEMORY_OF_A_MOVER
    assert restore_pipeline.bytes_in_flight(chunk_bytes) + LEAN_PROCESS < MEMORY_OF_A_MOVER


class ForgetfulStore(MemoryStore):
    """Keep manifests, and only the sizes of packs. Uploads of packs wait for each other, as on a slow network."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[str, int] = {}
        self.most_at_once = 0
        self._now = 0
        self._slow = threading.Lock()
        self._count = threading.Lock()

    @override
    def put(self, key: str, body: Buffer, lock: ObjectLock | None = None) -> None:
        if "/packs/" not in key:
            super().put(key, body, lock)
            return
        with self._count:
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        with self._slow:
            self.sizes[key] = memoryview(body).nbytes
        with self._count:
            self._now -= 1

    @override
    def delete(self, keys: Iterable[str]) -> None:
        given = list(keys)
        super().delete(given)
        for key in given:
            self.sizes.pop(key, None)

    @override
    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        yield from (ObjectInfo(key, size) for key, size in sorted(self.sizes.items()) if key.startswith(prefix))
        yield from super().list(prefix)


class EndlessContent(MemoryContent):
    """A device full of data that is generated when it is read."""

    @override
    def data_ranges(self) -> Iterator[ByteRange]:
        yield ByteRange(0, self.size)

    @override
    def read_into(self, offset: int, buffer: memoryview) -> int:
        block = random.Random(offset).randbytes(len(buffer))
        buffer[:] = block
        return len(buffer)


class EndlessDevice(MemorySource):
    @override
    def open(self, entry: Entry) -> OpenedFile:
        opened = super().open(entry)
        opened.content.close()
        return opened._replace(content=EndlessContent(self, FileInMemory(entry), is_stable=True))


def test_backup_holds_no_more_than_it_says() -> None:
    device, store = EndlessDevice(), ForgetfulStore()
    device.make_device(400 * MIB)
    tracemalloc.start()
    try:
        Backups(store, key_ring()).back_up(device, "one", mode=VolumeMode.BLOCK)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert store.most_at_once <= UPLOADS
    # Each of the workers makes a block of data here, which a real device would not.
    assert peak <= archiver.bytes_in_flight(MIB) + 8 * MIB
    assert peak >= (UPLOADS // 2) * buffer_bytes(MIB)


@pytest.mark.parametrize("mebibytes", [512, 1024])
def test_requests_per_stored_gibibyte_are_at_most_seventy(mebibytes: int) -> None:
    device, counted = EndlessDevice(), CountedStore(ForgetfulStore())
    device.make_device(mebibytes * MIB)
    report = Backups(counted, key_ring()).back_up(device, "one", mode=VolumeMode.BLOCK)
    counts = counted.counts
    gibibytes = report.stored_bytes / (1 << 30)
    assert gibibytes > mebibytes / 1024
    assert counts.puts + counts.gets + counts.lists + counts.deletes <= 70 * gibibytes
    sizes = [info.size for info in counted.list("") if "/packs/" in info.key]
    assert all(16 * MIB <= size <= 64 * MIB for size in sizes[:-1])


class ManyEntries(MemorySource):
    """A tree of empty files in many directories, generated during the walk."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    @override
    def entries(self, before: ParentRows | None = None, *, opens_all: bool = False) -> Iterator[Entry | None]:
        yield self.files[b""].entry
        for number in range(self.count):
            directory = b"directory-%05d" % (number // 1000)
            if number % 1000 == 0:
                yield Entry(directory, EntryKind.DIRECTORY, mode=0o755, ctime_ns=1, inode=number)
            yield Entry(
                directory + b"/file-%07d.txt" % number, EntryKind.FILE, ctime_ns=number, mtime_ns=number, inode=number
            )


def test_memory_of_a_tree_grows_with_its_manifest_alone() -> None:
    # Tracing makes this backup eight times as slow: 4 s for 20,000 entries, which need 25 MiB.
    count = 20_000
    volume, backups = ManyEntries(count), Backups(keys=key_ring())
    backups.back_up(volume, "one")
    size = backups.open("one").summary.manifest_bytes
    tracemalloc.start()
    try:
        backups.back_up(volume, "two", "one")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # One copy of the manifest in the making, one that the store in memory keeps, and some sections.
    assert peak <= 3 * size + 32 * MIB
    assert size <= 10 * count


def test_entries_are_read_in_little_memory() -> None:
    backups = Backups(keys=key_ring())
    backups.back_up(ManyEntries(60_000), "one")
    reader: ManifestReader = backups.open("one")
    tracemalloc.start()
    try:
        assert sum(1 for _ in reader.entries()) == 60_061
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 30 * MIB
