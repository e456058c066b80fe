"""The origin of a volume, as the manifest of its backup will describe it.

Users write labels and annotations, up to 256 KiB of annotations on one claim (apimachinery
``TotalAnnotationSizeLimitB``). They travel in the environment of the mover Job, so this module limits them.
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
"""Longest value to keep, in bytes of UTF-8."""
TOTAL_LIMIT: Final = 32 << 10
"""Bytes of all labels and annotations together, as the Job holds them."""
LEFT_OUT_LIMIT: Final = 50
"""Omitted keys to list; each has up to 317 characters."""
TEXT_LIMIT: Final = 1024
"""Characters of a volume handle to keep. CSI allows 128 bytes (CSI spec, "Size Limits")."""

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
"""Domains of keys by which a tool tracks the claim, or in which Kubernetes records how it was bound. A claim that is
created again must not have them: a GitOps tool would treat it as its own."""
_ORDINAL: Final = re.compile(r"-(0|[1-9][0-9]*)$")


def claim_facts(observed: ObservedBackup, claim: PersistentVolumeClaim) -> ClaimFacts:
    """Return the facts to keep about the claim."""
    labels, annotations = _without_tools(claim.metadata.labels), _without_tools(claim.metadata.annotations)
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
    """Return the facts to keep about the PersistentVolume; None if it is not a CSI volume."""
    if volume is None or volume.spec.csi is None:
        return None
    csi = volume.spec.csi
    return DriverFacts(
        name=csi.driver[:TEXT_LIMIT], volume_handle=csi.volume_handle[:TEXT_LIMIT], fs_type=csi.fs_type[:TEXT_LIMIT]
    )


def cluster_facts(observed: ObservedBackup) -> ClusterFacts | None:
    """Return the facts that identify the cluster; None if they are unknown."""
    return ClusterFacts(uid=observed.cluster_uid, release=observed.policy.release) if observed.cluster_uid else None


def _without_tools(pairs: Mapping[str, str]) -> dict[str, str]:
    """Return labels or annotations without those of tools, sorted by key."""
    return {key: pairs[key] for key in sorted(pairs) if not belongs_to_tool(key)}


def belongs_to_tool(key: str) -> bool:
    """Return whether a tool, Kubernetes or this program sets a label or an annotation with this key."""
    domain, slash, _ = key.partition("/")
    is_in_domain = any(domain == tool or domain.endswith(f".{tool}") for tool in _TOOLS)
    return key == api_labels.MANAGED_BY_LABEL or (bool(slash) and is_in_domain)


def _fitting(pairs: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Yield the pairs that fit, in order. A small pair may fit after a large one that does not."""
    remaining = TOTAL_LIMIT
    for key, value in pairs:
        size = _size(key, value)
        if len(value.encode()) <= VALUE_LIMIT and size <= remaining:
            remaining -= size
            yield key, value


def _size(key: str, value: str) -> int:
    """Return the bytes of a pair in the Job. `api.mover.task_to_env` writes each ``$`` as six bytes."""
    return len(json.dumps({key: value})) + 5 * value.count("$")


def _stateful_set(observed: ObservedBackup, claim: PersistentVolumeClaim) -> str | None:
    """Return the StatefulSet of the claim: its owner if the set deletes its claims, otherwise the owner of its pods.

    Claims of a StatefulSet are named ``<template>-<set>-<ordinal>`` (apps/v1 StatefulSet).
    """
    owners = [owner.name for owner in claim.metadata.owner_references if owner.kind == "StatefulSet"]
    fitting = [name for name in (*owners, *observed.stateful_sets) if _is_claim_of(claim.name, name)]
    return fitting[0] if fitting else None


def _is_claim_of(claim: str, stateful_set: str) -> bool:
    template_and_set = _ORDINAL.sub("", claim, count=1)
    return template_and_set != claim and template_and_set.endswith(f"-{stateful_set}")


def _ordinal(claim: str) -> int | None:
    match = _ORDINAL.search(claim)
    return int(match[1]) if match else None
