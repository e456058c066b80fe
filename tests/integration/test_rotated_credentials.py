"""A real S3 server whose account changes while a mover uses it, and a Secret that is mounted like the kubelet does."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from cinderblock.api.mover import StoreLocation
from cinderblock.store import rotating
from cinderblock.store.credentials import read_credentials
from cinderblock.store.factory import open_store
from cinderblock.store.rotating import RotatingStore
from tests.cluster import s3

KUBELET_SECONDS = 2.0


class Account:
    """The account of the server, and the Secret of it in a pod."""

    def __init__(self, path: Path) -> None:
        self.accounts = path / "iam"
        self.accounts.mkdir()
        self.mounted = path / "mounted"
        self.mounted.mkdir()
        self._generation = 0

    def set(self, access: str, secret: str) -> None:
        """Replace the account of the server."""
        ids = {"userID": 0, "groupID": 0, "projectID": 0}
        entry = {"access": access, "secret": secret, "role": "admin"} | ids
        (self.accounts / "new").write_text(json.dumps({"accessAccounts": {access: entry}}))
        os.replace(self.accounts / "new", self.accounts / "users.json")

    def mount(self, access: str, secret: str) -> None:
        """Replace the mounted Secret: a new directory, and one link that is moved."""
        self._generation += 1
        directory = self.mounted / f"..{self._generation}"
        directory.mkdir()
        (directory / "AWS_ACCESS_KEY_ID").write_text(access)
        (directory / "AWS_SECRET_ACCESS_KEY").write_text(secret)
        (self.mounted / "..new").symlink_to(directory.name)
        os.replace(self.mounted / "..new", self.mounted / "..data")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            if not (self.mounted / name).exists():
                (self.mounted / name).symlink_to(f"..data/{name}")


@pytest.fixture
def account(tmp_path: Path) -> Account:
    made = Account(tmp_path)
    made.set("mover", "first-secret")
    made.mount("mover", "first-secret")
    return made


@pytest.fixture
def store(account: Account, monkeypatch: pytest.MonkeyPatch) -> Iterator[RotatingStore]:
    monkeypatch.setattr(rotating, "INTERVAL_SECONDS", 0.2)
    with s3.running(f"--iam-dir={account.accounts}", "--iam-cache-disable") as server:
        location = StoreLocation(endpoint_url=server.url, container="rotated", create_container=True)
        read = partial(read_credentials, str(account.mounted))
        with closing(RotatingStore(read, lambda credentials: open_store(location, credentials))) as opened:
            yield opened


@pytest.mark.integration
@pytest.mark.parametrize(
    ("access", "secret"), [("mover", "second-secret"), ("mover-2", "second-secret")], ids=["secret", "access key"]
)
def test_calls_continue_with_the_replaced_credentials(
    account: Account, store: RotatingStore, access: str, secret: str
) -> None:
    store.check()
    store.put("packs/1", b"one")
    account.set(access, secret)
    kubelet = threading.Timer(KUBELET_SECONDS, account.mount, (access, secret))
    kubelet.start()
    try:
        store.put("packs/2", b"two")
    finally:
        kubelet.join()
    assert [found.key for found in store.list("packs/")] == ["packs/1", "packs/2"]
    assert len(store._opened) == 2
