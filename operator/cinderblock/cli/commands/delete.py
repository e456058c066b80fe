"""``cinderblock delete``"""

from __future__ import annotations

import argparse
from contextlib import closing
from typing import Final

from cinderblock.cli.arguments import add_json, add_keys, add_store, identifier
from cinderblock.cli.exit_codes import SUCCESS
from cinderblock.cli.output import print_fields, print_json
from cinderblock.cli.store_arguments import keys_from, location_from, open_from
from cinderblock.errors import NotFound, ReferencesUnknown
from cinderblock.repository.catalog import Catalog
from cinderblock.repository.deletion import delete_backup
from cinderblock.repository.objects import BackupRef
from cinderblock.store.retrying import CLI_RETRIES

DESCRIPTION: Final = """\
Delete a backup and everything that belongs to it. The whole id must be given.

Refused while other backups need its packs: delete those first, newest first. In a cluster, delete the VolumeBackup
instead; one whose data was deleted by hand fails when it is restored.

With --volume-id, what an interrupted backup left is deleted too.
"""

EPILOG: Final = """\
examples:
  cinderblock delete 6f1c2a70-9f0c-4b5e-8a38-2a1f6d9c3e11 --from s3://backups/laptop
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument("id", metavar="ID", type=identifier, help="the whole id of the backup")
    parser.add_argument(
        "--volume-id", metavar="ID", type=identifier, help="of a backup that was never completed: its volume"
    )
    add_store(parser, "--from")
    add_keys(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Delete. Raises NotFound, BackupNeeded, and what prevents finding out whether others need the backup."""
    keys = keys_from(arguments)
    location = location_from(arguments)
    with closing(open_from(arguments, location, CLI_RETRIES)) as store:
        catalog = Catalog(store, location.prefix, keys)
        backup = _find(catalog, arguments.id, arguments.volume_id)
        references = catalog.references(backup.volume_id)
        try:
            deleted = delete_backup(store, location.prefix, backup.volume_id, backup.backup_id, references)
        except ReferencesUnknown as error:
            # The exit code and the advice depend on why the other backup cannot be read.
            raise error.cause or error from None
        if not deleted:
            raise NotFound(f"There is nothing of a backup {backup.backup_id} of volume {backup.volume_id}")
    if arguments.json:
        print_json({"backupId": backup.backup_id, "succeeded": True, "objectsDeleted": deleted})
    else:
        print_fields({"deleted": backup.backup_id, "objects": str(deleted)})
    return SUCCESS


def _find(catalog: Catalog, backup_id: str, volume_id: str | None) -> BackupRef:
    """The backup with exactly this id; one without a manifest if its volume is given."""
    if volume_id is not None:
        return BackupRef(catalog.manifest_key(volume_id, backup_id), volume_id, backup_id)
    backup = catalog.find(backup_id)
    if backup.backup_id != backup_id:
        raise NotFound(f"There is no backup {backup_id}; give the whole id to delete {backup.backup_id}")
    return backup
