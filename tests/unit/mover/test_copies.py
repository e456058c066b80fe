"""The mover's operation ``copy``: each backup has its own result, and a silent store ends the run early."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typing_extensions import override

from cinderblock.api.mover import (
    COPIES_OF_A_RUN,
    REPORT_LIMIT,
    CopyResult,
    CopyTask,
    LockTask,
    MoverOperation,
    MoverReport,
    MoverTask,
    StoreLocation,
)
from cinderblock.api.pins import ExpectedBackup
from cinderblock.api.v1alpha1.store import LockMode, StoreAccess
from cinderblock.errors import AccessDenied, StoreUnreachable
from cinderblock.mover.report import encode_report
from cinderblock.store.base import ObjectStore
from cinderblock.store.credentials import Credentials
from cinderblock.store.memory import MemoryStore
from tests.support.mover.backups import KEYS, PREFIX, VOLUME, Backups, key_ring
from tests.support.mover.volumes_in_memory import MemorySource
from tests.support.store.aws.bucket import Bucket
from tests.support.store.aws.bucket_store import BucketStore
from tests.support.store.faults import FaultyStore
from tests.unit.mover.test_main import Pod, mount

TARGET = "offsite"


class CopyPod(Pod):
    """The pod of a mover that copies, with the Secrets of a second store."""

    def __init__(self, path: Path, source: ObjectStore, target: ObjectStore) -> None:
        super().__init__(path, KEYS)
        self.store = source
        self.target = target
        credentials = self.secrets / "target-credentials"
        credentials.mkdir()
        (credentials / "AWS_ACCESS_KEY_ID").write_text("other")
        (credentials / "AWS_SECRET_ACCESS_KEY").write_text("other-secret")
        mount(self.secrets / "target-encryption", KEYS)

    @override
    def open(self, location: StoreLocation, credentials: Credentials, ca_file: str | None) -> ObjectStore:
        self.opened.append((location, credentials, ca_file))
        return self.target if location.container == TARGET else self.store

    @property
    def results(self) -> dict[str, str]:
        """The reason of each result, empty for a copy."""
        return {result.backup_id: result.reason for result in self.report.copies}


@pytest.fixture
def backups() -> Backups:
    made, source = Backups(MemoryStore(), key_ring()), MemorySource()
    for name in ("one", "two", "three"):
        source.add(b"file", (0, os.urandom(9000)), stamp=len(name))
        made.back_up(source, name)
    return made


def task_for(backups: Backups, *names: str) -> MoverTask:
    task = backups.task(MoverOperation.COPY, names[0])
    store = task.store.model_copy(update={"access": StoreAccess.READ_ONLY})
    target = StoreLocation(container=TARGET, prefix="other")
    copies = CopyTask(target=target, backups=[backups.expected(name) for name in names])
    return task.model_copy(update={"store": store, "copies": copies})


def test_each_store_is_opened_with_its_own_secrets(tmp_path: Path, backups: Backups) -> None:
    pod = CopyPod(tmp_path, backups.store, MemoryStore())
    assert pod.run(task_for(backups, "one", "two")) == 0
    assert pod.results == {"one": "", "two": ""}
    names = {location.container: getattr(credentials, "access_key", "") for location, credentials, _ in pod.opened}
    assert names == {"container": "id", TARGET: "other"}
    assert pod.report.requests > 0
    assert [line.bytes_done for line in pod.lines] == sorted(line.bytes_done for line in pod.lines)


def test_backup_of_its_own_trouble_holds_up_no_other(tmp_path: Path, backups: Backups) -> None:
    pack = backups.pack_keys("two")[0]
    with backups.changed(pack, b"something else"):
        pod = CopyPod(tmp_path, backups.store, MemoryStore())
        assert pod.run(task_for(backups, "gone", "two", "three")) == 0
    assert pod.results == {"gone": "ManifestMissing", "two": "IntegrityError", "three": ""}


def test_store_that_falls_silent_leaves_the_rest_to_another_run(tmp_path: Path, backups: Backups) -> None:
    target = FaultyStore(MemoryStore())
    target.on("put", "two").raises(StoreUnreachable("away"))
    pod = CopyPod(tmp_path, backups.store, target)
    assert pod.run(task_for(backups, "one", "two", "three")) == 0
    assert pod.results == {"one": ""}


@pytest.mark.parametrize(("error", "code"), [(StoreUnreachable("away"), 4), (AccessDenied("refused"), 3)])
def test_store_that_fails_at_once_fails_the_run(
    tmp_path: Path, backups: Backups, error: BaseException, code: int
) -> None:
    target = FaultyStore(MemoryStore())
    target.on("put").raises(error)
    pod = CopyPod(tmp_path, backups.store, target)
    assert pod.run(task_for(backups, "one", "two")) == code
    assert not pod.results


def test_copies_are_locked_and_report_until_when(tmp_path: Path, backups: Backups) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    target = FaultyStore(BucketStore(Bucket(lambda: datetime.now(UTC), versioning="Enabled", has_lock=True)))
    task = task_for(backups, "one", "two")
    assert task.copies is not None
    lock = LockTask(mode=LockMode.GOVERNANCE, until=now + timedelta(days=3), at_least=now + timedelta(days=2))
    task = task.model_copy(update={"copies": task.copies.model_copy(update={"lock": lock})})
    pod = CopyPod(tmp_path, backups.store, target)
    assert pod.run(task) == 0
    assert [found.locked_until for found in pod.report.copies] == [lock.until, lock.until]
    longer = lock.model_copy(update={"until": now + timedelta(days=9), "at_least": now + timedelta(days=8)})
    task = task.model_copy(update={"copies": CopyTask(**dict(task.copies or {}) | {"lock": longer})})
    target.on("lock").raises(AccessDenied("refused"))
    assert pod.run(task) == 0
    assert pod.results == {"one": "LockNotExtended", "two": ""}


def test_task_without_a_target_is_refused(tmp_path: Path, backups: Backups) -> None:
    pod = CopyPod(tmp_path, backups.store, MemoryStore())
    assert pod.run(task_for(backups, "one").model_copy(update={"copies": None})) == 3
    assert pod.report.reason == "InvalidInput"


def test_report_of_a_full_run_fits() -> None:
    failed = [
        CopyResult(backup_id=f"{number:036d}", reason="CertificateNotTrusted", message="é" * 500)
        for number in range(COPIES_OF_A_RUN)
    ]
    encoded = encode_report(MoverReport(succeeded=True, message="m" * 300, copies=failed))
    assert len(encoded) <= REPORT_LIMIT
    assert [found["reason"] for found in json.loads(encoded)["copies"]] == ["CertificateNotTrusted"] * COPIES_OF_A_RUN
    assert MoverReport.model_validate_json(encoded).copies[-1].backup_id == failed[-1].backup_id
    until = datetime(2026, 5, 4, 3, 0, 1, tzinfo=UTC)
    made = [found.model_copy(update={"reason": "", "message": "", "locked_until": until}) for found in failed]
    assert len(encode_report(MoverReport(succeeded=True, copies=made))) <= REPORT_LIMIT


def test_task_of_a_full_run_names_all_backups(backups: Backups) -> None:
    expected = [ExpectedBackup(volume_id=VOLUME, backup_id=str(number)) for number in range(COPIES_OF_A_RUN)]
    copies = CopyTask(target=StoreLocation(container=TARGET, prefix=PREFIX), backups=expected)
    task = task_for(backups, "one").model_copy(update={"copies": copies})
    assert MoverTask.model_validate_json(task.model_dump_json(by_alias=True)) == task
