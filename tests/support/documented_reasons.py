"""Reasons that docs/reference/statuses.md and docs/guide/observability.md do not list, each with the cause."""

from __future__ import annotations

from typing import Final

from cinderblock.reasons import Reason

_GATEWAY: Final = "only in errors of the gateway, which answers with an HTTP code"

SCHEDULE_REASONS: Final = frozenset(
    {
        *(Reason.SCHEDULED, Reason.SUSPENDED, Reason.INVALID_SCHEDULE, Reason.INVALID_TIME_ZONE),
        *(Reason.INVALID_SELECTOR, Reason.VOLUMES_SELECTED, Reason.NO_VOLUMES, Reason.NO_STORE),
        *(Reason.RUN_IN_PROGRESS, Reason.RUN_COMPLETED, Reason.RUN_INCOMPLETE, Reason.MISSED),
        *(Reason.RULES_APPLIED, Reason.RULES_REFUSED, Reason.RULES_NOT_APPLIED, Reason.CLOCK_DIFFERS),
        *(Reason.VERIFICATIONS_CREATED, Reason.VERIFICATIONS_REFUSED),
    }
)
"""Reasons that only schedules have."""

CLUSTER_STORE_REASONS: Final = frozenset(
    {
        *(Reason.STORES_CREATED, Reason.CREATING_STORES, Reason.STORES_NOT_CREATED),
        *(Reason.CLUSTER_STORE_NOT_FOUND, Reason.STORE_NOT_ALLOWED, Reason.FORMER_NAMESPACE_REFUSED),
        *(Reason.BROKER_DISABLED, Reason.BROKER_UNAVAILABLE, Reason.UNSIGNED_HEADERS_ACCEPTED),
    }
)
"""Reasons that only ClusterBackupStores, and what uses them, have."""

GRANT_REASONS: Final = frozenset(
    {
        *(Reason.GRANTED, Reason.NOTHING_GRANTED, Reason.NAMESPACE_REPLACED, Reason.NAMESPACE_ABSENT),
        *(Reason.STORE_NOT_SHARED, Reason.READ_ELSEWHERE),
    }
)
"""Reasons that only BackupGrants, and restores by them, have."""

OWNER_REASONS: Final = frozenset({Reason.FOREIGN_OWNER})
"""Reasons that only BackupStores with the marker of another cluster have."""

POPULATOR_REASONS: Final = frozenset(
    {
        *(Reason.BOUND_ELSEWHERE, Reason.CLASS_NOT_SUPPORTED, Reason.SOURCE_NOT_FOUND, Reason.LOOKING),
        *(Reason.CANNOT_TELL, Reason.NO_BACKUP, Reason.POPULATING, Reason.POPULATED, Reason.NOT_POPULATED),
    }
)
"""Reasons that only claims that ask for a backup, and their restores, have."""

IMPORT_REASONS: Final = frozenset(
    {
        *(Reason.IMPORTING, Reason.IMPORTED, Reason.UNREADABLE_LEFT_OUT, Reason.TOO_MANY_BACKUPS),
        *(Reason.INVENTORY_SHRUNK, Reason.TOO_MANY_RELEASED, Reason.RECORDING_RELEASE),
    }
)
"""Reasons that only BackupStores that import, and deletions of backups in them, have."""

COPY_REASONS: Final = frozenset({Reason.COPIED, Reason.COPYING, Reason.COPIES_LATE, Reason.COPY_NOT_SUPPORTED})
"""Reasons that only BackupStores with spec.copies have."""

INTERNAL_REASONS: Final = {
    Reason.ALREADY_EXISTS: "callers that create objects handle it",
    Reason.SOURCE_VANISHED: "the archiver leaves the file out",
    Reason.PATH_NOT_FOUND: "only in errors of the command line",
    Reason.NOT_IN_VERSION: _GATEWAY,
    Reason.NOT_ACCEPTABLE: _GATEWAY,
    Reason.REQUEST_TIMEOUT: _GATEWAY,
    Reason.REQUEST_TOO_LARGE: _GATEWAY,
    Reason.UNSUPPORTED_MEDIA_TYPE: _GATEWAY,
}
