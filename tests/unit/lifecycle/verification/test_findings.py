"""One verification says something about each backup of a volume."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cinderblock.api.v1alpha1.verification import (
    PartsRead,
    VerificationLevel,
    VerificationResult,
    VerificationSummary,
)
from cinderblock.lifecycle.verification.findings import Finding, Subject, is_damage, summarize

AT = datetime(2026, 5, 4, 12, tzinfo=UTC)
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
STRUCTURE, DATA, RESTORE = VerificationLevel
VERIFIED, DAMAGED, UNVERIFIED = VerificationResult
PACK, OTHER = "packs/v/a/1-0", "packs/v/b/1-0"


def finding(day: int = 0, part: int = 1, parts: int = 1, level: VerificationLevel = DATA, **fields: object) -> Finding:
    at = AT + day * DAY
    return replace(Finding(level, at, at - HOUR, "chosen", part=part, parts=parts), **fields)  # type: ignore[arg-type]


def damage(*affected: str, objects: tuple[str, ...] = (PACK,), day: int = 0, **fields: object) -> Finding:
    found = {"damaged": objects, "damaged_count": len(objects)}
    named = {"affected": frozenset(affected), "affected_count": len(affected)}
    return finding(day, **(found | named | fields))  # type: ignore[arg-type]


def after(*findings: Finding, backup: str = "chosen", existed: bool = True) -> VerificationSummary | None:
    """Return what is known about a backup after findings, each of which is recorded twice."""
    summary: VerificationSummary | None = None
    for found in findings:
        subject = Subject(backup, f"backups/v/{backup}.manifest", existed, summary)
        once = summarize(subject, found)
        if once is None:
            continue
        assert summarize(replace(subject, summary=once), found) == once, "recording a finding again changes something"
        summary = once
    return summary


def known(*findings: Finding, backup: str = "chosen", existed: bool = True) -> VerificationSummary:
    summary = after(*findings, backup=backup, existed=existed)
    assert summary is not None
    return summary


def test_structure_alone_verifies_nothing() -> None:
    summary = known(finding(level=STRUCTURE))
    assert (summary.result, summary.level, summary.last_verified_at) == (UNVERIFIED, STRUCTURE, None)


def test_one_reading_of_everything_verifies_the_chosen_backup() -> None:
    summary = known(finding())
    assert (summary.result, summary.level, summary.coverage) == (VERIFIED, DATA, 100)
    assert summary.last_verified_at == summary.last_checked_at == AT


def test_every_part_must_be_read() -> None:
    readings = [finding(day, part, 3) for day, part in enumerate((2, 3, 1))]
    assert [known(*readings[:n]).coverage for n in (1, 2, 3)] == [33, 66, 100]
    assert [known(*readings[:n]).result for n in (1, 2, 3)] == [UNVERIFIED, UNVERIFIED, VERIFIED]


def test_verified_backup_stays_verified_and_keeps_its_time() -> None:
    summary = known(finding(), finding(1, level=STRUCTURE), finding(2, complete=False))
    assert (summary.result, summary.last_verified_at, summary.last_checked_at) == (VERIFIED, AT, AT + 2 * DAY)


def test_unfinished_reading_covers_nothing() -> None:
    summary = known(finding(complete=False))
    assert (summary.result, summary.parts, summary.level) == (UNVERIFIED, None, STRUCTURE)


def test_another_number_of_parts_begins_again_unless_everything_was_read() -> None:
    assert known(finding(part=2, parts=3), finding(1, part=1, parts=2)).coverage == 50
    assert known(finding(), finding(1, part=1, parts=2)).coverage == 100


def test_restore_verifies_at_once() -> None:
    summary = known(finding(level=RESTORE))
    assert (summary.result, summary.level, summary.coverage) == (VERIFIED, RESTORE, None)
    assert known(finding(level=RESTORE), finding(1)).level is RESTORE


def test_reading_covers_other_backups_but_not_their_manifests() -> None:
    other = known(finding(), backup="other")
    assert (other.coverage, other.result, other.level) == (100, UNVERIFIED, None)


def test_backup_that_was_chosen_once_is_verified_by_readings_of_others() -> None:
    own = replace(finding(level=STRUCTURE), backup_id="other")
    assert known(own, finding(1), backup="other").result is VERIFIED


@pytest.mark.parametrize(
    ("found", "existed"),
    [
        (finding(level=STRUCTURE), True),
        (finding(), False),
        (finding(complete=False), True),
        (finding(knows_all=False), True),
    ],
    ids=["structure", "made later", "not complete", "some manifests unreadable"],
)
def test_finding_says_nothing_about_other_backups(found: Finding, *, existed: bool) -> None:
    assert after(found, backup="other", existed=existed) is None


def test_damage_is_named_for_every_affected_backup() -> None:
    for backup in ("chosen", "other"):
        summary = known(finding(), damage("chosen", "other", day=1), backup=backup)
        assert (summary.result, summary.level, summary.coverage) == (DAMAGED, None, 0)
        assert (summary.objects, summary.damaged_objects, summary.damaged_at) == ([PACK], 1, AT + DAY)


def test_backups_beside_the_damage_are_covered() -> None:
    assert known(damage("other")).result is VERIFIED
    assert known(damage("chosen"), backup="other").coverage == 100


def test_damaged_manifest_is_named_only_for_its_own_backup() -> None:
    keys = ("backups/v/chosen.manifest", "backups/v/other.manifest")
    assert known(damage("chosen", "other", objects=keys)).objects == [keys[0]]


def test_damage_adds_up_until_everything_was_read_well() -> None:
    first, second = damage("chosen", part=1, parts=2), damage("chosen", objects=(OTHER,), day=1, part=2, parts=2)
    both = known(first, second)
    assert (both.objects, both.damaged_objects, both.damaged_at) == ([PACK, OTHER], 2, AT + DAY)
    assert known(first, second, finding(2, 1, 2)).result is DAMAGED
    healed = known(first, second, finding(2, 1, 2), finding(3, 2, 2))
    assert (healed.result, healed.objects, healed.damaged_at) == (VERIFIED, [], None)


def test_same_damage_keeps_the_time_when_it_was_found() -> None:
    assert known(damage("chosen"), damage("chosen", day=3)).damaged_at == AT


def test_pack_that_is_back_ends_the_damage_that_structure_found() -> None:
    lost = damage("chosen", level=STRUCTURE)
    assert known(lost, finding(1, level=STRUCTURE)).result is UNVERIFIED
    assert known(damage("chosen"), finding(1, level=STRUCTURE)).result is DAMAGED, "its bytes were not read"
    assert known(lost, damage("chosen", day=1), finding(2, level=STRUCTURE)).result is DAMAGED


@pytest.mark.parametrize("level", VerificationLevel)
def test_damage_stays_that_was_found_while_the_verification_ran(level: VerificationLevel) -> None:
    lost = damage("chosen", "other", day=1, level=STRUCTURE)
    running = finding(2, level=level, began=AT)
    for backup in ("chosen", "other"):
        assert known(lost, running, backup=backup) == known(lost, backup=backup)
        parts = [finding(2, 1, 2, level=level, began=AT), finding(3, 2, 2)]
        assert known(lost, *parts, backup=backup).result is not VERIFIED, "no part of it counts"
    assert known(lost, finding(3, level=RESTORE)).result is VERIFIED


def test_failed_check_stays_until_a_drill_passes() -> None:
    failed = finding(0, level=RESTORE, affected=frozenset({"chosen"}), affected_count=1)
    rot, lost = damage("chosen", day=1), damage("chosen", day=1, level=STRUCTURE)
    only_failed = known(failed)
    assert (only_failed.result, only_failed.check_failed_at, only_failed.damaged_objects) == (DAMAGED, AT, 0)
    for healed in ([failed, rot, finding(2)], [failed, lost, finding(2)], [rot, failed, finding(2)]):
        summary = known(*healed)
        assert (summary.result, summary.level, summary.check_failed_at) == (DAMAGED, None, AT)
        assert (summary.objects, summary.damaged_objects, summary.damaged_at) == ([], 0, AT)
        passed = known(*healed, finding(3, level=RESTORE))
        assert (passed.result, passed.check_failed_at, passed.damaged_at) == (VERIFIED, None, None)
    assert known(failed, rot).check_failed_at == AT, "damaged objects do not hide it"


def test_lost_manifest_stays_a_damage_until_its_backup_is_chosen() -> None:
    lost = replace(damage("other", objects=("backups/v/other.manifest",)), backup_id="other")
    assert known(lost, finding(1), backup="other").result is DAMAGED
    assert known(lost, replace(finding(1), backup_id="other"), backup="other").result is VERIFIED


def test_restore_ends_a_damage() -> None:
    summary = known(damage("chosen"), finding(1, level=RESTORE))
    assert (summary.result, summary.objects, summary.damaged_objects) == (VERIFIED, [], None)


def test_backups_that_may_be_affected_are_no_longer_verified() -> None:
    many = damage("a", affected_count=30)
    other = known(replace(finding(level=RESTORE), backup_id="other"), many, backup="other")
    assert (other.result, other.level) == (UNVERIFIED, None)
    assert after(many, backup="other") is None, "nothing was known before"
    assert known(many).result is VERIFIED, "the chosen backup is always named if it is affected"


def test_objects_are_bounded_and_counted() -> None:
    days = [damage("chosen", objects=tuple(f"packs/v/a/{day}-{n}" for n in range(8)), day=day) for day in range(4)]
    summary = known(*days)
    assert (len(summary.objects), summary.damaged_objects) == (20, 28), "the last 8 may contain 4 of the third day"
    unnamed = replace(damage("chosen", day=9), damaged_count=100)
    assert known(unnamed).damaged_objects == 100


@pytest.mark.parametrize(("size", "sure"), [(11, 22), (20, 40)])
def test_same_damage_of_many_objects_counts_once(size: int, sure: int) -> None:
    parts = [tuple(f"packs/v/{part}/1-{n}" for n in range(size)) for part in (1, 2)]
    days = [damage("chosen", objects=parts[day % 2], day=day, part=day % 2 + 1, parts=2) for day in range(8)]
    summaries = [known(*days[: day + 1]) for day in range(8)]
    assert [summary.damaged_objects for summary in summaries] == [size, *[sure] * 7]
    assert {summary.damaged_at for summary in summaries[1:]} == {AT + DAY}, "a full backup of day 2 stays a parent"


_PACKS = st.frozensets(st.integers(0, 70), min_size=1, max_size=50)


@given(st.lists(_PACKS, min_size=1, max_size=8))
def test_no_more_objects_are_counted_than_were_found(rounds: list[frozenset[int]]) -> None:
    found: set[int] = set()
    for day, packs in enumerate(rounds):
        found |= packs
        days = [
            damage(
                "chosen", objects=tuple(f"packs/v/a/1-{n}" for n in sorted(some))[:20], day=at, damaged_count=len(some)
            )
            for at, some in enumerate(rounds[: day + 1])
        ]
        summary = known(*days)
        assert summary.damaged_objects is not None
        assert max(len(packs), len(summary.objects)) <= summary.damaged_objects <= len(found)


def test_no_damage_is_claimed_about_removed_backups() -> None:
    assert is_damage(damage("a", "b"), {"a"})
    assert not is_damage(damage("a", "b"), {"a", "b"})
    assert is_damage(damage("a", "b", affected_count=3), {"a", "b"})
    assert is_damage(damage(objects=(PACK,)), {"a"}), "no backup is named"
    assert not is_damage(finding(), set())


_FINDINGS = st.lists(
    st.one_of(
        st.builds(lambda p: finding(part=p, parts=3), st.integers(1, 3)),
        st.builds(lambda p: damage("chosen", part=p, parts=3), st.integers(1, 3)),
        st.just(finding(level=STRUCTURE)),
        st.just(damage("chosen", level=STRUCTURE)),
        st.just(finding(complete=False)),
        st.just(damage("other")),
        st.just(damage("other", affected_count=30)),
    ),
    max_size=12,
)


@given(_FINDINGS)
def test_verified_means_that_all_was_read_well_since_the_last_damage(findings: list[Finding]) -> None:
    """A slow oracle: read only the findings after the last damage of the backup."""
    dated = [
        replace(found, at=AT + number * DAY, began=AT + number * DAY - HOUR) for number, found in enumerate(findings)
    ]
    summary = after(*dated)
    since = dated[max((n + 1 for n, f in enumerate(dated) if "chosen" in f.affected), default=0) :]
    read = {
        part for f in since if f.level is DATA and f.complete for part in (range(1, 4) if f.parts == 1 else [f.part])
    }
    if summary is not None and summary.result is VERIFIED:
        assert read == {1, 2, 3}
        assert "chosen" not in dated[-1].affected
    if dated and "chosen" in dated[-1].affected:
        assert summary is not None
        assert summary.result is DAMAGED


def test_order_of_parts_does_not_matter() -> None:
    results = {known(*(finding(day, p, 3) for day, p in enumerate(order))).result for order in permutations((1, 2, 3))}
    assert results == {VERIFIED}
    assert PartsRead(parts=3, last=1, last_at=AT).read == []


def test_each_level_shows_when_it_was_last_passed() -> None:
    """A verification of level Structure after one of level Data makes the data no younger."""
    summary = known(finding(0), finding(5, level=STRUCTURE), finding(6, level=RESTORE), finding(7, level=STRUCTURE))
    assert summary.level is RESTORE
    assert summary.level_times() == {STRUCTURE: AT + 7 * DAY, DATA: AT, RESTORE: AT + 6 * DAY}
    other = known(finding(0, level=STRUCTURE, backup_id="other"), finding(3), backup="other")
    assert other.level_times() == {STRUCTURE: AT, DATA: AT + 3 * DAY}


def test_parts_count_when_all_of_them_were_read() -> None:
    parts = [finding(day, part=day + 1, parts=3) for day in range(3)]
    assert DATA not in known(*parts[:2]).level_times()
    assert known(*parts).level_times()[DATA] == AT + 2 * DAY


def test_damage_ends_what_levels_have_shown() -> None:
    assert known(finding(0), finding(1, level=RESTORE), damage("chosen", day=2)).level_times() == {}
