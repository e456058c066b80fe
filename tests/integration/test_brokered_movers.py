"""Movers of a shared store: a real S3 server, a broker that signs, and no credential and no key in the mover.

The broker is the small one of tests/support. It signs everything, and fails on demand.
"""

from __future__ import annotations

import io
import os
import random
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cinderblock.api.broker import CREDENTIALS_PATH, NEW_DATA_KEY_PATH, SIGN_PATH, TOKEN_DIRECTORY, UNWRAP_PATH
from cinderblock.api.mover import (
    EXIT_PERMANENT,
    EXIT_TRANSIENT,
    MoverOperation,
    MoverReport,
    MoverTask,
    VerifyTask,
    VolumeMode,
    task_to_env,
)
from cinderblock.api.v1alpha1.store import MoverAccess
from cinderblock.api.v1alpha1.verification import VerificationLevel
from cinderblock.archiver import renewal
from cinderblock.format import pack
from cinderblock.format.crypto.keyring import KeyRing
from cinderblock.mover.main import main
from cinderblock.reasons import Reason
from cinderblock.store.base import ObjectStore
from cinderblock.store.credentials import Credentials
from cinderblock.store.factory import open_store
from cinderblock.store.retrying import BROKERED_RETRIES, RetryPolicy
from tests.contract.s3_server import S3Server, s3_server
from tests.support.cluster.certificates import Authority
from tests.support.mover.backups import LATER, PREFIX, VOLUME, Backups, key_ring
from tests.support.mover.compare import compare_trees
from tests.support.mover.mover_pods import MoverPod
from tests.support.mover.trees import edit_tree, make_tree
from tests.support.store.faults import Crash, FaultyStore
from tests.support.store.signing_broker import SigningBroker, refuse, signing_broker

pytestmark = pytest.mark.integration

MIB = 1 << 20
SMALL_PACK = 2 * MIB
LARGE = 5 * MIB
"""Data of three packs: of what size they are does not matter to a broker."""
IMPATIENT = RetryPolicy(attempts=2, first_delay=0.01, check_attempts=2)


@pytest.fixture(autouse=True)
def _small_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Close packs early in the movers of this process, so that they need not move 60 MiB in each test."""
    monkeypatch.setattr(pack, "PACK_BYTES", SMALL_PACK)
    monkeypatch.setattr(renewal, "PACK_BYTES", SMALL_PACK)


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server() as running:
        yield running


@dataclass
class Movers:
    """Runs movers of one shared store, in this process.

    Attributes:
        server: the S3 server.
        broker: the broker.
        container: the bucket.
        secrets: where a pod has its token.
        tasks: makes tasks, and keeps pins.
        direct: the store with credentials, for tests.
    """

    server: S3Server
    broker: SigningBroker
    container: str
    secrets: Path
    direct: ObjectStore
    tasks: Backups
    mode: MoverAccess = MoverAccess.SIGNED_REQUESTS
    change: Callable[[ObjectStore], ObjectStore] = lambda store: store
    policy: RetryPolicy = BROKERED_RETRIES
    opened: list[Credentials] = field(default_factory=list)
    code: int = 0

    def task(self, operation: MoverOperation, backup: str, path: Path | str = "", **more: object) -> MoverTask:
        task = self.tasks.task(operation, backup, path=path, **more)  # type: ignore[arg-type]
        where = self.server.location(self.container, prefix=PREFIX)
        return task.model_copy(update={"store": where, "broker": self.broker.location(self.mode)})

    def run(self, task: MoverTask) -> MoverReport:
        """Run a mover, and return its report."""
        self.broker.owner = (VOLUME, task.backup.backup_id)
        self.broker.calls.clear()
        self.broker.signed.clear()
        log = self.secrets / "termination-log"
        log.write_bytes(b"")
        self.code = main(
            task_to_env(task),
            secrets_directory=str(self.secrets),
            termination_log=str(log),
            out=io.StringIO(),
            opener=self._open,
        )
        return MoverReport.model_validate_json(log.read_bytes())

    def back_up(self, path: Path, backup: str, parent: str | None = None, **more: object) -> MoverReport:
        """Run a backup that succeeds."""
        report = self.run(self.task(MoverOperation.BACKUP, backup, path, parent=parent, **more))
        assert report.succeeded, report
        assert report.pins is not None
        self.tasks.pins[backup] = report.pins
        return report

    def restore(self, backup: str, path: Path, **more: object) -> MoverReport:
        """Run a restore that succeeds."""
        path.mkdir(exist_ok=True)
        report = self.run(self.task(MoverOperation.RESTORE, backup, path, **more))
        assert report.succeeded, report
        return report

    def _open(self, location: object, credentials: Credentials, ca_file: str | None) -> ObjectStore:
        self.opened.append(credentials)
        return self.change(open_store(location, credentials, ca_file, self.policy))  # type: ignore[arg-type]


@pytest.fixture(params=[None, key_ring()], ids=["unsealed", "sealed"])
def movers(server: S3Server, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Movers]:
    keys: KeyRing | None = getattr(request, "param", None)
    container = f"shared-{uuid.uuid4().hex[:12]}"
    direct = open_store(server.location(container, prefix=PREFIX, create_container=True), server.credentials)
    secrets = tmp_path / "secrets"
    with closing(direct), signing_broker(secrets / TOKEN_DIRECTORY, server.credentials, keys=keys) as broker:
        direct.check()
        yield Movers(server, broker, container, secrets, direct, Backups(direct, keys))


def a_tree(path: Path, seed: int = 1) -> Path:
    """Return a tree with everything, and three packs of data."""
    make_tree(str(path), seed=seed)
    (path / "large").write_bytes(random.Random(seed).randbytes(LARGE))
    return path


def requests_of(broker: SigningBroker, method: str, part: str = "") -> int:
    """Return how many requests were signed."""
    return sum(request.method == method and part in request.url for request in broker.signed)


@pytest.mark.skipif(os.geteuid() != 0, reason="trees have owners and devices")
@pytest.mark.parametrize("mode", MoverAccess)
def test_backup_increment_restore_and_verification(movers: Movers, tmp_path: Path, mode: MoverAccess) -> None:
    movers.mode = mode
    source = a_tree(tmp_path / "source")
    full = movers.back_up(source, "one", data_timestamp=LATER, created_at=LATER)
    assert full.object_count >= 3
    edit_tree(str(source), seed=3, edits=20)
    second = movers.back_up(source, "two", "one", data_timestamp=LATER, created_at=LATER)
    assert second.transferred_bytes < full.transferred_bytes
    movers.restore("two", tmp_path / "target")
    assert compare_trees(str(source), str(tmp_path / "target"), holes=True) == []
    for level in (VerificationLevel.STRUCTURE, VerificationLevel.DATA):
        task = movers.task(MoverOperation.VERIFY, "two", verify=VerifyTask(level=level))
        report = movers.run(task)
        assert report.succeeded, report
        assert report.verification is not None
        assert (report.verification.damaged_count, report.verification.unreadable_count) == (0, 0)
        assert report.verification.packs >= 3
    used = CREDENTIALS_PATH if mode is MoverAccess.SESSION_CREDENTIALS else SIGN_PATH
    assert {path for path in movers.broker.calls if "data-keys" not in path} == {used}


@pytest.mark.skipif(os.geteuid() != 0, reason="trees have owners and devices")
def test_backups_with_and_without_a_broker_have_one_format(movers: Movers, tmp_path: Path) -> None:
    """A program with the keys reads what a mover without them wrote, and the other way round."""
    source = a_tree(tmp_path / "source")
    movers.back_up(source, "one")
    movers.tasks.verify("one")
    movers.tasks.back_up(source, "two", "one")
    movers.restore("two", tmp_path / "target")
    assert compare_trees(str(source), str(tmp_path / "target"), holes=True) == []
    (tmp_path / "other").mkdir()
    movers.tasks.restore("one", tmp_path / "other")
    assert compare_trees(str(source), str(tmp_path / "other"), holes=True) == []


def test_device_is_restored_byte_for_byte(movers: Movers, tmp_path: Path) -> None:
    image, target = tmp_path / "image", tmp_path / "target"
    content = random.Random(5).randbytes(3 * MIB) + bytes(10 * MIB) + random.Random(6).randbytes(MIB + 12345)
    image.write_bytes(content)
    target.write_bytes(bytes(len(content)))
    task = movers.task(MoverOperation.BACKUP, "one", image, mode=VolumeMode.BLOCK)
    assert movers.run(task).succeeded
    task = movers.task(MoverOperation.RESTORE, "one", target, mode=VolumeMode.BLOCK)
    assert movers.run(task).succeeded
    assert target.read_bytes() == content


def test_calls_of_the_broker_are_few(movers: Movers, tmp_path: Path) -> None:
    """Each request to the S3 server costs one call. Keys cost at most four for a backup, and two for a restore."""
    source, broker = tmp_path / "source", movers.broker
    source.mkdir()
    (source / "large").write_bytes(random.Random(1).randbytes(LARGE))
    report = movers.back_up(source, "one", data_timestamp=LATER, created_at=LATER)
    assert requests_of(broker, "PUT", "/packs/") == report.object_count + (broker.keys is not None)
    assert requests_of(broker, "PUT", ".manifest") == 1
    sealed = broker.keys is not None
    assert broker.calls[SIGN_PATH] == len(broker.signed)
    assert (broker.calls[NEW_DATA_KEY_PATH], broker.calls[UNWRAP_PATH]) == ((1, 1) if sealed else (0, 0))
    for number in range(3):
        (source / f"more{number}").write_bytes(random.Random(number + 9).randbytes(MIB))
        parent = "one" if number == 0 else f"more{number - 1}"
        movers.back_up(source, f"more{number}", parent, data_timestamp=LATER, created_at=LATER)
        assert (broker.calls[NEW_DATA_KEY_PATH], broker.calls[UNWRAP_PATH]) == ((1, 3) if sealed else (0, 0))
    movers.restore("more2", tmp_path / "target")
    assert (broker.calls[NEW_DATA_KEY_PATH], broker.calls[UNWRAP_PATH]) == ((0, 2) if sealed else (0, 0))


@pytest.mark.parametrize(("operation", "calls", "done"), [("put", 1, True), ("put", 3, False), ("delete", 0, True)])
def test_next_mover_resumes_after_a_death(
    movers: Movers, tmp_path: Path, operation: str, calls: int, done: bool
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "large").write_bytes(random.Random(1).randbytes(LARGE))

    def dying(store: ObjectStore) -> ObjectStore:
        faulty = FaultyStore(store)
        faulty.on(operation, "").crashes(done=done).after(calls)  # type: ignore[arg-type]
        return faulty

    movers.change = dying
    sealed = movers.broker.keys is not None
    if operation == "delete" and not sealed:
        pytest.skip("only a sealed backup deletes its data-key object")
    with pytest.raises(Crash):
        movers.run(movers.task(MoverOperation.BACKUP, "one", source))
    before = {info.key for info in movers.direct.list("") if "/packs/" in info.key}
    assert before
    movers.change = lambda store: store
    movers.back_up(source, "one")
    if sealed and operation == "put":
        # The data key of the dead mover was opened, so its packs are used.
        packs = {key for key in before if not key.endswith("data-key")}
        assert packs <= {info.key for info in movers.direct.list("")}
        assert requests_of(movers.broker, "PUT", "/packs/") < 4
    assert not [info.key for info in movers.direct.list("") if info.key.endswith("data-key")]
    movers.restore("one", tmp_path / "target")
    assert (tmp_path / "target" / "large").read_bytes() == (source / "large").read_bytes()


@pytest.mark.parametrize("movers", [key_ring()], ids=["sealed"], indirect=True)
def test_broker_that_dies_in_the_middle_ends_no_backup(movers: Movers, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "large").write_bytes(random.Random(1).randbytes(LARGE))
    movers.policy = RetryPolicy(attempts=100, first_delay=0.05, max_delay=0.2)
    stopped = threading.Event()

    def stopping(store: ObjectStore) -> ObjectStore:
        faulty = FaultyStore(store, sleep=lambda _: away())
        faulty.on("put", "/packs/").delays(1.0).after(2)
        return faulty

    def away() -> None:
        movers.broker.stop()
        stopped.set()
        threading.Timer(1.0, movers.broker.start).start()

    movers.change = stopping
    movers.back_up(source, "one")
    assert stopped.is_set()
    movers.tasks.verify("one")


@pytest.mark.parametrize("movers", [key_ring()], ids=["sealed"], indirect=True)
def test_absent_broker_is_a_temporary_failure(movers: Movers, tmp_path: Path) -> None:
    movers.policy = IMPATIENT
    (tmp_path / "source").mkdir()
    movers.broker.stop()
    report = movers.run(movers.task(MoverOperation.BACKUP, "one", tmp_path / "source"))
    assert (movers.code, report.reason, report.permanent) == (EXIT_TRANSIENT, Reason.BROKER_UNAVAILABLE, False)
    assert "broker" in report.message
    movers.broker.start()
    movers.back_up(tmp_path / "source", "one")


@pytest.mark.parametrize("movers", [key_ring()], ids=["sealed"], indirect=True)
@pytest.mark.parametrize("calls", [0, 4])
def test_refusal_ends_the_operation_and_says_why(movers: Movers, tmp_path: Path, calls: int) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "file").write_bytes(os.urandom(MIB))
    says = "ClusterBackupStore archive does not allow namespace shop."

    def refusing(store: ObjectStore) -> ObjectStore:
        if not calls:
            movers.broker.always = refuse("StoreNotAllowed", says)
            return store
        faulty = FaultyStore(store, sleep=lambda _: setattr(movers.broker, "always", refuse("StoreNotAllowed", says)))
        faulty.on("put").delays(1.0).after(1)
        return faulty

    movers.change = refusing
    report = movers.run(movers.task(MoverOperation.BACKUP, "one", tmp_path / "source"))
    assert (movers.code, report.reason, report.message) == (EXIT_PERMANENT, "StoreNotAllowed", says)


@pytest.mark.parametrize("movers", [key_ring()], ids=["sealed"], indirect=True)
def test_nothing_of_the_store_is_in_the_pod_or_the_report(movers: Movers, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    task = movers.task(MoverOperation.BACKUP, "one", tmp_path / "source")
    report = movers.run(task)
    files = b"".join(path.read_bytes() for path in movers.secrets.rglob("*") if path.is_file())
    shown = f"{task_to_env(task)} {report!r} {movers.opened!r} {files!r}"
    assert movers.server.credentials.secret_key not in shown
    assert movers.server.credentials.access_key not in shown


def test_task_with_a_broker_reads_no_mounted_secret(movers: Movers, tmp_path: Path) -> None:
    """A mover of a shared store must not fall back to Secrets, even if there are any."""
    for name in ("credentials", "encryption", "ca"):
        (movers.secrets / name).mkdir()
        (movers.secrets / name / "AWS_ACCESS_KEY_ID").write_text("wrong")
    (tmp_path / "source").mkdir()
    movers.back_up(tmp_path / "source", "one")


def test_authority_of_the_s3_server_comes_with_the_task(tmp_path: Path) -> None:
    """The mover of a shared store mounts no CA Secret, and can write no file."""
    authority = Authority("s3")
    identity = authority.sign("localhost")
    certificate, key = tmp_path / "s3.crt", tmp_path / "s3.key"
    certificate.write_bytes(identity.certificate)
    key.write_bytes(identity.key)
    trusted = tmp_path / "ca.crt"
    trusted.write_bytes(authority.certificate)
    with s3_server(certificate, key) as running:
        server = S3Server(running.url.replace("127.0.0.1", "localhost"), running.credentials)
        location = server.location("secure", prefix=PREFIX, create_container=True)
        secrets = tmp_path / "secrets"
        with (
            closing(open_store(location, server.credentials, str(trusted))) as direct,
            signing_broker(secrets / TOKEN_DIRECTORY, server.credentials) as broker,
        ):
            direct.check()
            movers = Movers(server, broker, "secure", secrets, direct, Backups(direct))
            (tmp_path / "source").mkdir()
            task = movers.task(MoverOperation.BACKUP, "one", tmp_path / "source")
            failed = movers.run(task)
            assert (movers.code, failed.reason) == (EXIT_PERMANENT, Reason.CERTIFICATE_NOT_TRUSTED)
            known = broker.location(s3_ca=authority.certificate.decode())
            assert movers.run(task.model_copy(update={"broker": known})).succeeded


@pytest.mark.skipif(os.geteuid() != 0, reason="a mount namespace needs root")
@pytest.mark.parametrize("movers", [key_ring()], ids=["sealed"], indirect=True)
def test_killed_mover_of_a_pod_is_resumed(movers: Movers, tmp_path: Path) -> None:
    """The program of the Job, with a token as its only file."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "large").write_bytes(random.Random(1).randbytes(80 * MIB))
    pod = MoverPod(tmp_path / "pod", token=movers.broker.token)
    task = movers.task(MoverOperation.BACKUP, "one", source)
    slow = task.store.model_copy(update={"upload_bytes_per_second": 30 * MIB})
    movers.broker.owner = (VOLUME, "one")
    with pod.start(task.model_copy(update={"store": slow})) as process:
        assert process.stdout is not None
        process.stdout.readline()
        while not requests_of(movers.broker, "PUT", "/packs/") > 2:
            assert process.stdout.readline()
        process.kill()
    report = pod.run(task)
    assert report.succeeded, report
    assert movers.broker.calls[NEW_DATA_KEY_PATH] == 2
    movers.tasks.verify("one")


def test_mover_of_a_store_that_became_read_only_fails_clearly(movers: Movers, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    movers.broker.always = refuse(Reason.STORE_READ_ONLY)
    report = movers.run(movers.task(MoverOperation.BACKUP, str(uuid.uuid4()), tmp_path))
    assert (report.succeeded, report.permanent, report.reason) == (False, True, "StoreReadOnly")
    assert movers.code == EXIT_PERMANENT
    assert list(movers.direct.list("")) == []
