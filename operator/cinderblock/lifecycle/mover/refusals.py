"""Meanings of the words with which a cluster refuses a mover's pod or a child object, and remedies.

Admission has no codes for its causes, so only the words tell them apart. They are those of Kubernetes
(plugin/pkg/admission/limitranger, plugin/pkg/admission/resourcequota, pod-security-admission).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from cinderblock.reasons import Reason

RESOURCES_REMEDY: Final = "Set spec.mover.resources of the BackupStore to what the namespace allows."
LABELS_REMEDY: Final = (
    "If a policy wants labels or annotations, set spec.mover.labels or spec.mover.annotations of the BackupStore."
)

_RULES: Final = (
    ("exceeded quota", Reason.QUOTA_EXCEEDED, "Raise the quota, or lower spec.mover.resources of the BackupStore."),
    ("failed quota", Reason.QUOTA_EXCEEDED, RESOURCES_REMEDY),
    ("violates PodSecurity", Reason.POD_SECURITY_VIOLATION, "Allow baseline in the namespace, or set spec.mover."),
    ("per PersistentVolumeClaim", Reason.LIMIT_RANGE_VIOLATED, "Raise the limit: the claim needs this size."),
    (" per Container", Reason.LIMIT_RANGE_VIOLATED, RESOURCES_REMEDY),
    (" per Pod", Reason.LIMIT_RANGE_VIOLATED, RESOURCES_REMEDY),
    # A LimitRange adds a default limit that is below the request of the mover.
    ("must be less than or equal to", Reason.LIMIT_RANGE_VIOLATED, RESOURCES_REMEDY),
    ("denied request", Reason.MOVER_REFUSED, LABELS_REMEDY),
    ("denied the request", Reason.MOVER_REFUSED, LABELS_REMEDY),
    ("rror creating: ", Reason.MOVER_REFUSED, "Change the cluster so that it accepts the mover's pods."),
)
"""Words of the server, the reason that they stand for, and the remedy; the first match counts."""

_POD_NAME: Final = re.compile(r'^.*?pods? "[^"]*" is (forbidden|invalid): ', re.IGNORECASE | re.DOTALL)
"""The beginning of the Job controller's Event. Every attempt has another name, which would change the status."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A refused pod: the reason, and a message with the words of the server and the remedy."""

    reason: Reason
    message: str


def refused_pod(warning: str) -> Refusal | None:
    """Return what the newest Warning Event of a Job without pods means; None if it reports no refusal."""
    for words, reason, remedy in _RULES:
        if words in warning:
            cause = _POD_NAME.sub("", warning).strip().rstrip(".")
            return Refusal(reason, f"The cluster refuses the mover's pod: {cause}. {remedy}")
    return None


def remedy_for(message: str) -> str:
    """Return what to do about a child object that the API server refuses with this message; empty: nothing is known."""
    return next((remedy for words, _, remedy in _RULES if words in message), "")
