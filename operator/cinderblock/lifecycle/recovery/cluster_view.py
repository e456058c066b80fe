"""The new cluster, as far as a recovery depends on it."""

from __future__ import annotations

from dataclasses import dataclass

ClaimKey = tuple[str, str]
"""Namespace in the new cluster, and name, of a claim."""


@dataclass(frozen=True, slots=True)
class ClusterView:
    """The parts of the new cluster that matter.

    Attributes:
        namespaces: its namespaces.
        claims: its claims.
        classes: its StorageClasses; None: unknown.
        default_class: the default one; None: there is none.
        deleting: those of its claims that are being deleted.
    """

    namespaces: frozenset[str]
    claims: frozenset[ClaimKey]
    classes: frozenset[str] | None
    default_class: str | None
    deleting: frozenset[ClaimKey] = frozenset()
