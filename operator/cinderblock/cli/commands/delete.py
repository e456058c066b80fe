"""``cinderblock delete``"""

from __future__ import annotations

import argparse
from contextlib import closing
from datetime import UTC, datetime
from typing import Final

from cinderblock.cli.arguments import add_json, add_keys, add_store, identifier
from cinderblock.cli.exit_codes import SUCCESS
from cinderblock.cli.output import print_fields, print_json, warn
from cinderblock.cli.store_arguments import keys_from, location_from, open_from
from cinderblock.errors import CinderblockError, NotFound, ReferencesUnknown, TransientError
from cinderblock.lifecycle.backup.remains import Remains, describe
from cinderblock.repository.catalog import Catalog
from cinderblock.repository.deletion import delete_backup
from cinderblock.repository.objects import BackupRef
from cinderblock.repository.remains import find_remains
from cinderblock.store.retrying import CLI_RETRIES

DESCRIPTION: Final = """\
Delete a backup and all its data. The complete id is required.

This fails while other backups need its data: delete them first, newest first. For backups of the operator, delete the
VolumeBackup instead. If this command deletes its data, the VolumeBackup remains but cannot be restored.

Packs that it inherited from expired backups are deleted with it, if no other backup lists them.

In a container with versioning, the data is only hidden, and the command says how many versions remain. While Object
Lock keeps an object of the backup, the command deletes nothing and ends with exit code 7. It never bypasses a lock.

With --volume-id, it also deletes the data of an interrupted backup.
"""

EPILOG: Final = """\
examples:
  cinderblock delete 6f1c2a70-9f0c-4b5e-8a38-2a1f6d9c3e11 --from s3://backups/laptop
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument("id", metavar="ID", type=identifier, help="complete id of the backup")
    parser.add_argument(
        "--volume-id", metavar="ID", type=identifier, help="volume of the backup, required for an interrupted backup"
    )
    add_store(parser, "--from")
    add_keys(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Delete a backup. Raises NotFound, Conflict while other backups need it, and what the store raises."""
    keys = keys_from(arguments)
    location = location_from(arguments, writes=True)
    with closing(open_from(arguments, location, CLI_RETRIES)) as store:
        catalog = Catalog(store, location.prefix, keys)
        backup = _find(catalog, arguments.id, arguments.volume_id)
        references = catalog.references(backup.volume_id)
        try:
            deleted = delete_backup(
                store, location.prefix, backup.volume_id, backup.backup_id, references, now=datetime.now(UTC)
            )
        except ReferencesUnknown as error:
            # The exit code and the advice depend on why the other backup cannot be read.
            raise error.cause or error from None
        except (CinderblockError, KeyboardInterrupt) as error:
            if _may_be_partly_done(error):
                warn(
                    "the backup may be deleted in part. To delete the rest, repeat the command with --volume-id"
                    f" {backup.volume_id}: cinderblock delete {backup.backup_id} --volume-id {backup.volume_id}"
                )
            raise
        if not deleted:
            raise NotFound(
                f"Cannot delete backup {backup.backup_id} of volume {backup.volume_id}: the store has no data of it."
            )
        found = find_remains(store, location.prefix, backup.volume_id, backup.backup_id)
    _print(backup, deleted, found, as_json=arguments.json)
    return SUCCESS


def _may_be_partly_done(error: BaseException) -> bool:
    """Return whether the manifest may be gone. Its own deletion is in doubt if no response arrived."""
    return not isinstance(error, CinderblockError) or isinstance(error, TransientError) or error.is_partly_done


def _print(backup: BackupRef, deleted: int, found: Remains, *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "backupId": backup.backup_id,
                "succeeded": True,
                "objectsDeleted": deleted,
                "hidden": found.is_hidden,
                "versionsRemaining": found.versions,
            }
        )
        return
    verb = "hidden" if found.is_hidden else "deleted"
    sentence = describe(found)
    print_fields({verb: backup.backup_id, "objects": str(deleted)} | ({"remaining": sentence} if sentence else {}))


def _find(catalog: Catalog, backup_id: str, volume_id: str | None) -> BackupRef:
    """Return the backup with exactly this id. With a volume, it need not have a manifest."""
    if volume_id is not None:
        return BackupRef(catalog.manifest_key(volume_id, backup_id), volume_id, backup_id)
    backup = catalog.find(backup_id)
    if backup.backup_id != backup_id:
        raise NotFound(
            f"Cannot delete backup {backup_id}: it does not exist. To delete {backup.backup_id}, give its complete id."
        )
    return backup
