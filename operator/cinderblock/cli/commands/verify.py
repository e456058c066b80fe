"""``cinderblock verify``"""

from __future__ import annotations

import argparse
import time
from contextlib import closing
from typing import Any, Final

from cinderblock.api.quantity import format_size
from cinderblock.api.v1alpha1.verification import MAX_PARTS, VerificationLevel
from cinderblock.cli.arguments import (
    add_as_of,
    add_expected_digest,
    add_json,
    add_keys,
    add_store,
    add_unsealed,
    count,
    identifier,
    percentage,
)
from cinderblock.cli.exit_codes import CORRUPT, SUCCESS
from cinderblock.cli.output import pluralize, print_fields, print_json, warn
from cinderblock.cli.progress_bar import progress_for
from cinderblock.cli.store_arguments import keys_from, location_from, open_from
from cinderblock.errors import InvalidInput
from cinderblock.repository.catalog import Catalog
from cinderblock.repository.objects import BackupRef
from cinderblock.repository.verify.backup import Verification, run_verify
from cinderblock.repository.verify.data import Share, verify_data
from cinderblock.repository.verify.findings import Findings
from cinderblock.repository.verify.structure import verify_structure
from cinderblock.store.retrying import CLI_RETRIES

DESCRIPTION: Final = """\
Read a backup from the store and check every byte as a restore does, without writing anything.

With --sample, only a random part of the data is read. The manifest is always read completely.

With --level, the command does not end at the first damage, and names the backups that need the damaged objects.
Structure reads the manifest, and checks that every pack exists with the right size. Data also reads the packs of all
backups of the volume, each once. With --parts, it reads one part of them.

The exit code is 5 if anything is damaged or missing.
"""

EPILOG: Final = """\
examples:
  cinderblock verify 6f1c2a70 --from s3://backups/laptop
  cinderblock verify 6f1c2a70 --from s3://backups/laptop --sample 5%
  cinderblock verify 6f1c2a70 --from s3://backups/laptop --level structure
  cinderblock verify 6f1c2a70 --from s3://backups/laptop --level data --parts 28
"""

_LEVELS: Final = {level.lower(): level for level in (VerificationLevel.STRUCTURE, VerificationLevel.DATA)}
_DAY_SECONDS: Final = 86400


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument("id", metavar="ID", type=identifier, help="id of the backup, or a unique prefix")
    parser.add_argument(
        "--sample",
        metavar="PERCENT",
        type=percentage,
        help="percentage of the data to read, for example 5%% (default: all)",
    )
    parser.add_argument(
        "--level", choices=tuple(_LEVELS), help="what to verify (default: every byte of this backup, as a restore does)"
    )
    parser.add_argument(
        "--parts",
        metavar="N",
        type=count,
        help=f"with --level data: divide the packs into N parts, at most {MAX_PARTS}, and read one (default: 1)",
    )
    parser.add_argument(
        "--part", metavar="K", type=count, help="with --parts: the part to read (default: another one each day)"
    )
    add_store(parser, "--from")
    add_as_of(parser)
    add_keys(parser)
    add_unsealed(parser)
    add_expected_digest(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Verify a backup. Raises IntegrityError, NotFound, InvalidInput."""
    level, share = _LEVELS.get(arguments.level or ""), _share(arguments)
    keys = keys_from(arguments)
    location = location_from(arguments)
    with closing(open_from(arguments, location, CLI_RETRIES)) as store:
        backup = Catalog(store, location.prefix, keys).find(arguments.id)
        must_be_sealed = keys is not None and not arguments.allow_unsealed
        expected = backup.expected(sealed=must_be_sealed, content_digest=arguments.expect_digest)
        with progress_for("verify", as_json=arguments.json) as progress:
            if level is VerificationLevel.STRUCTURE:
                found = verify_structure(store, location.prefix, backup.key, expected, keys, on_progress=progress)
            elif level is VerificationLevel.DATA:
                found = verify_data(store, location.prefix, expected, keys, share, on_progress=progress)
            else:
                result = run_verify(
                    store,
                    location.prefix,
                    backup.key,
                    expected,
                    keys,
                    sample_percent=arguments.sample or 100.0,
                    on_progress=progress,
                )
    if level is not None:
        return _print_findings(found, level, share, backup, as_json=arguments.json)
    _print_sound(result, backup, as_json=arguments.json)
    return SUCCESS


def _share(arguments: argparse.Namespace) -> Share:
    """Return the share of level Data. Raises InvalidInput for options that contradict each other."""
    if arguments.level != "data" and (arguments.parts or arguments.part):
        raise InvalidInput("Cannot verify a part: --parts and --part need --level data.")
    if arguments.part and not arguments.parts:
        raise InvalidInput("Cannot verify a part: --part needs --parts.")
    if arguments.level and arguments.sample:
        raise InvalidInput("Cannot verify: --sample and --level exclude each other. Use --level data --parts N.")
    parts = arguments.parts or 1
    if parts > MAX_PARTS:
        raise InvalidInput(f"Cannot divide the packs into {parts} parts: at most {MAX_PARTS}.")
    return Share(arguments.part or int(time.time()) // _DAY_SECONDS % parts + 1, parts)


def _print_findings(
    found: Findings, level: VerificationLevel, share: Share, backup: BackupRef, *, as_json: bool
) -> int:
    """Print what was found. Return the exit code."""
    if found.unreadable_count:
        warn(f"{pluralize(found.unreadable_count, 'manifest')} of the volume cannot be read: nothing is known about it")
    if as_json:
        print_json({"backupId": backup.backup_id, **_findings_to_wire(found, level, share)})
        return CORRUPT if found.damaged_count else SUCCESS
    packs = f"{found.packs_verified} of {pluralize(found.packs, 'pack')} ({format_size(found.bytes_read)} read)"
    fields = {"checked": packs}
    if level is VerificationLevel.DATA and share.parts > 1:
        fields["part"] = f"{share.part} of {share.parts}"
    if not found.damaged_count:
        print_fields({"sound": backup.backup_id, **fields})
        return SUCCESS
    print_fields(
        {
            "damaged": pluralize(found.damaged_count, "object"),
            "affected": _shortened(found.affected, found.affected_count),
            **fields,
        }
    )
    for cause in found.causes:
        warn(cause)
    return CORRUPT


def _shortened(names: tuple[str, ...], total: int) -> str:
    more = total - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "")


def _findings_to_wire(found: Findings, level: VerificationLevel, share: Share) -> dict[str, Any]:
    """Return the findings as JSON."""
    part = {"part": share.part, "parts": share.parts} if level is VerificationLevel.DATA else {}
    return {
        "succeeded": not found.damaged_count,
        "level": level.value,
        **part,
        "packs": found.packs,
        "packsVerified": found.packs_verified,
        "bytesRead": found.bytes_read,
        "damagedCount": found.damaged_count,
        "damaged": [{"key": key, "cause": cause} for key, cause in zip(found.damaged, found.causes, strict=True)],
        "affectedCount": found.affected_count,
        "affected": list(found.affected),
        "unreadableCount": found.unreadable_count,
    }


def _print_sound(result: Verification, backup: BackupRef, *, as_json: bool) -> None:
    if as_json:
        print_json({"backupId": backup.backup_id, "succeeded": True, **_to_wire(result)})
        return
    chunks, packs = pluralize(result.chunks, "chunk"), pluralize(result.packs, "pack")
    print_fields(
        {
            "sound": backup.backup_id,
            "checked": f"{chunks} ({format_size(result.bytes_fetched)}), {packs}",
            "entries": str(result.entries),
            "digest": result.content_digest,
        }
    )


def _to_wire(result: Verification) -> dict[str, int | str]:
    """Return the result as JSON."""
    return {
        "packs": result.packs,
        "chunks": result.chunks,
        "bytesFetched": result.bytes_fetched,
        "entries": result.entries,
        "contentDigest": result.content_digest,
    }
