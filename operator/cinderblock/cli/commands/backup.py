"""``cinderblock backup``"""

from __future__ import annotations

import argparse
import json
import os
import sys
import uuid
from contextlib import ExitStack, closing, nullcontext
from datetime import UTC, datetime, timedelta
from typing import Final

from cinderblock.api.file_policies import Unreadable
from cinderblock.api.layout import manifest_key
from cinderblock.api.mover import BackupMetadata, MoverOperation, MoverReport, MoverTask, StoreLocation, VolumeMode
from cinderblock.api.origin import Consistency
from cinderblock.api.quantity import format_size
from cinderblock.api.v1alpha1.store import ChangeDetection, Compression, CompressionAlgorithm
from cinderblock.archiver.archiver import run_backup
from cinderblock.archiver.source import open_source
from cinderblock.cli.arguments import (
    add_active_key,
    add_json,
    add_keys,
    add_store,
    add_unsealed,
    add_writing,
    count,
    dirty_window,
    identifier,
    past_time,
    path,
    text,
)
from cinderblock.cli.exit_codes import INCOMPLETE, SUCCESS
from cinderblock.cli.local_volume import default_volume_id, is_read_only, volume_bytes, volume_mode, volume_name
from cinderblock.cli.loss_summary import summarize_losses
from cinderblock.cli.output import pluralize, print_fields, print_json, warn
from cinderblock.cli.progress_bar import progress_for
from cinderblock.cli.store_arguments import keys_from, location_from, open_from
from cinderblock.errors import InvalidInput, KeyUnavailable, SealBroken
from cinderblock.format.crypto.keyring import KeyRing
from cinderblock.repository.catalog import Catalog, CatalogEntry
from cinderblock.store.counted import CountedStore
from cinderblock.store.retrying import CLI_RETRIES

DESCRIPTION: Final = """\
Back up a directory, an image file or a block device. The container is created if it does not exist.

Every backup is complete: it can be restored in one step. An incremental backup uploads only the changes since the
newest backup of the same volume and shares the other data with it.

Changed files are found by size, mtime, ctime and inode number. Files with a timestamp within the dirty window before
the last backup, or later, are always read again, because a snapshot can contain their new timestamps with their old
data. Every 30th incremental backup reads all files (--compare-every). Without ctime (--change-detection), a change that
preserves size and mtime is missed until then.

Files that change while they are read are read again, but a backup cannot know whether a program has written all of its
data. If that matters, stop the program or back up a snapshot. For a snapshot, give --data-timestamp.
"""

EPILOG: Final = """\
examples:
  cinderblock backup /srv/data --to s3://backups/laptop
  cinderblock backup /srv/data --to s3://backups/laptop --incremental --limit-rate 10M
  cinderblock backup /mnt/snapshot --to s3://backups/vm --incremental --data-timestamp 2026-01-31T04:00:00Z
  cinderblock backup /dev/vg/snapshot --to s3://backups --endpoint-url https://minio.example:9000 --ca-file ca.crt
  head -c 32 /dev/urandom | base64 > 2026.key
  cinderblock backup disk.img --to s3://backups/images --encryption-key-file 2026.key
  cinderblock backup /srv/data --to s3://backups/laptop --resume 6f1c2a70-...      (after an interruption)
"""

_UNKNOWN_AGE_WARNING: Final = (
    "Cannot determine the age of the data: the path is on a read-only mount, which may be an older snapshot. This "
    "backup, if incremental, and the next one read all files. Give --data-timestamp to avoid that."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument("path", metavar="PATH", type=path, help="directory, image file or block device")
    parser.add_argument(
        "--incremental", action="store_true", help="upload only changes since the last backup of the volume"
    )
    parser.add_argument(
        "--volume-id", metavar="ID", type=identifier, help="id of the volume (default: derived from host name and path)"
    )
    parser.add_argument("--name", type=text, help="name of the backup")
    parser.add_argument("--description", type=text, help="description of the backup")
    parser.add_argument(
        "--compression-level",
        type=int,
        choices=range(20),
        default=1,
        metavar="0-19",
        help="zstd level, 0 for none (default: 1)",
    )
    parser.add_argument(
        "--change-detection",
        choices=[detection.value for detection in ChangeDetection],
        default=ChangeDetection.SIZE_MTIME_CTIME_INODE.value,
        metavar="WHAT",
        help="attributes that identify unchanged files, which --incremental does not read; default SizeMtimeCtimeInode."
        " Use SizeMtimeCtime, SizeMtimeInode or SizeMtime where the others are not stable, as in copies and on some"
        " network file systems. Content reads all files",
    )
    parser.add_argument(
        "--skip-unreadable",
        action="store_true",
        help=f"skip files that cannot be read, list them, and exit with code {INCOMPLETE}; has no effect on devices and"
        " image files",
    )
    parser.add_argument(
        "--dirty-window",
        metavar="DURATION",
        type=dirty_window,
        default=timedelta(hours=1),
        help="--incremental reads files again whose timestamps are less than this older than the last backup's data, or"
        " newer (default: 1h, at least 2m)",
    )
    parser.add_argument(
        "--compare-every",
        metavar="N",
        type=count,
        default=30,
        help="read and compare all files in every Nth incremental backup (default: 30)",
    )
    parser.add_argument(
        "--renew-below",
        type=int,
        choices=range(91),
        default=50,
        metavar="0-90",
        help="--incremental uploads the rest of a deleted backup's pack again if less than this percentage of it is in"
        " use; 0 for never (default: 50)",
    )
    parser.add_argument(
        "--data-timestamp",
        metavar="TIME",
        type=past_time,
        help="creation time of the snapshot in PATH, in RFC 3339 (default: now; unknown on a read-only mount)",
    )
    parser.add_argument(
        "--resume",
        metavar="ID",
        type=identifier,
        help="continue this interrupted backup, and upload only what is missing",
    )
    add_store(parser, "--to")
    add_writing(parser)
    add_keys(parser)
    add_unsealed(parser)
    add_active_key(parser, "encrypts the backup")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Create a backup. Raises what `run_backup` raises."""
    keys = keys_from(arguments, arguments.active_key)
    description = describe(arguments)
    if not _is_age_known(arguments, description):
        warn(_UNKNOWN_AGE_WARNING)
    with ExitStack() as stack:
        source = open_source(description.volume_mode, os.path.realpath(arguments.path), _unreadable(arguments))
        stack.enter_context(source)
        if arguments.incremental:
            source.begin()
        location = location_from(arguments, writes=True, create=True)
        store = stack.enter_context(closing(CountedStore(open_from(arguments, location, CLI_RETRIES))))
        parent = _parent(Catalog(store, location.prefix, keys), description) if arguments.incremental else None
        must_be_sealed = keys is not None and not arguments.allow_unsealed
        task = make_task(arguments, description, location, keys, parent, must_be_sealed=must_be_sealed)
        bounded = task.volume_mode is VolumeMode.BLOCK
        _announce(description, as_json=arguments.json)
        try:
            with progress_for("backup", as_json=arguments.json, bounded=bounded) as progress:
                report = run_backup(task, store, keys, progress, lambda *_: nullcontext(source))
        except (InvalidInput, KeyUnavailable, SealBroken):
            # Nothing was stored, or --resume would fail in the same way.
            raise
        except BaseException:
            warn(
                f"the backup is incomplete. To continue it, repeat the command with --resume {description.backup_id}."
                f" To remove its data: cinderblock delete {description.backup_id} --volume-id {description.volume_id}"
            )
            raise
    report = report.model_copy(update={"requests": store.counts.requests})
    _print_report(description, report, as_json=arguments.json)
    return INCOMPLETE if report.unreadable_files else SUCCESS


def _announce(description: BackupMetadata, *, as_json: bool) -> None:
    """Print the ids before anything is stored: a person needs them if the process is killed."""
    if as_json:
        ids = {"backupId": description.backup_id, "volumeId": description.volume_id}
        print(json.dumps(ids), file=sys.stderr, flush=True)
    else:
        warn(f"started backup {description.backup_id} of volume {description.volume_id}")


def describe(arguments: argparse.Namespace) -> BackupMetadata:
    """Return the metadata for the manifest. Raises InvalidInput if the path cannot be backed up."""
    real_path = os.path.realpath(arguments.path)
    mode = volume_mode(real_path)
    now = datetime.now(UTC)
    return BackupMetadata(
        backup_id=arguments.resume or str(uuid.uuid4()),
        volume_id=arguments.volume_id or default_volume_id(real_path),
        volume_name=volume_name(real_path),
        volume_mode=mode,
        volume_bytes=volume_bytes(real_path, mode),
        display_name=arguments.name,
        description=arguments.description,
        created_at=now,
        data_timestamp=arguments.data_timestamp or now,
        incremental=arguments.incremental,
        consistency=Consistency.LIVE,
    )


def make_task(
    arguments: argparse.Namespace,
    description: BackupMetadata,
    location: StoreLocation,
    keys: KeyRing | None,
    parent: CatalogEntry | None,
    *,
    must_be_sealed: bool,
) -> MoverTask:
    """Return the task that the operator would give to a mover."""
    level = arguments.compression_level
    pins = parent.summary.pins if parent is not None and parent.summary is not None else None
    return MoverTask(
        operation=MoverOperation.BACKUP,
        store=location,
        volume_mode=description.volume_mode,
        path=os.path.realpath(arguments.path),
        backup=description.model_copy(update={"incremental": parent is not None}),
        parent_manifest=parent.stored.key if parent is not None else None,
        expected_parent=parent.stored.expected(sealed=must_be_sealed, pins=pins) if parent is not None else None,
        change_detection=ChangeDetection(arguments.change_detection),
        dirty_window_seconds=int(arguments.dirty_window.total_seconds()),
        compare_every=arguments.compare_every,
        renew_below=arguments.renew_below,
        data_instant=_earliest_data_time(arguments, description),
        manifest=manifest_key(location.prefix, description.volume_id, description.backup_id),
        compression=Compression(level=level) if level else Compression(algorithm=CompressionAlgorithm.NONE),
        sealed=keys is not None,
        unreadable=_unreadable(arguments),
        active_key=arguments.active_key,
    )


def _earliest_data_time(arguments: argparse.Namespace, description: BackupMetadata) -> datetime | None:
    """Return the earliest possible time of the data; None if it is unknown."""
    if not _is_age_known(arguments, description):
        return None
    return min(description.created_at, description.data_timestamp)


def _is_age_known(arguments: argparse.Namespace, description: BackupMetadata) -> bool:
    """Return whether the age of the data is known. A read-only mount may be an old snapshot."""
    is_tree = description.volume_mode is VolumeMode.FILESYSTEM
    return arguments.data_timestamp is not None or not (is_tree and is_read_only(os.path.realpath(arguments.path)))


def _unreadable(arguments: argparse.Namespace) -> Unreadable:
    return Unreadable.SKIP if arguments.skip_unreadable else Unreadable.FAIL


def _parent(catalog: Catalog, description: BackupMetadata) -> CatalogEntry | None:
    """Return the parent for an incremental backup; None for a full backup, such as the first of a volume."""
    newest, damaged = catalog.find_newest(description.volume_id)
    for error in damaged:
        warn(f"cannot use a backup as the parent: {error.message}")
    if newest is None or newest.stored.backup_id == description.backup_id:
        warn("creating a full backup, because there is no earlier backup of this volume")
        return None
    return newest


def _print_report(description: BackupMetadata, report: MoverReport, *, as_json: bool) -> None:
    digest = report.pins.content_digest if report.pins else ""
    if as_json:
        ids = {"backupId": description.backup_id, "volumeId": description.volume_id, "contentDigest": digest}
        print_json(ids | report.to_wire())
        return
    for warning in filter(None, [report.message, *report.warnings]):
        warn(warning)
    if report.unreadable_files:
        examples = ", ".join(report.unreadable_examples)
        warn(f"the backup lacks {pluralize(report.unreadable_files, 'file')} that could not be read: {examples}")
    print_fields(
        {
            "backup": description.backup_id,
            "volume": description.volume_id,
            "data": format_size(report.logical_bytes),
            "changed": format_size(report.transferred_bytes),
            "read again": f"{pluralize(report.reread_files, 'file')} in the dirty window"
            if report.reread_files
            else "",
            "missed": pluralize(report.missed_changes, "changed file") if report.missed_changes else "",
            "not kept": summarize_losses(report.losses),
            "stored": f"{format_size(report.stored_bytes)} in {pluralize(report.object_count, 'pack')}, "
            f"with {pluralize(report.requests, 'request')}",
            "digest": digest,
        }
    )
