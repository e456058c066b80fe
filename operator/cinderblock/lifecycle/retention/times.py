"""Durations of retention."""

from __future__ import annotations

from datetime import timedelta

CLOCK_TOLERANCE = timedelta(minutes=5)
"""Difference between two clocks that is not an error: those of the operator, the API server and a CSI driver."""
DAY = timedelta(hours=24)
