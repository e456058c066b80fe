"""Durations in the notation of Kubernetes."""

from __future__ import annotations

from datetime import timedelta

import pytest

from cinderblock.api.duration import from_timedelta, to_timedelta

WRITTEN = [("0s", 0), ("59s", 59), ("2m5s", 125), ("1h", 3600), ("1h5s", 3605), ("1h30m", 5400), ("100h1s", 360001)]


@pytest.mark.parametrize(("text", "seconds"), WRITTEN)
def test_text_is_parsed_as_a_duration(text: str, seconds: int) -> None:
    assert to_timedelta(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "5", "m", "1.5h", "1s1m", "-1s", "1d"])
def test_text_that_is_not_a_duration_is_rejected(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        to_timedelta(text)


@pytest.mark.parametrize(("text", "seconds"), WRITTEN)
def test_duration_is_formatted_without_zero_units(text: str, seconds: int) -> None:
    assert from_timedelta(timedelta(seconds=seconds)) == text


@pytest.mark.parametrize(("seconds", "text"), [(1.9, "1s"), (-5, "0s")])
def test_duration_is_rounded_down_and_never_negative(seconds: float, text: str) -> None:
    assert from_timedelta(timedelta(seconds=seconds)) == text
