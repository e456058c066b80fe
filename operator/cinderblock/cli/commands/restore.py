"""``cinderblock restore``"""

from __future__ import annotations

import argparse
import os
import stat
from contextlib import closing
from typing import Final

from cinderblock.api.file_policies import Fidelity
from cinderblock.api.mover import BackupMetadata, MoverOperation, MoverReport, MoverTask, StoreLocation, VolumeMode
from cinderblock.api.pins import ExpectedBackup
from cinderblock.api.quantity import format_size
from cinderblock.cli.arguments import (
    add_as_of,
    add_expected_digest,
    add_json,
    add_keys,
    add_store,
    add_unsealed,
    identifier,
    path,
)
from cinderblock.cli.exit_codes import SUCCESS
from cinderblock.cli.loss_summary import summarize_losses
from cinderblock.cli.output import print_fields, print_json, warn
from cinderblock.cli.progress_bar import progress_for
from cinderblock.cli.store_arguments import keys_from, location_from, open_from
from cinderblock.errors import IntegrityError, InvalidInput, TargetError
from cinderblock.format.crypto.keyring import KeyRing
from cinderblock.format.manifest.reader import ManifestReader
from cinderblock.repository.catalog import Catalog
from cinderblock.repository.chunk_reader import ChunkReader
from cinderblock.repository.progress import ProgressCallback
from cinderblock.restorer.restorer import open_manifest, verify_first_chunk, write_target
from cinderblock.restorer.selection import SelectedTarget, Selection
from cinderblock.restorer.target import open_target
from cinderblock.store.base import ObjectStore
from cinderblock.store.counted import CountedStore
from cinderblock.store.retrying import CLI_RETRIES
from cinderblock.volume.tree.walk import LOST_FOUND

DESCRIPTION: Final = """\
Restore a backup. Every byte is verified before it is written.

The target of a directory must be missing or empty, and the target of an image file must be missing. --overwrite makes
an existing target identical to the backup. It downloads only differences, and REMOVES everything that the backup lacks.
A device always requires --overwrite. Its space after the end of the backup is filled with zeros.

After a failed or interrupted restore, do not use the target. Repeat the command with --overwrite to complete it.
"""

EPILOG: Final = """\
examples:
  cinderblock restore 6f1c2a70 --from s3://backups/laptop --target /srv/restored
  cinderblock restore 6f1c2a70 etc/hosts home/ann --from s3://backups/laptop --target /tmp/some
  cinderblock restore 6f1c2a70 --from s3://backups --target /dev/vg/volume --overwrite
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument("id", metavar="ID", type=identifier, help="id of the backup, or a unique prefix")
    parser.add_argument("paths", nargs="*", metavar="PATH", help="restore only these paths and everything below them")
    parser.add_argument(
        "--target", metavar="PATH", required=True, type=path, help="directory, image file or device to write"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace whatever the target contains")
    parser.add_argument(
        "--best-effort",
        action="store_true",
        help="continue if the target rejects or ignores owners, modes, links, times or extended attributes, as NFS with"
        " root_squash, EFS access points and SMB do; the output lists what was lost",
    )
    add_store(parser, "--from")
    add_as_of(parser)
    add_keys(parser)
    add_unsealed(parser)
    add_expected_digest(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Restore a backup. Raises what `run_restore` raises."""
    keys = keys_from(arguments)
    location = location_from(arguments)
    with closing(CountedStore(open_from(arguments, location, CLI_RETRIES))) as store:
        catalog = Catalog(store, location.prefix, keys)
        backup = catalog.find(arguments.id)
        must_be_sealed = keys is not None and not arguments.allow_unsealed
        expected = backup.expected(sealed=must_be_sealed, content_digest=arguments.expect_digest)
        summary = catalog.read_summary(backup, expected)
        expected = expected.model_copy(update={"pins": summary.pins})
        task = make_task(arguments, summary.description, location, backup.key, expected)
        with progress_for("restore", as_json=arguments.json, bounded=not arguments.paths) as progress:
            report = restore(task, arguments, store, keys, progress)
        report = report.model_copy(update={"requests": store.counts.requests})
    if arguments.json:
        print_json({"backupId": backup.backup_id, "target": arguments.target, **report.to_wire()})
        return SUCCESS
    for warning in report.warnings:
        warn(warning)
    print_fields(
        {
            "restored": backup.backup_id,
            "to": arguments.target,
            "not kept": summarize_losses(report.losses),
            "fetched": f"{format_size(report.transferred_bytes)} with {report.requests} requests",
        }
    )
    return SUCCESS


def make_task(
    arguments: argparse.Namespace,
    description: BackupMetadata,
    location: StoreLocation,
    manifest: str,
    expected: ExpectedBackup,
) -> MoverTask:
    """Return the task that the operator would give to a mover. Raises InvalidInput for paths of a device."""
    if arguments.paths and description.volume_mode is VolumeMode.BLOCK:
        raise InvalidInput("Cannot restore single paths: this is the backup of a device, which has no paths.")
    return MoverTask(
        operation=MoverOperation.RESTORE,
        store=location,
        volume_mode=description.volume_mode,
        path=arguments.target,
        backup=description,
        fidelity=Fidelity.BEST_EFFORT if arguments.best_effort else Fidelity.STRICT,
        expected=expected,
        manifest=manifest,
    )


def restore(
    task: MoverTask,
    arguments: argparse.Namespace,
    store: ObjectStore,
    keys: KeyRing | None,
    progress: ProgressCallback,
) -> MoverReport:
    """Restore into a target that is created if necessary; only some paths if the arguments name them."""
    manifest = open_manifest(task, store, keys)
    selection = None
    if arguments.paths:
        selection = Selection(os.fsencode(path) for path in arguments.paths)
        selection.complete(manifest.entries())
    fetcher = ChunkReader(store, task.store.prefix, manifest)
    verify_first_chunk(manifest, fetcher)
    device_bytes = _device_size(manifest, task.manifest) if task.volume_mode is VolumeMode.BLOCK else 0
    prepare_target(task, device_bytes, overwrite=arguments.overwrite and selection is None)
    try:
        with open_target(task.volume_mode, task.path, task.fidelity) as target:
            selected = target if selection is None else SelectedTarget(target, selection)
            return write_target(selected, task, manifest, fetcher, progress)
    except BaseException:
        remedy = "remove it" if selection else "repeat the command with --overwrite to complete it"
        warn(f"do not use {task.path}, which is incomplete: {remedy}")
        raise


def prepare_target(task: MoverTask, device_bytes: int, *, overwrite: bool) -> None:
    """Create the target if it is missing, and check that nothing is overwritten without permission.

    Raises:
        InvalidInput: data would be overwritten, or the target has the wrong type.
        TargetError: the target cannot be created.
    """
    path = task.path
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        _make_target(task, device_bytes)
        return
    except OSError as error:
        raise TargetError(f"Cannot read {path}: {error.strerror}") from error
    if stat.S_ISDIR(mode) != (task.volume_mode is VolumeMode.FILESYSTEM):
        required = "a directory" if task.volume_mode is VolumeMode.FILESYSTEM else "an image file or a device"
        raise InvalidInput(f"Cannot restore to {path}: this backup requires {required}.")
    if not overwrite and (not stat.S_ISDIR(mode) or set(os.listdir(os.fsencode(path))) - {LOST_FOUND}):
        raise InvalidInput(
            f"Cannot restore to {path}: it exists and is not empty. Choose another target, or replace all of it with"
            " --overwrite."
        )
    if stat.S_ISREG(mode):
        _resize(path, device_bytes)


def _device_size(manifest: ManifestReader, key: str) -> int:
    """Return the size of the device in a backup. Raises IntegrityError if the manifest has no entry."""
    device = next(manifest.entries(), None)
    if device is None:
        raise IntegrityError(f"Cannot restore {key}: the backup of a device lists no device. Restore another backup.")
    return device.size


def _resize(image: str, size: int) -> None:
    """Give an image file the size of the backup."""
    try:
        if os.stat(image).st_size != size:
            os.truncate(image, size)
    except OSError as error:
        raise TargetError(f"Cannot resize {image} to {size} bytes: {error.strerror}") from error


def _make_target(task: MoverTask, device_bytes: int) -> None:
    try:
        if task.volume_mode is VolumeMode.FILESYSTEM:
            os.makedirs(task.path)
        else:
            with open(task.path, "xb") as file:
                file.truncate(device_bytes)
    except OSError as error:
        raise TargetError(f"Cannot create {task.path}: {error.strerror}") from error
