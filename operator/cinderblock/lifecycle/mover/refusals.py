"""Meanings of the words with which a cluster refuses a mover's pod or a child object, and remedies.

Admission has no codes for its causes, so only the words tell them apart. They are those of Kubernetes
(plugin/pkg/admission/limitranger, plugin/pkg/admission/resourcequota, pod-security-admission).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from cinderblock.reasons import Reason

_REFUSED: Final = Reason.MOVER_REFUSED

RESOURCES_REMEDY: Final = "Set spec.mover.resources of the BackupStore to what the namespace allows."
LABELS_REMEDY: Final = (
    "If a policy wants labels or annotations, set spec.mover.labels or spec.mover.annotations of the BackupStore."
)
RESTORED_REMEDY: Final = (
    "If a policy wants labels or annotations, set spec.labels or spec.annotations of the VolumeRestore, or mover.labels"
    " or mover.annotations of the chart."
)
OWN_POLICY_REMEDY: Final = (
    "This policy belongs to Cinderblock's chart. A webhook of the cluster may have changed the object: exempt objects"
    " with the label app.kubernetes.io/managed-by: cinderblock from it, or change admissionPolicies of the chart."
)
MINIMUM_REMEDY: Final = "Lower the minimum of the LimitRange, or set spec.size of a VolumeRestore to it."
PRIORITY_REMEDY: Final = (
    "Set spec.mover.priorityClassName of the BackupStore to a class that a quota of the namespace covers."
)

WEBHOOK_REMEDY: Final = (
    "Repair the webhook, or exempt objects with the label app.kubernetes.io/managed-by: cinderblock from it."
)

_DENIED: Final = r"denied (?:the )?request"
"""Words of ValidatingAdmissionPolicies, and of webhooks."""

_WEBHOOK_FAILED: Final = "failed calling webhook"
"""Words about a webhook that does not answer (apiserver/pkg/admission/plugin/webhook/errors)."""

_RULES: Final = (
    # Policies of charts/cinderblock/admission/operator-writes.yaml: one for each type of object.
    (rf"ValidatingAdmissionPolicy '[^']*-operator-[^']*' .*{_DENIED}: The operator ", _REFUSED, OWN_POLICY_REMEDY),
    (
        r"exceeded quota: [^,]*, requested: \S*(?:cpu|memory|ephemeral-storage|hugepages)",
        Reason.QUOTA_EXCEEDED,
        "Raise the quota, or lower spec.mover.resources of the BackupStore.",
    ),
    (r"exceeded quota", Reason.QUOTA_EXCEEDED, "Raise the quota, or free some of it."),
    (r"failed quota", Reason.QUOTA_EXCEEDED, RESOURCES_REMEDY),
    (r"status unknown for quota", Reason.QUOTA_EXCEEDED, "Kubernetes has not counted what this quota limits yet."),
    (r"insufficient quota to match these scopes", Reason.QUOTA_EXCEEDED, PRIORITY_REMEDY),
    (r"insufficient quota to consume", Reason.QUOTA_EXCEEDED, "Create a quota in the namespace that covers this."),
    (r"violates PodSecurity", Reason.POD_SECURITY_VIOLATION, "Allow baseline in the namespace, or set spec.mover."),
    (r"minimum storage usage per PersistentVolumeClaim", Reason.LIMIT_RANGE_VIOLATED, MINIMUM_REMEDY),
    (r" per PersistentVolumeClaim", Reason.LIMIT_RANGE_VIOLATED, "Raise the limit: the claim needs this size."),
    (r" per Container", Reason.LIMIT_RANGE_VIOLATED, RESOURCES_REMEDY),
    (r" per Pod", Reason.LIMIT_RANGE_VIOLATED, RESOURCES_REMEDY),
    # A LimitRange adds a default limit that is below the request of the mover.
    (r"must be less than or equal to", Reason.LIMIT_RANGE_VIOLATED, RESOURCES_REMEDY),
    # The name of a temporary claim contains a UID. A claim with another name is a restored one.
    (rf"persistentvolumeclaims \S+/(?!cinderblock-[0-9a-f-]{{36}}:).*{_DENIED}", _REFUSED, RESTORED_REMEDY),
    (_DENIED, _REFUSED, LABELS_REMEDY),
    (_WEBHOOK_FAILED, _REFUSED, WEBHOOK_REMEDY),
    (r"rror creating: ", _REFUSED, "Change the cluster so that it accepts the mover's pods."),
)
"""Patterns of the server's words, the reason that they stand for, and the remedy; the first match counts."""

_POD_NAME: Final = re.compile(r'^.*?pods? "[^"]*" is (forbidden|invalid): ', re.IGNORECASE | re.DOTALL)
"""The beginning of the Job controller's Event. Every attempt has another name, which would change the status."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A refused pod: the reason, and a message with the words of the server and the remedy."""

    reason: Reason
    message: str


def refused_pod(warning: str) -> Refusal | None:
    """Return what the newest Warning Event of a Job without pods means; None if it reports no refusal."""
    for pattern, reason, remedy in _RULES:
        if re.search(pattern, warning, re.DOTALL):
            cause = _POD_NAME.sub("", warning).strip().rstrip(".")
            return Refusal(reason, f"The cluster refuses the mover's pod: {cause}. {remedy}")
    return None


def remedy_for(message: str) -> str:
    """Return what to do about a child object that the API server refuses with this message; empty: nothing is known."""
    return next((remedy for pattern, _, remedy in _RULES if re.search(pattern, message, re.DOTALL)), "")


def is_refused_by_webhook(message: str) -> bool:
    """Return whether an object was not created because a webhook did not answer: admission comes before storage."""
    return _WEBHOOK_FAILED in message
