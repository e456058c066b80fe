"""Expired backups go, what others list stays, and the last one that lists it lets it go."""

from __future__ import annotations

import contextlib
import itertools
import random

import pytest

from cinderblock.errors import CinderblockError, Conflict, ObjectNotFound, ReferencesUnknown, TransientError
from cinderblock.format.hashing import digest_of
from cinderblock.repository.objects import MARK_NAME, mark_key
from cinderblock.repository.reference_cache import VolumeReferences
from cinderblock.repository.rewrap import run_rewrap
from cinderblock.store.counted import CountedStore
from tests.support.mover.backups import PREFIX, VOLUME, key_ring
from tests.support.mover.parent_chains import ParentChain, a_line, name
from tests.support.store.faults import FaultyStore
from tests.support.store.mutations import mutate


def ids_below_packs(line: ParentChain) -> set[str]:
    keys = (found.key for found in line.backups.store.list(""))
    return {key.split("/")[-2] for key in keys if "/packs/" in key}


def is_empty(line: ParentChain) -> bool:
    return not list(line.backups.store.list(""))


def test_ancestor_leaves_the_packs_that_others_list() -> None:
    line = a_line(3)
    assert line.expire([name(0)]) == {name(0): 1}
    assert line.there() == [name(1), name(2)]
    line.check()
    assert line.backups.pack_keys(name(0))[0].endswith(MARK_NAME)


def test_middle_and_newest_go_as_well() -> None:
    line = a_line(4)
    assert line.expire([name(1), name(3)]) == {name(1): 1, name(3): 0}
    line.check()
    assert line.backups.pack_keys(name(3)) == []


def test_last_one_that_lists_packs_lets_them_go() -> None:
    line = a_line(3)
    line.expire([name(0)])
    line.expire([name(1)])
    assert ids_below_packs(line) == {name(0), name(1), name(2)}
    line.expire([name(2)])
    assert is_empty(line)


def test_packs_go_one_by_one_when_no_manifest_lists_them() -> None:
    line = ParentChain()
    line.add("first", None, path=b"a")
    line.add("second", "first", path=b"b")
    line.add("third", "second", path=b"a")
    line.expire(["first", "second"])
    assert ids_below_packs(line) == {"second", "third"}, "the third one has another file a"
    line.check()


def test_full_backup_alone_goes_completely() -> None:
    line = a_line(1)
    assert line.expire([name(0)]) == {name(0): 0}
    assert is_empty(line)


def test_all_expire_at_once() -> None:
    line = a_line(5)
    assert line.expire([name(number) for number in range(5)]) == {name(number): 0 for number in range(5)}
    assert is_empty(line)


def test_expiry_may_be_repeated() -> None:
    line = a_line(3)
    assert line.expire([name(0)]) == line.expire([name(0)])
    assert line.expire([name(0), "never made"]) == {name(0): 1, "never made": 0}
    line.check()


def test_person_deletes_the_last_heir_and_nothing_stays() -> None:
    line = a_line(4)
    line.expire([name(0), name(2)])
    with pytest.raises(Conflict, match=f"{name(3)} need"):
        line.remove(name(1))
    line.remove(name(3))
    assert ids_below_packs(line) == {name(0), name(1)}
    line.check()
    line.remove(name(1))
    assert is_empty(line)


def test_last_heir_without_packs_of_its_own_lets_them_go() -> None:
    line = a_line(1)
    line.backups.back_up(line.volume, "same", name(0))
    line.held["same"] = line.held[name(0)]
    line.expire([name(0)])
    assert line.backups.pack_keys("same") == []
    line.check()
    line.remove("same")
    assert is_empty(line)


@pytest.mark.parametrize("before", range(5))
def test_another_removal_in_the_middle_costs_no_packs(before: int) -> None:
    line = a_line(4)
    line.add("x", None)
    first = line.expiry(["x"])
    steps = first.steps()
    for _ in itertools.islice(steps, before):
        pass
    line.expire([name(0)])
    with contextlib.suppress(TransientError):
        for _ in steps:
            pass
    line.check()


@pytest.mark.parametrize("keys", [None, key_ring()], ids=["unsealed", "sealed"])
def test_next_incremental_builds_on_a_backup_without_ancestors(keys: object) -> None:
    line = a_line(3, keys)  # type: ignore[arg-type]
    line.expire([name(0), name(1)])
    line.add(name(3), name(2))
    assert line.backups.keys_in_use(name(3)) & line.backups.keys_in_use(name(2))
    for backup in (name(2), name(3)):
        line.backups.verify(backup)
    line.expire([name(2)])
    line.check()


def test_rewrapped_heir_still_reads_packs_of_removed_backups() -> None:
    line = a_line(3, key_ring("2024"))
    line.expire([name(0), name(1)])
    line.backups.keys = key_ring()
    run_rewrap(line.backups.store, line.key(name(2)), line.backups.expected(name(2)), key_ring())
    line.backups.keys = key_ring("2025")
    line.backups.verify(name(2))
    assert line.expire([name(2)]) == {name(2): 0}
    assert is_empty(line)


# What holds everything


def damage(line: ParentChain, backup_id: str) -> None:
    content = bytearray(line.backups.store.get(line.key(backup_id)))
    content[-1] ^= 1
    line.backups.store.put(line.key(backup_id), content)


def test_unreadable_manifest_holds_everything_and_is_named() -> None:
    line = a_line(4)
    damage(line, name(3))
    before = list(line.backups.store.list(""))
    with pytest.raises(ReferencesUnknown, match=line.key(name(3))):
        line.expire([name(0)])
    assert list(line.backups.store.list("")) == before


def test_listed_manifest_that_the_store_does_not_give_holds_everything() -> None:
    line = a_line(3)
    before = list(line.backups.store.list(""))
    store = FaultyStore(line.backups.store)
    store.on("get", name(2)).raises(ObjectNotFound("gone")).times(float("inf"))
    with pytest.raises(ReferencesUnknown, match=line.key(name(2))):
        line.expire([name(0), name(1)], store)
    assert list(line.backups.store.list("")) == before


def test_listing_without_an_expected_manifest_holds_everything() -> None:
    line = a_line(3)
    content = line.backups.store.get(line.key(name(2)))
    line.backups.store.delete([line.key(name(2))])
    before = list(line.backups.store.list(""))
    with pytest.raises(ReferencesUnknown, match=line.key(name(2))):
        list(line.expiry([name(0), name(1)], expected=[name(2)]).steps())
    assert list(line.backups.store.list("")) == before
    line.backups.store.put(line.key(name(2)), content)
    line.check()


@pytest.mark.parametrize("steps", range(1, 8))
def test_expected_manifest_that_vanishes_during_a_removal_keeps_its_packs(steps: int) -> None:
    line = a_line(3)
    run = line.expiry([name(0), name(1)], expected=[name(2)])
    left = run.steps()
    if len(list(itertools.islice(left, steps))) < steps:
        return
    content = line.backups.store.get(line.key(name(2)))
    line.backups.store.delete([line.key(name(2))])
    with contextlib.suppress(ReferencesUnknown, TransientError):
        list(left)
    line.backups.store.put(line.key(name(2)), content)
    line.check()


def test_missing_key_holds_everything_and_is_named() -> None:
    line = a_line(3, key_ring("2024"))
    line.backups.keys = key_ring("2025")
    before = list(line.backups.store.list(""))
    with pytest.raises(ReferencesUnknown, match="key 2024"):
        line.expire([name(0)])
    line.backups.keys = None
    with pytest.raises(ReferencesUnknown, match="key 2024"):
        line.expire([name(0)])
    assert list(line.backups.store.list("")) == before


def test_damaged_expired_backup_holds_nothing() -> None:
    line = a_line(3)
    damage(line, name(1))
    line.expire([name(0), name(1)])
    line.check()
    line.expire([name(2)])
    assert is_empty(line)


def test_replaced_manifest_waits_alone() -> None:
    line = a_line(3)
    line.add("alone", None, path=b"again")
    line.backups.store.put(line.key(name(0)), line.backups.store.get(line.key("alone")))
    run = line.expiry([name(0), "alone"])
    with pytest.raises(ReferencesUnknown):
        list(run.steps())
    line.backups.store.delete([line.key(name(0))])
    run = line.expiry([name(0), "alone"])
    list(run.steps())
    assert run.removed == {name(0): 1, "alone": 0}


def test_manifest_of_a_later_release_holds_all_even_if_it_expires() -> None:
    line = a_line(3)
    content = bytearray(line.backups.store.get(line.key(name(1))))
    content[44] = 9
    content[12:44] = digest_of(bytes(content[44:4096]))
    line.backups.store.put(line.key(name(1)), content)
    before = list(line.backups.store.list(""))
    with pytest.raises(ReferencesUnknown, match=line.key(name(1))):
        line.expire([name(0), name(1)])
    assert list(line.backups.store.list("")) == before


def test_unread_newcomer_is_read_before_packs_go() -> None:
    line = a_line(3)
    child = line.backups.store.get(line.key(name(2)))
    line.backups.store.delete([line.key(name(2))])
    run = line.expiry([name(1)])
    for _ in run.steps():
        if line.there() == [name(0)]:
            line.backups.store.put(line.key(name(2)), child)
    line.check()
    assert run.removed == {name(1): 1}


def test_newcomer_during_a_long_pass_begins_it_again() -> None:
    line, seconds = a_line(3), [0.0]
    line.add("again", None, path=b"again")
    content = line.backups.store.get(line.key("again"))
    line.backups.store.delete([line.key("again")])
    store = FaultyStore(line.backups.store)

    def passes() -> float:
        seconds[0] += 61
        if seconds[0] == 61:
            line.backups.store.put(line.key("again"), content)
        return seconds[0]

    with pytest.raises(TransientError, match="begins again"):
        list(line.expiry([name(2)], store, monotonic=passes).steps())
    line.check()
    line.expire([name(2)])
    line.check()


# What belongs to others


def test_packs_without_manifest_and_mark_stay() -> None:
    line = a_line(3)
    line.add("running", name(2))
    line.backups.store.delete([line.key("running"), line.key(name(0))])
    kept = line.backups.pack_keys("running") + line.backups.pack_keys(name(0))
    line.expire([name(1), name(2)])
    assert sorted(found.key for found in line.backups.store.list("")) == sorted(kept)


def test_foreign_names_stay() -> None:
    line = a_line(2)
    root = line.backups.pack_keys(name(0))[0].rpartition("/")[0]
    planted = [f"{root}/notes.txt", f"{root}/1-inherited", f"{root}/{'0' * 32}-1", f"{root}/deeper/{MARK_NAME}"]
    for key in planted:
        line.backups.store.put(key, b"")
    line.expire([name(0), name(1)])
    assert sorted(found.key for found in line.backups.store.list("")) == sorted(planted)


def test_forged_circle_of_parents_hides_no_packs() -> None:
    line = a_line(3)
    look = line.references()
    look.read_all()
    look.leave_out([name(0)])
    for backup, parent in ((name(1), name(2)), (name(2), name(1))):
        lists = look._lists[backup]
        look._lists[backup] = type(lists)(lists.ids, lists.size, parent, lists.packs_of)
    assert [found.backup_id for found in look.heirs()] != []


def test_manifest_that_lists_more_than_its_parent_is_read() -> None:
    """No release writes such a manifest."""
    line = a_line(4)
    look = line.references()
    look.read_all()
    look.leave_out([name(0)])
    assert [found.backup_id for found in look.heirs()] == [name(1)]
    lists = look._lists[name(2)]
    look._lists[name(2)] = type(lists)(lists.ids, lists.size, lists.parent_id, packs_of=0)
    assert [found.backup_id for found in look.heirs()] == [name(1), name(3)]


def test_mark_next_to_a_manifest_means_nothing() -> None:
    line = a_line(3)
    line.backups.store.put(mark_key(PREFIX, VOLUME, name(1)), b"planted")
    line.expire([name(0)])
    line.check()


# Requests


def test_requests_are_few_for_each_backup() -> None:
    count = 60
    line, known = a_line(count), VolumeReferences()
    store = CountedStore(line.backups.store)
    line.expire([name(number) for number in range(0, count, 2)], store, known)
    line.check()
    assert store.counts.requests <= 3 * count + 10
    before = store.counts
    line.expire([name(1)], store, known)
    assert store.counts.requests - before.requests <= 2 * count // 2 + 8, "no footer is read again, except of heirs"


# Damage


@pytest.mark.parametrize("seed", range(60))
def test_mutated_manifest_releases_no_pack(seed: int) -> None:
    rnd = random.Random(seed)
    line = a_line(4, key_ring() if seed % 2 else None)
    victim = name(rnd.randrange(1, 4))
    sound = line.backups.store.get(line.key(victim))
    line.backups.store.put(line.key(victim), mutate(sound, rnd))
    with contextlib.suppress(CinderblockError):
        line.expire([name(0)])
    line.backups.store.put(line.key(victim), sound)
    line.check()
