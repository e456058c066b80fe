"""``cinderblock rescue``"""

from __future__ import annotations

import argparse
from contextlib import closing
from typing import Any, Final

from cinderblock.api.quantity import format_size
from cinderblock.cli.arguments import add_json, add_store, add_writing, identifier, past_time
from cinderblock.cli.exit_codes import SUCCESS, worst_exit_code
from cinderblock.cli.output import format_time, pluralize, print_fields, print_json, print_table, warn
from cinderblock.cli.progress_bar import progress_for
from cinderblock.cli.store_arguments import location_from
from cinderblock.errors import CinderblockError, NotFound, PermanentError
from cinderblock.lifecycle.store.container_rules import Versioning
from cinderblock.reasons import Reason
from cinderblock.repository.progress import Progress
from cinderblock.repository.rescue.apply import Rescue, run_rescue
from cinderblock.repository.rescue.plan import Condition, RescuedBackup, RescuePlan, plan_rescue
from cinderblock.store.factory import open_history, open_store
from cinderblock.store.retrying import CLI_RETRIES

DESCRIPTION: Final = """\
Bring back the backups that a store held at an earlier time, if they were deleted or overwritten since.

The bucket must keep versions. Without --apply, the command changes nothing: it shows which backups are affected. With
--apply, it removes the delete markers above their objects. Where the credentials may not do that, and for what was
overwritten, the server copies the old version. Backups that were made later stay. Nothing else is deleted.

The command needs no encryption key, because it reads only the list of versions. It cannot bring back versions that a
lifecycle rule or a person has removed. Verify the backups afterwards. If somebody has stolen the credentials of the
store, replace these first. An administrator's credentials are best: s3:ListBucketVersions, s3:GetObjectVersion,
s3:PutObject, s3:GetObjectRetention, s3:PutObjectRetention, and s3:DeleteObjectVersion to remove markers.

The exit code is 0 if nothing is missing any more, or after a plan. It is 3 if the store had no backup at that time, or
if something could not be brought back. After a failure, run the same command again.
"""

EPILOG: Final = """\
examples:
  cinderblock rescue --from s3://backups/laptop --at 2026-05-04T03:00:00Z
  cinderblock rescue --from s3://backups/laptop --at 2026-05-04T03:00:00Z --apply
  cinderblock list --from s3://backups/laptop --as-of 2026-05-04T03:00:00Z
"""

_HEADINGS: Final = ("VOLUME", "BACKUP", "MANIFEST", "OTHER OBJECTS", "SIZE")
_SHOWN_FAILURES: Final = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument(
        "--at",
        metavar="TIME",
        type=past_time,
        required=True,
        help="the earlier time, by the clock of the store, for example 2026-05-04T03:00:00Z",
    )
    parser.add_argument(
        "--apply", action="store_true", help="bring the backups back (default: only show what is missing)"
    )
    parser.add_argument("--volume-id", metavar="ID", type=identifier, help="bring back only backups of this volume")
    add_store(parser, "--from")
    add_writing(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Show or bring back what is missing. Returns the exit code.

    Raises NotFound if the store had no backup at that time; PermanentError if the bucket keeps no versions.
    """
    location = location_from(arguments, writes=arguments.apply)
    with closing(open_store(location, None, arguments.ca_file, CLI_RETRIES)) as store:
        store.check()
        _check_versioning(store.retention.versioning, location.container)
    with closing(open_history(location, None, arguments.ca_file, CLI_RETRIES)) as history:
        plan = plan_rescue(history, location.prefix, arguments.at, arguments.volume_id)
        if not plan.backups:
            raise NotFound(
                f"Cannot rescue anything: the store had no backup at {format_time(arguments.at)}, as far as its"
                " versions show. Check the prefix and the time."
            )
        if not arguments.apply:
            _print_plan(plan, as_json=arguments.json)
            return SUCCESS
        done, total = 0, plan.bytes
        with progress_for("rescue", as_json=arguments.json) as show:

            def count(size: int) -> None:
                nonlocal done
                done += size
                show(Progress(done, total, done))

            result = run_rescue(history, plan, count)
    _print_result(plan, result, as_json=arguments.json)
    return worst_exit_code(result.failures.values())


def _check_versioning(ask: Any, container: str) -> None:
    """Raise PermanentError if a bucket keeps no versions. One that does not tell may have some."""
    try:
        versioning = ask()
    except CinderblockError as error:
        if not error.permanent:
            raise
        return
    if versioning is Versioning.OFF:
        raise PermanentError(
            f"Cannot rescue anything from container {container}: it keeps no versions, so what was deleted or"
            " overwritten is lost.",
            reason=Reason.UNVERSIONED,
        )


def _print_plan(plan: RescuePlan, *, as_json: bool) -> None:
    if as_json:
        print_json({"applied": False, **_plan_to_wire(plan)})
        return
    affected = plan.affected
    if affected:
        print_table(_HEADINGS, (_row(*owner, backup) for owner, backup in affected.items()))
    print_fields(_summary(plan))
    if affected:
        warn("nothing was changed: this is a plan. To bring the backups back, add --apply")


def _row(volume_id: str, backup_id: str, backup: RescuedBackup) -> tuple[str, ...]:
    manifest = backup.manifest.value if backup.manifest is not None else "(inherited)"
    return volume_id, backup_id, manifest, str(backup.objects), format_size(backup.bytes)


def _summary(plan: RescuePlan) -> dict[str, str]:
    counts, affected = plan.conditions, len(plan.affected)
    return {
        "time": format_time(plan.instant),
        "backups": f"{len(plan.backups)} existed, {affected} of them affected",
        "deleted": pluralize(counts[Condition.DELETED], "object"),
        "overwritten": pluralize(counts[Condition.OVERWRITTEN], "object"),
        "unchanged": pluralize(counts[Condition.PRESENT], "object"),
        "size": format_size(plan.bytes),
    }


def _print_result(plan: RescuePlan, result: Rescue, *, as_json: bool) -> None:
    for key, error in list(result.failures.items())[:_SHOWN_FAILURES]:
        warn(f"not brought back: {key}: {error.message}")
    if len(result.failures) > _SHOWN_FAILURES:
        warn(f"not brought back: {len(result.failures) - _SHOWN_FAILURES} more objects")
    if result.left_out:
        warn(f"{pluralize(len(result.left_out), 'manifest')} not brought back, because packs of the volume are missing")
    if as_json:
        print_json(
            {
                "applied": True,
                "succeeded": not result.failures,
                **_plan_to_wire(plan),
                "revealed": result.revealed,
                "copied": result.copied,
                "failed": [{"key": key, "message": error.message} for key, error in result.failures.items()],
                "leftOut": result.left_out,
            }
        )
        return
    print_fields(
        {
            "time": format_time(plan.instant),
            "backups": f"{len(plan.affected)} of {len(plan.backups)} were affected",
            "revealed": pluralize(result.revealed, "object"),
            "copied": pluralize(result.copied, "object"),
            "failed": pluralize(len(result.failures), "object") if result.failures else "",
        }
    )


def _plan_to_wire(plan: RescuePlan) -> dict[str, Any]:
    """Return a plan as JSON."""
    return {
        "time": plan.instant.isoformat(),
        "existed": len(plan.backups),
        "affected": [
            {
                "volumeId": volume_id,
                "backupId": backup_id,
                "manifest": backup.manifest.value if backup.manifest is not None else None,
                "objects": backup.objects,
                "bytes": backup.bytes,
            }
            for (volume_id, backup_id), backup in plan.affected.items()
        ],
        "bytes": plan.bytes,
    }
