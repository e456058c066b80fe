"""From a BackupStore to its settings, to the place of a backup, and to whether anything new may use it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.api.v1alpha1.cluster_store import SharedStore
from cinderblock.api.v1alpha1.restore import VolumeRestore
from cinderblock.api.v1alpha1.verification import BackupVerification
from cinderblock.lifecycle.backup import checks as backup_checks
from cinderblock.lifecycle.observed import (
    MoverSettings,
    ObservedBackup,
    ObservedRestore,
    ObservedVerification,
    OperatorPolicy,
    StoreLookup,
)
from cinderblock.lifecycle.restore import checks as restore_checks
from cinderblock.lifecycle.store import movers, place
from cinderblock.lifecycle.store.decide import default_store
from cinderblock.lifecycle.store.resolve import resolve
from cinderblock.lifecycle.verdicts import Fail, Wait
from cinderblock.lifecycle.verification import checks as verification_checks
from tests.support.shared_stores import SYSTEM, a_backup_store, a_cluster_store, a_namespace, a_shared_store
from tests.support.simulation.observed_builders import POLICY, a_backup, a_claim, a_store, available

DEFAULT = {"annotations": {"cinderblock.io/is-default-store": "true"}}


def test_store_of_its_own_is_taken_as_it_is() -> None:
    own = a_store()
    assert resolve(own, None, None, SYSTEM) == StoreLookup(own)


def test_missing_cluster_store_is_named() -> None:
    found = resolve(a_backup_store(), None, a_namespace(), SYSTEM)
    assert (found.store, found.missing_reason) == (None, "ClusterStoreNotFound")
    assert "ClusterBackupStore shared" in found.missing
    verdict = backup_checks.store_error(found, POLICY.deadlines)
    assert isinstance(verdict, Fail)
    assert verdict.reason == "ClusterStoreNotFound"


def test_allowed_namespace_has_no_refusal() -> None:
    found = resolve(a_backup_store(), a_cluster_store(), a_namespace(), SYSTEM)
    assert isinstance(found.store, SharedStore)
    assert (found.refusal, found.error) == (None, None)


@pytest.mark.parametrize(
    ("cluster", "store", "reason"),
    [
        ({"allowedNamespaces": {"from": "None"}}, {}, "StoreNotAllowed"),
        ({"allowedNamespaces": {"from": "Names", "names": ["bank"]}}, {}, "StoreNotAllowed"),
        ({"allowedNamespaces": {"from": "Selector", "selector": {"matchLabels": {"a": "??"}}}}, {}, "StoreNotAllowed"),
        ({"metadata": {"deletionTimestamp": "2026-05-04T12:00:00Z"}}, {}, "StoreBeingDeleted"),
        ({}, {"name": "other"}, "InvalidInput"),
    ],
)
def test_refused_store_accepts_nothing_new(cluster: dict[str, Any], store: dict[str, Any], reason: str) -> None:
    found = resolve(a_backup_store(**store), a_cluster_store(**cluster), a_namespace(), SYSTEM)
    assert isinstance(found.store, SharedStore), "its backups can be deleted all the same"
    backup = ObservedBackup(a_backup(), POLICY, store=found)
    restore = ObservedRestore(VolumeRestore.model_validate({"spec": {"backupId": "b-1"}}), POLICY, store=found)
    verification = BackupVerification.model_validate({"spec": {"backupId": "b-1", "level": "Data"}})
    verdicts = (
        backup_checks.store_is_usable(backup),
        restore_checks.store_is_usable(restore),
        verification_checks.store_is_usable(ObservedVerification(verification, POLICY, store=found)),
    )
    assert [verdict.reason for verdict in verdicts if isinstance(verdict, Fail)] == [reason] * 3


def test_default_of_an_earlier_release_does_not_refuse_a_store() -> None:
    assert resolve(a_backup_store(compareEvery=12), a_cluster_store(), a_namespace(), SYSTEM).refusal is None


def test_namespace_without_a_place_has_no_store() -> None:
    former = [{"namespace": "shop", "namespaceUID": "u-shop", "name": "bank", "uid": "u-bank"}]
    found = resolve(
        a_backup_store(), a_cluster_store(formerNamespaces=former), a_namespace(), SYSTEM, a_namespace("bank")
    )
    assert (found.store, found.missing_reason) == (None, "FormerNamespaceRefused")


def test_default_of_the_namespace_goes_before_a_shared_one() -> None:
    own, shared = a_store(), a_backup_store(metadata=DEFAULT)
    marked = own.model_copy(update={"metadata": own.metadata.model_copy(update=DEFAULT)})
    assert default_store([shared, marked], "shop").store is marked
    assert default_store([own, shared], "shop").store is shared
    second = a_backup_store(name="second", metadata=DEFAULT)
    assert "shared" in default_store([shared, second], "shop").missing
    assert default_store([shared, second, marked], "shop").store is marked


def a_recorded(key: str, **more: Any) -> VolumeBackup:
    return available(manifestKey=key, **more)


def test_backup_below_the_present_prefix_is_in_place() -> None:
    assert place.misplaced(a_recorded("shop/u-shop/backups/c-1/b-1.manifest"), a_shared_store()) is None
    assert place.misplaced(a_backup(), a_shared_store()) is None


@pytest.mark.parametrize(
    "key",
    [
        "shop/lost/backups/c-1/b-1.manifest",
        "backups/c-1/b-1.manifest",
        "shop/u-shop/x/backups/c-1/b-1.manifest",
        "shop/u-shop/backups/../b-1.manifest",
    ],
)
def test_backup_elsewhere_is_neither_missing_nor_deleted(key: str) -> None:
    error = place.misplaced(a_recorded(key), a_shared_store())
    assert error is not None
    assert (error.reason, error.permanent) == ("ManifestMisplaced", False)
    assert "condition Ready of ClusterBackupStore shared" in error.message


def test_other_bucket_is_another_place_only_in_a_shared_store() -> None:
    backup = a_recorded("shop/u-shop/backups/c-1/b-1.manifest", container="others")
    assert place.misplaced(backup, a_shared_store()) is not None
    assert place.misplaced(a_recorded("backups/c-1/b-1.manifest", container="others"), a_store()) is None


def test_backup_to_another_bucket_of_a_shared_store_fails() -> None:
    backup = a_backup(spec={"container": "others"})
    found = ObservedBackup(backup, POLICY, store=StoreLookup(a_shared_store()))
    verdict = backup_checks.store_is_usable(found)
    assert isinstance(verdict, Fail)
    assert verdict.reason == "StoreNotAllowed"
    own = ObservedBackup(backup, POLICY, store=StoreLookup(a_store()))
    assert backup_checks.store_is_usable(own) is None


def test_movers_of_a_shared_store_need_the_broker() -> None:
    lookup, settings = StoreLookup(a_shared_store()), MoverSettings("image")
    off = movers.verdict(lookup, OperatorPolicy(settings))
    assert isinstance(off, Fail)
    assert off.reason == "BrokerDisabled"
    assert "broker.enabled" in off.message
    starting = movers.verdict(lookup, OperatorPolicy(replace(settings, broker_url="https://broker")))
    assert isinstance(starting, Wait)
    assert starting.reason == "BrokerUnavailable"
    ready = replace(settings, broker_url="https://broker", broker_ca="PEM")
    assert movers.verdict(lookup, OperatorPolicy(ready)) is None
    assert movers.verdict(StoreLookup(a_store()), OperatorPolicy(settings)) is None


def test_gateway_does_not_judge_the_place_of_a_shared_store() -> None:
    sibling = a_recorded("shop/u-shop/backups/c-1/b-1.manifest", container="others", storeName="shared")
    incremental = a_backup("b-2", spec={"incremental": True})
    unread = ObservedBackup(incremental, POLICY, (sibling,), store=StoreLookup(a_backup_store()), claim=a_claim())
    assert backup_checks.latest_parent(unread) == sibling
    read = replace(unread, store=StoreLookup(a_shared_store()))
    assert backup_checks.latest_parent(read) is None


IN_PLACE = "shop/u-shop/backups/c-1/b-1.manifest"
SERVER = {"endpointUrl": "https://s3.example.org"}


@pytest.mark.parametrize(
    ("now", "is_moved"),
    [
        (SERVER, False),
        ({"endpointUrl": "https://s3.example.org/"}, False),
        (SERVER | {"region": "eu-west-1"}, False),
        ({"endpointUrl": "https://new.example.org"}, True),
        (SERVER | {"container": "others"}, True),
        ({}, True),
    ],
)
def test_backups_of_another_server_are_misplaced(now: dict[str, Any], is_moved: bool) -> None:
    backup = a_recorded(IN_PLACE, storePlace=place.place_id(a_shared_store(**SERVER)))
    assert (place.misplaced(backup, a_shared_store(**now)) is not None) == is_moved


def test_region_without_an_endpoint_is_another_server() -> None:
    assert place.place_id(a_shared_store()) != place.place_id(a_shared_store(region="eu-west-1"))


def test_administrator_declares_that_all_objects_were_copied() -> None:
    recorded = place.place_id(a_shared_store(**SERVER))
    backup = a_recorded(IN_PLACE, storePlace=recorded)
    annotations = {"cinderblock.io/moved-from": f"0123, {recorded}"}
    assert place.misplaced(backup, a_shared_store()) is not None
    assert place.misplaced(backup, a_shared_store(metadata={"annotations": annotations})) is None


def test_own_stores_and_older_statuses_know_no_server() -> None:
    assert place.misplaced(a_recorded(IN_PLACE), a_shared_store(**SERVER)) is None
    assert place.place_id(a_store()) is None
