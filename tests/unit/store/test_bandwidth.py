"""A bandwidth limit holds for all threads together, over any time, without bursts."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from hypothesis import given
from hypothesis import strategies as st

from cinderblock.store.bandwidth import TokenBucket, no_throttle, throttle_for


class Line:
    """A clock that moves only during sleep, and a record of the bytes that moved."""

    def __init__(self) -> None:
        self.now = 50.0
        self.moved: list[tuple[float, int]] = []

    def sleep(self, seconds: float) -> None:
        """Advance the clock."""
        self.now += seconds

    def send(self, bucket: TokenBucket, count: int) -> None:
        """Request, wait, and send."""
        bucket.take(count)
        self.moved.append((self.now, count))


def bucket_on(line: Line, rate: int) -> TokenBucket:
    """Return a bucket that uses the clock of the line."""
    return TokenBucket(rate, clock=lambda: line.now, sleep=line.sleep)


@given(
    st.integers(65536, 10**9),
    st.lists(st.tuples(st.integers(0, 2**26), st.floats(0, 3)), min_size=1, max_size=40),
)
def test_in_no_interval_is_more_sent_than_the_limit_allows(rate: int, sends: list[tuple[int, float]]) -> None:
    line = Line()
    bucket = bucket_on(line, rate)
    began = line.now
    for count, idle in sends:
        line.send(bucket, count)
        line.now += idle
    starts = [began, *(moment for moment, _ in line.moved)]
    for number, start in enumerate(starts[:-1]):
        later = [count for moment, count in line.moved[number:] if moment >= start]
        end = line.moved[-1][0]
        # Idle time allows a later burst of at most a twentieth of a second's worth.
        assert sum(later[1:]) <= rate * (end - start + 0.05) * 1.000001 + 1


def test_long_transfer_takes_the_time_that_the_limit_gives_it() -> None:
    line = Line()
    bucket = bucket_on(line, 1_000_000)
    for _ in range(640):
        line.send(bucket, 16_384)
    assert abs(line.now - 50.0 - 640 * 16_384 / 1_000_000) < 0.1


def test_slices_leave_evenly() -> None:
    line = Line()
    bucket = bucket_on(line, 1_000_000)
    for _ in range(100):
        line.send(bucket, 16_384)
    pauses = [after - before for (before, _), (after, _) in zip(line.moved[5:], line.moved[6:], strict=False)]
    assert all(abs(pause - 0.016384) < 1e-6 for pause in pauses)


def test_idle_time_is_not_saved_up() -> None:
    line = Line()
    bucket = bucket_on(line, 1_000_000)
    line.now += 3600
    began = line.now
    for _ in range(100):
        line.send(bucket, 10_000)
    assert line.now - began > 0.9


def test_threads_share_one_limit() -> None:
    bucket = TokenBucket(2_000_000)
    began = time.monotonic()
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(bucket.take, [10_000] * 64))
    assert time.monotonic() - began > 64 * 10_000 / 2_000_000 - 0.06


def test_no_limit_costs_nothing() -> None:
    assert throttle_for(None) is no_throttle
    assert throttle_for(1000) is not no_throttle
