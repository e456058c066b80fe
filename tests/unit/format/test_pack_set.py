"""Sets of packs hold what the full reader of a footer finds, and bound what a forged footer may take."""

from __future__ import annotations

import tracemalloc
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cinderblock.errors import CinderblockError, IntegrityError, TooLarge
from cinderblock.format.manifest.pack_set import MAX_BLOCKS, PackSet, add_numbers
from cinderblock.format.manifest.reader import ManifestReader, read_packs
from cinderblock.format.pack import Origin
from tests.support.mover.backups import key_ring
from tests.support.mover.parent_chains import a_line, name
from tests.support.store import forged_manifests
from tests.support.store.forged_manifests import BACKUP_ID, EXPECTED, SparseObject, footer_of

ORIGINS = [Origin(backup, attempt * 32) for backup in "ab" for attempt in "01"]
ROWS = st.lists(st.tuples(st.sampled_from(range(4)), st.integers(0, 1 << 32) | st.integers(0, 3000)), max_size=40)


def pack_set(rows: list[tuple[int, int]]) -> PackSet:
    blocks: dict[int, dict[int, int]] = {}
    add_numbers(blocks, rows)
    packs = PackSet()
    for origin, of_origin in blocks.items():
        packs.add(ORIGINS[origin], of_origin)
    return packs


@given(ROWS, ROWS)
@settings(max_examples=60, deadline=None)
def test_set_holds_what_was_added(first: list[tuple[int, int]], second: list[tuple[int, int]]) -> None:
    packs = pack_set(first)
    packs.update(pack_set(second), without={"b"})
    known = {(ORIGINS[origin], number) for origin, number in first}
    known |= {(ORIGINS[origin], number) for origin, number in second if ORIGINS[origin].backup_id != "b"}
    for origin, number in {*first, *second, *((0, number + 1) for _, number in first)}:
        assert packs.has(ORIGINS[origin], number) is ((ORIGINS[origin], number) in known)
    assert not packs.has(Origin("c", "0" * 32), 0)


@pytest.mark.parametrize("keys", [None, key_ring()], ids=["unsealed", "sealed"])
def test_set_of_a_manifest_has_exactly_its_packs(keys: object) -> None:
    line = a_line(4, keys)  # type: ignore[arg-type]
    backups, key = line.backups, line.key(name(3))
    read, expected = partial(backups.store.get, key), backups.expected(name(3))
    table = ManifestReader(read, backups.keys, expected, key).packs
    packs = read_packs(read, backups.keys, expected, key)
    for pack in range(len(table)):
        assert packs.has(table.origin(pack), table.number(pack))
        assert not packs.has(table.origin(pack), table.number(pack) + 1)
        assert not packs.has(table.origin(pack)._replace(backup_id="other"), table.number(pack))


def test_set_bounds_its_blocks() -> None:
    packs = PackSet()
    packs.add(ORIGINS[0], dict.fromkeys(range(MAX_BLOCKS), 1))
    packs.add(ORIGINS[0], {0: 2})
    with pytest.raises(TooLarge):
        packs.add(ORIGINS[1], {0: 1})


def read_forged(columns: list[bytes]) -> PackSet:
    return read_packs(SparseObject(*footer_of(columns)).read, None, EXPECTED, "forged")


def test_footer_of_many_packs_takes_little_memory() -> None:
    columns = forged_manifests.columns(forged_manifests.document(), packs=250_000)
    tracemalloc.start()
    packs = read_forged(columns)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 12 << 20
    assert packs.has(Origin(BACKUP_ID, "0" * 32), 249_999)


def test_numbers_far_apart_are_refused() -> None:
    columns = forged_manifests.columns(forged_manifests.document(), packs=MAX_BLOCKS + 1)
    columns[2] = b"".join((number << 12).to_bytes(4, "little") for number in range(MAX_BLOCKS + 1))
    with pytest.raises(TooLarge):
        read_forged(columns)


@pytest.mark.parametrize("attempt", [None, 7, ["0"]])
def test_origin_without_an_attempt_is_damage(attempt: object) -> None:
    broken = forged_manifests.document().replace(b'"' + b"0" * 32 + b'"', str(attempt).replace("'", '"').encode())
    with pytest.raises(IntegrityError):
        read_forged(forged_manifests.columns(broken.replace(b"None", b"null"), packs=1))


def test_columns_of_different_lengths_are_damage() -> None:
    for column in (1, 2, 3):
        columns = forged_manifests.columns(forged_manifests.document(), packs=9)
        columns[column] = columns[column][:-2]
        with pytest.raises(CinderblockError):
            read_forged(columns)
