"""A store with access ReadOnly on a real server, whose account may only read: our programs do not even try to write."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cinderblock.api import layout
from cinderblock.api.mover import (
    BackupMetadata,
    MoverOperation,
    MoverReport,
    MoverTask,
    StoreLocation,
    VerifyTask,
    VolumeMode,
    task_to_env,
)
from cinderblock.api.v1alpha1.store import BackupStore, StoreAccess
from cinderblock.api.v1alpha1.verification import VerificationLevel
from cinderblock.controller.stores.pool import StorePool
from cinderblock.controller.stores.references import ReferenceLookups
from cinderblock.controller.stores.secrets import SecretReader
from cinderblock.errors import AccessDenied, StoreReadOnly
from cinderblock.kube.client import KubeClient
from cinderblock.mover.main import main
from cinderblock.repository.catalog import Catalog
from cinderblock.repository.deletion import delete_backup
from cinderblock.store.credentials import S3Credentials
from cinderblock.store.factory import ignores_unsigned_headers, open_store
from tests.cluster import s3
from tests.contract.relay import Relay, relay
from tests.support.mover.mover_pods import PROGRAM
from tests.support.shared_stores import SYSTEM, a_shared_store
from tests.support.simulation.api import ObjectsInMemory, SimulatedApi

pytestmark = pytest.mark.integration

BUCKET, PREFIX, VOLUME = "archive", "demo", "volume-1"
READER = S3Credentials("reader", "readers-secret")
NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
READING = {"GET", "HEAD"}


@dataclass(frozen=True)
class Archive:
    """A bucket with a full and an incremental backup, and an account that may only read it.

    Attributes:
        line: the relay to the server, which notes all requests.
        writer: credentials of the server's administrator.
        directory: where the server keeps the objects.
        url: of the server itself.
        backups: ids of the backups, the oldest first.
        key: file with the encryption key.
        source: the directory that was backed up.
    """

    line: Relay
    writer: S3Credentials
    directory: Path
    url: str
    backups: tuple[str, ...]
    key: Path
    source: Path

    def location(self, access: StoreAccess = StoreAccess.READ_ONLY) -> StoreLocation:
        return StoreLocation(
            endpoint_url=self.line.url, container=BUCKET, prefix=PREFIX, access=access, create_container=True
        )

    def run(self, *words: str, credentials: S3Credentials = READER) -> subprocess.CompletedProcess[str]:
        """Run a command through the relay."""
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "CINDERBLOCK_"))},
            "AWS_ACCESS_KEY_ID": credentials.access_key,
            "AWS_SECRET_ACCESS_KEY": credentials.secret_key,
            "AWS_ENDPOINT_URL": self.line.url,
        }
        return subprocess.run([PROGRAM, *words], env=environment, capture_output=True, text=True, check=False)

    def methods(self) -> set[str]:
        """Return the methods of the requests since the last call."""
        found = {request.split(" ")[0] for request in self.line.requests}
        self.line.requests.clear()
        return found

    def content(self) -> dict[str, tuple[int, bytes]]:
        """Return time and bytes of each file of the server."""
        files = [path for path in sorted(self.directory.rglob("*")) if path.is_file()]
        return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def policy() -> str:
    resource = f"arn:aws:s3:::{BUCKET}"
    return json.dumps(
        {
            "Version": "2012-10-17",
            "Statement": [
                {"Effect": "Allow", "Principal": [READER.access_key], "Action": actions, "Resource": where}
                for actions, where in ((["s3:ListBucket"], resource), (["s3:GetObject"], f"{resource}/*"))
            ],
        }
    )


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    path = tmp_path_factory.mktemp("archive")
    (path / "iam").mkdir()
    ids = {"userID": 0, "groupID": 0, "projectID": 0}
    entry = {"access": READER.access_key, "secret": READER.secret_key, "role": "user"} | ids
    (path / "iam" / "users.json").write_text(json.dumps({"accessAccounts": {READER.access_key: entry}}))
    key = path / "key-1"
    key.write_bytes(base64.b64encode(os.urandom(32)))
    source = path / "source"
    source.mkdir()
    with s3.running(f"--iam-dir={path / 'iam'}", "--keep-alive") as server, relay(server.url) as line:
        writer = S3Credentials(server.access_key, server.secret_key)
        made = Archive(line, writer, server.directory, server.url, (), key, source)
        ids_of_backups = []
        for number in range(2):
            (source / f"file-{number}").write_bytes(os.urandom(200_000))
            words = ("backup", str(source), "--to", f"s3://{BUCKET}/{PREFIX}", "--volume-id", VOLUME, "--incremental")
            done = made.run(*words, "--encryption-key-file", str(key), "--json", credentials=writer)
            assert done.returncode == 0, done.stderr
            ids_of_backups.append(json.loads(done.stdout.splitlines()[-1])["backupId"])
        with closing(open_store(made.location(StoreAccess.READ_WRITE), writer)) as store:
            client: Any = store._inner._client  # type: ignore[attr-defined]
            client.put_bucket_policy(Bucket=BUCKET, Policy=policy())
        line.requests.clear()
        yield Archive(line, writer, server.directory, server.url, tuple(ids_of_backups), key, source)


@pytest.fixture(autouse=True)
def nothing_changes(archive: Archive) -> Iterator[None]:
    """Check that a test changes no object, and that it sends only requests that read."""
    before = archive.content()
    archive.line.requests.clear()
    yield
    assert archive.methods() <= READING
    assert archive.content() == before


def test_the_account_really_may_only_read(archive: Archive) -> None:
    with closing(open_store(archive.location(StoreAccess.READ_WRITE), READER)) as store:
        store.check()
        assert [found.key for found in store.list(f"{PREFIX}/backups/")]
        with pytest.raises(AccessDenied):
            store.put(f"{PREFIX}/packs/x", b"x")
        with pytest.raises(AccessDenied):
            store.delete([found.key for found in store.list(f"{PREFIX}/backups/")])
    assert archive.methods() > READING & {"GET"}


def test_commands_that_read_work_and_send_no_other_request(archive: Archive, tmp_path: Path) -> None:
    at = ("--from", f"s3://{BUCKET}/{PREFIX}", "--encryption-key-file", str(archive.key))
    newest = archive.backups[-1]
    for words in (
        ("list",),
        ("list", "--as-manifests"),
        ("show", newest),
        ("verify", newest),
        ("verify", newest, "--level", "structure"),
        ("verify", newest, "--level", "data"),
        ("key", "check", "--all"),
        ("restore", newest, "--target", str(tmp_path / "target")),
        ("retention", "preview", "--keep-last", "1"),
    ):
        done = archive.run(*words, *at)
        assert done.returncode == 0, (words, done.stderr)
        assert archive.methods() == {"GET"}, words
    restored = {path.name: path.read_bytes() for path in (tmp_path / "target").iterdir()}
    assert restored == {path.name: path.read_bytes() for path in archive.source.iterdir()}


def keep_secrets(objects: ObjectsInMemory, archive: Archive, namespace: str) -> None:
    secrets = {
        "s3": {"AWS_ACCESS_KEY_ID": READER.access_key, "AWS_SECRET_ACCESS_KEY": READER.secret_key},
        "keys": {"key-1": archive.key.read_text()},
    }
    for name, values in secrets.items():
        data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
        objects.create("Secret", {"metadata": {"name": name, "namespace": namespace}, "data": data})


def store_of(archive: Archive) -> BackupStore:
    spec = {
        "endpointUrl": archive.line.url,
        "container": BUCKET,
        "prefix": PREFIX,
        "access": "ReadOnly",
        "credentialsSecretRef": {"name": "s3"},
        "encryptionSecretRef": {"name": "keys"},
    }
    return BackupStore.model_validate({"metadata": {"name": "archive", "namespace": "shop", "uid": "u"}, "spec": spec})


async def test_operator_checks_reads_and_is_stopped_before_a_request(archive: Archive) -> None:
    objects = ObjectsInMemory(lambda: NOW)
    keep_secrets(objects, archive, "shop")
    keep_secrets(objects, archive, SYSTEM)
    pool = StorePool(
        KubeClient(SimulatedApi(objects, lambda how, item: None)), ignores_unsigned_headers=ignores_unsigned_headers
    )
    secrets, store = SecretReader(), store_of(archive)
    with closing(pool):
        await pool.check(store, BUCKET, secrets)
        assert await pool.container_rules(store, BUCKET, secrets) is not None
        lookups = ReferenceLookups()
        for backup in archive.backups:
            await lookups.find_dependents(pool, store, BUCKET, VOLUME, backup, secrets=secrets)
        shared = a_shared_store("shop", endpointUrl=archive.line.url, container=BUCKET, access="ReadOnly")
        await pool.check(shared, BUCKET, secrets)
        assert archive.methods() <= READING
        opened = await pool.open(store, BUCKET, secrets)
        with pytest.raises(StoreReadOnly):
            opened.put(f"{PREFIX}/packs/{VOLUME}/{archive.backups[0]}/0-inherited", b"")
        with pytest.raises(StoreReadOnly):
            opened.delete([layout.manifest_key(PREFIX, VOLUME, archive.backups[0])])
        assert archive.methods() == set()


async def test_missing_container_is_not_created(archive: Archive) -> None:
    location = archive.location().model_copy(update={"container": "absent-bucket"})
    with closing(open_store(location, archive.writer)) as store, pytest.raises(Exception, match="absent-bucket"):
        store.check()
    assert not (archive.directory / "absent-bucket").exists()


def run_mover(archive: Archive, directory: Path, operation: MoverOperation, path: Path, **more: Any) -> MoverReport:
    """Run a mover of the read-only store in this process, with mounted Secrets."""
    for name, values in {
        "credentials": {"AWS_ACCESS_KEY_ID": READER.access_key, "AWS_SECRET_ACCESS_KEY": READER.secret_key},
        "encryption": {"key-1": archive.key.read_text()},
    }.items():
        (directory / name).mkdir(parents=True, exist_ok=True)
        for key, value in values.items():
            (directory / name / key).write_text(value)
    backup_id = "new-backup" if operation is MoverOperation.BACKUP else archive.backups[-1]
    description = BackupMetadata(
        backup_id=backup_id,
        volume_id=VOLUME,
        volume_mode=VolumeMode.FILESYSTEM,
        created_at=NOW,
        data_timestamp=NOW,
    )
    task = MoverTask(
        operation=operation,
        store=archive.location(),
        volume_mode=VolumeMode.FILESYSTEM,
        path=str(path),
        backup=description,
        manifest=layout.manifest_key(PREFIX, VOLUME, backup_id),
        sealed=True,
        data_instant=NOW,
        **more,
    )
    log = directory / "termination-log"
    log.write_bytes(b"")
    main(task_to_env(task), secrets_directory=str(directory), termination_log=str(log), out=io.StringIO())
    return MoverReport.model_validate_json(log.read_bytes())


@pytest.mark.parametrize("level", [VerificationLevel.STRUCTURE, VerificationLevel.DATA])
def test_mover_verifies_without_a_write(archive: Archive, tmp_path: Path, level: VerificationLevel) -> None:
    report = run_mover(archive, tmp_path, MoverOperation.VERIFY, tmp_path, verify=VerifyTask(level=level))
    assert report.succeeded, report
    assert archive.methods() == {"GET"}


def test_mover_restores_without_a_write(archive: Archive, tmp_path: Path) -> None:
    with closing(open_store(archive.location(), READER)) as store:
        (backup, *_) = [b for b in Catalog(store, PREFIX).list_backups() if b.backup_id == archive.backups[-1]]
    target = tmp_path / "target"
    target.mkdir()
    report = run_mover(archive, tmp_path, MoverOperation.RESTORE, target, expected=backup.expected(sealed=True))
    assert report.succeeded, report
    assert {path.name for path in target.iterdir()} == {path.name for path in archive.source.iterdir()}
    assert archive.methods() == {"GET"}


def test_mover_that_should_back_up_fails_and_sends_no_write(archive: Archive, tmp_path: Path) -> None:
    report = run_mover(archive, tmp_path, MoverOperation.BACKUP, archive.source)
    assert (report.succeeded, report.permanent, report.reason) == (False, True, "StoreReadOnly")
    assert archive.methods() <= READING


def test_deletion_is_stopped_before_its_first_write(archive: Archive) -> None:
    with closing(open_store(archive.location(), archive.writer)) as store:
        catalog = Catalog(store, PREFIX)
        with pytest.raises(StoreReadOnly):
            delete_backup(store, PREFIX, VOLUME, archive.backups[-1], catalog.references(VOLUME), now=NOW)
