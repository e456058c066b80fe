"""Each rule at its limits, and what no rule may do, whatever the numbers are."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cinderblock.api.quantity import GIB, MIB
from cinderblock.lifecycle.alarms.rules import MIN_HISTORY, ComparedBackup, alarms_of
from cinderblock.lifecycle.alarms.stats import HISTORY, BackupStats, History
from cinderblock.observability.operator_metrics import ALARMS
from cinderblock.reasons import Reason

START = datetime(2026, 5, 4, 2, tzinfo=UTC)
DAY = timedelta(days=1)
USUAL = BackupStats(START, False, 10 * GIB, 100 * MIB, 40 * MIB, entries=1000)
FULL = replace(USUAL, is_full=True, transferred_bytes=10 * GIB, pack_bytes=4 * GIB)


def history(count: int = HISTORY, **changes: Any) -> History:
    """Return a history of daily backups, which begins with a full one."""
    recent = [replace(FULL if not n else USUAL, data_time=START + n * DAY, **changes) for n in range(count)]
    return History(tuple(recent), recent[0] if recent else None)


def reasons(earlier: History, *, was_restored: bool = False, after: float = 1, **changes: Any) -> list[Reason]:
    """Return the alarms of a usual backup with some changes, after a number of days."""
    last = earlier.recent[-1].data_time if earlier.recent else START
    backup = replace(USUAL, **({"data_time": last + after * DAY} | changes))
    return [alarm.reason for alarm in alarms_of(ComparedBackup(backup, earlier, was_restored=was_restored))]


def test_usual_backup_raises_no_alarm() -> None:
    assert reasons(history()) == []


@pytest.mark.parametrize("count", [1, HISTORY])
def test_volume_that_lost_everything_is_empty(count: int) -> None:
    nothing = {"logical_bytes": 0, "transferred_bytes": 0, "pack_bytes": 0}
    assert reasons(history(count), **nothing) == [Reason.EMPTY]
    assert reasons(history(count, logical_bytes=MIB - 1), **nothing) == []
    assert reasons(history(0), **nothing) == []


def test_volume_with_less_than_half_of_its_data_has_shrunk() -> None:
    assert reasons(history(), logical_bytes=5 * GIB - 1) == [Reason.SHRUNK]
    assert reasons(history(), logical_bytes=5 * GIB) == []


def test_volume_that_was_as_small_before_has_not_shrunk() -> None:
    earlier = history()
    small = replace(earlier.recent[3], logical_bytes=3 * GIB)
    recent = (*earlier.recent[:3], small, *earlier.recent[4:])
    assert reasons(History(recent, earlier.last_full), logical_bytes=4 * GIB) == []


def test_file_system_with_less_than_half_of_its_files_has_fewer() -> None:
    assert reasons(history(), entries=499) == [Reason.FEWER_ENTRIES]
    assert reasons(history(), entries=500) == []
    assert reasons(history(entries=99), entries=1) == []


def test_device_and_backups_of_earlier_releases_have_no_entries() -> None:
    assert reasons(history(entries=None), entries=1) == []
    assert reasons(history(), entries=None) == []


def test_replaced_data_that_compress_differently_are_many_changes() -> None:
    assert reasons(history(), transferred_bytes=4 * GIB, pack_bytes=0) == [Reason.MANY_CHANGES]
    assert reasons(history(), transferred_bytes=3 * GIB, pack_bytes=0) == []


def test_maintenance_of_a_database_is_no_alarm() -> None:
    assert reasons(history(), transferred_bytes=9 * GIB, pack_bytes=int(3.6 * GIB)) == []


def test_many_changes_need_no_ratio_where_nothing_can_be_compressed() -> None:
    photos = history(pack_bytes=100 * MIB)
    assert reasons(photos, transferred_bytes=4 * GIB, pack_bytes=4 * GIB) == [Reason.MANY_CHANGES]


@pytest.mark.parametrize(
    ("changes", "more"),
    [
        ({"is_full": True}, {}),
        ({}, {"was_restored": True}),
        ({"logical_bytes": 14 * GIB}, {}),
        ({}, {"after": 30}),
    ],
    ids=["full", "restored", "grown", "after a long time"],
)
def test_explained_changes_are_no_alarm(changes: dict[str, Any], more: dict[str, Any]) -> None:
    """After 30 days, 40 % may have changed where 1.5 % change each day."""
    earlier = history(transferred_bytes=150 * MIB, pack_bytes=0)
    assert reasons(earlier, **more, **({"transferred_bytes": 4 * GIB, "pack_bytes": 3 * MIB} | changes)) == []


def test_encrypted_data_are_incompressible() -> None:
    assert reasons(history(), transferred_bytes=GIB, pack_bytes=GIB) == [Reason.INCOMPRESSIBLE]
    assert reasons(history(), transferred_bytes=250 * MIB, pack_bytes=250 * MIB) == []


def test_both_alarms_are_raised_and_incompressible_is_the_stronger() -> None:
    both = [Reason.INCOMPRESSIBLE, Reason.MANY_CHANGES]
    assert reasons(history(), transferred_bytes=5 * GIB, pack_bytes=5 * GIB) == both


def test_upload_of_films_is_no_alarm() -> None:
    films = {"transferred_bytes": 6 * GIB, "pack_bytes": 6 * GIB}
    assert reasons(history(), logical_bytes=16 * GIB, **films) == []


def test_compressed_logs_are_no_alarm() -> None:
    """Ten GiB of logs become one GiB: the volume shrinks by more than what cannot be compressed."""
    archive = {"transferred_bytes": 2 * GIB, "pack_bytes": 2 * GIB}
    assert reasons(history(logical_bytes=20 * GIB), logical_bytes=12 * GIB, **archive) == []


def test_unknown_ratios_of_an_earlier_release_raise_no_alarm() -> None:
    for earlier in (
        history(pack_bytes=None),
        replace(history(), recent=(*history().recent[:-1], replace(USUAL, pack_bytes=None))),
    ):
        assert reasons(earlier, transferred_bytes=5 * GIB, pack_bytes=5 * GIB) == []
        assert reasons(earlier, logical_bytes=GIB) == [Reason.SHRUNK]


def test_volume_without_changes_has_no_usual_ratio() -> None:
    """Photos that nobody changed in ten backups: the new data are compared with nothing, and are too many."""
    still = [replace(USUAL, data_time=START + n * DAY, transferred_bytes=0, pack_bytes=0) for n in range(HISTORY)]
    encrypted = {"transferred_bytes": 4 * GIB, "pack_bytes": 4 * GIB}
    assert reasons(History(tuple(still)), **encrypted) == [Reason.MANY_CHANGES]


def test_full_backup_is_compared_with_the_last_full_one() -> None:
    full = {"is_full": True, "transferred_bytes": 10 * GIB}
    assert reasons(history(), **full, pack_bytes=7 * GIB) == [Reason.INCOMPRESSIBLE]
    assert reasons(history(), **full, pack_bytes=5 * GIB) == []
    assert reasons(replace(history(), last_full=None), **full, pack_bytes=10 * GIB) == []


def test_missed_changes_raise_the_weakest_alarm() -> None:
    assert reasons(history(0), missed_changes=2) == [Reason.CHANGE_MISSED]
    assert reasons(history(), missed_changes=2, logical_bytes=GIB) == [Reason.SHRUNK, Reason.CHANGE_MISSED]


def test_open_alarm_does_not_make_an_attack_usual() -> None:
    """The accepted numbers of a backup count as usual, and the others do not."""
    attack = {"transferred_bytes": 4 * GIB, "pack_bytes": 4 * GIB}
    earlier = history()
    for is_suspicious, expected in ((True, [Reason.INCOMPRESSIBLE, Reason.MANY_CHANGES]), (False, [])):
        odd = replace(earlier.recent[-1], is_suspicious=is_suspicious, **attack)
        assert reasons(replace(earlier, recent=(*earlier.recent[:-1], odd)), **attack) == expected


EXAMPLES = settings(max_examples=30)
SIZES = st.one_of(st.just(0), st.integers(0, 4 * MIB), st.integers(0, 1 << 44))


@st.composite
def any_stats(draw: st.DrawFn) -> BackupStats:
    return BackupStats(
        data_time=START,
        is_full=draw(st.booleans()),
        logical_bytes=draw(SIZES),
        transferred_bytes=draw(SIZES),
        pack_bytes=draw(st.none() | SIZES),
        entries=draw(st.none() | st.integers(0, 10**7)),
        is_suspicious=draw(st.booleans()),
    )


def compared_with(backup: BackupStats, earlier: list[BackupStats]) -> set[Reason]:
    dated = [replace(each, data_time=START + n * DAY) for n, each in enumerate(earlier)]
    full = next((each for each in reversed(dated) if each.is_full), None)
    now = replace(backup, data_time=START + len(dated) * DAY)
    return {alarm.reason for alarm in alarms_of(ComparedBackup(now, History(tuple(dated), full)))}


@EXAMPLES
@given(any_stats(), st.lists(any_stats(), max_size=HISTORY))
def test_any_numbers_raise_alarms_in_their_order(backup: BackupStats, earlier: list[BackupStats]) -> None:
    found = compared_with(backup, earlier)
    assert found <= set(ALARMS)
    if len(earlier) < MIN_HISTORY:
        assert found <= {Reason.EMPTY}
    if backup.is_full:
        assert Reason.MANY_CHANGES not in found


@EXAMPLES
@given(any_stats(), st.lists(any_stats(), min_size=MIN_HISTORY, max_size=HISTORY))
def test_lost_data_and_files_agree_with_plain_comparisons(backup: BackupStats, earlier: list[BackupStats]) -> None:
    found = compared_with(backup, earlier)
    held_data = all(each.logical_bytes >= MIB for each in earlier)
    assert (Reason.EMPTY in found) == (held_data and backup.logical_bytes == 0)
    halved = all(backup.logical_bytes * 2 < each.logical_bytes for each in earlier)
    assert (Reason.SHRUNK in found) == (held_data and halved and backup.logical_bytes > 0)
    known = [each.entries for each in earlier if each.entries is not None]
    is_known = backup.entries is not None and len(known) >= MIN_HISTORY
    expected = is_known and all(each >= 100 and (backup.entries or 0) * 2 < each for each in known)
    assert (Reason.FEWER_ENTRIES in found) == expected


@EXAMPLES
@given(st.lists(any_stats(), min_size=MIN_HISTORY, max_size=HISTORY), st.data())
def test_backup_like_an_accepted_one_loses_nothing(earlier: list[BackupStats], data: st.DataObject) -> None:
    again = data.draw(st.sampled_from(earlier))
    lost = {Reason.EMPTY, Reason.SHRUNK, Reason.FEWER_ENTRIES}
    assert not (compared_with(again, [replace(each, is_suspicious=False) for each in earlier]) & lost)
