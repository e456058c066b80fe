"""Buckets and accounts of the embedded store on the real S3 server: no namespace takes the bucket of another."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cinderblock.api.mover import StoreLocation
from cinderblock.errors import AccessDenied, CinderblockError, Conflict, StoreUnreachable
from cinderblock.store.base import ObjectStore
from cinderblock.store.credentials import S3Credentials
from cinderblock.store.factory import open_store
from cinderblock.store.s3.versitygw import create_bucket
from tests.cluster import s3

pytestmark = pytest.mark.integration

EVIL, SHOP = "cinderblock-evil", "cinderblock-shop"


@dataclass(frozen=True, slots=True)
class Server:
    """The S3 server, started as the chart starts it."""

    inner: s3.S3Server
    accounts: Path

    @property
    def administrator(self) -> S3Credentials:
        """The account that the setup Job uses."""
        return S3Credentials(self.inner.access_key, self.inner.secret_key)

    def set_role(self, role: str) -> None:
        """Give both accounts a role, as the accounts file of a release has it."""
        write_accounts(self.accounts, role)
        # The server reads the file again when its cache has expired, after one second here.
        time.sleep(1.5)

    def create(self, bucket: str, owner: str) -> bool:
        """Create a bucket as the setup Job does."""
        return create_bucket(self.inner.url, self.administrator, bucket, owner)

    def store(self, account: str, bucket: str, *, create: bool = False) -> ObjectStore:
        """Open a bucket with the credentials of a namespace."""
        location = StoreLocation(endpoint_url=self.inner.url, container=bucket, create_container=create)
        return open_store(location, S3Credentials(account, secret_of(account)))


def secret_of(account: str) -> str:
    return f"secret-of-{account}"


def write_accounts(directory: Path, role: str) -> None:
    ids = {"userID": 0, "groupID": 0, "projectID": 0}
    accounts = {name: {"access": name, "secret": secret_of(name), "role": role} | ids for name in (EVIL, SHOP)}
    (directory / "users.json").write_text(json.dumps({"accessAccounts": accounts}))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    write_accounts(tmp_path, "user")
    with s3.running("--iam-dir", str(tmp_path), "--iam-cache-ttl", "1") as inner:
        yield Server(inner, tmp_path)


def test_bucket_belongs_to_its_account_alone(server: Server) -> None:
    assert server.create(SHOP, SHOP)
    store = server.store(SHOP, SHOP)
    store.check()
    store.put("backup", b"of shop")
    assert store.get("backup") == b"of shop"
    assert not server.create(SHOP, SHOP)
    for attempt in (lambda: server.store(EVIL, SHOP).check(), lambda: server.store(EVIL, SHOP).get("backup")):
        with pytest.raises(AccessDenied):
            attempt()
    store.delete(["backup"])


def test_account_creates_no_bucket_by_itself(server: Server) -> None:
    for bucket in (SHOP, EVIL, "anything"):
        with pytest.raises(CinderblockError):
            server.store(EVIL, bucket, create=True).check()
    assert list(server.inner.directory.iterdir()) == []
    with pytest.raises(AccessDenied):
        create_bucket(server.inner.url, S3Credentials(EVIL, secret_of(EVIL)), SHOP, EVIL)


def test_bucket_that_another_account_took_earlier_is_refused(server: Server) -> None:
    server.set_role("userplus")
    server.store(EVIL, SHOP, create=True).check()
    server.set_role("user")
    with pytest.raises(Conflict, match="belongs to another account"):
        server.create(SHOP, SHOP)


def test_backups_of_an_older_release_stay_readable(server: Server) -> None:
    server.set_role("userplus")
    old = server.store(SHOP, SHOP, create=True)
    old.check()
    old.put("backup", b"older")
    server.set_role("user")
    assert not server.create(SHOP, SHOP)
    store = server.store(SHOP, SHOP, create=True)
    store.check()
    store.put("next", b"newer")
    assert (store.get("backup"), store.get("next")) == (b"older", b"newer")
    store.delete(["backup"])


def test_account_that_is_new_to_the_server_is_tried_again(server: Server) -> None:
    with pytest.raises(StoreUnreachable, match="XAdminUserNotFound"):
        server.create(SHOP, "cinderblock-new")
    assert list(server.inner.directory.iterdir()) == []


def test_server_that_is_not_there_is_tried_again() -> None:
    with pytest.raises(StoreUnreachable):
        create_bucket("http://127.0.0.1:9", S3Credentials("a", "b"), SHOP, SHOP)
