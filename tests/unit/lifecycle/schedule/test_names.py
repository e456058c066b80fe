"""Names of VolumeBackups: deterministic, valid, and different for different volumes and schedules."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cinderblock.lifecycle.schedule import names
from cinderblock.lifecycle.schedule.names import BackupNames, is_made_by
from cinderblock.lifecycle.schedule.runs import is_made_for
from tests.support.retention.records import a_record
from tests.support.schedules.builders import cluster_schedule, schedule

TIME = names.of_time(datetime(2026, 5, 4, 12, 0, tzinfo=UTC))
SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
PART = st.from_regex(r"[ab]([ab-]{0,3}[ab])?", fullmatch=True)


def test_name_tells_schedule_volume_and_time() -> None:
    made = BackupNames(schedule("daily"), TIME)
    assert made.name("data") == "daily-data-202605041200"
    assert made.name("data", 2) == "daily-data-202605041200-r2"


def test_time_in_names_is_utc() -> None:
    assert names.of_time(datetime(2026, 5, 4, 14, 0, tzinfo=timezone(timedelta(hours=2)))) == TIME


def test_runs_without_a_time_are_told_apart() -> None:
    runs = [TIME, names.of_token("a"), names.of_token("b"), names.of_creation("uid-1"), names.of_creation("uid-2")]
    assert len({BackupNames(schedule(), run).name("data") for run in runs}) == len(runs)


def test_kinds_of_one_name_do_not_collide() -> None:
    ours = BackupNames(schedule("daily"), TIME).name("data")
    assert BackupNames(cluster_schedule("daily"), TIME).name("data") != ours


@given(first=st.tuples(PART, PART), second=st.tuples(PART, PART), cluster=st.booleans())
@settings(max_examples=300, deadline=None)
def test_names_of_different_volumes_differ(first: tuple[str, str], second: tuple[str, str], cluster: bool) -> None:
    make = cluster_schedule if cluster else schedule
    made = [BackupNames(make(name), TIME).name(claim) for name, claim in (first, second)]
    assert (made[0] == made[1]) == (first == second)


@given(
    lengths=st.tuples(st.integers(1, 253), st.integers(1, 253)),
    retry=st.integers(0, 11),
    cut=st.sampled_from(["a", "a-", "a.", "-."]),
)
@settings(max_examples=200, deadline=None)
def test_long_names_are_cut_and_stay_valid(lengths: tuple[int, int], retry: int, cut: str) -> None:
    name, claim = (f"x{cut * length}"[:length].rstrip("-.") or "x" for length in lengths)
    made = BackupNames(schedule(name), names.of_token("t")).name(claim, retry)
    assert len(made) <= 253
    assert re.fullmatch(r"[a-z0-9][a-z0-9.-]*[a-z0-9]", made)


def test_long_names_that_are_cut_alike_differ() -> None:
    made = {BackupNames(schedule("daily"), TIME).name("x" * 250 + end) for end in "abc"}
    assert len(made) == 3


def test_label_of_a_long_name_is_a_hash() -> None:
    assert names.label_of(schedule("daily").name) == "daily"
    long = names.label_of(schedule("d" * 64).name)
    assert len(long) <= 63
    assert long != names.label_of(schedule("d" * 65).name)


AT = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)


@given(
    names_=st.tuples(st.integers(1, 253), st.integers(1, 253)),
    retry=st.integers(0, 11),
    run=st.sampled_from([TIME, names.of_token("a"), names.of_creation("uid-1")]),
    cluster=st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_name_that_a_schedule_gave_is_known(names_: tuple[int, int], retry: int, run: str, cluster: bool) -> None:
    name, claim = ("x" * length for length in names_)
    owner = (cluster_schedule if cluster else schedule)(name)
    assert names.is_given_by(owner, BackupNames(owner, run).name(claim, retry), claim, AT)


@pytest.mark.parametrize(
    "name",
    [
        "copy",
        "daily-data-202605041201",
        "daily-data-202605041200-copy",
        "daily-logs-202605041200",
        "nightly-data-202605041200",
        "daily-data-now-a",
        "daily-data-now-0123abcd-2",
        "daily-data-202605041200-r123",
    ],
)
def test_other_names_are_not_those_of_the_schedule(name: str) -> None:
    assert not names.is_given_by(schedule("daily"), name, "data", AT)


def test_name_with_a_time_needs_that_time() -> None:
    assert not names.is_given_by(schedule("daily"), "daily-data-202605041200", "data", None)


def test_backup_that_was_made_before_its_time_is_not_the_schedules() -> None:
    made = a_record(name="daily-data-202605041200", scheduled_for=AT, created=AT)
    assert is_made_by(schedule("daily"), made)
    assert is_made_by(schedule("daily"), replace(made, created=AT - timedelta(minutes=4)))
    assert not is_made_by(schedule("daily"), replace(made, created=AT - timedelta(hours=1)))
    assert is_made_by(schedule("daily"), replace(made, name="x", volume_name=""))


def test_runs_and_retention_agree_about_backups_before_their_time() -> None:
    for minutes in range(0, 90, 3):
        made = a_record(name="daily-data-202605041200", scheduled_for=AT, created=AT - timedelta(minutes=minutes))
        assert is_made_by(schedule("daily"), made) == is_made_for(made, AT), minutes
