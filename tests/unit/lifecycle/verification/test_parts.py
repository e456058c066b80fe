"""Which part of a volume's data is read next."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from cinderblock.api.v1alpha1.verification import PartsRead
from cinderblock.lifecycle.verification.parts import next_part

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def read(part: int, day: int, parts: int = 28) -> PartsRead:
    return PartsRead(parts=parts, last=part, last_at=NOW + day * DAY)


def test_part_after_the_last_one_follows() -> None:
    assert next_part(28, [read(5, 1), read(4, 0)], NOW) == 6
    assert next_part(28, [read(28, 1)], NOW) == 1


def test_reads_of_another_division_do_not_count() -> None:
    assert next_part(28, [read(5, 1), read(2, 9, parts=3)], NOW) == 6


def test_parts_follow_one_another_without_any_memory() -> None:
    days = [next_part(28, [], NOW + day * DAY) for day in range(28)]
    assert sorted(days) == list(range(1, 29))


@given(st.integers(1, 40), st.lists(st.booleans(), min_size=1, max_size=200))
def test_missed_and_failed_runs_skip_nothing(parts: int, runs: list[bool]) -> None:
    """Each part is read again after as many completed runs as there are parts, whatever fails in between."""
    last: list[PartsRead] = []
    done: list[int] = []
    for day, completes in enumerate(runs):
        part = next_part(parts, last, NOW + day * DAY)
        assert 1 <= part <= parts
        if completes:
            done.append(part)
            last = [read(part, day, parts)]
    for start in range(len(done) - parts + 1):
        assert sorted(done[start : start + parts]) == list(range(1, parts + 1))
