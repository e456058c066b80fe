"""``cinderblock restore``"""

from __future__ import annotations

import argparse
import os
import stat
from contextlib import closing
from typing import Final

from cinderblock.api.losses import Fidelity
from cinderblock.api.mover import BackupMetadata, MoverOperation, MoverReport, MoverTask, StoreLocation, VolumeMode
from cinderblock.api.pins import ExpectedBackup
from cinderblock.cli.arguments import add_expected_digest, add_json, add_keys, add_store, add_unsealed, identifier, path
from cinderblock.cli.exit_codes import SUCCESS
from cinderblock.cli.loss_summary import summarize_losses
from cinderblock.cli.output import print_fields, print_json, size, warn
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

A directory is restored into one that does not exist or is empty, an image into a file that does not exist. With
--overwrite the target may hold something: it becomes exactly the backup, only what differs is fetched, and what is not
in the backup is REMOVED. A device always needs --overwrite, and becomes zeros behind the end of the backup.

A restore that fails or is interrupted leaves a target that is not to be used; the same with --overwrite goes on.
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
    parser.add_argument("id", metavar="ID", type=identifier, help="id of the backup, or its beginning")
    parser.add_argument("paths", nargs="*", metavar="PATH", help="restore only these, with all below them")
    parser.add_argument(
        "--target", metavar="PATH", required=True, type=path, help="directory, image file or device to restore to"
    )
    parser.add_argument("--overwrite", action="store_true", help="the target may hold something, which is lost")
    parser.add_argument(
        "--best-effort",
        action="store_true",
        help="go on if the target refuses owners, modes, links, times or extended attributes, or only pretends to set "
        "them, as NFS with root_squash, EFS access points and SMB do; what was lost is counted and named",
    )
    add_store(parser, "--from")
    add_keys(parser)
    add_unsealed(parser)
    add_expected_digest(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Restore. Raises what `run_restore` raises."""
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
            "fetched": f"{size(report.transferred_bytes)} with {report.requests} requests",
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
    """The task as the operator would give it to a mover. Raises InvalidInput if paths of a device are wanted."""
    if arguments.paths and description.volume_mode is VolumeMode.BLOCK:
        raise InvalidInput("This is the backup of a device, which has no paths: restore it as a whole")
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
    """As `run_restore`, with a target that is made if need be, and of some paths only if some are given."""
    manifest = open_manifest(task, store, keys)
    selection = None
    if arguments.paths:
        selection = Selection(os.fsencode(path) for path in arguments.paths)
        selection.complete(manifest.entries())
    fetcher = ChunkReader(store, task.store.prefix, manifest)
    verify_first_chunk(manifest, fetcher)
    size_of_device = _device_size(manifest, task.manifest) if task.volume_mode is VolumeMode.BLOCK else 0
    prepare_target(task, size_of_device, overwrite=arguments.overwrite and selection is None)
    try:
        with open_target(task.volume_mode, task.path, task.fidelity) as target:
            selected = target if selection is None else SelectedTarget(target, selection)
            return write_target(selected, task, manifest, fetcher, progress)
    except BaseException:
        again = "remove it" if selection else "the same with --overwrite goes on where it ended"
        warn(f"{task.path} is not complete and not to be used: {again}")
        raise


def _device_size(manifest: ManifestReader, key: str) -> int:
    """Return the size of the device in a backup. Raises IntegrityError if the manifest has no entry."""
    device = next(manifest.entries(), None)
    if device is None:
        raise IntegrityError(f"Cannot restore {key}: the backup of a device lists no device. Restore another backup.")
    return device.size


def prepare_target(task: MoverTask, size_of_device: int, *, overwrite: bool) -> None:
    """Make sure that there is a target, and that nothing in it is lost unasked.

    Raises InvalidInput if something would be lost, or the target is of another kind; TargetError if it cannot be made.
    """
    where = task.path
    try:
        mode = os.stat(where).st_mode
    except FileNotFoundError:
        _make_target(task, size_of_device)
        return
    except OSError as error:
        raise TargetError(f"{where} cannot be looked at: {error.strerror}") from error
    if stat.S_ISDIR(mode) != (task.volume_mode is VolumeMode.FILESYSTEM):
        kind = "a directory" if task.volume_mode is VolumeMode.FILESYSTEM else "an image file or a device"
        raise InvalidInput(f"{where} is of the wrong kind: this backup needs {kind}")
    if not overwrite and (not stat.S_ISDIR(mode) or set(os.listdir(os.fsencode(where))) - {LOST_FOUND}):
        raise InvalidInput(
            f"{where} is there already and holds something: choose another target; --overwrite replaces a whole one"
        )
    if stat.S_ISREG(mode):
        _resize(where, size_of_device)


def _resize(image: str, size: int) -> None:
    """An image is as large as the backup."""
    try:
        if os.stat(image).st_size != size:
            os.truncate(image, size)
    except OSError as error:
        raise TargetError(f"{image} cannot be made {size} bytes large: {error.strerror}") from error


def _make_target(task: MoverTask, size_of_device: int) -> None:
    try:
        if task.volume_mode is VolumeMode.FILESYSTEM:
            os.makedirs(task.path)
        else:
            with open(task.path, "xb") as file:
                file.truncate(size_of_device)
    except OSError as error:
        raise TargetError(f"{task.path} cannot be made: {error.strerror}") from error
