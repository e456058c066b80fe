"""A backup as `list` and `show` present it."""

from __future__ import annotations

from typing import Any

from cinderblock.api.mover import BackupMetadata
from cinderblock.cli.loss_summary import summarize_losses
from cinderblock.cli.output import counted, duration, moment, size
from cinderblock.format.manifest.comparison import Comparison
from cinderblock.format.manifest.reader import ManifestSummary
from cinderblock.repository.catalog import CatalogEntry


def to_wire(listed: CatalogEntry) -> dict[str, Any]:
    """A backup as JSON, under the names that a VolumeBackup's status has for the same."""
    header, summary = listed.header, listed.summary
    known: dict[str, Any] = {
        "id": listed.stored.backup_id,
        "volumeId": listed.stored.volume_id,
        "manifest": listed.stored.key,
        "readable": summary is not None,
    }
    if listed.damage is not None:
        known |= {"damage": listed.damage.message}
    if header is not None:
        known |= {"parentId": header.parent_id, "keyId": header.key_id}
    if summary is not None:
        known |= {
            "description": summary.description.to_wire(),
            "objectCount": summary.object_count,
            "entries": summary.entries,
            "logicalBytes": summary.logical_bytes,
            "transferredBytes": summary.transferred_bytes,
            "storedBytes": summary.stored_bytes,
            "uses": dict(summary.references),
            "contentDigest": summary.pins.content_digest,
        }
        if summary.comparison is not None:
            known |= {"comparison": summary.comparison.model_dump(mode="json", by_alias=True)}
        if summary.losses:
            known["losses"] = [loss.to_wire() for loss in summary.losses]
        if summary.unreadable_files:
            known["unreadableFiles"] = summary.unreadable_files
            known["unreadableExamples"] = list(summary.unreadable_examples)
    return known


HEADINGS = ("ID", "TIME", "KIND", "DATA", "STORED", "VOLUME", "NAME")
"""Of `row`."""


def row(listed: CatalogEntry) -> tuple[str, ...]:
    """A backup as a line of a table."""
    header, summary = listed.header, listed.summary
    if header is None:
        return (listed.stored.backup_id, "?", "?", "?", "?", listed.stored.volume_id, f"(damaged: {listed.damage})")
    kind = "full" if header.parent_id is None else "incremental"
    if summary is None:
        return (header.backup_id, "?", kind, "?", "?", header.volume_id, f"(sealed with {header.key_id})")
    return (
        header.backup_id,
        moment(summary.description.data_timestamp),
        kind,
        size(summary.logical_bytes),
        size(summary.stored_bytes),
        _volume(summary.description),
        _name(summary),
    )


def _name(summary: ManifestSummary) -> str:
    """What people call a backup, and whether it lacks files."""
    name = summary.description.display_name or summary.description.backup_name
    lacks = f"(lacks {counted(summary.unreadable_files, 'file')})" if summary.unreadable_files else ""
    return f"{name} {lacks}".strip()


def _volume(description: BackupMetadata) -> str:
    """What people call a volume: a claim with its namespace, or a path."""
    return "/".join(filter(None, (description.namespace, description.volume_name))) or description.volume_id


def _comparison(facts: Comparison | None) -> dict[str, str]:
    """Return how the backup found changed files, as names and values."""
    if facts is None:
        return {}
    window = duration(facts.dirty_window_seconds)
    since = f"{counted(facts.since_all_read, 'backup')} ago" if facts.since_all_read else "in this backup"
    return {
        "cut after": "not known" if facts.instant is None else moment(facts.instant),
        "window": f"{window}, {counted(facts.reread_files, 'file')} read again for it",
        "all read": f"{since}, and compared" if facts.compared else since,
        "missed": counted(facts.missed_changes, "changed file") if facts.missed_changes else "",
    }


def fields(summary: ManifestSummary) -> dict[str, str]:
    """A backup as names and values."""
    header, description = summary.header, summary.description
    return {
        "id": header.backup_id,
        "name": description.display_name or description.backup_name,
        "description": description.description or "",
        "volume": f"{description.volume_name} ({header.volume_id})",
        "namespace": description.namespace,
        "volume mode": description.volume_mode,
        "created": moment(description.created_at),
        "data of": moment(description.data_timestamp),
        "parent": header.parent_id or "none: a full backup",
        "unchanged": f"files with the same {description.change_detection}" if description.change_detection else "",
        **_comparison(summary.comparison),
        "sealed with": header.key_id or "nothing: not encrypted",
        "digest": summary.pins.content_digest,
        "entries": str(summary.entries),
        "data": size(summary.logical_bytes),
        "changed": size(summary.transferred_bytes),
        "stored": f"{size(summary.stored_bytes)} in {counted(summary.object_count, 'pack')} and the manifest",
        "lacks": _lacks(summary),
        "not kept": summarize_losses(summary.losses),
        "metadata": ", ".join(f"{name}={value}" for name, value in description.metadata.items()),
        **_origin(description),
    }


def _lacks(summary: ManifestSummary) -> str:
    if not summary.unreadable_files:
        return ""
    named = ", ".join(summary.unreadable_examples)
    return f"{counted(summary.unreadable_files, 'file')} that could not be read: {named}"


def _origin(description: BackupMetadata) -> dict[str, str]:
    """Return what a person needs to make the volume again in another cluster. Older backups hold none of it."""
    claim, driver, cluster = description.claim, description.driver, description.cluster
    told = {"storage class": description.storage_class, "access modes": ", ".join(description.access_modes)}
    if claim is not None:
        number = "" if claim.ordinal is None else f", ordinal {claim.ordinal}"
        told |= {
            "requested size": claim.requested_size or "",
            "attributes class": claim.volume_attributes_class or "",
            "stateful set": f"{claim.stateful_set}{number}" if claim.stateful_set else "",
            "labels": ", ".join(f"{name}={value}" for name, value in claim.labels.items()),
            "annotations": ", ".join(claim.annotations),
            "left out": ", ".join(claim.left_out),
        }
    if driver is not None:
        told |= {"driver": driver.name, "volume handle": driver.volume_handle, "filesystem": driver.fs_type}
    if cluster is not None:
        told |= {"cluster": cluster.uid, "release": cluster.release}
    return told | {"copied": description.consistency or "", "written by": description.written_by or ""}
