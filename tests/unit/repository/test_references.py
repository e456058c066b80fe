"""References in manifests show which backups need packs of a backup."""

from __future__ import annotations

import tracemalloc

import pytest

from cinderblock.api.layout import backup_prefix, pack_prefix
from cinderblock.errors import (
    Conflict,
    ContainerNotFound,
    IntegrityError,
    KeyUnavailable,
    ObjectNotFound,
    ReferencesUnknown,
    StoreUnreachable,
    UnsupportedFormat,
)
from cinderblock.format.crypto.sealer import FrameKind
from cinderblock.format.hashing import digest_of
from cinderblock.format.manifest.columns import join_columns
from cinderblock.format.manifest.footer import compress_frame
from cinderblock.format.manifest.header import ManifestHeader, new_header, parse_header
from cinderblock.repository.reference_cache import VolumeReferences
from cinderblock.repository.rewrap import run_rewrap
from cinderblock.store.counted import CountedStore
from tests.support.mover.backups import PREFIX, VOLUME, key_ring
from tests.support.mover.parent_chains import ParentChain, a_line, name
from tests.support.store.faults import FaultyStore
from tests.support.store.forged_manifests import BACKUP_ID, columns, document, trailer

JUNK = (
    f"{backup_prefix(PREFIX)}{VOLUME}/",
    f"{backup_prefix(PREFIX)}{VOLUME}/notes.txt",
    f"{backup_prefix(PREFIX)}{VOLUME}/deeper/b-000.manifest",
    f"{backup_prefix(PREFIX)}{VOLUME}//b-001.manifest",
    f"{backup_prefix(PREFIX)}{VOLUME}/.manifest",
    f"{backup_prefix(PREFIX)}{VOLUME}/b\n.manifest",
    f"{backup_prefix(PREFIX)}{VOLUME}/..manifest",
    f"{backup_prefix(PREFIX)}{VOLUME}/{'x' * 65}.manifest",
    f"{backup_prefix(PREFIX)}{VOLUME}/b 1.manifest",
    f"{backup_prefix(PREFIX)}{VOLUME}/\u00e4.manifest",
    f"{backup_prefix(PREFIX)}{VOLUME}/b-009.manifest/",
    f"{pack_prefix(PREFIX, VOLUME, name(0))}",
    f"{pack_prefix(PREFIX, VOLUME, name(0))}./{'0' * 32}-000000",
    f"{pack_prefix(PREFIX, VOLUME, name(0))}/{'0' * 32}-000000",
    f"{pack_prefix(PREFIX, VOLUME, name(0))}notes.txt",
    f"{pack_prefix(PREFIX, VOLUME, name(0))}{'0' * 32}-000000/",
)
"""Objects of other programs: folders, files, and keys that Cinderblock never uses."""


def plant(line: ParentChain, key: str, content: bytes = b"") -> None:
    """Store an object under any key that a server may list."""
    line.backups.store._objects[key] = content  # type: ignore[attr-defined]


def damage(line: ParentChain, backup_id: str, at: int = -1) -> None:
    """Flip a bit of a manifest."""
    content = bytearray(line.backups.store.get(line.key(backup_id)))
    content[at] ^= 1
    line.backups.store.put(line.key(backup_id), content)


def test_errors_keep_nothing_that_was_read() -> None:
    """A look-up may find 100,000 damaged manifests. Each has a tail of 64 KiB and a document of up to 16 MiB."""
    line = ParentChain()
    for number in range(20):
        line.backups.store.put(line.key(name(number)), damaged_manifest(name(number)))
    tracemalloc.start()
    try:
        look = line.references()
        look.read_all()
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(look.needs("other").unknown) == 20
    assert held < 20 * 20_000


def damaged_manifest(backup_id: str) -> bytes:
    """Return a manifest whose footer has a large document and a wrong digest."""
    text = document(digest="0" * 64, further="x" * 200_000).replace(BACKUP_ID.encode(), backup_id.encode())
    header = new_header(VOLUME, backup_id, None, None, None)
    plaintext = compress_frame(join_columns(columns(text)))
    frame = header.sealer(None, "forged").seal(FrameKind.INDEX, 0, plaintext)
    return header.encode() + frame + trailer(frame, len(join_columns(columns(text))))


def test_only_backups_that_list_its_packs_need_a_backup() -> None:
    line = a_line(3)
    line.add("alone", None, path=b"again")
    assert [line.needs(backup).by for backup in (name(0), name(1), name(2), "alone")] == [
        (name(1), name(2)),
        (name(2),),
        (),
        (),
    ]


def test_without_the_middle_of_a_line_its_ends_still_need_each_other() -> None:
    line = a_line(3)
    line.backups.store.delete([line.key(name(1))])
    assert line.needs(name(0)).by == (name(2),)
    with pytest.raises(Conflict, match=f"backups {name(2)} need its data"):
        line.remove(name(0))
    assert line.read_back(name(2)) == line.held[name(2)]


def test_child_without_packs_of_its_parent_does_not_need_it() -> None:
    line = ParentChain()
    line.add("parent", None, path=b"file")
    line.add("child", "parent", path=b"file")
    assert line.backups.open("child").header.parent_id == "parent"
    assert line.needs("parent").by == ()
    line.remove("parent")
    assert line.read_back("child") == line.held["child"]


def test_each_manifest_takes_three_requests_and_is_read_once() -> None:
    line, known = a_line(12), VolumeReferences()
    store = CountedStore(line.backups.store)
    for _ in range(3):
        look = line.references(store, known)
        look.read_all()
        look.needs(name(0))
    assert (store.counts.lists, store.counts.puts) == (3, 0)
    assert 12 <= store.counts.gets <= 3 * 12


def test_deleting_a_chain_takes_requests_in_proportion_to_its_length() -> None:
    def gets(count: int) -> int:
        line, known = a_line(count), VolumeReferences()
        store = CountedStore(line.backups.store)
        for number in reversed(range(count)):
            line.remove(name(number), store, known)
        assert list(line.backups.store.list("")) == []
        return store.counts.gets

    short, long = gets(5), gets(20)
    assert long <= 4 * short
    assert long <= 20 * 4


def test_foreign_objects_block_nothing_and_stay() -> None:
    line = a_line(2)
    for key in JUNK:
        plant(line, key)
    for number in (1, 0):
        assert line.needs(name(number)).unknown == ()
        assert line.remove(name(number)) > 0
    assert [found.key for found in line.backups.store.list("")] == sorted(JUNK)
    assert line.remove(name(0)) == 0


def test_manifest_that_goes_between_the_listing_and_the_reading_is_absent() -> None:
    line = a_line(3)
    look = line.references()
    line.backups.store.delete([line.key(name(2))])
    look.read_all()
    needs = look.needs(name(0))
    assert (needs.by, needs.unknown) == ((name(1),), ())
    assert look.listed_ids == {name(0), name(1)}


def test_manifest_that_is_missing_for_a_moment_is_read_once_more() -> None:
    line = a_line(3)
    store = FaultyStore(line.backups.store)
    store.on("get", name(2)).raises(ObjectNotFound("gone"))
    look = line.references(store)
    look.read_all()
    assert look.needs(name(0)).by == (name(1), name(2))


def test_listed_manifest_that_the_store_does_not_give_may_need_anything() -> None:
    """The index of a store may be ahead of its data, or a cache may keep an old answer."""
    line = a_line(3)
    line.expire([name(0)])
    store = FaultyStore(line.backups.store)
    store.on("get", name(2)).raises(ObjectNotFound("gone")).times(float("inf"))
    with pytest.raises(ReferencesUnknown, match=rf"{line.key(name(2))}, and answers .* delete {name(2)} first"):
        line.remove(name(1), store)
    line.check()


@pytest.mark.parametrize("unlisted", [1, 2])
def test_listing_without_an_expected_manifest_deletes_nothing(unlisted: int) -> None:
    line = a_line(3)
    key = line.key(name(unlisted))
    content = line.backups.store.get(key)
    line.backups.store.delete([key])
    before = list(line.backups.store.list(""))
    with pytest.raises(ReferencesUnknown, match=key) as refused:
        line.remove(name(0), expected=[name(1), name(2)])
    assert refused.value.missing == (name(unlisted),)
    assert list(line.backups.store.list("")) == before
    line.backups.store.put(key, content)
    line.check()


@pytest.mark.parametrize("error", [StoreUnreachable("no answer"), ContainerNotFound("no bucket")], ids=str)
def test_silent_store_is_not_an_answer(error: Exception) -> None:
    line, known = a_line(3), VolumeReferences()
    store = FaultyStore(line.backups.store)
    store.on("get", name(2)).raises(error)
    with pytest.raises(type(error)):
        line.references(store, known).read_all()
    counted = CountedStore(line.backups.store)
    look = line.references(counted, known)
    look.read_all()
    assert look.needs(name(0)).by == (name(1), name(2))
    assert counted.counts.gets <= 3, "what was read before the error is known"


def test_unreadable_manifest_may_need_anything_and_names_a_remedy() -> None:
    line = a_line(2)
    line.add("other", None, path=b"something else")
    damage(line, "other")
    before = list(line.backups.store.list(""))
    (unknown,) = line.needs(name(1)).unknown
    assert isinstance(unknown, IntegrityError)
    assert line.key("other") in unknown.message
    assert "Delete other first" in unknown.message
    with pytest.raises(ReferencesUnknown, match="Delete other first"):
        line.remove(name(1))
    assert list(line.backups.store.list("")) == before


def test_manifest_of_a_newer_format_is_named_as_such() -> None:
    line = a_line(2)
    content = bytearray(line.backups.store.get(line.key(name(1))))
    content[44] = 9
    content[12:44] = digest_of(bytes(content[44:4096]))
    line.backups.store.put(line.key(name(1)), content)
    (unknown,) = line.needs(name(0)).unknown
    assert isinstance(unknown, UnsupportedFormat)
    assert "Use the version of Cinderblock that made it" in unknown.message


def test_damaged_backup_is_deletable_unless_a_sound_one_needs_it() -> None:
    line = a_line(3)
    damage(line, name(0), at=50)
    with pytest.raises(Conflict):
        line.remove(name(0))
    for number in (1, 2):
        damage(line, name(number))
    for number in (1, 0, 2):
        line.remove(name(number))
    assert list(line.backups.store.list("")) == []


def test_manifest_under_a_foreign_key_needs_nothing_and_stays() -> None:
    line = a_line(2)
    copied = line.backups.store.get(line.key(name(1)))
    line.backups.store.put(line.key("copy"), copied)
    assert line.needs(name(0)).by == (name(1),)
    line.remove(name(1))
    line.remove(name(0))
    with pytest.raises(Conflict) as refused:
        line.remove("copy")
    assert refused.value.reason == "ForeignManifest"
    assert line.backups.store.get(line.key("copy")) == copied


def test_replaced_manifest_with_packs_blocks_the_deletion() -> None:
    line = a_line(3)
    line.backups.store.delete([line.key(name(1))])
    line.backups.store.put(line.key(name(2)), line.backups.store.get(line.key(name(0))))
    before = list(line.backups.store.list(""))
    with pytest.raises(ReferencesUnknown, match=f"Put the manifest of {name(2)} back"):
        line.remove(name(0))
    assert list(line.backups.store.list("")) == before
    line.backups.store.delete([line.key(name(2))])
    line.remove(name(0))


def test_sealed_manifests_need_no_keys_in_a_complete_chain() -> None:
    line = a_line(4, key_ring("2024"))
    line.add("alone", None, path=b"again")
    other = key_ring("2025")
    assert line.needs(name(1), other).by == (name(2), name(3))
    assert line.needs(name(1), other).unknown == ()
    line.backups.store.delete([line.key(name(2))])
    needs = line.needs(name(1), other)
    assert needs.by == ()
    (unknown,) = needs.unknown
    assert isinstance(unknown, KeyUnavailable)
    assert "sealed with key 2024" in unknown.message
    assert line.needs(name(1)).by == (name(3),)


def test_restored_key_is_used_for_a_cached_manifest() -> None:
    line, known = a_line(3, key_ring("2024")), VolumeReferences()
    line.backups.store.delete([line.key(name(1))])
    line.backups.keys = key_ring("2025")
    look = line.references(known=known)
    look.read_all()
    assert look.needs(name(0)).unknown
    line.backups.keys = key_ring("2024", "2025")
    look = line.references(known=known)
    look.read_all()
    assert look.needs(name(0)).by == (name(2),)


def test_rewrapped_manifest_is_reread_if_its_key_was_missing() -> None:
    line, known = a_line(3, key_ring("2024")), VolumeReferences()
    line.backups.store.delete([line.key(name(1))])
    line.backups.keys = key_ring("2025")
    look = line.references(known=known)
    look.read_all()
    assert look.needs(name(0)).unknown
    run_rewrap(line.backups.store, line.key(name(2)), line.backups.expected(name(2)), key_ring("2024", "2025"))
    look = line.references(known=known)
    look.read_all()
    assert look.needs(name(0)).by == (name(2),)


def test_wrapping_keys_again_changes_nothing_that_is_known() -> None:
    line, known = a_line(3, key_ring("2024")), VolumeReferences()
    line.references(known=known).read_all()
    line.backups.keys = key_ring()
    for number in range(3):
        run_rewrap(line.backups.store, line.key(name(number)), line.backups.expected(name(number)), key_ring())
    store = CountedStore(line.backups.store)
    look = line.references(store, known)
    assert look.is_complete
    assert look.needs(name(0)) == line.needs(name(0))
    assert store.counts.gets == 0


def test_manifest_of_another_size_is_read_again() -> None:
    line, known = a_line(2), VolumeReferences()
    line.references(known=known).read_all()
    line.backups.store.delete([line.key(name(1))])
    line.add(name(1), name(0), path=b"a name that is longer than the one before")
    assert not line.references(known=known).is_complete


def test_line_that_leads_back_to_itself_is_damage_and_no_loop() -> None:
    line = a_line(2, key_ring("2024"))
    for backup_id, parent in ((name(0), name(1)), (name(1), name(0))):
        content = line.backups.store.get(line.key(backup_id))
        header = parse_header(content, "")
        forged = ManifestHeader(1, backup_id, VOLUME, parent, header.salt, header.wrapped)
        line.backups.store.put(line.key(backup_id), forged.encode() + content[4096:])
    line.add("alone", None, path=b"again")
    (first, second) = line.needs("alone", key_ring("2025")).unknown
    assert "an ancestor of itself" in first.message
    assert "an ancestor of itself" in second.message
