"""``cinderblock backup``"""

from __future__ import annotations

import argparse
import os
import uuid
from contextlib import ExitStack, closing, nullcontext
from datetime import UTC, datetime, timedelta
from typing import Final

from cinderblock.api.layout import manifest_key
from cinderblock.api.losses import Unreadable
from cinderblock.api.mover import BackupMetadata, MoverOperation, MoverReport, MoverTask, StoreLocation, VolumeMode
from cinderblock.api.origin import Consistency
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
    dirty_window,
    identifier,
    past_instant,
    path,
    repetitions,
    text,
)
from cinderblock.cli.exit_codes import INCOMPLETE, SUCCESS
from cinderblock.cli.local_volume import default_volume_id, is_read_only, volume_bytes, volume_mode, volume_name
from cinderblock.cli.loss_summary import summarize_losses
from cinderblock.cli.output import counted, print_fields, print_json, size, warn
from cinderblock.cli.progress_bar import progress_for
from cinderblock.cli.store_arguments import keys_from, location_from, open_from
from cinderblock.errors import InvalidInput, KeyUnavailable, SealBroken
from cinderblock.format.crypto.keyring import KeyRing
from cinderblock.repository.catalog import Catalog, CatalogEntry
from cinderblock.store.counted import CountedStore
from cinderblock.store.retrying import CLI_RETRIES

DESCRIPTION: Final = """\
Back up a directory, an image file or a block device. The container is created if it does not exist.

A backup is complete in itself. An incremental one sends only what has changed since the newest backup of the same
volume and shares the rest with it; it is restored in the same way, in one step.

Size, mtime, ctime and inode number show which files have changed. Files that were stamped within the dirty window
before the data of the last backup, or later, are read again in any case: a snapshot can hold their new timestamps and
their old data. Every 30th incremental backup reads all files (--compare-every). Without ctime (--change-detection), a
change that keeps size and mtime is missed until then.

What changes while it is read is read again; what a program has half written is backed up half written. Back up a
snapshot, or stop the program, if that matters. With a snapshot, give --data-timestamp.
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

_OF_UNKNOWN_AGE: Final = (
    "Cannot tell how old the data are: the path lies on a read-only mount, which may be an older snapshot. Incremental "
    "backups of it read all files, and so does the next one. Give --data-timestamp to avoid that."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument("path", metavar="PATH", type=path, help="directory, image file or block device")
    parser.add_argument("--incremental", action="store_true", help="send only what changed since the last backup")
    parser.add_argument(
        "--volume-id", metavar="ID", type=identifier, help="default: made from the host's name and the path"
    )
    parser.add_argument("--name", type=text, help="a name for people")
    parser.add_argument("--description", type=text, help="a description for people")
    parser.add_argument(
        "--compression-level", type=int, choices=range(20), default=1, metavar="0-19", help="0: none (default: 1)"
    )
    parser.add_argument(
        "--change-detection",
        choices=[detection.value for detection in ChangeDetection],
        default=ChangeDetection.SIZE_MTIME_CTIME_INODE.value,
        metavar="WHAT",
        help="which files --incremental does not read again: those whose size, mtime, ctime and inode number are as "
        "before (SizeMtimeCtimeInode, the default); SizeMtimeCtime, SizeMtimeInode or SizeMtime where others change "
        "by themselves, as in copies and on some network file systems; none (Content)",
    )
    parser.add_argument(
        "--skip-unreadable",
        action="store_true",
        help=f"leave out files that cannot be read or described, name them, and end with exit code {INCOMPLETE}; never "
        "of a device or an image",
    )
    parser.add_argument(
        "--dirty-window",
        metavar="DURATION",
        type=dirty_window,
        default=timedelta(hours=1),
        help="--incremental reads a file again if it was stamped less than this before the data of the last backup, or "
        "later (default: 1h, at least 2m)",
    )
    parser.add_argument(
        "--compare-every",
        metavar="N",
        type=repetitions,
        default=30,
        help="every Nth incremental backup reads all files and compares them (default: 30; 1: each one does)",
    )
    parser.add_argument(
        "--data-timestamp",
        metavar="TIME",
        type=past_instant,
        help="when the snapshot that is backed up was taken, in RFC 3339 (default: now; on a read-only mount: unknown)",
    )
    parser.add_argument(
        "--resume", metavar="ID", type=identifier, help="go on with an interrupted backup: send only what is missing"
    )
    add_store(parser, "--to")
    add_writing(parser)
    add_keys(parser)
    add_unsealed(parser)
    add_active_key(parser, "seals the backup")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Back up. Raises what `run_backup` raises."""
    keys = keys_from(arguments, arguments.active_key)
    description = describe(arguments)
    if not _knows_instant(arguments, description):
        warn(_OF_UNKNOWN_AGE)
    with ExitStack() as stack:
        source = open_source(description.volume_mode, os.path.realpath(arguments.path), _unreadable(arguments))
        stack.enter_context(source)
        if arguments.incremental:
            source.begin()
        location = location_from(arguments, create=True)
        store = stack.enter_context(closing(CountedStore(open_from(arguments, location, CLI_RETRIES))))
        parent = _parent(Catalog(store, location.prefix, keys), description) if arguments.incremental else None
        must_be_sealed = keys is not None and not arguments.allow_unsealed
        task = make_task(arguments, description, location, keys, parent, must_be_sealed=must_be_sealed)
        bounded = task.volume_mode is VolumeMode.BLOCK
        try:
            with progress_for("backup", as_json=arguments.json, bounded=bounded) as progress:
                report = run_backup(task, store, keys, progress, lambda *_: nullcontext(source))
        except (InvalidInput, KeyUnavailable, SealBroken):
            # Raised before anything is stored, or of what --resume would find again.
            raise
        except BaseException:
            warn(
                f"the backup is not complete: --resume {description.backup_id} goes on where it ended, and cinderblock"
                f" delete {description.backup_id} --volume-id {description.volume_id} removes what is stored of it"
            )
            raise
    report = report.model_copy(update={"requests": store.counts.requests})
    _tell(description, report, as_json=arguments.json)
    return INCOMPLETE if report.unreadable_files else SUCCESS


def describe(arguments: argparse.Namespace) -> BackupMetadata:
    """What the manifest will say. Raises InvalidInput if the path is nothing that can be backed up."""
    where = os.path.realpath(arguments.path)
    mode = volume_mode(where)
    now = datetime.now(UTC)
    return BackupMetadata(
        backup_id=arguments.resume or str(uuid.uuid4()),
        volume_id=arguments.volume_id or default_volume_id(where),
        volume_name=volume_name(where),
        volume_mode=mode,
        volume_bytes=volume_bytes(where, mode),
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
    """The task as the operator would give it to a mover."""
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
        data_instant=_instant(arguments, description),
        manifest=manifest_key(location.prefix, description.volume_id, description.backup_id),
        compression=Compression(level=level) if level else Compression(algorithm=CompressionAlgorithm.NONE),
        sealed=keys is not None,
        unreadable=_unreadable(arguments),
        active_key=arguments.active_key,
    )


def _instant(arguments: argparse.Namespace, description: BackupMetadata) -> datetime | None:
    """Return the earliest time at which the data can have been cut; None if it is unknown."""
    if not _knows_instant(arguments, description):
        return None
    return min(description.created_at, description.data_timestamp)


def _knows_instant(arguments: argparse.Namespace, description: BackupMetadata) -> bool:
    """Return whether it is known when the data were cut. A read-only mount may hold an old snapshot."""
    is_tree = description.volume_mode is VolumeMode.FILESYSTEM
    return arguments.data_timestamp is not None or not (is_tree and is_read_only(os.path.realpath(arguments.path)))


def _unreadable(arguments: argparse.Namespace) -> Unreadable:
    return Unreadable.SKIP if arguments.skip_unreadable else Unreadable.FAIL


def _parent(catalog: Catalog, description: BackupMetadata) -> CatalogEntry | None:
    """Backup to build on. Without one the backup is a full one: a first run need not be told apart."""
    newest, damaged = catalog.find_newest(description.volume_id)
    for error in damaged:
        warn(f"passed over as a parent: {error.message}")
    if newest is None or newest.stored.backup_id == description.backup_id:
        warn("there is no backup of this volume to build on: making a full one")
        return None
    return newest


def _tell(description: BackupMetadata, report: MoverReport, *, as_json: bool) -> None:
    digest = report.pins.content_digest if report.pins else ""
    if as_json:
        ids = {"backupId": description.backup_id, "volumeId": description.volume_id, "contentDigest": digest}
        print_json(ids | report.to_wire())
        return
    for warning in filter(None, [report.message, *report.warnings]):
        warn(warning)
    if report.unreadable_files:
        named = ", ".join(report.unreadable_examples)
        warn(f"the backup lacks {counted(report.unreadable_files, 'file')} that could not be read: {named}")
    print_fields(
        {
            "backup": description.backup_id,
            "volume": description.volume_id,
            "data": size(report.logical_bytes),
            "changed": size(report.transferred_bytes),
            "read again": f"{counted(report.reread_files, 'file')} stamped within the dirty window"
            if report.reread_files
            else "",
            "missed": counted(report.missed_changes, "changed file") if report.missed_changes else "",
            "not kept": summarize_losses(report.losses),
            "stored": f"{size(report.stored_bytes)} in {counted(report.object_count, 'pack')}, "
            f"with {counted(report.requests, 'request')}",
            "digest": digest,
        }
    )
