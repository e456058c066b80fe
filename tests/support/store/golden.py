"""Stored backups that every later version must be able to read, and their expected content.

    python -m tests.support.store.golden tests/data/format/v1

writes them again, which is only right for a format version that is not released. ``expected.json`` is made from the
volumes, not by a reader of stored backups.
"""

from __future__ import annotations

import base64
import json
import random
import sys
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from blake3 import blake3

from cinderblock.api.mover import BackupMetadata, MoverOperation, VolumeMode
from cinderblock.archiver.archiver import run_backup
from cinderblock.format.entries import EntryKind, order_key
from cinderblock.repository.rewrap import run_rewrap
from cinderblock.store.memory import MemoryStore
from tests.support.mover.backups import VOLUME, Backups, key_ring
from tests.support.mover.volumes_in_memory import FileInMemory, MemorySource
from tests.support.store.faults import Crash, FaultyStore

MIB = 1 << 20
GENERATIONS = ("first", "second", "third")
UNFINISHED = "unfinished"
DESCRIPTION = {
    "backupId": "",
    "backupName": "files-1",
    "namespace": "demo",
    "volumeId": VOLUME,
    "volumeName": "files",
    "volumeMode": "Filesystem",
    "volumeBytes": 1 << 30,
    "storageClass": "fast",
    "accessModes": ["ReadWriteOnce"],
    "displayName": "Größe",
    "description": "two\nlines",
    "metadata": {"key": "value"},
    "createdAt": "2026-01-02T12:00:00Z",
    "dataTimestamp": "2026-01-02T11:59:58.500000Z",
    "incremental": True,
}
"""Metadata of volume and request that the manifest must keep unchanged."""
XATTRS = ((b"user.empty", b""), (b"user.name", b"value\0with NUL"))


def make_tree() -> MemorySource:
    """Return a tree with every kind of entry, names that are not UTF-8, a sparse file, equal content, and distant
    timestamps."""
    rnd, source = random.Random(1), MemorySource()
    source.add(b"a-directory", kind=EntryKind.DIRECTORY)
    source.add(b"a-directory/\xff\xfe name", (0, b"content of a file whose name is no UTF-8"))
    source.add(b"a-directory.txt", (0, b"sorted behind the directory's content"))
    source.add(b"empty")
    source.add(b"fifo", kind=EntryKind.FIFO)
    source.add(b"hard link", kind=EntryKind.HARDLINK, target=b"a-directory.txt")
    source.add(b"large", (0, rnd.randbytes(30_000) * 40))
    source.add(b"null", kind=EntryKind.CHARACTER_DEVICE)
    source.add(b"loop", kind=EntryKind.BLOCK_DEVICE)
    source.add(b"random", (0, rnd.randbytes(20_000)))
    source.add(b"sparse", (3 * MIB, b"in the middle"), (5 * MIB - 5, b"at the end"), size=9 * MIB + 1)
    source.add(b"symbolic link", kind=EntryKind.SYMLINK, target=b"../no\xffwhere")
    source.add(b"the same", (0, rnd.randbytes(30_000) * 40))
    for number in range(30):
        source.add(b"several/%02d" % number, (0, b"%d" % number * 300))
    source.add(b"several", kind=EntryKind.DIRECTORY)
    change(source, b"null", rdev=0x103)
    change(source, b"loop", rdev=0x700)
    change(source, b"empty", xattrs=XATTRS, mode=0o4711, uid=2**32 - 2, gid=12345)
    change(source, b"random", mtime_ns=-1, ctime_ns=13_569_465_600_000_000_001)
    return source


def make_child() -> MemorySource:
    """Return the tree with changes."""
    source = make_tree()
    del source.files[b"random"]
    source.add(b"several/07", (0, b"changed"), stamp=9)
    source.add(b"several/new", (0, b"added"), stamp=9)
    return source


def make_device() -> MemorySource:
    """Return a device of an odd size."""
    source = MemorySource()
    source.make_device(4 * MIB + 321, (0, b"boot" * 1000), (2 * MIB - 7, random.Random(2).randbytes(5000)))
    return source


def make_generation(generation: int) -> MemorySource:
    """Return one of three generations, of which the last needs packs of three backups.

    A fourth generation can be added. A file has more extents than fit into a part, and an attribute so large that the
    next part is in another section.
    """
    source = MemorySource()
    for number in range(3):
        stamp = 1 + min(generation, number)
        source.add(b"of generation %d" % number, (0, b"%d" % min(generation, number) * 3000), stamp=stamp)
    if generation == len(GENERATIONS):
        return source
    source.add(b"many extents", *((number << 12, b"an extent") for number in range(5000)), size=20 << 20)
    change(source, b"many extents", xattrs=(*XATTRS, (b"user.large", bytes(700_000))))
    return source


def change(source: MemorySource, path: bytes, **fields: Any) -> None:
    """Return an entry with other fields."""
    source.files[path].entry = source.files[path].entry._replace(**fields)


def shown(value: bytes) -> str:
    """Return a value in base64, or the BLAKE3 of a long value."""
    return base64.b64encode(value).decode() if len(value) < 4096 else f"BLAKE3 {blake3(value).hexdigest()}"


def describe(file: FileInMemory) -> dict[str, Any]:
    """Return what a reader must find of an entry."""
    entry, content = file.entry, bytearray(file.entry.size)
    for offset, data in file.segments:
        content[offset : offset + len(data)] = data
    return {
        "path": base64.b64encode(entry.path).decode(),
        "kind": int(entry.kind),
        "mode": entry.mode,
        "owner": [entry.uid, entry.gid],
        "mtimeNs": entry.mtime_ns,
        "ctimeNs": entry.ctime_ns,
        "inode": entry.inode,
        "size": entry.size,
        "target": base64.b64encode(entry.target).decode(),
        "rdev": entry.rdev,
        "xattrs": [[shown(part) for part in pair] for pair in entry.xattrs],
        "blake3": blake3(content).hexdigest(),
    }


def describe_all(source: MemorySource) -> list[dict[str, Any]]:
    """Return the entries that a reader must find, in order."""
    return [describe(source.files[path]) for path in sorted(source.files, key=order_key)]


def write(directory: Path) -> None:
    """Make the stored backups of this version."""
    for case, keys in (("sealed", key_ring()), ("unsealed", None)):
        memory = MemoryStore()
        backups = Backups(memory, keys)
        volumes = {"tree": make_tree(), "child": make_child(), "device": make_device()}
        backups.back_up(volumes["tree"], "tree")
        backups.back_up(volumes["child"], "child", "tree")
        backups.back_up(volumes["device"], "device", mode=VolumeMode.BLOCK)
        _save(memory, directory / case, {name: describe_all(volume) for name, volume in volumes.items()})
    write_chain(directory / "chain")


def write_chain(directory: Path) -> None:
    """Make a chain of backups: the first is not sealed, the second is rewrapped, and one is unfinished."""
    memory = MemoryStore()
    volumes = {name: make_generation(number) for number, name in enumerate(GENERATIONS)}
    rings = (None, key_ring("2024"), key_ring())
    for number, (name, keys) in enumerate(zip(GENERATIONS, rings, strict=True)):
        backups = Backups(memory, keys)
        parent = GENERATIONS[number - 1] if number else None
        task = backups.task(MoverOperation.BACKUP, name, parent=parent)
        task = task.model_copy(update={"backup": BackupMetadata.model_validate(DESCRIPTION | {"backupId": name})})
        run_backup(task, memory, keys, opener=lambda mode, path, volume=volumes[name]: nullcontext(volume))
    run_rewrap(memory, Backups().manifest_key("second"), Backups().expected("second"), key_ring())
    faulty = FaultyStore(memory)
    faulty.on("list").crashes().after(1)
    with suppress(Crash):
        Backups(faulty, key_ring()).back_up(make_generation(3), UNFINISHED)
    _save(memory, directory, {name: describe_all(volume) for name, volume in volumes.items()})


def _save(memory: MemoryStore, directory: Path, expected: dict[str, Any]) -> None:
    for info in memory.list(""):
        path = directory / info.key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(memory.get(info.key))
    (directory / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


def load(directory: Path) -> tuple[MemoryStore, dict[str, list[dict[str, Any]]]]:
    """Return the objects of a case, and their expected content."""
    memory = MemoryStore()
    for path in sorted(directory.rglob("*")):
        if path.is_file() and path.name != "expected.json":
            memory.put(str(path.relative_to(directory)), path.read_bytes())
    return memory, json.loads((directory / "expected.json").read_text())


if __name__ == "__main__":
    write(Path(sys.argv[1]))
