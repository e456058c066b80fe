"""The times of cron expressions: what is accepted, days on which clocks change, and long gaps."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cinderblock.errors import InvalidInput
from cinderblock.lifecycle.schedule.cron import STEPS, Cron, parse, past_times
from cinderblock.reasons import Reason
from tests.support.schedules import cron_oracle

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
EXPRESSIONS = (
    *("30 2 * * *", "30 1 * * *", "0 3 * * *", "*/15 * * * *", "30 * * * *", "0,30 1,2,3 * * *", "15 */2 * * *"),
    *("0 2 * * sun", "45 1 * * *", "0 1-3 * * *", "5 2 1,15 * mon"),
)
CHANGES = {
    "Europe/Berlin": ["2026-03-29", "2026-10-25"],
    "America/New_York": ["2026-03-08", "2026-11-01"],
    "Australia/Lord_Howe": ["2026-04-05", "2026-10-04"],
    "Africa/Casablanca": ["2026-02-15", "2026-03-22"],
    "Asia/Kolkata": ["2026-05-05"],
    "America/Sao_Paulo": ["2018-02-18", "2018-11-04"],
}
"""Days on which the clocks of six zones change, or an ordinary one where they never do."""
LEFT_OUT = {
    ("Australia/Lord_Howe", "30 * * * *"): {"2026-04-04T15:00Z", "2026-10-03T15:30Z"},
    ("Australia/Lord_Howe", "15 */2 * * *"): {"2026-04-04T15:45Z"},
}
"""Times that cronsim leaves out where clocks change by half an hour."""


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def until(cron: Cron, since: datetime, end: datetime) -> list[datetime]:
    found: list[datetime] = []
    for at in cron.after(since):
        if at > end:
            break
        found.append(at)
    return found


@pytest.mark.parametrize(("zone", "day"), [(zone, day) for zone, days in CHANGES.items() for day in days])
def test_times_around_changes_of_clocks_are_those_of_debian(zone: str, day: str) -> None:
    begin = utc(day) - DAY
    for expression in EXPRESSIONS:
        found = until(Cron(expression, zone), begin, begin + 3 * DAY)
        expected = cron_oracle.times(expression, zone, begin, begin + 3 * DAY)
        left_out = LEFT_OUT.get((zone, expression), set())
        assert [at for at in expected if f"{at:%Y-%m-%dT%H:%MZ}" not in left_out] == found, expression


@pytest.mark.parametrize(
    ("expression", "zone", "day", "expected"),
    [
        ("30 2 * * *", "Europe/Berlin", "2026-03-29", "2026-03-29T01:00"),
        ("30 2 * * *", "Europe/Berlin", "2026-10-25", "2026-10-25T00:30"),
        ("30 2 * * *", "America/New_York", "2026-03-08", "2026-03-08T07:00"),
        ("30 1 * * *", "America/New_York", "2026-11-01", "2026-11-01T05:30"),
        ("15 2 * * *", "Australia/Lord_Howe", "2026-10-04", "2026-10-03T15:30"),
        ("45 1 * * *", "Australia/Lord_Howe", "2026-04-05", "2026-04-04T14:45"),
        ("30 2 * * *", "Africa/Casablanca", "2026-02-15", "2026-02-15T01:30"),
        ("30 2 * * *", "Africa/Casablanca", "2026-03-22", "2026-03-22T02:00"),
        ("30 2 * * *", "Asia/Kolkata", "2026-05-05", "2026-05-04T21:00"),
        ("30 0 * * *", "America/Sao_Paulo", "2018-11-04", "2018-11-04T03:00"),
    ],
)
def test_time_on_a_day_with_a_change_of_clocks(expression: str, zone: str, day: str, expected: str) -> None:
    begin = utc(day) - 14 * HOUR
    [first, *_] = until(Cron(expression, zone), begin, begin + 2 * DAY)
    assert first == utc(expected)


@given(
    expression=st.sampled_from(EXPRESSIONS),
    zone=st.sampled_from(sorted(CHANGES)),
    day=st.integers(0, 700),
    seconds=st.integers(0, 3 * 86400),
)
@settings(max_examples=60, deadline=None)
def test_next_time_does_not_depend_on_where_the_search_begins(
    expression: str, zone: str, day: int, seconds: int
) -> None:
    cron, begin = Cron(expression, zone), utc("2026-01-01") + day * DAY
    instant = begin + timedelta(seconds=seconds)
    following = next(at for at in until(cron, begin - DAY, begin + 60 * DAY) if at > instant)
    assert cron.next_after(instant) == following


@pytest.mark.parametrize(
    ("given_text", "fields"),
    [
        ("@hourly", "0 * * * *"),
        ("@Daily", "0 0 * * *"),
        ("@weekly", "0 0 * * 0"),
        ("@monthly", "0 0 1 * *"),
        ("@yearly", "0 0 1 1 *"),
        ("0  2\t* * mon-FRI", "0 2 * * mon-FRI"),
        ("0 0 1 jan *", "0 0 1 jan *"),
        ("0 0 29 2 *", "0 0 29 2 *"),
        ("5/10 * * * 7", "5/10 * * * 7"),
    ],
)
def test_accepted_expressions(given_text: str, fields: str) -> None:
    assert parse(given_text, "Etc/UTC").expression == fields


@pytest.mark.parametrize(
    "expression",
    [
        *("", "* * * *", "* * * * * *", "0 0 2 * * *", "@reboot", "@annually-random", "@midnight", "H 4 * * *"),
        *("? * * * *", "0 0 L * *", "0 0 LW * *", "0 0 * * 5L", "0 0 * * 1#2", "0 0 15W * *", "R * * * *"),
        *("60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 8", "*/0 * * * *", "5-1 * * * *"),
        *("1,,2 * * * *", "-1 * * * *", "a b c d e", "0 0 30 2 *", "0 0 31 4,6 *", "٣ * * * *", "TZ=UTC 0 2 * * *"),
        *("CRON_TZ=UTC 0 2 * *", "mon * * * *", "* * * mon *", "1.5 * * * *", "*" * 60),
    ],
)
def test_refused_expressions(expression: str) -> None:
    with pytest.raises(InvalidInput, match="is not a cron expression") as caught:
        parse(expression, "Etc/UTC")
    assert caught.value.reason == Reason.INVALID_SCHEDULE


@pytest.mark.parametrize("zone", ["Europe/Atlantis", "Europe", "../etc/passwd", "/etc/localtime", "", "UTC+25", "a\0b"])
def test_unknown_zones_are_refused(zone: str) -> None:
    with pytest.raises(InvalidInput, match="is not a known time zone") as caught:
        parse("@daily", zone)
    assert caught.value.reason == Reason.INVALID_TIME_ZONE


@given(text=st.text(max_size=30))
@settings(max_examples=100, deadline=None)
def test_any_text_is_accepted_or_refused_with_a_reason(text: str) -> None:
    refused = None
    try:
        assert parse(text, "Etc/UTC").next_after(utc("2026-01-01")) is not None
    except InvalidInput as error:
        refused = error.reason
    assert refused in (None, Reason.INVALID_SCHEDULE)


@pytest.mark.parametrize(
    ("expression", "interval"),
    [
        ("* * * * *", timedelta(minutes=1)),
        ("*/7 * * * *", timedelta(minutes=4)),
        ("0 2 * * *", DAY),
        ("0 0,1 1 * *", HOUR),
        ("0 0 * * 1-5", DAY),
        ("0 0 1 1 *", 365 * DAY),
        ("0 0 29 2 *", 1461 * DAY),
    ],
)
def test_interval_is_the_shortest_distance(expression: str, interval: timedelta) -> None:
    assert Cron(expression, "Europe/Berlin").interval() == interval


@given(
    expression=st.sampled_from([*EXPRESSIONS, "* * * * *", "* * 1 1 *", "0 0 1 1 *"]),
    zone=st.sampled_from(["Etc/UTC", "Europe/Berlin", "Africa/Casablanca"]),
    since=st.integers(0, 400 * 86400),
    seconds=st.integers(0, 5 * 86400),
)
@settings(max_examples=60, deadline=None)
def test_past_times_are_those_of_the_iteration(expression: str, zone: str, since: int, seconds: int) -> None:
    cron, begin = Cron(expression, zone), utc("2026-01-01") + timedelta(seconds=since)
    end = begin + timedelta(seconds=seconds)
    times, past = until(cron, begin, end), past_times(cron, begin, end)
    assert past.newest == (times[-1] if times else None)
    assert past.earlier == (times[0] if len(times) > 1 else None)
    assert past.count == (max(0, len(times) - 1) if past.is_counted else STEPS)


def test_year_without_an_operator_does_not_visit_each_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    visited = 0
    whole = Cron.after

    def counted(self: Cron, instant: datetime):  # type: ignore[no-untyped-def]
        nonlocal visited
        for at in whole(self, instant):
            visited += 1
            yield at

    monkeypatch.setattr(Cron, "after", counted)
    past = past_times(Cron("* * * * *"), utc("2025-01-01"), utc("2026-01-01T12:34:56"))
    assert past.newest == utc("2026-01-01T12:34")
    assert not past.is_counted
    assert visited < 2 * STEPS


def test_newest_time_is_found_after_a_long_pause_of_a_dense_day() -> None:
    past = past_times(Cron("* * 1 1 *"), utc("2020-06-01"), utc("2026-12-05"))
    assert past.newest == utc("2026-01-01T23:59")
