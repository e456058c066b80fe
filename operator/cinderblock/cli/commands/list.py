"""``cinderblock list``"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from itertools import groupby
from typing import Final

from cinderblock.api.layout import backup_prefix
from cinderblock.cli.arguments import add_as_of, add_json, add_keys, add_store, identifier, object_name
from cinderblock.cli.exit_codes import CORRUPT, SUCCESS, exit_code_for
from cinderblock.cli.import_manifests import document, namespace_of
from cinderblock.cli.output import print_json, print_table, warn
from cinderblock.cli.standard_streams import has_failed
from cinderblock.cli.store_arguments import keys_from, location_from, open_from
from cinderblock.cli.views import HEADINGS, row, to_wire
from cinderblock.errors import InvalidInput, KeyUnavailable, PermanentError
from cinderblock.lifecycle.imports.names import ImportNames
from cinderblock.repository.catalog import Catalog, CatalogEntry

DESCRIPTION: Final = """\
List the backups in a store, oldest first. For encrypted backups without a key, only the ids are known.

DATA is the size of a restored volume. STORED is the size in the store, without data shared with other backups.
If a manifest is damaged, the other backups are still listed, and the exit code is 5.

With --as-manifests, print a VolumeBackup for each backup instead, as YAML for kubectl apply or for GitOps. It imports
the backup, copies nothing, and keeps the data in the store when it is deleted (deletionPolicy Retain). This needs only
the bucket and the key, no cluster. The order is that of the keys in the bucket. A VolumeBackup has its earlier name; if
that is taken or not possible, the first 8 characters of the id are added. So the same store gives the same names.
Backups that cannot be read are named on standard error. The exit code is then 5 for damage, and 3 for a missing key.
"""

EPILOG: Final = """\
examples:
  cinderblock list --from s3://backups/laptop
  cinderblock list --from s3://backups/laptop --json | jq -r '.[] | select(.readable) | .id'
  cinderblock list --from s3://backups/demo --encryption-key-file key-1 --as-manifests --newest | kubectl apply -f -
"""

_FIRST: Final = datetime.min.replace(tzinfo=UTC)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument("--volume-id", metavar="ID", type=identifier, help="list only backups of this volume")
    parser.add_argument(
        "--namespace",
        metavar="NAME",
        type=object_name,
        help="list only backups of this namespace. With --as-manifests, those without a namespace get this one",
    )
    parser.add_argument("--newest", action="store_true", help="list only the newest backup of each volume")
    add_store(parser, "--from")
    add_as_of(parser)
    add_keys(parser)
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--as-manifests", action="store_true", help="print VolumeBackups that import the backups, as YAML"
    )
    add_json(form)
    parser.add_argument(
        "--store-name",
        metavar="NAME",
        type=object_name,
        help="name of the BackupStore in the VolumeBackups of --as-manifests (default: that of the namespace)",
    )


def run(arguments: argparse.Namespace) -> int:
    """List backups. Returns the exit code, which shows whether a manifest is damaged.

    Raises InvalidInput for --store-name without --as-manifests.
    """
    if arguments.store_name is not None and not arguments.as_manifests:
        raise InvalidInput("--store-name requires --as-manifests")
    keys = keys_from(arguments)
    location = location_from(arguments)
    with closing(open_from(arguments, location)) as store:
        catalog = Catalog(store, location.prefix, keys)
        if arguments.as_manifests:
            return _print_manifests(arguments, catalog)
        found = catalog.read_entries(catalog.list_backups(arguments.volume_id))
    entries = sorted(_chosen(arguments, found), key=_age)
    if arguments.json:
        print_json([to_wire(entry) for entry in entries])
    else:
        print_table(HEADINGS, map(row, entries))
        if not entries:
            warn(f"no backups found below {backup_prefix(location.prefix)} in container {location.container}")
    return CORRUPT if any(entry.damage for entry in entries) else SUCCESS


def _print_manifests(arguments: argparse.Namespace, catalog: Catalog) -> int:
    """Print the VolumeBackups while the manifests are read. Returns the exit code."""
    names, count, code = ImportNames(), 0, SUCCESS
    with closing(catalog.stream_entries(catalog.list_backups(arguments.volume_id))) as entries:
        for entry in _chosen(arguments, entries):
            try:
                sys.stdout.write(_document(arguments, entry, names))
                count += 1
            except PermanentError as error:
                warn(f"left out: {error.message}")
                code = max(code, CORRUPT if entry.damage else exit_code_for(error))
            if has_failed(sys.stdout):
                # Nobody reads the rest, and it may take minutes.
                break
    if not count and code == SUCCESS:
        warn("no backups found")
    return code


def _document(arguments: argparse.Namespace, entry: CatalogEntry, names: ImportNames) -> str:
    """Return the VolumeBackup of a backup. Raises PermanentError for one that cannot be read or written."""
    if entry.damage is not None:
        raise entry.damage
    if entry.summary is None:
        key_id = entry.header.key_id if entry.header is not None else ""
        raise KeyUnavailable(f"{entry.stored.key} is encrypted with key {key_id}, which was not given")
    namespace = namespace_of(entry.summary, arguments.namespace)
    name = names.name(namespace, entry.stored.key, entry.stored.backup_id, entry.summary.description.backup_name)
    return document(entry.stored, entry.summary, namespace, name, arguments.store_name)


def _chosen(arguments: argparse.Namespace, entries: Iterable[CatalogEntry]) -> Iterator[CatalogEntry]:
    """Yield the entries that the options select, and all that could not be read."""
    wanted = (entry for entry in entries if _is_of(arguments.namespace, entry))
    if not arguments.newest:
        yield from wanted
        return
    for _, of_volume in groupby(wanted, key=lambda entry: entry.stored.volume_id):
        newest: CatalogEntry | None = None
        for entry in of_volume:
            if entry.summary is None:
                yield entry
            elif newest is None or _age(entry) > _age(newest):
                newest = entry
        if newest is not None:
            yield newest


def _is_of(namespace: str | None, entry: CatalogEntry) -> bool:
    """Return whether a backup is of a namespace, or may be."""
    return namespace is None or entry.summary is None or entry.summary.description.namespace in ("", namespace)


def _age(entry: CatalogEntry) -> tuple[datetime, str]:
    timestamp = entry.summary.description.data_timestamp if entry.summary else _FIRST
    return timestamp, entry.stored.backup_id
