"""Random backups and rules for property tests of retention."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from hypothesis import strategies as st

from cinderblock.api.v1alpha1.backup import BackupPhase
from cinderblock.api.v1alpha1.retention import FailedRetention, GoneRetention, Retention
from cinderblock.lifecycle.backup_record import BackupRecord
from cinderblock.lifecycle.retention.context import RetentionContext
from tests.support.retention.records import NOW, a_record

COUNTS = ("keep_last", "keep_hourly", "keep_daily", "keep_weekly", "keep_monthly", "keep_yearly")
_AGES = st.one_of(st.integers(0, 72), st.integers(0, 24 * 800)).map(lambda hours: timedelta(hours=hours))
_RARELY = st.sampled_from([False] * 7 + [True])


def counts(**fixed: Any) -> st.SearchStrategy[dict[str, Any]]:
    """Return keep rules by count, at least one of them."""
    drawn = st.fixed_dictionaries({name: st.integers(0, 5) for name in COUNTS})
    return drawn.filter(lambda given: any(given.values())).map(lambda given: given | fixed)


@st.composite
def retentions(draw: st.DrawFn) -> Retention:
    """Return rules with any of their parts, without grace and brake."""
    given = draw(counts())
    durations = st.none() | st.sampled_from(["0s", "6h", "3d", "40d", "400d"])
    return Retention(
        **given,
        keep_within=draw(durations),
        min_age=draw(st.sampled_from(["0s", "24h"])),
        max_age=draw(durations),
        failed=FailedRetention(last=draw(st.integers(0, 2))),
        gone=GoneRetention(after=draw(durations)),
        grace="0s",
        max_per_day=0,
    )


@st.composite
def records(draw: st.DrawFn, uid: str, *, is_plain: bool = False) -> BackupRecord:
    """Return a backup with this UID: of one of two volumes and two stores, and sometimes in any odd state.

    With ``is_plain``, it is a complete backup of one volume.
    """
    age = draw(_AGES)
    if is_plain:
        return a_record(uid, NOW - age)
    created = NOW - age + timedelta(minutes=draw(st.integers(0, 90)))
    phases = [BackupPhase.AVAILABLE] * 6 + [*BackupPhase]
    return a_record(
        uid,
        NOW - age,
        volume_id=draw(st.sampled_from(["c-1"] * 12 + ["c-2"] * 6 + [""])),
        store_name=draw(st.sampled_from(["default", "default", "other"])),
        phase=draw(st.sampled_from(phases)),
        created=min(created, NOW),
        data_time=draw(st.sampled_from([NOW - age] * 6 + [None, NOW + timedelta(hours=1)])),
        parent_id=draw(st.sampled_from(["", "", "b-0", "b-3"])),
        is_held=draw(_RARELY),
        keeps_data=draw(_RARELY),
        is_imported=draw(_RARELY),
        is_being_deleted=draw(_RARELY),
        locked_until=draw(st.sampled_from([None] * 8 + [NOW - timedelta(days=1), NOW + timedelta(days=9)])),
        is_suspicious=draw(_RARELY),
        is_damaged=draw(_RARELY),
        is_forgotten=draw(_RARELY),
        lacks_files=draw(_RARELY),
        has_unknown_alarm=draw(st.sampled_from([False] * 20 + [True])),
        ended=draw(st.sampled_from([None, None, created, created + timedelta(days=5)])),
    )


@st.composite
def fleets(draw: st.DrawFn, *, is_plain: bool = False) -> list[BackupRecord]:
    """Return up to 25 backups in any order."""
    made = [draw(records(f"b-{number}", is_plain=is_plain)) for number in range(draw(st.integers(0, 25)))]
    return draw(st.permutations(made))


@st.composite
def _of_others(draw: st.DrawFn, number: int) -> BackupRecord:
    """Return a backup that another schedule or a person made, mostly a suspicious one."""
    maker = draw(st.sampled_from(["", "BackupSchedule/hourly"]))
    made = draw(records(f"o-{number}"))
    return replace(made, schedule=maker, is_suspicious=draw(st.sampled_from([True, True, False])))


@st.composite
def contexts(draw: st.DrawFn) -> RetentionContext:
    """Return what else a plan depends on."""
    ids = st.frozensets(st.sampled_from([f"b-{number}" for number in range(25)]), max_size=2)
    volumes = [("shop", "c-1"), ("shop", "c-2")]
    return RetentionContext(
        used_ids=draw(ids),
        volumes=draw(st.none() | st.frozensets(st.sampled_from(volumes))),
        verified_at=dict.fromkeys(draw(ids), NOW),
        others=tuple(draw(_of_others(number)) for number in range(draw(st.integers(0, 4)))),
    )
