"""The mover process reads a task, and leaves a report and an exit code."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from cinderblock.api.losses import Loss
from cinderblock.api.mover import (
    EXIT_PERMANENT,
    REPORT_LIMIT,
    TASK_VARIABLE,
    MoverOperation,
    MoverProgress,
    MoverReport,
    MoverTask,
    StoreLocation,
    task_to_env,
)
from cinderblock.errors import StoreUnreachable
from cinderblock.mover.access import read_key_ring
from cinderblock.mover.main import main
from cinderblock.mover.progress_log import ProgressPrinter
from cinderblock.mover.report import encode_report
from cinderblock.repository.progress import Progress
from cinderblock.store.base import ObjectStore
from cinderblock.store.counted import CountedStore
from cinderblock.store.credentials import Credentials, S3Credentials
from cinderblock.store.factory import open_store
from cinderblock.store.memory import MemoryStore
from tests.support.mover.backups import Backups, key_ring
from tests.support.store.faults import FaultyStore

MIB = 1 << 20


class Pod:
    """The environment of a mover.

    Attributes:
        store: what the opener gives.
        secrets: where Secrets are mounted.
        out: its standard output.
    """

    def __init__(self, path: Path, keys: Mapping[str, bytes] | None = None) -> None:
        self.store: ObjectStore = MemoryStore()
        self.secrets = path / "secrets"
        self.out = io.StringIO()
        self.log = path / "termination-log"
        self.log.touch()
        self.opened: list[tuple[StoreLocation, Credentials, str | None]] = []
        (self.secrets / "credentials").mkdir(parents=True)
        (self.secrets / "credentials" / "AWS_ACCESS_KEY_ID").write_text("id\n")
        (self.secrets / "credentials" / "AWS_SECRET_ACCESS_KEY").write_text("secret\n")
        if keys is not None:
            mount(self.secrets / "encryption", keys)

    def run(self, task: MoverTask | str) -> int:
        """Run the mover in this process."""
        return main(
            {TASK_VARIABLE: task} if isinstance(task, str) else task_to_env(task),
            secrets_directory=str(self.secrets),
            termination_log=str(self.log),
            out=self.out,
            opener=self.open,
        )

    def open(self, location: StoreLocation, credentials: Credentials, ca_file: str | None) -> ObjectStore:
        self.opened.append((location, credentials, ca_file))
        return self.store

    @property
    def report(self) -> MoverReport:
        """The report that the kubelet finds."""
        return MoverReport.model_validate_json(self.log.read_bytes())

    @property
    def lines(self) -> list[MoverProgress]:
        """The lines of the pod's log."""
        return [MoverProgress.model_validate_json(line) for line in self.out.getvalue().splitlines()]


def mount(directory: Path, data: Mapping[str, bytes]) -> None:
    """Write files like the kubelet: links into a directory of a generation."""
    generation = directory / "..2026_01_01"
    generation.mkdir(parents=True)
    (directory / "..data").symlink_to("..2026_01_01")
    for name, value in data.items():
        (generation / name).write_bytes(base64.b64encode(value) + b"\n")
        (directory / name).symlink_to(f"..data/{name}")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.mkdir()
    (path / "file").write_bytes(os.urandom(3 * MIB))
    return path


def test_backup_and_a_restore_end_with_success(tmp_path: Path, source: Path) -> None:
    pod = Pod(tmp_path, {"2024": b"a" * 32, "2025": b"b" * 32})
    tasks = Backups(keys=key_ring())
    assert pod.run(tasks.task(MoverOperation.BACKUP, "one", path=source)) == 0
    assert pod.report.succeeded
    assert pod.report.manifest == tasks.manifest_key("one")
    assert (pod.report.object_count, pod.report.logical_bytes) == (1, 3 * MIB)
    assert pod.lines[-1].bytes_done == pod.lines[-1].bytes_total
    assert Backups(pod.store, key_ring("2025")).open("one").header.key_id == "2025"
    target = tmp_path / "target"
    target.mkdir()
    assert pod.run(tasks.task(MoverOperation.RESTORE, "one", path=target)) == 0
    assert pod.report.restored_bytes == 3 * MIB
    assert (target / "file").read_bytes() == (source / "file").read_bytes()


def test_requests_are_counted_and_reported(tmp_path: Path, source: Path) -> None:
    pod, tasks = Pod(tmp_path), Backups()
    counted = CountedStore(pod.store)
    pod.store = counted
    assert pod.run(tasks.task(MoverOperation.BACKUP, "one", path=source)) == 0
    assert pod.report.requests == counted.counts.requests > 0
    assert (counted.counts.checks, counted.counts.puts) == (1, 2)


def test_active_key_of_the_task_seals(tmp_path: Path, source: Path) -> None:
    pod = Pod(tmp_path, {"2024": b"a" * 32, "2025": b"b" * 32})
    task = Backups(keys=key_ring()).task(MoverOperation.BACKUP, "one", path=source)
    assert pod.run(task.model_copy(update={"active_key": "2024"})) == 0
    assert Backups(pod.store, key_ring("2024")).open("one").header.key_id == "2024"


def test_store_is_opened_with_the_mounted_secrets(tmp_path: Path, source: Path) -> None:
    pod = Pod(tmp_path)
    (pod.secrets / "ca").mkdir()
    (pod.secrets / "ca" / "ca.crt").write_text("certificate")
    task = Backups().task(MoverOperation.BACKUP, "one", path=source)
    assert pod.run(task) == 0
    location, credentials, ca_file = pod.opened[0]
    assert location == task.store
    assert credentials == S3Credentials("id", "secret")
    assert ca_file == str(pod.secrets / "ca" / "ca.crt")


def test_sealed_backup_without_its_key_is_a_permanent_failure(tmp_path: Path, source: Path) -> None:
    pod = Pod(tmp_path)
    assert pod.run(Backups(keys=key_ring()).task(MoverOperation.BACKUP, "one", path=source)) == 3
    assert (pod.report.permanent, pod.report.reason) == (True, "KeyUnavailable")
    assert list(pod.store.list("")) == []


def test_store_that_is_away_is_a_transient_failure(tmp_path: Path, source: Path) -> None:
    pod = Pod(tmp_path)
    faulty = FaultyStore(MemoryStore())
    faulty.on("put").raises(StoreUnreachable("https://s3 does not answer"))
    pod.store = faulty
    assert pod.run(Backups().task(MoverOperation.BACKUP, "one", path=source)) == 4
    assert pod.report == MoverReport(
        succeeded=False, permanent=False, reason="StoreUnreachable", message="https://s3 does not answer"
    )


def test_missing_backup_is_a_permanent_failure(tmp_path: Path, source: Path) -> None:
    pod = Pod(tmp_path)
    assert pod.run(Backups().task(MoverOperation.RESTORE, "one", path=source)) == 3
    assert pod.report.reason == "NotFound"
    assert os.listdir(source) == ["file"]


def test_unexpected_error_is_transient_and_shows_no_details(tmp_path: Path, source: Path) -> None:
    pod = Pod(tmp_path)
    faulty = FaultyStore(MemoryStore())
    faulty.on("put").raises(RuntimeError("details for the log alone"))
    pod.store = faulty
    assert pod.run(Backups().task(MoverOperation.BACKUP, "one", path=source)) == 4
    assert pod.report.reason == "Unexpected"
    assert "details" not in pod.report.message


@pytest.mark.parametrize("text", ["", "{}", "no json", '{"operation": "dance"}'])
def test_malformed_task_is_a_permanent_failure_that_says_where(tmp_path: Path, text: str) -> None:
    pod = Pod(tmp_path)
    assert pod.run(text) == 3
    assert pod.report.reason == "InvalidInput"
    assert TASK_VARIABLE in pod.report.message


def test_process_without_a_task_says_who_starts_it(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.touch()
    assert main({}, termination_log=str(log), out=io.StringIO()) == 3
    assert "operator" in MoverReport.model_validate_json(log.read_bytes()).message


def test_without_a_termination_log_only_the_exit_code_remains(tmp_path: Path, source: Path) -> None:
    pod = Pod(tmp_path)
    pod.log.unlink()
    assert pod.run(Backups().task(MoverOperation.BACKUP, "one", path=source)) == 0
    assert not pod.log.exists()


@pytest.mark.parametrize("character", ["x", "ü", "\x01", '"', "\U0001f4be", "\udcff"])
def test_report_always_fits_and_is_json(character: str) -> None:
    report = MoverReport(
        succeeded=False,
        reason="TargetError",
        message=character * 10_000,
        manifest="m" * 900,
        warnings=[character * 1000] * 8,
        logical_bytes=1 << 62,
    )
    encoded = encode_report(report)
    assert len(encoded) <= REPORT_LIMIT
    parsed = MoverReport.model_validate_json(encoded)
    assert parsed.message
    assert (parsed.reason, parsed.manifest, parsed.logical_bytes) == ("TargetError", "m" * 900, 1 << 62)


@pytest.mark.parametrize("character", ["x", "ü", "\x01", "\U0001f4be"])
def test_report_of_many_losses_keeps_every_count(character: str) -> None:
    path = character * 255
    losses = [Loss(what=f"kind {number}", objects=number, examples=[path] * 3) for number in range(16)]
    report = MoverReport(succeeded=True, warnings=["w" * 255] * 8, losses=losses, unreadable_examples=[path] * 5)
    encoded = encode_report(report)
    assert len(encoded) <= REPORT_LIMIT
    parsed = MoverReport.model_validate_json(encoded)
    assert [(loss.what, loss.objects) for loss in parsed.losses] == [(loss.what, loss.objects) for loss in losses]
    assert parsed.unreadable_examples[0].startswith(character)


def test_short_report_is_unchanged() -> None:
    report = MoverReport(succeeded=True, message="well", warnings=["2 sockets left out"], restored_bytes=5)
    report = report.model_copy(update={"losses": [Loss(what="owners", objects=3, examples=["a", "b", "c"])]})
    assert MoverReport.model_validate_json(encode_report(report)) == report


@pytest.mark.parametrize("obstacle", ["directory", "file"])
def test_unreadable_encryption_key_is_a_permanent_failure(tmp_path: Path, source: Path, obstacle: str) -> None:
    """The error is about the Secret's permissions, so a retry cannot help."""
    pod = Pod(tmp_path)
    encryption = pod.secrets / "encryption"
    if obstacle == "directory":
        (encryption / "2025").mkdir(parents=True)
    else:
        encryption.write_text("no directory")
    assert pod.run(Backups().task(MoverOperation.BACKUP, "one", path=source)) == 3
    assert pod.report.reason == "AccessDenied"
    assert pod.report.message.startswith(f"Cannot read encryption key {encryption}")


def test_kubelets_own_entries_are_not_keys(tmp_path: Path) -> None:
    mount(tmp_path / "encryption", {"2024": b"a" * 32})
    ring = read_key_ring(str(tmp_path / "encryption"), None)
    assert ring is not None
    assert list(ring.key_ids) == ["2024"]
    assert read_key_ring(str(tmp_path / "nothing"), None) is None


STOPPED = """
import os, sys, threading
from cinderblock.mover.main import main
from cinderblock.store.memory import MemoryStore

class Stuck(MemoryStore):
    def put(self, key, body, lock=None):
        print("stuck", flush=True)
        threading.Event().wait()

sys.exit(main(os.environ, secrets_directory=sys.argv[1], termination_log=sys.argv[2], opener=lambda *_: Stuck()))
"""


def test_sigterm_ends_the_process_at_once_with_a_transient_report(tmp_path: Path, source: Path) -> None:
    pod = Pod(tmp_path)
    task = Backups().task(MoverOperation.BACKUP, "one", path=source)
    environment = os.environ | task_to_env(task) | {"PYTHONPATH": "operator"}
    command = [sys.executable, "-c", STOPPED, str(pod.secrets), str(pod.log)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while "stuck" not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 4
    assert (pod.report.succeeded, pod.report.permanent, pod.report.reason) == (False, False, "Terminated")


def test_progress_is_one_json_line_a_second_at_most() -> None:
    out, now = io.StringIO(), [100.0]
    printer = ProgressPrinter(out, clock=lambda: now[0])
    for step in range(100):
        now[0] = 100 + step / 20
        printer(Progress(step * MIB, 200 * MIB, step * 1000))
    printer.finish(succeeded=True)
    lines = [MoverProgress.model_validate(json.loads(line)) for line in out.getvalue().splitlines()]
    assert [line.bytes_done for line in lines] == [0, 20 * MIB, 40 * MIB, 60 * MIB, 80 * MIB, 99 * MIB]
    assert lines[2].bytes_per_second == 20 * MIB
    assert lines[2].seconds_left == 8
    assert lines[-1].bytes_total == lines[-1].bytes_done


def test_last_uploads_have_no_known_end() -> None:
    """All data is read, and packs still travel over a slow network for minutes."""
    out, now = io.StringIO(), [100.0]
    printer = ProgressPrinter(out, clock=lambda: now[0])
    for now[0], done in ((100.0, 0), (101.0, 9 * MIB), (102.0, 10 * MIB), (103.0, 10 * MIB)):
        printer(Progress(done, 10 * MIB, 0))
    printer.finish(succeeded=True)
    lines = [MoverProgress.model_validate(json.loads(line)) for line in out.getvalue().splitlines()]
    assert [line.seconds_left for line in lines] == [None, 1, None, None, 0]


def test_failed_run_does_not_claim_to_be_complete() -> None:
    out = io.StringIO()
    printer = ProgressPrinter(out, clock=lambda: 1.0)
    printer(Progress(5, 10, 0))
    printer.finish(succeeded=False)
    assert MoverProgress.model_validate_json(out.getvalue().splitlines()[-1]).bytes_total == 10


LONGEST = {f"{number:03}".ljust(255, "k"): "\U0001f9f1" * 255 for number in range(128)}
"""The largest metadata of a backup (128 items), in characters of four bytes."""
ECHO = "import os; from cinderblock.api import mover; print(mover.task_from_env(os.environ))"


def test_task_with_the_largest_metadata_reaches_the_process() -> None:
    task = Backups().task(MoverOperation.BACKUP, "one", path="/volume")
    task = task.model_copy(update={"backup": task.backup.model_copy(update={"metadata": LONGEST})})
    variables = task_to_env(task)
    assert len(variables) > 1
    command = [sys.executable, "-c", ECHO]
    output = subprocess.run(command, env=variables | {"PYTHONPATH": "operator"}, capture_output=True, check=True).stdout
    assert MoverTask.model_validate_json(output) == task


def test_endpoint_that_is_not_allowed_ends_the_run_before_any_request(tmp_path: Path, source: Path) -> None:
    pod = Pod(tmp_path)
    pod.open = open_store  # type: ignore[method-assign]
    task = Backups().task(MoverOperation.BACKUP, "one", path=source)
    url = "http://s3.example.invalid:9000"
    location = StoreLocation(endpoint_url=url, container="bucket", allowed_endpoints=["*.example.com"])
    assert pod.run(task.model_copy(update={"store": location})) == EXIT_PERMANENT
    assert pod.report.reason == "EndpointNotAllowed"
    assert url.rpartition(":")[0] in pod.report.message
