"""The packs of a volume: each once, in stable parts, and with hostile manifests in bounded memory."""

from __future__ import annotations

import random
from collections import Counter
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cinderblock.errors import IntegrityError, TooLarge
from cinderblock.format import pack
from cinderblock.format.crypto.keyring import DataKey
from cinderblock.format.manifest.header import ManifestHeader
from cinderblock.format.manifest.reader import PackList, read_pack_list
from cinderblock.format.pack import Origin, PackTable
from cinderblock.repository.verify import pack_check, volume_packs
from cinderblock.repository.verify.data import Share
from cinderblock.repository.verify.manifests import check_sizes
from cinderblock.repository.verify.volume_packs import PackMarks, VolumePacks
from tests.support.mover.backups import NOON, PREFIX, VOLUME, Backups, key_ring
from tests.support.mover.verifications import data, small_units
from tests.support.mover.volumes_in_memory import MemorySource
from tests.unit.repository.test_damage_is_found import chain

Row = tuple[str, int, int]
"""Backup, number and size."""
ATTEMPT = "0" * 32


def listing(rows: list[Row], keys: dict[str, DataKey] | None = None) -> PackList:
    table = PackTable()
    for backup, number, size in rows:
        table.add(Origin(backup, ATTEMPT), number, size)
    return PackList(ManifestHeader(1, "b", VOLUME, None, b""), NOON, table, keys or {})


def rows_of(packs: VolumePacks) -> list[Row]:
    return sorted((packs.origin(found).backup_id, found.number, packs.size(found)) for found in packs.packs())


ROWS = st.lists(
    st.tuples(st.sampled_from("xyz"), st.integers(0, 200) | st.integers(0, (1 << 32) - 1), st.integers(1, 3))
)


@given(lists=st.lists(ROWS, max_size=6), part=st.integers(1, 9))
@settings(max_examples=200, deadline=None)
def test_union_is_that_of_a_set(lists: list[list[Row]], part: int) -> None:
    packs = VolumePacks(PREFIX, VOLUME)
    for rows in lists:
        packs.add(listing(rows))
    expected = {row for rows in lists for row in rows}
    assert rows_of(packs) == sorted(expected)
    assert packs.count == len(expected)
    parts = Counter(found for number in range(1, 10) for found in packs.packs_of_part(number, 9))
    assert set(parts) == set(packs.packs())
    assert set(parts.values()) <= {1}
    marks = PackMarks()
    for found in packs.packs_of_part(part, 9):
        marks.add(found)
    assert set(marks.packs()) == set(packs.packs_of_part(part, 9))
    for rows in lists:
        names = {(packs.origin(found).backup_id, found.number, packs.size(found)) for found in marks.packs()}
        listed = packs.listed(listing(rows), marks)
        assert {(packs.origin(f).backup_id, f.number, packs.size(f)) for f in listed} == names & set(rows)


def test_parts_depend_on_keys_alone_and_are_even() -> None:
    rows = [("x", number, 1) for number in range(5000)]
    one, other = VolumePacks(PREFIX, VOLUME), VolumePacks("", "elsewhere")
    one.add(listing(rows))
    shuffled = [*rows, ("a", 0, 1)]
    random.Random(1).shuffle(shuffled)
    other.add(listing(shuffled))
    for part in range(1, 29):
        mine = {found.number for found in one.packs_of_part(part, 28)}
        assert mine == {f.number for f in other.packs_of_part(part, 28) if other.origin(f).backup_id == "x"}
        assert 120 < len(mine) < 240


def test_manifests_that_disagree_get_rows_of_their_own() -> None:
    packs, keys = VolumePacks(PREFIX, VOLUME), [DataKey(bytes([number]) * 32) for number in range(2)]
    lists = [listing([("x", 7, 9)], {"x": key}) for key in keys] + [listing([("x", 7, 9)]), listing([("x", 7, 8)])]
    for found in (*lists, *lists):
        packs.add(found)
    assert packs.count == 4
    marks = PackMarks()
    for pack_id in packs.packs():
        marks.add(pack_id)
    assert [len(list(packs.listed(found, marks))) for found in lists] == [1] * 4
    assert len(list(packs.find(Origin("x", ATTEMPT), 7, 9))) == 3


def test_scattered_numbers_are_refused_before_they_fill_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volume_packs, "MAX_BLOCKS", 100)
    packs = VolumePacks(PREFIX, VOLUME)
    packs.add(listing([("x", number * 64, 1) for number in range(100)]))
    with pytest.raises(TooLarge):
        packs.add(listing([("x", 100 * 64, 1)]))


@pytest.mark.parametrize("sealed", [True, False])
def test_list_of_packs_equals_that_of_the_whole_manifest(*, sealed: bool) -> None:
    with small_units():
        backups = chain(key_ring() if sealed else None)
    for backup in ("b0", "b2"):
        key = backups.manifest_key(backup)
        read = partial(backups.store.get, key)
        found = read_pack_list(read, backups.keys, backups.expected(backup), key)
        whole = backups.open(backup).pack_list()
        assert [*found.packs.runs()] == [*whole.packs.runs()]
        assert (found.header, found.data_timestamp) == (whole.header, whole.data_timestamp)
        assert {name: key.reveal() for name, key in found.data_keys.items()} == {
            name: key.reveal() for name, key in whole.data_keys.items()
        }
        with pytest.raises(TooLarge):
            read_pack_list(read, backups.keys, backups.expected(backup), key, max_packs=len(whole.packs) - 1)


def test_packs_that_are_larger_than_usual_are_read_in_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    with small_units():
        backups = chain(key_ring())
        monkeypatch.setattr(pack_check, "WHOLE_BYTES", 1000)
        assert data(backups, "b2").damaged_count == 0
        for key in backups.keys_in_use("b2"):
            body = backups.store.get(key)
            for at in (0, len(body) // 2, len(body) - 1):
                changed = body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
                with backups.changed(key, changed):
                    assert data(backups, "b2").damaged_count == 1
            for other in (body[:-1], body + b"x"):
                with backups.changed(key, other):
                    assert data(backups, "b2").damaged_count == 1


def test_bytes_that_no_chunk_covers_are_found() -> None:
    """A pack whose index leaves out a chunk agrees with itself, and is not what was written."""
    with small_units():
        backups = Backups()
        source = MemorySource()
        source.add(b"file", (0, random.Random(1).randbytes(30_000)))
        backups.back_up(source, "one")

        def without_last(read: object, number: int, sealer_for: object, label: str) -> list[object]:
            return original(read, number, sealer_for, label)[:-1]  # type: ignore[arg-type,return-value]

        original = pack.read_pack
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pack_check, "read_pack", without_last)
            found = data(backups, "one", Share())
    assert (found.damaged_count, "add up" in found.causes[0]) == (1, True)


def test_manifest_with_an_impossible_size_is_damaged() -> None:
    for size in (0, 1 << 60):
        with pytest.raises(IntegrityError, match="impossible size"):
            check_sizes(listing([("x", 0, 5), ("x", 1, size)]).packs, "the manifest")
    check_sizes(PackTable(), "the manifest")
