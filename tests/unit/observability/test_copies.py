"""Metrics of second copies: where the newest backup of a volume is, and whether copies are late."""

from __future__ import annotations

from typing import Any

import pytest

from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.api.v1alpha1.store import BackupStore, BackupStoreStatus
from cinderblock.lifecycle.events import on_transition
from cinderblock.observability.alert import AlertName
from cinderblock.observability.alerts import true_alerts
from cinderblock.observability.cluster_state import ClusterState, ClusterStateBuilder
from cinderblock.observability.exposition import MetricsSnapshot, families
from cinderblock.observability.volume_metrics import ClaimRef

TIME = "1970-01-02T00:00:00Z"


def store(name: str, server: str | None = None, **status: Any) -> BackupStore:
    shown = {"endpointUrl": server} | status
    metadata = {"name": name, "namespace": "shop", "uid": name}
    return BackupStore.model_validate(
        {"metadata": metadata, "spec": {"credentialsSecretRef": {"name": "s3"}}, "status": shown}
    )


def backup(name: str, day: int, *copies: str, **more: Any) -> VolumeBackup:
    at = f"1970-01-{day:02d}T00:00:00Z"
    recorded = [{"storeName": copy, "place": "p", "time": at} for copy in copies]
    failed = {"storeName": "failed", "place": "p", "failedAt": at, "failReason": "KeyUnavailable: gone"}
    status = {"id": name, "phase": "available", "volumeId": "v", "storeName": "default", "dataTimestamp": at}
    metadata = {"name": name, "namespace": "shop", "uid": name, "creationTimestamp": at}
    status |= {"copies": [*recorded, failed]} | more
    return VolumeBackup.model_validate({"metadata": metadata, "spec": {"volumeId": "data"}, "status": status})


def read(
    *backups: VolumeBackup, stores: tuple[BackupStore, ...] = (), now: float = 0.0
) -> dict[tuple[str, ...], float]:
    builder = ClusterStateBuilder()
    for item in stores or (store("default", "https://a"), store("near", "https://a"), store("far", "https://b")):
        builder.add_store(item)
    for found in backups:
        builder.add_backup(found)
    builder.add_claim(ClaimRef("v", "shop", "data"))
    return _values(builder.result(0), now)


def _values(state: ClusterState, now: float = 0.0) -> dict[tuple[str, ...], float]:
    return {
        (sample.name.removeprefix("cinderblock_"), *sample.labels.values()): float(sample.value)
        for family in families(MetricsSnapshot(version="1", now=now, state=state))
        for sample in family.samples
    }


@pytest.mark.parametrize(
    ("copies", "expected"), [((), (1, 1)), (("near",), (2, 1)), (("far",), (2, 2)), (("near", "far"), (3, 2))]
)
def test_volume_shows_stores_and_servers_of_its_newest_backup(
    copies: tuple[str, ...], expected: tuple[int, int]
) -> None:
    values = read(backup("old", 1, "near", "far"), backup("new", 2, *copies))
    found = values["volume_copies", "shop", "data"], values["volume_copy_servers", "shop", "data"]
    assert found == expected


@pytest.mark.parametrize(("day", "expected"), [(4, 2), (6, 1), (8, 0)])
def test_volume_shows_stores_that_lock_its_newest_backup(day: int, expected: int) -> None:
    at = {"time": TIME, "place": "p"}
    copies = [
        {"storeName": "near", "lockedUntil": "1970-01-07T00:00:00Z"} | at,
        {"storeName": "far"} | at,
        {"storeName": "failed", "lockedUntil": "1970-01-09T00:00:00Z", "failedAt": TIME} | at,
    ]
    item = backup("new", 2, copies=copies, lockedUntil="1970-01-05T00:00:00Z")
    values = read(backup("old", 1, "near"), item, now=(day - 1) * 86400.0 + 1)
    assert values["volume_copies_locked", "shop", "data"] == expected


def test_incomplete_and_failed_backups_do_not_count() -> None:
    values = read(backup("good", 1, "far"), backup("lacking", 2, unreadableFiles=1), backup("bad", 3, phase="error"))
    assert values["volume_copies", "shop", "data"] == 2


@pytest.mark.parametrize(("reason", "is_late"), [("CopiesLate", True), ("StoreReadOnly", True), ("Copying", False)])
def test_late_copies_of_a_store_raise_an_alert(reason: str, is_late: bool) -> None:
    condition = {"type": "Copied", "status": "False", "reason": reason, "lastTransitionTime": TIME}
    counts = {"storeName": "far", "copied": 3, "pending": 3, "failed": 1, "unlocked": 2}
    item = store("default", "https://a", conditions=[condition], copyTargets=[counts])
    builder = ClusterStateBuilder()
    builder.add_store(item)
    state = builder.result(0)
    values = _values(state)
    shown = [
        values["store_copies", "shop", "default", "far", name] for name in ("copied", "pending", "failed", "unlocked")
    ]
    assert (shown, values["store_copies_late", "shop", "default"]) == ([3, 3, 1, 2], is_late)
    alerts = [alert for alert in true_alerts(state, 1e6) if alert.name is AlertName.COPIES_LATE]
    assert [(str(alert.subject), alert.since) for alert in alerts] == ([("shop/default", 86400.0)] if is_late else [])


def _status(reason: str | None) -> BackupStoreStatus:
    status = "True" if reason == "Copied" else "False"
    condition = {"type": "Copied", "status": status, "reason": reason, "lastTransitionTime": TIME}
    return BackupStoreStatus.model_validate({"conditions": [condition] if reason else []})


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        (None, "Copying", None),
        ("Copying", "Copied", None),
        (None, "Copied", None),
        ("Copying", "CopiesLate", "Warning"),
        ("CopiesLate", "CopiesLate", None),
        ("CopiesLate", "Copying", "Normal"),
        ("CopiesLate", "Copied", "Normal"),
        (None, "StoreReadOnly", "Warning"),
        ("Copied", None, None),
    ],
)
def test_event_tells_only_of_copies_that_are_late(before: str | None, after: str | None, kind: str | None) -> None:
    events = on_transition(_status(before), _status(after))
    assert [(event.type, event.reason) for event in events] == ([(kind, after)] if kind else [])
