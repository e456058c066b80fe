"""What the manifest of a backup will say about where its volume comes from.

Users write labels and annotations, up to 256 KiB of annotations on one claim (apimachinery
``TotalAnnotationSizeLimitB``). They travel in the environment of the mover's Job, so this module limits them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from cinderblock.api import labels as api_labels
from cinderblock.api.kubernetes import PersistentVolume, PersistentVolumeClaim
from cinderblock.api.origin import ClaimFacts, ClusterFacts, DriverFacts
from cinderblock.lifecycle.observed import ObservedBackup

VALUE_LIMIT: Final = 4096
"""Most bytes of a value that is kept, in UTF-8."""
TOTAL_LIMIT: Final = 32 << 10
"""Most bytes of all labels and annotations together, as the Job holds them."""
LEFT_OUT_LIMIT: Final = 50
"""Most keys that are named as left out; each has up to 317 characters."""
TEXT_LIMIT: Final = 1024
"""Most characters of a volume handle that are kept. CSI allows 128 bytes (CSI spec, "Size Limits")."""

_TOOLS: Final = (
    "argocd.argoproj.io",
    "cinderblock.io",
    "helm.sh",
    "kubectl.kubernetes.io",
    "pv.kubernetes.io",
    "toolkit.fluxcd.io",
    "volume.beta.kubernetes.io",
    "volume.kubernetes.io",
)
"""Domains of keys by which a tool tracks the claim, or in which Kubernetes notes how it was bound. A claim that is made
again must not have them: a GitOps tool would treat it as its own."""
_ORDINAL: Final = re.compile(r"-(0|[1-9][0-9]*)$")


def claim_facts(observed: ObservedBackup, claim: PersistentVolumeClaim) -> ClaimFacts:
    """Return what is kept of the claim."""
    labels, annotations = _wanted(claim.metadata.labels), _wanted(claim.metadata.annotations)
    kept = set(_fitting([*labels.items(), *annotations.items()]))
    left_out = sorted({key for key, value in (*labels.items(), *annotations.items()) if (key, value) not in kept})
    stateful_set = _stateful_set(observed, claim)
    return ClaimFacts(
        labels={key: value for key, value in labels.items() if (key, value) in kept},
        annotations={key: value for key, value in annotations.items() if (key, value) in kept},
        left_out=left_out[:LEFT_OUT_LIMIT],
        requested_size=claim.spec.resources.requests.get("storage"),
        volume_attributes_class=claim.spec.volume_attributes_class_name or None,
        stateful_set=stateful_set,
        ordinal=_ordinal(claim.name) if stateful_set else None,
    )


def driver_facts(volume: PersistentVolume | None) -> DriverFacts | None:
    """Return what is kept of the PersistentVolume; None if it is not a CSI volume."""
    if volume is None or volume.spec.csi is None:
        return None
    csi = volume.spec.csi
    return DriverFacts(
        name=csi.driver[:TEXT_LIMIT], volume_handle=csi.volume_handle[:TEXT_LIMIT], fs_type=csi.fs_type[:TEXT_LIMIT]
    )


def cluster_facts(observed: ObservedBackup) -> ClusterFacts | None:
    """Return what identifies the cluster; None if that is not known."""
    return ClusterFacts(uid=observed.cluster_uid, release=observed.policy.release) if observed.cluster_uid else None


def _wanted(pairs: Mapping[str, str]) -> dict[str, str]:
    """Return labels or annotations without those of tools, in order of key."""
    return {key: pairs[key] for key in sorted(pairs) if not _is_a_tools(key)}


def _is_a_tools(key: str) -> bool:
    domain, slash, _ = key.partition("/")
    is_of_a_domain = any(domain == tool or domain.endswith(f".{tool}") for tool in _TOOLS)
    return key == api_labels.MANAGED_BY_LABEL or (bool(slash) and is_of_a_domain)


def _fitting(pairs: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Yield the pairs that fit, in order. A small pair may fit after a large one that does not."""
    left = TOTAL_LIMIT
    for key, value in pairs:
        size = _size(key, value)
        if len(value.encode()) <= VALUE_LIMIT and size <= left:
            left -= size
            yield key, value


def _size(key: str, value: str) -> int:
    """Return the bytes of a pair in the Job: see `model.task.to_environment`, which writes each ``$`` as six."""
    return len(json.dumps({key: value})) + 5 * value.count("$")


def _stateful_set(observed: ObservedBackup, claim: PersistentVolumeClaim) -> str | None:
    """Return the StatefulSet of the claim. Its owner names it if the set deletes its claims; otherwise pods do.

    Claims of a StatefulSet are called ``<template>-<set>-<ordinal>`` (apps/v1 StatefulSet).
    """
    owners = [owner.name for owner in claim.metadata.owner_references if owner.kind == "StatefulSet"]
    fitting = [name for name in (*owners, *observed.stateful_sets) if _is_claim_of(claim.name, name)]
    return fitting[0] if fitting else None


def _is_claim_of(claim: str, stateful_set: str) -> bool:
    template_and_set = _ORDINAL.sub("", claim, count=1)
    return template_and_set != claim and template_and_set.endswith(f"-{stateful_set}")


def _ordinal(claim: str) -> int | None:
    found = _ORDINAL.search(claim)
    return int(found[1]) if found else None
