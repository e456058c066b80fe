"""Backups as `list` and `show` print them."""

from __future__ import annotations

from typing import Any

from cinderblock.api.mover import BackupMetadata
from cinderblock.api.quantity import format_size
from cinderblock.cli.loss_summary import summarize_losses
from cinderblock.cli.output import format_duration, format_time, pluralize
from cinderblock.format.manifest.comparison import Comparison
from cinderblock.format.manifest.reader import ManifestSummary
from cinderblock.repository.catalog import CatalogEntry


def to_wire(entry: CatalogEntry) -> dict[str, Any]:
    """Return a backup as JSON, with the field names of a VolumeBackup's status."""
    header, summary = entry.header, entry.summary
    wire: dict[str, Any] = {
        "id": entry.stored.backup_id,
        "volumeId": entry.stored.volume_id,
        "manifest": entry.stored.key,
        "readable": summary is not None,
    }
    if entry.damage is not None:
        wire |= {"damage": entry.damage.message}
    if header is not None:
        wire |= {"parentId": header.parent_id, "keyId": header.key_id}
    if summary is not None:
        wire |= {
            "description": summary.description.to_wire(),
            "objectCount": summary.object_count,
            "entries": summary.entries,
            "logicalBytes": summary.logical_bytes,
            "transferredBytes": summary.transferred_bytes,
            "renewedBytes": summary.renewed_bytes,
            "storedBytes": summary.stored_bytes,
            "uses": dict(summary.references),
            "contentDigest": summary.pins.content_digest,
        }
        if summary.comparison is not None:
            wire |= {"comparison": summary.comparison.model_dump(mode="json", by_alias=True)}
        if summary.losses:
            wire["losses"] = [loss.to_wire() for loss in summary.losses]
        if summary.unreadable_files:
            wire["unreadableFiles"] = summary.unreadable_files
            wire["unreadableExamples"] = list(summary.unreadable_examples)
    return wire


HEADINGS = ("ID", "TIME", "KIND", "DATA", "STORED", "VOLUME", "NAME")
"""Headings of `row`."""


def row(entry: CatalogEntry) -> tuple[str, ...]:
    """Return a backup as a row of a table."""
    header, summary = entry.header, entry.summary
    if header is None:
        return (entry.stored.backup_id, "?", "?", "?", "?", entry.stored.volume_id, f"(damaged: {entry.damage})")
    kind = "full" if header.parent_id is None else "incremental"
    if summary is None:
        return (header.backup_id, "?", kind, "?", "?", header.volume_id, f"(encrypted with {header.key_id})")
    return (
        header.backup_id,
        format_time(summary.description.data_timestamp),
        kind,
        format_size(summary.logical_bytes),
        format_size(summary.stored_bytes),
        _volume(summary.description),
        _name(summary),
    )


def _name(summary: ManifestSummary) -> str:
    """Return the name of a backup, and whether it lacks files."""
    name = summary.description.display_name or summary.description.backup_name
    missing = f"(lacks {pluralize(summary.unreadable_files, 'file')})" if summary.unreadable_files else ""
    return f"{name} {missing}".strip()


def _volume(description: BackupMetadata) -> str:
    """Return the name of a volume: a claim with its namespace, or a path."""
    return "/".join(filter(None, (description.namespace, description.volume_name))) or description.volume_id


def _comparison(comparison: Comparison | None) -> dict[str, str]:
    """Return how the backup found changed files, as names and values."""
    if comparison is None:
        return {}
    window = format_duration(comparison.dirty_window_seconds)
    since = f"{pluralize(comparison.since_all_read, 'backup')} ago" if comparison.since_all_read else "in this backup"
    return {
        "taken after": "unknown" if comparison.instant is None else format_time(comparison.instant),
        "window": f"{window}, {pluralize(comparison.reread_files, 'file')} read again for it",
        "full read": f"{since}, and compared" if comparison.compared else since,
        "missed": pluralize(comparison.missed_changes, "changed file") if comparison.missed_changes else "",
    }


def fields(summary: ManifestSummary) -> dict[str, str]:
    """Return a backup as names and values."""
    header, description = summary.header, summary.description
    return {
        "id": header.backup_id,
        "name": description.display_name or description.backup_name,
        "description": description.description or "",
        "volume": f"{description.volume_name} ({header.volume_id})",
        "namespace": description.namespace,
        "volume mode": description.volume_mode,
        "created": format_time(description.created_at),
        "data of": format_time(description.data_timestamp),
        "parent": header.parent_id or "none: a full backup",
        "unchanged": f"files with the same {description.change_detection}" if description.change_detection else "",
        **_comparison(summary.comparison),
        "sealed with": header.key_id or "nothing: not encrypted",
        "digest": summary.pins.content_digest,
        "entries": str(summary.entries),
        "data": format_size(summary.logical_bytes),
        "changed": format_size(summary.transferred_bytes),
        "stored": f"{format_size(summary.stored_bytes)} in {pluralize(summary.object_count, 'pack')} and the manifest",
        "lacks": _lacks(summary),
        "not kept": summarize_losses(summary.losses),
        "metadata": ", ".join(f"{name}={value}" for name, value in description.metadata.items()),
        **_origin(description),
    }


def _lacks(summary: ManifestSummary) -> str:
    if not summary.unreadable_files:
        return ""
    named = ", ".join(summary.unreadable_examples)
    return f"{pluralize(summary.unreadable_files, 'file')} that could not be read: {named}"


def _origin(description: BackupMetadata) -> dict[str, str]:
    """Return what describes the volume in another cluster. Older backups have none of it."""
    claim, driver, cluster = description.claim, description.driver, description.cluster
    origin = {"storage class": description.storage_class, "access modes": ", ".join(description.access_modes)}
    if claim is not None:
        number = "" if claim.ordinal is None else f", ordinal {claim.ordinal}"
        origin |= {
            "requested size": claim.requested_size or "",
            "attributes class": claim.volume_attributes_class or "",
            "stateful set": f"{claim.stateful_set}{number}" if claim.stateful_set else "",
            "labels": ", ".join(f"{name}={value}" for name, value in claim.labels.items()),
            "annotations": ", ".join(claim.annotations),
            "left out": ", ".join(claim.left_out),
        }
    if driver is not None:
        origin |= {"driver": driver.name, "volume handle": driver.volume_handle, "filesystem": driver.fs_type}
    if cluster is not None:
        origin |= {"cluster": cluster.uid, "release": cluster.release}
    return origin | {"copied": description.consistency or "", "written by": description.written_by or ""}
