"""The Lease that says which replica acts: what it means to a candidate, and how it is taken, kept and given back.

Pure. Instants are seconds of the candidate's own clock, which only grows: a Lease has run out when *it has not changed
for its whole length while we looked*, and never because a time written into it lies in the past. So it does not matter
whose clock is wrong. (client-go's ``leaderelection`` has the rule, and the proportions of the times.)
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

LEASE_SECONDS = 15.0
"""How long a Lease holds without being renewed: controller-runtime's default."""

JsonObject = dict[str, Any]


@dataclass(frozen=True, slots=True)
class LeaseTimings:
    """Seconds of the election, all from the length of the Lease.

    Attributes:
        lease: for how long others leave a Lease alone that is not renewed.
        call: time limit of one request for the Lease.
    """

    lease_duration: float = LEASE_SECONDS
    call: float = 3.0

    @property
    def renew_deadline(self) -> float:
        """For how long a leader acts after it asked for a renewal that was granted: the rest is the safety margin."""
        return self.lease_duration * 2 / 3

    @property
    def renew_period(self) -> float:
        """Between two renewals."""
        return self.lease_duration * 2 / 15

    @property
    def look(self) -> float:
        """Between two looks of a candidate, and between two attempts after a failed one."""
        return self.lease_duration / 15


class ObservedLease:
    """What one candidate has seen of the Lease, and since when it has not changed."""

    def __init__(self, own: str, timing: LeaseTimings) -> None:
        self._own = own
        self._timing = timing
        self._seen: JsonObject | None = None
        self._since = 0.0

    @property
    def holder(self) -> str:
        """Who holds the Lease, as far as was seen; empty: nobody."""
        return holder_of(self._seen)

    def observe(self, lease: JsonObject | None, now: float) -> None:
        """Take note of the Lease as it was read at ``now``; None: there is none."""
        if lease is None and not self._is_free(now):
            # Somebody has removed a Lease that was held: the holder may not know it yet.
            return
        if _version(lease) != _version(self._seen):
            self._since = now
        self._seen = lease

    def may_acquire(self, now: float) -> bool:
        """Whether the Lease is ours, nobody's, or has run out."""
        return holder_of(self._seen) == self._own or self._is_free(now)

    def _is_free(self, now: float) -> bool:
        return not holder_of(self._seen) or now - self._since >= _length(self._seen, self._timing)


def holder_of(lease: JsonObject | None) -> str:
    """Identity of the holder; empty: nobody."""
    return str((lease or {}).get("spec", {}).get("holderIdentity") or "")


def acquired(lease: JsonObject, own: str, timing: LeaseTimings, wall: datetime) -> JsonObject:
    """``lease`` as held by us from now on, or still. Its resourceVersion and UID stay: they are the precondition."""
    before = lease.get("spec", {})
    stamp = wall.isoformat(timespec="microseconds").replace("+00:00", "Z")
    spec = {
        "holderIdentity": own,
        "leaseDurationSeconds": max(1, round(timing.lease_duration)),
        "renewTime": stamp,
        "acquireTime": before.get("acquireTime", stamp),
        "leaseTransitions": before.get("leaseTransitions", 0),
    }
    if holder_of(lease) != own:
        spec |= {"acquireTime": stamp, "leaseTransitions": spec["leaseTransitions"] + bool(before)}
    return {**lease, "spec": spec}


def released(lease: JsonObject) -> JsonObject:
    """``lease`` as nobody's: the next candidate that looks may take it."""
    return {**lease, "spec": {**lease.get("spec", {}), "holderIdentity": "", "leaseDurationSeconds": 1}}


def _length(lease: JsonObject | None, timing: LeaseTimings) -> float:
    """How long the holder may go on without a renewal: what it has promised, which another version may do otherwise."""
    return float((lease or {}).get("spec", {}).get("leaseDurationSeconds") or timing.lease_duration)


def _version(lease: JsonObject | None) -> tuple[str, str] | None:
    if lease is None:
        return None
    metadata = lease["metadata"]
    return metadata.get("uid", ""), metadata.get("resourceVersion", "")
