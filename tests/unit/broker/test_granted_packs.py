"""The broker while the store of a granted backup does not answer: a temporary fault that shows nothing of the store."""

from __future__ import annotations

import pytest

from cinderblock.api import layout
from cinderblock.api.mover import StoreLocation
from cinderblock.api.pins import ExpectedBackup
from cinderblock.broker import granted_packs
from cinderblock.broker.access import Access, GrantedManifest, PodIdentity
from cinderblock.broker.granted_packs import GrantedPacks
from cinderblock.broker.stores import OpenStore
from cinderblock.errors import StoreUnreachable
from cinderblock.format.manifest.pack_set import PackSet
from cinderblock.lifecycle.grant import Grant
from cinderblock.reasons import Reason
from cinderblock.store.credentials import S3Credentials
from cinderblock.store.s3.signers.signing import RequestSigner
from tests.support.shared_stores import a_shared_store

NOWHERE = "http://127.0.0.1:9"


def an_access(*, is_granted: bool, backup_id: str = "b") -> Access:
    store = a_shared_store()
    grant = Grant("bucket", store.spec.prefix, "v", only_backup=backup_id if is_granted else None)
    key = layout.manifest_key(store.spec.prefix, "v", backup_id)
    manifest = GrantedManifest(key, ExpectedBackup(volume_id="v", backup_id=backup_id, sealed=True))
    pod = PodIdentity("staging", "pod", "uid")
    return Access(pod, "VolumeRestore back", "r", store, grant, manifest if is_granted else None)


def a_silent_store() -> OpenStore:
    credentials = S3Credentials("access", "the-secret")
    place = StoreLocation(endpoint_url=NOWHERE, container="bucket", prefix="")
    return OpenStore(f"{NOWHERE}/bucket", place, credentials, RequestSigner(credentials, "us-east-1"), None, None)


async def test_silent_store_is_temporary_and_shows_nothing_of_it() -> None:
    with pytest.raises(StoreUnreachable) as caught:
        await GrantedPacks().complete(an_access(is_granted=True), a_silent_store())
    assert caught.value.reason is Reason.BROKER_UNAVAILABLE
    assert not caught.value.permanent
    assert NOWHERE not in caught.value.message


async def test_other_operations_need_no_list() -> None:
    access = an_access(is_granted=False)
    assert await GrantedPacks().complete(access, a_silent_store()) is access.grant


async def test_movers_of_one_namespace_do_not_push_out_their_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    packs, accesses = GrantedPacks(), [an_access(is_granted=True, backup_id=f"b{number}") for number in range(32)]

    def observe(manifest: GrantedManifest, store: OpenStore) -> PackSet:
        del store
        read.append(manifest.key)
        return PackSet()

    monkeypatch.setattr(granted_packs, "_read_packs", observe)
    for access in (*accesses, *accesses):
        await packs.complete(access, a_silent_store())
    assert len(read) == len(accesses)
