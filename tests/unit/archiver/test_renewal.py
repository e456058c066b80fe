"""Incremental backups take over what is left in little used packs, and remain complete whatever expires."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cinderblock.api.file_policies import Unreadable
from cinderblock.api.mover import MoverReport, VolumeMode
from cinderblock.archiver import pipeline
from cinderblock.archiver.renewal import MOST_RENEWED
from cinderblock.errors import SourceError
from cinderblock.format.entries import EntryKind
from cinderblock.format.manifest import writer as manifest_writer
from cinderblock.store.memory import MemoryStore
from tests.support.mover.backups import KEYS, PREFIX, VOLUME, Backups, key_ring
from tests.support.mover.expiry import expire
from tests.support.mover.verifications import small_units
from tests.support.mover.volumes_in_memory import MemorySource
from tests.support.store.faults import Crash, FaultyStore
from tests.support.store.format_reader import FormatReader
from tests.support.store.golden import describe_all
from tests.unit.format.test_stored_format import read_by_page

KIB = 1 << 10
CHUNK = 16 * KIB
PACK = 8 * CHUNK
Content = dict[bytes, bytes]


@pytest.fixture(autouse=True)
def _small_units() -> Iterator[None]:
    """Make chunks of 16 KiB, packs of eight chunks, and sections of a few entries that are copied whole."""
    with small_units(PACK):
        yield


class Chain:
    """A volume and its backups, each of which builds on the one before.

    Attributes:
        backups: makes and reads them.
        volume: the volume in memory.
        held: the entries that each backup must have.
    """

    def __init__(self, *, sealed: bool = False, is_device: bool = False) -> None:
        self.backups = Backups(MemoryStore(), key_ring() if sealed else None)
        self.volume = MemorySource()
        self.mode = VolumeMode.BLOCK if is_device else VolumeMode.FILESYSTEM
        self.held: dict[str, list[object]] = {}
        self.stamp = 1

    def write(self, path: bytes, *sizes: int, size: int | None = None) -> None:
        """Write a file of new content: one range of data for each size, a chunk apart."""
        self.stamp += 1
        seed = f"{path!r} {self.stamp}"
        ranges = [(at * CHUNK, random.Random(f"{seed} {at}").randbytes(count)) for at, count in enumerate(sizes)]
        self.volume.add(path, *ranges, stamp=self.stamp, size=size)

    def add(self, backup: str, **more: object) -> MoverReport:
        """Make a backup on the newest one."""
        report = self.backups.back_up(self.volume, backup, next(reversed(self.held), None), self.mode, **more)
        self.held[backup] = [*describe_all(self.volume)]
        return report

    def expire(self, *backups: str) -> None:
        """Remove backups, and the packs that only they need."""
        expire(self.backups.store, PREFIX, VOLUME, backups, self.backups.keys)
        for backup in backups:
            del self.held[backup]

    def check(self) -> None:
        """Check that every backup has what the volume had, according to an independent reader."""
        for backup, held in self.held.items():
            assert read_by_page(self.backups.store, backup) == held

    def stored_bytes(self) -> int:
        """Return the bytes of all packs."""
        return sum(info.size for info in self.backups.store.list(f"{PREFIX}/packs/"))


def half_changed(*, sealed: bool = False) -> Chain:
    """Return a chain in which little of the first backup's packs is in use, and the first backup is gone."""
    chain = Chain(sealed=sealed)
    for number in range(40):
        chain.write(b"small/%02d" % number, 4 * KIB)
    chain.write(b"large", *[CHUNK] * 10)
    chain.add("b-0")
    for number in range(40):
        if number % 4:
            chain.write(b"small/%02d" % number, 4 * KIB)
    chain.write(b"large", *[CHUNK] * 10)
    chain.add("b-1")
    chain.expire("b-0")
    return chain


def owners(chain: Chain, backup: str) -> set[str]:
    """Return the backups whose packs a backup needs."""
    return {origin.backup_id for origin in chain.backups.open(backup).packs.origins}


@pytest.mark.parametrize("sealed", [True, False])
def test_little_used_packs_of_an_expired_backup_fall_out(*, sealed: bool) -> None:
    chain = half_changed(sealed=sealed)
    assert owners(chain, "b-1") == {"b-0", "b-1"}
    before = chain.stored_bytes()
    report = chain.add("b-2")
    assert owners(chain, "b-2") == {"b-1", "b-2"}
    assert report.renewed_bytes == report.transferred_bytes == 10 * 4 * KIB
    chain.expire("b-1")
    assert chain.stored_bytes() < before
    chain.check()


def test_packs_of_backups_that_exist_are_not_renewed() -> None:
    chain = half_changed()
    chain.backups.store.put(chain.backups.manifest_key("b-0"), b"exists")
    assert chain.add("b-2").renewed_bytes == 0


def test_threshold_zero_changes_nothing() -> None:
    chain = half_changed()
    report = chain.add("b-2", renew_below=0)
    assert (report.renewed_bytes, report.transferred_bytes, owners(chain, "b-2")) == (0, 0, {"b-0", "b-1"})


def test_parent_of_an_earlier_release_is_reused_as_it_is() -> None:
    chain = half_changed()
    with patch.object(manifest_writer.PackUse, "counts", lambda *_: ()):
        chain.add("b-2")
    assert not chain.backups.open("b-2").used
    assert chain.add("b-3").renewed_bytes == 0
    chain.check()


def test_unchanged_part_of_a_large_file_alone_is_read() -> None:
    chain = Chain()
    chain.write(b"a", *[CHUNK] * 7)
    chain.write(b"large", *[CHUNK] * 40)
    chain.add("b-0")
    chain.write(b"a", *[CHUNK] * 7)
    chain.add("b-1")
    chain.expire("b-0")
    chain.volume.bytes_read = 0
    report = chain.add("b-2")
    assert chain.volume.bytes_read == report.renewed_bytes == CHUNK
    chain.check()


def test_file_in_many_parts_is_renewed_where_it_must_be() -> None:
    chain = Chain()
    with patch.object(manifest_writer, "EXTENTS_PER_PART", 8), patch.object(pipeline, "EXTENTS_PER_PART", 8):
        chain.write(b"large", *[CHUNK] * 57)
        chain.write(b"z", *[CHUNK] * 7)
        chain.add("b-0")
        chain.write(b"z", *[CHUNK] * 7)
        chain.add("b-1")
        chain.expire("b-0")
        report = chain.add("b-2")
        assert report.renewed_bytes == CHUNK
        chain.check()
    assert len([entry for entry in chain.backups.open("b-2").entries() if entry.path == b"large"]) == 8


def test_changed_files_are_no_renewals() -> None:
    chain = half_changed()
    for number in range(0, 40, 4):
        chain.write(b"small/%02d" % number, 4 * KIB)
    report = chain.add("b-2")
    assert (report.renewed_bytes, report.transferred_bytes, report.missed_changes) == (0, 10 * 4 * KIB, 0)
    assert owners(chain, "b-2") == {"b-1", "b-2"}


def test_comparison_of_all_files_renews_too() -> None:
    chain = half_changed()
    report = chain.add("b-2", compare_every=1)
    assert (report.renewed_bytes, report.missed_changes) == (10 * 4 * KIB, 0)
    assert owners(chain, "b-2") == {"b-1", "b-2"}
    chain.check()


def test_renewed_files_are_not_counted_as_read_again() -> None:
    report = half_changed().add("b-2")
    assert (report.reread_files, report.missed_changes, report.warnings) == (0, 0, [])


def test_small_file_that_hides_a_change_is_told_and_kept() -> None:
    chain = half_changed()
    chain.volume.files[b"small/00"].segments = [(0, b"!" * 4 * KIB)]
    assert chain.add("b-2").missed_changes == 1
    chain.check()


def test_large_file_that_hides_a_change_is_compared_next() -> None:
    chain = Chain()
    chain.write(b"a", *[CHUNK] * 7)
    chain.write(b"large", *[CHUNK] * 40)
    chain.add("b-0")
    chain.write(b"a", *[CHUNK] * 7)
    chain.add("b-1")
    chain.expire("b-0")
    file = chain.volume.files[b"large"]
    file.segments = [(0, b"!" * CHUNK), *file.segments[1:]]
    report = chain.add("b-2")
    assert (report.renewed_bytes, report.missed_changes) == (0, 0)
    assert report.warnings == ["1 files hide changes that the next incremental backup will read: it reads all files"]
    chain.add("b-3")
    del chain.held["b-2"]
    chain.check()


def _vanish(chain: Chain, path: bytes) -> None:
    file = chain.volume.files[path]
    file.on_open = lambda _: chain.volume.files.pop(path, None)


def _fail(chain: Chain, path: bytes) -> None:
    def fail(*_: object) -> None:
        raise SourceError("Input/output error")

    chain.volume.files[path].on_read = fail


def _change(chain: Chain, path: bytes) -> None:
    chain.volume.files[path].unstable = 99
    chain.volume.files[path].is_settled = False


@pytest.mark.parametrize("harm", [_vanish, _fail])
@pytest.mark.parametrize("unreadable", Unreadable)
def test_unchanged_file_that_cannot_be_read_now_stays(
    harm: Callable[[Chain, bytes], None], unreadable: Unreadable
) -> None:
    chain = half_changed()
    expected = describe_all(chain.volume)
    harm(chain, b"small/04")
    report = chain.add("b-2", unreadable=unreadable)
    chain.held["b-2"] = [*expected]
    assert (report.unreadable_files, report.renewed_bytes) == (0, 9 * 4 * KIB)
    chain.check()


def test_unchanged_file_that_never_settles_stays() -> None:
    chain = half_changed()
    _change(chain, b"small/04")
    chain.add("b-2")
    chain.check()


@pytest.mark.parametrize("harm", [_vanish, _fail, _change])
def test_unchanged_large_file_that_cannot_be_read_now_stays(harm: Callable[[Chain, bytes], None]) -> None:
    chain = Chain()
    chain.write(b"a", *[CHUNK] * 7)
    chain.write(b"large", *[CHUNK] * 40)
    chain.add("b-0")
    chain.write(b"a", *[CHUNK] * 7)
    chain.add("b-1")
    chain.expire("b-0")
    expected = describe_all(chain.volume)
    harm(chain, b"large")
    chain.add("b-2")
    chain.held["b-2"] = [*expected]
    chain.check()


def test_named_packs_are_avoided_whatever_their_use() -> None:
    chain = Chain()
    chain.write(b"large", *[CHUNK] * 20)
    chain.write(b"small", 100)
    chain.add("b-0")
    packs = chain.backups.open("b-0").packs
    damaged = f"packs/{VOLUME}/b-0/{packs.name(1)}"
    report = chain.add("b-1", renew_below=0, avoid_packs=[damaged])
    assert not any(key.endswith(damaged) for key in chain.backups.keys_in_use("b-1"))
    assert report.renewed_bytes == 8 * CHUNK
    chain.check()


@pytest.mark.parametrize("call", range(6))
def test_renewal_resumes_after_the_mover_died(call: int) -> None:
    chain = half_changed(sealed=True)
    chain.write(b"more", *[CHUNK] * 20)
    memory = chain.backups.store
    faulty = FaultyStore(memory)
    faulty.on("put").crashes(done=bool(call % 2)).after(call // 2)
    chain.backups.store = faulty
    with pytest.raises(Crash):
        chain.add("b-2")
    chain.backups.store = memory
    report = chain.add("b-2")
    assert (report.renewed_bytes, owners(chain, "b-2")) == (10 * 4 * KIB, {"b-1", "b-2"})
    chain.check()


def test_recorded_use_is_that_of_all_extents() -> None:
    chain = half_changed()
    for backup in ("b-1", "b-2"):
        if backup not in chain.held:
            chain.add(backup)
        manifest = chain.backups.open(backup)
        parts: dict[tuple[int, int], int] = defaultdict(int)
        chunks = {}
        for entry in manifest.entries():
            for extent in entry.extents:
                parts[extent.chunk.pack, extent.chunk.number] += extent.length
                chunks[extent.chunk.pack, extent.chunk.number] = extent.chunk
        for number, recorded in enumerate(manifest.used):
            exact = sum(chunks[key].stored * part / chunks[key].size for key, part in parts.items() if key[0] == number)
            assert exact - len(parts) * 3 <= recorded <= exact


TREE_DAYS = st.lists(
    st.tuples(
        st.lists(st.tuples(st.integers(0, 11), st.integers(1, 3 * CHUNK)), max_size=5),
        st.sets(st.integers(0, 12), max_size=6),
    ),
    min_size=2,
    max_size=8,
)
DEVICE_DAYS = st.lists(
    st.tuples(st.sets(st.integers(0, 59), max_size=20), st.sets(st.integers(0, 12), max_size=6)),
    min_size=2,
    max_size=8,
)
THRESHOLDS = st.sampled_from([0, 25, 50, 90])


def live_with_a_tree(days: list[tuple[list[tuple[int, int]], set[int]]], below: int, *, sealed: bool) -> None:
    """Change files, make a backup and remove others on each day, and check all that are left."""
    chain = Chain(sealed=sealed)
    for number in range(12):
        chain.write(b"%02d" % number, number * 1000 + 1)
    chain.volume.add(b"link", kind=EntryKind.HARDLINK, target=b"05")
    for day, (changed, expired) in enumerate(days):
        for number, size in changed:
            chain.write(b"%02d" % number, *[CHUNK] * (size // CHUNK), size % CHUNK or 1)
        live_on(chain, day, below, expired)


def live_with_a_device(days: list[tuple[set[int], set[int]]], below: int, *, sealed: bool) -> None:
    """Change blocks, make a backup and remove others on each day, and check all that are left."""
    chain = Chain(sealed=sealed, is_device=True)
    blocks = {number: random.Random(number).randbytes(CHUNK) for number in range(60)}
    for day, (changed, expired) in enumerate(days):
        blocks |= {number: random.Random(f"{day} {number}").randbytes(CHUNK) for number in changed}
        chain.volume.make_device(60 * CHUNK, *((number * CHUNK, blocks[number]) for number in sorted(blocks)))
        live_on(chain, day, below, expired)


def live_on(chain: Chain, day: int, below: int, expired: set[int]) -> None:
    """Make a backup within the limit on renewed data, and remove others."""
    report = chain.add(f"b-{day}", renew_below=below)
    limit = max(report.logical_bytes // MOST_RENEWED, PACK)
    assert report.renewed_bytes <= (limit * 1.01 + KIB if below else 0)
    assert report.renewed_bytes <= report.transferred_bytes
    chain.expire(*(f"b-{number}" for number in expired if number < day and f"b-{number}" in chain.held))
    chain.check()


@settings(max_examples=20)
@given(days=TREE_DAYS, below=THRESHOLDS, sealed=st.booleans())
def test_every_backup_of_a_tree_stays_complete(
    days: list[tuple[list[tuple[int, int]], set[int]]], below: int, *, sealed: bool
) -> None:
    live_with_a_tree(days, below, sealed=sealed)


@settings(max_examples=20)
@given(days=DEVICE_DAYS, below=THRESHOLDS, sealed=st.booleans())
def test_every_backup_of_a_device_stays_complete(
    days: list[tuple[set[int], set[int]]], below: int, *, sealed: bool
) -> None:
    live_with_a_device(days, below, sealed=sealed)


@pytest.mark.long
@pytest.mark.timeout(1800)
@settings(max_examples=500)
@given(days=TREE_DAYS, below=THRESHOLDS, sealed=st.booleans())
def test_many_lives_of_a_tree(days: list[tuple[list[tuple[int, int]], set[int]]], below: int, *, sealed: bool) -> None:
    live_with_a_tree(days, below, sealed=sealed)


@pytest.mark.long
@pytest.mark.timeout(1800)
@settings(max_examples=500)
@given(days=DEVICE_DAYS, below=THRESHOLDS, sealed=st.booleans())
def test_many_lives_of_a_device(days: list[tuple[set[int], set[int]]], below: int, *, sealed: bool) -> None:
    live_with_a_device(days, below, sealed=sealed)


def stored_after_many_days(renew_below: int) -> int:
    """Return the bytes of all packs when 4 % of a device have changed on each of many days, and 7 backups are kept."""
    chain = Chain(is_device=True)
    rnd = random.Random(1)
    blocks = {number: rnd.randbytes(CHUNK) for number in range(100)}
    for day in range(40):
        blocks |= {number: rnd.randbytes(CHUNK) for number in rnd.sample(range(100), 4)}
        chain.volume.make_device(100 * CHUNK, *sorted((number * CHUNK, data) for number, data in blocks.items()))
        chain.add(f"b-{day}", renew_below=renew_below)
        if day >= 7:
            chain.expire(f"b-{day - 7}")
    return chain.stored_bytes()


def test_stored_data_does_not_grow_without_end() -> None:
    assert stored_after_many_days(50) < 2 * 100 * CHUNK < stored_after_many_days(0)


def test_reader_of_the_page_knows_the_use_of_packs() -> None:
    chain = half_changed()
    reader = FormatReader(chain.backups.store.get, f"{PREFIX}/", KEYS)
    reader.entries(chain.backups.manifest_key("b-1"))
    assert reader.used == [*chain.backups.open("b-1").used]
