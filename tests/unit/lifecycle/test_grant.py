"""A mover of a shared store writes its own backup, reads its own volume, and reaches no other namespace."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cinderblock.api import layout
from cinderblock.api.meta import Object
from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.api.v1alpha1.cluster_store import ClusterBackupStore, SharedStore
from cinderblock.api.v1alpha1.restore import VolumeRestore
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.api.v1alpha1.verification import BackupVerification
from cinderblock.errors import AccessDenied, StoreReadOnly
from cinderblock.format.pack import new_attempt, pack_name
from cinderblock.lifecycle import grant as grants
from cinderblock.lifecycle.grant import POLICY_CHARACTERS, Grant, session_policy
from cinderblock.lifecycle.store import shared
from cinderblock.reasons import Reason
from cinderblock.repository.objects import KEY_NAME, MARK_NAME
from tests.support.broker.iam import permits

METHODS = ("GET", "HEAD", "PUT", "POST", "DELETE")
V, B, OTHER = "volume-1", "backup-1", "other-1"
PACK = pack_name("0123456789abcdef" * 2, 0)
P = "prefix/shop/11111111-2222-3333-4444-555555555555"
WRITER = Grant("bucket", P, V, B)
READER = Grant("bucket", P, V)
ACTIONS = {"GET": "s3:GetObject", "PUT": "s3:PutObject", "DELETE": "s3:DeleteObject"}

uids = st.uuids(version=4).map(str)
names = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
prefixes = st.sampled_from(["", "a", "backups", "packs/x", "a/b/c", "x" * 512])


def store_of(name: str, uid: str, prefix: str = "prefix", **more: Any) -> SharedStore:
    cluster = ClusterBackupStore.model_validate(
        {
            "metadata": {"name": "shared", "uid": "cluster"},
            "spec": {"credentialsSecretRef": {"name": "s"}, "container": "bucket", "prefix": prefix, **more},
        }
    )
    store = BackupStore.model_validate(
        {"metadata": {"name": "shared", "namespace": name}, "spec": {"clusterStoreRef": {"name": "shared"}}}
    )
    namespace = Object.model_validate({"metadata": {"name": name, "uid": uid}})
    return shared.share(cluster, store, namespace, "system")


def backup_of(store: SharedStore, volume: str = V, uid: str = B, **status: Any) -> VolumeBackup:
    key = layout.manifest_key(store.spec.prefix, volume, uid)
    return VolumeBackup.model_validate(
        {
            "metadata": {"name": "b", "namespace": store.namespace, "uid": uid},
            "spec": {"volumeId": "data"},
            "status": {"id": uid, "volumeId": volume, "manifestKey": key, **status},
        }
    )


def restore_of(backup: VolumeBackup) -> VolumeRestore:
    status = {"id": "restore", "backupId": backup.backup_id, "backupName": backup.name}
    return VolumeRestore.model_validate({"spec": {"backupId": backup.name}, "status": status})


def test_backup_gets_no_grant_in_a_read_only_store_and_readers_do() -> None:
    store = store_of("shop", "uid", access="ReadOnly")
    with pytest.raises(StoreReadOnly, match="Ask an administrator") as raised:
        grants.of_backup(backup_of(store), store)
    assert raised.value.reason is Reason.STORE_READ_ONLY
    backup = backup_of(store)
    granted = grants.of_reader(restore_of(backup), backup, store)
    assert not any(granted.permits(method, f"{store.spec.prefix}/packs/{V}/{B}/{PACK}") for method in METHODS[2:])


@pytest.mark.parametrize(
    "key", [f"{P}/packs/{V}/{B}/{PACK}", f"{P}/packs/{V}/{B}/data-key", f"{P}/backups/{V}/{B}.manifest"]
)
def test_backup_writes_its_own_packs_and_manifest(key: str) -> None:
    assert all(WRITER.permits(method, key) for method in METHODS)
    assert [method for method in METHODS if READER.permits(method, key)] == ["GET", "HEAD"]


@pytest.mark.parametrize("key", [f"{P}/packs/{V}/{OTHER}/{PACK}", f"{P}/backups/{V}/{OTHER}.manifest"])
def test_other_backups_of_the_volume_are_only_read(key: str) -> None:
    for grant in (WRITER, READER):
        assert [method for method in METHODS if grant.permits(method, key)] == ["GET", "HEAD"]


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/",
        P,
        f"{P}/",
        f"/{P}/packs/{V}/{B}/{PACK}",
        f"{P}/packs/{OTHER}/{B}/{PACK}",
        f"{P}/packs/{V}/{B}/",
        f"{P}/packs/{V}/{B}",
        f"{P}/packs/{V}/{B}/a/b",
        f"{P}/packs/{V}/{B}/..",
        f"{P}/packs/{V}/{B}/.x",
        f"{P}/packs/{V}/{B}/%2e%2e",
        f"{P}/packs/{V}/{B}/a b",
        f"{P}/packs/{V}/{B}/x\n",
        f"{P}/packs/{V}/../{OTHER}/{PACK}",
        f"{P}/backups/{V}/{B}.manifest/",
        f"{P}/backups/{V}/{B}.manifest.bak",
        f"{P}/backups/{V}/{B}",
        f"{P}/backups/{V}/x/{B}.manifest",
        f"{P}/backups/{OTHER}/{B}.manifest",
        f"{P}x/packs/{V}/{B}/{PACK}",
        f"packs/{V}/{B}/{PACK}",
        f"prefix/shop/66666666-7777-8888-9999-aaaaaaaaaaaa/packs/{V}/{B}/{PACK}",
    ],
)
def test_nothing_else_is_permitted(key: str) -> None:
    assert not any(grant.permits(method, key) for grant in (WRITER, READER) for method in METHODS)


@pytest.mark.parametrize("method", ["PATCH", "get", "OPTIONS", "", "COPY"])
def test_other_methods_are_not_permitted(method: str) -> None:
    assert not WRITER.permits(method, f"{P}/packs/{V}/{B}/{PACK}")


def test_listing_is_limited_to_the_volume_and_the_check() -> None:
    for prefix in (f"{P}/packs/{V}/", f"{P}/packs/{V}/{B}/", f"{P}/backups/{V}/", f"{P}/backups/{V}/{B}"):
        assert READER.permits_listing(prefix)
    for prefix in ("", P, f"{P}/packs/", f"{P}/packs/{V}", f"{P}/backups/", f"{P}/packs/{OTHER}/", "prefix/"):
        assert not READER.permits_listing(prefix, 1)
    assert READER.permits_listing(f"{P}/", 1)
    assert not READER.permits_listing(f"{P}/", 2)
    assert not READER.permits_listing(f"{P}/")


@pytest.mark.parametrize(
    "tail", ["..", ".", "../x", "a/../b", "a/..", "./a", "a/./b", "../../../../other/", "a\\..", "%2e"]
)
def test_prefixes_of_listings_have_no_dots_to_follow(tail: str) -> None:
    for root in (f"{P}/packs/{V}/", f"{P}/backups/{V}/"):
        assert not READER.permits_listing(root + tail)
    assert READER.permits_listing(f"{P}/packs/{V}/a..b/...c")


def test_only_names_of_this_format_are_granted() -> None:
    root = f"{P}/packs/{V}/{B}/"
    for name in (pack_name(new_attempt(), 0), pack_name(new_attempt(), 9_999_999_999), KEY_NAME, MARK_NAME):
        assert READER.permits("GET", root + name)
    for name in ("x", "pack-0", ".sgwtmp", "_multiparts_", "data-key2", f"{'A' * 32}-000000"):
        assert not READER.permits("GET", root + name)


def test_only_own_uploads_are_listed() -> None:
    assert WRITER.permits_uploads(f"{P}/backups/{V}/{B}.manifest")
    assert not WRITER.permits_uploads(f"{P}/backups/{V}/")
    assert not READER.permits_uploads(f"{P}/backups/{V}/{B}.manifest")


@pytest.mark.parametrize("bad", ["", "..", "a/b", ".a", "a*", "a?", "a\n", "x" * 65, "a b"])
def test_ids_that_change_a_key_give_no_grant(bad: str) -> None:
    with pytest.raises(AccessDenied) as volume:
        Grant("bucket", P, bad)
    with pytest.raises(AccessDenied):
        Grant("bucket", P, V, bad)
    assert volume.value.reason is Reason.NOT_GRANTED


def test_no_prefix_gives_no_grant() -> None:
    with pytest.raises(AccessDenied):
        Grant("bucket", "", V)


def test_grants_come_from_the_operation() -> None:
    store = store_of("shop", "uid")
    backup = backup_of(store)
    assert grants.of_backup(backup, store) == Grant("bucket", "prefix/shop/uid", V, B)
    assert grants.of_reader(restore_of(backup), backup, store) == Grant("bucket", "prefix/shop/uid", V)


def test_another_bucket_is_never_granted() -> None:
    store = store_of("shop", "uid")
    backup = backup_of(store, container="another")
    with pytest.raises(AccessDenied, match="bucket another"):
        grants.of_backup(backup, store)
    with pytest.raises(AccessDenied, match="bucket another"):
        grants.of_reader(restore_of(backup), backup, store)


def test_manifest_of_another_namespace_gives_no_grant() -> None:
    store, foreign = store_of("shop", "uid"), store_of("bank", "uid-2")
    backup = backup_of(store, manifestKey=layout.manifest_key(foreign.spec.prefix, V, B))
    with pytest.raises(AccessDenied, match="not below the prefix"):
        grants.of_reader(restore_of(backup), backup, store)


def test_restore_of_another_backup_gives_no_grant() -> None:
    store = store_of("shop", "uid")
    with pytest.raises(AccessDenied, match="is not the backup of"):
        grants.of_reader(restore_of(backup_of(store)), backup_of(store, uid=OTHER), store)


def test_check_of_a_drill_gets_nothing() -> None:
    store = store_of("shop", "uid")
    backup = backup_of(store)
    drill = BackupVerification.model_validate({"spec": {"level": "Restore"}, "status": {"backupId": B}})
    with pytest.raises(AccessDenied, match="level Restore"):
        grants.of_reader(drill, backup, store)


def test_import_and_backup_without_volume_give_no_grant_to_write() -> None:
    store = store_of("shop", "uid")
    imported = VolumeBackup.model_validate(
        {"metadata": {"uid": B}, "spec": {"import": {"id": OTHER}}, "status": {"volumeId": V}}
    )
    for backup in (imported, backup_of(store, volumeId=None)):
        with pytest.raises(AccessDenied):
            grants.of_backup(backup, store)


def _keys(prefix: str, volume: str, backup: str) -> list[str]:
    return [
        layout.manifest_key(prefix, volume, backup),
        f"{layout.pack_prefix(prefix, volume, backup)}{PACK}",
        f"{layout.pack_prefix(prefix, volume, backup)}data-key",
        f"{prefix}/x",
        prefix,
    ]


@given(
    one=names, two=names, uid=uids, other_uid=uids, prefix=prefixes, volume=uids, backup=uids, writes=st.booleans(),
    tail=st.text(max_size=40),
)  # fmt: skip
def test_no_key_of_one_namespace_is_permitted_by_a_grant_of_another(
    *, one: str, two: str, uid: str, other_uid: str, prefix: str, volume: str, backup: str, writes: bool, tail: str
) -> None:
    if uid == other_uid:
        return
    mine, theirs = store_of(one, uid, prefix), store_of(two, other_uid, prefix)
    grant = Grant("bucket", mine.spec.prefix, volume, backup if writes else None)
    policy = session_policy(grant, "bucket")
    for key in (*_keys(theirs.spec.prefix, volume, backup), f"{theirs.spec.prefix}/{tail}"):
        assert not any(grant.permits(method, key) for method in METHODS)
        assert not grant.permits_listing(key)
        assert not grant.permits_uploads(key)
        for action in ACTIONS.values():
            assert not permits(policy, action, f"arn:aws:s3:::bucket/{key}")
        assert not permits(policy, "s3:ListBucket", "arn:aws:s3:::bucket", {"s3:prefix": key, "s3:max-keys": "1"})


@given(
    name=names, uid=uids, prefix=prefixes, volume=uids, backup=uids, other_volume=uids, other_backup=uids,
    writes=st.booleans(),
)  # fmt: skip
def test_policy_permits_objects_exactly_as_the_grant_does(
    *, name: str, uid: str, prefix: str, volume: str, backup: str, other_volume: str, other_backup: str, writes: bool
) -> None:
    store = store_of(name, uid, prefix)
    grant = Grant("bucket", store.spec.prefix, volume, backup if writes else None)
    policy = session_policy(grant, "bucket")
    for key in [
        key
        for where in (volume, other_volume)
        for which in (backup, other_backup)
        for key in _keys(store.spec.prefix, where, which)
    ]:
        for method, action in ACTIONS.items():
            assert permits(policy, action, f"arn:aws:s3:::bucket/{key}") == grant.permits(method, key), (method, key)
            assert not permits(policy, action, f"arn:aws:s3:::other/{key}")
    listed = {"s3:prefix": f"{store.spec.prefix}/packs/{volume}/", "s3:max-keys": "1000"}
    assert permits(policy, "s3:ListBucket", "arn:aws:s3:::bucket", listed)
    assert not permits(policy, "s3:ListBucket", "arn:aws:s3:::bucket", listed | {"s3:prefix": ""})


@pytest.mark.parametrize(
    ("role", "partition"),
    [
        ("arn:aws:iam::1:role/r", "aws"),
        ("arn:aws-cn:iam::1:role/r", "aws-cn"),
        ("arn:aws-us-gov:iam::1:role/r", "aws-us-gov"),
        ("arn:minio:iam:::role/r", "aws"),
        ("role", "aws"),
    ],
)
@pytest.mark.parametrize("prefix", [P, "x" * 500])
def test_policy_is_of_the_partition_of_the_role(role: str, partition: str, prefix: str) -> None:
    policy = session_policy(Grant("bucket", prefix, V, B), "bucket", grants.partition_of(role))
    resources = re.findall(r"arn:[a-z-]+:s3:::", policy)
    assert set(resources) == {f"arn:{partition}:s3:::"}


@pytest.mark.parametrize("prefix", ["", "p", "x" * 300, "x" * 512])
@pytest.mark.parametrize("writes", [True, False])
def test_policy_is_short_enough_for_every_prefix(prefix: str, writes: bool) -> None:
    """With the longest names of Kubernetes and S3, and the longest ids of imported backups."""
    store = store_of("n" * 63, "66666666-7777-8888-9999-aaaaaaaaaaaa", prefix)
    grant = Grant("bucket", store.spec.prefix, "v" * 64, "b" * 36 if writes else None)
    policy = session_policy(grant, "k" * 63)
    assert len(policy) < POLICY_CHARACTERS
    json.loads(policy)


@given(st.text(max_size=200))
def test_any_text_as_a_key_never_leaves_the_prefix(text: str) -> None:
    for grant in (WRITER, READER):
        if any(grant.permits(method, text) for method in METHODS):
            assert text.startswith(f"{P}/")
            assert ".." not in text.split("/")


# Restores by a BackupGrant

ONE = Grant("bucket", P, V, only_backup=B, lists_pack=lambda backup_id, name: (backup_id, name) == (OTHER, PACK))


@pytest.mark.parametrize("method", METHODS)
def test_granted_restore_reads_one_manifest_and_its_packs(method: str) -> None:
    permitted = {layout.manifest_key(P, V, B), f"{layout.pack_prefix(P, V, OTHER)}{PACK}"}
    others = {
        layout.manifest_key(P, V, OTHER),
        layout.manifest_key(P, OTHER, B),
        f"{layout.pack_prefix(P, V, B)}{PACK}",
        f"{layout.pack_prefix(P, V, OTHER)}{KEY_NAME}",
        f"{layout.pack_prefix(P, V, OTHER)}{MARK_NAME}",
        f"{layout.pack_prefix(P, OTHER, OTHER)}{PACK}",
        f"{P}/",
    }
    assert {key for key in permitted | others if ONE.permits(method, key)} == (
        permitted if method in ("GET", "HEAD") else set()
    )


def test_granted_restore_lists_nothing_and_opens_one_key() -> None:
    for prefix in (f"{P}/", ONE.packs, ONE.manifests):
        assert not ONE.permits_listing(prefix, 1)
        assert not ONE.permits_uploads(prefix)
    assert ONE.permits_key_of(V, B)
    assert not ONE.permits_key_of(V, OTHER)
    assert not ONE.permits_key_of(OTHER, B)
    assert not Grant("bucket", P, V, only_backup=B).permits("GET", f"{layout.pack_prefix(P, V, B)}{PACK}")


def test_granted_restore_gets_no_session_credentials() -> None:
    with pytest.raises(AccessDenied, match="one backup"):
        session_policy(ONE, "bucket")


def granted_pair(**changed: Any) -> tuple[VolumeRestore, VolumeBackup, SharedStore]:
    """Return a restore of namespace bank, and the backup of namespace shop that records it."""
    store = store_of("shop", "uid-shop")
    entry = {"namespace": "bank", "name": "back", "uid": "r"} | changed.pop("entry", {})
    fields = {"id": B, "storeName": "shared", "phase": "available", "grantedRestores": [entry]}
    backup = backup_of(store, **fields | changed.pop("backup", {}))
    status = {"id": "r", "backupId": B, "backupName": "b", "backupNamespace": "shop"}
    status |= {"mover": {"uid": "j", "storeName": "shared"}} | changed.pop("status", {})
    spec = {"backupId": B, "backupNamespace": "shop"} | changed
    metadata = {"name": "back", "namespace": "bank", "uid": "r"}
    return VolumeRestore.model_validate({"metadata": metadata, "spec": spec, "status": status}), backup, store


def test_grant_of_a_granted_restore_is_for_its_backup() -> None:
    grant = grants.of_granted(*granted_pair())
    assert (grant.volume_id, grant.only_backup, grant.backup_id) == (V, B, None)
    assert "/shop/uid-shop" in f"/{grant.prefix}"


@pytest.mark.parametrize(
    "changed",
    [
        {"entry": {"uid": "other"}},
        {"entry": {"namespace": "other"}},
        {"backup": {"id": "copied"}},
        {"backup": {"grantedRestores": []}},
        {"backup": {"storeName": "other"}},
        {"backup": {"manifestKey": "elsewhere/backups/v/b.manifest"}},
        {"status": {"backupNamespace": None}},
        {"status": {"backupNamespace": "other"}},
        {"status": {"backupId": "other"}},
        {"status": {"mover": None}},
        {"backupNamespace": "other"},
        {"backupNamespace": "bank"},
    ],
    ids=str,
)
def test_restore_and_backup_that_do_not_name_each_other_are_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(AccessDenied):
        grants.of_granted(*granted_pair(**changed))
