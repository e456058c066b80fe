"""Everything is deleted and overwritten with the credentials of the store, and all backups are restored."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from cinderblock.api.layout import manifest_key
from cinderblock.api.mover import LockTask
from cinderblock.api.v1alpha1.store import LockMode
from cinderblock.cli.main import main
from cinderblock.errors import ObjectNotFound, PermanentError, StoreReadOnly, StoreUnreachable
from cinderblock.repository.copying.copy_backup import CopiedBackup, CopyPlace, copy_backup
from cinderblock.repository.copying.locks import TargetLocks
from cinderblock.repository.rescue.apply import run_rescue
from cinderblock.repository.rescue.plan import plan_rescue
from cinderblock.store.factory import open_history
from cinderblock.store.retrying import CLI_RETRIES
from cinderblock.store.s3 import client
from cinderblock.store.s3.store import S3Store
from cinderblock.store.versions.as_of import AsOfStore
from cinderblock.store.versions.history import History, ObjectVersion
from tests.contract.s3_server import S3Server, s3_server
from tests.support.mover.backups import PREFIX, VOLUME, Backups, key_ring
from tests.support.mover.parent_chains import ParentChain
from tests.support.store.aws.server import CREDENTIALS, AwsStub, aws_stub

IDS = ("full", "second", "third")
AGE = timedelta(hours=2)
OFFSITE = f"{PREFIX}/offsite"
"""A prefix for copies in the same bucket."""
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Site:
    """A versioned bucket with backups.

    Attributes:
        server: holds it.
        stub: the server, if it follows AWS in everything.
        has_locks: whether the backups are locked.
        line: the backups.
        before: a time when all of them existed.
    """

    server: S3Server
    stub: AwsStub | None
    has_locks: bool
    bucket: str = field(default_factory=lambda: f"test-{uuid.uuid4().hex[:12]}")
    line: ParentChain = field(default_factory=ParentChain)
    before: datetime = LONG_AGO

    @property
    def store(self) -> S3Store:
        assert isinstance(self.line.backups.store, S3Store)
        return self.line.backups.store

    def fill(self) -> None:
        """Create the bucket, and make a chain of backups."""
        if self.stub is not None:
            self.stub.add_bucket(self.bucket, versioning="Enabled", lock=self.has_locks)
        else:
            s3 = self.store._client
            s3.create_bucket(Bucket=self.bucket, ObjectLockEnabledForBucket=self.has_locks)
            s3.put_bucket_versioning(Bucket=self.bucket, VersioningConfiguration={"Status": "Enabled"})
        now = datetime.now(UTC).replace(microsecond=0)
        lock = LockTask(mode=LockMode.COMPLIANCE, until=now + timedelta(days=2), at_least=now + timedelta(days=1))
        for parent, backup_id in zip((None, *IDS), IDS, strict=False):
            self.line.add(backup_id, parent, lock=lock if self.has_locks else None)
        self._pass_a_second()

    def _pass_a_second(self) -> None:
        """Note the time, and let the clock of the server reach the next second, in which versions are later."""
        if self.stub is not None:
            self.before = self.stub.now()
            self.stub.advance(timedelta(minutes=5))
            return
        self.before = max(info.modified for info in self.store.list(PREFIX) if info.modified is not None)
        modified = None
        while modified is None or modified <= self.before:
            self.store.put("tick", b"")
            modified = next(info.modified for info in self.store.list("tick"))

    def attack(self) -> None:
        """Overwrite every second object with junk, and delete most, as anybody with the credentials can."""
        keys = [info.key for info in self.store.list(PREFIX)]
        for key in keys[1::2]:
            self.store.put(key, b"your files are encrypted")
        self.store.delete([key for number, key in enumerate(keys) if number % 4 < 3])
        assert not self.restored()

    def restored(self) -> list[str]:
        """Return the backups whose whole content can be read."""
        found = []
        for backup_id in IDS:
            try:
                if self.line.read_back(backup_id) == self.line.held[backup_id]:
                    found.append(backup_id)
            except (AssertionError, ObjectNotFound, ValueError, KeyError, IndexError):
                continue
        return found

    def run(self, *words: str) -> int:
        store = ["--from", f"s3://{self.bucket}/{PREFIX}", "--endpoint-url", self.server.url]
        return main([*words, *store])

    def rescue(self, *options: str) -> int:
        return self.run("rescue", "--at", self.before.isoformat(), *options)

    def history(self) -> History:
        return open_history(self.server.location(self.bucket), self.server.credentials, None, CLI_RETRIES)


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, Any]]:
    """Start servers on first use."""
    running: dict[str, Any] = {}
    yield running
    for manager, _ in running.values():
        manager.__exit__(None, None, None)


@pytest.fixture(
    params=[
        "aws with locks",
        "aws",
        pytest.param("versitygw with locks", marks=pytest.mark.integration),
        pytest.param("versitygw", marks=pytest.mark.integration),
    ]
)
def site(request: pytest.FixtureRequest, servers: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Make a bucket with three backups."""
    kind, has_locks = request.param.split()[0], request.param.endswith("locks")
    if kind not in servers:
        manager = aws_stub() if kind == "aws" else s3_server(keeps_versions=True)
        servers[kind] = manager, manager.__enter__()
    found = servers[kind][1]
    stub = found if isinstance(found, AwsStub) else None
    if stub is not None:
        stub._passed = -AGE
        stub.refused.clear()
    server = S3Server(stub.url, CREDENTIALS) if stub is not None else found
    made = Site(server, stub, has_locks)
    # boto3 looks for credentials once in a session.
    client._session.cache_clear()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.credentials.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.credentials.secret_key)
    with closing(S3Store(server.location(made.bucket), server.credentials)) as store:
        made.line = ParentChain(Backups(store, key_ring()))
        made.fill()
        yield made


def test_all_backups_are_restored_after_the_attack(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.attack()
    assert site.rescue("--json") == 0
    planned = json.loads(capsys.readouterr().out)
    assert (planned["existed"], len(planned["affected"]), planned["applied"]) == (3, 3, False)
    assert site.restored() == []
    assert site.rescue("--apply", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["revealed"] > 0
    assert result["copied"] > 0
    assert site.restored() == list(IDS)
    assert site.rescue("--json") == 0
    assert json.loads(capsys.readouterr().out)["affected"] == []


@pytest.mark.parametrize("site", ["aws with locks"], indirect=True)
def test_rescue_needs_no_right_to_delete_versions(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert site.stub is not None
    site.stub.refuse("s3:DeleteObjectVersion")
    site.attack()
    assert site.rescue("--apply", "--json") == 0
    assert json.loads(capsys.readouterr().out)["revealed"] == 0
    assert site.restored() == list(IDS)


def test_locked_versions_survive_the_right_to_delete_versions(site: Site) -> None:
    site.attack()
    refused = 0
    with closing(site.history()) as history:
        for version in list(history.versions(PREFIX)):
            try:
                site.store._client.delete_object(Bucket=site.bucket, Key=version.key, VersionId=version.version_id)
            except ClientError:
                refused += 1
    assert site.rescue("--apply") == (0 if site.has_locks else 3)
    assert site.restored() == (list(IDS) if site.has_locks else [])
    assert bool(refused) is site.has_locks


def test_copies_have_the_lock_of_the_old_version(site: Site) -> None:
    key = site.line.key("full")
    before = site.store.retention.inspect(key)
    site.store.put(key, b"junk")
    assert site.store.retention.inspect(key).retained_until is None
    assert site.rescue("--apply") == 0
    after = site.store.retention.inspect(key)
    assert (after.retained_until, after.lock_mode) == (before.retained_until, before.lock_mode)
    assert (after.retained_until is not None) is site.has_locks


def copy_all(site: Site, days: int) -> list[CopiedBackup]:
    """Copy all backups to OFFSITE, as a mover does for a store that asks for locks. Copies that exist are compared."""
    keys, expected = site.line.backups.keys, site.line.backups.expected
    now = datetime.now(UTC).replace(microsecond=0)
    lock = LockTask(mode=LockMode.COMPLIANCE, until=now + timedelta(days=days + 1), at_least=now + timedelta(days=days))
    source, target = CopyPlace(site.store, PREFIX, keys), CopyPlace(site.store, OFFSITE, keys)
    locks = TargetLocks(site.store, lock)
    return [copy_backup(source, target, expected(backup_id), locks=locks) for backup_id in IDS]


@pytest.mark.parametrize(
    "site",
    ["aws with locks", pytest.param("versitygw with locks", marks=pytest.mark.integration)],
    indirect=True,
)
def test_locked_copies_are_brought_back(site: Site) -> None:
    for days, is_first in ((3, True), (6, False)):
        copies = copy_all(site, days)
        assert all(copy.bytes_sent > 0 for copy in copies) is is_first
        packs = [info.key for info in site.store.list(f"{OFFSITE}/packs/")]
        states = [site.store.retention.inspect(key) for key in packs]
        kept_until = min(state.retained_until for state in states if state.retained_until is not None)
        assert all(state.lock_mode == "COMPLIANCE" for state in states)
        for backup_id, copy in zip(IDS, copies, strict=True):
            manifest = site.store.retention.inspect(manifest_key(OFFSITE, VOLUME, backup_id))
            assert manifest.retained_until == copy.locked_until
            assert datetime.now(UTC) + timedelta(days=days) < (copy.locked_until or LONG_AGO) <= kept_until
    site._pass_a_second()
    site.attack()
    store = ["--from", f"s3://{site.bucket}/{OFFSITE}", "--endpoint-url", site.server.url]
    assert main(["rescue", "--at", site.before.isoformat(), "--apply", *store]) == 0
    assert site.rescue("--apply") == 0
    again = copy_all(site, 6)
    assert [copy.bytes_sent for copy in again] == [0, 0, 0]
    assert all(copy.locked_until is not None for copy in again)


@pytest.mark.parametrize("site", ["aws with locks"], indirect=True)
def test_later_backups_and_foreign_objects_stay(site: Site) -> None:
    site.line.add("later", "third")
    site.store.put(f"{PREFIX}/notes", b"old")
    site.store.delete([site.line.key("second")])
    assert site.rescue("--apply") == 0
    held = {info.key for info in site.store.list(PREFIX)}
    assert {site.line.key("later"), site.line.key("second"), f"{PREFIX}/notes"} <= held


def test_readers_see_the_store_as_it_was(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.attack()
    assert site.run("list", "--as-of", site.before.isoformat(), "--json") == 0
    assert sorted(entry["id"] for entry in json.loads(capsys.readouterr().out)) == sorted(IDS)
    with closing(AsOfStore(site.history(), PREFIX, site.before)) as store:
        store.check()
        site.line.backups.store = store
        assert site.restored() == list(IDS)
        with pytest.raises(StoreReadOnly):
            store.put("key", b"x")
        with pytest.raises(StoreReadOnly):
            store.delete(["key"])
        with pytest.raises(ObjectNotFound):
            store.get("absent")


@pytest.mark.parametrize("site", ["aws with locks"], indirect=True)
def test_plain_bucket_has_nothing_to_rescue(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.bucket = f"test-{uuid.uuid4().hex[:12]}"
    site.store._client.create_bucket(Bucket=site.bucket)
    assert site.rescue("--apply") == 3
    assert "it keeps no versions" in capsys.readouterr().err


@pytest.mark.parametrize("site", ["aws with locks"], indirect=True)
def test_wrong_prefix_is_no_success(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    at = ["--at", site.before.isoformat(), "--apply", "--endpoint-url", site.server.url]
    assert main(["rescue", *at, "--from", f"s3://{site.bucket}/elsewhere"]) == 3
    assert "had no backup" in capsys.readouterr().err


@pytest.mark.parametrize("site", ["aws with locks"], indirect=True)
def test_missing_permission_is_told(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert site.stub is not None
    site.attack()
    site.stub.refuse("s3:PutObject", "s3:DeleteObjectVersion")
    assert site.rescue("--apply") == 3
    told = capsys.readouterr().err
    assert "not brought back" in told
    assert "because packs of the volume are missing" in told
    site.stub.refused.clear()
    assert site.rescue("--apply") == 0
    assert site.restored() == list(IDS)


@pytest.mark.parametrize("site", ["aws with locks"], indirect=True)
def test_absent_version_is_an_error(site: Site) -> None:
    with closing(site.history()) as history, pytest.raises(PermanentError):
        history.get(site.line.key("full"), "absent")


class Dying:
    """A history that stops to answer after some changes."""

    def __init__(self, inner: History, changes: int) -> None:
        self._inner = inner
        self._left = changes
        self.versions, self.get, self.close = inner.versions, inner.get, inner.close

    def copy(self, version: ObjectVersion) -> None:
        self._count()
        self._inner.copy(version)

    def remove_marker(self, key: str, version_id: str) -> None:
        self._count()
        self._inner.remove_marker(key, version_id)

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise StoreUnreachable("no answer")


@pytest.mark.parametrize("site", ["aws with locks"], indirect=True)
def test_death_of_a_rescue_leaves_no_manifest_without_packs(site: Site) -> None:
    site.attack()
    for changes in range(20):
        with closing(site.history()) as history:
            plan = plan_rescue(history, PREFIX, site.before)
            if not plan.affected:
                break
            with contextlib.suppress(StoreUnreachable):
                run_rescue(Dying(history, changes), plan)
        whole = set(site.restored())
        junk = {state.wanted.key for state in plan.manifests if not state.markers}
        listed = {info.key for info in site.store.list(f"{PREFIX}/backups/")} - junk
        assert listed <= {site.line.key(backup_id) for backup_id in whole}
    assert site.restored() == list(IDS)
