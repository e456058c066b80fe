"""Whether the clock by which retention would remove backups can be believed.

A clock that is ahead makes every backup look old. So the API server's clock must tell the same time.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from cinderblock.api.utc import utc
from cinderblock.lifecycle.retention.times import CLOCK_TOLERANCE
from cinderblock.lifecycle.retention.verdict import Judgement, Verdict

_DIFFERS = (
    "Retention does nothing: the operator's clock is {difference} {way} that of the API server. Synchronize the clocks"
    " of their nodes."
)
_CREATED_LATER = (
    "Retention does nothing: VolumeBackup {namespace}/{name} was created at {created}, which is in the future. The"
    " operator's clock is behind, or that of the API server was ahead. Synchronize the clocks of their nodes. If they"
    " are right now, wait until that time, or delete the VolumeBackup."
)


def difference(now: datetime, server_time: datetime | None) -> str:
    """Return how the operator's clock differs from that of the API server; empty if it does not, or if nobody knows.

    Args:
        now: the present, by the operator's clock.
        server_time: the present, by that of the API server; None: not known.
    """
    if server_time is None or abs(now - utc(server_time)) <= CLOCK_TOLERANCE:
        return ""
    seconds = now - utc(server_time)
    return _DIFFERS.format(difference=_rounded(abs(seconds)), way="ahead of" if seconds > timedelta(0) else "behind")


def created_later(verdicts: Iterable[Verdict]) -> str:
    """Return which backup was created in the future, so that nothing was judged; empty if that is not so."""
    unjudged = [verdict.backup for verdict in verdicts if verdict.judgement is Judgement.CLOCK_BEHIND]
    if not unjudged:
        return ""
    newest = max(unjudged, key=lambda record: (utc(record.created), record.uid))
    created = utc(newest.created).isoformat()
    return _CREATED_LATER.format(namespace=newest.namespace, name=newest.name, created=created)


def _rounded(difference: timedelta) -> str:
    """Return a duration in a unit in which it changes rarely, so that the status does not change all the time."""
    for unit, seconds in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if difference.total_seconds() >= 2 * seconds:
            return f"{round(difference.total_seconds() / seconds)} {unit}"
    return "some time"
