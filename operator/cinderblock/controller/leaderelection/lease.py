"""The Lease of the leader election: when a candidate may acquire it, and how it is acquired, renewed and released.

Pure. Times are seconds of the candidate's own clock, which only grows. A Lease has expired when *it has not changed for
its whole duration while the candidate watched it*, never because a time written into it lies in the past. So no clock
has to be right. (client-go's ``leaderelection`` has the same rule, and the same proportions between the times.)
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

LEASE_SECONDS = 15.0
"""For how long a Lease holds without a renewal: controller-runtime's default."""

JsonObject = dict[str, Any]


@dataclass(frozen=True, slots=True)
class LeaseTimings:
    """Seconds of the election, derived from the duration of the Lease; the names are client-go's.

    Attributes:
        lease_duration: for how long candidates respect a Lease that is not renewed.
        request_timeout: time limit of one request for the Lease.
    """

    lease_duration: float = LEASE_SECONDS
    request_timeout: float = 3.0

    @property
    def renew_deadline(self) -> float:
        """Seconds that a leader acts after it requested a renewal that was granted. The rest is the safety margin."""
        return self.lease_duration * 2 / 3

    @property
    def renew_period(self) -> float:
        """Seconds between two renewals."""
        return self.lease_duration * 2 / 15

    @property
    def retry_period(self) -> float:
        """Seconds between two attempts of a candidate, and between two attempts after a failure."""
        return self.lease_duration / 15


class ObservedLease:
    """The Lease as one candidate sees it, and since when it has not changed.

    Args:
        identity: the candidate.
        timings: the candidate's times.
    """

    def __init__(self, identity: str, timings: LeaseTimings) -> None:
        self._identity = identity
        self._timings = timings
        self._lease: JsonObject | None = None
        self._unchanged_since = 0.0

    @property
    def holder(self) -> str:
        """Identity of the holder as last observed; empty if there is none."""
        return holder_of(self._lease)

    def observe(self, lease: JsonObject | None, now: float) -> None:
        """Take note of the Lease as it was read at ``now``; None if it does not exist."""
        if lease is None and not self._is_free(now):
            # Somebody deleted a Lease that was held. Its holder may not know that yet.
            return
        if _version(lease) != _version(self._lease):
            self._unchanged_since = now
        self._lease = lease

    def may_acquire(self, now: float) -> bool:
        """Return whether the Lease belongs to this candidate or nobody, or has expired."""
        return holder_of(self._lease) == self._identity or self._is_free(now)

    def _is_free(self, now: float) -> bool:
        return not holder_of(self._lease) or now - self._unchanged_since >= _duration(self._lease, self._timings)


def holder_of(lease: JsonObject | None) -> str:
    """Return the identity of the holder; empty if there is none."""
    return str((lease or {}).get("spec", {}).get("holderIdentity") or "")


def acquired(lease: JsonObject, identity: str, timings: LeaseTimings, wall: datetime) -> JsonObject:
    """Return ``lease`` as acquired or renewed by ``identity``. resourceVersion and UID stay: they are preconditions."""
    previous = lease.get("spec", {})
    timestamp = wall.isoformat(timespec="microseconds").replace("+00:00", "Z")
    spec = {
        "holderIdentity": identity,
        "leaseDurationSeconds": max(1, round(timings.lease_duration)),
        "renewTime": timestamp,
        "acquireTime": previous.get("acquireTime", timestamp),
        "leaseTransitions": previous.get("leaseTransitions", 0),
    }
    if holder_of(lease) != identity:
        spec |= {"acquireTime": timestamp, "leaseTransitions": spec["leaseTransitions"] + bool(previous)}
    return {**lease, "spec": spec}


def released(lease: JsonObject) -> JsonObject:
    """Return ``lease`` without a holder: the next candidate that reads it may acquire it."""
    return {**lease, "spec": {**lease.get("spec", {}), "holderIdentity": "", "leaseDurationSeconds": 1}}


def _duration(lease: JsonObject | None, timings: LeaseTimings) -> float:
    """Return the duration that the holder wrote: another version of the operator may use another one."""
    return float((lease or {}).get("spec", {}).get("leaseDurationSeconds") or timings.lease_duration)


def _version(lease: JsonObject | None) -> tuple[str, str] | None:
    if lease is None:
        return None
    metadata = lease["metadata"]
    return metadata.get("uid", ""), metadata.get("resourceVersion", "")
