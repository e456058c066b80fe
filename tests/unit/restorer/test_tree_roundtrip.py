"""A tree is the same after backup and restore."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from cinderblock.api.mover import VolumeMode
from cinderblock.archiver.source import open_source
from cinderblock.format.crypto.keyring import KeyRing
from cinderblock.format.manifest import reader as manifest_reader
from cinderblock.format.manifest import writer as manifest_writer
from cinderblock.format.manifest.writer import ManifestWriter
from cinderblock.restorer.target import open_target
from cinderblock.volume.capabilities import ProcessCapabilities
from cinderblock.volume.tree import walk
from tests.support.mover.backups import LATER, Backups, key_ring
from tests.support.mover.compare import compare_trees
from tests.support.mover.trees import edit_tree, make_tree

PRIVILEGED = os.geteuid() == 0
MIB = 1 << 20


def make_directory(path: Path) -> Path:
    path.mkdir()
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_directory(tmp_path / "source")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return make_directory(tmp_path / "target")


@pytest.mark.parametrize("keys", [None, key_ring()], ids=["unsealed", "sealed"])
def test_every_kind_of_entry_is_restored(source: Path, target: Path, keys: KeyRing | None) -> None:
    make_tree(str(source), seed=1, privileged=PRIVILEGED)
    backups = Backups(keys=keys)
    report = backups.back_up(source, "full")
    assert report.succeeded
    backups.restore("full", target)
    assert compare_trees(str(source), str(target), holes=True) == []


@pytest.mark.parametrize("seed", range(4))
def test_every_backup_of_a_chain_is_restored_completely(
    tmp_path: Path, source: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if seed % 2:
        # Many sections, of which some are reused whole, and rows of a walk that end anywhere in them.
        monkeypatch.setattr(manifest_writer, "SECTION_BYTES", 3000)
        monkeypatch.setattr(manifest_reader, "MIN_COPIED_SECTION_BYTES", 1000)
        monkeypatch.setattr(walk, "MAX_ROWS", 7)
    taken_over: list[int] = []
    take_over = ManifestWriter.reuse
    monkeypatch.setattr(ManifestWriter, "reuse", lambda self, run: (taken_over.append(run.rows), take_over(self, run)))
    make_tree(str(source), seed=seed, privileged=PRIVILEGED)
    backups = Backups(keys=key_ring())
    parent = None
    for generation in range(4):
        backup = f"g{generation}"
        backups.back_up(source, backup, parent, created_at=LATER, data_timestamp=LATER)
        target = make_directory(tmp_path / backup)
        backups.restore(backup, target)
        assert compare_trees(str(source), str(target), holes=True) == []
        assert backups.verify(backup).entries == backups.open(backup).summary.entries
        assert (sum(taken_over) > 100 * generation) or parent is None, "what has settled is not read"
        edit_tree(str(source), seed=seed * 10 + generation, edits=25)
        parent = backup


@pytest.mark.parametrize("size", [0, 1, 70_000, 3 * MIB])
def test_extended_attributes_are_restored_for_files_of_every_size(tmp_path: Path, source: Path, size: int) -> None:
    """A full backup reads attributes when it opens files, an incremental one during the walk."""
    file = source / "file"
    file.write_bytes(os.urandom(size))
    os.link(file, source / "link")
    os.setxattr(file, "user.first", b"1")
    backups = Backups(keys=key_ring())
    backups.back_up(source, "full")
    os.setxattr(file, "user.second", b"2")
    backups.back_up(source, "incremental", "full")
    expected = {"full": {"user.first": b"1"}, "incremental": {"user.first": b"1", "user.second": b"2"}}
    for backup, attributes in expected.items():
        restored = make_directory(tmp_path / backup) / "file"
        backups.restore(backup, restored.parent)
        assert {name: os.getxattr(restored, name) for name in os.listxattr(restored)} == attributes


def test_in_place_restore_gives_exactly_the_backup(source: Path, target: Path) -> None:
    make_tree(str(source), seed=3, privileged=PRIVILEGED)
    backups = Backups(keys=key_ring())
    backups.back_up(source, "full")
    backups.restore("full", target)
    edit_tree(str(target), seed=8, edits=40)
    (target / "not in the backup").mkdir()
    (target / "not in the backup" / "file").write_bytes(b"x")
    backups.restore("full", target)
    assert compare_trees(str(source), str(target)) == []


def test_in_place_restore_of_an_equal_tree_fetches_and_writes_nothing(source: Path, target: Path) -> None:
    make_tree(str(source), seed=3, privileged=PRIVILEGED)
    (source / "large").write_bytes(os.urandom(3 * MIB + 5))
    backups = Backups()
    backups.back_up(source, "full")
    backups.restore("full", target)
    first_chunk = max(extent.chunk.stored for entry in backups.open("full").entries() for extent in entry.extents)
    assert backups.restore("full", target).transferred_bytes <= first_chunk


def test_unsupported_metadata_is_reported_before_the_work(
    source: Path, target: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    unprivileged = ProcessCapabilities(uid=1000, capabilities=frozenset(), is_confined=False)
    monkeypatch.setattr(ProcessCapabilities, "of_this_process", lambda: unprivileged)
    with open_source(VolumeMode.FILESYSTEM, str(source)) as volume:
        (warning,) = volume.warnings()
        assert caplog.messages == [f"Cannot keep all metadata: {warning}"]
    caplog.clear()
    with open_target(VolumeMode.FILESYSTEM, str(target)) as volume:
        assert caplog.messages == [f"Cannot keep all metadata: {sentence}" for sentence in volume.warnings()]
        assert len(caplog.messages) > 3


def test_empty_tree_is_restored(source: Path, target: Path) -> None:
    backups = Backups()
    report = backups.back_up(source, "full")
    assert report.object_count == 0
    (target / "extra").write_bytes(b"x")
    backups.restore("full", target)
    assert os.listdir(target) == []


def test_restored_file_is_as_sparse_as_it_was(source: Path, target: Path) -> None:
    with open(source / "sparse", "wb") as file:
        for mib in range(0, 40, 2):
            file.seek(mib * MIB + 65536)
            file.write(b"x" * 4096)
        file.truncate(64 * MIB)
    with open(source / "zeros", "wb") as file:
        file.write(bytes(2 * MIB) + b"end" + bytes(5 * MIB))
    backups = Backups()
    report = backups.back_up(source, "full")
    assert report.logical_bytes < MIB
    backups.restore("full", target)
    assert compare_trees(str(source), str(target), holes=True) == []
    assert (target / "zeros").stat().st_blocks * 512 <= 128 << 10


def test_data_that_became_a_hole_is_a_hole_after_an_incremental(source: Path, target: Path) -> None:
    path = source / "file"
    path.write_bytes(os.urandom(4 * MIB))
    backups = Backups()
    backups.back_up(source, "one")
    backups.restore("one", target)
    with open(path, "r+b") as file:
        file.seek(MIB)
        file.write(bytes(MIB))
    backups.back_up(source, "two", "one")
    backups.restore("two", target)
    assert (target / "file").read_bytes() == path.read_bytes()
    assert (target / "file").stat().st_blocks * 512 <= 3 * MIB + 4096


def test_file_of_a_terabyte_with_little_data_takes_no_time(source: Path, target: Path) -> None:
    with open(source / "huge", "wb") as file:
        file.write(b"beginning")
        file.seek(1 << 39)
        file.write(b"middle")
        file.truncate(1 << 40)
    backups = Backups()
    assert backups.back_up(source, "full").logical_bytes <= 2 * 4096
    backups.restore("full", target)
    assert compare_trees(str(source), str(target), holes=True) == []


def test_many_files_are_restored_with_few_descriptors(
    source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(600):
        (source / f"{number:04}").write_bytes(b"%d" % number * 50)
    backups = Backups()
    backups.back_up(source, "full")
    now = len(os.listdir("/proc/self/fd"))
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (100, 100))
    resource.setrlimit(resource.RLIMIT_NOFILE, (now + 100, before[1]))
    monkeypatch.setattr(resource, "setrlimit", lambda *_: None)
    try:
        backups.restore("full", target)
    finally:
        monkeypatch.undo()
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert compare_trees(str(source), str(target)) == []
