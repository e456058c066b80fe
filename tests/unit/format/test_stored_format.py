"""Tests that stored data matches docs/reference/format.md, and that data of earlier versions can be read.

`tests.support.store.format_reader` is written from that page alone. If it agrees with the program, the page is right.
"""

from __future__ import annotations

import base64
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from cinderblock import __version__
from cinderblock.api.meta import Model
from cinderblock.api.mover import BackupMetadata, MoverOperation, VolumeMode
from cinderblock.api.origin import ClaimFacts, ClusterFacts, Consistency, DriverFacts
from cinderblock.archiver.archiver import run_backup
from cinderblock.format.crypto.keyring import KeyRing
from cinderblock.repository.chunk_reader import ChunkReader
from cinderblock.store.base import ObjectStore
from cinderblock.store.counted import CountedStore
from tests.support.mover.backups import KEYS, PREFIX, VOLUME, Backups, key_ring
from tests.support.mover.volumes_in_memory import MemorySource
from tests.support.store.format_reader import FormatReader, read_index
from tests.support.store.golden import (
    DESCRIPTION,
    GENERATIONS,
    UNFINISHED,
    describe_all,
    load,
    make_child,
    make_device,
    make_generation,
    make_tree,
    shown,
)

GOLDEN = Path(__file__).parents[2] / "data" / "format"
CHAIN = GOLDEN / "v1" / "chain"
CASES = sorted(path.parent for path in GOLDEN.glob("*/*/expected.json"))


def encoded(*values: bytes) -> list[str]:
    return [base64.b64encode(value).decode() for value in values]


def read_by_page(store: ObjectStore, backup: str) -> list[dict[str, Any]]:
    """Return the entries found by a reader that was written from the page alone."""
    entries = FormatReader(store.get, f"{PREFIX}/", KEYS).entries(Backups().manifest_key(backup))
    return [
        {
            "path": encoded(entry.path)[0],
            "kind": entry.kind,
            "mode": entry.mode,
            "owner": list(entry.owner),
            "mtimeNs": entry.mtime_ns,
            "ctimeNs": entry.ctime_ns,
            "inode": entry.inode,
            "size": entry.size,
            "target": encoded(entry.target)[0],
            "rdev": entry.rdev,
            "xattrs": [list(map(shown, pair)) for pair in entry.xattrs],
            "blake3": blake3(entry.content).hexdigest(),
        }
        for entry in entries
    ]


def read_by_program(store: ObjectStore, backup: str, keys: KeyRing | None) -> list[dict[str, Any]]:
    """Return the entries found by the program."""
    reader = Backups(store, keys).open(backup)
    fetcher = ChunkReader(store, PREFIX, reader)
    found: list[dict[str, Any]] = []
    content = bytearray()
    for entry in reader.entries():
        is_part = bool(found) and found[-1]["path"] == encoded(entry.path)[0]
        if is_part:
            found.pop()
        else:
            content = bytearray(entry.size)
        for chunk, plaintext in fetcher.fetch({extent.chunk for extent in entry.extents}):
            for extent in entry.extents:
                if extent.chunk == chunk:
                    run = memoryview(plaintext)[extent.chunk_offset : extent.chunk_offset + extent.length]
                    content[extent.offset : extent.offset + extent.length] = run
        found.append(
            {
                "path": encoded(entry.path)[0],
                "kind": int(entry.kind),
                "mode": entry.mode,
                "owner": [entry.uid, entry.gid],
                "mtimeNs": entry.mtime_ns,
                "ctimeNs": entry.ctime_ns,
                "inode": entry.inode,
                "size": entry.size,
                "target": encoded(entry.target)[0],
                "rdev": entry.rdev,
                "xattrs": [list(map(shown, pair)) for pair in entry.xattrs],
                "blake3": blake3(content).hexdigest(),
            }
        )
    return found


def test_stored_backups_of_the_first_version_exist() -> None:
    assert [f"{case.parent.name}/{case.name}" for case in CASES] == ["v1/chain", "v1/sealed", "v1/unsealed"]


@pytest.mark.parametrize(
    ("case", "backup"),
    [
        pytest.param(case, backup, id=f"{case.parent.name}-{case.name}-{backup}")
        for case in CASES
        for backup in (GENERATIONS if case.name == "chain" else ("tree", "child", "device"))
    ],
)
def test_stored_backup_reads_as_it_was_made(case: Path, backup: str) -> None:
    store, expected = load(case)
    keys = None if case.name == "unsealed" else key_ring()
    assert read_by_program(store, backup, keys) == expected[backup]
    assert read_by_page(store, backup) == expected[backup]
    backups = Backups(store, keys)
    backups.pins[backup] = backups.open(backup).summary.pins
    backups.verify(backup)


def test_stored_chain_covers_the_difficult_cases() -> None:
    """Three origins, keys in the footer, a file in parts that lie in several sections, a header that was replaced."""
    store, _ = load(CHAIN)
    reader = Backups(store, key_ring()).open("third")
    assert {reader.packs.origin(pack).backup_id for pack in range(len(reader.packs))} == set(GENERATIONS)
    assert set(reader.data_keys()) == {"second", "third"}
    assert sum(b"many extents" in content.stats().paths for content in reader.contents()) > 1
    assert Backups(store, key_ring("2025")).open("second").header.key_id == "2025"


def test_stored_summary_is_parsed_word_for_word() -> None:
    store, _ = load(CHAIN)
    for backup in GENERATIONS:
        words = DESCRIPTION | {"backupId": backup}
        reader = FormatReader(store.get, f"{PREFIX}/", KEYS)
        reader.entries(Backups().manifest_key(backup))
        assert reader.summary["description"] == words
        assert Backups(store, key_ring()).open(backup).summary.description.to_wire() == words


def test_stored_unfinished_backup_is_read_and_completed() -> None:
    store, _ = load(CHAIN)
    backups, volume = Backups(store, key_ring()), make_generation(3)
    key, *packs = sorted(backups.pack_keys(UNFINISHED), reverse=True)
    assert key.endswith("/data-key")
    names = [pack.rpartition("/")[2] for pack in packs]
    found = FormatReader(store.get, f"{PREFIX}/", KEYS).unfinished(VOLUME, UNFINISHED, names)
    assert [len(found[name]) for name in names] == [1]
    counted = CountedStore(store)
    Backups(counted, key_ring()).back_up(volume, UNFINISHED)
    assert counted.counts.puts == 1
    assert backups.pack_keys(UNFINISHED) == packs
    assert read_by_page(store, UNFINISHED) == describe_all(volume)


@pytest.mark.parametrize("keys", [None, key_ring()], ids=["unsealed", "sealed"])
def test_pack_index_matches_the_page(keys: KeyRing | None) -> None:
    backups = Backups(keys=keys)
    backups.back_up(make_tree(), "tree")
    (pack,) = backups.pack_keys("tree")
    secret = {backup: key.reveal() for backup, key in backups.open("tree").data_keys().items()}.get("tree")
    found = read_index(backups.store.get(pack), secret, VOLUME, "tree", pack.rpartition("/")[2])
    assert set(found) == {(chunk.digest, chunk.size) for chunk in backups.open("tree").chunks()}


@pytest.mark.parametrize(
    "case", [case for case in CASES if case != CHAIN], ids=lambda case: f"{case.parent.name}-{case.name}"
)
def test_stored_backup_can_be_continued(case: Path) -> None:
    store, _ = load(case)
    backups = Backups(store, None if case.name == "unsealed" else key_ring())
    volume = make_child()
    report = backups.back_up(volume, "grandchild", "child")
    assert report.transferred_bytes == 0
    assert read_by_page(store, "grandchild") == describe_all(volume)


@pytest.mark.parametrize("keys", [None, key_ring()], ids=["unsealed", "sealed"])
def test_new_backup_reads_by_the_page(keys: KeyRing | None) -> None:
    backups = Backups(keys=keys)
    backups.back_up(make_tree(), "tree")
    backups.back_up(make_child(), "child", "tree")
    backups.back_up(make_device(), "device", mode=VolumeMode.BLOCK)
    assert read_by_page(backups.store, "tree") == describe_all(make_tree())
    assert read_by_page(backups.store, "child") == describe_all(make_child())
    assert read_by_page(backups.store, "device") == describe_all(make_device())


def test_summary_counts_as_the_page_says() -> None:
    backups = Backups(keys=key_ring())
    backups.back_up(make_tree(), "tree")
    backups.back_up(make_child(), "child", "tree")
    reader = FormatReader(backups.store.get, f"{PREFIX}/", KEYS)
    entries = reader.entries(backups.manifest_key("child"))
    counts = reader.summary["counts"]
    assert counts["entries"] == len(entries)
    assert counts["objectCount"] == len(backups.pack_keys("child")) == 1
    assert counts["packBytes"] == sum(len(backups.store.get(key)) for key in backups.pack_keys("child"))
    assert counts["transferredBytes"] == len(b"changed") + len(b"added")
    assert reader.summary["dataKeys"].keys() == {"tree"}


contents = st.one_of(
    st.just(b""),
    st.binary(max_size=200),
    st.tuples(st.binary(min_size=1, max_size=50), st.integers(1, 60_000)).map(lambda pair: pair[0] * pair[1]),
    st.integers(0, 300_000).map(bytes),
)
names = st.binary(min_size=1, max_size=12).filter(lambda name: b"/" not in name and b"\0" not in name)
files = st.dictionaries(names, st.tuples(contents, st.integers(0, 2 << 20)), max_size=12)


@settings(max_examples=40)
@given(first=files, second=files, is_sealed=st.booleans())
def test_any_tree_and_its_incremental_read_by_the_page(
    first: dict[bytes, tuple[bytes, int]], second: dict[bytes, tuple[bytes, int]], is_sealed: bool
) -> None:
    backups = Backups(keys=key_ring() if is_sealed else None)
    for backup, parent, tree in (("one", None, first), ("two", "one", first | second)):
        volume = MemorySource()
        for name, (content, offset) in tree.items():
            volume.add(name, (offset, content), size=offset + len(content), stamp=1 if name in first else 5)
        backups.back_up(volume, backup, parent)
        if not parent or not (first.keys() & second.keys()):
            assert read_by_page(backups.store, backup) == describe_all(volume)


FACTS = {
    "claim": ClaimFacts(
        labels={"app": "web"},
        annotations={"example.org/note": "one\ntwo"},
        left_out=["example.org/novel"],
        requested_size="1Gi",
        volume_attributes_class="gold",
        stateful_set="web",
        ordinal=3,
    ),
    "driver": DriverFacts(name="csi.example.org", volume_handle="vol-1", fs_type="xfs"),
    "cluster": ClusterFacts(uid="k-1", release="cinderblock"),
    "consistency": Consistency.SNAPSHOT,
}


def test_disaster_recovery_data_is_where_the_page_says() -> None:
    backups = Backups()
    task = backups.task(MoverOperation.BACKUP, "b-1")
    task = task.model_copy(update={"backup": task.backup.model_copy(update=FACTS)})
    volume = MemorySource()
    volume.add(b"file", (0, b"content"))
    run_backup(task, backups.store, None, opener=lambda mode, path: nullcontext(volume))
    reader = FormatReader(backups.store.get, f"{PREFIX}/", KEYS)
    assert bytes(reader.entries(backups.manifest_key("b-1"))[1].content) == b"content"
    description = reader.summary["description"]
    assert description["claim"] == {
        "labels": {"app": "web"},
        "annotations": {"example.org/note": "one\ntwo"},
        "leftOut": ["example.org/novel"],
        "requestedSize": "1Gi",
        "volumeAttributesClass": "gold",
        "statefulSet": "web",
        "ordinal": 3,
    }
    assert description["driver"] == {"name": "csi.example.org", "volumeHandle": "vol-1", "fsType": "xfs"}
    assert description["cluster"] == {"uid": "k-1", "release": "cinderblock"}
    assert (description["consistency"], description["writtenBy"]) == ("snapshot", __version__)
    read = backups.open("b-1").summary.description
    assert read.model_dump(include=set(FACTS)) == task.backup.model_dump(include=set(FACTS))


def test_unknown_field_of_a_later_version_is_ignored() -> None:
    later = {"consistency": "application", "claim": {"labels": {}, "namespaceLabels": {"a": "b"}}, "schedule": {"a": 1}}
    wire = Backups().task(MoverOperation.BACKUP, "b-1").backup.to_wire()
    assert BackupMetadata.model_validate(wire | later).consistency == "application"


@pytest.mark.parametrize("model", [BackupMetadata, ClaimFacts, DriverFacts, ClusterFacts])
def test_page_names_every_field(model: type[Model]) -> None:
    page = (Path(__file__).parents[3] / "docs/reference/format.md").read_text()
    fields = {field.alias or name for name, field in model.model_fields.items()}
    assert {name for name in fields if f"`{name}`" not in page} == set()
