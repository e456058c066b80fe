"""Report of a backup, from its committed manifest."""

from __future__ import annotations

from typing import Final

from cinderblock.api.mover import MoverReport, MoverTask, missed_changes_sentence
from cinderblock.format.manifest.footer import UnreadableRecord
from cinderblock.format.manifest.reader import ManifestSummary
from cinderblock.volume.omissions import Omissions

WARNINGS_LIMIT: Final = 8
"""Most warnings in a report."""


def make_report(task: MoverTask, summary: ManifestSummary, warnings: list[str]) -> MoverReport:
    """Return the report of a backup that is committed."""
    comparison = summary.comparison
    missed_changes = 0 if comparison is None else comparison.missed_changes
    return MoverReport(
        succeeded=True,
        message=missed_changes_sentence(missed_changes) if missed_changes else "",
        manifest=task.manifest,
        object_count=summary.object_count,
        logical_bytes=summary.logical_bytes,
        transferred_bytes=summary.transferred_bytes,
        renewed_bytes=summary.renewed_bytes,
        stored_bytes=summary.stored_bytes,
        reread_files=0 if comparison is None else comparison.reread_files,
        missed_changes=missed_changes,
        pins=summary.pins,
        unreadable_files=summary.unreadable_files,
        unreadable_examples=list(summary.unreadable_examples),
        losses=list(summary.losses),
        warnings=warnings[:WARNINGS_LIMIT],
    )


def change_warnings(rereads: int, vanished: int, doubtful: int) -> list[str]:
    """Return warnings about a volume that changed while it was read.

    Args:
        rereads: files that changed and were read again.
        vanished: files that vanished before they could be read.
        doubtful: large files that hide changes, and were not read as a whole.
    """
    counted = (
        (rereads, "files changed while they were read, and were read again"),
        (vanished, "files vanished before they could be read, and were left out"),
        (doubtful, "files hide changes that the next incremental backup will read: it reads all files"),
    )
    return [f"{number} {sentence}" for number, sentence in counted if number]


def unreadable_record(omissions: Omissions) -> UnreadableRecord | None:
    """Return what the manifest records of files that could not be read; None if there are none."""
    return UnreadableRecord(files=omissions.files, examples=omissions.examples) if omissions else None
